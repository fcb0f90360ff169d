"""The rematch of chapter 9: its grid, its verdicts, its file, and the recorded file of the book."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import rematch
from benchmarks.cells import Cell, describe, load
from benchmarks.rematch import GRIDS, METHODS, Grid

from spd_mini import Config, Schedule
from spd_mini.baselines import apd
from spd_mini.targets import PUBLISHED
from spd_mini.targets import tms as toy

PRESET = dataclasses.replace(toy.TMS_5_2, name="tms-5-2", train_steps=20)
TINY = Grid(
    apd.APDConfig(topk=0.5, steps=6, batch_size=32),
    Config(C=6, steps=6, batch_size=8, restarts=1, gate_hidden=4),
    {"apd": ((-0.25, 0.0), (0.0,)), "spd": ((0.0, 2.0), (0.0,))},
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GRIDS, "tms-5-2", TINY)
    monkeypatch.setitem(PUBLISHED, "tms-5-2", PRESET)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)


# The grid


@pytest.mark.parametrize("name", list(GRIDS))
def test_both_methods_have_equally_many_settings(name: str) -> None:
    grid = GRIDS[name]
    places = {m: grid.places(m) for m in METHODS}
    assert len(set(places["apd"])) == len(set(places["spd"])) == 15
    for m in METHODS:
        assert (0.0, 0.0) in places[m]
        settings = {json.dumps(describe(grid.setting(m, p))) for p in places[m]}
        assert len(settings) == 15


def test_settings_by_hand() -> None:
    """√2 times top-k and half the simplicity weight; 4 times β3 and twice p, on schedules too."""
    grid = GRIDS["tms-5-2"]
    a = grid.setting("apd", (0.5, -1.0), 50)
    assert isinstance(a, apd.APDConfig)
    assert (a.topk, a.simplicity_coeff, a.steps) == (0.298399, 0.35, 50)
    b = grid.setting("spd", (2.0, 1.0))
    assert isinstance(b, Config)
    assert (b.importance_coeff, b.p, b.steps) == (0.024, 2.0, toy.TMS_5_2.config.steps)
    large = GRIDS["tms-40-10"].setting("spd", (2.0, -1.0))
    assert isinstance(large, Config)
    assert large.importance_coeff == Schedule(1.2e-4, 1.6e-3, until=0.7, log=True)
    assert large.p == Schedule(1.0, 0.35, until=0.7)
    assert large.split_every == 0


def test_the_middle_comes_first() -> None:
    batches = rematch.batches(GRIDS["tms-5-2"])
    assert [(m, places[0][1]) for m, places in batches] == [
        *[("apd", 0), ("spd", 0)],
        *[("apd", -1), ("apd", 1), ("spd", -1), ("spd", 1)],
    ]
    assert all(len(places) == 5 for _, places in batches)
    assert rematch.batches(GRIDS["tms-5-2"], "spd", 1.0)[0][1][0] == (-2.0, 1.0)


# Verdicts


def test_separated_by_any_threshold() -> None:
    g = torch.tensor([[0.5, 0.0, 0.1], [0.2, 0.3, 0.0]])
    assert rematch.separated(g)
    g[1, 0] = 0.3
    assert not rematch.separated(g)  # a tie is no separation
    assert not rematch.separated(torch.tensor([[1.0], [0.0]]))  # one piece for two features
    assert not rematch.separated(torch.zeros(2, 2))
    assert rematch.separated(torch.tensor([[0.0, 2.0], [3.0, 0.0]]))


# A run of the harness, and its file


def cells_of(path: Path) -> list[Cell]:
    assert rematch.problems(load(path)) == []
    return load(path)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_a_tiny_grid_runs_and_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rematch.json"
    argv = ["tms-5-2", "--seeds", "1000:1002", "--data", str(path)]
    assert rematch.main([*argv, "--only", "spd"]) == 0
    first = cells_of(path)
    assert [(c["method"], c["octaves"]) for c in first] == [("spd", [0, 0]), ("spd", [2, 0])]
    assert rematch.main(argv) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in said] == ["spd", "spd", "apd", "apd"]
    cells = cells_of(path)
    assert cells[2:] == first  # not made again
    assert [c["values"] for c in cells] == [
        {"topk": 0.420448, "simplicity_coeff": 0.7},
        {"topk": 0.5, "simplicity_coeff": 0.7},
        {"importance_coeff": 3e-3, "p": 1.0},
        {"importance_coeff": 1.2e-2, "p": 1.0},
    ]
    assert [c["side_by_side"] for c in cells] == [4] * 4
    for cell in cells:
        assert [run["seed"] for run in cell["runs"]] == [1000, 1001]
        assert (cell["target_seed"], cell["steps"], cell["threads"]) == (1000, 6, 1)
        assert cell["torch"] == torch.__version__
    rematch.main([*argv, "--only", "apd", "--steps", "3", "--short", "0"])
    assert [c["steps"] for c in cells_of(path)] == [3, 3, 6, 6, 6, 6]
    rematch.main([*argv, "--only", "apd", "--seeds", "1000:1003"])  # one seed more: made again
    assert [len(c["runs"]) for c in cells_of(path)] == [2, 2, 3, 3, 2, 2]


@pytest.mark.usefixtures("tiny")
def test_a_cell_made_with_other_settings_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rematch.json"
    argv = ["tms-5-2", "--seeds", "1000", "--only", "apd", "--data", str(path)]
    rematch.main(argv)
    changed = dataclasses.replace(TINY, apd=dataclasses.replace(TINY.apd, p=0.9))
    monkeypatch.setitem(GRIDS, "tms-5-2", changed)
    assert rematch.problems(load(path)) == [
        "tms-5-2 apd [-0.25, 0.0]: made with other settings",
        "tms-5-2 apd [0.0, 0.0]: made with other settings",
    ]
    rematch.main(argv)
    assert [c["setting"]["p"] for c in cells_of(path)] == [0.9, 0.9]


def test_verdicts_of_an_exact_decomposition() -> None:
    """The triangle's columns, and the same a tenth shorter: only the strict verdict minds."""
    from test_apd import by_hand, exact, truth

    U, V = exact()
    for factor, strict in ((1.0, True), (0.9, False)):
        d = by_hand(factor * U, V)
        d.info, d.history = {"seed": 7}, {"total": [3.0, 2.0]}
        found = rematch.verdicts(d, truth())
        assert set(found) == rematch.RUN_KEYS
        assert (found["strict"], found["pattern"], found["separated"]) == (strict, True, True)
        assert (found["seed"], found["loss"], found["live"]) == (7, 2.0, 3)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experiment": "tms-9-9"}, "no grid has it"),
        ({"method": "svd"}, "no grid has it"),
        ({"octaves": [1.0, 0.0]}, "made with other settings"),
        ({"target_seed": 3}, "seeds start at 1000"),
        ({"side_by_side": 2, "runs": []}, "2 runs side by side"),
        ({"runs": [{"seed": 1000}]}, "a run has not the keys"),
        ({"seconds_a_run": 0.0}, "no time"),
        ({"seconds_a_run": math.inf}, "not finite"),
    ],
)
def test_what_is_wrong_with_a_cell_is_said(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "rematch.json"
    rematch.main(["tms-5-2", "--seeds", "1000", "--only", "apd", "--data", str(path)])
    cell = load(path)[0]
    assert rematch.problems([cell]) == []
    assert any(message in line for line in rematch.problems([cell | change]))
    assert any("twice" in line for line in rematch.problems([cell, cell]))
    del cell["torch"]
    assert any("lacks ['torch']" in line for line in rematch.problems([cell]))


@pytest.mark.usefixtures("tiny")
def test_verdicts_that_contradict_each_other(tmp_path: Path) -> None:
    path = tmp_path / "rematch.json"
    rematch.main(["tms-5-2", "--seeds", "1000", "--only", "apd", "--data", str(path)])
    (cell, *_) = load(path)
    cell["runs"][0] |= {"strict": True, "pattern": False}
    assert any("a stricter verdict holds" in line for line in rematch.problems([cell]))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--seeds", "0:3"], "seeds start at 1000"),
        (["--target-seeds", "5"], "seeds start at 1000"),
        (["--steps", "0"], "--steps must be ≥ 1, got 0"),
        (["--seeds", "many"], "'many' is not an integer seed"),
    ],
)
def test_bad_input(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert rematch.main(argv) == 2
    assert message in capsys.readouterr().err


# The file in the book


def test_the_recorded_file_is_well_formed() -> None:
    cells = load(rematch.DATA)
    assert rematch.problems(cells) == []
    full = [c for c in cells if c["steps"] == GRIDS[c["experiment"]].setting(
        c["method"], c["octaves"]
    ).steps]  # fmt: skip
    for name, grid in GRIDS.items():
        seeds = set()
        for method in METHODS:
            mine = [c for c in full if c["experiment"] == name and c["method"] == method]
            if mine or name == "tms-5-2":
                assert {tuple(c["octaves"]) for c in mine} == set(grid.places(method)), name
            seeds |= {tuple(r["seed"] for r in c["runs"]) for c in mine}
        assert len(seeds) == 1, f"{name}: both methods, all settings, the same seeds"


@pytest.mark.parametrize("name", list(GRIDS))
def test_the_budgets_of_the_recorded_grid(name: str) -> None:
    """Median CPU seconds a run: APD is not given less than SPD, nor three times as much."""
    cells = [c for c in load(rematch.DATA) if c["experiment"] == name]
    medians = {}
    for method in METHODS:
        steps = getattr(GRIDS[name], method).steps
        mine = sorted(
            c["seconds_a_run"] for c in cells if c["method"] == method and c["steps"] == steps
        )
        if not mine and name != "tms-5-2":
            pytest.skip(f"{method} is not recorded for {name} yet")
        assert mine, f"{method} is not recorded"
        medians[method] = mine[len(mine) // 2]
    assert 1 <= medians["apd"] / medians["spd"] < 3
