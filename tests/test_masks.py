"""Masks: the interval [g, 1], and the worst mask found against all corners."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spd_mini import masks
from spd_mini.config import Config
from spd_mini.decomposition import Decomposition
from zoo import (
    by_hand,
    constant_gates,
    generator,
    mlp,
    randn,
    rows,
    threshold_gates,
    tms,
    token_model,
    tokens,
)

UNIT = st.floats(0, 1, width=32)


def test_worked_example() -> None:
    """g = ¼: r = 0 gives ¼, r = ½ gives ¼ + ¾·½ = 5/8, r = 1 gives 1."""
    g = torch.tensor([0.25])
    assert [float(masks.from_source(g, r)) for r in (0.0, 0.5, 1.0)] == [0.25, 0.625, 1.0]


@given(g=st.lists(UNIT, min_size=1, max_size=8), seed=st.integers(0, 999))
@settings(max_examples=60)
def test_masks_lie_between_importance_and_one(g: list[float], seed: int) -> None:
    floor = {"a": torch.tensor(g), "b": torch.tensor([g])}
    for m in (
        masks.random(floor, generator(seed)),
        masks.fixed(floor, 0.0),
        masks.fixed(floor, 0.3),
        masks.fixed(floor, 1.0),
    ):
        assert m.keys() == floor.keys()
        for n in floor:
            assert m[n].shape == floor[n].shape
            assert bool((m[n] >= floor[n]).all())
            assert bool((m[n] <= 1).all())


def test_full_importance_makes_masking_deterministic() -> None:
    g = {"a": torch.ones(3, 4)}
    for seed in range(5):
        assert torch.equal(masks.random(g, generator(seed))["a"], g["a"])


def test_random_masks_are_uniform_over_their_interval() -> None:
    g = torch.tensor([0.0, 0.25, 0.8]).expand(20_000, 3)
    m = masks.random({"a": g}, generator())["a"]
    assert torch.allclose(m.mean(0), (1 + g[0]) / 2, atol=0.01)
    assert torch.allclose(m.var(0), (1 - g[0]) ** 2 / 12, atol=0.002)
    assert torch.allclose(torch.corrcoef(m.mT), torch.eye(3), atol=0.03), "sources are independent"


def test_random_masks_depend_on_their_generator_only() -> None:
    g = {"a": torch.zeros(4), "b": torch.zeros(4)}
    before = torch.get_rng_state()
    first, same = (masks.random(g, generator(3)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[n], same[n]) for n in g)
    assert not torch.equal(first["a"], first["b"])
    assert not torch.equal(first["a"], masks.random(g, generator(4))["a"])


def test_fixed_masks() -> None:
    g = {"a": torch.tensor([0.0, 0.5, 1.0])}
    assert masks.fixed(g, 0.0)["a"].tolist() == [0.0, 0.5, 1.0]
    assert masks.fixed(g, 0.5)["a"].tolist() == [0.5, 0.75, 1.0]
    assert masks.fixed(g, 1.0)["a"].tolist() == [1.0, 1.0, 1.0]


# The worst case


def linear_case(seed: int, C: int = 5) -> tuple[Decomposition, Tensor]:
    """One linear layer: the error is convex in the mask, so its maximum is a corner."""
    model = nn.Sequential(nn.Linear(3, 2))
    with torch.no_grad():
        for k, p in enumerate(model.parameters()):
            p.copy_(randn(*p.shape, seed=seed + 50 + k))
    floors = torch.rand(C, generator=generator(seed)).mul(0.5).tolist()
    d = by_hand(
        model,
        {"0": randn(2, C, seed=seed)},
        {"0": randn(C, 3, seed=seed + 1)},
        {"0": constant_gates(floors)},
    )
    return d, randn(4, 3, seed=seed + 2)


def mlp_case(seed: int) -> tuple[Decomposition, Tensor]:
    model = mlp(seed)
    names = {"body.0": (5, 3), "head.out": (2, 5)}
    d = by_hand(
        model,
        {n: randn(o, 3, seed=seed) for n, (o, _) in names.items()},
        {n: randn(3, i, seed=seed + 1) for n, (_, i) in names.items()},
        {n: threshold_gates(3, at=0.6) for n in names},
    )
    return d, rows(3)(3, generator(seed))


def token_case(seed: int = 0) -> tuple[Decomposition, Tensor]:
    """Embedding and two linear layers, KL of sequences."""
    model = token_model(seed)
    shapes = {"embed": (4, 6), "mix": (4, 4), "unembed": (6, 4)}
    d = by_hand(
        model,
        {n: randn(o, 2, seed=seed + 1) for n, (o, _) in shapes.items()},
        {n: randn(2, i, seed=seed + 2) for n, (_, i) in shapes.items()},
        {n: threshold_gates(2, at=0.6) for n in shapes},
        config=Config(output_loss="kl"),
    )
    return d, tokens(2, generator(seed))


def plane_case(seed: int, C: int = 15) -> tuple[Decomposition, Tensor]:
    """Four features in the plane; C random subcomponents a matrix, some of them important."""
    model = tms(4, 2, seed=seed)
    names = {"encoder": (2, 4), "decoder": (4, 2)}
    d = by_hand(
        model,
        {n: randn(o, C, seed=seed + k) for k, (n, (o, _)) in enumerate(names.items())},
        {n: randn(C, i, seed=seed + 9 + k) for k, (n, (_, i)) in enumerate(names.items())},
        {n: threshold_gates(C, at=0.7) for n in names},
    )
    return d, 0.75 * torch.eye(4)


def largest_change(d: Decomposition, x: Tensor) -> Tensor:
    """The true largest change of any output of a `plane_case`, over all 2^(2C) corners: (B,).

    The hidden vector Σ m_c h_c U_c fills a polygon with at most 2C vertices, one for each way of
    ordering the plane; given the hidden vector, the worst decoder masks of an output are read off
    signs. An output is convex in the hidden vector before the ReLU, so vertices are enough.
    """
    g, target_out = d.causal_importance(x), d.target(x)
    bias = d.target.get_parameter("decoder.bias")
    found = []
    for i in range(len(x)):
        pieces = d.U["encoder"].mT * (d.V["encoder"] @ x[i])[:, None]  # (C, 2)
        angles = torch.atan2(pieces[:, 1], pieces[:, 0])
        turns = torch.cat([angles + math.pi / 2, angles - math.pi / 2]).remainder(2 * math.pi)
        turns = turns.sort().values
        turns = torch.cat([turns, turns[:1] + 2 * math.pi])
        between = (turns[1:] + turns[:-1]) / 2  # one direction in each sector
        on = torch.stack([between.cos(), between.sin()], 1) @ pieces.mT > 0
        m = torch.where(on, 1.0, g["encoder"][i])
        h = m @ pieces @ d.V["decoder"].mT  # (vertices, C)
        terms = h[:, :, None] * d.U["decoder"].mT
        floor = g["decoder"][i][:, None]
        ends = [terms * torch.where((terms > 0) == up, 1.0, floor) for up in (True, False)]
        outs = torch.stack([torch.relu(e.sum(1) + bias) for e in ends])
        found.append((outs - target_out[i]).abs().max())
    return torch.stack(found)


def best_corner(d: Decomposition, x: Tensor) -> Tensor:
    """Largest error of each row over all r ∈ {0, 1}^C, by trying every one."""
    g, target_out = d.causal_importance(x), d.target(x)
    errors = []
    for bits in itertools.product([0.0, 1.0], repeat=sum(d.C.values())):
        parts = dict(zip(g, torch.tensor(bits).split(list(d.C.values())), strict=True))
        m = {n: g[n] + (1 - g[n]) * parts[n] for n in g}
        errors.append(d.divergence(d(x, m), target_out))
    return torch.stack(errors).max(0).values


def change(d: Decomposition, x: Tensor, m: dict[str, Tensor]) -> Tensor:
    """Largest change of any output, row by row."""
    return (d(x, m) - d.target(x)).abs().flatten(1).amax(1)


@pytest.mark.parametrize("seed", range(6))
def test_worst_case_finds_the_worst_corner_of_a_linear_layer(seed: int) -> None:
    """On every row, and never above it (the error is convex in the mask)."""
    d, x = linear_case(seed)
    m = masks.worst_case(d, x, steps=10, starts=16)
    found = d.divergence(d(x, m), d.target(x))
    corner = best_corner(d, x)
    assert bool((found <= corner * (1 + 1e-5)).all())
    assert bool((found >= corner * (1 - 1e-5)).all()), (found / corner).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_worst_case_through_two_layers_comes_near_the_best_corner(seed: int) -> None:
    """No convexity here: an interior point may do better, and 1 % less is let pass."""
    d, x = mlp_case(seed)
    m = masks.worst_case(d, x, steps=20, starts=8)
    found = d.divergence(d(x, m), d.target(x))
    corner = best_corner(d, x)
    assert bool((found >= 0.99 * corner).all()), (found / corner).tolist()


@pytest.mark.slow
def test_worst_case_stays_allowed_and_beats_chance_and_its_own_start() -> None:
    d, x = linear_case(1)
    g, target_out = d.causal_importance(x), d.target(x)
    m = masks.worst_case(d, x)
    assert m.keys() == g.keys()
    for n in g:
        assert m[n].shape == g[n].shape
        assert bool((m[n] >= g[n]).all())
        assert bool((m[n] <= 1).all())
        assert not m[n].requires_grad
    found = d.divergence(d(x, m), target_out)
    for seed in range(50):
        chance = d.divergence(d(x, masks.random(g, generator(seed))), target_out)
        assert bool((found >= chance - 1e-6).all())
    more = masks.worst_case(d, x, steps=20, starts=8)
    assert bool((d.divergence(d(x, more), target_out) >= found - 1e-6).all()), "more can only help"


@pytest.mark.slow
def test_worst_case_attacks_each_row_on_its_own() -> None:
    """A row's result does not depend on its neighbours' errors."""
    d, x = linear_case(2)
    together = d.divergence(d(x, masks.worst_case(d, x, steps=10, starts=16)), d.target(x))
    for b in range(len(x)):
        alone = x[b : b + 1]
        error = d.divergence(
            d(alone, masks.worst_case(d, alone, steps=10, starts=16)), d.target(alone)
        )
        assert torch.allclose(error[0], together[b], rtol=0.01)


def test_worst_case_repeats_and_leaves_everything_alone() -> None:
    d, x = linear_case(3)
    before = [torch.get_rng_state(), d.U["0"].clone(), d.V["0"].clone()]
    a, b = (masks.worst_case(d, x, steps=3, seed=4) for _ in range(2))
    assert all(torch.equal(a[n], b[n]) for n in a)
    after = [torch.get_rng_state(), d.U["0"], d.V["0"]]
    assert all(torch.equal(s, t) for s, t in zip(before, after, strict=True))
    assert d.U["0"].grad is None


def test_worst_case_has_nothing_to_do_where_everything_matters() -> None:
    d, x = linear_case(4)
    d.gates["0"] = constant_gates([1.0] * 5)
    assert torch.equal(masks.worst_case(d, x, steps=2)["0"], torch.ones(4, 5))


@pytest.mark.parametrize(
    "budget", [{"steps": 0}, {"starts": 0}, {"step_size": 0.0}, {"step_size": float("nan")}]
)
def test_worst_case_refuses_a_budget_that_cannot_attack(budget: dict[str, float]) -> None:
    d, x = linear_case(0)
    with pytest.raises(ValueError, match="steps ≥ 1, starts ≥ 1 and step_size > 0; got") as error:
        masks.worst_case(d, x, **budget)  # type: ignore[arg-type]
    (name, value) = next(iter(budget.items()))
    assert f"{name}={value}" in str(error.value)


@pytest.mark.parametrize("aims", [-1, -5])
def test_worst_case_refuses_negative_aims(aims: int) -> None:
    with pytest.raises(ValueError, match=f"worst_case needs aims ≥ 0, got {aims}"):
        masks.worst_case(*linear_case(0), aims=aims)


def test_an_unknown_measure() -> None:
    d, x = linear_case(0)
    for attack in (masks.worst_case, masks.ladder, masks.corners):
        with pytest.raises(ValueError, match="'divergence' or 'output', got 'loss'"):
            attack(d, x, measure="loss")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_the_largest_change_of_an_output_is_found_exactly(seed: int) -> None:
    """30 pieces, 2^30 corners, of which geometry names the worst."""
    d, x = plane_case(seed)
    m = masks.worst_case(d, x, measure="output")
    torch.testing.assert_close(change(d, x, m), largest_change(d, x), rtol=1e-4, atol=1e-5)


def test_the_geometry_agrees_with_every_corner() -> None:
    """The oracle of the test before, against a model small enough to try everything."""
    d, x = plane_case(3, C=4)
    every = masks.corners(d, x, [(n, c) for n in d.names for c in range(4)], measure="output")
    assert len(every.errors) == 2**8
    torch.testing.assert_close(every.errors.amax(0), largest_change(d, x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", [plane_case, mlp_case, linear_case])
@pytest.mark.parametrize("shared", [False, True])
def test_the_corner_search_never_loses(case: object, shared: bool) -> None:
    """Everything gradient ascent finds is kept, and on the plane much more is found."""
    assert callable(case)
    gain = []
    for seed in range(3):
        d, x = case(seed)
        plain, searched = (
            d.divergence(d(x, masks.worst_case(d, x, shared=shared, aims=aims)), d.target(x))
            for aims in (0, 8)
        )
        if shared:
            plain, searched = plain.mean(), searched.mean()
        assert bool((searched >= plain).all())
        gain.append(float((searched / plain).mean()))
    if case is plane_case and not shared:
        assert max(gain) > 1.01


def test_gradient_ascent_by_hand() -> None:
    """One start, without the corner search, against a loop over rows and steps."""
    d, x = mlp_case(4)
    m = masks.worst_case(d, x, steps=3, step_size=0.3, starts=1, seed=7, aims=0)
    g, target_out = d.causal_importance(x), d.target(x)
    draws = generator(7)
    r = {n: torch.rand(v.shape, generator=draws) for n, v in g.items()}
    errors = [d.divergence(d(x), target_out)]
    for _ in range(4):
        for v in r.values():
            v.requires_grad_()
        errors.append(d.divergence(d(x, {n: g[n] + (1 - g[n]) * r[n] for n in g}), target_out))
        slopes = torch.autograd.grad(errors[-1].sum(), list(r.values()))
        r = {
            n: (v.detach() + 0.3 * s.sign()).clamp(0, 1)
            for (n, v), s in zip(r.items(), slopes, strict=True)
        }
    found = d.divergence(d(x, m), target_out)
    torch.testing.assert_close(found, torch.stack(errors).detach().amax(0))


@pytest.mark.slow
def test_shared_sources_are_shared() -> None:
    """m = g + (1 − g) r with one r for all rows; judged by the mean row."""
    d, x = linear_case(1)
    m = masks.worst_case(d, x, shared=True)["0"]
    assert torch.equal(m, m[:1].expand_as(m)), "these importances are the same on every row"
    every = masks.corners(d, x, [("0", c) for c in range(5)]).errors.mean(1)
    found = d.divergence(d(x, {"0": m}), d.target(x)).mean()
    torch.testing.assert_close(found, every.max())

    tokens_d, tokens_x = token_case()
    g = tokens_d.causal_importance(tokens_x)
    for n, mask in masks.worst_case(tokens_d, tokens_x, shared=True).items():
        r = (mask - g[n]) / (1 - g[n])
        free = g[n] < 1
        for c in range(tokens_d.C[n]):
            values = r[..., c][free[..., c]]
            assert torch.allclose(values, values[:1].expand_as(values)), "positions share it too"


@pytest.mark.slow
def test_sequences_and_tokens_are_attacked() -> None:
    d, x = token_case()
    g, target_out = d.causal_importance(x), d.target(x)
    m = masks.worst_case(d, x)
    assert {n: v.shape for n, v in m.items()} == {n: v.shape for n, v in g.items()}
    found = d.divergence(d(x, m), target_out)
    for seed in range(20):
        random = d.divergence(d(x, masks.random(g, generator(seed))), target_out)
        assert bool((found >= random).all())


def test_of_logits_the_probabilities_count() -> None:
    """A constant added to all logits is no change of the output under KL."""
    d, x = token_case()
    every = masks.corners(d, x, [("unembed", 0), ("unembed", 1)], measure="output")
    g = d.causal_importance(x)
    for code in range(4):
        bits = torch.tensor([float(code & 1), float(code >> 1)])
        out = d(x, {"unembed": g["unembed"] + (1 - g["unembed"]) * bits})
        moved = (out.log_softmax(-1) - d.target(x).log_softmax(-1)).abs().flatten(1).amax(1)
        torch.testing.assert_close(every.errors[code], moved)


# The ladder


@pytest.mark.slow
def test_the_ladder_rises() -> None:
    d, x = plane_case(0)
    found = masks.ladder(d, x, starts=2)
    assert list(found) == [1, 4, 20, 100]
    errors = [d.divergence(d(x, m), d.target(x)) for m in found.values()]
    for low, high in itertools.pairwise(errors):
        assert bool((high >= low).all())
    assert bool((errors[-1] > 1.01 * errors[0]).any()), "more steps must find something"


def test_a_single_step_crosses_the_box() -> None:
    """One step of length 1 from anywhere ends at a corner: the fast gradient sign method."""
    d, x = linear_case(2)
    m = masks.ladder(d, x, [1], starts=3)[1]["0"]
    g = d.causal_importance(x)["0"]
    assert bool(((m - g).abs() < 1e-6).logical_or((m - 1).abs() < 1e-6).all())


@pytest.mark.parametrize("rungs", [[], [4, 1], [1, 1]])
def test_rungs_must_rise(rungs: list[int]) -> None:
    with pytest.raises(ValueError, match=r"each higher than the last; got \["):
        masks.ladder(*linear_case(0), rungs)
    with pytest.raises(ValueError, match="steps ≥ 1, starts ≥ 1"):
        masks.ladder(*linear_case(0), [0, 1])


# Every corner


@pytest.mark.parametrize("rest", [1.0, 0.0, 0.3])
def test_corners_equal_a_loop(rest: float) -> None:
    d, x = mlp_case(2)
    free = [("head.out", 2), ("body.0", 0), ("body.0", 1)]
    found = masks.corners(d, x, free, rest=rest, chunk=7)
    assert found.free == free
    g, target_out = d.causal_importance(x), d.target(x)
    for code in range(8):
        m = {}
        for n in g:
            m[n] = g[n].clone()
            for c in range(d.C[n]):
                r = float(code >> free.index((n, c)) & 1) if (n, c) in free else rest
                m[n][:, c] += (1 - m[n][:, c]) * r
        torch.testing.assert_close(found.errors[code], d.divergence(d(x, m), target_out))
    at_worst = d.divergence(d(x, found.worst), target_out)
    torch.testing.assert_close(at_worst, found.errors.amax(0))


def test_folded_pieces_switch_as_one() -> None:
    """Three corners of the plain kind are among the folded ones; the index −1 says which."""
    d, x = mlp_case(2)
    free = [("body.0", 0)]
    folded = masks.corners(d, x, free, rest="folded")
    assert folded.free == [("body.0", 0), ("body.0", -1), ("head.out", -1)]
    on, off = (masks.corners(d, x, free, rest=rest).errors for rest in (1.0, 0.0))
    torch.testing.assert_close(folded.errors[[0b110, 0b111]], on)
    torch.testing.assert_close(folded.errors[[0b000, 0b001]], off)
    g = d.causal_importance(x)
    mixed = {"body.0": torch.ones_like(g["body.0"]), "head.out": g["head.out"]}
    torch.testing.assert_close(folded.errors[0b011], d.divergence(d(x, mixed), d.target(x)))


def test_without_a_list_the_live_pieces_are_free() -> None:
    d, x = linear_case(0)
    d.gates["0"] = constant_gates([0.0, 0.2, 0.05, 1.0, 0.11])
    found = masks.corners(d, x)
    assert found.free == [("0", 1), ("0", 3), ("0", 4)]
    assert found.errors.shape == (8, 4)
    d.gates["0"] = constant_gates([0.0] * 5)
    none = masks.corners(d, x)
    assert none.free == []
    torch.testing.assert_close(none.errors[0], d.divergence(d(x), d.target(x)))


def test_corners_of_sequences() -> None:
    """All positions of a row share a source."""
    d, x = token_case()
    free = [("embed", 0), ("mix", 1)]
    found = masks.corners(d, x, free, chunk=2)
    g = d.causal_importance(x)
    only_first = {n: torch.ones_like(v) for n, v in g.items()}
    only_first["mix"][..., 1] = g["mix"][..., 1]
    torch.testing.assert_close(found.errors[0b01], d.divergence(d(x, only_first), d.target(x)))


def test_too_many_corners_and_unknown_pieces() -> None:
    d, x = plane_case(0)
    every = [(n, c) for n in d.names for c in range(15)]
    with pytest.raises(ValueError, match="2\\^30 corners are too many to try; at most 16"):
        masks.corners(d, x, every)
    with pytest.raises(ValueError, match="2\\^4 corners are too many"):
        masks.corners(d, x, every[:4], most=3)
    with pytest.raises(ValueError, match=r"no such subcomponents: \[\('encoder', 15\)"):
        masks.corners(d, x, [("encoder", 15), ("hidden", 0), ("encoder", -1)])
