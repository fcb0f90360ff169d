"""Residual MLP: n features computed by fewer neurons, in one to three layers.

A fixed random embedding W_E writes n sparse features into a wide residual stream; each layer adds
W_out ReLU(W_in · stream); the stream is read with W_U = W_Eᵀ. Trained on y = x + ReLU(x) (Braun et
al. 2025; as decomposed in arXiv 2506.20790, section 3.3). Ground truth: in every W_in one rank-one
mechanism per feature; the W_out of all layers are one mechanism of full rank.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Config, Schedule
from ..recovery import Dense, Identity, Mlp, Truth
from .fold import Fold
from .sparse import SparseFeatures


class Layer(nn.Module):
    """W_out ReLU(W_in a). W_in: Linear(d_resid, d_mlp); W_out: Linear(d_mlp, d_resid)."""

    def __init__(self, d_resid: int, d_mlp: int) -> None:
        super().__init__()
        self.W_in = nn.Linear(d_resid, d_mlp, bias=False)
        self.W_out = nn.Linear(d_mlp, d_resid, bias=False)

    def forward(self, resid: Tensor) -> Tensor:
        """(..., d_resid) → (..., d_resid)."""
        out: Tensor = self.W_out(torch.relu(self.W_in(resid)))
        return out


class ResidualMLP(nn.Module):
    """x ↦ W_Eᵀ(stream), stream = W_E x + Σ_l layer_l(stream so far).

    W_E: (n_features, d_resid), rows of unit length, fixed (a buffer); layers[l].W_in and .W_out
    are the matrices to decompose. d_mlp: neurons of each layer.
    """

    W_E: Tensor

    def __init__(self, n_features: int, d_resid: int, d_mlp: int, n_layers: int) -> None:
        super().__init__()
        self.init_kwargs = {
            "n_features": n_features,
            "d_resid": d_resid,
            "d_mlp": d_mlp,
            "n_layers": n_layers,
        }
        self.training_info: dict[str, Any] = {}
        rows = torch.randn(n_features, d_resid)
        self.register_buffer("W_E", rows / rows.norm(dim=1, keepdim=True))
        self.layers = nn.ModuleList(Layer(d_resid, d_mlp) for _ in range(n_layers))

    def forward(self, x: Tensor) -> Tensor:
        """(..., n_features) → (..., n_features)."""
        resid = x @ self.W_E
        for layer in self.layers:
            resid = resid + layer(resid)
        return resid @ self.W_E.mT

    @property
    def tied(self) -> dict[str, str]:
        return {}

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Names of (W_in, W_out), layer by layer."""
        return [(f"layers.{i}.W_in", f"layers.{i}.W_out") for i in range(len(self.layers))]

    def shortcut(self, names: Sequence[str]) -> Fold | None:
        """Exact passes that never touch d_resid per example; None unless all is decomposed."""
        if set(names) != {n for pair in self.pairs for n in pair}:
            return None
        weight = {n: self.get_parameter(f"{n}.weight") for n in names}
        return Fold(self.W_E, self.pairs, weight)

    def truth(self) -> Truth:
        """What must be recovered, on one-hot probes x_i = 0.75."""
        n, d_mlp = len(self.W_E), self.init_kwargs["d_mlp"]
        patterns: dict[str, Identity | Dense] = {}
        for w_in, w_out in self.pairs:
            patterns |= {w_in: Identity(n), w_out: Dense(d_mlp)}
        return Truth(
            probes=0.75 * torch.eye(n, dtype=self.W_E.dtype),
            patterns=patterns,
            mlp=Mlp(self.W_E, self.pairs),
            max_faithfulness=0.02,
        )

    def structure(self) -> dict[str, Any]:
        """The computation as the explorer draws it."""
        return {
            "kind": "residual",
            "layers": self.pairs,
            "embed": "W_E",
            "input": (-1.0, 1.0),
        }


@dataclass(frozen=True)
class Preset:
    """One experiment: the target's size and training, and how it is decomposed."""

    name: str
    n_features: int
    d_mlp: int
    n_layers: int
    config: Config
    paper_config: Config
    d_resid: int = 1000
    feature_probability: float = 0.01
    train_steps: int = 1000
    train_rows: int = 1024

    def sampler(self, paper: bool = False) -> SparseFeatures:
        """Inputs for the decomposition: stratified, or plain as in the paper."""
        p = self.feature_probability
        return SparseFeatures(self.n_features, p, low=-1.0, high=1.0, stratified=not paper)

    def train(self, seed: int = 0) -> ResidualMLP:
        """See `train`."""
        return train(self, seed)

    def summary(self) -> str:
        """One line for lists."""
        neurons = " + ".join([str(self.d_mlp)] * self.n_layers)
        return f"{self.n_features} features on {neurons} neurons, residual"


def labels(x: Tensor) -> Tensor:
    """y = x + ReLU(x): what the residual MLP is trained to give."""
    return x + torch.relu(x)


def train(preset: Preset, seed: int = 0) -> ResidualMLP:
    """Train a target on y = x + ReLU(x), features uniform in [−1, 1], one start.

    AdamW, weight decay 0.01, learning rate 3e-3 cosine to 0, as in the paper; the rows are drawn
    given that they are not all zero. The embedding products W_in W_Eᵀ are taken first, so that no
    example is multiplied out to d_resid (exact). The caller's global random state is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        target = ResidualMLP(preset.n_features, preset.d_resid, preset.d_mlp, preset.n_layers)
    generator = torch.Generator().manual_seed(seed)
    data = preset.sampler()
    adam = torch.optim.AdamW(target.parameters(), lr=3e-3, weight_decay=0.01, fused=True)
    decay = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda s: 0.5 * (1 + math.cos(math.pi * s / preset.train_steps))
    )

    def loss(rows: int) -> Tensor:
        x, weight = data(rows, generator)
        return (folded(target, x) - labels(x)).square().mean(-1) @ weight

    for _ in range(preset.train_steps):
        adam.zero_grad()
        loss(preset.train_rows).backward()
        adam.step()
        decay.step()
    with torch.no_grad():
        final = float(loss(8192))
    target.training_info = {"restarts": 1, "losses": [final], "chosen": 0}
    return target.requires_grad_(True).eval()


def folded(target: ResidualMLP, x: Tensor) -> Tensor:
    """The target's output (B, n_features) by products of weights first."""
    E = target.W_E
    writes = [(x, E)]  # (coefficients (B, k), directions (k, d_resid))
    for layer in target.layers:
        assert isinstance(layer, Layer)
        pre = [c @ (directions @ layer.W_in.weight.mT) for c, directions in writes]
        writes.append((torch.relu(torch.stack(pre).sum(0)), layer.W_out.weight.mT))
    return torch.stack([c @ (directions @ E.mT) for c, directions in writes]).sum(0)


_PAPER = Config(
    C=100,
    steps=30_000,
    batch_size=2048,
    lr=2e-3,
    lr_schedule="constant",
    importance_coeff=1e-5,
    p=2.0,
    gate_hidden=16,
)
# W_in and W_out ask for different prices. Pieces of W_in serve one feature each: the frequency
# penalty keeps them from serving two. Pieces of W_out act all together: a concave price (p 0.5)
# decides early how many live. Low importance at the end brings rarely used features back.
_OURS = Config(
    C={"*W_in": 130, "*W_out": 60},
    steps=2000,
    batch_size=384,
    lr=1e-2,
    gate_lr=5e-2,
    lr_warmup_steps=50,
    importance_coeff=Schedule(3e-5, 2.5e-6, until=0.7, log=True),
    p={"*W_in": Schedule(2.0, 0.8, until=0.7), "*W_out": 0.5},
    importance_scale={"*W_out": 1.5},
    frequency_coeff={"*W_in": 5.0},
    faithfulness_coeff=Schedule(1.0, 10.0, until=0.8),
    gate_hidden=8,
    layerwise_masks="shared",
    faithfulness_warmup_steps=200,
    # Gradient descent alone leaves some subcomponents that serve two features, the more so the
    # closer the columns of W_in lie, and dead ones that grow into second ones for a feature.
    split_every={"*W_in": 150},
    split_until=0.75,
    prune_at={"*W_in": 0.62},
    birth_from=0.62,
)
RESID_MLP_1 = Preset("resid-mlp-1", 100, 50, 1, _OURS, _PAPER)
_PAPER_2 = dataclasses.replace(_PAPER, C=400, steps=50_000, lr=1e-3)
_OURS_2 = dataclasses.replace(
    _OURS,
    C={"*W_in": 140, "*W_out": 32},
    steps=3000,
    batch_size=512,
    gate_lr=3e-2,
    importance_coeff=Schedule(3e-5, 1.2e-6, until=0.65, log=True),
    # a low p at the end leaves nothing between 0 and 1: what a piece reads of a feature that is not
    # its own stays off, and the pieces of little-used features stay on
    p={"*W_in": Schedule(2.0, 0.4, until=0.85), "*W_out": 0.5},
    importance_scale={"*W_out": 2.0},
    frequency_coeff={"*W_in": Schedule(5.0, 4.0, until=0.65)},
    faithfulness_coeff=Schedule(1.0, 30.0, until=0.9),
    prune_at=0.62,
)
RESID_MLP_2 = Preset("resid-mlp-2", 100, 25, 2, _OURS_2, _PAPER_2)
_PAPER_3 = dataclasses.replace(
    _PAPER_2, C=500, steps=200_000, importance_coeff=5e-6, gate_hidden=128
)
_OURS_3 = dataclasses.replace(
    _OURS_2,
    C={"*W_in": 150, "*W_out": 24},
    steps=5500,
    importance_coeff=Schedule(3e-5, 1e-6, until=0.65, log=True),
    # of the three, the first layer has the most features that it hardly uses
    frequency_coeff={"layers.0.W_in": Schedule(5.0, 2.0, until=0.8), "*W_in": 5.0},
)
RESID_MLP_3 = Preset("resid-mlp-3", 102, 17, 3, _OURS_3, _PAPER_3)
