"""Several prices of importance side by side: one process, one batch a step, a run for each price.

On small models a training step is mostly overhead, so that a whole grid of β3 over several seeds
takes little longer than one run.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .config import Config, value_at
from .data import Sample
from .decomposition import Decomposition, resolve_device
from .run import Run


class Prices(Run):
    """Runs of one start each: run i pays `factors[i]` times the config's β3.

    The logged importance loss carries the factor; the total is right.
    """

    factors: Tensor

    def losses(self, x: Tensor, weight: Tensor | None) -> Tensor:
        """As in Run, the importance loss times the factor of its run."""
        terms = super().losses(x, weight)
        return torch.cat([terms[:3], (terms[3] * self.factors)[None], terms[4:]])


def sweep(
    target: nn.Module,
    sample: Sample | Iterable[Any],
    settings: Sequence[Config],
    seeds: Sequence[int],
    tied: Mapping[str, str] | None = None,
    device: str | torch.device = "auto",
) -> list[list[Decomposition]]:
    """Train settings that differ in β3 alone, plain or scheduled, each from every seed.

    Returns for each setting a list, seed by seed. Every run starts as `decompose` would; batches
    are shared and mask draws come from one stream. Other arguments and errors: `decompose`. Raises
    ValueError for no settings or seeds, and for settings that differ in anything else, have
    restarts, or start from a price of 0 (there is no factor between that and another).
    """
    if not settings or not seeds:
        raise ValueError("prices side by side need at least one setting and one seed")
    first, where = settings[0], resolve_device(device)
    if first.restarts != 1 or any(
        replace(c, importance_coeff=first.importance_coeff) != first for c in settings
    ):
        raise ValueError("settings side by side have one start and differ in β3 only")
    starts = [value_at(c.importance_coeff, 0) for c in settings]
    if not all(starts):
        raise ValueError(f"prices side by side start above 0, got {starts}")
    run = Prices(target, sample, first, None, tied, [*seeds] * len(settings), where)
    factors = torch.tensor([price / starts[0] for price in starts], device=where)
    run.factors = factors.repeat_interleave(len(seeds))
    run.warm_up()
    while run.step < first.steps:
        run.train_step()
    run.flush()
    found = [run.result(True, which=i) for i in range(len(settings) * len(seeds))]
    for i, d in enumerate(found):
        d.config = settings[i // len(seeds)]
    return [found[i : i + len(seeds)] for i in range(0, len(found), len(seeds))]
