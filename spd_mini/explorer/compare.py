"""Explorers that set decompositions of one model side by side: sizes, neurons, groups."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..decomposition import Decomposition
from ..recovery import (
    Mlp,
    best_contributions,
    contribution_fit,
    neuron_contributions,
    relative_faithfulness,
)
from . import export
from .html import Explorer
from .packing import fixed, numbers

Leaf = tuple[str, int]
SERVES = 0.5
"""A group serves a feature when a member's importance exceeds this on its one-hot probe."""


def sizes(
    decompositions: Sequence[Decomposition], x: Tensor | None = None, title: str | None = None
) -> Explorer:
    """A slider over C: importances, live counts and faithfulness of each decomposition (chapter 6).

    decompositions: of one target, with different C; shown in the order of their size. x: inputs
    (rows, n_features) on which importances are shown, by default every feature alone at 0.75.
    Raises ValueError for fewer than two, other targets, equal sizes, or inputs of the wrong shape.
    """
    if len(decompositions) < 2:
        raise ValueError(f"sizes needs at least two decompositions, got {len(decompositions)}")
    ordered = sorted(decompositions, key=lambda d: sum(d.C.values()))
    first = ordered[0]
    structure, names = export.layer_order(first)
    for d in ordered[1:]:
        if export.layer_order(d)[1] != names or any(
            not torch.equal(d.weight[n].cpu(), first.weight[n].cpu()) for n in names
        ):
            raise ValueError("sizes compares decompositions of one target; these differ")
    offered = [tuple(d.C[n] for n in names) for d in ordered]
    if len(set(offered)) < len(offered):
        raise ValueError(f"every decomposition must have another C; these are {offered}")
    n = structure["features"]
    if x is not None and (x.dim() != 2 or x.shape[1] != n):
        raise ValueError(f"x must have shape (rows, {n}), got {tuple(x.shape)}")
    labels = export.feature_labels(n) if x is None else [str(i) for i in range(len(x))]
    rows = export.probes(n) if x is None else x
    own = [i for i, name in enumerate(names) if name not in first.wrapped.tied]
    steps = [_step(d, rows, names) for d in ordered]
    C_of = ["/".join(dict.fromkeys(str(C[i]) for i in own)) for C in offered]
    payload = {"format": 1, "names": names, "labels": labels, "offered": C_of, "steps": steps}
    counts = [", ".join(str(len(layer["live"])) for layer in step) for step in steps]
    description = f"Live subcomponents of {', '.join(names)}: " + "; ".join(
        f"{count} at C = {C}" for C, count in zip(C_of, counts, strict=True)
    )
    return Explorer("sizes", payload, title or "How many pieces, if more are offered?", description)


def _step(d: Decomposition, rows: Tensor, names: list[str]) -> list[dict[str, Any]]:
    """What one decomposition shows, layer by layer."""
    g = export.importances(d, rows)
    slots: dict[Leaf, int] = {}
    layers = []
    for name in names:
        live = export.live_order(g[name])
        source = d.wrapped.tied.get(name, name)
        layers.append(
            {
                "C": d.C[name],
                "live": live,
                "slots": [slots.setdefault((source, c), len(slots)) for c in live],
                "g": (100 * g[name].mT[live]).round().int().tolist(),
                "faithful": relative_faithfulness(d.weight[name], d.U[name], d.V[name]),
            }
        )
    return layers


def contributions(cases: Sequence[tuple[str, Decomposition]], title: str | None = None) -> Explorer:
    """What each neuron adds to each output, in the model and in its subcomponents (chapter 7).

    cases: (label, decomposition of a residual MLP), for instance of three values of β3. Raises
    ValueError for none, targets of other kinds, or targets of different sizes.
    """
    if not cases:
        raise ValueError("contributions needs at least one (label, decomposition)")
    shown = [_case(label, d) for label, d in cases]
    shapes = [[(layer["name"], layer["neurons"]) for layer in case["layers"]] for case in shown]
    n = [case["features"] for case in shown]
    if any(s != shapes[0] for s in shapes) or len(set(n)) > 1:
        raise ValueError("contributions compares residual models of one size; these differ")
    payload = {"format": 1, "labels": export.feature_labels(n[0]), "cases": shown}
    description = "Neuron contributions, subcomponents against model. " + " ".join(
        f"{case['label']}: r {case['r']:.3f}, slope {case['slope']:.2f}." for case in shown
    )
    return Explorer("contributions", payload, title or "Which neurons compute what?", description)


def _case(label: str, d: Decomposition) -> dict[str, Any]:
    """Contributions of one decomposition; each array (n_features, d_mlp)."""
    structure, names = export.layer_order(d)
    if structure["kind"] != "residual":
        raise ValueError(
            f"contributions needs a residual model; the target of {label!r} is of kind "
            f"{structure['kind']!r}"
        )
    pairs = list(zip(names[::2], names[1::2], strict=True))
    embed = structure["embed"].to(d.device)
    n = structure["features"]
    g = export.importances(d, export.probes(n))
    layers = []
    for w_in, w_out in pairs:
        W_out = d.U[w_out] @ d.V[w_out]
        model = neuron_contributions(embed, d.weight[w_in], d.weight[w_out])
        best, chosen = best_contributions(embed, d.U[w_in], d.V[w_in], W_out)
        layers.append(
            {
                "name": w_in,
                "neurons": model.shape[1],
                "model": fixed(numbers(model, f"contributions of '{w_in}'"), 10),
                "best": fixed(numbers(best, f"contributions of subcomponents of '{w_in}'"), 10),
                "chosen": chosen.tolist(),
            }
        )
    r, slope = contribution_fit(d, Mlp(embed, pairs))
    live = [[m, len(export.live_order(g[m])), d.C[m]] for m in names]
    return {
        "label": label,
        "features": n,
        "r": r,
        "slope": slope,
        "live": live,
        "layers": layers,
    }


def dial(
    knob: str,
    settings: Sequence[tuple[str, Sequence[Mapping[str, Any]]]],
    W: Tensor,
    title: str | None = None,
) -> Explorer:
    """Runs that differ in one setting, under a slider, seed by seed (chapter 9).

    knob: the setting's name. settings: (value as text, runs), the runs in one order everywhere:
    "name"; "pieces" (C, 2, n), weights that add up to W (2, n), of any method; "g" (n, C), how much
    each serves the input with one feature on; "pattern" and "strict", what holds; "text", a sentence
    to read. It opens on the first run of the middle setting that has the pattern. Raises ValueError
    for fewer than two settings, other runs in some, or wrong shapes.
    """
    if len(settings) < 2:
        raise ValueError(f"dial needs at least two settings, got {len(settings)}")
    names = [run["name"] for run in settings[0][1]]
    if not names or any([run["name"] for run in runs] != names for _, runs in settings):
        raise ValueError(f"every setting must have the same runs, here {names}")
    n, middle = W.shape[1], len(settings) // 2
    payload = {
        "format": 1,
        "knob": knob,
        "labels": export.feature_labels(n),
        "columns": numbers(W.T, "W").tolist(),
        "settings": [
            {"label": label, "runs": [_dialled(run, n) for run in runs]} for label, runs in settings
        ],
        "start": middle,
        "run": next((i for i, run in enumerate(settings[middle][1]) if run["pattern"]), 0),
    }
    description = f"Runs of {len(names)} with the right pattern: " + ", ".join(
        f"{sum(bool(run['pattern']) for run in runs)} at {knob} {label}" for label, runs in settings
    )
    return Explorer("dial", payload, title or f"What if {knob} is off?", description + ".")


def _dialled(run: Mapping[str, Any], n: int) -> dict[str, Any]:
    """One run: its live pieces by the feature they serve most, and their columns as arrows."""
    g, pieces = run["g"].detach().cpu().float(), run["pieces"].detach().cpu()
    if g.shape != (n, len(pieces)) or pieces.shape[1:] != (2, n):
        raise ValueError(
            f"'{run['name']}': pieces must be (C, 2, {n}) and g ({n}, C), got "
            f"{tuple(pieces.shape)} and {tuple(g.shape)}"
        )
    best, feature = g.max(0)
    live = sorted((best > export.ALIVE).nonzero().flatten().tolist(), key=lambda c: feature[c])
    arrows = [
        [slot, *(round(v, 3) for v in pieces[c, :, j].tolist())]
        for slot, c in enumerate(live)
        for j in (g[:, c] > export.ALIVE).nonzero().flatten().tolist()
    ]
    return {
        "name": run["name"],
        "text": run["text"],
        "pattern": bool(run["pattern"]),
        "strict": bool(run["strict"]),
        "slots": list(range(len(live))),
        "g": (100 * g.T[live]).round().int().tolist(),
        "arrows": arrows,
    }


def dendrogram(
    linkage: ArrayLike,
    leaves: Sequence[Leaf],
    g: Tensor,
    threshold: float,
    truth: Iterable[Iterable[Leaf]] | None = None,
    title: str | None = None,
) -> Explorer:
    """Subcomponents joined into groups below a height that the reader moves (chapter 8).

    linkage: (k − 1, 4) as scipy's, heights never below those of the two sides; leaves: k pairs
    (module, index); g: (n_features, k), the leaves' importances on one-hot probes; threshold: joins
    of a lower height are made, to begin with (the criterion's own choice). truth: groups of leaves
    that ought to be found. Raises ValueError for shapes, heights or a threshold that make no sense,
    and for a truth with unknown leaves.
    """
    joins = np.asarray(linkage, dtype=float)
    k = len(leaves)
    if k < 2 or joins.shape != (k - 1, 4):
        raise ValueError(
            f"linkage must have shape (leaves − 1, 4) for at least two leaves, got {joins.shape} "
            f"for {k}"
        )
    if g.shape[1:] != (k,) or not g.isfinite().all():
        raise ValueError(f"g must be finite, (n_features, {k}), got shape {tuple(g.shape)}")
    heights = np.concatenate([np.zeros(k), joins[:, 2]])
    sides = joins[:, :2].astype(int)
    if not np.isfinite(heights).all() or (heights[sides].max(1) > joins[:, 2]).any():
        raise ValueError("heights must be finite, ≥ 0, and never below those of the joined sides")
    if not (np.isfinite(threshold) and threshold > 0):
        raise ValueError(f"threshold must be a height above 0, got {threshold}")
    known = {leaf: i for i, leaf in enumerate(leaves)}
    wanted = None if truth is None else [list(group) for group in truth]
    if strange := [leaf for group in wanted or [] for leaf in group if leaf not in known]:
        raise ValueError(f"truth speaks of {strange[:3]}, which are no leaves")
    modules = list(dict.fromkeys(module for module, _ in leaves))
    g = g.detach().cpu()
    columns = [[i for i, leaf in enumerate(leaves) if leaf[0] == module] for module in modules]
    best = [g[:, own].max(dim=1) for own in columns]
    payload = {
        "format": 1,
        "modules": modules,
        "leaves": [[modules.index(module), c] for module, c in leaves],
        "joins": [[int(a), int(b), round(float(h), 5)] for a, b, h, _ in joins],
        "best": [
            [
                own[i] if v > export.ALIVE else None
                for v, i in zip(*map(torch.Tensor.tolist, b), strict=True)
            ]
            for own, b in zip(columns, best, strict=True)
        ],
        "serves": [(column > SERVES).nonzero().flatten().tolist() for column in g.T],
        "labels": export.feature_labels(len(g)),
        "threshold": float(threshold),
        "truth": None if wanted is None else [[known[leaf] for leaf in group] for group in wanted],
    }
    count = k - int((joins[:, 2] < threshold).sum())
    description = (
        f"{k} subcomponents of {', '.join(modules)} in {count} groups at height {threshold:.2f}."
    )
    return Explorer("dendrogram", payload, title or "Which pieces act together?", description)
