"""The checks of chapter 3's exercises: right answers pass, typical mistakes are named."""

import torch

from spd_mini.exercises import ch03

RIGHT = [
    (ch03.check_1, lambda g, r: g + (1 - g) * r),
    (ch03.check_2, lambda g, p: (g**p).sum(1).mean()),
    (ch03.check_3, 0),
    (ch03.check_4, lambda x, W, b: torch.relu(x @ W.T @ W + b)),
]
MISTAKES = [
    (ch03.check_1, lambda g, r: g * r, "g = 1 must give"),
    (ch03.check_1, lambda g, r: g + r, "g = 1 must give"),
    (ch03.check_1, lambda g, r: (1 - g) * r, "swap"),
    (ch03.check_1, lambda g, r: (1 - g) + g * r, "swap|interval"),
    (ch03.check_1, lambda g, r: r, "left the interval"),
    (ch03.check_1, lambda g, r: g + (1 - g) * r**2, "not uniform"),
    (ch03.check_2, lambda g, p: (g**p).sum(), "sum over inputs"),
    (ch03.check_2, lambda g, p: (g**p).mean(), "must be summed"),
    (ch03.check_2, lambda g, p: g.sum(1).mean(), "forget the power"),
    (ch03.check_2, lambda g, p: (g**p).sum(1).mean() ** (1 / p) + 1, "expected"),
    (ch03.check_3, float("inf"), "random masks"),
    (ch03.check_3, 1, "Scale it"),
    (ch03.check_4, lambda x, W, b: x @ W.T @ W + b, "ReLU is missing"),
    (ch03.check_4, lambda x, W, b: torch.relu(x @ W.T @ W), "bias is missing"),
    (ch03.check_4, lambda x, W, b: torch.relu(x + b), "every mask is 1"),
]
