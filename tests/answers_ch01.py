"""The checks of chapter 1: right answers pass, planted mistakes are named."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spd_mini.exercises import ch01


def share(n: int, p: float) -> float:
    return p / (1 - (1 - p) ** n)


def piece(W: Tensor, j: int) -> tuple[Tensor, Tensor]:
    return W[:, j], torch.eye(W.shape[1])[j]


def neighbours(W: Tensor, i: int) -> tuple[int, int]:
    """The column next to i on either side."""
    angle = torch.atan2(W[1], W[0])
    turn = (angle - angle[i]) % (2 * torch.pi)
    turn[i] = torch.nan
    order = turn.nan_to_num(torch.pi).argsort()
    return int(order[0]), int(order[-1])


def twin(W: Tensor, i: int) -> Tensor:
    pair = list(neighbours(W, i))
    x = torch.zeros(5)
    x[pair] = torch.linalg.solve(W[:, pair], W[:, i] / 2)
    return x


def pinv_without(W: Tensor, i: int) -> Tensor:
    others = W.clone()
    others[:, i] = 0
    return torch.linalg.pinv(others) @ W[:, i] / 2


def interference(W: Tensor, b: Tensor) -> Tensor:
    change = (W.T @ W + b[:, None]).relu() - b.relu()[:, None]
    return change.fill_diagonal_(0).abs().max()


RIGHT: list[tuple[Callable[[Any], None], Any]] = [
    (ch01.check_1, share),
    (ch01.check_2, piece),
    (ch01.check_2, lambda W, j: (2 * W[:, j], torch.eye(W.shape[1])[j] / 2)),
    (ch01.check_3, twin),
    (ch01.check_4, interference),
]

MISTAKES: list[tuple[Callable[[Any], None], Any, str]] = [
    (ch01.check_1, lambda n, p: p, "all-zero inputs as well"),
    (ch01.check_1, lambda n, p: n * share(n, p), "number of columns"),
    (ch01.check_1, lambda n, p: 1 - (1 - p) ** n, "divide p by it"),
    (ch01.check_1, lambda n, p: 0.9, "Expected 0.2210 for n = 5"),
    (ch01.check_1, lambda n, p: "a fifth", "should be numbers"),
    (ch01.check_1, lambda n, p: [p, p], "should have shape"),
    (ch01.check_2, lambda W, j: W[:, j], "two vectors"),
    (ch01.check_2, lambda W, j: (W[:, j], torch.ones(W.shape[1])), "every feature alike"),
    (ch01.check_2, lambda W, j: (W[:, j], W[0]), "is one of the two scaled"),
    (ch01.check_2, lambda W, j: (W[:, j], W[:, j] @ W / W[:, j].square().sum()), "other columns"),
    (ch01.check_2, lambda W, j: (torch.eye(W.shape[1])[j], W[:, j]), "write direction"),
    (ch01.check_3, lambda W, i: torch.eye(5)[i] / 2, "do without feature"),
    (ch01.check_3, pinv_without, "never negative"),
    (ch01.check_3, lambda W, i: 2 * twin(W, i), "half of it"),
    (ch01.check_3, lambda W, i: 1.5 * twin(W, i), "hidden vectors differ"),
    (ch01.check_4, lambda W, b: (W.T @ W + b[:, None]).relu().max(), "includes i = j"),
    (ch01.check_4, lambda W, b: (W.T @ W).fill_diagonal_(0).abs().max(), "ReLU is missing"),
    (
        ch01.check_4,
        lambda W, b: (W.T @ W + b[:, None]).relu().fill_diagonal_(0).max(),
        "bias stays",
    ),
    (ch01.check_4, lambda W, b: (W.T @ W).relu().fill_diagonal_(0).max(), "bias is missing"),
    (ch01.check_4, lambda W, b: 7.0, "Expected"),
]
