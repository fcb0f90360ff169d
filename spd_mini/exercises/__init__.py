"""Checks for the book's exercises, one module a chapter: `chNN.check_k(answer)`.

A check tests the mathematics on freshly drawn cases, not the wording of a solution. It prints one
line when the answer is right (or still None) and raises `Wrong`, naming the likely mistake, when it
is not.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Wrong(AssertionError):
    """The answer is not right yet; the message names the likely mistake."""


def check(test: Callable[[Any], str]) -> Callable[[Any], None]:
    """Make a check of a test that raises `Wrong` or returns what the right answer shows."""

    @functools.wraps(test)
    def run(answer: Any) -> None:
        if answered(answer):
            right(test(answer))

    return run


def answered(answer: Any) -> bool:
    """Whether there is an answer to check; says so when there is none."""
    if answer is None:
        _say("not answered yet")
    return answer is not None


def right(why: str) -> None:
    """Say that the answer is correct, and what it shows."""
    _say(f"correct: {why}")


def as_tensor(value: Any, shape: tuple[int, ...], what: str) -> Tensor:
    """The value as a float32 tensor. Raises `Wrong`, naming `what`, for another kind or shape."""
    try:
        tensor = torch.as_tensor(value, dtype=torch.float32).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise Wrong(f"{what} should be numbers of shape {shape}, not {value!r}") from error
    if tensor.shape != shape:
        raise Wrong(f"{what} should have shape {shape}, yours has {tuple(tensor.shape)}")
    return tensor


def _say(text: str) -> None:
    print(text)  # noqa: T201 -- a check speaks to the reader of a notebook
