"""The four losses of SPD, and the optional frequency penalty, as pure functions.

Every function returns one number per restart (a tensor of shape (R,)); `decompose` adds them up:

    total = faithfulness + β1 · recon + β2 · layerwise + β3 · importance     (paper, section 2)

`weight` arguments are the weights of the batch rows in the mean, summing to 1; None means 1/B.
They allow stratified sampling (an all-zero input can stand in the batch once, with its probability
as its weight), which is exact: the expectation of every loss is unchanged.
"""

import functools
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Divergence = Callable[[Tensor, Tensor], Tensor]


def mse(out: Tensor, target_out: Tensor) -> Tensor:
    """Squared error averaged over everything but the first two dimensions: (R, B, ...) → (R, B)."""
    return _row_mean(F.mse_loss(out, target_out, reduction="none"))


def kl(out: Tensor, target_out: Tensor) -> Tensor:
    """KL(target ‖ masked) of logits over the last dimension, averaged over positions: → (R, B)."""
    log_q, log_p = F.log_softmax(out, -1), F.log_softmax(target_out, -1)
    return _row_mean((log_p.exp() * (log_p - log_q)).sum(-1))


def _row_mean(per_entry: Tensor) -> Tensor:
    """Mean over everything after the first two dimensions, of which there may be nothing."""
    return per_entry.reshape(*per_entry.shape[:2], -1).mean(-1)


DIVERGENCES: Mapping[str, Divergence] = {"mse": mse, "kl": kl}


def batch_mean(per_row: Tensor, weight: Tensor | None) -> Tensor:
    """Weighted mean over the last dimension: N = B · positions rows share the B row weights."""
    if weight is None:
        return per_row.mean(-1)
    weight = weight.to(per_row.dtype)
    positions = per_row.shape[-1] // len(weight)
    return per_row @ (weight.repeat_interleave(positions) / positions if positions > 1 else weight)


def faithfulness(
    weights: Mapping[str, Tensor],
    U: Mapping[str, Tensor],
    V: Mapping[str, Tensor],
    tied: Mapping[str, str] | None = None,
) -> Tensor:
    """(1/N) Σ_l ‖W^l − U^l V^l‖_F² with N the number of decomposed weight entries. Returns (R,).

    weights: {name: (d_out, d_in)}; U: {name: (R, d_out, C)}; V: {name: (R, C, d_in)}. A tied
    module has the error of its source, which therefore counts once more.
    """
    tied, N = tied or {}, sum(W.numel() for W in weights.values())
    terms = []
    for n, W in weights.items():
        if n not in tied:
            error = torch.baddbmm(W.expand(len(U[n]), *W.shape), U[n], V[n], alpha=-1)
            times = 1 + sum(source == n for source in tied.values())
            terms.append(error.square().sum((1, 2)) * (times / N))
    return functools.reduce(torch.add, terms)


def recon(out: Tensor, target_out: Tensor, divergence: Divergence, weight: Tensor | None) -> Tensor:
    """D(masked output, target output), averaged over the batch.

    out: (R, B, ...) of one masked pass; target_out: (B, ...). Returns (R,). The same function
    serves the stochastic loss (all layers masked) and the layerwise one (one layer masked).
    """
    return batch_mean(divergence(out, target_out.expand_as(out)), weight)


def importance_minimality(
    upper: Mapping[str, Tensor],
    p: Mapping[str, float],
    scale: Mapping[str, float],
    weight: Tensor | None = None,
) -> Tensor:
    """Mean over the batch of Σ_l Σ_c scale_l · σ_upper(γ)^p_l. Returns (R,).

    upper: {name: (R, C, N)}, the upper-leaky importances; `scale` lets a matrix weigh more (1 in
    the paper). Gradients reach V through h as well as the gates (nothing is detached).
    """
    per_row = [
        power(g, p[n]).sum(1) if scale[n] == 1 else scale[n] * power(g, p[n]).sum(1)
        for n, g in upper.items()
    ]
    return functools.reduce(torch.add, [batch_mean(penalty, weight) for penalty in per_row])


def power(g: Tensor, p: float) -> Tensor:
    """g^p for g ≥ 0, with a finite gradient at 0 when p < 1."""
    if p == 1:
        return g
    return g.square() if p == 2 else (g + 1e-12).pow(p)


def frequency(
    upper: Mapping[str, Tensor], scale: Mapping[str, float], weight: Tensor | None = None
) -> Tensor:
    """Σ_l Σ_c scale_l · f_c log2(1 + B f_c), f_c = mean importance of c over the B rows. (R,).

    Makes a subcomponent that serves many inputs dearer than several that serve few each (VPD,
    May 2026). Not in the SPD paper; off unless `Config.frequency_coeff` is set.
    """
    total = torch.zeros((), device=next(iter(upper.values())).device)
    for n, g in upper.items():
        if scale[n]:
            f = batch_mean(g, weight)
            total = total + scale[n] * (f * torch.log2(1 + g.shape[-1] * f)).sum(1)
    return total
