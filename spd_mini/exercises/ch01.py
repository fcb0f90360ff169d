"""Checks for the exercises of chapter 1."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from . import Wrong, as_tensor, check


@check
def check_1(share: Callable[[int, float], float]) -> str:
    """1.1: mean share of columns in use, given that the input is not all zero: p / (1 − (1−p)ⁿ)."""
    for n, p in ((5, 0.05), (40, 0.05), (3, 0.4), (1, 0.2)):
        some = 1 - (1 - p) ** n
        got = float(as_tensor(share(n, p), (), "share(n, p)"))
        likely = {
            "That counts the all-zero inputs as well; the question leaves them out.": p,
            "That is the number of columns; the question asks for their share.": n * p / some,
            "That is the chance that the input is not all zero; divide p by it.": some,
        }
        _compare(got, p / some, likely, f"n = {n}, p = {p}")
    return "one feature of many: the sparser the inputs, the smaller the part of W at work"


@check
def check_2(piece: Callable[[Tensor, int], tuple[Tensor, Tensor]]) -> str:
    """1.2: write and read direction of column j: u = W[:, j], v = e_j."""
    generator = torch.Generator().manual_seed(12)
    for m, n, j in ((2, 5, 0), (3, 4, 2), (4, 7, 6)):
        W = torch.randn(m, n, generator=generator)
        pair = piece(W, j)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise Wrong("Return two vectors: what the piece writes, and what it reads.")
        u = as_tensor(pair[0], (m,), "the write direction u")
        v = as_tensor(pair[1], (n,), "the read direction v")
        product, want = torch.outer(u, v), torch.zeros(m, n)
        want[:, j] = W[:, j]
        if torch.allclose(product, W[:, j : j + 1].expand(m, n), atol=1e-5):
            raise Wrong("It reads every feature alike; it should read feature j and nothing else.")
        if not torch.allclose(product[:, j], want[:, j], atol=1e-5):
            raise Wrong("Column j of u vᵀ is not column j of W. Is one of the two scaled?")
        if not torch.allclose(product, want, atol=1e-5):
            raise Wrong("u vᵀ touches other columns: v must be zero everywhere but at j.")
    return "u writes the column, v reads the feature; any scale may move between the two"


@check
def check_3(twin: Callable[[Tensor, int], Tensor]) -> str:
    """1.3: x ≥ 0 with x_i = 0 and W x = ½ W[:, i], on pentagons of any turn and shape."""
    generator = torch.Generator().manual_seed(13)
    for i in range(5):
        turn, wobble, size = torch.rand(3, 5, generator=generator)
        angle = 2 * math.pi * (torch.arange(5) / 5 + turn[0] + 0.04 * (wobble - 0.5))
        W = (0.8 + 0.4 * size) * torch.stack([angle.cos(), angle.sin()])
        W = W[:, torch.randperm(5, generator=generator)]
        x = as_tensor(twin(W, i), (5,), "twin(W, i)")
        if abs(x[i]) > 1e-6:
            raise Wrong(f"x[{i}] is {x[i]:.3g}: the twin must do without feature i.")
        if x.min() < -1e-5:
            raise Wrong(f"x has the entry {x.min():.3g}; features are never negative.")
        if torch.allclose(W @ x, W[:, i], atol=1e-4):
            raise Wrong("W x is the whole column; the question asks for half of it.")
        if not torch.allclose(W @ x, W[:, i] / 2, atol=1e-4):
            raise Wrong("W x is not ½ W[:, i]: the hidden vectors differ.")
    return "the same hidden vector, made by other columns"


@check
def check_4(interference: Callable[[Tensor, Tensor], float]) -> str:
    """1.4: largest |ReLU(W_j·W_i + b_j) − ReLU(b_j)| over i ≠ j."""
    generator = torch.Generator().manual_seed(14)
    for m, n in ((2, 5), (3, 6), (4, 9)):
        W = torch.randn(m, n, generator=generator) / m**0.5
        b = -0.3 * torch.rand(n, generator=generator) + 0.1
        overlap = W.T @ W
        z = overlap + b[:, None]  # row j: what output j sees on each input i

        def largest(change: Tensor, own: bool = False) -> float:
            return float((change if own else change.clone().fill_diagonal_(0)).abs().max())

        change = z.relu() - b.relu()[:, None]
        likely = {
            "That includes i = j, the feature that the row is for.": largest(change, own=True),
            "The ReLU is missing: what stays below zero changes no output.": largest(overlap),
            "The bias stays when the row goes; compare with ReLU(b_j), not with 0.": largest(
                z.relu()
            ),
            "The bias is missing: it hides most of the overlap.": largest(overlap.relu()),
        }
        got = float(as_tensor(interference(W, b), (), "interference(W, b)"))
        _compare(got, largest(change), likely, f"{n} features in {m} dimensions")
    return "small overlaps hide below the bias; the rest is interference"


def _compare(got: float, want: float, likely: dict[str, float], case: str) -> None:
    """Raises `Wrong` with the likely mistake whose value this is, or with the case."""
    if math.isclose(got, want, rel_tol=1e-4, abs_tol=1e-6):
        return
    for message, value in likely.items():
        if math.isclose(got, value, rel_tol=1e-4, abs_tol=1e-6):
            raise Wrong(message)
    raise Wrong(f"Expected {want:.4f} for {case}, got {got:.4f}.")
