"""The other explorers: which columns are used, hand-built cases, training scrubber, one gate,
the adversary's strength.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..decomposition import Decomposition
from ..importance import Gates
from ..masks import worst_case
from . import export
from .html import Explorer
from .packing import packed

Snapshot = dict[str, Any]


def columns(
    target: nn.Module, x: Tensor | Sequence[float] | None = None, title: str | None = None
) -> Explorer:
    """Which columns of the first weight matrix an input uses (chapter 1).

    target: a model with `structure()`; x: starting input (n_features,), by default the first
    feature at 0.75. Raises ValueError for targets, values or inputs that cannot be shown.
    """
    payload = export.target_payload(target, x)
    first = payload["layers"][0]
    used = [name for name, v in zip(payload["labels"], payload["input"]["value"], strict=True) if v]
    description = (
        f"{len(used)} of {first['d_in']} columns of {first['name']} are used by this input "
        f"({', '.join(used) or 'none'}): {len(used) * first['d_out']} of "
        f"{first['d_in'] * first['d_out']} entries of the matrix."
    )
    return Explorer("columns", payload, title or "Which columns does an input use?", description)


def cube(
    cases: Sequence[Mapping[str, Any]], activation: str = "none", title: str | None = None
) -> Explorer:
    """Hand-built decompositions of one small target, tested by masks (chapter 2).

    Each case: "name"; "why" (a sentence to read beside it); "layers", a list of {"name", "W"
    (d_out, d_in), "U" (d_out, C), "V" (C, d_in), "bias" optional}; "inputs", a list of {"label",
    "x" (d_in,), "g": one list of C importances a layer}; "pair" optional, the two subcomponents
    whose masks the error map shows first, numbered through all layers, by default [0, 1].
    activation: "none" or "relu", after the last layer. At most 12 subcomponents a case, because
    every corner of the masks is tried. Raises ValueError for missing keys, shapes that do not fit,
    importances outside [0, 1], or a pair that is not two different subcomponents of the case.
    """
    if not cases:
        raise ValueError("cube needs at least one case")
    if activation not in ("relu", "none"):
        raise ValueError(f"activation must be 'relu' or 'none', got {activation!r}")
    payload = {
        "format": 1,
        "cases": [_case(case, activation) for case in cases],
        "limit": export.LIMIT,
        "signed": activation == "none",
        "seed": 1,
    }
    described = " ".join(f"{case['name']}: {case['why']}" for case in cases)
    return Explorer("cube", payload, title or "Which decomposition survives its masks?", described)


def _case(case: Mapping[str, Any], activation: str) -> export.Payload:
    for key in ("name", "why", "layers", "inputs"):
        if not case.get(key):
            raise ValueError(f"a case needs a non-empty '{key}'; it has {sorted(case)}")
    name, layers = case["name"], []
    for layer in case["layers"]:
        W, U, V = (torch.as_tensor(layer[k], dtype=torch.float32) for k in ("W", "U", "V"))
        bias = layer.get("bias")
        b = None if bias is None else torch.as_tensor(bias, dtype=torch.float32)
        layers.append(packed(export.weights_payload(layer["name"], W, b, U, V)))
    sizes = [layer["C"] for layer in layers]
    if sum(sizes) > 12:
        raise ValueError(
            f"case '{name}' has {sum(sizes)} subcomponents; at most 12 can be tried out"
        )
    pair = case.get("pair", [0, min(1, sum(sizes) - 1)])
    if "pair" in case and (
        len(pair) != 2 or pair[0] == pair[1] or not set(pair) <= set(range(sum(sizes)))
    ):
        raise ValueError(
            f"case '{name}': pair must be two different subcomponents of 0 to {sum(sizes) - 1}, "
            f"got {pair}"
        )
    inputs = []
    for one in case["inputs"]:
        x = torch.as_tensor(one["x"], dtype=torch.float32)
        g = [torch.as_tensor(v, dtype=torch.float32) for v in one["g"]]
        if x.shape != (layers[0]["d_in"],) or not x.isfinite().all():
            raise ValueError(f"case '{name}': x must be {layers[0]['d_in']} finite values")
        if [tuple(v.shape) for v in g] != [(C,) for C in sizes]:
            raise ValueError(f"case '{name}': g needs one list of importances a layer, of {sizes}")
        if not all(bool(((v >= 0) & (v <= 1)).all()) for v in g):
            raise ValueError(f"case '{name}': importances g must lie in [0, 1]")
        inputs.append({"label": one["label"], "x": x.tolist(), "g": [v.tolist() for v in g]})
    return {
        "format": 1,
        "activation": activation,
        "layers": layers,
        "name": name,
        "why": case["why"],
        "inputs": inputs,
        "pair": list(pair),
    }


def snapshot(step: int, d: Decomposition, losses: Mapping[str, float] | None = None) -> Snapshot:
    """One moment of training for `scrubber`, taken in the callback of `decompose`.

    losses: by default the last entries of `d.history`. A chapter that trains by itself can make the
    same dictionary: "step"; "losses"; "U", "V" by layer; "g" by layer, (n_features, C) on probes.
    """
    structure, names = export.layer_order(d)
    g = d.causal_importance(export.probes(structure["features"]))
    if losses is None:
        losses = {k: v[-1] for k, v in d.history.items() if k != "step" and v}
    clone = {
        key: {n: values[n].detach().cpu().clone() for n in names}
        for key, values in (("U", d.U), ("V", d.V), ("g", g))
    }
    return {"step": step, "losses": dict(losses), **clone}


def scrubber(
    snapshots: Sequence[Snapshot], target: nn.Module, title: str | None = None
) -> Explorer:
    """Training steps under a slider: arrows, importances, losses (chapter 3).

    snapshots: dictionaries as `snapshot` makes them, in the order of their steps, at least two.
    Raises ValueError for too few, steps out of order, or differing losses.
    """
    if len(snapshots) < 2:
        raise ValueError(f"scrubber needs at least two snapshots, got {len(snapshots)}")
    steps = [int(s["step"]) for s in snapshots]
    if steps != sorted(set(steps)):
        raise ValueError("snapshots must come in increasing order of their steps")
    names = list(snapshots[-1]["losses"])
    if any(list(s["losses"]) != names for s in snapshots):
        raise ValueError(f"every snapshot must hold the same losses, {names}")
    structure = export.structure_of(target)
    slots: dict[tuple[int, ...], int] = {}
    layers = []
    for name in structure["layers"]:
        layers.append(
            _scrubbed(name, snapshots, export.linear(target, name).weight.detach(), slots)
        )
    n = snapshots[-1]["g"][structure["layers"][0]].shape[0]
    payload = {
        "format": 1,
        "steps": steps,
        "losses": {k: [float(f"{s['losses'][k]:.4g}") for s in snapshots] for k in names},
        "layers": layers,
        "labels": export.feature_labels(n),
    }
    live = ", ".join(
        f"{layer['name']} {sum(s is not None for s in layer['slots'])}" for layer in layers
    )
    description = (
        f"{len(steps)} snapshots from step {steps[0]} to {steps[-1]}; live at the end: {live}."
    )
    return Explorer("scrubber", payload, title or "Training, step by step", description)


def _scrubbed(
    name: str, snapshots: Sequence[Snapshot], weight: Tensor, slots: dict[tuple[int, ...], int]
) -> export.Payload:
    """One layer over time. Rows are ordered by the feature that each subcomponent ends up serving.

    In the plane a subcomponent is one arrow: its piece of the column (row) where it is largest.
    """
    best, feature = snapshots[-1]["g"][name].max(dim=0)
    C = len(best)
    live = {c for c in range(C) if best[c] > export.ALIVE}
    order = sorted(range(C), key=lambda c: (c not in live, int(feature[c]), c))
    # A tied pair is live in both layers under one index and one feature: one look for both.
    square = weight.shape[0] == weight.shape[1]
    look = [slots.setdefault((c, square), len(slots)) if c in live else None for c in order]
    flat, tips = 2 in weight.shape, []
    for s in snapshots:
        U, V = s["U"][name], s["V"][name]
        if not (U.isfinite().all() and V.isfinite().all()):
            raise ValueError(
                f"snapshot at step {s['step']}: '{name}' has values that are not finite"
            )
        if flat and weight.shape[0] == 2:
            piece = U.T * V.gather(1, V.abs().argmax(1, keepdim=True))
        else:
            piece = V * U.T.gather(1, U.abs().argmax(0)[:, None])
        tips.append([[round(v, 3) for v in piece[c].tolist()] for c in order] if flat else [])
    columns = weight.T if weight.shape[0] == 2 else weight
    return {
        "name": name,
        "order": order,
        "slots": look,
        "columns": columns.tolist() if flat else None,
        "writes": weight.shape[0] == 2,
        "tips": tips,
        "g": [(100 * s["g"][name].T[order]).round().int().tolist() for s in snapshots],
    }


def gate(d: Decomposition, name: str, c: int | None = None, title: str | None = None) -> Explorer:
    """How one subcomponent's importance follows from its inner activation (chapter 4).

    name: a decomposed layer; c: a live subcomponent to start with, by default the first. Raises
    ValueError for unknown layers, for a c that is not live, and where nothing is live.
    """
    structure, names = export.layer_order(d)
    if name not in names:
        raise ValueError(f"no decomposed layer '{name}'; there are {names}")
    n = structure["features"]
    importances = export.importances(d, export.probes(n))[name]
    live = export.live_order(importances)
    if not live or (c is not None and c not in live):
        raise ValueError(f"subcomponent {c} of '{name}' is not live; live are {live}")
    chosen = live[0] if c is None else c
    h = d.inner(torch.cat([torch.zeros(1, n), export.probes(n)]))[name].detach().cpu()[:, live]
    g = importances[:, live]
    spread = h.max(0).values - h.min(0).values
    low, high = h.min(0).values - 0.1 * spread - 1e-3, h.max(0).values + 0.1 * spread + 1e-3
    payload: export.Payload = {
        "format": 1,
        "layer": name,
        "C": len(live),
        "gate": packed(export.gate_payload(Gates(*(t[live] for t in d.gates[name])), name)),
        "live": live,
        "selected": chosen,
        "slots": list(range(len(live))),
        "ranges": [list(pair) for pair in zip(low.tolist(), high.tolist(), strict=True)],
        # start each subcomponent at the probe where it matters most
        "probe": h[1:].gather(0, g.argmax(0, keepdim=True))[0].tolist(),
        "seed": 1,
    }
    at = live.index(chosen)
    description = (
        f"Subcomponent {chosen} of {name}: where it matters most, h is {payload['probe'][at]:.2f} "
        f"and its importance is {g[:, at].max():.2f}; at h = 0 the mask is free if that is 0."
    )
    return Explorer("gate", payload, title or "From activation to importance to mask", description)


def adversary(cases: Sequence[tuple[str, Decomposition]], title: str | None = None) -> Explorer:
    """A slider over the number of masks that an adversary may set, the others on (chapter 10).

    cases: (label, decomposition of a chain of linear layers), all of one target. The page runs the
    attack itself, on each feature alone at 0.75. Raises ValueError for none, targets that cannot be
    drawn or have ReLUs inside, and decompositions of different targets or with different C.
    """
    if not cases:
        raise ValueError("adversary needs at least one (label, decomposition)")
    first = cases[0][1]
    structure, names = export.layer_order(first)
    if structure["kind"] != "chain":
        raise ValueError(f"this view draws targets of kind 'chain', not {structure['kind']!r}")
    for _, d in cases:
        if d.C != first.C or any(
            not torch.equal(d.weight[n].cpu(), first.weight[n].cpu()) for n in names
        ):
            raise ValueError("adversary compares decompositions of one target with equal C")
    payloads = [export.model_payload(d) | {"name": label} for label, d in cases]
    shared = {key: payloads[0][key] for key in ("format", "labels", "limit", "range", "seed")}
    probes = export.probes(structure["features"])
    reach = [_reach(d, probes) for _, d in cases]
    description = (
        f"An adversary sets masks of {', '.join(names)} ({sum(first.C.values())} in all), one after "
        "the other. With any number of them it moves an output of the target by: "
    )
    description += "; ".join(
        f"{label} {far:.3f}" for (label, _), far in zip(cases, reach, strict=True)
    )
    payload = shared | {"probe": export.PROBE, "reach": max(reach), "cases": payloads}
    return Explorer(
        "adversary", payload, title or "How many masks does it take?", description + "."
    )


def _reach(d: Decomposition, x: Tensor) -> float:
    """Largest change of one output, on any row of x, under the worst masks found."""
    found = d(x, worst_case(d, x, measure="output")) - d.target(x.to(d.device))
    return float(found.abs().max())
