"""The live panel: real widgets with a front end, one sentence and no widget state without."""

from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
import torch
from explorer.making import decomposition, tms

import spd_mini as spd
from spd_mini.explorer.export import structure_of
from spd_mini.explorer.live import PRESETS, SENTENCE, LivePanel, is_static

CODE = """
import sys
sys.path.insert(0, {tests!r})
from explorer.making import decomposition, tms
import spd_mini as spd
spd.live(decomposition(tms(3, 2, False, 0), 4, 0, {{"decoder": "encoder"}}))
"""


@pytest.fixture
def panel() -> LivePanel:
    return spd.live(decomposition(tms(5, 2, True, 0), 8, 0, {"decoder": "encoder"}))


def execute(monkeypatch: pytest.MonkeyPatch, static: str | None) -> Any:
    """Run the panel in a notebook without a front end; returns the executed notebook."""
    monkeypatch.delenv("SPD_STATIC", raising=False)
    if static is not None:
        monkeypatch.setenv("SPD_STATIC", static)
    cell = nbformat.v4.new_code_cell(CODE.format(tests=str(Path(__file__).parent)))
    notebook = nbformat.v4.new_notebook(cells=[cell])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    return notebook


@pytest.mark.slow
@pytest.mark.parametrize("static", ["1", None])
def test_a_static_run_has_a_sentence_and_no_widget(
    static: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With SPD_STATIC, and also without: an unattended client is recognised."""
    notebook = execute(monkeypatch, static)
    text = nbformat.writes(notebook)
    assert SENTENCE in text
    assert "application/vnd.jupyter.widget" not in text
    assert "widgets" not in notebook.metadata


@pytest.mark.slow
def test_a_live_run_shows_widgets(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = execute(monkeypatch, "0")
    text = nbformat.writes(notebook)
    assert "application/vnd.jupyter.widget-view+json" in text
    assert SENTENCE not in text


def test_without_a_kernel_it_is_static(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPD_STATIC", raising=False)
    assert is_static()


def controls(box: Any, kind: str) -> list[Any]:
    """Every widget of one class inside a box."""
    found = [box] if type(box).__name__ == kind else []
    return found + [w for child in getattr(box, "children", ()) for w in controls(child, kind)]


def test_every_slider_drives_the_model(panel: LivePanel) -> None:
    box = panel.widget()
    sliders = controls(box, "FloatSlider")
    assert len(sliders) == 5 + sum(len(v) for v in panel.live.values())
    shown = controls(box, "HTML")[-1]
    first = structure_of(panel.d.target)["layers"][0]
    mask = sliders[5]
    before = shown.value
    mask.value = 0.0 if mask.value > 0.5 else 1.0
    assert panel.masks[first][0, panel.live[first][0]] == mask.value
    assert shown.value != before
    assert shown.value == panel.table()
    sliders[1].value = 0.5
    assert panel.x[1] == 0.5
    assert shown.value == panel.table()


def test_presets_set_masks_by_their_rule(panel: LivePanel) -> None:
    box = panel.widget()
    dropdown, button = controls(box, "Dropdown")[0], controls(box, "Button")[0]
    assert dropdown.options == tuple(PRESETS)
    for name in ("All on", "Only the important", "Worst case", "Random, as in training"):
        dropdown.value = name
        g = panel.importance()
        for layer, m in panel.masks.items():
            assert (m >= g[layer] - 1e-6).all()
            assert (m <= 1).all()
            if name == "All on":
                assert (m == 1).all()
            if name == "Only the important":
                torch.testing.assert_close(m, g[layer])
    drawn = {n: m.clone() for n, m in panel.masks.items()}
    button.click()
    assert any(not torch.equal(m, drawn[n]) for n, m in panel.masks.items())


def test_table_shows_the_models_own_numbers(panel: LivePanel) -> None:
    want, have = panel.outputs()
    torch.testing.assert_close(want, panel.d.target(panel.x[None])[0])
    torch.testing.assert_close(have, panel.d(panel.x[None], panel.masks)[0])
    assert f"<td>{want[0]:.3f}</td><td>{have[0]:.3f}</td>" in panel.table()
    broken = float((want - have).abs().max()) > 0.1
    assert ("The output breaks." if broken else "The output stands still.") in panel.table()
