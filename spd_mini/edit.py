"""Edits: subcomponents deleted, scaled or rewritten, folded into a plain model.

A piece U_c V_c is part of a weight W, so an edit is a change of that weight,

    W ← W + Σ_c (f_c u_c − U_c) V_c,

with a factor f_c (0 deletes) and a write direction u_c (U_c unless rewritten). What the pieces
leave over, W − UV, stays; so does every bit of a weight that is not edited. The result is a model
of the target's own class with the same keys, without masks, and trainable like any other.

Several edits are one: factors of a piece multiply, and it is rewritten at most once, so that order
does not matter. An edit is taken back by leaving it out, or by `undo` in a model trained on since.

A tied weight has one change: what names a piece in one module changes its other use along with it.
An edit may name both uses, if both ask for the same. A parameter that is shared outright is changed
once, for all modules that hold it.
"""

import copy
import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .cluster import Leaf
from .data import describe
from .decomposition import Decomposition

Pieces = Mapping[str, Iterable[int]] | Iterable[Leaf]
"""{module: indices}, or (module, index) pairs such as a group of `cluster.components`."""

Scores = Mapping[str, Tensor]
"""{module: (C,)}, one number a piece; a tied module's pieces are those of its source."""


@dataclass(frozen=True)
class Edit:
    """What to do with which pieces: {leaf: factor}, and {leaf: write direction (d_out,)}."""

    factors: Mapping[Leaf, float] = field(default_factory=dict)
    writes: Mapping[Leaf, Tensor] = field(default_factory=dict)


def scaling(pieces: Pieces, factor: float) -> Edit:
    """The edit that multiplies pieces by a finite number, 0 to delete them; else ValueError."""
    if not math.isfinite(factor):
        raise ValueError(f"the factor of an edit must be finite, got {factor}")
    return Edit(factors=dict.fromkeys(leaves(pieces), float(factor)))


def rewriting(writes: Mapping[str, Mapping[int, Tensor]]) -> Edit:
    """The edit that lets pieces write other directions: {module: {index: (d_out,)}}."""
    return Edit(writes={(n, c): u for n, table in writes.items() for c, u in table.items()})


def delete(d: Decomposition, pieces: Pieces) -> nn.Module:
    """The target without these pieces. Errors: `leaves`, `change`."""
    return apply(d, scaling(pieces, 0.0))


def scale(d: Decomposition, pieces: Pieces, factor: float) -> nn.Module:
    """The target with these pieces multiplied. Errors: `scaling`, `change`."""
    return apply(d, scaling(pieces, factor))


def rewrite(d: Decomposition, writes: Mapping[str, Mapping[int, Tensor]]) -> nn.Module:
    """The target with pieces that write {module: {index: (d_out,)}}. Errors: `change`."""
    return apply(d, rewriting(writes))


def apply(d: Decomposition, *edits: Edit, to: nn.Module | None = None) -> nn.Module:
    """All these edits in a copy of the target, or of a like model `to`. Errors: `change`."""
    return fold(d.target if to is None else to, change(d, *edits))


def undo(d: Decomposition, model: nn.Module, *edits: Edit) -> nn.Module:
    """A copy of `model` without what these edits added together (up to rounding)."""
    return fold(model, {n: -delta for n, delta in change(d, *edits).items()})


@torch.no_grad()
def change(d: Decomposition, *edits: Edit) -> dict[str, Tensor]:
    """What these edits together add to the weights: {module: (d_out, d_in)} where any is edited.

    Raises ValueError for pieces that are not there, a write direction that does not fit, two
    different ones for a piece, or two uses of a tied weight that ask for different things.
    """
    factors: dict[Leaf, float] = {}
    writes: dict[Leaf, Tensor] = {}
    for edit in edits:
        for leaf, factor in edit.factors.items():
            factors[leaf] = factors.get(leaf, 1.0) * factor
        for leaf, u in edit.writes.items():
            if (other := writes.setdefault(leaf, u)) is not u and not torch.equal(other, u):
                raise ValueError(f"{leaf} is rewritten twice, in different directions")
    tied = d.wrapped.tied
    asked: dict[Leaf, Tensor] = {}  # changes in the layout of the source's weight
    for name, c in sorted(factors.keys() | writes.keys()):  # one order, whatever the edits' is
        if not 0 <= c < d.C.get(name, 0):
            raise ValueError(f"no subcomponent {c} of '{name}'; there are {d.C}")
        U, V = d.U[name][:, c], d.V[name][c]
        u = writes.get((name, c), U)
        if not isinstance(u, Tensor) or u.shape != U.shape or not bool(u.isfinite().all()):
            wanted = f"a finite tensor of shape {tuple(U.shape)}"
            raise ValueError(f"a write direction of '{name}' is {wanted}, got {describe(u)}")
        delta = torch.outer(factors.get((name, c), 1.0) * u.to(U) - U, V)
        delta, leaf = delta.mT if name in tied else delta, (tied.get(name, name), c)
        other = asked.setdefault(leaf, delta)
        if not torch.allclose(other, delta, rtol=1e-4, atol=1e-5 * float(other.abs().max())):
            raise ValueError(f"two uses of '{leaf[0]}' (tied) disagree on subcomponent {c}")
    total: dict[str, Tensor] = {}
    for (name, _), delta in asked.items():
        total[name] = total[name] + delta if name in total else delta
    return total | {n: total[source].mT for n, source in tied.items() if source in total}


@torch.no_grad()
def fold(model: nn.Module, changes: Mapping[str, Tensor]) -> nn.Module:
    """A copy of `model`, in its mode and trainable, with {module: (d_out, d_in)} added to weights.

    An embedding counts as the matrix (d_model, vocabulary). Raises ValueError for a module that is
    not there, a change of another shape, or different changes of one shared parameter.
    """
    edited = copy.deepcopy(model).requires_grad_(True)
    done: dict[int, tuple[str, Tensor]] = {}  # by parameter
    for name, delta in changes.items():
        site = dict(edited.named_modules()).get(name)
        if not isinstance(site, nn.Linear | nn.Embedding):
            raise ValueError(f"{type(model).__name__} has no linear layer or embedding '{name}'")
        stored, shape = delta.mT if isinstance(site, nn.Embedding) else delta, site.weight.shape
        if stored.shape != shape:
            raise ValueError(f"a change of '{name}' is {tuple(shape)}, got {tuple(stored.shape)}")
        first, before = done.setdefault(id(site.weight), (name, stored))
        if not torch.allclose(before, stored):
            raise ValueError(f"'{first}' and '{name}' share one parameter; change both alike")
        if first == name:
            site.weight += stored.to(site.weight)
    return edited


def by_importance(d: Decomposition, x: Tensor) -> dict[str, Tensor]:
    """Mean causal importance of each piece on inputs x (B, ...), examples of a behaviour: `Scores`.

    Of the uses of a tied piece the more important one counts. Raises ValueError without examples.
    """
    scores: dict[str, Tensor] = {}
    for n, g in d.causal_importance(_some(x)).items():
        mean, source = g.flatten(0, -2).mean(0), d.wrapped.tied.get(n, n)
        scores[source] = torch.maximum(scores[source], mean) if source in scores else mean
    return scores


def by_effect(d: Decomposition, x: Tensor) -> dict[str, Tensor]:
    """Mean divergence of the output on x (B, ...) when each piece alone is deleted: `Scores`.

    Raises ValueError without examples.
    """
    free = [n for n in d.names if n not in d.wrapped.tied]
    return {n: torch.stack([effect(d, x, [(n, c)]) for c in range(d.C[n])]) for n in free}


@torch.no_grad()
def effect(d: Decomposition, x: Tensor, pieces: Pieces) -> Tensor:
    """Mean divergence of the output on x (B, ...) when these pieces are deleted together: ()."""
    x = _some(x).to(d.device)
    return d.divergence(delete(d, pieces)(x), d.target(x)).mean()


def top(scores: Scores, k: int) -> list[Leaf]:
    """The k pieces with the highest scores, highest first. Raises ValueError for k out of range."""
    table = [(-s, n, c) for n, row in scores.items() for c, s in enumerate(row.tolist())]
    if not 1 <= k <= len(table):
        raise ValueError(f"k must be from 1 to the {len(table)} pieces there are, got {k}")
    return [(n, c) for _, n, c in sorted(table)[:k]]


def agreement(a: Scores, b: Scores, k: int) -> float:
    """The share of the k highest pieces of one choice that are among those of the other."""
    return len(set(top(a, k)) & set(top(b, k))) / k


def leaves(pieces: Pieces) -> list[Leaf]:
    """Pieces as (module, index) pairs, each once. Raises TypeError for anything else."""
    try:
        table = pieces.items() if isinstance(pieces, Mapping) else [(n, [c]) for n, c in pieces]
        return list(dict.fromkeys((n, operator.index(c)) for n, cs in table for c in cs))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"pieces are {{module: [index, …]}} or a list of (module, index), got {pieces!r}"
        ) from error


def _some(x: Tensor) -> Tensor:
    if not len(x):
        raise ValueError("choosing pieces needs at least one example")
    return x
