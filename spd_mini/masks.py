"""Sources r and masks m = g + (1 − g) r: the importance g is the *floor* of the mask."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .decomposition import Decomposition


def from_source(g: Tensor, r: Tensor | float) -> Tensor:
    """m = g + (1 − g) r. r = 0 keeps only what is important, r = 1 keeps everything."""
    return g + (1 - g) * r


def uniform(shape: torch.Size | tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A random source r ~ U(0, 1), as in training."""
    return torch.rand(shape, generator=generator, device=generator.device)


def random(g: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Masks drawn as in training. g: {name: (..., C)} importances; returns the same shapes."""
    return {n: from_source(v, uniform(v.shape, generator).to(v.device)) for n, v in g.items()}


def fixed(g: Mapping[str, Tensor], r: float) -> dict[str, Tensor]:
    """Masks with the same source value everywhere: 0 = only the important, 1 = everything."""
    return {n: from_source(v, r) for n, v in g.items()}


def worst_case(
    d: "Decomposition",
    x: Tensor,
    *,
    steps: int = 20,
    step_size: float = 0.2,
    starts: int = 4,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Allowed masks that move the output furthest: projected sign-gradient ascent on the sources.

    x: (B, ...) inputs; every row has sources of its own. Each of `starts` random starts takes
    `steps` steps of `step_size` in r, clipped to [0, 1]; per row the best masks seen are kept.
    Returns {name: (B, ..., C)} with g ≤ m ≤ 1. Raises ValueError for a budget that cannot attack.
    """
    if steps < 1 or starts < 1 or not step_size > 0:
        raise ValueError(
            f"worst_case needs steps ≥ 1, starts ≥ 1 and step_size > 0; got steps={steps}, "
            f"starts={starts}, step_size={step_size}"
        )
    generator = torch.Generator().manual_seed(seed)
    g, target_out = d.causal_importance(x), d.target(x)
    best = fixed(g, 1.0)
    best_error = d.divergence(d(x, best), target_out)
    for _ in range(starts):
        r = {n: uniform(v.shape, generator).to(v.device).requires_grad_() for n, v in g.items()}
        for step in range(steps + 1):
            masks = {n: from_source(g[n], r[n]) for n in g}
            error = d.divergence(d(x, masks), target_out)
            with torch.no_grad():
                better = error > best_error
                best_error = torch.where(better, error, best_error)
                for n, m in masks.items():
                    row = better.view(-1, *[1] * (m.dim() - 1))
                    best[n] = torch.where(row, m, best[n])
            if step == steps:
                break
            grads = torch.autograd.grad(error.sum(), list(r.values()))
            with torch.no_grad():
                for source, grad in zip(r.values(), grads, strict=True):
                    source += step_size * grad.sign()
                    source.clamp_(0.0, 1.0)
    return best
