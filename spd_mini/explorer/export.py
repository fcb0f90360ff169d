"""What an explorer needs to recompute the model in the page, as plain JSON-able values.

Arrays keep the package's shapes, row-major: W (d_out, d_in), U (d_out, C), V (C, d_in), gates
(C, d_gate). A layer that is tied to an earlier one travels without W, U and V: they are the
transposes (its gates are its own). Residual models: see residual.py; numbers as text: packing.py.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..decomposition import Decomposition
from ..importance import Gates
from ..masks import from_source, uniform
from .packing import Fine, numbers, packed
from .residual import partly_masked, residual_payload, shown

LIMIT = 0.1
"""The output counts as broken when some output is off by more than this."""
PROBE = 0.75
"""Value of the one feature that is on in a probe input (METHOD.md section 3)."""
ALIVE = 0.1
"""A subcomponent is live when its importance exceeds this on some one-hot probe."""

KINDS = ("chain", "residual")
"""The kinds of targets whose inputs are features, one slider each. A third is "pathways": pairs of
layers with a ReLU between, side by side, which add up (see switchboard.py)."""

Payload = dict[str, Any]


def structure_of(target: nn.Module, kinds: Sequence[str] = KINDS) -> dict[str, Any]:
    """The target's own description of its computation, completed: "layers" is the flat list of
    names, "features" the number of inputs, "embed" the embedding of a residual model.

    Raises ValueError for a target that does not give one, gives another kind than those asked for,
    or one that cannot be drawn.
    """
    describe = getattr(target, "structure", None)
    if not callable(describe):
        raise ValueError(
            f"{type(target).__name__} has no structure() method; the explorer recomputes chains of "
            'linear layers and needs {"kind": "chain", "layers": [names in order], "activation": '
            '"relu" or "none", "input": (low, high)}; or {"kind": "residual", "layers": [(name of '
            'W_in, name of W_out), …], "embed": name of W_E (n_features, d_resid), "input": …}'
        )
    structure: dict[str, Any] = {"activation": "none", "input": (0.0, 1.0), **describe()}
    if structure.get("kind") not in kinds:
        known = f"kind{'s' * (len(kinds) > 1)} {' and '.join(map(repr, kinds))}"
        raise ValueError(f"this explorer knows the {known}, not {structure.get('kind')!r}")
    if structure["activation"] not in ("relu", "none"):
        raise ValueError(
            f"the explorer knows activations 'relu' and 'none', not {structure['activation']!r}"
        )
    low, high = structure["input"]
    if not low < high:
        raise ValueError(
            f"structure()['input'] must be (low, high) with low < high, got {low, high}"
        )
    if structure["kind"] != "chain":
        structure["layers"] = [name for pair in structure["layers"] for name in pair]
    linears = [linear(target, name) for name in structure["layers"]]
    if structure["kind"] != "residual":
        return structure | {"features": linears[0].in_features, "embed": None}
    embed = getattr(target, structure.get("embed", ""), None)
    if not isinstance(embed, Tensor) or embed.dim() != 2:
        raise ValueError(
            "a residual structure() must name the target's embedding, {'embed': name of a tensor "
            f"(n_features, d_resid)}}; got {structure.get('embed')!r}"
        )
    if biased := [
        n for n, m in zip(structure["layers"], linears, strict=True) if m.bias is not None
    ]:
        raise ValueError(f"the explorer draws residual layers without biases; {biased} have one")
    return structure | {"features": len(embed), "embed": embed, "activation": "none"}


def linear(target: nn.Module, name: str) -> nn.Linear:
    """The layer of that name. Raises ValueError when it is not an nn.Linear."""
    layer = target.get_submodule(name)
    if not isinstance(layer, nn.Linear):
        raise ValueError(f"the explorer draws nn.Linear layers; '{name}' is something else")
    return layer


def probes(n_features: int) -> Tensor:
    """One-hot inputs x_i = 0.75, the probes of every pattern in the book. (n, n)."""
    return PROBE * torch.eye(n_features)


def checked_input(x: Tensor | Sequence[float] | None, structure: dict[str, Any]) -> Tensor:
    """Starting input (n,), by default the first feature on at 0.75.

    Raises ValueError for the wrong size, values that are not finite, or outside the target's range.
    """
    n = structure["features"]
    value = probes(n)[0] if x is None else torch.as_tensor(x, dtype=torch.float32).reshape(-1)
    low, high = structure["input"]
    if value.shape != (n,):
        raise ValueError(f"x must hold one input of {n} features, got {value.numel()} values")
    if not (value.isfinite().all() and value.min() >= low and value.max() <= high):
        raise ValueError(f"x must lie in [{low}, {high}], the range of the sliders")
    return value


def layer_order(d: Decomposition, kinds: Sequence[str] = KINDS) -> tuple[dict[str, Any], list[str]]:
    """Structure and layer names. Raises ValueError unless every layer of it is decomposed."""
    structure = structure_of(d.target, kinds)
    if missing := [n for n in structure["layers"] if n not in d.names]:
        raise ValueError(f"layers {missing} are not decomposed; explore needs all of them")
    return structure, structure["layers"]


def live_order(g: Tensor) -> list[int]:
    """Live subcomponents of one layer, in the order of the feature that each serves best.

    g: importances on one-hot probes (features, C).
    """
    best, feature = g.max(dim=0)
    alive = [c for c in range(g.shape[1]) if best[c] > ALIVE]
    return sorted(alive, key=lambda c: (int(feature[c]), c))


def importances(d: Decomposition, x: Tensor) -> dict[str, Tensor]:
    """Causal importances on the CPU: {name: (rows, C)}."""
    return {n: g.detach().cpu() for n, g in d.causal_importance(x).items()}


def gate_payload(gates: Gates, name: str) -> Payload:
    """Importance MLPs of one layer."""
    arrays = {k: numbers(t, f"gate {k} of '{name}'") for k, t in gates._asdict().items()}
    return {"d_gate": gates.w_in.shape[-1], **arrays}


def weights_payload(
    name: str,
    weight: Tensor,
    bias: Tensor | None,
    U: Tensor | None = None,
    V: Tensor | None = None,
) -> Payload:
    """One layer's arrays. weight: (d_out, d_in); U: (d_out, C) and V: (C, d_in), or neither."""
    d_out, d_in = weight.shape
    layer: Payload = {
        "name": name,
        "label": name,
        "d_in": d_in,
        "d_out": d_out,
        "C": 0,
        "W": numbers(weight, f"weight of '{name}'"),
        "bias": None if bias is None else numbers(bias, f"bias of '{name}'"),
        "gate": None,
    }
    if U is not None and V is not None:
        if U.shape != (d_out, V.shape[0]) or V.shape[1] != d_in:
            raise ValueError(
                f"'{name}': U {tuple(U.shape)} and V {tuple(V.shape)} do not fit the weight "
                f"{tuple(weight.shape)}; expected (d_out, C) and (C, d_in)"
            )
        layer |= {
            "C": V.shape[0],
            "U": numbers(U, f"U of '{name}'"),
            "V": numbers(V, f"V of '{name}'"),
        }
    return layer


def opening_sources(d: Decomposition) -> dict[str, Tensor]:
    """The draw r behind the masks that the board opens with: {name: (1, C)}."""
    generator = torch.Generator().manual_seed(0)
    return {name: uniform((1, C), generator) for name, C in d.C.items()}


def chain_layers(d: Decomposition, names: list[str]) -> list[Payload]:
    """Layers of a chain. One tied to an earlier layer travels without W, U and V."""
    layers = []
    for i, name in enumerate(names):
        bias = linear(d.target, name).bias
        layer = weights_payload(name, d.weight[name], bias, d.U[name], d.V[name])
        source = d.wrapped.tied.get(name, name)
        if source in names[:i]:
            layer = {k: v for k, v in layer.items() if k not in ("W", "U", "V")} | {"tied": source}
        layer["picture"] = "plane" if 2 in d.weight[name].shape else "heat"
        layers.append(layer)
    return layers


def frame(structure: dict[str, Any], layers: list[Payload], start: Tensor) -> Payload:
    """What every payload with one model in it holds."""
    low, high = structure["input"]
    return {
        "format": 1,
        "activation": structure["activation"],
        "layers": layers,
        "input": {"min": low, "max": high, "value": start.tolist()},
        "range": [0.0 if structure["activation"] == "relu" else -1.15 * high, 1.15 * high],
        "labels": feature_labels(structure["features"]),
        "limit": LIMIT,
        "seed": 1,
    }


def model_payload(d: Decomposition, x: Tensor | Sequence[float] | None = None) -> Payload:
    """The whole decomposed model with a starting input: everything the page computes with.

    x: one input (n_features,). Slots number the looks of live subcomponents; a tied layer's
    subcomponent c is the same direction as its source's, so it shares the slot (and the colour).
    Raises ValueError for targets that cannot be drawn, values not finite, or inputs out of range.
    """
    structure, names = layer_order(d)
    start = checked_input(x, structure)
    g = importances(d, probes(structure["features"]))
    live = {name: live_order(g[name]) for name in names}
    residual = structure["kind"] == "residual"
    payload = frame(structure, [] if residual else chain_layers(d, names), start)
    if residual:
        payload |= residual_payload(d, structure, live)
    slots: dict[tuple[str, int], int] = {}
    sources = opening_sources(d)
    for layer in payload["layers"]:
        name = layer["name"]
        ids = layer.get("ids", list(range(d.C[name])))  # those that travel
        gates = gate_payload(Gates(*(t[ids] for t in d.gates[name])), name)
        fine = {k: Fine(t) if isinstance(t, Tensor) else t for k, t in gates.items()}
        layer["gate"] = fine if residual else gates
        layer["source"] = sources[name][0, ids]
        layer["live"] = [ids.index(c) for c in live[name]]
        source = d.wrapped.tied.get(name, name)
        layer["slots"] = [slots.setdefault((source, c), len(slots)) for c in live[name]]
    result: Payload = packed(payload, as_fixed=residual)
    return result


def target_payload(target: nn.Module, x: Tensor | Sequence[float] | None = None) -> Payload:
    """The target alone, without a decomposition. Same errors as `model_payload`.

    Raises ValueError for other kinds than chains: what is shown is the matrix that reads the input.
    """
    structure = structure_of(target)
    if structure["kind"] != "chain":
        raise ValueError(f"this view draws targets of kind 'chain', not {structure['kind']!r}")
    linears = {name: linear(target, name) for name in structure["layers"]}
    layers = [weights_payload(name, m.weight, m.bias) for name, m in linears.items()]
    result: Payload = packed(frame(structure, layers, checked_input(x, structure)))
    return result


def feature_labels(n: int) -> list[str]:
    """x₀, x₁, …: counted from 0, as the code counts."""
    return ["x" + str(i).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")) for i in range(n)]


def describe(d: Decomposition, x: Tensor | Sequence[float] | None = None) -> str:
    """The opening state of the masks view in words, with computed numbers, for those who listen."""
    structure, names = layer_order(d)
    row = checked_input(x, structure)[None]
    g, seen = importances(d, row), importances(d, probes(structure["features"]))
    sources = opening_sources(d)
    masks = {k: from_source(v, sources[k]) for k, v in g.items()}
    live = {name: live_order(seen[name]) for name in names}
    with torch.no_grad():
        want = d.target(row.to(d.device))
        ids = shown(d, structure, live)
        have = d(row, masks) if ids is None else partly_masked(d, row, masks, ids)
    values = zip(feature_labels(structure["features"]), row[0].tolist(), strict=True)
    on = ", ".join(f"{label} = {value:.2f}" for label, value in values if value)
    parts = []
    for name in names:
        important = [f"{c} ({g[name][0, c]:.2f})" for c in live[name] if g[name][0, c] > ALIVE]
        parts.append(
            f"{name}: {len(live[name])} of {d.C[name]} subcomponents are live"
            f"{'' if ids is None else ' (what they do not carry stays on)'}; important on this "
            f"input: {', '.join(important) or 'none'}."
        )
    return (
        f"Input {on or 'all zero'}. {' '.join(parts)} With masks drawn at random between importance "
        f"and 1, the largest output change is {(have - want).abs().max():.3f}."
    )
