"""The checks of chapter 6: right answers pass, planted mistakes are named."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spd_mini.exercises import ch06


def blind(W: Tensor, i: int, j: int) -> tuple[Tensor, Tensor]:
    V = torch.stack([-W[1, [i, j]], W[0, [i, j]]], 1)
    return torch.linalg.inv(V), V


def swapped(W: Tensor, i: int, j: int) -> tuple[Tensor, Tensor]:
    return blind(W, j, i)


def transposed(W: Tensor, i: int, j: int) -> tuple[Tensor, Tensor]:
    _, V = blind(W, i, j)
    V = V / V.norm(dim=1, keepdim=True)
    return V.T, V


def missing(g: float, k: int) -> float:
    return (1 - g) ** 2 * (1 / 4 + 1 / (12 * k))


RIGHT: list[tuple[Callable[[Any], None], Any]] = [
    (ch06.check_1, lambda n, m, k: k * (n - m + 1)),
    (ch06.check_2, blind),
    (ch06.check_3, lambda n, m: m / n),
    (ch06.check_4, missing),
    (ch06.check_5, lambda k: 1 / math.cos(math.pi / k)),
]

MISTAKES: list[tuple[Callable[[Any], None], Any, str]] = [
    (ch06.check_1, lambda n, m, k: k * n, "can be blind to"),
    (ch06.check_1, lambda n, m, k: k * (n - m), "m − 1"),
    (ch06.check_1, lambda n, m, k: k * (n - 1), "more than one direction"),
    (ch06.check_1, lambda n, m, k: n - m + 1, "for one piece"),
    (ch06.check_1, lambda n, m, k: m * (n - m + 1), "only m of"),
    (ch06.check_1, lambda n, m, k: 0, "Expected"),
    (ch06.check_2, lambda W, i, j: torch.eye(2), "two things"),
    (ch06.check_2, swapped, "other way round"),
    (ch06.check_2, lambda W, i, j: (torch.eye(2), torch.eye(2)), "right angles"),
    (ch06.check_2, transposed, "do not sum"),
    (ch06.check_2, lambda W, i, j: (torch.eye(3), torch.eye(2)), "shape"),
    (ch06.check_3, lambda n, m: 1.0, "factor"),
    (ch06.check_3, lambda n, m: n / m, "other way round"),
    (ch06.check_3, lambda n, m: 1 / n, "equal parts"),
    (ch06.check_3, lambda n, m: 1 - m / n, "must supply"),
    (ch06.check_3, lambda n, m: -1.0, "Expected"),
    (ch06.check_4, lambda g, k: (1 - g) ** 2 / (3 * k), "never shrinks"),
    (ch06.check_4, lambda g, k: (1 - g) ** 2 / 3, "masks of their own"),
    (ch06.check_4, lambda g, k: (1 - g) ** 2 / 4, "variance of what is left"),
    (ch06.check_4, lambda g, k: (1 - g) ** 2 / (12 * k), "square of the mean"),
    (ch06.check_4, lambda g, k: (1 - g) ** 2 * (1 / 4 + 1 / (12 * k * k)), "not 1/k²"),
    (ch06.check_4, lambda g, k: (1 - g) * (1 / 4 + 1 / (12 * k)), "enters squared"),
    (ch06.check_4, lambda g, k: -1.0, "Expected"),
    (ch06.check_5, lambda k: math.cos(math.pi / k), "other way round"),
    (ch06.check_5, lambda k: 1 / math.cos(2 * math.pi / k), "half a gap"),
    (ch06.check_5, lambda k: 1 / (2 * math.cos(math.pi / k)), "one latent of two"),
    (ch06.check_5, lambda k: 1 / math.cos(math.pi / (2 * k)), "all the way round"),
    (ch06.check_5, lambda k: 1.0, "cheapest input"),
    (ch06.check_5, lambda k: -1.0, "Expected"),
]
