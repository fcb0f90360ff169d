"""Small targets of unlike build, samplers, and decompositions written down by hand."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from spd_mini.config import Config
from spd_mini.decomposition import Decomposition
from spd_mini.importance import Gates
from spd_mini.model import Target
from spd_mini.targets.tms import TMS

M = TypeVar("M", bound=nn.Module)
Sampler = Callable[[int, torch.Generator], Tensor]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def fill(module: M, seed: int = 0) -> M:
    """Random parameters from a seed of their own (the global generator is nobody's business)."""
    source = generator(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=source))
    return module


def tms(n_features: int = 4, n_hidden: int = 2, identity: bool = False, seed: int = 0) -> TMS:
    model = fill(TMS(n_features, n_hidden, identity), seed)
    with torch.no_grad():
        model.decoder.weight.copy_(model.encoder.weight.mT)
    return model


class BiasedMLP(nn.Module):
    """Linear, LayerNorm, GELU, Linear, with biases; nested names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.GELU())
        self.head = nn.ModuleDict({"out": nn.Linear(5, 2)})

    def forward(self, x: Tensor) -> Tensor:
        return self.head["out"](self.body(x))


class TokenModel(nn.Module):
    """Embedding followed by linear layers: tokens (B, T) → logits (B, T, vocabulary)."""

    def __init__(self, vocabulary: int = 6, width: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.mix = nn.Linear(width, width)
        self.unembed = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        e = self.embed(tokens)
        return self.unembed(e + torch.relu(self.mix(e)))


class Twice(nn.Module):
    """One module called twice in a forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(3, 3)
        self.out = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.shared(torch.relu(self.shared(x))))


class Spare(nn.Module):
    """A linear layer that the forward pass leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(3, 2)
        self.spare = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


class Positions(nn.Module):
    """Token and position embeddings; the positions have no batch dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(6, 4)
        self.position = nn.Embedding(5, 4)
        self.out = nn.Linear(4, 6)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.token(tokens) + self.position(torch.arange(tokens.shape[1])))


def mlp(seed: int = 0) -> BiasedMLP:
    return fill(BiasedMLP(), seed)


def token_model(seed: int = 0) -> TokenModel:
    return fill(TokenModel(), seed)


def rows(width: int, dtype: torch.dtype = torch.float32) -> Sampler:
    """Uniform inputs (n, width)."""
    return lambda n, g: torch.rand(n, width, generator=g, dtype=dtype)


def tokens(n: int, g: torch.Generator) -> Tensor:
    """Token sequences (n, 3) for a vocabulary of 6."""
    return torch.randint(6, (n, 3), generator=g)


def constant_gates(values: Sequence[float], dtype: torch.dtype = torch.float32) -> Gates:
    """Gates whose importance is the same on every input: γ_c = values[c]."""
    C = len(values)
    zeros = torch.zeros(C, 1, dtype=dtype)
    return Gates(zeros, zeros.clone(), zeros.clone(), torch.tensor(values, dtype=dtype))


def threshold_gates(C: int, at: float = 0.1, dtype: torch.dtype = torch.float32) -> Gates:
    """γ_c(h) = 10 · (|h| − at), nearly: two GELU units, sharp enough to be 0 or 1 in the tests."""
    w_in = torch.tensor([[1000.0, -1000.0]], dtype=dtype).expand(C, 2).clone()
    w_out = torch.full((C, 2), 0.01, dtype=dtype)
    b_out = torch.full((C,), -10 * at, dtype=dtype)
    return Gates(w_in, torch.zeros(C, 2, dtype=dtype), w_out, b_out)


def by_hand(
    module: nn.Module,
    U: Mapping[str, Tensor],
    V: Mapping[str, Tensor],
    gates: Mapping[str, Gates],
    tied: Mapping[str, str] | None = None,
    config: Config | None = None,
) -> Decomposition:
    """A decomposition with given matrices and gates."""
    return Decomposition(Target(module, list(U), tied), U, V, gates, config or Config())


def exact_columns(model: TMS, spare: int = 1) -> Decomposition:
    """The true decomposition of a TMS: one subcomponent per column of W, `spare` dead ones.

    The hidden identity, if there is one, is written as its m unit directions.
    """
    W = model.encoder.weight.detach()
    m, n = W.shape
    U = {"encoder": torch.cat([W, torch.zeros(m, spare)], 1)}
    V = {"encoder": torch.cat([torch.eye(n), torch.zeros(spare, n)], 0)}
    gates = {"encoder": threshold_gates(n + spare)}
    if model.hidden is not None:
        U["hidden"], V["hidden"] = torch.eye(m), torch.eye(m)
        gates["hidden"] = threshold_gates(m, at=1e-3)
    U["decoder"], V["decoder"] = V["encoder"].mT.clone(), U["encoder"].mT.clone()
    # The decoder's subcomponent i reads W_i · a; on probe j that is 0.75 W_i·W_j, which
    # interference also moves: the threshold lies between W_i·W_i and the other products.
    gram = 0.75 * (W.mT @ W)
    own = gram.diagonal().min()
    other = (gram - torch.diag(gram.diagonal())).max()
    cut = float((own + other.clamp(min=0)) / 2)
    w_in = torch.full((n + spare, 1), 1000.0)
    sharp = Gates(
        w_in,
        torch.full((n + spare, 1), -1000.0 * cut),
        torch.full((n + spare, 1), 0.1),
        torch.zeros(n + spare),
    )
    gates["decoder"] = sharp
    return by_hand(model, U, V, gates, tied={"decoder": "encoder"})


def state_of(module: nn.Module) -> list[Any]:
    """Everything that 'left exactly as it was found' speaks of."""
    state: list[Any] = []
    for n, m in module.named_modules():
        hooks = [len(v) for k, v in vars(m).items() if k.endswith("_hooks")]
        state.append((n, m.training, hooks, sorted(vars(m)), id(vars(m).get("forward"))))
    for n, p in module.named_parameters():
        grad = None if p.grad is None else p.grad.clone().numpy().tobytes()
        state.append((n, p.requires_grad, id(p), p.detach().numpy().tobytes(), grad))
    return state


def triangle(identity: bool = False) -> TMS:
    """Three features in the plane, 120° apart: one feature on comes out exactly, without bias."""
    model = TMS(3, 2, identity)
    angles = torch.arange(3) * (2 * torch.pi / 3)
    W = torch.stack([angles.cos(), angles.sin()])
    with torch.no_grad():
        model.encoder.weight.copy_(W)
        model.decoder.weight.copy_(W.mT)
        model.decoder.bias.zero_()
        if model.hidden is not None:
            model.hidden.weight.copy_(torch.eye(2))
    return model.eval()
