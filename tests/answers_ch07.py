"""The checks of chapter 7: right answers pass, planted mistakes are named."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spd_mini.exercises import ch07


def contribution(E: Tensor, U: Tensor, V: Tensor, W_out: Tensor) -> Tensor:
    return torch.einsum("id,dk,kc,cf,if->ick", E, W_out, U, V, E)


def private(A: Tensor) -> Tensor | None:
    V = torch.linalg.pinv(A).mT
    return V if torch.allclose(V @ A.mT, torch.eye(len(A)), atol=1e-3) else None


def prices(q: float, B: int) -> tuple[tuple[float, float], tuple[float, float]]:
    f = 1 - (1 - q) ** 2
    return (2 * q, f), (2 * q * math.log2(1 + B * q), f * math.log2(1 + B * f))


def naive(M: Tensor, m: int, p: float) -> float:
    n = len(M)
    return p * (1 - m / n) / 6 + p * float(M.square().sum()) / (3 * n)


def embedding(M: Tensor, s: float) -> Tensor:
    return torch.linalg.cholesky(torch.eye(len(M)) + s * M)


def swapped(pairs: Any) -> Any:
    return tuple((b, a) for a, b in pairs)


RIGHT: list[tuple[Callable[[Any], None], Any]] = [
    (ch07.check_1, contribution),
    (ch07.check_2, private),
    (ch07.check_3, prices),
    (ch07.check_4, naive),
    (ch07.check_5, embedding),
]

MISTAKES: list[tuple[Callable[[Any], None], Any, str]] = [
    (
        ch07.check_1,
        lambda E, U, V, W: torch.einsum("kc,cf,if->ick", U, V, E),
        "adds to output i is missing",
    ),
    (
        ch07.check_1,
        lambda E, U, V, W: torch.einsum("id,dk,kc->ick", E, W, U),
        "reads of feature i is missing",
    ),
    (
        ch07.check_1,
        lambda E, U, V, W: (E @ W)[:, None] * torch.relu(torch.einsum("kc,cf,if->ick", U, V, E)),
        "No ReLU",
    ),
    (ch07.check_1, lambda E, U, V, W: 2 * contribution(E, U, V, W), "expected"),
    (ch07.check_1, lambda E, U, V, W: contribution(E, U, V, W).mT, "should have shape"),
    (ch07.check_2, lambda A: None, "there are such directions"),
    (ch07.check_2, lambda A: A, "length squared"),
    (ch07.check_2, lambda A: A / A.square().sum(1, keepdim=True), "they overlap"),
    (ch07.check_2, lambda A: torch.linalg.pinv(A).mT, "eight vectors in five dimensions"),
    (
        ch07.check_2,
        lambda A: torch.linalg.pinv(A).mT if A.shape[0] <= A.shape[1] else None,
        "a₄ = a₀ − a₁",
    ),
    (
        ch07.check_3,
        lambda q, B: (
            (2 * q, 2 * q),
            (2 * q * math.log2(1 + B * q), 2 * q * math.log2(1 + 2 * B * q)),
        ),
        "counts once",
    ),
    (ch07.check_3, lambda q, B: [(a / 2, b) for a, b in prices(q, B)], "two private"),
    (
        ch07.check_3,
        lambda q, B: (prices(q, B)[0], [v * math.log(2) for v in prices(q, B)[1]]),
        "base 2",
    ),
    (ch07.check_3, lambda q, B: swapped(prices(q, B)), "order is"),
    (ch07.check_3, lambda q, B: prices(q, B)[::-1], "First the pair"),
    (ch07.check_3, lambda q, B: ((1, 1), (1, 1)), "expected"),
    (ch07.check_4, lambda M, m, p: naive(0 * M, m, p), "mixing matrix is missing"),
    (ch07.check_4, lambda M, m, p: naive(M, len(M), p), "ignored features are missing"),
    (ch07.check_4, lambda M, m, p: len(M) * naive(M, m, p), "not a sum"),
    (ch07.check_4, lambda M, m, p: naive(M, m, 1.0), "with probability p"),
    (ch07.check_4, lambda M, m, p: naive(M, m, p) + naive(0 * M, m, p), "half of them"),
    (ch07.check_4, lambda M, m, p: naive(M, len(M) - m, p), "served"),
    (
        ch07.check_4,
        lambda M, m, p: naive(3**0.5 * M, m, p),
        "is a third",
    ),
    (ch07.check_4, lambda M, m, p: 0.5, "expected"),
    (ch07.check_5, lambda M, s: torch.eye(6) + s * M, "a root of it"),
    (ch07.check_5, lambda M, s: embedding(M, 1.0), "s is ignored"),
    (ch07.check_5, lambda M, s: embedding(M, 1.0) * s**0.5, "length 1"),
    (ch07.check_5, lambda M, s: embedding(M, s * s), "not s times M"),
]
