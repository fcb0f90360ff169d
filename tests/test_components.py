"""Rank-one subcomponents: initialisation, inner activations, masked write-out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from spd_mini import components
from zoo import generator, randn

SIZES = st.integers(1, 4)


@given(d_out=SIZES, d_in=SIZES, C=st.integers(1, 6), R=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_initialisation_is_the_best_coefficient_on_random_unit_directions(
    d_out: int, d_in: int, C: int, R: int, seed: int
) -> None:
    W = randn(d_out, d_in, seed=seed, dtype=torch.float64)
    U, V = components.init_components(W, C, R, generator(seed))
    assert U.shape == (R, d_out, C)
    assert V.shape == (R, C, d_in)
    assert torch.allclose(V.norm(dim=2), torch.ones(R, C, dtype=W.dtype))
    for r in range(R):
        for c in range(C):
            u, v = U[r, :, c], V[r, c]
            # The best coefficient leaves a remainder that is orthogonal to u vᵀ, …
            assert torch.einsum("o,oi,i->", u, W - torch.outer(u, v), v).abs() < 1e-10
            # … and U_c = (u·Wv) u for a unit u: its length is |u·Wv|.
            unit = u / u.norm()
            assert torch.allclose(u.norm(), (unit @ W @ v).abs())


def test_initialisation_depends_on_its_generator_only() -> None:
    W = randn(3, 4)
    before = torch.get_rng_state()
    first = components.init_components(W, 5, 2, generator(1))
    assert torch.equal(torch.get_rng_state(), before)
    same = components.init_components(W, 5, 2, generator(1))
    other = components.init_components(W, 5, 2, generator(2))
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not torch.allclose(first[1], other[1])
    assert not torch.allclose(first[1][0], first[1][1]), "restarts must start differently"


def test_initial_directions_are_spread_over_the_sphere() -> None:
    _, V = components.init_components(randn(2, 3), 20_000, 1, generator())
    assert torch.allclose(V[0].mean(0), torch.zeros(3), atol=0.02)
    assert torch.allclose(V[0].mT @ V[0] / 20_000, torch.eye(3) / 3, atol=0.02)


@given(
    N=SIZES, d_out=SIZES, d_in=SIZES, C=SIZES, R=SIZES, seed=st.integers(0, 99), own=st.booleans()
)
@settings(max_examples=40)
def test_masked_application_is_the_masked_weight_row_by_row(
    N: int, d_out: int, d_in: int, C: int, R: int, seed: int, own: bool
) -> None:
    """write(m · (V a)) against U diag(m) V written out entry by entry, then applied in loops."""
    f64 = torch.float64
    U, V = randn(R, d_out, C, seed=seed, dtype=f64), randn(R, C, d_in, seed=seed + 1, dtype=f64)
    a = randn(*([R] if own else []), N, d_in, seed=seed + 2, dtype=f64)
    mask = torch.rand(R, C, N, generator=generator(seed + 3), dtype=f64)
    h = components.inner(a, V)
    out = components.write(h, U, mask)
    assert h.shape == (R, C, N)
    assert out.shape == (R, N, d_out)
    for r in range(R):
        for n in range(N):
            W = oracles.masked_weight(U[r].tolist(), V[r].tolist(), mask[r, :, n].tolist())
            x = (a[r, n] if own else a[n]).tolist()
            for o in range(d_out):
                want = sum(W[o][i] * x[i] for i in range(d_in))
                assert float(out[r, n, o]) == pytest.approx(want, abs=1e-12)


def test_worked_example() -> None:
    """U = [[1, 2]], V = [[3, 0], [0, 5]], a = (1, 1): h = (3, 5); mask (1, ½) writes 3 + 5 = 8."""
    U, V = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 0.0], [0.0, 5.0]]])
    h = components.inner(torch.ones(1, 2), V)
    assert h.flatten().tolist() == [3.0, 5.0]
    assert components.write(h, U, torch.tensor([[[1.0], [0.5]]])).item() == 8.0
    assert components.write(h, U).item() == 13.0


def test_no_mask_equals_a_mask_of_ones_and_gives_UV() -> None:
    U, V, a = randn(2, 3, 5), randn(2, 5, 4, seed=1), randn(6, 4, seed=2)
    h = components.inner(a, V)
    plain = components.write(h, U)
    assert torch.equal(plain, components.write(h, U, torch.ones_like(h)))
    assert torch.allclose(plain, a @ (U @ V).mT, atol=1e-5)


def test_order_and_sign_of_subcomponents_change_nothing() -> None:
    U, V, a = randn(1, 3, 5), randn(1, 5, 4, seed=1), randn(6, 4, seed=2)
    mask = torch.rand(1, 5, 6, generator=generator(3))
    out = components.write(components.inner(a, V), U, mask)
    p = torch.tensor([3, 0, 4, 1, 2])
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0])
    U2, V2 = (U * sign)[:, :, p], (V * sign[:, None])[:, p]
    assert torch.allclose(components.write(components.inner(a, V2), U2, mask[:, p]), out, atol=1e-5)


def test_embedding_reads_the_column_of_its_token() -> None:
    V = randn(2, 3, 7)
    tokens = torch.tensor([6, 0, 0, 2])
    one_hot = torch.nn.functional.one_hot(tokens, 7).float()
    assert torch.equal(components.inner_embedding(tokens, V), components.inner(one_hot, V))
