"""Checks for the book's exercises, one module a chapter: `chNN.check_k(answer)`.

A check tests the mathematics on freshly drawn cases, not the wording of a solution. It prints one
line when the answer is right (or still None) and raises `Wrong`, naming the likely mistake, when it
is not.
"""

import functools
from collections.abc import Callable, Mapping
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


def random(*shape: int, seed: int) -> Tensor:
    """Normal numbers that depend on the seed alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def compare(got: Tensor, want: Tensor, likely: Mapping[str, Tensor], what: str) -> None:
    """Raise `Wrong`, with the likely mistake where one fits, unless got = want to 1e-4."""
    if torch.allclose(got, want, rtol=1e-4, atol=1e-6):
        return
    for why, mistaken in likely.items():
        if mistaken.shape == want.shape and torch.allclose(got, mistaken, rtol=1e-4, atol=1e-6):
            raise Wrong(why)
    raise Wrong(f"{what}: expected {_first(want)}, got {_first(got)}.")


def _first(values: Tensor) -> str:
    return ", ".join(f"{v:.4f}" for v in values.reshape(-1)[:3].tolist())


def _say(text: str) -> None:
    print(text)  # noqa: T201 -- a check speaks to the reader of a notebook
