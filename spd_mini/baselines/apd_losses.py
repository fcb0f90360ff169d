"""The mathematics of APD (Braun et al. 2025, arXiv 2501.14926) as pure functions; see `apd`.

Shapes. R runs stand side by side. U (R, d_out, C·m) and V (R, C·m, d_in) of a matrix hold component
c in the entries c·m … c·m + m − 1: an APD component is a group of m rank-one pieces in every
matrix, all under one mask, so that the core's forward pass serves both methods.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..model import Target

TINY = 1e-16
"""Added to the squared norms in the simplicity loss: a finite gradient for p < 2 (their code)."""


def gradients(target: Target, x: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The target's output on x (N, d), and what attributions need from it.

    Returns f(x) (N, O); inputs of each decomposed matrix {name: (N, d_in)}; gradients of every
    output with respect to each matrix's output {name: (O, N, d_out)}. All of the frozen target:
    the components do not enter.
    """
    acts: dict[str, Tensor] = {}
    posts: dict[str, Tensor] = {}

    def tap(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
            acts[name] = args[0].detach()
            posts[name] = out if out.requires_grad else out.requires_grad_()

        return hook

    handles = [site.register_forward_hook(tap(n)) for n, site in target.sites.items()]
    try:
        with torch.enable_grad():
            out = target(x)
    finally:
        for handle in handles:
            handle.remove()
    outputs = out.shape[1]
    each = torch.eye(outputs, dtype=out.dtype, device=out.device)[:, None]
    each = each.expand(outputs, *out.shape)
    grads = torch.autograd.grad(out, list(posts.values()), each, is_grads_batched=True)
    found = dict(zip(posts, grads, strict=True))
    names = target.names
    return out.detach(), {n: acts[n] for n in names}, {n: found[n] for n in names}


def attributions(
    acts: Mapping[str, Tensor],
    grads: Mapping[str, Tensor],
    U: Mapping[str, Tensor],
    V: Mapping[str, Tensor],
    C: int,
) -> Tensor:
    """A_c(x) = Σ_o (Σ_l ∂f_o/∂y^l · P_c^l a^l)², y^l = W^l a^l on the target: (R, N, C).

    acts, grads as `gradients` returns them; U: {name: (R, d_out, C·m)}; V: {name: (R, C·m, d_in)}.
    """
    N, outs = len(next(iter(acts.values()))), []
    for n, a in acts.items():
        u, v = U[n].unflatten(2, (C, -1)), V[n].unflatten(1, (C, -1))
        P = torch.einsum("rocm,rcmi->iorc", u, v)
        outs.append((a @ P.flatten(1)).view(N, P.shape[1], -1))  # P_c a: (N, d_out, R·C)
    # One product for all matrices: their gradients and outputs stand one after the other.
    per_output = torch.bmm(torch.cat(list(grads.values()), 2).transpose(0, 1), torch.cat(outs, 1))
    return per_output.square().sum(1).unflatten(1, (-1, C)).transpose(0, 1)


def batch_topk(scores: Tensor, k: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The k highest entries over batch and components together, run by run.

    scores: (R, N, C) attributions; k: R counts. Returns bool (R, N, C) and the lowest score kept
    (R,). An attribution of exactly 0 is never kept, even when there are fewer than k others: the
    component would do nothing there. Exact ties at the cut are all kept.
    """
    flat = scores.flatten(1)
    n = flat.shape[1]
    cut = torch.stack(
        [row.kthvalue(n + 1 - min(count, n)).values for row, count in zip(flat, k, strict=True)]
    )
    return (scores >= cut[:, None, None]) & (scores > 0), cut


def simplicity(
    active: Tensor,
    U: Mapping[str, Tensor],
    V: Mapping[str, Tensor],
    tied: Mapping[str, str],
    p: float,
    examples: int,
) -> Tensor:
    """Σ_active c Σ_l Σ_r (‖U_cr^l‖² ‖V_cr^l‖²)^(p/2) / N, mean over `examples`. Returns (R,).

    active: (R, N, C) bool, possibly without rows on which nothing is active.
    """
    uses, C = active.sum(1), active.shape[-1]  # (R, C)
    N = sum(u.shape[1] * V[n].shape[2] for n, u in U.items())
    total = torch.zeros((), device=uses.device)
    for n, u in U.items():
        if n not in tied:
            times = 1 + sum(source == n for source in tied.values())
            squared = u.square().sum(1) * V[n].square().sum(2)  # (R, C·m)
            norms = (squared + TINY).pow(p / 2).unflatten(1, (C, -1)).sum(2)
            total = total + times * (uses * norms).sum(1)
    return total / (N * examples)


def spread(active: Tensor, rank: int) -> Tensor:
    """Masks for the core's forward pass: (R, N, C) → (R, C·m, N)."""
    return active.mT.repeat_interleave(rank, 1)
