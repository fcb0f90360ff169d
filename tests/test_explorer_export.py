"""What Python hands to the page: numbers that survive the trip, clear refusals, safe HTML."""

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from explorer.making import (
    Chain,
    cube_cases,
    decomposition,
    exact,
    pentagon,
    snapshots,
    tms,
    unit_columns,
)
from torch import nn

import spd_mini as spd
from spd_mini import explorer
from spd_mini.explorer import export
from spd_mini.explorer.html import Explorer, module

TIES = {"decoder": "encoder"}


def decode(text: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The reader's side of `export.encode`, written independently."""
    planes = np.frombuffer(base64.b64decode(text), "u1").reshape(4, -1)
    return torch.from_numpy(np.ascontiguousarray(planes.T).view("<f4").copy().reshape(shape))


def test_arrays_survive_exactly() -> None:
    d = decomposition(tms(5, 2, True, 0), 8, 0, TIES)
    payload = json.loads(json.dumps(export.model_payload(d)))
    assert [layer["name"] for layer in payload["layers"]] == ["encoder", "hidden", "decoder"]
    for layer in payload["layers"]:
        name, (d_out, d_in), C = layer["name"], d.weight[layer["name"]].shape, layer["C"]
        for key, want in {"w_in": (C, 6), "b_in": (C, 6), "w_out": (C, 6), "b_out": (C,)}.items():
            assert torch.equal(decode(layer["gate"][key], want), getattr(d.gates[name], key))
        if name == "decoder":
            assert layer["tied"] == "encoder"
            assert not {"W", "U", "V"} & set(layer), "a tied layer travels twice"
            continue
        assert torch.equal(decode(layer["W"], (d_out, d_in)), d.weight[name])
        assert torch.equal(decode(layer["U"], (d_out, C)), d.U[name])
        assert torch.equal(decode(layer["V"], (C, d_in)), d.V[name])


def test_live_subcomponents_and_their_looks() -> None:
    """In the order of their features; tied partners look alike, others never do."""
    payload = export.model_payload(pentagon())
    for layer in payload["layers"]:
        assert layer["live"] == [0, 1, 2, 3, 4]
        assert layer["slots"] == [0, 1, 2, 3, 4]
    d = decomposition(tms(5, 2, False, 0), 8, 0, {})
    slots = [slot for layer in export.model_payload(d)["layers"] for slot in layer["slots"]]
    assert len(set(slots)) == len(slots)
    for layer in export.model_payload(d)["layers"]:
        g = d.causal_importance(0.75 * torch.eye(5))[layer["name"]]
        assert sorted(layer["live"]) == [c for c in range(8) if g[:, c].max() > 0.1]


class Plain(nn.Module):
    """A target that says nothing about its structure."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Says(Plain):
    """A target with a structure() of the test's choosing."""

    def __init__(self, **structure: object) -> None:
        super().__init__()
        self.other = nn.ReLU()
        self.said = {"kind": "chain", "layers": ["layer"], "activation": "none"} | structure

    def structure(self) -> dict[str, object]:
        return self.said


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Plain(), r"Plain has no structure\(\) method"),
        (Says(kind="tree"), "knows the kind 'chain', not 'tree'"),
        (Says(activation="tanh"), "knows activations 'relu' and 'none', not 'tanh'"),
        (Says(input=(1.0, 1.0)), r"must be \(low, high\) with low < high, got \(1.0, 1.0\)"),
        (Says(layers=["other"]), "draws nn.Linear layers; 'other' is something else"),
    ],
)
def test_targets_that_cannot_be_drawn(target: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explorer.columns(target)


def test_a_layer_that_is_not_decomposed() -> None:
    d = decomposition(Chain([3, 2, 3], "none"), 4, 0, {})
    d.wrapped.sites.pop("layer1")
    with pytest.raises(ValueError, match=r"layers \['layer1'\] are not decomposed"):
        spd.explore(d)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([0.1] * 4, "one input of 5 features, got 4 values"),
        ([0.1] * 4 + [1.5], r"must lie in \[0.0, 1.0\]"),
        ([0.1] * 4 + [float("nan")], r"must lie in \[0.0, 1.0\]"),
    ],
)
def test_inputs_that_no_slider_can_show(x: list[float], message: str) -> None:
    for show in (spd.explore, lambda d, x: explorer.columns(d.target, x), spd.live):
        with pytest.raises(ValueError, match=message):
            show(pentagon(), x)


@pytest.mark.parametrize("where", ["U", "V", "weight", "gate"])
def test_values_that_are_not_finite(where: str) -> None:
    d = pentagon()
    tensor = {
        "U": d.U["encoder"],
        "V": d.V["encoder"],
        "weight": d.weight["encoder"],
        "gate": d.gates["encoder"].w_in,
    }[where]
    tensor.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=rf"{where}.* has values that are not finite"):
        export.model_payload(d)


def broken(**change: Any) -> list[dict[str, Any]]:
    """The cases of the cube with something wrong in the first."""
    cases: list[dict[str, Any]] = [dict(case) for case in cube_cases()]
    return [cases[0] | change, cases[1]]


EYE = torch.eye(2)


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ([], "at least one case"),
        (broken(why=""), "a case needs a non-empty 'why'"),
        (
            broken(layers=[{"name": "W", "W": EYE, "U": EYE[:1], "V": EYE}]),
            r"'W': U \(1, 2\) and V \(2, 2\) do not fit the weight \(2, 2\)",
        ),
        (
            broken(
                layers=[{"name": "W", "W": EYE, "U": torch.ones(2, 13), "V": torch.ones(13, 2)}]
            ),
            "has 13 subcomponents; at most 12",
        ),
        (broken(inputs=[{"label": "", "x": [1], "g": [[1, 0]]}]), "x must be 2 finite values"),
        (
            broken(inputs=[{"label": "", "x": [1, 0], "g": [[1]]}]),
            r"g needs one list of importances a layer, of \[2\]",
        ),
        (
            broken(inputs=[{"label": "", "x": [1, 0], "g": [[1, 1.5]]}]),
            r"importances g must lie in \[0, 1\]",
        ),
        (broken(pair=[0, 2]), r"pair must be two different subcomponents of 0 to 1, got \[0, 2\]"),
        (broken(pair=[1, 1]), r"two different subcomponents of 0 to 1, got \[1, 1\]"),
        (broken(pair=[0]), r"two different subcomponents of 0 to 1, got \[0\]"),
        (broken(pair=[0, 1, 1]), r"two different subcomponents of 0 to 1, got \[0, 1, 1\]"),
        (broken(pair=[-1, 1]), r"two different subcomponents of 0 to 1, got \[-1, 1\]"),
    ],
)
def test_cube_refuses_cases_that_make_no_sense(cases: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explorer.cube(cases)


def test_cube_hands_over_the_pair_of_its_map() -> None:
    """The one asked for; else the first two; else the only one there is."""
    one = {"name": "W", "W": EYE[:1, :1], "U": EYE[:1, :1], "V": EYE[:1, :1]}
    alone = {"layers": [one], "inputs": [{"label": "", "x": [1], "g": [[1]]}]}
    for change, want in (({"pair": [1, 0]}, [1, 0]), ({}, [0, 1]), (alone, [0, 0])):
        assert explorer.cube(broken(**change)).payload["cases"][0]["pair"] == want


def test_cube_refuses_an_unknown_activation() -> None:
    with pytest.raises(ValueError, match="activation must be 'relu' or 'none', got 'tanh'"):
        explorer.cube(cube_cases(), activation="tanh")


def test_scrubber_refuses_snapshots_that_make_no_sense() -> None:
    moments, target = snapshots()
    with pytest.raises(ValueError, match="at least two snapshots, got 1"):
        explorer.scrubber(moments[:1], target)
    with pytest.raises(ValueError, match="increasing order"):
        explorer.scrubber(moments[::-1], target)
    with pytest.raises(ValueError, match="the same losses"):
        explorer.scrubber([moments[0] | {"losses": {"total": 1.0}}, moments[1]], target)
    nan = {"encoder": torch.full((2, 7), float("nan")), "decoder": torch.zeros(5, 7)}
    with pytest.raises(ValueError, match="step 50: 'encoder' has values that are not finite"):
        explorer.scrubber([moments[0], moments[1] | {"U": nan}], target)


def test_snapshot_takes_the_last_losses() -> None:
    d = pentagon()
    d.history = {"step": [0, 10], "total": [2.0, 1.0]}
    assert explorer.snapshot(10, d)["losses"] == {"total": 1.0}


def test_gate_refuses_what_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"no decomposed layer 'hidden'; there are \['encoder'"):
        explorer.gate(pentagon(), "hidden")
    with pytest.raises(ValueError, match=r"subcomponent 6 of 'encoder' is not live; live are \[0"):
        explorer.gate(pentagon(), "encoder", 6)


def test_description_says_the_opening_state_in_numbers() -> None:
    d = pentagon()
    text = spd.explore(d).description
    assert "Input x₀ = 0.75." in text
    assert "encoder: 5 of 7 subcomponents are live; important on this input: 0 (1.00)." in text
    assert "the largest output change is 0.000" in text
    assert repr(spd.explore(d)).startswith("Move the masks. Input")


def test_a_document_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    spd.explore(pentagon(), title='Masks & "<script>"').save(path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "Masks &amp; &quot;&lt;script&gt;&quot;" in text
    assert "<noscript><p>Input" in text
    assert re.findall(r"(?:src|href)=|https?://(?!www\.w3\.org/)|@import|url\(", text) == []
    assert text.count("<script") == text.count("</script") == 2


def test_text_in_the_data_cannot_end_the_script() -> None:
    cases = broken(why="</script><b>not markup</b>")
    text = explorer.cube(cases)._repr_html_()
    data = re.search(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    assert json.loads(data.group(1))["cases"][0]["why"] == "</script><b>not markup</b>"
    assert "<b>" not in text


@pytest.mark.parametrize("view", ["masks", "columns", "cube", "scrubber", "gate"])
def test_the_module_is_one_scope(view: str) -> None:
    """Nothing is imported or exported any more, and no top-level name is given twice."""
    text = module(view)
    assert not re.search(r"^(import|export)\b|\bM\.", text, re.MULTILINE)
    names = re.findall(r"^(?:const|let|function) (\w+)", text, re.MULTILINE)
    assert "view" in names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("C", [200, 320])
def test_payload_stays_below_150_kilobytes(C: int) -> None:
    """Compressed as a server would send it, at 40-10 and with the least compressible numbers."""
    d = decomposition(tms(40, 10, False, 0), C, 0, TIES, d_gate=8)
    assert len(gzip.compress(spd.explore(d)._repr_html_().encode())) < 150_000


def test_40_features_open_with_a_heat_map() -> None:
    shown = spd.explore(exact(unit_columns(10, 40), 50))
    assert isinstance(shown, Explorer)
    assert [layer["picture"] for layer in shown.payload["layers"]] == ["heat", "heat"]
    assert [len(layer["live"]) for layer in shown.payload["layers"]] == [40, 40]
