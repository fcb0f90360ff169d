"""Circuits: small circuits, two on each line, and data that show them apart or in pairs.

A toy model of superposition (`tms`) with twice as many features as hidden dimensions, and the
weights that such models tend to (Elhage et al. 2022): features i and i + n/2 share a line, in
opposite directions, the lines at right angles to each other. With b = 0 and no interference but
from the other feature on the line,

    y_i = ReLU(x_i − x_j),  j = i ± n/2

Every circuit "feature i" works alone, and none needs another: n mechanisms. But the encoder's
column of one is minus that of the other, so that the sum of both is a matrix of rank one, too.

The inputs of the decomposition:

- `circuits`, and forty of them in `circuits-many`: features come and go one by one;
- `circuits-paired`: features 2k and 2k + 1, which lie on different lines, always come together.
  Their values are `unlike` to some degree: 0 = always equal, 1 = independent.
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
    """As in `tms`, with weights set by hand, and inputs in pairs if `unlike` is given."""

    paper_config: None = None  # type: ignore[assignment]  # the paper has no such model
    unlike: float | None = None

    def sampler(self, paper: bool = False) -> SparseFeatures:
        """Inputs for the decomposition."""
        if self.unlike is None:
            return super().sampler(paper)
        p = self.feature_probability
        return Pairs(self.n_features, p, stratified=not paper, unlike=self.unlike)

    def train(self, seed: int = 0) -> tms.TMS:
        """The target with lines drawn from a seed: see `build`."""
        return build(self, seed)

    def summary(self) -> str:
        """One line for lists."""
        pairs = "" if self.unlike is None else ", in pairs"
        return f"{self.n_features} circuits on {self.n_hidden} lines{pairs}"


def build(preset: Preset, seed: int = 0) -> tms.TMS:
    """Set the weights: random lines at right angles, two features on each, in opposite directions.

    Raises ValueError unless there are two features a hidden dimension, three dimensions or more (so
    that a pair's features lie on different lines).
    """
    n, m = preset.n_features, preset.n_hidden
    if n != 2 * m or m < 3:
        raise ValueError(f"circuits need n_features = 2 · n_hidden ≥ 6, got {n} and {m}")
    drawn = torch.randn(m, m, generator=torch.Generator().manual_seed(seed))
    lines = torch.linalg.qr(drawn)[0]
    with torch.random.fork_rng(devices=[]):  # building a module draws from the global seed
        target = tms.TMS(n, m)
    with torch.no_grad():
        target.encoder.weight.copy_(torch.cat([lines, -lines], 1))
        target.decoder.weight.copy_(target.encoder.weight.mT)
        target.decoder.bias.zero_()
    target.training_info = {"restarts": 1, "losses": [0.0], "chosen": 0}
    return target.eval()


@dataclass(frozen=True)
class Merges:
    """How many pairs of features share a piece: those of one line, of one pair, and all others."""

    line: int
    pair: int
    other: int


def merges(g: Tensor) -> Merges:
    """Which features share a piece, one that is important (above ½) for both.

    g: (n, C), importances on the probes of single features.
    """
    n = len(g)
    on = (g > 0.5).float()
    shared = on @ on.mT > 0
    i, j = torch.triu_indices(n, n, 1)
    both, line = shared[i, j], j - i == n // 2
    pair = (i % 2 == 0) & (j == i + 1) & ~line
    rest = ~line & ~pair
    return Merges(*(int((both & kind).sum()) for kind in (line, pair, rest)))


_OURS = dataclasses.replace(
    tms.TMS_5_2.config,
    C=12,
    steps=800,
    batch_size=32,
    importance_coeff=4e-3,
    gate_hidden=6,
    restarts=1,
    restarts_until=1.0,
)
CIRCUITS = Preset("circuits", 6, 3, False, _OURS)
CIRCUITS_PAIRED = dataclasses.replace(CIRCUITS, name="circuits-paired", unlike=1.0)
# The loss is a mean over outputs: forty of them ask for a price that much lower.
_MANY = dataclasses.replace(_OURS, C=80, steps=2000, importance_coeff=2.5e-4)
CIRCUITS_MANY = Preset("circuits-many", 40, 20, False, _MANY)
