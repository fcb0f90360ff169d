"""The page of sweeps: what it says of rows by hand, and that the book's is of its data."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks import cells, sweeps_figures, sweeps_page
from benchmarks.ledger_data import ROOT


def run(strict: bool, pattern: bool, separated: bool, ml2r: float = 1.0) -> dict[str, Any]:
    return {"strict": strict, "pattern": pattern, "separated": separated, "ml2r": ml2r}


RIGHT = run(True, True, True)


def test_a_grid_by_hand() -> None:
    """One row, two places; verdicts are counted apart, ML2R of the right patterns only."""
    about = {"experiment": "tms-5-2", "method": "spd", "steps": 1500, "seconds_a_run": 2.0}
    left = about | {"octaves": [-1.0, 0.0], "runs": [run(False, True, True, 0.8)] * 2}
    right = about | {
        "octaves": [0.0, 0.0],
        "runs": [run(True, True, True), run(False, False, False, 9.0)],
    }
    text = sweeps_page.rematch([left, right])
    assert "recovered 1, right pattern 3, separable 3 of 4 runs" in text
    assert "0.867 ± 0.115" in text  # 0.8, 0.8, 1
    assert (
        text.splitlines()[-1].replace("\N{NO-BREAK SPACE}", " ") == "| 1 | 0 / 2 / 2 | 1 / 1 / 1 |"
    )


def test_octaves_by_hand() -> None:
    """Of three settings an octave apart two succeed in half the runs: 1 or more, less than ∞."""
    about = {"experiment": "tms-5-2", "method": "spd", "steps": 1500, "seconds_a_run": 2.0}
    good, bad = run(False, True, True), run(False, False, False)
    rows = [
        about | {"octaves": [place, 0.0], "runs": runs}
        for place, runs in ((0.0, [bad]), (1.0, [good, bad]), (2.0, [good]))
    ]
    text = sweeps_page.rematch(rows)
    said = "Octaves in which half the runs succeed: recovered none; right pattern 1 or more"
    assert f"{said}, less than ∞." in text
    assert "Octaves" not in sweeps_page.rematch(rows[:1]), "one setting has no width"


def test_attacks_by_hand() -> None:
    def rungs(value: float) -> dict[str, Any]:
        return {at: {"mean": value, "worst": 2 * value} for at in ("1", "20", "search")}

    masks = ("divergence, own", "divergence, shared", "output, own", "output, shared")
    ladder = {name: rungs(i / 10) for i, name in enumerate(masks)}
    about = {"experiment": "tms-5-2", "seed": 1000, "recovered": True, "ladder": ladder}
    text = sweeps_page.attacks([{**about, "random_99": {"mean": 0.5, "worst": 0.6}}])
    lines = text.replace("\N{NO-BREAK SPACE}", " ").splitlines()
    assert lines[2].endswith(
        "| own | 0.500 (0.600) | 0.000 (0.000) | 0.000 (0.000) | 0.200 (0.400) |"
    )
    assert lines[3].endswith("| shared |  | 0.100 (0.200) | 0.100 (0.200) | 0.300 (0.600) |")


def test_deleting_by_hand() -> None:
    """Selectivity: 0.9 of the fact goes, 0.5 of another; half a fact back makes a lower bound."""
    row = dict.fromkeys(sweeps_page.MEASURES, 0.5) | {"own_back": 1.0, "paraphrased": 0.1}
    row |= {"tuning_seconds": 2.0, "edit_seconds": 0.25}
    sums = [{"left": 0.1, "others": 0.9, "additivity_error": 0.0}]
    sums.append({"left": 0.2, "others": 0.8, "additivity_error": 0.3})
    about = {"arm": "facts", "decompose_inputs": 1920, "together": {"spd": sums}}
    target = row | {"paraphrased": 1.0}
    rows = [
        about | {"decompose_seconds": 10.0, "methods": {"target": target, "spd": row}},
        about
        | {
            "decompose_seconds": 12.0,
            "methods": {"target": target, "spd": row | {"probe": 0.7, "own_back": 0.5}},
        },
    ]
    text = sweeps_page.deleting(rows).replace("\N{NO-BREAK SPACE}", " ")
    said = "`facts`, 2 targets; a decomposition takes 11.0 ± 1.4 CPU seconds and 1,920 inputs."
    assert said in text
    line = next(line for line in text.splitlines() if line.startswith("| spd |"))
    assert line.endswith("| 0.400 ± 0.000 | ≥ 0.5 ± 0.0 | 0.500 ± 0.000 | 0.600 ± 0.141 |")
    assert text.splitlines()[-1] == "| spd | 0.10 / 0.90 / 0.00 | 0.20 / 0.80 / 0.30 | 2.0 | 250 |"


def test_coverage_and_merges_by_hand() -> None:
    errors = {"random": 0.01, "important": 0.02}
    rows = [
        {
            "arm": "plain",
            "price": 1e-3,
            "runs": [{"coverage": [[1.0, 0.05], [0.5, 0.0]], **errors}],
        },
        {"arm": "apart", "price": 1e-3, "runs": [{"merged": {"line": 2, "pair": 1}, **errors}]},
    ]
    text = sweeps_page.coverage(rows).replace("\N{NO-BREAK SPACE}", " ")
    assert "| plain | 1.0e-03 | 2 of 4 skipped | 1.00 | 2.00 |" in text
    assert "| apart | 1.0e-03 | 3 merged | 1.00 | 2.00 |" in text


def test_what_is_not_there_is_not_measured() -> None:
    text = sweeps_page.render({part: [] for part in sweeps_page.FILES})
    assert text.count(sweeps_page.NONE) == len(sweeps_page.FILES)


def test_the_page_in_the_book_is_of_its_data() -> None:
    book = ROOT / "book"
    rendered = sweeps_page.render(sweeps_page.load(book))
    assert (book / sweeps_page.PAGE).read_text(encoding="utf-8") == rendered, "run make ledger"
    for name, (part, _) in sweeps_figures.FIGURES.items():
        rows = sweeps_page.load(book)[part]
        assert f"```{{figure}} {name}\n" in rendered
        assert sweeps_figures.fingerprint(rows) in (book / name).read_text(encoding="utf-8"), name


@pytest.mark.slow
def test_figures_say_what_the_rows_do_and_repeat(tmp_path: Path) -> None:
    """A grid of two by two; one cell of another length is left to the table."""
    about = {"experiment": "tms-5-2", "method": "spd"}
    rows: list[Any] = [
        about | {"steps": 9, "octaves": [x, y], "runs": [run(False, y > 0, x > 0), RIGHT]}
        for x in (0.0, 1.0)
        for y in (0.0, 1.0)
    ]
    rows.append(about | {"steps": 8, "octaves": [0.0, 0.0], "runs": [RIGHT]})
    text = sweeps_figures.draw("appendix_rematch.svg", rows)
    assert text == sweeps_figures.draw("appendix_rematch.svg", rows)
    assert text != sweeps_figures.draw("appendix_rematch.svg", rows[:-1]), "another fingerprint"
    assert (text.count(">1/2<"), text.count(">2/2<"), text.count("1/1")) == (2, 2, 0)
    assert "SPD, 9 steps" in text
    assert "SPD, 8 steps" not in text
    losses = {m: {"paraphrased": 0.1, "lost": 0.2} for m in sweeps_figures.METHODS}
    cells_of = [{"arm": arm, "methods": losses} for arm in ("a", "b") for _ in range(2)]
    drawn = sweeps_figures.draw("appendix_deleting.svg", cells_of)
    assert all(f">{name}<" in drawn for name in sweeps_figures.METHODS)
    assert sweeps_page.write(tmp_path) == [tmp_path / sweeps_page.PAGE], "no figure without rows"


@pytest.mark.parametrize("part", ["runs", "methods"])
def test_files_of_cells_read_as_written(part: str, tmp_path: Path) -> None:
    """With entries in a list, in a table, or none; the same place is written once."""
    rows: list[Any] = [{"at": 1, part: [{"x": 1}, {"x": 2}]}, {"at": 0, part: {"a": {"x": 3}}}]
    rows += [{"at": 2, "note": "ψ"}, {"at": 3, part: []}]
    path = tmp_path / "cells.json"
    cells.update(path, rows, lambda c: (c["at"],), part)
    cells.update(path, [rows[0]], lambda c: (c["at"],), part)
    assert cells.load(path) == sorted(rows, key=lambda c: c["at"])
    assert json.loads(path.read_text(encoding="utf-8"))["cells"] == cells.load(path)
    assert cells.load(tmp_path / "none.json") == []
