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
    cancelling,
    covered,
    cube_cases,
    decomposition,
    dialled,
    exact,
    exact_residual,
    memory,
    pentagon,
    resid_mlp,
    residual,
    snapshots,
    tms,
    unit_columns,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import spd_mini as spd
from spd_mini import explorer
from spd_mini.explorer import export, packing
from spd_mini.explorer import residual as folding
from spd_mini.explorer.html import Explorer, lean, module
from spd_mini.explorer.switchboard import basis, noises
from spd_mini.targets.facts import Facts

TIES = {"decoder": "encoder"}


def decode(text: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The reader's side of `export.encode`, written independently."""
    planes = np.frombuffer(base64.b64decode(text), "u1").reshape(4, -1)
    return torch.from_numpy(np.ascontiguousarray(planes.T).view("<f4").copy().reshape(shape))


def unpack(data: dict[str, Any], length: int) -> list[float]:
    """The reader's side of `packing.fixed`, bit by bit."""
    raw = np.frombuffer(base64.b64decode(data["bits"]), "u1")
    bits = iter("".join(f"{byte:08b}" for byte in raw))
    values = []
    for _ in range(length):
        zeros = 0
        while next(bits) == "0":
            zeros += 1
        q = int("1" + "".join(next(bits) for _ in range(zeros + data["low"])), 2) - 2 ** data["low"]
        sign = -1 if q and next(bits) == "1" else 1
        values.append(sign * q / 2 ** data["digits"])
    assert set(bits) <= {"0"} and len(raw) * 8 >= length, "bits left over"
    return values


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40),
    st.sampled_from([6.0, 12.0, 17.25, 24.0]),
)
def test_fixed_numbers_survive_to_half_a_step(values: list[float], digits: float) -> None:
    packed = packing.fixed(torch.tensor(values, dtype=torch.float64), digits)
    got = np.array(unpack(packed, len(values)))
    assert np.abs(got - values).max() <= 0.5001 / 2**digits


@pytest.mark.slow
def test_digits_are_dropped_until_the_budget_is_kept() -> None:
    noise = torch.randn(200, 200, generator=torch.Generator().manual_seed(0))
    some, many = packing.digits_for([noise[:9]], []), packing.digits_for([noise], [])
    assert some == packing.DIGITS[0] == 24
    size = len(base64.b64decode(packing.fixed(noise, many)["bits"]))
    assert 0.95 * packing.BUDGET < size <= packing.BUDGET
    assert len(base64.b64decode(packing.fixed(noise, many + 0.25)["bits"])) > packing.BUDGET
    assert packing.digits_for([1e5 * noise[:9]], []) < 14, "a number too large for the code"
    fine = packing.packed({"a": noise[:9], "b": packing.Fine(noise[:9])}, as_fixed=True)
    assert fine["b"]["digits"] == fine["a"]["digits"] + packing.EXTRA_DIGITS
    assert packing.digits_for([], [noise]) < many
    assert packing.digits_for([noise] * 9, []) == packing.DIGITS[-1], "never fewer than these"


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
    assert payload["range"] == [0, 1.15]
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
        self.matrix = torch.eye(3)
        self.said = {"kind": "chain", "layers": ["layer"], "activation": "none"} | structure

    def structure(self) -> dict[str, object]:
        return self.said


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Plain(), r"Plain has no structure\(\) method"),
        (Says(kind="tree"), "this explorer knows the kinds 'chain' and 'residual', not 'tree'"),
        (
            Says(kind="residual", layers=[["layer", "layer"]]),
            "must name the target's embedding.*got None",
        ),
        (
            Says(kind="residual", layers=[["layer", "layer"]], embed="layer"),
            r"name of a tensor \(n_features, d_resid\)\}; got 'layer'",
        ),
        (
            Says(kind="residual", layers=[["layer", "layer"]], embed="matrix"),
            r"residual layers without biases; \['layer', 'layer'\] have one",
        ),
        (residual(1), "draws targets of kind 'chain', not 'residual'"),
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


VIEWS = ["masks", "columns", "cube", "scrubber", "gate", "sizes", "contributions", "dendrogram"]
VIEWS += ["dial", "coverage", "switchboard"]


@pytest.mark.parametrize("view", VIEWS)
def test_the_module_is_one_scope(view: str) -> None:
    """Nothing is imported or exported any more, and no top-level name is given twice."""
    text = module(view)
    assert not re.search(r"^(import|export)\b|\bM\.", text, re.MULTILINE)
    names = re.findall(r"^(?:const|let|function) (\w+)", text, re.MULTILINE)
    assert "view" in names
    assert len(set(names)) == len(names)
    carried = lean(text)
    assert len(carried) < 0.85 * len(text)
    assert not re.search(r"^\s*//|^\s", carried, re.MULTILINE)
    assert [line.strip() for line in text.split("\n") if not re.match(r"\s*(//|$)", line)] == (
        carried.strip().split("\n")
    ), "something else was lost"


@pytest.mark.parametrize("C", [200, 320])
def test_payload_stays_below_150_kilobytes(C: int) -> None:
    """Compressed as a server would send it, at 40-10 and with the least compressible numbers."""
    d = decomposition(tms(40, 10, False, 0), C, 0, TIES, d_gate=8)
    assert len(gzip.compress(spd.explore(d)._repr_html_().encode())) < 150_000


@pytest.mark.parametrize(("d_mlp", "n_paths", "digits"), [(96, 1, 23), (64, 2, 16), (16, 1, 24)])
def test_payload_of_a_switchboard_stays_below_150_kilobytes(
    d_mlp: int, n_paths: int, digits: int
) -> None:
    """The three arms of the facts model, with as many pieces as matter there."""
    if d_mlp == 16:  # fewer neurons than facts: no hidden vector has a dual, any numbers will do
        target = Facts(48, 4, 48, 128, 16)
        target.keys.normal_(generator=torch.Generator().manual_seed(0))
        d = decomposition(target, 60, 0, {}, d_gate=8)
    else:
        d = memory(48, 4, 128, d_mlp, n_paths, spare=16, noise=0.01, d_gate=8)
    shown = explorer.switchboard(d)
    assert len(gzip.compress(shown._repr_html_().encode())) < 150_000
    assert shown.payload["keys"]["digits"] >= digits
    assert all(len(layer["ids"]) >= 40 for layer in shown.payload["layers"])


def test_a_switchboard_carries_weights_and_the_pieces_that_matter() -> None:
    d = memory(n_paths=2)
    d.gates["paths.1.W_out"].b_out[3] = -100.0  # this piece matters on no key
    payload = explorer.switchboard(d, fact=2).payload
    target = d.target
    assert isinstance(target, Facts)
    Q = basis(target.keys, noises(24))
    near(payload["keys"], target.keys.double() @ Q)
    near(payload["noise"], noises(24).double() @ Q)
    g = d.causal_importance(target.keys)
    assert payload["ends"] == [1, 3]
    assert (payload["fact"], payload["model"]) == (2, "Facts")
    assert payload["answers"] == list(range(12))
    assert payload["groups"] == [f // 3 for f in range(12)]
    for i, (layer, name) in enumerate(zip(payload["layers"], d.names, strict=True)):
        ids = [c for c in range(12) if (i, c) != (3, 3)]
        assert (layer["name"], layer["ids"], layer["all"]) == (name, ids, 14)
        assert layer["label"] == f"{name[8:]} of path {name[6]}"
        assert (layer["from"], layer["relu"]) == ([i - 1] if i % 2 else [-1], i % 2 == 0)
        W, V = d.weight[name].detach().double(), d.V[name][ids].double()
        assert layer["size"] == pytest.approx(float(W.norm()))
        near(layer["gram"], (V @ V.mT)[*torch.triu_indices(len(ids), len(ids))])
        near(layer["W"], W if i % 2 else W @ Q)
        near(layer["U"], d.U[name][:, ids].double())
        near(layer["V"], V if i % 2 else V @ Q)
        near(layer["g"], g[name][:, ids].double())


def test_a_switchboard_says_its_opening_state() -> None:
    """Logits of 6 and eleven zeros; without the pieces, twelve zeros."""
    assert explorer.switchboard(memory(), fact=4).description == (
        "Deleted: fact 4, by the pieces that matter on its key (4 of paths.0.W_in, 4 of "
        "paths.0.W_out). The probability of its answer was 0.973 and is 0.083. Of the 11 other "
        "facts known before, 11 are still known."
    )


class Asked(Says):
    """A target of pathways that names its tensors as the test likes."""

    def __init__(self, **structure: object) -> None:
        said = {"kind": "pathways", "layers": [["layer", "last"]]}
        tensors = {"keys": "keys", "answers": "answers", "groups": "answers"}
        super().__init__(**said, **(tensors | structure))
        self.last = nn.Linear(3, 3)
        self.keys, self.short, self.answers = torch.eye(3), torch.eye(2), torch.arange(3)


@pytest.mark.parametrize(
    ("target", "how", "message"),
    [
        (Chain([3, 2, 3], "none"), {}, "this explorer knows the kind 'pathways', not 'chain'"),
        (Asked(answers="no"), {}, "must name a tensor of the target as 'answers'; got 'no'"),
        (Asked(keys=None), {}, "must name a tensor of the target as 'keys'; got None"),
        (Asked(keys="short"), {}, r"3 facts need keys \(3, 3\) and groups \(3,\), got \(2, 2\)"),
        (Asked(groups="keys"), {}, r"groups \(3,\), got \(3, 3\) and \(3, 3\)"),
        (Asked(), {"fact": 3}, "there is no fact 3; facts are 0 to 2"),
        (Asked(), {"fact": -1}, "there is no fact -1; facts are 0 to 2"),
        (Asked(), {"threshold": 1.0}, r"importances must be in \[0, 1\), got 1.0"),
        (Asked(), {"threshold": -0.1}, r"importances must be in \[0, 1\), got -0.1"),
    ],
)
def test_switchboards_that_make_no_sense(
    target: nn.Module, how: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        explorer.switchboard(decomposition(target, 4, 0, {}), **how)


def test_facts_are_for_the_switchboard_alone() -> None:
    """Their inputs are no features to slide."""
    for show in (spd.explore, spd.live, lambda d: explorer.gate(d, "paths.0.W_in")):
        with pytest.raises(ValueError, match="knows the kinds 'chain' and 'residual', not 'path"):
            show(memory())


@pytest.mark.slow
@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_payload_of_a_residual_mlp_stays_below_150_kilobytes(n_layers: int) -> None:
    """With noise like a trained one's; one layer whole, more layers with the live pieces only."""
    shown = spd.explore(resid_mlp(n_layers, noise=0.005))
    assert len(gzip.compress(shown._repr_html_().encode())) < 150_000
    assert shown.payload["out"]["embed"]["digits"] >= {1: 20, 2: 17, 3: 13}[n_layers]
    if n_layers == 1:
        assert shown.payload["rest"] is False
        assert [layer["C"] for layer in shown.payload["layers"]] == [130, 60]
    else:
        assert all(0 < count < 30 for count in shown.payload["rest"])
        assert "(what they do not carry stays on)" in shown.description


def test_a_residual_mlp_is_folded() -> None:
    """Every product of a reader with a writer, worked out here from the wide matrices."""
    d = exact_residual(2, noise=0.1)
    payload = export.model_payload(d)
    E = d.target.get_buffer("W_E").double()
    w = {n: t.detach().double() for n, t in d.weight.items()}
    stream = [E.T]
    for layer in payload["layers"]:
        name = layer["name"]
        U, V = d.U[name].double(), d.V[name].double()
        if "writes" in layer:
            assert (layer["from"], len(layer["V"])) == ([len(stream) * 2 - 2], 1)
            near(layer["V"][0], V)
            stream.append(torch.cat([U, w[name]], 1))
            continue
        assert layer["from"] == [-1, 1][: len(stream)]
        near(layer["U"], U)
        for k, direction in enumerate(stream):
            near(layer["V"][k], V @ direction)
            near(layer["W"][k], w[name] @ direction)
    assert payload["out"]["from"] == [-1, 1, 3]
    for k, direction in enumerate(stream[1:]):
        near(payload["out"]["V"][k], E @ direction)
    near(payload["out"]["embed"], (E @ E.T)[*torch.triu_indices(12, 12)])
    ends = d.target(torch.cat([torch.eye(12), -torch.eye(12)]))
    assert payload["range"] == pytest.approx([1.05 * float(ends.min()), 1.05 * float(ends.max())])


def near(packed: dict[str, Any], want: torch.Tensor) -> None:
    got = torch.tensor(unpack(packed, want.numel()), dtype=torch.float64).reshape(want.shape)
    assert packed["digits"] >= 20
    torch.testing.assert_close(got, want, atol=0.51 / 2 ** packed["digits"], rtol=0)


def test_live_pieces_only_where_all_would_be_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are counted and stay on; indices are those of the package."""
    d = exact_residual(1)
    assert export.model_payload(d)["rest"] is False
    assert all("ids" not in layer for layer in export.model_payload(d)["layers"])
    monkeypatch.setattr(folding, "MOST", 100)
    payload = export.model_payload(d)
    assert payload["rest"] == [2, 2]
    for layer, live in zip(payload["layers"], (12, 6), strict=True):
        assert layer["ids"] == list(range(live))
        assert layer["C"] == live
        assert sorted(layer["live"]) == list(range(live))


def test_gate_and_live_panel_of_a_residual_mlp() -> None:
    d = exact_residual(2)
    shown = explorer.gate(d, "layers.0.W_in", 3)
    assert shown.payload["probe"][3] == pytest.approx(0.75, abs=1e-4)
    panel = spd.live(d, [0.0, -0.5] + [0.0] * 10)
    want, have = panel.outputs()
    torch.testing.assert_close(want, d.target(panel.x[None])[0])
    assert have.shape == (12,)


def test_sizes_shows_what_each_decomposition_uses() -> None:
    small, large = exact(torch.eye(6), 7), exact(torch.eye(6), 12)
    shown = explorer.sizes([large, small])
    assert shown.payload["offered"] == ["7", "12"], "in the order of their size"
    for step, C in zip(shown.payload["steps"], (7, 12), strict=True):
        assert [(layer["C"], layer["live"]) for layer in step] == [(C, list(range(6)))] * 2
        assert np.array_equal(step[0]["g"], 100 * np.eye(6))
        assert step[0]["faithful"] < 1e-6
        assert step[0]["slots"] == step[1]["slots"] == list(range(6))
    assert shown.description.endswith("6, 6 at C = 7; 6, 6 at C = 12")
    chosen = explorer.sizes([small, large], x=torch.full((2, 6), 0.5))
    assert chosen.payload["labels"] == ["0", "1"]
    assert np.array(chosen.payload["steps"][0][0]["g"]).shape == (6, 2)


def test_sizes_refuses_what_cannot_be_compared() -> None:
    d, more = exact(unit_columns(3, 6), 7), exact(unit_columns(3, 6), 9)
    for wrong, message in (
        ([d], "at least two decompositions, got 1"),
        ([d, pentagon()], "of one target; these differ"),
        ([d, decomposition(Chain([6, 3, 6], "relu"), 4, 0, {})], "of one target; these differ"),
        ([d, more, more], r"another C; these are \[\(7, 7\), \(9, 9\), \(9, 9\)\]"),
    ):
        with pytest.raises(ValueError, match=message):
            explorer.sizes(wrong)
    for x in (torch.zeros(6), torch.zeros(2, 5)):
        with pytest.raises(ValueError, match=r"x must have shape \(rows, 6\), got \("):
            explorer.sizes([d, more], x)


def test_contributions_carries_the_packages_numbers() -> None:
    d = exact_residual(2, noise=0.02)
    shown = explorer.contributions([("one", d), ("two", exact_residual(2))])
    assert [case["label"] for case in shown.payload["cases"]] == ["one", "two"]
    case = shown.payload["cases"][0]
    E, W = d.target.get_buffer("W_E"), d.weight
    for i, layer in enumerate(case["layers"]):
        w_in, w_out = f"layers.{i}.W_in", f"layers.{i}.W_out"
        out = E @ d.U[w_out] @ d.V[w_out]
        for feature in range(12):
            model = (E @ W[w_out])[feature] * (W[w_in] @ E[feature])
            pieces = out[feature] * (d.U[w_in] * (d.V[w_in] @ E[feature])).T  # (C, d_mlp)
            best = int(pieces.max(1).values.argmax())
            assert layer["chosen"][feature] == best
            for name, want in (("model", model), ("best", pieces[best])):
                got = np.reshape(unpack(layer[name], 12 * 6), (12, 6))[feature]
                assert np.abs(got - want.detach().numpy()).max() < 0.001
    pairs = [(f"layers.{i}.W_in", f"layers.{i}.W_out") for i in range(2)]
    r, slope = spd.recovery.contribution_fit(d, spd.recovery.Mlp(E, pairs))
    assert (case["r"], case["slope"]) == (r, slope)
    assert f"one: r {r:.3f}, slope {slope:.2f}." in shown.description
    assert case["live"][0] == ["layers.0.W_in", 12, 14]


def test_contributions_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="at least one"):
        explorer.contributions([])
    with pytest.raises(ValueError, match="the target of 'x' is of kind 'chain'"):
        explorer.contributions([("x", pentagon())])
    for other in (exact_residual(2), exact_residual(1, d_mlp=5), exact_residual(1, features=11)):
        with pytest.raises(ValueError, match="of one size; these differ"):
            explorer.contributions([("a", exact_residual(1)), ("b", other)])


@pytest.mark.slow
def test_adversary_tells_how_far_its_masks_reach() -> None:
    shown = explorer.adversary([("exact", pentagon()), ("with a pair", cancelling())])
    assert [case["name"] for case in shown.payload["cases"]] == ["exact", "with a pair"]
    # half of each pair off: the hidden entry is 0.75 · 1.4, and the output of it 1.4 · 1.05 − 0.3
    assert shown.payload["reach"] == pytest.approx(1.4 * 0.75 * 1.4 - 0.3 - 0.45, abs=1e-5)
    assert "exact 0.000; with a pair 0.720." in repr(shown)
    assert repr(shown).startswith("How many masks does it take?. An adversary sets masks of")
    assert repr(explorer.adversary([("exact", pentagon())], title="Mine")).startswith("Mine. ")


def test_adversary_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="at least one"):
        explorer.adversary([])
    with pytest.raises(ValueError, match="of kind 'chain', not 'residual'"):
        explorer.adversary([("x", exact_residual(1))])
    more, turned = exact(pentagon().weight["encoder"], 8), exact(torch.eye(5)[:2], 7)
    for other in (more, turned):
        with pytest.raises(ValueError, match="of one target with equal C"):
            explorer.adversary([("a", pentagon()), ("b", other)])


def test_dial_hands_over_live_pieces_with_the_columns_they_serve() -> None:
    """Piece 0 serves features 1 and 2, piece 2 feature 0; piece 1 serves nothing."""
    W, fair = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 2.0]]), dialled("fair", torch.eye(3))
    merged = dialled("fair", torch.tensor([[0.0, 0.0, 0.9], [0.8, 0.1, 0.0], [1.0, 0.0, 0.1]]))
    merged |= {"pattern": False, "strict": False}
    payload = explorer.dial("k", [("1", [fair]), ("2", [merged])], W).payload
    assert (payload["labels"], payload["start"]) == (["x₀", "x₁", "x₂"], 1)
    assert payload["columns"] == W.T.tolist()
    (run,) = payload["settings"][1]["runs"]
    assert run["g"] == [[90, 0, 10], [0, 80, 100]]
    assert [arrow[0] for arrow in run["arrows"]] == [0, 1, 1]
    assert (run["pattern"], run["strict"], run["slots"]) == (False, False, [0, 1])
    both = explorer.dial("k", [("1", [fair, fair]), ("2", [merged, fair])], W).payload
    assert (payload["run"], both["run"]) == (0, 1), "opens on a run with the pattern, if any"
    shown = explorer.dial("k", [("1", [fair]), ("2", [merged])], W)
    assert shown.description == "Runs of 1 with the right pattern: 1 at k 1, 0 at k 2."


def test_coverage_hands_over_hundredths_and_errors() -> None:
    shown = explorer.coverage("β₃", ["a", "b", "c"], covered())
    assert shown.payload["labels"] == ["low", "mid", "high"]
    assert (shown.payload["start"], shown.payload["runs"]) == (1, ["1000", "1001"])
    assert (shown.payload["off"], shown.payload["near"]) == (0.1, 0.02)
    first, second = shown.payload["arms"]
    assert [arm["name"] for arm in (first, second)] == ["plain", "a remedy"]
    assert first["settings"][1][0] == {
        "name": "1000",
        "g": [100, 90, 5],
        "state": [1, 1, -1],
        "error": 0.002,
    }
    assert second["settings"][2][1]["error"] == 0.3
    assert shown.description == "Skipped of 6, by β₃: 0 at low, 2 at mid, 6 at high."


def test_coverage_says_what_is_found_before_it_rounds() -> None:
    """0.8999 is not found and 0.0999 is skipped, though the page shows 0.90 and 0.10."""
    run = {"name": "a", "g": [0.8999, 0.9, 0.1, 0.0999], "error": 0.0}
    payload = explorer.coverage("k", list("abcd"), {"one": [("1", [run]), ("2", [run])]}).payload
    (shown,) = payload["arms"][0]["settings"][0]
    assert (shown["g"], shown["state"]) == ([90, 90, 10, 10], [0, 1, 0, -1])


def test_coverage_refuses_what_cannot_be_compared() -> None:
    names, fair = ["a", "b", "c"], covered()
    (low, runs), mid, high = fair["plain"]
    for arms, message in (
        ({}, "an arm with at least two settings and a run"),
        ({"one": [mid]}, "an arm with at least two settings and a run"),
        ({"one": [(low, []), ("mid", [])]}, "an arm with at least two settings and a run"),
        (fair | {"other": [mid, high]}, "the same values and runs, not 'other'"),
        ({"one": [(low, runs[:1]), mid]}, "the same values and runs, not 'one'"),
        ({"one": [(low, [runs[0] | {"g": torch.ones(2)}])]}, "'1000': g must hold 3 importances"),
        ({"one": [(low, [runs[0] | {"g": [0.0, 1.1, 0]}])]}, r"in \[0, 1\], got \[0.0, 1.1"),
        ({"one": [(low, [runs[0] | {"error": -1.0}])]}, "'1000': the error must be a number ≥ 0"),
    ):
        with pytest.raises(ValueError, match=message):
            explorer.coverage("β₃", names, arms)


def test_dial_refuses_what_cannot_be_compared() -> None:
    W, run, other = torch.ones(2, 3), dialled("a", torch.eye(3)), dialled("b", torch.eye(3))
    narrow, short = run | {"g": torch.eye(2)}, run | {"pieces": torch.ones(3, 2, 2)}
    for settings, message in (
        ([("1", [run])], "at least two settings, got 1"),
        ([("1", []), ("2", [])], "must have the same runs"),
        ([("1", [run]), ("2", [other])], r"must have the same runs, here \['a'\]"),
        ([("1", [narrow]), ("2", [narrow])], r"'a': pieces must be \(C, 2, 3\) and g \(3, C\)"),
        ([("1", [short]), ("2", [short])], "'a': pieces must be"),
    ):
        with pytest.raises(ValueError, match=message):
            explorer.dial("k", settings, W)


LINKAGE = np.array([[0, 1, 0.2, 2], [2, 3, 0.4, 2], [4, 5, 1.5, 4]])
LEAVES = [("in", 3), ("out", 0), ("in", 7), ("out", 2)]
SEEN = torch.tensor([[1.0, 0.9, 0.0, 0.05], [0.0, 0.0, 0.8, 0.3]])


def test_dendrogram_hands_over_tree_and_groups() -> None:
    truth = [[("in", 3), ("out", 0)], [("in", 7)]]
    payload = explorer.dendrogram(LINKAGE, LEAVES, SEEN, 1.0, truth).payload
    assert payload["modules"] == ["in", "out"]
    assert payload["leaves"] == [[0, 3], [1, 0], [0, 7], [1, 2]]
    assert payload["joins"] == [[0, 1, 0.2], [2, 3, 0.4], [4, 5, 1.5]]
    assert payload["best"] == [[0, 2], [1, 3]]
    assert payload["serves"] == [[0], [0], [1], []]
    assert payload["truth"] == [[0, 1], [2]]
    low = explorer.dendrogram(LINKAGE, LEAVES, 0.09 * SEEN, 0.3)
    assert low.payload["best"] == [[None, None], [None, None]]
    assert "4 subcomponents of in, out in 3 groups at height 0.30." in repr(low)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"leaves": LEAVES[:3]}, r"\(leaves − 1, 4\) for at least two leaves, got \(3, 4\) for 3"),
        ({"linkage": LINKAGE[:0], "leaves": LEAVES[:1]}, r"got \(0, 4\) for 1"),
        ({"g": SEEN[:, :3]}, r"g must be finite, \(n_features, 4\), got shape \(2, 3\)"),
        ({"g": SEEN / 0}, "g must be finite"),
        ({"linkage": LINKAGE[:, [0, 1, 3, 2]] * [1, 1, -1, 1]}, "heights must be finite, ≥ 0"),
        ({"linkage": LINKAGE * [1, 1, np.nan, 1]}, "heights must be finite"),
        ({"linkage": LINKAGE * [[1, 1, 9, 1], [1, 1, 1, 1], [1, 1, 1, 1]]}, "never below those"),
        ({"threshold": 0.0}, "threshold must be a height above 0, got 0.0"),
        ({"threshold": float("nan")}, "threshold must be a height above 0, got nan"),
        ({"truth": [[("in", 3)], [("in", 4)]]}, r"truth speaks of \[\('in', 4\)\], which are no"),
    ],
)
def test_dendrogram_refuses_trees_that_make_no_sense(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"linkage": LINKAGE, "leaves": LEAVES, "g": SEEN, "threshold": 1.0}
    with pytest.raises(ValueError, match=message):
        explorer.dendrogram(**(good | change))


def test_40_features_open_with_a_heat_map() -> None:
    shown = spd.explore(exact(unit_columns(10, 40), 50))
    assert isinstance(shown, Explorer)
    assert [layer["picture"] for layer in shown.payload["layers"]] == ["heat", "heat"]
    assert [len(layer["live"]) for layer in shown.payload["layers"]] == [40, 40]
