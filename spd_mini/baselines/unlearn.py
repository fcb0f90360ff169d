"""Other ways to make a model forget, to compare with edits of its pieces (`edit`).

The model maps inputs to logits of answers. Those that train change all weights; those that compute
change one matrix by rank one; `Projected` changes none and acts only while it runs. All but that
one return a plain copy. The oracle, a model never told a fact, is for the target to train.

`name` is an nn.Linear, W (d_out, d_in), and a the vectors that it reads.
"""

import copy
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..cluster import Leaf
from ..decomposition import Decomposition
from ..edit import fold
from ..masks import LIVE
from ..model import Target

Examples = tuple[Tensor, Tensor]
"""Inputs (n, ...) and their answers (n,)."""


def gradient_ascent(
    model: nn.Module,
    forget: Examples,
    retain: Examples | None = None,
    *,
    steps: int,
    lr: float,
    weight: float = 1.0,
) -> nn.Module:
    """Adam steps up the cross-entropy of `forget`, and down `weight` times that of `retain`."""

    def loss(tuned: nn.Module) -> Tensor:
        return _kept(tuned, retain, weight) - F.cross_entropy(tuned(forget[0]), forget[1])

    return _trained(model, loss, steps, lr)


def to_uniform(
    model: nn.Module,
    forget: Tensor,
    retain: Examples | None = None,
    *,
    steps: int,
    lr: float,
    weight: float = 1.0,
) -> nn.Module:
    """Adam steps down the cross-entropy of alike likely answers to `forget` (n, ...), and as above
    for `retain`."""

    def loss(tuned: nn.Module) -> Tensor:
        return _kept(tuned, retain, weight) - tuned(forget).log_softmax(-1).mean()

    return _trained(model, loss, steps, lr)


def closed_form(
    model: nn.Module,
    name: str,
    forget: Tensor,
    retain: Tensor,
    wanted: Tensor,
    ridge: float = 1e-2,
) -> nn.Module:
    """Let W write `wanted` (d_out,) for the mean k of a on `forget`, disturbing `retain` least.

    ΔW = (wanted − W k) (S⁻¹ k)ᵀ / (kᵀ S⁻¹ k), with S the second moments of a on `retain`, plus
    `ridge` times their mean: the rank-one change with the smallest mean square on `retain` (Meng et
    al. 2022, arXiv 2202.05262). Raises ValueError for a ridge that is not positive.
    """
    if not ridge > 0:
        raise ValueError(f"the ridge of a closed-form edit must be > 0, got {ridge}")
    W, k, a = _weight(model, name), reads(model, name, forget).mean(0), reads(model, name, retain)
    S = a.mT @ a / len(a)
    S = S + ridge * S.diagonal().mean() * torch.eye(len(S), dtype=S.dtype, device=S.device)
    q = torch.linalg.solve(S, k)
    return fold(model, {name: torch.outer(wanted - W @ k, q / (k @ q))})


def svd_direction(model: nn.Module, name: str, forget: Tensor, retain: Tensor) -> nn.Module:
    """Remove the singular direction of W that `forget` uses most, compared with `retain`."""
    u, s, v = torch.linalg.svd(_weight(model, name), full_matrices=False)
    i = _most(reads(model, name, forget) @ v.mT, reads(model, name, retain) @ v.mT)
    return fold(model, {name: -s[i] * torch.outer(u[:, i], v[i])})


def top_neuron(model: nn.Module, name: str, forget: Tensor, retain: Tensor) -> nn.Module:
    """Cut off, before W, the neuron that `forget` uses most, compared with `retain`."""
    W = _weight(model, name)
    i = _most(reads(model, name, forget), reads(model, name, retain))
    only = torch.zeros_like(W)
    only[:, i] = -W[:, i]
    return fold(model, {name: only})


class Projected(nn.Module):
    """The model with one direction taken out of what `name` reads, for as long as it runs.

    The direction is the difference of the means of a on `forget` and on `retain`; the weights are
    the model's own. Raises ValueError when there is no difference.
    """

    direction: Tensor

    def __init__(self, model: nn.Module, name: str, forget: Tensor, retain: Tensor) -> None:
        super().__init__()
        difference = reads(model, name, forget).mean(0) - reads(model, name, retain).mean(0)
        if not difference.any():
            raise ValueError(f"'{name}' reads the same mean from both sets: nothing to project out")
        self.register_buffer("direction", difference / difference.norm())
        self.model, self.name = copy.deepcopy(model), name

    def forward(self, x: Tensor) -> Tensor:
        """The model's output."""

        def project(_: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
            return args[0] - (args[0] @ self.direction)[..., None] * self.direction

        handle = self.model.get_submodule(self.name).register_forward_pre_hook(project)
        try:
            out: Tensor = self.model(x)
        finally:
            handle.remove()
        return out


def random_rank_one(
    model: nn.Module, changes: Mapping[str, Tensor], generator: torch.Generator
) -> nn.Module:
    """Each of `changes` {module: (d_out, d_in)} replaced by a random rank-one matrix as long."""
    drawn = {}
    for name, delta in changes.items():
        u, v = (torch.randn(n, generator=generator).to(delta) for n in delta.shape)
        drawn[name] = torch.outer(u, v) * (delta.norm() / (u.norm() * v.norm()))
    return fold(model, drawn)


def random_pieces(
    d: Decomposition, x: Tensor, counts: Mapping[str, int], generator: torch.Generator
) -> list[Leaf]:
    """So many pieces {module: count} at random, of those important on some input x (B, ...).

    Raises ValueError where there are fewer.
    """
    chosen: list[Leaf] = []
    for name, g in d.causal_importance(x).items():
        live = (g.flatten(0, -2).amax(0) > LIVE).nonzero()[:, 0].tolist()
        if counts.get(name, 0) > len(live):
            raise ValueError(f"'{name}' has {len(live)} live pieces, asked for {counts[name]}")
        order = torch.randperm(len(live), generator=generator).tolist()
        chosen += [(name, live[i]) for i in order[: counts.get(name, 0)]]
    return chosen


def reads(model: nn.Module, name: str, x: Tensor) -> Tensor:
    """The vectors that a linear layer reads: (n, d_in). Raises ValueError if there is none."""
    return Target(model, [name]).record(x)[1][name]


def _weight(model: nn.Module, name: str) -> Tensor:
    return Target(model, [name]).weight[name]


def _most(forget: Tensor, retain: Tensor) -> int:
    """The column (n, k) with the largest mean square on one set, as a multiple of the other's."""
    typical = retain.square().mean(0)
    return int((forget.square().mean(0) / (typical + 1e-3 * typical.mean())).argmax())


def _kept(tuned: nn.Module, retain: Examples | None, weight: float) -> Tensor | float:
    return 0.0 if retain is None else weight * F.cross_entropy(tuned(retain[0]), retain[1])


def _trained(
    model: nn.Module, loss: Callable[[nn.Module], Tensor], steps: int, lr: float
) -> nn.Module:
    """A copy of the model after Adam steps on a loss. Raises ValueError for an empty budget."""
    if steps < 1 or not lr > 0:
        raise ValueError(f"unlearning needs steps ≥ 1 and lr > 0, got {steps} and {lr}")
    tuned = copy.deepcopy(model).requires_grad_(True)
    adam = torch.optim.Adam(tuned.parameters(), lr=lr)
    for _ in range(steps):
        adam.zero_grad()
        loss(tuned).backward()
        adam.step()
    return tuned
