"""A residual MLP folded for the page: nothing as long as the stream (d_resid) travels.

The stream is a sum of writes, directions times coefficients: W_Eᵀ times x, and of every layer its
[U | W] times [m h | a]. Whatever reads the stream (V, W, and W_U = W_E for the output) is a matrix,
and the products reader · directions are small.
"""

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from ..decomposition import Decomposition
from .packing import Fine, numbers

MOST = 20_000
"""Entries of all V · directions up to which every subcomponent travels. Beyond it only the live ones
do, and the rest, W minus the live pieces, stays on: exact for every mask that the page can move."""


def shown(
    d: Decomposition, structure: dict[str, Any], live: dict[str, list[int]]
) -> dict[str, list[int]] | None:
    """The subcomponents that travel, where those are the live ones only; None where all do."""
    if structure["kind"] == "chain":
        return None
    names, entries, stream = structure["layers"], 0, structure["features"]
    for w_in, w_out in zip(names[::2], names[1::2], strict=True):
        entries += d.C[w_in] * stream
        stream += d.C[w_out] + d.weight[w_out].shape[1]
    return {name: sorted(live[name]) for name in names} if entries > MOST else None


def residual_payload(
    d: Decomposition, structure: dict[str, Any], live: dict[str, list[int]]
) -> dict[str, Any]:
    """Layers (W_in and W_out in turn; "from": sources in the stream, −1 the input) and read-out."""
    ids = shown(d, structure, live)
    embed = numbers(structure["embed"], "embedding").double()
    sources, directions = [-1], [embed.mT]
    layers: list[dict[str, Any]] = []
    for i, name in enumerate(structure["layers"]):
        own = list(range(d.C[name])) if ids is None else ids[name]
        W = numbers(d.weight[name], f"weight of '{name}'").double()
        U = numbers(d.U[name], f"U of '{name}'").double()[:, own]
        V = numbers(d.V[name], f"V of '{name}'").double()[own]
        layer = {"name": name, "label": name, "C": len(own), "bias": None, "picture": "heat"}
        layer |= {"d_out": W.shape[0], "d_in": W.shape[1]} | ({} if ids is None else {"ids": own})
        if i % 2 == 0:
            layer |= {"from": list(sources), "relu": True, "U": U}
            layer |= {"V": [V @ w for w in directions], "W": [Fine(W @ w) for w in directions]}
        else:
            layer |= {"from": [i - 1], "writes": True, "V": [Fine(V)]}
            sources.append(i)
            directions.append(torch.cat([U, W], dim=1))
        layers.append(layer)
    n = len(embed)
    upper = torch.triu_indices(n, n)
    read = [embed @ w for w in directions[1:]]
    out = {"n": n, "from": sources, "embed": (embed @ embed.mT)[upper[0], upper[1]], "V": read}
    ends = torch.cat([bound * torch.eye(n) for bound in structure["input"]]).to(d.device)
    with torch.no_grad():
        y = d.target(ends)
    return {
        "layers": layers,
        "out": out,
        "rest": ids is not None and [d.C[name] - len(own) for name, own in ids.items()],
        "range": [1.05 * float(y.min()), 1.05 * float(y.max())],
    }


def partly_masked(
    d: Decomposition, x: Tensor, masks: dict[str, Tensor], ids: dict[str, list[int]]
) -> Tensor:
    """The target on one row x (1, n) with W − U diag(1 − m) V over these subcomponents."""
    edited = {}
    for name, own in ids.items():
        off = 1 - masks[name][0, own].to(d.device)
        edited[f"{name}.weight"] = d.weight[name] - (d.U[name][:, own] * off) @ d.V[name][own]
    result: Tensor = functional_call(d.target, edited, (x.to(d.device),))
    return result
