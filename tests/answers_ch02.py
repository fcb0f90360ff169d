"""The checks of chapter 2: right answers pass, planted mistakes are named."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spd_mini.exercises import ch02


def ends(q: Tensor, g: Tensor, b: float) -> tuple[Tensor, Tensor]:
    """The lowest and the highest output within the allowed masks."""
    fixed, free = b + (g * q).sum(), (1 - g) * q
    return (fixed + free.clamp(max=0).sum()).relu(), (fixed + free.clamp(min=0).sum()).relu()


def worst(q: Tensor, g: Tensor, b: float) -> Tensor:
    y = (b + q.sum()).relu()
    low, high = ends(q, g, b)
    return torch.maximum(y - low, high - y)


def no_relu(q: Tensor, g: Tensor, b: float) -> Tensor:
    free = (1 - g) * q
    return torch.maximum(free.clamp(min=0).sum(), -free.clamp(max=0).sum())


def columns(W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return W, torch.eye(5), torch.eye(5)


def impostor(W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """True columns, and a pair that cancels."""
    write, read = 3 * torch.ones(2, 1), torch.ones(1, 5)
    return (
        torch.cat([W, write, -write], dim=1),
        torch.cat([torch.eye(5), read, read]),
        torch.cat([torch.eye(5), torch.zeros(5, 2)], dim=1),
    )


def faint(W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    U, V, g = impostor(W)
    U[:, 5:] *= 1e-3
    return U, V, g


def svd(W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two SVD pieces, the first of them called important everywhere."""
    U, S, V = torch.linalg.svd(W, full_matrices=False)
    return U * S, V, torch.tensor([[1.0, 0.0]]).expand(5, 2)


RIGHT: list[tuple[Callable[[Any], None], Any]] = [
    (ch02.check_1, worst),
    (ch02.check_2, lambda n, s: s / math.sqrt(6 * n)),
    (ch02.check_3, 0.3562),
    (ch02.check_4, impostor),
]

MISTAKES: list[tuple[Callable[[Any], None], Any, str]] = [
    (
        ch02.check_1,
        lambda q, g, b: ((b + (g * q).sum()).relu() - (b + q.sum()).relu()).abs(),
        "one corner",
    ),
    (ch02.check_1, lambda q, g, b: worst(q, 0 * g, b), "floors g"),
    (ch02.check_1, no_relu, "ReLU is missing"),
    (ch02.check_1, lambda q, g, b: ends(q, g, b)[1] - (b + q.sum()).relu(), "up only"),
    (ch02.check_1, lambda q, g, b: (b + q.sum()).relu() - ends(q, g, b)[0], "down only"),
    (ch02.check_1, lambda q, g, b: 9.0, "largest over all 2⁶ corners"),
    (ch02.check_2, lambda n, s: s / math.sqrt(12 * n), "two masks"),
    (ch02.check_2, lambda n, s: s * math.sqrt(n / 6), "full strength"),
    (ch02.check_2, lambda n, s: s * s / (6 * n), "variance"),
    (ch02.check_2, lambda n, s: s / (math.sqrt(6) * n), "one pair alone"),
    (ch02.check_2, lambda n, s: s, "worst case"),
    (ch02.check_2, lambda n, s: 7 * s, "Expected 0.4082"),
    (ch02.check_3, 0.4, "all-zero inputs"),
    (ch02.check_3, 0.0, "no such data set"),
    (ch02.check_3, 0.2, "the columns are cheaper"),
    (ch02.check_3, 0.6, "SVD is cheaper"),
    (ch02.check_3, "half", "should be numbers"),
    (ch02.check_4, lambda W: W, "three things"),
    (ch02.check_4, lambda W: (0.9 * W, *columns(W)[1:]), "do not add up"),
    (ch02.check_4, lambda W: (*columns(W)[:2], torch.ones(5, 5)), "exactly one piece"),
    (ch02.check_4, svd, "not reproduced"),
    (ch02.check_4, columns, "too honest"),
    (ch02.check_4, faint, "too honest"),
    (ch02.check_4, lambda W: (W.T, torch.eye(5), torch.eye(5)), "U should have shape"),
]
