"""The checks of chapter 4: right answers pass, planted mistakes are named."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from spd_mini.exercises import ch04
from spd_mini.importance import hard_sigmoid, lower_leaky, upper_leaky


def penalty(gamma: Tensor, p: float) -> Tensor:
    return upper_leaky(gamma).pow(p).sum(1).mean()


def threshold(beta3: float, k: float, n: int, L: int) -> float:
    return math.sqrt(L * n * beta3 / (k * k * (4 / 3 - 2 ** (1 - L) + 3**-L)))


def smallest(W: Tensor) -> Tensor:
    K = W.T @ W
    return K.clone().fill_diagonal_(0).clamp(min=0).amax(0) / K.diagonal()


RIGHT: list[tuple[Callable[[Any], None], Any]] = [
    (ch04.check_1, lambda g: (1 - g) ** 2 / 3),
    (ch04.check_2, penalty),
    (ch04.check_3, {"mask": (0.01, 1, 0), "penalty": (0, 1, 0.01)}),
    (ch04.check_4, threshold),
    (ch04.check_5, smallest),
]

MISTAKES: list[tuple[Callable[[Any], None], Any, str]] = [
    (ch04.check_1, lambda g: (1 - g) ** 2, "mask at its floor"),
    (ch04.check_1, lambda g: (1 - g) ** 2 / 4, "square of the mean"),
    (ch04.check_1, lambda g: (1 - g) ** 2 / 12, "variance"),
    (ch04.check_1, lambda g: (1 - g) / 2, "squared before"),
    (ch04.check_1, lambda g: g, "Expected 0"),
    (ch04.check_1, lambda g: g.mean(), "one value for each g"),
    (ch04.check_2, lambda z, p: upper_leaky(z).pow(p).sum(), "sum over the batch"),
    (ch04.check_2, lambda z, p: upper_leaky(z).pow(p).mean(), "averages over subcomponents"),
    (ch04.check_2, lambda z, p: hard_sigmoid(z).pow(p).sum(1).mean(), "hard sigmoid"),
    (ch04.check_2, lambda z, p: lower_leaky(z).pow(p).sum(1).mean(), "lower-leaky"),
    (ch04.check_2, lambda z, p: upper_leaky(z).sum(1).mean(), "forget the power"),
    (ch04.check_2, lambda z, p: z.sum(), "Expected"),
    (ch04.check_3, {"mask": (0, 1, 0.01), "penalty": (0.01, 1, 0)}, "Swapped"),
    (ch04.check_3, {"mask": (0.0, 1.0, 0.0), "penalty": (0, 1, 0.01)}, "'mask': .* without a leak"),
    (ch04.check_3, {"mask": (0.01, 1, 0), "penalty": (0.01, 1, 0.01)}, "'penalty': leaky at both"),
    (ch04.check_3, {"mask": (0.01, 1, 0), "penalty": (0, 1, -0.01)}, "negative"),
    (ch04.check_3, {"mask": (1, 1, 1), "penalty": (0, 1, 0.01)}, "another arrangement"),
    (ch04.check_3, {"mask": (0.01, 1, 0)}, "three slopes each"),
    (ch04.check_4, lambda b, k, n, L: threshold(b / L, k, n, L), "all L layers"),
    (ch04.check_4, lambda b, k, n, L: threshold(b, k, 1, L), "divide by n"),
    (
        ch04.check_4,
        lambda b, k, n, L: math.sqrt(L * n * b / (k * k * (1 - 2 ** (1 - L) + 3**-L))),
        "layerwise loss is missing",
    ),
    (
        ch04.check_4,
        lambda b, k, n, L: math.sqrt(
            L * n * b / (k * k * (1 - 2 ** (1 - L) + 3**-L + (L if L > 1 else 1) / 3))
        ),
        "averaged over the L layers",
    ),
    (
        ch04.check_4,
        lambda b, k, n, L: math.sqrt(L * n * b / (k * k * ((1 - 0.5**L) ** 2 + 0.25))),
        "not \\(1 − average m\\)²",
    ),
    (ch04.check_4, lambda b, k, n, L: threshold(b, k, n, L) ** 2, "take the root"),
    (ch04.check_4, lambda b, k, n, L: 7.0, "Expected"),
    (
        ch04.check_5,
        lambda W: (W.T @ W).fill_diagonal_(0).abs().amax(0) / W.norm(dim=0) ** 2,
        "No absolute value",
    ),
    (ch04.check_5, lambda W: (W.T @ W).fill_diagonal_(0).amax(0).clamp(min=0), "W_j · W_j"),
    (ch04.check_5, lambda W: smallest(W) * W.norm(dim=0), "not by its square"),
    (ch04.check_5, lambda W: (W.T @ W).amax(0) / W.norm(dim=0) ** 2, "counted among its rivals"),
    (ch04.check_5, lambda W: smallest(W)[:3], "each of the 6 columns"),
    (ch04.check_5, lambda W: -smallest(W), "Expected"),
]
