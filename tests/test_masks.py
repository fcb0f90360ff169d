"""Masks: the interval [g, 1], and the worst mask found against all corners."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spd_mini import masks
from spd_mini.decomposition import Decomposition
from zoo import by_hand, constant_gates, generator, mlp, randn, rows, threshold_gates

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


def best_corner(d: Decomposition, x: Tensor) -> Tensor:
    """Largest error of each row over all r ∈ {0, 1}^C, by trying every one."""
    g, target_out = d.causal_importance(x), d.target(x)
    errors = []
    for bits in itertools.product([0.0, 1.0], repeat=sum(d.C.values())):
        parts = dict(zip(g, torch.tensor(bits).split(list(d.C.values())), strict=True))
        m = {n: g[n] + (1 - g[n]) * parts[n] for n in g}
        errors.append(d.divergence(d(x, m), target_out))
    return torch.stack(errors).max(0).values


@pytest.mark.parametrize("seed", range(6))
def test_worst_case_finds_the_worst_corner_of_a_linear_layer(seed: int) -> None:
    """On every row, and never above it (the error is convex in the mask)."""
    d, x = linear_case(seed)
    m = masks.worst_case(d, x, steps=10, starts=16)
    found = d.divergence(d(x, m), d.target(x))
    corner = best_corner(d, x)
    assert bool((found <= corner * (1 + 1e-5)).all())
    assert bool((found >= corner * (1 - 1e-5)).all()), (found / corner).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_worst_case_through_two_layers_comes_near_the_best_corner(seed: int) -> None:
    """No convexity here: an interior point may do better, and 1 % less is let pass."""
    d, x = mlp_case(seed)
    m = masks.worst_case(d, x, steps=20, starts=8)
    found = d.divergence(d(x, m), d.target(x))
    corner = best_corner(d, x)
    assert bool((found >= 0.99 * corner).all()), (found / corner).tolist()


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
