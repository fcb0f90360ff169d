"""Leaky hard sigmoids and the importance MLPs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import oracles
from spd_mini import importance
from spd_mini.importance import Gates
from zoo import generator, randn

POINTS = [-200.0, -2.0, -0.5, 0.25, 0.5, 0.75, 1.5, 3.0, 201.0]


def gates(R: int, C: int, hidden: int, seed: int, dtype: torch.dtype) -> Gates:
    shape = (R, C, hidden)
    w_in, b_in, w_out = (randn(*shape, seed=seed + k, dtype=dtype) for k in range(3))
    return Gates(w_in, b_in, w_out, randn(R, C, seed=seed + 3, dtype=dtype))


@pytest.mark.parametrize(
    ("function", "want"),
    [
        (importance.hard_sigmoid, [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]),
        (importance.lower_leaky, [-2, -0.02, -0.005, 0.25, 0.5, 0.75, 1, 1, 1]),
        (importance.upper_leaky, [0, 0, 0, 0.25, 0.5, 0.75, 1.005, 1.02, 3]),
    ],
)
def test_sigmoid_values(function: object, want: list[float]) -> None:
    assert callable(function)
    assert function(torch.tensor(POINTS)).tolist() == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize(
    ("function", "want"),
    [
        (importance.hard_sigmoid, [0, 0, 0, 1, 1, 1, 0, 0, 0]),
        (importance.lower_leaky, [0.01, 0.01, 0.01, 1, 1, 1, 0, 0, 0]),
        (importance.upper_leaky, [0, 0, 0, 1, 1, 1, 0.01, 0.01, 0.01]),
    ],
)
def test_sigmoid_gradients(function: object, want: list[float]) -> None:
    """Alive where it is meant to be: below 0 for the masks, above 1 for the penalty."""
    assert callable(function)
    gamma = torch.tensor(POINTS, requires_grad=True)
    function(gamma).sum().backward()
    assert gamma.grad is not None
    assert gamma.grad.tolist() == pytest.approx(want, abs=1e-7)


@given(gamma=st.floats(-50, 50))
def test_leaky_sigmoids_bracket_the_hard_one(gamma: float) -> None:
    x = torch.tensor(gamma, dtype=torch.float64)
    low, hard, up = (
        float(f(x))
        for f in (importance.lower_leaky, importance.hard_sigmoid, importance.upper_leaky)
    )
    assert low <= hard <= up + 1e-12
    assert low == pytest.approx(oracles.lower_leaky(gamma), abs=1e-12)
    assert up == pytest.approx(oracles.upper_leaky(gamma), abs=1e-12)
    assert 0 <= hard <= 1
    assert up >= 0, "a negative penalty would reward negative importance"
    assert low <= 1, "a mask's floor may not exceed 1"


@given(C=st.integers(1, 4), hidden=st.integers(1, 5), N=st.integers(1, 4), seed=st.integers(0, 999))
@settings(max_examples=30)
def test_readable_gates_against_scalar_arithmetic(C: int, hidden: int, N: int, seed: int) -> None:
    w = gates(1, C, hidden, seed, torch.float64)
    one = Gates(*(t[0] for t in w))
    h = randn(N, C, seed=seed + 9, dtype=torch.float64)
    got = importance.gate_logits(h, one)
    assert got.shape == (N, C)
    for n in range(N):
        for c in range(C):
            want = oracles.gate(
                float(h[n, c]),
                one.w_in[c].tolist(),
                one.b_in[c].tolist(),
                one.w_out[c].tolist(),
                float(one.b_out[c]),
            )
            assert float(got[n, c]) == pytest.approx(want, abs=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize(("R", "C", "N", "hidden"), [(1, 1, 1, 1), (1, 6, 5, 8), (3, 4, 7, 2)])
def test_batched_gates_equal_the_readable_form(
    dtype: torch.dtype, tolerance: float, R: int, C: int, N: int, hidden: int
) -> None:
    """Values, and gradients with respect to h and every gate weight."""
    w = gates(R, C, hidden, 0, dtype)
    h = randn(R, C, N, seed=7, dtype=dtype)
    upstream = randn(R, C, N, seed=8, dtype=dtype) / N

    def run(batched: bool) -> tuple[Tensor, list[Tensor]]:
        leaves = [t.clone().requires_grad_() for t in (h, *w)]
        mine = Gates(*leaves[1:])
        if batched:
            out = importance.gate_logits_batched(leaves[0], mine)
        else:  # the readable form knows no restarts
            out = torch.stack(
                [
                    importance.gate_logits(leaves[0][r].mT, Gates(*(t[r] for t in mine))).mT
                    for r in range(R)
                ]
            )
        return out, list(torch.autograd.grad((out * upstream).sum(), leaves))

    (slow, slow_grads), (fast, fast_grads) = run(False), run(True)
    assert torch.allclose(fast, slow, rtol=tolerance, atol=tolerance)
    for a, b in zip(fast_grads, slow_grads, strict=True):
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance)


def test_initial_gates_have_the_stated_variances() -> None:
    w = importance.init_gates(C=300, hidden=16, restarts=4, generator=generator())
    assert w.w_in.shape == w.b_in.shape == w.w_out.shape == (4, 300, 16)
    assert w.b_out.shape == (4, 300)
    assert float(w.w_in.var()) == pytest.approx(2, rel=0.05)
    assert float(w.w_out.var()) == pytest.approx(1 / 16, rel=0.05)
    assert abs(float(w.w_in.mean())) < 0.05
    assert not w.b_in.any()
    assert not w.b_out.any()


def test_initial_gates_depend_on_their_generator_only() -> None:
    before = torch.get_rng_state()
    a, b = (importance.init_gates(3, 4, 2, generator(5)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a.w_in[0], a.w_in[1]), "restarts must start differently"


def test_penalty_reaches_the_read_directions() -> None:
    """h is not detached: the importance of h = V a has a gradient in V (METHOD, section 2)."""
    V = randn(1, 3, 2).requires_grad_()
    w = gates(1, 3, 4, 0, torch.float32)
    h = V @ randn(5, 2, seed=2).mT
    importance.upper_leaky(importance.gate_logits_batched(h, w)).sum().backward()
    assert V.grad is not None
    assert bool((V.grad != 0).any())
