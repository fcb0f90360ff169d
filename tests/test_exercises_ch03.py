"""The checks of chapter 3's exercises: right answers pass, typical mistakes are named."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from spd_mini.exercises import Wrong, ch03

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


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_right_answers_pass(
    check: Callable[[Any], None], answer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    check(answer)
    assert capsys.readouterr().out.startswith("correct")


@pytest.mark.parametrize(("check", "answer", "message"), MISTAKES)
def test_typical_mistakes_are_named(
    check: Callable[[Any], None], answer: Any, message: str
) -> None:
    with pytest.raises(Wrong, match=message):
        check(answer)


@pytest.mark.parametrize("check", [check for check, _ in RIGHT])
def test_unanswered_is_not_wrong(
    check: Callable[[Any], None], capsys: pytest.CaptureFixture[str]
) -> None:
    check(None)
    assert capsys.readouterr().out == "not answered yet\n"
