"""Every loss against a number worked out by hand, and against a naive loop."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import oracles
from spd_mini import losses
from zoo import generator, randn, tms

F64 = torch.float64
SMALL = st.integers(1, 4)


def weights_of(B: int, seed: int) -> Tensor:
    w = torch.rand(B, generator=generator(seed), dtype=F64) + 0.01
    return w / w.sum()


# Worked out by hand


def test_faithfulness_by_hand() -> None:
    """W₁ − UV has entries 1, −2 (2 of them), W₂ − UV has entry 3 (1): (1 + 4 + 9) / 3."""
    weights = {"a": torch.tensor([[2.0, 1.0]]), "b": torch.tensor([[3.0]])}
    U = {"a": torch.tensor([[[1.0, 1.0]]]), "b": torch.tensor([[[0.0]]])}
    V = {"a": torch.tensor([[[1.0, 1.0], [0.0, 2.0]]]), "b": torch.tensor([[[7.0]]])}
    assert losses.faithfulness(weights, U, V).tolist() == pytest.approx([14 / 3])


def test_mse_by_hand() -> None:
    """Row 1: (1² + 3²)/2 = 5; row 2: 0. Plain mean 2.5; with weights (0.2, 0.8): 1."""
    out = torch.tensor([[[1.0, 3.0], [4.0, 4.0]]])
    target = torch.tensor([[0.0, 0.0], [4.0, 4.0]])
    assert losses.mse(out, target[None]).tolist() == [[5.0, 0.0]]
    assert losses.recon(out, target, losses.mse, None).tolist() == [2.5]
    weighted = losses.recon(out, target, losses.mse, torch.tensor([0.2, 0.8]))
    assert weighted.tolist() == pytest.approx([1.0])


def test_kl_by_hand() -> None:
    """Target (½, ½), output (¾, ¼): ½ log(½/¾) + ½ log(½/¼) = ½ log(4/3). Not symmetric."""
    out = torch.tensor([[[math.log(3.0), 0.0]]])
    target = torch.zeros(1, 1, 2)
    assert losses.kl(out, target).item() == pytest.approx(0.5 * math.log(4 / 3), abs=1e-6)
    other_way = 0.75 * math.log(3 / 2) + 0.25 * math.log(1 / 2)
    assert losses.kl(target, out).item() == pytest.approx(other_way, abs=1e-6)


@pytest.mark.parametrize(("p", "want"), [(1.0, 1.75), (2.0, 1.625), (0.5, 1.8535534)])
def test_importance_minimality_by_hand(p: float, want: float) -> None:
    """Two rows, g = (1, ½) and (1, 1): the mean of 1 + ½^p and 2, for p = 1, 2, ½."""
    g = torch.tensor([[[1.0, 1.0], [0.5, 1.0]]])
    got = losses.importance_minimality({"a": g}, {"a": p}, {"a": 1.0})
    assert got.tolist() == pytest.approx([want], abs=1e-6)


def test_importance_scale_by_hand() -> None:
    g = {"a": torch.ones(1, 2, 3), "b": torch.ones(1, 5, 3)}
    got = losses.importance_minimality(g, {"a": 1.0, "b": 1.0}, {"a": 10.0, "b": 0.5})
    assert got.tolist() == [22.5]


def test_frequency_by_hand() -> None:
    """Four rows; f = ½ for the first: ½ log2(1 + 2); f = ¼ for the second: ¼ log2(1 + 1)."""
    g = torch.tensor([[[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]])
    got = losses.frequency({"a": g}, {"a": 2.0})
    assert got.tolist() == pytest.approx([2 * (0.5 * math.log2(3) + 0.25)])


# Against naive loops, on random shapes


@given(shapes=st.lists(st.tuples(SMALL, SMALL, SMALL), min_size=1, max_size=3), R=SMALL)
@settings(max_examples=25)
def test_faithfulness_against_loops(shapes: list[tuple[int, int, int]], R: int) -> None:
    W, U, V = {}, {}, {}
    for k, (d_out, d_in, C) in enumerate(shapes):
        W[str(k)] = randn(d_out, d_in, seed=k, dtype=F64)
        U[str(k)] = randn(R, d_out, C, seed=k + 10, dtype=F64)
        V[str(k)] = randn(R, C, d_in, seed=k + 20, dtype=F64)
    got = losses.faithfulness(W, U, V)
    want = [
        oracles.faithfulness(
            list(W.values()), [u[r] for u in U.values()], [v[r] for v in V.values()]
        )
        for r in range(R)
    ]
    assert got.tolist() == pytest.approx(want, abs=1e-10)


@given(
    R=SMALL,
    B=SMALL,
    rest=st.lists(SMALL, max_size=2),
    K=st.integers(1, 4),
    seed=st.integers(0, 99),
    weighted=st.booleans(),
    name=st.sampled_from(["mse", "kl"]),
)
@settings(max_examples=60)
def test_recon_against_loops(
    R: int, B: int, rest: list[int], K: int, seed: int, weighted: bool, name: str
) -> None:
    """Outputs (B, K), (B, T, K), (B, T, S, K) alike, plain or weighted."""
    out = randn(R, B, *rest, K, seed=seed, dtype=F64)
    target = randn(B, *rest, K, seed=seed + 1, dtype=F64)
    weight = weights_of(B, seed) if weighted else None
    got = losses.recon(out, target, losses.DIVERGENCES[name], weight)
    naive = {"mse": oracles.mse, "kl": oracles.kl}[name]
    w = None if weight is None else weight.tolist()
    want = [oracles.row_mean(naive(out[r], target), w) for r in range(R)]
    assert got.tolist() == pytest.approx(want, abs=1e-10)


def test_mse_of_one_number_per_row() -> None:
    """A target that returns (B,) is as good as one that returns (B, 1)."""
    out, target = randn(2, 5), randn(5, seed=1)
    flat = losses.recon(out, target, losses.mse, None)
    deep = losses.recon(out[..., None], target[:, None], losses.mse, None)
    assert torch.equal(flat, deep)


@given(
    R=SMALL,
    C=SMALL,
    B=SMALL,
    T=SMALL,
    p=st.sampled_from([0.5, 0.9, 1.0, 1.5, 2.0, 3.0]),
    weighted=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_importance_losses_against_loops(
    R: int, C: int, B: int, T: int, p: float, weighted: bool, seed: int
) -> None:
    """One module that reads a row per example, one that reads T positions of each."""
    g = {
        "rows": torch.rand(R, C, B, generator=generator(seed), dtype=F64),
        "positions": torch.rand(R, C + 1, B * T, generator=generator(seed + 1), dtype=F64),
    }
    ps, scales = {"rows": p, "positions": 2.0}, {"rows": 1.0, "positions": 0.3}
    weight = weights_of(B, seed) if weighted else None
    w = None if weight is None else weight.tolist()
    got = losses.importance_minimality(g, ps, scales, weight)
    got_f = losses.frequency(g, scales, weight)
    for r in range(R):
        mine = [t[r] for t in g.values()]
        want = oracles.importance_minimality(mine, list(ps.values()), list(scales.values()), w)
        assert float(got[r]) == pytest.approx(want, abs=1e-6)
        want_f = oracles.frequency(mine, list(scales.values()), w)
        assert float(got_f[r]) == pytest.approx(want_f, abs=1e-10)


# Row weights: exact expectations


def test_weighted_batch_is_the_exact_expectation() -> None:
    """All 2³ patterns of three features at p = 0.3, weighted by probability, give E exactly.

    The same expectation comes out of the batch that leaves all-zero rows to one weighted row and
    repeats the others in proportion (p = ½: every pattern equally likely, 8 plain rows).
    """
    x = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=F64)
    p = 0.3
    weight = torch.where(x > 0, p, 1 - p).prod(1)
    out, target = (x @ randn(3, 2, dtype=F64))[None], x @ randn(3, 2, seed=1, dtype=F64)
    want = sum(float(w) * e for w, e in zip(weight, oracles.mse(out[0], target), strict=True))
    assert float(losses.recon(out, target, losses.mse, weight)) == pytest.approx(want, abs=1e-12)

    plain = losses.recon(out, target, losses.mse, None)  # p = ½
    stratified = torch.tensor([1 / 8] + [(1 - 1 / 8) / 7] * 7, dtype=F64)
    assert float(losses.recon(out, target, losses.mse, stratified)) == pytest.approx(float(plain))


@pytest.mark.parametrize("T", [1, 3])
def test_repeated_rows_equal_their_weights(T: int) -> None:
    """Weights (1, 3, 2)/6 on three rows = six plain rows, in every loss that takes weights."""
    weight, counts = torch.tensor([1.0, 3.0, 2.0], dtype=F64) / 6, torch.tensor([1, 3, 2])
    g = torch.rand(2, 4, 3, T, generator=generator(), dtype=F64)
    repeated = g.repeat_interleave(counts, dim=2).flatten(2)
    g = g.flatten(2)
    one = {"a": 1.0}
    a = losses.importance_minimality({"a": g}, {"a": 2.0}, one, weight)
    b = losses.importance_minimality({"a": repeated}, {"a": 2.0}, one, None)
    assert torch.allclose(a, b)
    assert torch.allclose(losses.batch_mean(g, weight), losses.batch_mean(repeated, None))


def test_float32_weights_serve_float64_losses() -> None:
    out, target = randn(1, 2, 3, dtype=F64), randn(2, 3, seed=1, dtype=F64)
    got = losses.recon(out, target, losses.mse, torch.tensor([0.5, 0.5]))
    assert got.dtype == F64
    assert torch.allclose(got, losses.recon(out, target, losses.mse, None))


def test_zero_rows_carry_no_reconstruction_signal() -> None:
    """On x = 0 a TMS gives relu(b) whatever is masked: the error is exactly 0 and without slope."""
    from spd_mini.model import Target

    target = Target(tms())
    U = {n: randn(1, *W.shape[:1], 3, seed=4).requires_grad_() for n, W in target.weight.items()}
    V = {n: randn(1, 3, W.shape[1], seed=5).requires_grad_() for n, W in target.weight.items()}
    masks = {n: torch.rand(1, 3, 2, generator=generator(6)) for n in target.names}
    x = torch.zeros(2, 4)
    loss = losses.recon(target.masked(x, U, V, masks), target(x), losses.mse, None)
    assert loss.item() == 0
    assert all(not g.any() for g in torch.autograd.grad(loss.sum(), [*U.values(), *V.values()]))


# Edges


@pytest.mark.parametrize("p", [0.3, 0.5, 0.9, 1.0, 2.0])
def test_power_has_a_finite_gradient_at_zero(p: float) -> None:
    g = torch.tensor([0.0, 0.25, 1.0], requires_grad=True)
    value = losses.power(g, p)
    value.sum().backward()
    value = value.detach()
    assert g.grad is not None
    assert bool(torch.isfinite(g.grad).all())
    assert value[1:].tolist() == pytest.approx([0.25**p, 1.0], abs=1e-6)
    assert float(value[0]) < 1e-3


@given(B=SMALL, K=st.integers(2, 4), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_divergences_are_zero_only_at_the_target(B: int, K: int, seed: int) -> None:
    target, other = randn(1, B, K, seed=seed), randn(1, B, K, seed=seed + 1)
    for divergence in losses.DIVERGENCES.values():
        assert torch.allclose(divergence(target, target), torch.zeros(1, B), atol=1e-6)
        assert bool((divergence(other, target) > 0).all())
    shifted = losses.kl(target + 5.0, target)
    assert torch.allclose(shifted, torch.zeros(1, B), atol=1e-5), "logits are free up to a constant"
