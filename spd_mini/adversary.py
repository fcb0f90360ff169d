"""An adversary in training: sources that persist from step to step and climb against the run.

Random masks test stillness on average only: pieces that are never important may cancel each other
in the sum and be switched apart by a mask that chance hardly ever draws. Here one source r_c for
each subcomponent, the same for all inputs and positions, takes a step up the reconstruction error
at each training step, from the gradient that the step computes anyway, while the parameters take
one down (as adversarial masks do in VPD, May 2026; not in the SPD paper). Off unless
`Config.adversary_coeff` is set.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .data import stream


class Adversary:
    """Sources r (R, C of all modules joined) in [0, 1], with gradient; `step` long is each step."""

    def __init__(
        self,
        columns: Mapping[str, slice],
        restarts: int,
        step: float,
        seed: int,
        device: torch.device,
    ) -> None:
        self.columns, self.step = columns, step
        generator = torch.Generator().manual_seed(stream(seed, 3))
        total = max(c.stop for c in columns.values())
        self.take(torch.rand(restarts, total, generator=generator).to(device))

    def take(self, r: Tensor) -> None:
        """Go on from these sources (R, C)."""
        self.r = r.detach().clone().requires_grad_()

    def sources(self, names: Sequence[str]) -> Tensor:
        """Sources of some modules, joined along C, for any number of rows: (R, C, 1)."""
        return torch.cat([self.r[:, self.columns[n]] for n in names], 1)[..., None]

    @torch.no_grad()
    def ascend(self, slope: Tensor) -> None:
        """One step up: r + step · sign(slope), clipped to [0, 1]. slope: (R, C)."""
        self.r.add_(self.step * slope.sign()).clamp_(0, 1)
