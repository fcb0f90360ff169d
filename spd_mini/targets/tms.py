"""Toy model of superposition (TMS), with and without a hidden identity layer.

x̂ = ReLU(Wᵀ [I] W x + b): n sparse features squeezed through m < n hidden dimensions (Elhage et
al. 2022; as decomposed in arXiv 2506.20790, section 3.1). Ground truth: one rank-one mechanism per
feature in W and in Wᵀ, and m directions, all acting together, in the identity.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Config, Schedule
from ..recovery import Dense, Identity, Truth
from .sparse import SparseFeatures


class TMS(nn.Module):
    """decoder(hidden(encoder(x))) with a final ReLU; the decoder's weight is the encoder's, ᵀ.

    encoder: Linear(n_features, n_hidden), no bias; hidden: the identity matrix, if asked for;
    decoder: Linear(n_hidden, n_features) with bias.
    """

    def __init__(self, n_features: int, n_hidden: int, identity: bool = False) -> None:
        super().__init__()
        self.init_kwargs = {"n_features": n_features, "n_hidden": n_hidden, "identity": identity}
        self.training_info: dict[str, Any] = {}
        self.encoder = nn.Linear(n_features, n_hidden, bias=False)
        self.hidden = nn.Linear(n_hidden, n_hidden, bias=False) if identity else None
        self.decoder = nn.Linear(n_hidden, n_features)

    def forward(self, x: Tensor) -> Tensor:
        """(..., n_features) → (..., n_features)."""
        a = self.encoder(x)
        if self.hidden is not None:
            a = self.hidden(a)
        return torch.relu(self.decoder(a))

    @property
    def tied(self) -> dict[str, str]:
        return {"decoder": "encoder"}

    def truth(self) -> Truth:
        """What must be recovered, on one-hot probes x_i = 0.75."""
        n, m = self.encoder.in_features, self.encoder.out_features
        patterns: dict[str, Identity | Dense] = {"encoder": Identity(n), "decoder": Identity(n)}
        if self.hidden is not None:
            patterns["hidden"] = Dense(m)
        return Truth(
            probes=0.75 * torch.eye(n, dtype=self.encoder.weight.dtype),
            patterns=patterns,
            columns_of="encoder",
            ml2r_range=(0.95, 1.05),
            max_faithfulness=0.01,
        )

    def structure(self) -> dict[str, Any]:
        """The computation as the explorer draws it: a chain of linear layers and a ReLU."""
        layers = ["encoder", *(["hidden"] if self.hidden is not None else []), "decoder"]
        return {"kind": "chain", "layers": layers, "activation": "relu", "input": (0.0, 1.0)}


@dataclass(frozen=True)
class Preset:
    """One experiment: the target's size and training, and how it is decomposed."""

    name: str
    n_features: int
    n_hidden: int
    identity: bool
    config: Config
    paper_config: Config
    feature_probability: float = 0.05
    """Of the target's training data, and of the decomposition's unless given below."""
    spd_feature_probability: float | None = None
    train_steps: int = 2500
    train_rows: int = 96
    train_restarts: int = 8

    def sampler(self, paper: bool = False) -> SparseFeatures:
        """Inputs for the decomposition: stratified, or plain as in the paper."""
        p = self.feature_probability if paper else self.spd_feature_probability
        return SparseFeatures(self.n_features, p or self.feature_probability, stratified=not paper)

    def train(self, seed: int = 0) -> TMS:
        """See `train`."""
        return train(self, seed)

    def summary(self) -> str:
        """One line for lists."""
        layer = " with a hidden identity" if self.identity else ""
        return f"{self.n_features} features in {self.n_hidden} dimensions{layer}"


def train(preset: Preset, seed: int = 0) -> TMS:
    """Train a target: batched restarts, the lowest loss is kept (`training_info` says how many).

    Plain training may leave out a feature (METHOD, trap 3; a start from PyTorch's random biases
    does so most of the time, chapter 1), hence several starts from zero biases. AdamW, weight decay
    0.01, learning rate 5e-3: constant for the first half, then cosine to 0. The loss is squared
    error on sparse inputs in [0, 1]. The caller's global random state is left alone.
    """
    R, n, m = preset.train_restarts, preset.n_features, preset.n_hidden
    generator = torch.Generator().manual_seed(seed)
    data = SparseFeatures(n, preset.feature_probability, stratified=True)
    W = torch.randn(R, m, n, generator=generator) / m**0.5
    b = torch.zeros(R, 1, n)
    params = [W.requires_grad_(), b.requires_grad_()]
    adam = torch.optim.AdamW(params, lr=5e-3, weight_decay=0.01, fused=True)
    steps = preset.train_steps
    decay = torch.optim.lr_scheduler.LambdaLR(
        adam,
        lambda s: 0.5 * (1 + math.cos(math.pi * max(2 * s / steps - 1, 0))),
    )

    def loss(rows: int) -> Tensor:
        x, weight = data(rows, generator)
        out = torch.relu(x @ W.mT @ W + b)
        return (out - x).square().mean(-1) @ weight

    for _ in range(steps):
        adam.zero_grad()
        loss(preset.train_rows).sum().backward()
        adam.step()
        decay.step()
    with torch.no_grad():
        final = loss(8192)
    best = int(final.argmin())
    with torch.random.fork_rng(devices=[]):  # building a module draws from the global seed
        target = TMS(n, m, preset.identity)
    with torch.no_grad():
        target.encoder.weight.copy_(W[best])
        target.decoder.weight.copy_(W[best].mT)
        target.decoder.bias.copy_(b[best, 0])
        if target.hidden is not None:
            target.hidden.weight.copy_(torch.eye(m))
    target.training_info = {"restarts": R, "losses": final.tolist(), "chosen": best}
    return target.eval()


_PAPER = Config(
    C=20, steps=40_000, batch_size=4096, lr=1e-3, importance_coeff=3e-3, p=1.0, gate_hidden=16
)
_OURS = Config(
    C=40,
    steps=1500,
    batch_size=64,
    lr=1e-2,
    gate_lr=3e-2,
    lr_warmup_steps=50,
    importance_coeff=6e-3,
    p=1.0,
    gate_hidden=8,
    layerwise_masks="shared",
    faithfulness_warmup_steps=200,
    restarts=3,
    restarts_until=0.4,
)

TMS_5_2 = Preset("tms-5-2", 5, 2, False, _OURS, _PAPER)
TMS_5_2_ID = Preset(
    "tms-5-2-id",
    5,
    2,
    True,
    dataclasses.replace(_OURS, C={"hidden": 20, "*": 40}),
    _PAPER,
)

_PAPER_40 = dataclasses.replace(_PAPER, C=200, importance_coeff=1e-4, p=2.0)
# Low importance early prevents merged features, high importance late removes doubled ones; the
# frequency penalty makes one subcomponent that serves two features dearer than two, a split halfway
# frees the features that still share one, and a merge later undoes doubles. The inputs are sparser
# than the target's own (0.01 instead of 0.05): a change of data distribution.
_OURS_40 = dataclasses.replace(
    _OURS,
    C=200,
    steps=2000,
    batch_size=160,
    lr=4e-2,
    importance_coeff=Schedule(3e-5, 4e-4, until=0.7, log=True),
    p=Schedule(2.0, 0.7, until=0.7),
    frequency_coeff=1.0,
    split_every={"encoder": 1000},
    prune_at={"encoder": 0.62},
    restarts=1,
    restarts_until=1.0,
)
TMS_40_10 = Preset(
    "tms-40-10",
    40,
    10,
    False,
    _OURS_40,
    _PAPER_40,
    spd_feature_probability=0.01,
    train_rows=512,
    train_restarts=1,
)
# The identity and the features ask for different prices: the identity's pieces are dense, so they
# pay on every input; a concave price (p 0.5) decides early how many of them live. Faithfulness
# grows at the end, to bring lengths back.
TMS_40_10_ID = dataclasses.replace(
    TMS_40_10,
    name="tms-40-10-id",
    identity=True,
    config=dataclasses.replace(
        _OURS_40,
        C={"hidden": 40, "*": 200},
        importance_coeff=Schedule(3e-5, 5e-4, until=0.7, log=True),
        importance_scale={"hidden": 0.7},
        frequency_coeff={"hidden": 0.0, "*": 1.0},
        p={"hidden": 0.5, "*": Schedule(2.0, 0.7, until=0.7)},
        faithfulness_coeff=Schedule(1.0, 10.0, log=True),
    ),
)
