"""Decompositions with random numbers in them, to hold the page against PyTorch."""

import torch
from torch import Tensor, nn

from spd_mini import Config, Decomposition
from spd_mini.explorer import snapshot
from spd_mini.explorer.views import Snapshot
from spd_mini.importance import Gates
from spd_mini.model import Target
from spd_mini.targets.facts import Facts, draw_keys
from spd_mini.targets.resid_mlp import ResidualMLP
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


def residual(n_layers: int, features: int = 6, d_mlp: int = 4, seed: int = 0) -> ResidualMLP:
    """An untrained residual MLP, its stream 40 wide, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ResidualMLP(features, 40, d_mlp, n_layers)


def decomposition(
    target: nn.Module, C: int, seed: int, tied: dict[str, str], d_gate: int = 6
) -> Decomposition:
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
            normal(C, d_gate) * 2**0.5,
            normal(C, d_gate),
            normal(C, d_gate) / d_gate**0.5,
            0.5 + normal(C),
        )
    for name, source in tied.items():
        U[name], V[name] = V[source].mT, U[source].mT
    return Decomposition(wrapped, U, V, gates, Config(C=C, gate_hidden=d_gate))


def pentagon() -> Decomposition:
    """A TMS 5-2 with an exact decomposition: five subcomponents and two unused ones."""
    angles = 2 * torch.pi * torch.arange(5) / 5
    return exact(torch.stack([angles.cos(), angles.sin()]), C=7)


def cancelling() -> Decomposition:
    """The pentagon with its two unused pieces grown: they cancel, in the encoder and the decoder
    (whose pieces are views of the encoder's)."""
    d = pentagon()
    d.U["encoder"][:, 5:] = torch.tensor([[0.4, -0.4], [0.0, 0.0]])
    d.V["encoder"][5:] = torch.eye(5)[:1]
    return d


def unit_columns(m: int, n: int) -> Tensor:
    """Random unit columns (m, n)."""
    W = torch.randn(m, n, generator=torch.Generator().manual_seed(0))
    return W / W.norm(dim=0)


def exact(W: Tensor, C: int, d_gate: int = 1) -> Decomposition:
    """A TMS with unit columns W (hidden, features), decomposed by hand.

    Encoder: U_c = W_c, V_c = e_c; decoder: the transposes. The gates are steps: only the
    subcomponents of features that are on matter, and masks of the others change no output at all
    (as long as the bias, −0.3, hides the interference).
    """
    m, n = W.shape
    target = TMS(n, m)
    with torch.no_grad():
        target.encoder.weight.copy_(W)
        target.decoder.weight.copy_(W.mT)
        target.decoder.bias.fill_(-0.3)
    U = {"encoder": torch.cat([W, torch.zeros(m, C - n)], dim=1)}
    V = {"encoder": torch.cat([torch.eye(n), torch.zeros(C - n, n)])}
    U["decoder"], V["decoder"] = V["encoder"].mT, U["encoder"].mT

    steps = {"encoder": (1.0, 0.0), "decoder": (4.0, -2.4)}
    gates = {name: step_gates(C, n, *step, d_gate) for name, step in steps.items()}
    wrapped = Target(target, None, {"decoder": "encoder"})
    return Decomposition(wrapped, U, V, gates, Config(C=C, gate_hidden=d_gate))


def step_gates(C: int, live: int, slope: float, offset: float, d_gate: int) -> Gates:
    """Importance 1 where slope · h + offset is well above 0, else 0; always 0 from `live` on."""
    on = torch.tensor([1.0] * live + [0.0] * (C - live))[:, None]
    wide = torch.ones(1, d_gate)
    return Gates(slope * on * wide, offset * on * wide, 10 * on * wide / d_gate, torch.zeros(C))


def exact_residual(
    n_layers: int = 1,
    d_mlp: int = 6,
    C_in: int = 14,
    C_out: int = 8,
    features: int = 12,
    d_resid: int = 30,
    d_gate: int = 1,
    noise: float = 0.0,
) -> Decomposition:
    """A residual MLP decomposed by hand: W_in by features, W_out by neurons.

    V of W_in is the dual of the embedding, so only the features that are on are read; noise is
    added to every U and V (nothing is exact any more, but the numbers look like trained ones).
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        target = ResidualMLP(features, d_resid, d_mlp, n_layers)
        dual = torch.linalg.pinv(target.W_E).mT
        U, V, gates = {}, {}, {}
        for w_in, w_out in target.pairs:
            A = 0.3 * torch.randn(d_mlp, features)
            back = dual.mT @ (0.3 * torch.randn(features, d_mlp))
            U[w_in] = torch.cat([A, torch.zeros(d_mlp, C_in - features)], 1)
            V[w_in] = torch.cat([dual, torch.zeros(C_in - features, d_resid)])
            U[w_out] = torch.cat([back, torch.zeros(d_resid, C_out - d_mlp)], 1)
            V[w_out] = torch.cat([torch.eye(d_mlp), torch.zeros(C_out - d_mlp, d_mlp)])
            gates[w_in] = step_gates(C_in, features, 1.0, 0.0, d_gate)
            gates[w_out] = step_gates(C_out, d_mlp, 20.0, 0.0, d_gate)
            with torch.no_grad():
                weights = dict(target.named_parameters())
                weights[f"{w_in}.weight"].copy_(A @ dual)
                weights[f"{w_out}.weight"].copy_(back)
        for arrays in (U, V):
            for name, array in arrays.items():
                arrays[name] = array + noise * torch.randn(array.shape)
        gates = {n: Gates(*(t + noise * torch.randn(t.shape) for t in g)) for n, g in gates.items()}
    return Decomposition(Target(target, None, {}), U, V, gates, Config(C=C_in, gate_hidden=d_gate))


def resid_mlp(n_layers: int, noise: float = 0.0) -> Decomposition:
    """The sizes of the book's residual MLPs: 100 features, 1,000 in the stream, C as preset."""
    d_mlp, C_in, C_out = {1: (50, 130, 60), 2: (25, 120, 32), 3: (17, 124, 24)}[n_layers]
    return exact_residual(n_layers, d_mlp, C_in, C_out, 100, 1000, 8, noise)


def memory(
    n_facts: int = 12,
    per_subject: int = 3,
    d_key: int = 24,
    d_mlp: int = 16,
    n_paths: int = 1,
    spare: int = 2,
    noise: float = 0.0,
    d_gate: int = 1,
) -> Decomposition:
    """Facts decomposed by hand: in each pathway one piece of W_in and one of W_out a fact.

    V of W_in is the dual of the keys, so that each piece is read by its own key alone and what is
    left of the hidden vector without it is 0; V of W_out is the dual of those hidden vectors, and
    a fact's own logit is 6 in each pathway, all others 0. Spare pieces are 0. Noise is added to
    every U and V (the numbers look like trained ones, and nothing is exact any more).
    """
    generator = torch.Generator().manual_seed(0)
    target = Facts(n_facts, per_subject, n_facts, d_key, d_mlp, n_paths)
    target.keys.copy_(draw_keys(n_facts, per_subject, d_key, 0.5, generator))
    U, V, gates = {}, {}, {}
    for path in range(n_paths):
        write = 0.5 * torch.randn(d_mlp, n_facts, generator=generator)
        pieces = {
            "W_in": (write, torch.linalg.pinv(target.keys).mT),
            "W_out": (6 * torch.eye(n_facts), torch.linalg.pinv(write.relu())),
        }
        for layer, (u, v) in pieces.items():
            name = f"paths.{path}.{layer}"
            U[name] = torch.cat([u, torch.zeros(len(u), spare)], 1)
            V[name] = torch.cat([v, torch.zeros(spare, v.shape[1])])
            gates[name] = step_gates(n_facts + spare, n_facts, 4.0, -2.4, d_gate)
            with torch.no_grad():
                target.get_parameter(f"{name}.weight").copy_(u @ v)
        with torch.no_grad():
            target.get_parameter(f"paths.{path}.W_in.bias").zero_()
    for arrays in (U, V):
        for name, array in arrays.items():
            arrays[name] = array + noise * torch.randn(array.shape, generator=generator)
    config = Config(C=n_facts + spare, gate_hidden=d_gate)
    return Decomposition(Target(target, None, {}), U, V, gates, config)


def random_memory(n_paths: int, seed: int) -> Decomposition:
    """Seven facts with random weights, biases, keys and pieces."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        target = Facts(7, 2, 5, 9, 6, n_paths)
        target.keys.copy_(torch.randn(7, 9))
    return decomposition(target, 8, seed, {})


def cube_cases() -> list[dict[str, object]]:
    """True columns, and a cancelling pair that one mask at a time would give away."""
    eye = torch.eye(2)
    pair_U = torch.tensor([[1.0, 0.0, 2.0, -2.0], [0.0, 1.0, 1.0, -1.0]])
    pair_V = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]])

    def inputs(C: int) -> list[dict[str, object]]:
        g = eye.tolist()
        return [{"label": f"x{i} on", "x": g[i], "g": [g[i] + [0.0] * (C - 2)]} for i in range(2)]

    return [
        {
            "name": "true columns",
            "why": "One subcomponent a column.",
            "layers": [{"name": "W", "W": eye, "U": eye, "V": eye}],
            "inputs": inputs(2),
        },
        {
            "name": "cancelling pair",
            "why": "Two more that cancel while both are on.",
            "layers": [{"name": "W", "W": eye, "U": pair_U, "V": pair_V}],
            "inputs": inputs(4),
        },
    ]


def snapshots() -> tuple[list[Snapshot], nn.Module]:
    """Three moments of an invented training run that ends at the pentagon."""
    d = pentagon()
    moments = []
    for step, share in ((0, 0.2), (50, 0.6), (100, 1.0)):
        d.U = {n: share * u for n, u in pentagon().U.items()}
        d.V = pentagon().V
        moments.append(snapshot(step, d, {"total": 1 - 0.9 * share, "recon": 0.01 / share}))
    return moments, d.target


def dialled(name: str, g: Tensor) -> dict[str, object]:
    """A run for `explorer.dial`: as many pieces as `g` (n, C) has columns, in the plane."""
    n, C = g.shape
    pieces = torch.arange(2.0 * n * C).reshape(C, 2, n) / (2 * n * C)
    sound = {"pattern": True, "strict": True, "text": "Said of it."}
    return {"name": name, "g": g, "pieces": pieces, **sound}
