"""Naive, independent implementations: plain Python loops over numbers, one row at a time.

Nothing here calls the package; slow and obvious on purpose. Tensors are turned into nested lists.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

Matrix = list[list[float]]


def lower_leaky(gamma: float) -> float:
    """Hard sigmoid with slope 0.01 below 0."""
    if gamma < 0:
        return 0.01 * gamma
    return 1.0 if gamma > 1 else gamma


def upper_leaky(gamma: float) -> float:
    """Hard sigmoid with slope 0.01 above 1."""
    if gamma > 1:
        return 1.0 + 0.01 * (gamma - 1.0)
    return 0.0 if gamma < 0 else gamma


def gate(
    h: float, w_in: Sequence[float], b_in: Sequence[float], w_out: Sequence[float], b_out: float
) -> float:
    """One importance MLP on one number, with the exact (erf) GELU."""
    total = b_out
    for wi, bi, wo in zip(w_in, b_in, w_out, strict=True):
        z = wi * h + bi
        total += wo * z * 0.5 * (1 + math.erf(z / math.sqrt(2)))
    return total


def masked_weight(U: Matrix, V: Matrix, mask: Sequence[float]) -> Matrix:
    """U diag(m) V."""
    return [
        [
            sum(U[o][c] * mask[c] * V[c][i] for c in range(len(mask)))
            for i in range(len(V[0]) if V else 0)
        ]
        for o in range(len(U))
    ]


def faithfulness(weights: Sequence[Tensor], Us: Sequence[Tensor], Vs: Sequence[Tensor]) -> float:
    """(1/N) Σ_l ‖W − UV‖², entry by entry, for matrices without a restart dimension."""
    total, entries = 0.0, 0
    for W, U, V in zip(weights, Us, Vs, strict=True):
        for o in range(W.shape[0]):
            for i in range(W.shape[1]):
                product = sum(float(U[o, c]) * float(V[c, i]) for c in range(U.shape[1]))
                total += (float(W[o, i]) - product) ** 2
                entries += 1
    return total / entries


def mse(out: Tensor, target_out: Tensor) -> list[float]:
    """Squared error of each row, averaged over whatever a row holds. (B, ...) → B numbers."""
    rows = []
    for a, b in zip(out.reshape(len(out), -1), target_out.reshape(len(out), -1), strict=True):
        entries = list(zip(a.tolist(), b.tolist(), strict=True))
        rows.append(sum((p - q) ** 2 for p, q in entries) / len(entries))
    return rows


def kl(out: Tensor, target_out: Tensor) -> list[float]:
    """KL(target ‖ out) of logits, averaged over the positions of each row. (B, ..., K) → B."""

    def probabilities(logits: list[float]) -> list[float]:
        top = max(logits)
        exps = [math.exp(v - top) for v in logits]
        return [e / sum(exps) for e in exps]

    rows = []
    for a, b in zip(out, target_out, strict=True):
        positions = list(
            zip(
                a.reshape(-1, a.shape[-1]).tolist(),
                b.reshape(-1, b.shape[-1]).tolist(),
                strict=True,
            )
        )
        total = 0.0
        for mine, theirs in positions:
            for q, p in zip(probabilities(mine), probabilities(theirs), strict=True):
                total += p * (math.log(p) - math.log(q))
        rows.append(total / len(positions))
    return rows


def row_mean(per_row: Sequence[float], weight: Sequence[float] | None) -> float:
    """Mean of per-row numbers; with weights, N = B · positions rows share the B weights."""
    if weight is None:
        return sum(per_row) / len(per_row)
    positions = len(per_row) // len(weight)
    return sum(v * weight[k // positions] / positions for k, v in enumerate(per_row))


def importance_minimality(
    upper: Sequence[Tensor],
    ps: Sequence[float],
    scales: Sequence[float],
    weight: Sequence[float] | None,
) -> float:
    """Σ_l scale_l · mean over rows of Σ_c g^p, for importances (C, N) of each module."""
    total = 0.0
    for g, p, scale in zip(upper, ps, scales, strict=True):
        per_row = [sum(float(g[c, n]) ** p for c in range(g.shape[0])) for n in range(g.shape[1])]
        total += scale * row_mean(per_row, weight)
    return total


def frequency(
    upper: Sequence[Tensor], scales: Sequence[float], weight: Sequence[float] | None
) -> float:
    """Σ_l scale_l Σ_c f log2(1 + B f), for importances (C, N) of each module."""
    total = 0.0
    for g, scale in zip(upper, scales, strict=True):
        for c in range(g.shape[0]):
            f = row_mean(g[c].tolist(), weight)
            total += scale * f * math.log2(1 + g.shape[1] * f)
    return total


def masked_rows(
    module: nn.Module,
    x: Tensor,
    U: dict[str, Tensor],
    V: dict[str, Tensor],
    masks: dict[str, Tensor],
) -> Tensor:
    """Row by row with U diag(m) V written into the weights. masks: {name: (B, C)}.

    Differentiable in U, V and the masks. Only for modules that read one vector per row.
    """
    outs = []
    for b in range(len(x)):
        swapped = {f"{n}.weight": U[n] @ torch.diag(m[b]) @ V[n] for n, m in masks.items()}
        outs.append(torch.func.functional_call(module, swapped, (x[b : b + 1],)))
    return torch.cat(outs)
