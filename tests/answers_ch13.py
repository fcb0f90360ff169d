"""The checks of chapter 13: right answers pass, planted mistakes are named."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spd_mini.exercises import ch13

Works = Callable[[frozenset[int]], bool]
Sets = list[frozenset[int]]


def lost(g: float, P: int) -> float:
    return (1 - g) ** 2 * 2 / ((P + 1) * (P + 2))


def enough(works: Works, k: int) -> Sets:
    subsets = [frozenset(s) for n in range(k + 1) for s in itertools.combinations(range(k), n)]
    return [s for s in subsets if works(s)]


def minimal(works: Works, k: int) -> Sets:
    return [s for s in enough(works, k) if not any(works(s - {i}) for i in s)]


def smallest(works: Works, k: int) -> Sets:
    found = minimal(works, k)
    return [s for s in found if len(s) == min(map(len, found))]


def one_piece(x: Tensor) -> float:
    return float(torch.linalg.svdvals(x)[1:].square().sum() / len(x))


def least_share(price: float, worth: float) -> float:
    q = 2 * price / worth
    return q if q <= 1 else math.inf


RIGHT: list[tuple[Callable[[Any], None], Any]] = [
    (ch13.check_1, lost),
    (ch13.check_2, minimal),
    (ch13.check_3, one_piece),
    (ch13.check_4, least_share),
]

MISTAKES: list[tuple[Callable[[Any], None], Any, str]] = [
    (ch13.check_1, lambda g, P: (1 - g) ** 2 / 3, "for one pathway"),
    (ch13.check_1, lambda g, P: (1 - g) ** 2 / (P + 1) ** 2, "square of the mean"),
    (ch13.check_1, lambda g, P: lost(0, P) * (1 - g), "shrinks with"),
    (ch13.check_1, lambda g, P: (1 - g) / (P + 1), "mean distance"),
    (ch13.check_1, lambda g, P: lost(g, 1) ** P, "do not multiply"),
    (ch13.check_1, lambda g, P: 7.0, "Expected"),
    (ch13.check_2, enough, "all that suffice"),
    (ch13.check_2, smallest, "Only the smallest"),
    (ch13.check_2, lambda works, k: minimal(works, k)[:1], "SPD stops there"),
    (ch13.check_2, lambda works, k: [], "Expected"),
    (ch13.check_3, lambda x: float(torch.linalg.svdvals(x)[0] ** 2 / len(x)), "keeps"),
    (ch13.check_3, lambda x: one_piece(x - x.mean(0)), "subtract the mean"),
    (ch13.check_3, lambda x: one_piece(x) * len(x), "not the sum"),
    (ch13.check_3, lambda x: one_piece(x) / x.shape[1], "only rows"),
    (
        ch13.check_3,
        lambda x: float(torch.linalg.svdvals(x)[-1] ** 2 / len(x)),
        "two are lost",
    ),
    (ch13.check_3, lambda x: -1.0, "Expected"),
    (ch13.check_4, lambda price, worth: 2 * price / worth, "no share"),
    (ch13.check_4, lambda price, worth: price / worth, "half of the cut rows"),
    (ch13.check_4, lambda price, worth: 0.0, "on every input"),
    (ch13.check_4, lambda price, worth: worth / (2 * price), "other way round"),
    (ch13.check_4, lambda price, worth: 0.9, "Expected"),
]
