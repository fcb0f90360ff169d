"""Batches for a run: from a sampling function or an iterable, checked where they enter."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

Sample = Callable[[int, torch.Generator], Tensor | tuple[Tensor, Tensor]]
"""sample(n, generator) → inputs (n, ...), or a pair: inputs (m, ...) and row weights (m,)."""


class Batches:
    """Inputs from a sampling function or an iterable, checked on the first batch."""

    def __init__(
        self, source: Sample | Iterable[Any], n: int, seed: int, device: torch.device
    ) -> None:
        if isinstance(source, Tensor):
            raise ValueError("sample is a single tensor; pass a list of batches, such as [tensor]")
        self.source, self.n, self.device, self.seed = source, n, device, seed
        self.iterator: Iterator[Any] | None = None
        self.drawn = 0  # batches handed out
        self.generator = torch.Generator(device).manual_seed(stream(seed, 1))
        if callable(source) and device.type != "cpu":
            try:  # a sampler that draws on the CPU cannot use the device's generator
                source(1, torch.Generator(device))
            except RuntimeError:
                self.generator = torch.Generator().manual_seed(stream(seed, 1))

    def probe(self) -> Tensor:
        """The first batch, checked; drawing it leaves no trace in the stream."""
        state = self.generator.get_state()
        x, weight = self.next()
        self.drawn = 0
        self.generator.set_state(state)
        if self.iterator is not None:  # put back what was drawn: it may not come a second time
            self.iterator = itertools.chain([x], self.iterator)
        if callable(self.source) and weight is None and len(x) != self.n:
            raise ValueError(
                f"sample({self.n}, generator) must return {self.n} rows, got shape {tuple(x.shape)}"
            )
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            raise ValueError("the inputs contain NaN or infinite values")
        if weight is not None and (
            weight.shape != x.shape[:1]
            or not abs(float(weight.sum()) - 1) <= 1e-3
            or float(weight.min()) < 0
        ):
            raise ValueError(
                f"row weights must have shape ({len(x)},), be ≥ 0 and sum to 1; got shape "
                f"{tuple(weight.shape)}, sum {float(weight.sum()):.4g}"
            )
        return x

    def next(self) -> tuple[Tensor, Tensor | None]:
        """The next batch (B, ...) and its row weights (B,) or None, on the device."""
        weight = None
        self.drawn += 1
        if callable(self.source):
            batch = self.source(self.n, self.generator)
            if isinstance(batch, tuple) and len(batch) == 2:
                batch, weight = batch
        else:
            batch = self._advance()
            if isinstance(batch, tuple | list) and len(batch):
                batch = batch[0]
        for part in (batch,) if weight is None else (batch, weight):
            if not isinstance(part, Tensor) or part.dim() < 1:
                raise ValueError(
                    "sample must return a tensor of inputs, batch first (or a pair of tensors: "
                    f"inputs, row weights), got {describe(part)}"
                )
        return batch.to(self.device), None if weight is None else weight.to(self.device)

    def _advance(self) -> Any:
        for _ in range(2):
            if self.iterator is None:
                self.iterator = iter(self.source)  # type: ignore[arg-type]
            try:
                return next(self.iterator)
            except StopIteration:
                self.iterator = None
        raise ValueError("the iterable of batches is empty, or cannot be iterated a second time")

    def state(self) -> Tensor:
        """State of the generator, for checkpoints."""
        return self.generator.get_state()

    def skip(self, drawn: int, state: Tensor) -> None:
        """Move to where a run that had drawn so many batches stood."""
        self.generator.set_state(state)
        self.drawn = drawn
        if not callable(self.source):
            for _ in range(drawn):
                self._advance()


def describe(value: object) -> str:
    """A value's type, with shape and dtype of a tensor, for error messages."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}, {value.dtype}"
    return type(value).__name__


def stream(seed: int, index: int) -> int:
    """Independent seeds for initialisation (0), data (1) and masks (2) of one run."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0] >> 1)
