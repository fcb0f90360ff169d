"""What an explorer needs to recompute the model in the page, as plain JSON-able values.

Arrays travel as base64 of little-endian float32, row-major, in the package's shapes: W (d_out,
d_in), U (d_out, C), V (C, d_in), gates (C, d_gate). All lowest bytes come first, all highest last:
signs and exponents side by side compress well. A layer that is tied to an earlier one travels
without W, U and V: they are the transposes (its gates are its own).
"""

import base64
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..decomposition import Decomposition
from ..importance import Gates
from ..masks import from_source, uniform

LIMIT = 0.1
"""The output counts as broken when some output is off by more than this."""
PROBE = 0.75
"""Value of the one feature that is on in a probe input (METHOD.md section 3)."""
ALIVE = 0.1
"""A subcomponent is live when its importance exceeds this on some one-hot probe."""

Payload = dict[str, Any]


def encode(array: Tensor, what: str) -> str:
    """Base64 of the float32 values, byte plane by byte plane. Raises ValueError, naming `what`, for non-finite values."""
    array = array.detach().float().cpu().contiguous()
    if not array.isfinite().all():
        raise ValueError(f"{what} has values that are not finite; nothing to explore")
    planes = array.numpy().astype("<f4").reshape(-1, 1).view("u1").T
    return base64.b64encode(planes.tobytes()).decode()


def structure_of(target: nn.Module) -> dict[str, Any]:
    """The target's own description of its computation.

    Raises ValueError for a target that does not give one, or gives one this explorer cannot draw.
    """
    describe = getattr(target, "structure", None)
    if not callable(describe):
        raise ValueError(
            f"{type(target).__name__} has no structure() method; the explorer recomputes chains of "
            'linear layers and needs {"kind": "chain", "layers": [names in order], "activation": '
            '"relu" or "none", "input": (low, high)}'
        )
    structure: dict[str, Any] = describe()
    if structure.get("kind") != "chain":
        raise ValueError(f"the explorer knows the kind 'chain', not {structure.get('kind')!r}")
    if structure.get("activation") not in ("relu", "none"):
        raise ValueError(
            f"the explorer knows activations 'relu' and 'none', not {structure.get('activation')!r}"
        )
    low, high = structure.get("input", (0.0, 1.0))
    if not low < high:
        raise ValueError(
            f"structure()['input'] must be (low, high) with low < high, got {low, high}"
        )
    for name in structure["layers"]:
        linear(target, name)
    return structure


def linear(target: nn.Module, name: str) -> nn.Linear:
    """The layer of that name. Raises ValueError when it is not an nn.Linear."""
    layer = target.get_submodule(name)
    if not isinstance(layer, nn.Linear):
        raise ValueError(f"the explorer draws nn.Linear layers; '{name}' is something else")
    return layer


def probes(n_features: int) -> Tensor:
    """One-hot inputs x_i = 0.75, the probes of every pattern in the book. (n, n)."""
    return PROBE * torch.eye(n_features)


def checked_input(x: Tensor | Sequence[float] | None, structure: dict[str, Any], n: int) -> Tensor:
    """Starting input (n,), by default the first feature on at 0.75.

    Raises ValueError for the wrong size, values that are not finite, or outside the target's range.
    """
    value = probes(n)[0] if x is None else torch.as_tensor(x, dtype=torch.float32).reshape(-1)
    low, high = structure.get("input", (0.0, 1.0))
    if value.shape != (n,):
        raise ValueError(f"x must hold one input of {n} features, got {value.numel()} values")
    if not (value.isfinite().all() and value.min() >= low and value.max() <= high):
        raise ValueError(f"x must lie in [{low}, {high}], the range of the sliders")
    return value


def layer_order(d: Decomposition) -> tuple[dict[str, Any], list[str]]:
    """Structure and layer names. Raises ValueError unless every layer of it is decomposed."""
    structure = structure_of(d.target)
    if missing := [n for n in structure["layers"] if n not in d.names]:
        raise ValueError(f"layers {missing} are not decomposed; explore needs all of them")
    return structure, list(structure["layers"])


def live_order(d: Decomposition, name: str, n_features: int) -> list[int]:
    """Live subcomponents of one layer, in the order of the feature that each serves best."""
    g = d.causal_importance(probes(n_features))[name].detach().cpu()  # (features, C)
    best, feature = g.max(dim=0)
    alive = [c for c in range(g.shape[1]) if best[c] > ALIVE]
    return sorted(alive, key=lambda c: (int(feature[c]), c))


def gate_payload(gates: Gates, name: str) -> Payload:
    """Importance MLPs of one layer."""
    arrays = {k: encode(t, f"gate {k} of '{name}'") for k, t in gates._asdict().items()}
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
        "W": encode(weight, f"weight of '{name}'"),
        "bias": None if bias is None else encode(bias, f"bias of '{name}'"),
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
            "U": encode(U, f"U of '{name}'"),
            "V": encode(V, f"V of '{name}'"),
        }
    return layer


def opening_sources(d: Decomposition) -> dict[str, Tensor]:
    """The draw r behind the masks that the board opens with: {name: (1, C)}."""
    generator = torch.Generator().manual_seed(0)
    return {name: uniform((1, C), generator) for name, C in d.C.items()}


def model_payload(d: Decomposition, x: Tensor | Sequence[float] | None = None) -> Payload:
    """The whole decomposed model with a starting input: everything the page computes with.

    x: one input (n_features,). Slots number the looks of live subcomponents; a tied layer's
    subcomponent c is the same direction as its source's, so it shares the slot (and the colour).
    Raises ValueError for targets that cannot be drawn, values not finite, or inputs out of range.
    """
    structure, names = layer_order(d)
    n = d.weight[names[0]].shape[1]
    start = checked_input(x, structure, n)
    slots: dict[tuple[str, int], int] = {}
    sources = opening_sources(d)
    layers = []
    for name in names:
        layer = weights_payload(
            name, d.weight[name], linear(d.target, name).bias, d.U[name], d.V[name]
        )
        layer["gate"] = gate_payload(d.gates[name], name)
        layer["live"] = live_order(d, name, n)
        layer["source"] = encode(sources[name][0], "source")
        source = d.wrapped.tied.get(name, name)
        if source in names[: names.index(name)]:
            layer["tied"] = source
            for key in ("W", "U", "V"):
                del layer[key]
        layer["slots"] = [slots.setdefault((source, c), len(slots)) for c in layer["live"]]
        layer["picture"] = "plane" if 2 in d.weight[name].shape else "heat"
        layers.append(layer)
    low, high = structure.get("input", (0.0, 1.0))
    return {
        "format": 1,
        "kind": structure["kind"],
        "activation": structure["activation"],
        "layers": layers,
        "input": {"min": low, "max": high, "value": start.tolist()},
        "labels": feature_labels(n),
        "limit": LIMIT,
        "seed": 1,
    }


def target_payload(target: nn.Module, x: Tensor | Sequence[float] | None = None) -> Payload:
    """The target alone, without a decomposition. Same errors as `model_payload`."""
    structure = structure_of(target)
    linears = {name: linear(target, name) for name in structure["layers"]}
    layers = [weights_payload(name, m.weight, m.bias) for name, m in linears.items()]
    n = layers[0]["d_in"]
    low, high = structure.get("input", (0.0, 1.0))
    return {
        "format": 1,
        "kind": structure["kind"],
        "activation": structure["activation"],
        "layers": layers,
        "input": {"min": low, "max": high, "value": checked_input(x, structure, n).tolist()},
        "labels": feature_labels(n),
        "limit": LIMIT,
        "seed": 1,
    }


def feature_labels(n: int) -> list[str]:
    """x₀, x₁, …: counted from 0, as the code counts."""
    return ["x" + str(i).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")) for i in range(n)]


def describe(d: Decomposition, x: Tensor | Sequence[float] | None = None) -> str:
    """The opening state of the masks view in words, with computed numbers, for those who listen."""
    structure, names = layer_order(d)
    n = d.weight[names[0]].shape[1]
    row = checked_input(x, structure, n)[None]
    g = d.causal_importance(row)
    sources = opening_sources(d)
    masks = {k: from_source(v.cpu(), sources[k]) for k, v in g.items()}
    with torch.no_grad():
        want, masked = d.target(row.to(d.device)), d(row, masks)
    values = zip(feature_labels(n), row[0].tolist(), strict=True)
    on = ", ".join(f"{label} = {value:.2f}" for label, value in values if value)
    parts = []
    for name in names:
        live = live_order(d, name, n)
        important = [f"{c} ({g[name][0, c]:.2f})" for c in live if g[name][0, c] > ALIVE]
        parts.append(
            f"{name}: {len(live)} of {d.C[name]} subcomponents are live; important on this input: "
            f"{', '.join(important) or 'none'}."
        )
    return (
        f"Input {on or 'all zero'}. {' '.join(parts)} With masks drawn at random between importance "
        f"and 1, the largest output change is {(masked - want).abs().max():.3f}."
    )
