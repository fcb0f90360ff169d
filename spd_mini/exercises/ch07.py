"""Checks for the exercises of chapter 7, and the training runs of its last one."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..targets.resid_mlp import RESID_MLP_1, Preset, ResidualMLP, folded, labels
from . import Wrong, as_tensor, check, compare, random


@check
def check_1(contribution: Callable[..., Tensor]) -> str:
    """7.1: (e_i · W_out[:, k]) · U[k, c] · (V_c · e_i), for every feature, piece and neuron."""
    E, U, V, W_out = (random(*s, seed=71) for s in ((5, 9), (4, 3), (3, 9), (9, 4)))
    got = as_tensor(contribution(E, U, V, W_out), (5, 3, 4), "contribution(...)")
    writes, reads = E @ W_out, E @ V.mT  # (features, neurons), (features, pieces)
    want = writes[:, None, :] * U.mT * reads[..., None]
    likely = {
        "What the neuron adds to output i is missing: the factor e_i · W_out[:, k].": (
            U.mT * reads[..., None]
        ),
        "What the piece reads of feature i is missing: the factor V_c · e_i.": (
            writes[:, None, :] * U.mT
        ),
        "No ReLU: a contribution is per unit of input, for a neuron that fires.": (
            writes[:, None, :] * (U.mT * reads[..., None]).clamp(min=0)
        ),
    }
    compare(got, want, likely, "contribution(...)")
    return "summed over the pieces it is the model's own contribution, if the pieces sum to W_in"


@check
def check_2(private: Callable[[Tensor], Tensor | None]) -> str:
    """7.2: V with V Aᵀ = I, or None where the rows of A are dependent."""
    room, crowd = random(5, 8, seed=72), random(8, 5, seed=73)
    flat = room.clone()
    flat[4] = flat[0] - flat[1]  # room enough, but dependent
    V = private(room)
    if V is None:
        raise Wrong("Five independent vectors in eight dimensions: there are such directions.")
    V = as_tensor(V, (5, 8), "private(A) for A of shape (5, 8)")
    read = V @ room.mT
    if not torch.allclose(read.diagonal(), torch.ones(5), atol=1e-3):
        raise Wrong("V_i · a_i should be 1. Did you forget to divide by a length squared?")
    if not torch.allclose(read, torch.eye(5), atol=1e-3):
        raise Wrong("V_i = a_i, however scaled, reads the other vectors too: they overlap.")
    for A, why in ((crowd, "eight vectors in five dimensions"), (flat, "a₄ = a₀ − a₁")):
        if private(A) is not None:
            raise Wrong(f"For {why} the answer is None: the vectors are not independent.")
    return "features can be told apart exactly where their directions are independent"


@check
def check_3(prices: Callable[[float, int], Sequence[Sequence[float]]]) -> str:
    """7.3: (2q, f) and (2 q log2(1 + B q), f log2(1 + B f)) with f = 1 − (1 − q)²."""
    for q, B in ((0.01, 384), (0.3, 64)):
        got = as_tensor([list(pair) for pair in prices(q, B)], (2, 2), "prices(q, B)")

        def both(shared: float, q: float = q, B: float = B) -> Tensor:
            dear = [f * math.log2(1 + B * f) for f in (q, shared)]
            return torch.tensor([[2 * q, shared], [2 * dear[0], dear[1]]])

        want = both(1 - (1 - q) ** 2)
        likely = {
            "Both features may be on at once; the shared piece still counts once.": both(2 * q),
            "There are two private pieces.": want / torch.tensor([2.0, 1.0]),
            "The logarithm is to base 2.": want * torch.tensor([[1.0], [math.log(2)]]),
            "The order is (private, shared).": want.flip(1),
            "First the pair of minimality, then the pair of frequency.": want.flip(0),
        }
        compare(got, want, likely, f"prices({q}, {B})")
    return "minimality would rather share; the frequency penalty would not"


@check
def check_4(naive: Callable[[Tensor, int, float], float]) -> str:
    """7.4: p (1 − m/n)/6 + p ‖M‖²/(3 n)."""
    for n, m, p in ((6, 2, 0.1), (8, 4, 0.01)):
        M = 0.3 * random(n, n, seed=74).fill_diagonal_(0)
        ignored, mixing = p * (1 - m / n) / 6, p * float(M.square().sum()) / (3 * n)
        likely = {
            "The mixing matrix is missing: output i also carries (Mx)_i.": ignored,
            "The ignored features are missing.": mixing,
            "The error is a mean over outputs, not a sum.": n * (ignored + mixing),
            "The features are on with probability p only.": (ignored + mixing) / p,
            "Features lie in [−1, 1]: ReLU is zero for half of them.": 2 * ignored + mixing,
            "m features are served, n − m ignored.": p * (m / n) / 6 + mixing,
            "E[x²] of a uniform x in [−1, 1] is a third.": ignored + 3 * mixing,
        }
        got = as_tensor(naive(M, m, p), (), "naive(M, m, p)")
        wrong = {why: torch.tensor(v) for why, v in likely.items()}
        compare(got, torch.tensor(ignored + mixing), wrong, f"naive(M, {m}, {p})")
    return "an ignored feature and the mixing matrix cost independently of each other"


@check
def check_5(embedding: Callable[[Tensor, float], Tensor]) -> str:
    """7.5: F with F Fᵀ = I + sM."""
    raw = random(6, 60, seed=75)
    unit = raw / raw.norm(dim=1, keepdim=True)
    M = unit @ unit.mT - torch.eye(6)
    for s in (1.0, 0.5, 0.0):
        F = as_tensor(embedding(M, s), (6, 6), "embedding(M, s)")
        gram, want = F @ F.mT, torch.eye(6) + s * M
        if torch.allclose(gram, want, atol=1e-3):
            continue
        if torch.allclose(F, want, atol=1e-3):
            raise Wrong("That is I + sM itself. Asked is F with F Fᵀ = I + sM: a root of it.")
        if torch.allclose(gram, torch.eye(6) + M, atol=1e-3):
            raise Wrong("s is ignored: the overlaps should be s times those of M.")
        if not torch.allclose(gram.diagonal(), torch.ones(6), atol=1e-3):
            raise Wrong("The rows should have length 1, for every s.")
        raise Wrong(f"For s = {s} the overlaps of the rows are not s times M.")
    return "same lengths, same pattern of overlaps, and a knob for their size"


def mixing(
    embedding: Callable[[Tensor, float], Tensor],
    M: Tensor,
    strengths: Sequence[float] = (0.0, 0.5, 1.0),
    steps: int = 1000,
    preset: Preset = RESID_MLP_1,
) -> dict[float, float]:
    """Mean squared error of a one-layer network trained with each embedding(M, s): {s: error}.

    M: (n_features, n_features). The networks start from one seed and see the same inputs; only the
    embedding differs. Labels, optimiser and schedule are those of chapter 7's target.
    """
    return {s: _trained_error(embedding(M, s), steps, preset) for s in strengths}


def _trained_error(embedding: Any, steps: int, preset: Preset) -> float:
    F = as_tensor(embedding, (preset.n_features, preset.n_features), "embedding(M, s)")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ResidualMLP(preset.n_features, preset.n_features, preset.d_mlp, 1)
    model.W_E.copy_(F)
    draw, generator = preset.sampler(), torch.Generator().manual_seed(0)
    adam = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)

    def error(rows: int) -> Tensor:
        x, weight = draw(rows, generator)
        return (folded(model, x) - labels(x)).square().mean(1) @ weight

    for _ in range(steps):
        adam.zero_grad()
        error(512).backward()
        adam.step()
        decay.step()
    with torch.no_grad():
        return float(error(30_000))
