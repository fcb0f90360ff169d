"""The checks of chapter 8: right answers pass, planted mistakes are named."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spd_mini import cluster
from spd_mini.exercises import ch08


def overlap(on: Tensor) -> Tensor:
    both = on.float().T @ on.float()
    return both / (on.sum(0)[:, None] + on.sum(0) - both)


def price(k: int) -> float:
    return math.log2(k * (k - 1) / 2) if k > 1 else 0.0


def bits(on: Tensor) -> float:
    """By the package, less what it asks for the joins."""
    m = on.shape[1]
    told = cluster.description_length(on.numpy(), torch.zeros(m).numpy())
    return told - (m - 1) * price(m)


def split(v: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    second = torch.linalg.pinv(torch.stack([p, q]))[:, 1] * (v @ q)
    return v - second, second


def gain(n: int, N: int, k: int) -> float:
    on = torch.zeros(N, 2, dtype=torch.bool)
    on[:n] = True
    return 2 * bits(on[:, :1]) - bits(on) - price(k)


def orthogonal(v: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    second = q * (v @ q) / (q @ q)
    return v - second, second


RIGHT: list[tuple[Callable[[Any], None], Any]] = [
    (ch08.check_1, overlap),
    (ch08.check_2, bits),
    (ch08.check_3, split),
    (ch08.check_3, lambda v, p, q: split(v, q, p)[::-1]),  # what reads neither may go to either
    (ch08.check_4, gain),
]

MISTAKES: list[tuple[Callable[[Any], None], Any, str]] = [
    (ch08.check_1, lambda on: on.float().T @ on.float(), "how often both are on"),
    (
        ch08.check_1,
        lambda on: on.float().T @ on.float() / (on.sum(0)[:, None] + on.sum(0)),
        "counted twice",
    ),
    (
        ch08.check_1,
        lambda on: on.float().T @ on.float() / on.sum(0)[:, None],
        "not the same from both",
    ),
    (ch08.check_1, lambda on: on.float().T @ on.float() / len(on), "number of inputs"),
    (
        ch08.check_1,
        lambda on: (on[:, :, None] == on[:, None, :]).float().mean(0),
        "count for nothing",
    ),
    (ch08.check_1, lambda on: torch.eye(4), "expected"),
    (ch08.check_1, lambda on: torch.eye(3), "should have shape"),
    (ch08.check_2, lambda on: bits(on) * math.log(2), "base 2"),
    (
        ch08.check_2,
        lambda on: bits(on) - math.log2(min(len(on), int(on.sum())) - int(on.sum(0).max()) + 1),
        "how large n is",
    ),
    (
        ch08.check_2,
        lambda on: bits(on) - ch08._choose(on.shape[1] * int(on.any(1).sum()), int(on.sum())),
        "which of the pieces",
    ),
    (
        ch08.check_2,
        lambda on: (
            bits(on)
            - ch08._choose(len(on), int(on.any(1).sum()))
            + ch08._choose(len(on), int(on.all(1).sum()))
        ),
        "not where all are",
    ),
    (
        ch08.check_2,
        lambda on: (
            bits(on)
            - ch08._choose(on.shape[1] * int(on.any(1).sum()), int(on.sum()))
            + ch08._choose(on.shape[1] * len(on), int(on.sum()))
        ),
        "m n bits",
    ),
    (ch08.check_2, lambda on: 0.0, "expected"),
    (ch08.check_3, orthogonal, "second sees p"),
    (ch08.check_3, lambda v, p, q: (v, torch.zeros_like(v)), "first sees q"),
    (ch08.check_3, lambda v, p, q: split(v, q, p), "Swapped"),
    (ch08.check_3, lambda v, p, q: (p, q), "do not sum to v"),
    (ch08.check_3, lambda v, p, q: (v,), "two read directions"),
    (ch08.check_4, lambda n, N, k: gain(n, N, k) + price(k), "has a price"),
    (
        ch08.check_4,
        lambda n, N, k: gain(n, N, k) + math.log2(min(N, 2 * n) - n + 1),
        "told for the pair",
    ),
    (ch08.check_4, lambda n, N, k: gain(n, N, k) + ch08._choose(N, n), "inputs once"),
    (ch08.check_4, lambda n, N, k: -gain(n, N, k), "The sign"),
    (ch08.check_4, lambda n, N, k: gain(n, N, k) * math.log(2), "base 2"),
    (ch08.check_4, lambda n, N, k: 1.0, "expected"),
]
