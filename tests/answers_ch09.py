"""The checks of chapter 9: right answers pass, planted mistakes are named."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from spd_mini.exercises import ch09


def by_layer(acts: Sequence[Tensor], grads: Sequence[Tensor], pieces: Sequence[Tensor]) -> Tensor:
    return torch.stack([(P @ a) @ g.T for a, g, P in zip(acts, grads, pieces, strict=True)])


def attribution(*parts: Sequence[Tensor]) -> Tensor:
    return by_layer(*parts).sum(0).square().sum(1)


def chosen(scores: Tensor, k: float) -> Tensor:
    cut = scores.flatten().topk(int(k * len(scores))).values[-1]
    return (scores >= cut) & (scores > 0)


def length(pull: float, price: float) -> float:
    low, high = 3**-0.5, 1.0  # the slope rises between them
    for _ in range(60):
        s = (low + high) / 2
        low, high = (s, high) if 4 * pull * s * (1 - s * s) > price else (low, s)
    return low


def other_root(pull: float, price: float) -> float:
    low, high = 0.0, 3**-0.5
    for _ in range(60):
        s = (low + high) / 2
        low, high = (s, high) if 4 * pull * s * (1 - s * s) < price else (low, s)
    return low or 1e-9


def trained(shapes: Any, C: int, m: int, gate: int) -> tuple[int, int]:
    ends = sum(a + b for a, b in shapes)
    return C * m * ends, C * ends + len(shapes) * C * (3 * gate + 1)


RIGHT: list[tuple[Callable[[Any], None], Any]] = [
    (ch09.check_1, attribution),
    (ch09.check_2, chosen),
    (ch09.check_3, length),
    (ch09.check_4, trained),
]

MISTAKES: list[tuple[Callable[[Any], None], Any, str]] = [
    (ch09.check_1, lambda *p: by_layer(*p).square().sum((0, 2)), "matrices before squaring"),
    (ch09.check_1, lambda *p: by_layer(*p).sum((0, 2)).square(), "must not cancel"),
    (ch09.check_1, lambda *p: by_layer(*p).sum((0, 2)), "square is missing"),
    (ch09.check_1, lambda *p: by_layer(*p).sum(0).abs().sum(1), "not the absolute value"),
    (ch09.check_1, lambda *p: by_layer(*p)[0].square().sum(1), "Only the first"),
    (ch09.check_1, lambda *p: by_layer(*p)[-1].square().sum(1), "Only the last"),
    (ch09.check_1, lambda *p: attribution(*p) / 5, "not take the mean"),
    (ch09.check_1, lambda *p: 3 * attribution(*p), "expected"),
    (ch09.check_1, lambda *p: by_layer(*p).sum(0), "should have shape"),
    (ch09.check_2, lambda s, k: s >= s.topk(math.ceil(k), 1).values[:, -1:], "budget is the batch"),
    (
        ch09.check_2,
        lambda s, k: s >= s.flatten().topk(int(k * s.numel())).values[-1],
        "not k · B · C",
    ),
    (ch09.check_2, lambda s, k: chosen(s, k + 0.2), "are active"),
    (ch09.check_2, lambda s, k: chosen(-s + s.max() + 1, k), "not the highest"),
    (
        ch09.check_2,
        lambda s, k: s >= s.flatten().topk(int(k * len(s))).values[-1],
        "of 0 is never active",
    ),
    (ch09.check_3, lambda pull, price: 1 - price / (2 * pull), "goes with s²"),
    (ch09.check_3, lambda pull, price: 1 - price / (8 * pull), "first step"),
    (ch09.check_3, other_root, "larger root"),
    (ch09.check_3, lambda pull, price: 1.2, "between 0 and 1"),
    (ch09.check_3, lambda pull, price: 0.999, "should be"),
    (ch09.check_4, lambda s, C, m, g: (trained(s, C, m, g)[0], C * _ends(s)), "gates are trained"),
    (
        ch09.check_4,
        lambda s, C, m, g: (trained(s, C, m, g)[0], C * _ends(s) + len(s) * C * 3 * g),
        "one more bias",
    ),
    (
        ch09.check_4,
        lambda s, C, m, g: (trained(s, C, m, g)[0], C * _ends(s) + len(s) * C * 2 * g),
        "d_gate \\+ 1 biases",
    ),
    (
        ch09.check_4,
        lambda s, C, m, g: (trained(s, C, m, g)[0], C * _ends(s) + C * (3 * g + 1)),
        "gates of its own",
    ),
    (ch09.check_4, lambda s, C, m, g: (C * _ends(s), trained(s, C, m, g)[1]), "rank m"),
    (
        ch09.check_4,
        lambda s, C, m, g: (C * sum(a * b for a, b in s), trained(s, C, m, g)[1]),
        "not full matrices",
    ),
    (ch09.check_4, lambda *how: trained(*how)[::-1], "First APD"),
    (ch09.check_4, lambda *how: (1, 1), "expected"),
]


def _ends(shapes: Any) -> int:
    return sum(a + b for a, b in shapes)
