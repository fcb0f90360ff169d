"""The checks of chapter 10: right answers pass, planted mistakes are named."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from spd_mini.exercises import ch10

Pair = tuple[Tensor, Tensor]


def rate(k: int) -> float:
    return 1 - 0.05 ** (1 / k)


def auc(failed: Iterable[float], recovered: list[float], tie: float = 0.5) -> float:
    wins = [1.0 if a > b else tie if a == b else 0.0 for a in failed for b in recovered]
    return sum(wins) / len(wins)


def null(C: int, full: float = math.pi) -> float:
    """By drawing."""
    generator = torch.Generator().manual_seed(0)
    angles = full * torch.rand(200_000, C, generator=generator)
    return float(angles.amin(1).cos().mean())


def spread(P: Tensor, u: Tensor) -> Pair:
    along = P @ u
    return along.abs().sum() / 2, (along**2 / 12).sum().sqrt()


def typical(P: Tensor, u: Tensor) -> Tensor:
    return spread(P, u)[1]


def worst(P: Tensor, u: Tensor) -> Tensor:
    return spread(P, u)[0]


RIGHT: list[tuple[Callable[[Any], None], Any]] = [
    (ch10.check_1, rate),
    (ch10.check_2, auc),
    (ch10.check_3, null),
    (ch10.check_4, spread),
]

MISTAKES: list[tuple[Callable[[Any], None], Any, str]] = [
    (ch10.check_1, lambda k: 0.05 ** (1 / k), "success rate"),
    (ch10.check_1, lambda k: 0.95**k, "solve for the rate"),
    (ch10.check_1, lambda k: 1 - 0.95 ** (1 / k), "no surprise"),
    (ch10.check_1, lambda k: 3 / k, "rule of thumb"),
    (ch10.check_1, lambda k: 0.5, "Expected"),
    (ch10.check_2, lambda f, r: auc(f, r, 0.0), "left out"),
    (ch10.check_2, lambda f, r: auc(f, r, 1.0), "not as a win"),
    (ch10.check_2, lambda f, r: auc(r, f), "other way round"),
    (ch10.check_2, lambda f, r: auc(f, r) * len(f) * len(r), "number of pairs"),
    (ch10.check_2, lambda f, r: -1.0, "Expected"),
    (ch10.check_3, lambda C: math.cos(math.pi / (C + 1)), "mean angle"),
    (ch10.check_3, lambda C: null(C, math.pi / 2), "other way"),
    (ch10.check_3, lambda C: 0.0, "best of them"),
    (ch10.check_3, lambda C: 0.9, "For C = 2"),
    (ch10.check_4, worst, "two numbers"),
    (ch10.check_4, lambda P, u: ((P @ u).sum(), typical(P, u)), "push back"),
    (ch10.check_4, lambda P, u: ((P @ u).abs().sum(), typical(P, u)), "left off"),
    (ch10.check_4, lambda P, u: (P.norm(dim=1).sum(), typical(P, u)), "whole lengths"),
    (
        ch10.check_4,
        lambda P, u: (P[P @ u > 0].sum(0).norm(), typical(P, u)),
        "length of the way",
    ),
    (ch10.check_4, lambda P, u: (9.0, typical(P, u)), "Expected"),
    (ch10.check_4, lambda P, u: (worst(P, u), typical(P, u) * 12**0.5), "1/12"),
    (ch10.check_4, lambda P, u: (worst(P, u), typical(P, u) ** 2), "root"),
    (ch10.check_4, lambda P, u: (worst(P, u), (P @ u).abs().sum() / 12**0.5), "in their squares"),
    (ch10.check_4, lambda P, u: (worst(P, u), 9.0), "Expected"),
]
