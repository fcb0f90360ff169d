"""Decompositions with random numbers in them, to hold the page against PyTorch."""

import torch
from torch import Tensor, nn

from spd_mini import Config, Decomposition
from spd_mini.importance import Gates
from spd_mini.model import Target
from spd_mini.targets.tms import TMS


class Chain(nn.Module):
    """Untied linear layers of any widths, all with biases, with or without a final ReLU."""

    def __init__(self, widths: list[int], activation: str) -> None:
        super().__init__()
        self.names = [f"layer{i}" for i in range(len(widths) - 1)]
        self.activation = activation
        for name, d_in, d_out in zip(self.names, widths, widths[1:], strict=False):
            self.add_module(name, nn.Linear(d_in, d_out))

    def forward(self, x: Tensor) -> Tensor:
        """(..., first width) → (..., last width)."""
        for name in self.names:
            x = self.get_submodule(name)(x)
        return torch.relu(x) if self.activation == "relu" else x

    def structure(self) -> dict[str, object]:
        """What the explorer asks a target for."""
        return {
            "kind": "chain",
            "layers": self.names,
            "activation": self.activation,
            "input": (-1.0, 1.0),
        }


def tms(features: int, hidden: int, identity: bool, seed: int) -> TMS:
    """An untrained toy model with random weights and biases."""
    target = TMS(features, hidden, identity)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        target.encoder.weight.copy_(torch.randn(hidden, features, generator=generator))
        target.decoder.weight.copy_(target.encoder.weight.mT)
        target.decoder.bias.copy_(0.3 * torch.randn(features, generator=generator))
        if target.hidden is not None:
            target.hidden.weight.copy_(torch.eye(hidden))
    return target


def decomposition(target: nn.Module, C: int, seed: int, tied: dict[str, str]) -> Decomposition:
    """Random U, V and gates around a target: nothing is recovered, everything is non-trivial.

    The gates are scaled so that importances fall below 0, between 0 and 1, and above 1.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    wrapped = Target(target, None, tied)
    U, V, gates = {}, {}, {}
    for name, weight in wrapped.weight.items():
        d_out, d_in = weight.shape
        U[name] = normal(d_out, C) / C**0.5
        V[name] = normal(C, d_in) / d_in**0.5
        gates[name] = Gates(
            normal(C, 6) * 2**0.5, normal(C, 6), normal(C, 6) / 6**0.5, 0.5 + normal(C)
        )
    for name, source in tied.items():
        U[name], V[name] = V[source].mT, U[source].mT
    return Decomposition(wrapped, U, V, gates, Config(C=C, gate_hidden=6))


def pentagon() -> Decomposition:
    """A TMS 5-2 with an exact decomposition, by hand: five subcomponents and two unused ones.

    Encoder: U_c = W_c, V_c = e_c; decoder: the transposes. The gates are steps: only the
    subcomponents of features that are on matter, and masks of the others change no output at all.
    """
    angles = 2 * torch.pi * torch.arange(5) / 5
    W = torch.stack([angles.cos(), angles.sin()])
    target = TMS(5, 2)
    with torch.no_grad():
        target.encoder.weight.copy_(W)
        target.decoder.weight.copy_(W.mT)
        target.decoder.bias.fill_(-0.3)
    nothing = torch.zeros(2, 2)
    U = {"encoder": torch.cat([W, nothing], dim=1)}
    V = {"encoder": torch.cat([torch.eye(5), torch.zeros(2, 5)])}
    U["decoder"], V["decoder"] = V["encoder"].mT, U["encoder"].mT

    def steps(slope: float, offset: float) -> Gates:
        on = torch.tensor([1.0] * 5 + [0.0] * 2)[:, None]
        return Gates(slope * on, offset * on, 10 * on, torch.zeros(7))

    gates = {"encoder": steps(1.0, 0.0), "decoder": steps(4.0, -2.4)}
    wrapped = Target(target, None, {"decoder": "encoder"})
    return Decomposition(wrapped, U, V, gates, Config(C=7, gate_hidden=1))
