"""The checks of chapter 5: right answers pass, planted mistakes are named."""

from collections.abc import Callable
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from spd_mini.exercises import ch05


def welch(n: int, m: int) -> float:
    return (n * n / m - n) / (n * (n - 1))


def matched(g: Tensor, sign: float = 1.0) -> Tensor:
    cells = torch.zeros_like(g, dtype=torch.bool)
    cells[linear_sum_assignment(sign * g, maximize=True)] = True
    return cells


def greedy(g: Tensor) -> Tensor:
    cells = torch.zeros_like(g, dtype=torch.bool)
    cells[range(len(g)), g.argmax(1)] = True
    return cells


def wrong(g: Tensor, cells: Callable[[Tensor], Tensor] = matched) -> int:
    return int(torch.where(cells(g), g < 0.9, g > 0.1).sum())


def cosines(W: Tensor, U: Tensor, V: Tensor) -> Tensor:
    """(n, C): column j of W with column j of each subcomponent."""
    columns = torch.einsum("ic,cj->jci", U, V)
    return torch.einsum("jci,ij->jc", columns, W) / columns.norm(dim=2) / W.norm(dim=0)[:, None]


def impostor(W: Tensor) -> tuple[Tensor, Tensor]:
    ones = torch.ones(W.shape[1], W.shape[1])  # piece j writes W_j and reads all features
    U, scale, V = torch.linalg.svd(W @ ones - W, full_matrices=False)  # what is too much
    return torch.cat([W, -U * scale], 1), torch.cat([ones, V])


def open_impostor(W: Tensor) -> tuple[Tensor, Tensor]:
    n = W.shape[1]  # here the pieces that take back leave a feature unread
    return torch.cat([W, -W], 1), torch.cat([torch.ones(n, n), 1 - torch.eye(n)])


def svd(W: Tensor) -> tuple[Tensor, Tensor]:
    U, scale, V = torch.linalg.svd(W, full_matrices=False)
    return U * scale, V


def scaled(W: Tensor) -> tuple[Tensor, Tensor]:
    n = W.shape[1]  # the right directions, three times too long
    return torch.cat([W, -W], 1), torch.cat([torch.eye(n) + 2, 2 * torch.ones(n, n)])


RIGHT: list[tuple[Callable[[Any], None], Any]] = [
    (ch05.check_1, welch),
    (ch05.check_2, wrong),
    (ch05.check_3, lambda W, U, V: cosines(W, U, V).amax(1).mean()),
    (ch05.check_4, impostor),
]

MISTAKES: list[tuple[Callable[[Any], None], Any, str]] = [
    (ch05.check_1, lambda n, m: 1 / m, "with itself"),
    (ch05.check_1, lambda n, m: welch(n, m) ** 0.5, "root"),
    (ch05.check_1, lambda n, m: (n - m) / (m * n), "n \\(n − 1\\) pairs"),
    (ch05.check_1, lambda n, m: n * n / m - n, "sum over pairs"),
    (ch05.check_1, lambda n, m: 0.0, "Expected"),
    (ch05.check_2, lambda g: wrong(g, greedy), "may share"),
    (ch05.check_2, lambda g: int((g[matched(g)] < 0.9).sum()), "Only matched"),
    (ch05.check_2, lambda g: int((g[~matched(g)] > 0.1).sum()), "Only unmatched"),
    (ch05.check_2, lambda g: wrong(g, lambda g: matched(g, -1.0)), "as small as"),
    (ch05.check_2, lambda g: -1, "Expected"),
    (ch05.check_3, lambda W, U, V: cosines(W, U, V.abs()).amax(1).mean(), "sign"),
    (ch05.check_3, lambda W, U, V: cosines(W, U, V).abs().amax(1).mean(), "absolute"),
    (ch05.check_3, lambda W, U, V: cosines(W, U, V).mean(), "not the mean"),
    (ch05.check_3, lambda W, U, V: cosines(W, U, V).amax(0).mean(), "for each column"),
    (ch05.check_3, lambda W, U, V: 1.0, "Expected"),
    (ch05.check_4, lambda W: W, "two things"),
    (ch05.check_4, lambda W: (W, torch.ones(W.shape[1], W.shape[1])), "add up"),
    (ch05.check_4, open_impostor, "unread"),
    (ch05.check_4, lambda W: (W, torch.eye(W.shape[1])), "unread"),
    (ch05.check_4, svd, "MMCS"),
    (ch05.check_4, scaled, "ML2R"),
]
