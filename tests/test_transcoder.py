"""Transcoders: latents and losses by hand, top-k, unit columns, live counts, runs, errors."""

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spd_mini.baselines import transcoder as tc
from spd_mini.baselines.transcoder import Transcoder, TranscoderConfig, Weights
from spd_mini.model import Target
from spd_mini.targets.sparse import SparseFeatures
from zoo import TokenModel, generator, randn, state_of, tms, tokens, triangle

QUICK = TranscoderConfig(steps=20, batch_size=8, lr=1e-2)


def sample(stratified: bool = False) -> SparseFeatures:
    return SparseFeatures(4, 0.2, stratified=stratified)


def weights_of(R: int, S: int, d_in: int = 3, d_out: int = 2, seed: int = 0) -> Weights:
    shapes = ((R, S, d_in), (R, S, 1), (R, d_out, S), (R, d_out, 1))
    return Weights(*(randn(*shape, seed=seed + i) for i, shape in enumerate(shapes)))


def by_hand() -> Weights:
    """E a + b = (a_0 − 1, 2 a_1, −a_0); D writes e_0, e_1 and e_0; c = (½, 0)."""
    E = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]])
    b = torch.tensor([[[-1.0], [0.0], [0.0]]])
    D = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]])
    return Weights(E, b, D, torch.tensor([[[0.5], [0.0]]]))


A = torch.tensor([[3.0, 0.5], [-1.0, 2.0]])


def test_latents_and_outputs_by_hand() -> None:
    z = tc.encode(by_hand(), A)
    assert z.mT.tolist() == [[[2.0, 1.0, 0.0], [0.0, 4.0, 1.0]]]
    assert tc.decode(by_hand(), z).tolist() == [[[2.5, 1.0], [1.5, 4.0]]]
    assert tc.encode(by_hand(), A, 1).mT.tolist() == [[[2.0, 0.0, 0.0], [0.0, 4.0, 0.0]]]


@pytest.mark.parametrize(
    ("topk", "rows", "want"),
    [
        (None, None, [4.25, 4.0]),
        (None, [0.25, 0.75], [5.75, 4.5]),
        (1, None, [7.25, 3.0]),
    ],
)
def test_losses_by_hand(topk: int | None, rows: list[float] | None, want: list[float]) -> None:
    """ŷ = (2½, 1), (1½, 4) against y = (3, 2), (2½, 1½): errors 1¼ and 7¼; latents add up to 3, 5.

    The highest alone: ŷ = (2½, 0), (½, 4), errors 4¼ and 10¼, latents 2 and 4.
    """
    y = torch.tensor([[3.0, 2.0], [2.5, 1.5]])
    weight = None if rows is None else torch.tensor(rows)
    assert tc.loss_terms(by_hand(), A, y, topk, weight)[:, 0].tolist() == pytest.approx(want)


@given(R=st.integers(1, 3), S=st.integers(1, 4), N=st.integers(1, 4), k=st.integers(1, 5))
@settings(max_examples=25)
def test_latents_against_a_naive_loop(R: int, S: int, N: int, k: int) -> None:
    weights, a = weights_of(R, S), randn(N, 3, seed=9)
    got, out = tc.encode(weights, a, k), tc.decode(weights, tc.encode(weights, a, k))
    for r in range(R):
        for i in range(N):
            z = [max(0.0, float(weights.E[r, s] @ a[i] + weights.b[r, s, 0])) for s in range(S)]
            kept = sorted(range(S), key=lambda s: -z[s])[:k]
            z = [value if s in kept else 0.0 for s, value in enumerate(z)]
            assert got[r, :, i].tolist() == pytest.approx(z, abs=1e-5)
            y = weights.D[r] @ torch.tensor(z) + weights.c[r, :, 0]
            assert out[r, i].tolist() == pytest.approx(y.tolist(), abs=1e-5)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_topk_keeps_exactly_k(k: int) -> None:
    """Where more than k are positive: the biases see to it."""
    weights = weights_of(2, 6)._replace(b=torch.full((2, 6, 1), 20.0))
    z, everything = (tc.encode(weights, randn(7, 3), n) for n in (k, None))
    assert (everything > 0).all()
    assert ((z > 0).sum(1) == k).all()
    assert torch.equal(z[z > 0], everything[z > 0])


def test_unit_columns() -> None:
    """(3, 4) becomes (0.6, 0.8); a column of zeros stays."""
    D = torch.tensor([[[3.0, 0.0, 0.0], [4.0, -2.0, 0.0]]])
    assert torch.allclose(tc.unit_columns(D), torch.tensor([[[0.6, 0.0, 0.0], [0.8, -1.0, 0.0]]]))


def test_what_a_layer_reads_and_writes() -> None:
    target = tms(identity=True)
    x = torch.rand(5, 4, generator=generator())
    a, y = tc.around(Target(target, ["hidden"]), x)
    assert target.hidden is not None
    assert torch.allclose(a, target.encoder(x))
    assert torch.allclose(y, target.hidden(a))
    assert not y.requires_grad


# Trained dictionaries


def made(weights: Weights, topk: int | None = None) -> Transcoder:
    return Transcoder(weights, TranscoderConfig(topk=topk), {})


def test_live_latents_by_hand() -> None:
    """Latents > 0 on inputs 1; 1 and 2; 2 of four (the others are below every threshold)."""
    model = made(by_hand())
    a = torch.cat([A, torch.tensor([[0.0, -1.0], [0.5, -1.0]])])
    assert model.live(a).tolist() == [True, True, True]
    assert model.live(a, share=0.5).tolist() == [False, True, False]
    assert made(by_hand(), 1).live(a).tolist() == [True, True, False]  # never the highest
    assert model.latents(a)[0].tolist() == [2.0, 1.0, 0.0]
    assert model(a)[1].tolist() == [1.5, 4.0]


@pytest.mark.parametrize(
    ("angle", "cosine", "want"),
    [
        ([0, 90, 0], 0.98, [True, True, False]),  # the first and third write e_0
        ([0, 90, 180], 0.98, [True, True, True]),  # opposite is not the same
        ([0, 10, 5], 0.98, [False, True, False]),  # both within 11.5° of the most used, the second
        ([0, 10, 5], 0.99, [True, True, False]),  # 5° from both, 10° from each other
        ([0, 20, 10], 0.98, [True, True, False]),
    ],
)
def test_distinct_latents_by_hand(angle: list[int], cosine: float, want: list[bool]) -> None:
    """Means ½, 1¼ and ¼ of four inputs: the second counts first, the third last."""
    turns = torch.tensor(angle).deg2rad()
    D = 3 * torch.stack([turns.cos(), turns.sin()])[None]  # lengths do not matter
    a = torch.cat([A, torch.tensor([[0.0, -1.0], [0.5, -1.0]])])
    assert made(by_hand()._replace(D=D)).distinct(a, cosine=cosine).tolist() == want


def test_latents_that_are_not_live_are_not_distinct() -> None:
    a = torch.cat([A, torch.tensor([[0.0, -1.0], [0.5, -1.0]])])
    assert made(by_hand()).distinct(a, share=0.5).tolist() == [False, True, False]
    assert not made(by_hand()).distinct(a[3:]).any()


def test_unexplained_variance_by_hand() -> None:
    """y = (2½, 1), (1½, 2): the first is met, the second missed by 2; Σ‖y − mean‖² = ½ + ½."""
    y = torch.tensor([[2.5, 1.0], [1.5, 2.0]])
    assert made(by_hand()).unexplained(A, y) == pytest.approx(4.0)


def test_tally_by_hand() -> None:
    """Live 3 and 2 (top-1), distinct 2 and 2: e_0 and e_1. Of (2, 0), (3, 4), (0, −1): e_0 alone.

    y = (2½, 1), (1½, 2): ŷ = (2½, 1), (1½, 4) misses 4 of 1; top-1's (2½, 0), (½, 4) misses 6.
    """
    wanted = torch.tensor([[2.0, 3.0, 0.0], [0.0, 4.0, -1.0]])
    a, y = A, torch.tensor([[2.5, 1.0], [1.5, 2.0]])
    got = tc.tally([made(by_hand()), made(by_hand(), 1)], a, y, wanted)
    assert got.flatten().tolist() == pytest.approx([3, 2, 1, 4, 2, 2, 1, 6])


def numbers(t: Transcoder) -> Tensor:
    return torch.cat([w.flatten() for w in t.weights])


def quick(
    sizes: list[int], seeds: list[int], config: TranscoderConfig = QUICK, **kwargs: Any
) -> list[Transcoder]:
    target = tms(identity=True)
    data = sample(kwargs.get("stratified", False))
    return tc.train(target, "hidden", data, sizes, config, seeds, device="cpu")


def test_same_seed_same_bits() -> None:
    (a,), (b,), (c,) = quick([4], [1]), quick([4], [1]), quick([4], [2])
    assert torch.equal(numbers(a), numbers(b))
    assert not torch.allclose(numbers(a), numbers(c), atol=1e-2)


@pytest.mark.parametrize("topk", [None, 2])
@pytest.mark.parametrize("stratified", [False, True])
def test_sizes_and_seeds_side_by_side_are_those_alone(topk: int | None, stratified: bool) -> None:
    """Filling up with zeros changes nothing for the smaller ones."""
    config = TranscoderConfig(steps=20, batch_size=8, lr=1e-2, topk=topk)
    together = quick([2, 5], [1, 7], config, stratified=stratified)
    facts = [(t.D.shape[1], t.info["seed"]) for t in together]
    assert facts == [(2, 1), (2, 7), (5, 1), (5, 7)]
    for t in together:
        (alone,) = quick([t.D.shape[1]], [t.info["seed"]], config, stratified=stratified)
        assert torch.allclose(numbers(t), numbers(alone), atol=1e-5)
        assert t.info["error"] == pytest.approx(alone.info["error"], rel=1e-4)


def test_columns_have_unit_length_after_training() -> None:
    for t in quick([3, 6], [0]):
        assert torch.allclose(t.D.norm(dim=0), torch.ones(t.D.shape[1]))
        assert tuple(t.E.shape) == (t.D.shape[1], 2)
        assert (tuple(t.b.shape), tuple(t.c.shape)) == ((t.D.shape[1],), (2,))


def test_starts_with_transposed_columns_where_shapes_allow() -> None:
    square, oblong = tc.initial(3, 3, 5, seed=0), tc.initial(4, 3, 5, seed=0)
    assert torch.equal(square.E, square.D.mT)
    assert tuple(oblong.E.shape) == (1, 5, 4)
    assert torch.allclose(oblong.E.norm(dim=2), torch.ones(1, 5))


def test_a_large_dictionary_starts_near_the_identity() -> None:
    """Each of 4000 directions in the plane reads 2 · 2 / 4000 of its own part of a."""
    a = randn(6, 2)
    weights = tc.initial(2, 2, 4000, seed=0)
    assert torch.allclose(weights.E.norm(dim=2), torch.full((1, 4000), 1e-3))
    assert torch.allclose(tc.decode(weights, tc.encode(weights, a))[0], a, atol=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("topk", [None, 2])
def test_training_explains_the_layer(topk: int | None) -> None:
    """The triangle's three directions, through an identity."""
    config = TranscoderConfig(sparsity_coeff=1e-3, steps=400, batch_size=64, lr=1e-2, topk=topk)
    target, data = triangle(identity=True), SparseFeatures(3, 0.2, stratified=True)
    (t,) = tc.train(target, "hidden", data, [8], config, device="cpu")
    x, _ = data(500, generator(5))
    assert t.unexplained(*tc.around(Target(target, ["hidden"]), x)) < 0.03


@pytest.mark.slow
def test_a_higher_price_makes_latents_smaller() -> None:
    cheap, dear = (
        quick([6], [0], TranscoderConfig(sparsity_coeff=c, steps=200, batch_size=32, lr=1e-2))[0]
        for c in (0.0, 0.3)
    )
    assert dear.info["l1"] < 0.8 * cheap.info["l1"]
    assert dear.info["error"] > cheap.info["error"]


def test_the_target_is_left_as_it_was() -> None:
    target = tms(identity=True)
    before, random = state_of(target), torch.get_rng_state()
    tc.train(target, "hidden", sample(), [3], QUICK, device="cpu")
    assert state_of(target) == before
    assert torch.equal(torch.get_rng_state(), random)


# Errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "TranscoderConfig.steps must be an integer ≥ 1, got 0"),
        ({"batch_size": 2.5}, "TranscoderConfig.batch_size must be an integer ≥ 1, got 2.5"),
        ({"topk": 0}, "TranscoderConfig.topk must be an integer ≥ 1, got 0"),
        ({"sparsity_coeff": -1.0}, "TranscoderConfig.sparsity_coeff must be ≥ 0, got -1.0"),
        ({"lr": 0.0}, "TranscoderConfig.lr must be > 0, got 0.0"),
    ],
)
def test_settings_that_make_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        TranscoderConfig(**change)


@pytest.mark.parametrize(
    ("sizes", "seeds"), [([], [0]), ([4], []), ([4, 4], [0]), ([4], [1, 1]), ([0, 4], [0])]
)
def test_sizes_and_seeds_must_make_sense(sizes: list[int], seeds: list[int]) -> None:
    with pytest.raises(ValueError, match="train needs one or more different sizes ≥ 1"):
        quick(sizes, seeds)


@pytest.mark.parametrize(
    ("target", "layer", "data"), [(tms(), "*coder", sample()), (TokenModel(), "embed", tokens)]
)
def test_one_linear_layer_is_needed(target: nn.Module, layer: str, data: Any) -> None:
    with pytest.raises(ValueError, match=r"layer must name one nn.Linear; .* matches \["):
        tc.train(target, layer, data, [4], QUICK)


def test_losses_that_are_not_finite_stop_the_run() -> None:
    batches = [torch.rand(4, 4)] * 3 + [torch.full((4, 4), 1e30)]
    with pytest.raises(FloatingPointError, match="the loss is not finite at step 3"):
        tc.train(tms(identity=True), "hidden", batches, [4], QUICK, device="cpu")
