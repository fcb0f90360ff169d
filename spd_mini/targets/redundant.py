"""Redundant: two pathways that compute the same, and a certificate of what is in the weights.

Pathway p turns n features into m hidden numbers with a weight W_p (m, n) whose columns are
orthonormal, each pathway in directions of its own; a fixed read-out takes them back to n outputs:

    y_p = ReLU(R_p W_p x),  R_p W_p = 1

- `redundant`: y = max_p y_p. Either pathway alone gives the whole output; the second is a backup.
- `redundant-both`: y = Σ_p y_p / P. Each gives its share, and both are needed: the control.

So the weights hold P · n mechanisms by construction, "feature i in pathway p", one rank-one piece
W_p[:, i] e_i each. `certificate` checks that: each of them, all others removed, computes its
feature. A decomposition that calls some of them unimportant has *skipped* them (`coverage`).
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import Config
from ..decomposition import Decomposition
from ..recovery import Identity, Truth
from .sparse import SparseFeatures

Needs = Literal["either", "both"]
PROBE = 0.75


class Redundant(nn.Module):
    """P pathways side by side, read out by the maximum ("either") or the mean ("both").

    paths.p: Linear(n_features, n_hidden), no bias; back: (P, n_features, n_hidden), fixed. With
    `switches` the input is (..., n_features + P), the last P saying which pathways are connected
    (1) or cut (0). Raises ValueError for sizes that leave no room, or an unknown read-out.
    """

    back: Tensor

    def __init__(
        self,
        n_features: int,
        n_hidden: int,
        n_paths: int = 2,
        needs: Needs = "either",
        switches: bool = False,
    ) -> None:
        super().__init__()
        if not (1 <= n_features <= n_hidden and n_paths >= 1):
            raise ValueError(
                f"need 1 ≤ n_features ≤ n_hidden and n_paths ≥ 1, got {n_features}, {n_hidden}, "
                f"{n_paths}"
            )
        if needs not in ("either", "both"):
            raise ValueError(f"needs must be 'either' or 'both', got {needs!r}")
        self.init_kwargs = {
            "n_features": n_features,
            "n_hidden": n_hidden,
            "n_paths": n_paths,
            "needs": needs,
            "switches": switches,
        }
        self.training_info: dict[str, Any] = {}
        self.n, self.needs, self.switches = n_features, needs, switches
        self.paths = nn.ModuleList(
            nn.Linear(n_features, n_hidden, bias=False) for _ in range(n_paths)
        )
        self.register_buffer("back", torch.zeros(n_paths, n_features, n_hidden))

    def forward(self, x: Tensor) -> Tensor:
        """(..., n_features) → (..., n_features); with switches, P more numbers come in."""
        features, on = x[..., : self.n], x[..., self.n :]
        y = torch.stack(
            [
                torch.relu(F.linear(path(features), r))
                for path, r in zip(self.paths, self.back, strict=True)
            ],
            dim=-1,
        )
        if self.switches:
            y = y * on[..., None, :]
        return y.amax(-1) if self.needs == "either" else y.mean(-1)

    @property
    def tied(self) -> dict[str, str]:
        return {}

    @property
    def linears(self) -> list[nn.Linear]:
        """The pathways, as what they are."""
        return [path for path in self.paths if isinstance(path, nn.Linear)]

    def probes(self) -> Tensor:
        """One feature at 0.75 in each row, all pathways connected: (n, n) or (n, n + P)."""
        x = PROBE * torch.eye(self.n)
        return F.pad(x, (0, len(self.paths)), value=1.0) if self.switches else x

    def truth(self) -> Truth:
        """Every feature in every pathway, one piece each."""
        patterns = {f"paths.{p}": Identity(self.n) for p in range(len(self.paths))}
        return Truth(probes=self.probes(), patterns=patterns, max_faithfulness=0.01)

    def with_switches(self) -> "Redundant":
        """The same weights, with inputs that can cut a pathway."""
        switched = _made(**{**self.init_kwargs, "switches": True})
        switched.load_state_dict(self.state_dict())
        switched.training_info = dict(self.training_info)
        return switched.eval()


def _made(**kwargs: Any) -> Redundant:
    """A model with weights still to be set; the caller's global random state is left alone."""
    with torch.random.fork_rng(devices=[]):  # building a module draws from the global seed
        return Redundant(**kwargs)


@dataclass(frozen=True)
class Certificate:
    """What is in the weights, on probes: tables (P, n), one entry for each mechanism.

    alone: its feature's output with all other mechanisms removed, as a share of the whole. missed:
    the largest change of any output when it alone is removed, as a share of the probe.
    """

    alone: Tensor
    missed: Tensor


@torch.no_grad()
def certificate(target: Redundant) -> Certificate:
    """Remove mechanisms from the weights, one at a time and all but one, and see what is left."""
    P, n = len(target.paths), target.n
    x, alone, missed = target.probes(), torch.zeros(P, n), torch.zeros(P, n)
    whole, kept = target(x), {k: v.clone() for k, v in target.state_dict().items()}
    for p in range(P):
        for i in range(n):
            others = {
                f"paths.{q}.weight": torch.zeros_like(kept["paths.0.weight"]) for q in range(P)
            }
            others[f"paths.{p}.weight"][:, i] = kept[f"paths.{p}.weight"][:, i]
            alone[p, i] = _with(target, kept | others)(x)[i, i] / whole[i, i]
            less = kept[f"paths.{p}.weight"].clone()
            less[:, i] = 0
            out = _with(target, kept | {f"paths.{p}.weight": less})(x)
            missed[p, i] = (out - whole).abs().max() / PROBE
    return Certificate(alone, missed)


def _with(target: Redundant, weights: dict[str, Tensor]) -> Redundant:
    model = _made(**target.init_kwargs)
    model.load_state_dict(weights)
    return model


@torch.no_grad()
def coverage(d: Decomposition) -> Tensor:
    """How important the decomposition calls each mechanism on its own probe: (P, n) in [0, 1].

    Entry (p, i): the highest importance of any piece of pathway p when feature i alone is on.
    """
    assert isinstance(d.target, Redundant)
    g = d.causal_importance(d.target.probes())
    return torch.stack([g[f"paths.{p}"].amax(1) for p in range(len(d.target.paths))])


@dataclass(frozen=True)
class WithCuts:
    """Inputs of a target with switches: in a share of the rows one pathway, any, is cut.

    sample: the inputs without switches, in pairs with row weights. Cut rows count like others.
    """

    sample: SparseFeatures
    n_paths: int
    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"the share of rows with a cut must be in [0, 1], got {self.share}")

    def __call__(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows (n + 1, n_features + P) and weights (n + 1,)."""
        x, weight = dataclasses.replace(self.sample, stratified=True)(n, generator)
        u = torch.rand(2, len(x), generator=generator, device=generator.device)
        which = F.one_hot((u[1] * self.n_paths).long(), self.n_paths)
        on = 1 - which * (u[0] < self.share)[:, None]
        return torch.cat([x, on.to(x)], 1), weight


@dataclass(frozen=True)
class Preset:
    """One experiment: the target and how it is decomposed."""

    name: str
    needs: Needs
    config: Config
    paper_config: None = None
    """The paper has no such model."""
    n_features: int = 5
    n_hidden: int = 5
    n_paths: int = 2
    feature_probability: float = 0.1
    train_steps: int = 0
    """Weights are set, not trained."""

    def sampler(self, paper: bool = False) -> SparseFeatures:
        """Inputs for the decomposition."""
        return SparseFeatures(self.n_features, self.feature_probability, stratified=not paper)

    def train(self, seed: int = 0) -> Redundant:
        """The target with directions drawn from a seed: see `build`."""
        return build(self, seed)

    def summary(self) -> str:
        """One line for lists."""
        needed = "either is enough" if self.needs == "either" else "both are needed"
        return f"{self.n_features} features in {self.n_paths} pathways, {needed}"


def build(preset: Preset, seed: int = 0) -> Redundant:
    """Set the weights: random orthonormal columns in each pathway, its read-out their transpose."""
    p, generator = preset, torch.Generator().manual_seed(seed)
    target = _made(n_features=p.n_features, n_hidden=p.n_hidden, n_paths=p.n_paths, needs=p.needs)
    with torch.no_grad():
        for path, back in zip(target.linears, target.back, strict=True):
            drawn = torch.randn(p.n_hidden, p.n_features, generator=generator)
            W = torch.linalg.qr(drawn)[0]
            path.weight.copy_(W)
            back.copy_(W.mT)
    target.training_info = {"restarts": 1, "losses": [0.0], "chosen": 0}
    return target.eval()


_OURS = Config(
    C=10,
    steps=800,
    batch_size=32,
    lr=1e-2,
    gate_lr=3e-2,
    lr_warmup_steps=50,
    importance_coeff=1e-3,
    p=1.0,
    gate_hidden=8,
    layerwise_masks="shared",
    faithfulness_warmup_steps=200,
)
REDUNDANT = Preset("redundant", "either", _OURS)
REDUNDANT_BOTH = Preset("redundant-both", "both", _OURS)
