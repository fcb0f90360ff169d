"""Circuits: eight small circuits in superposition, and data that show them apart or in pairs.

The target is a toy model of superposition (`tms`): eight features in three dimensions, trained on
inputs in which each feature comes and goes by itself. So every circuit "feature i" is in the
weights and works alone. Only the inputs of the *decomposition* differ:

- `circuits`: features come and go one by one, as in training;
- `circuits-paired`: features 2k and 2k + 1 always come together. Their values are `unlike` to some
  degree: 0 = always equal, 1 = independent.

Circuits of a pair have nothing to do with each other but that they are on at the same time.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from . import tms
from .sparse import SparseFeatures


@dataclass(frozen=True)
class Pairs(SparseFeatures):
    """Features that come in pairs, (2k, 2k + 1): both on, with probability p, or both off.

    The first has the value a, the second (1 − unlike) · a + unlike · b, with a and b uniform.
    Otherwise as SparseFeatures. Raises ValueError for an odd number, or `unlike` outside [0, 1].
    """

    unlike: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_features % 2:
            raise ValueError(f"pairs need an even number of features, got {self.n_features}")
        if not 0 <= self.unlike <= 1:
            raise ValueError(f"unlike must be in [0, 1], got {self.unlike}")

    def __call__(self, n: int, generator: torch.Generator) -> Tensor | tuple[Tensor, Tensor]:
        """n rows, or (n + 1 rows, weights (n + 1,)) when stratified."""
        fields = ("probability", "low", "high", "stratified")
        same = {name: getattr(self, name) for name in fields}
        drawn = SparseFeatures(self.n_features // 2, **same)(n, generator)
        first = drawn[0] if isinstance(drawn, tuple) else drawn
        b = self._scale(torch.rand(first.shape, generator=generator, device=generator.device))
        mixed = (1 - self.unlike) * first + self.unlike * b
        x = torch.stack([first, torch.where(first != 0, mixed, 0.0)], -1).flatten(1)
        return (x, drawn[1]) if isinstance(drawn, tuple) else x

    @property
    def p_zero(self) -> float:
        """Probability of an all-zero row."""
        return (1 - self.probability) ** (self.n_features // 2)


@dataclass(frozen=True)
class Preset(tms.Preset):
    """As in `tms`, with inputs in pairs for the decomposition if `unlike` is given."""

    unlike: float | None = None

    def sampler(self, paper: bool = False) -> SparseFeatures:
        """Inputs for the decomposition."""
        if self.unlike is None:
            return super().sampler(paper)
        p = self.feature_probability
        return Pairs(self.n_features, p, stratified=not paper, unlike=self.unlike)


def merges(g: Tensor) -> tuple[int, int]:
    """Pairs of features that share a piece: those of one pair, and all others.

    g: (n, C), importances on the probes of single features. Two features share a piece when it is
    important (above ½) for both.
    """
    on = (g > 0.5).float()
    shared = (on @ on.mT > 0).triu(1)
    mates = shared[::2, 1::2].diagonal().sum()
    return int(mates), int(shared.sum() - mates)


_OURS = dataclasses.replace(
    tms.TMS_5_2.config, C=16, steps=1000, batch_size=48, importance_coeff=6e-3, restarts=1
)
CIRCUITS = Preset("circuits", 8, 3, False, _OURS, tms.TMS_5_2.paper_config)
CIRCUITS_PAIRED = dataclasses.replace(CIRCUITS, name="circuits-paired", unlike=1.0)
