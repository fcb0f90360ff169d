"""The switchboard: pieces scaled or deleted in a model of facts, and what becomes of every fact.

What travels: the weights, the pieces that matter on some key, the keys and the noise of paraphrases.
The page adds (factor − 1) U_c V_c to the weights, as `edit.scale` does, and asks the plain model for
every fact. Nothing as long as a key travels: all that is asked lies in the span of keys and noise,
so that keys, W_in and its V come in coordinates of an orthonormal basis of that. The norm and the
rank of a change follow from the products of its pieces, U_c · U_c' and V_c · V_c' (`extent`).
"""

from typing import Any

import torch
from torch import Tensor

from .. import edit
from ..cluster import Leaf
from ..decomposition import Decomposition
from . import export
from .html import Explorer
from .packing import numbers, packed

KINDS = ("pathways",)
KNOWN = 0.5
"""A fact is known when its answer has at least this probability."""
DRAWS = 8
"""Paraphrases of each fact."""


def switchboard(
    d: Decomposition, fact: int = 0, threshold: float = export.ALIVE, title: str | None = None
) -> Explorer:
    """Every fact's answer, before and after pieces of the weights are deleted (chapter 11).

    d: a decomposition of a target of the kind "pathways" (`targets.facts.Facts`). fact: the one that
    is deleted to begin with, by the pieces whose importance on its key exceeds `threshold`; only
    pieces that do so on some key can be clicked. Raises ValueError for other targets, a fact that
    is not there, and a threshold outside [0, 1).
    """
    structure, names = export.layer_order(d, KINDS)
    keys, answers, groups = (_named(d, structure, what) for what in ("keys", "answers", "groups"))
    n, width = len(answers), structure["features"]
    if keys.shape != (n, width) or groups.shape != (n,):
        raise ValueError(
            f"{n} facts need keys ({n}, {width}) and groups ({n},), got {tuple(keys.shape)} and "
            f"{tuple(groups.shape)}"
        )
    if not 0 <= fact < n:
        raise ValueError(f"there is no fact {fact}; facts are 0 to {n - 1}")
    if not 0 <= threshold < 1:
        raise ValueError(f"the threshold on importances must be in [0, 1), got {threshold}")
    g = export.importances(d, keys)
    noise = noises(width)
    Q = basis(numbers(keys, "keys"), noise)
    layers = [_layer(d, names, i, g[name], Q, threshold) for i, name in enumerate(names)]
    payload = {
        "format": 1,
        "activation": structure["activation"],
        "layers": layers,
        "ends": list(range(1, len(names), 2)),
        "rest": True,
        "keys": keys.double() @ Q,
        "noise": noise.double() @ Q,
        "draws": DRAWS,
        "answers": answers.tolist(),
        "groups": groups.tolist(),
        "threshold": threshold,
        "known": KNOWN,
        "fact": fact,
        "model": type(d.target).__name__,
        "seed": 1,
    }
    pieces = [(m, c) for m in names for c in (g[m][fact] > threshold).nonzero()[:, 0].tolist()]
    description = _describe(d, keys, answers, fact, pieces)
    return Explorer(
        "switchboard",
        packed(payload, as_fixed=True),
        title or "Which piece holds which fact?",
        description,
    )


def noises(width: int) -> Tensor:
    """Directions in which every key is disturbed: (DRAWS, width), of length 1 in the mean."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(DRAWS, width, generator=generator) / width**0.5


def basis(keys: Tensor, noise: Tensor) -> Tensor:
    """Orthonormal columns (d_key, r) whose span holds keys (n, d_key) and noise (DRAWS, d_key)."""
    Q: Tensor = torch.linalg.qr(torch.cat([keys, noise]).double().mT)[0]
    return Q


def _named(d: Decomposition, structure: dict[str, Any], what: str) -> Tensor:
    """The target's tensor that its structure() names for this."""
    found = getattr(d.target, str(structure.get(what)), None)
    if not isinstance(found, Tensor):
        raise ValueError(
            f"a structure() of pathways must name a tensor of the target as '{what}'; got "
            f"{structure.get(what)!r}"
        )
    return found.detach().cpu()


def _layer(
    d: Decomposition, names: list[str], i: int, g: Tensor, Q: Tensor, threshold: float
) -> export.Payload:
    """One layer with the pieces that travel, in the order of the facts they serve. g: (facts, C)."""
    name = names[i]
    best, first = g.max(dim=0)
    ids = sorted((best > threshold).nonzero()[:, 0].tolist(), key=lambda c: (int(first[c]), c))
    bias = export.linear(d.target, name).bias
    U, V = d.U[name][:, ids].detach().cpu(), d.V[name][ids].detach().cpu().double()
    W = d.weight[name].detach().cpu().double()
    read = (W, V) if i % 2 else (W @ Q, V @ Q)
    layer = export.weights_payload(name, read[0], bias, U, read[1])
    upper = torch.triu_indices(len(ids), len(ids))
    side = name.rsplit(".", 1)[-1]
    return layer | {
        "label": side if len(names) == 2 else f"{side} of path {i // 2}",
        "side": side,
        "from": [i - 1] if i % 2 else [-1],
        "relu": i % 2 == 0,
        "ids": ids,
        "all": d.C[name],
        "size": float(W.norm()),
        "gram": (V @ V.mT)[upper[0], upper[1]],
        "g": numbers(g[:, ids], f"importances of '{name}'"),
    }


@torch.no_grad()
def _describe(
    d: Decomposition, keys: Tensor, answers: Tensor, fact: int, pieces: list[Leaf]
) -> str:
    """The opening state in words, from the edited model itself."""
    x, rows = keys.to(d.device), torch.arange(len(keys))
    models = (d.target, edit.delete(d, pieces))
    p, q = (m(x).softmax(-1).cpu()[rows, answers] for m in models)
    knew = p >= KNOWN
    knew[fact] = False
    named = ", ".join(f"{c} of {name}" for name, c in pieces) or "none"
    return (
        f"Deleted: fact {fact}, by the pieces that matter on its key ({named}). The probability of "
        f"its answer was {p[fact]:.3f} and is {q[fact]:.3f}. Of the {int(knew.sum())} other facts "
        f"known before, {int((knew & (q >= KNOWN)).sum())} are still known."
    )
