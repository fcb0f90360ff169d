"""The harness of chapter 13: its arms, what it notes of a run, its file, and the recorded file."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import coverage
from benchmarks.cells import Cell, load
from benchmarks.coverage import ARMS, Arm

import zoo
from spd_mini import Config
from spd_mini.targets import circuits, redundant
from zoo import constant_gates

TINY = Config(C=4, steps=4, batch_size=8, gate_hidden=2, faithfulness_warmup_steps=40)
PATHS = redundant.Preset("tiny", "either", TINY, n_features=2, n_hidden=2)
PAIRED = dataclasses.replace(circuits.CIRCUITS_PAIRED, config=TINY, n_features=6, n_hidden=3)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(ARMS):
        monkeypatch.delitem(ARMS, name)
    monkeypatch.setitem(ARMS, "plain", Arm(PATHS, octaves=(-1, 1)))
    monkeypatch.setitem(ARMS, "cut", Arm(PATHS, {"frequency_coeff": 0.5}, cut=0.5, octaves=(0,)))
    monkeypatch.setitem(ARMS, "peel", Arm(PATHS, rounds=2, octaves=(0,)))
    monkeypatch.setitem(ARMS, "paired", Arm(PAIRED, octaves=(0,)))
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)


# Arms and what is noted of a run


def test_settings_by_hand() -> None:
    """Eight prices from 1/64 to 16 times the preset's, nothing else but the remedy changed."""
    preset = redundant.REDUNDANT.config
    plain = [ARMS["plain"].setting(o).importance_coeff for o in ARMS["plain"].octaves]
    assert plain == [1.5625e-5, 6.25e-5, 2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 1.6e-2]
    assert ARMS["plain"].setting(0) == ARMS["cut"].setting(0) == preset
    for arm, name in (("frequency", "frequency_coeff"), ("adversary", "adversary_coeff")):
        setting = ARMS[arm].setting(0)
        assert getattr(setting, name) > 0
        without: dict[str, Any] = {name: 0.0}
        assert dataclasses.replace(setting, **without) == preset
    for arm in ("apart", "crowded", "paired", "paired-half", "paired-equal"):
        assert len(ARMS[arm].octaves) == 7
        assert ARMS[arm].setting(1) == ARMS["apart"].setting(1)


def by_hand(needs: redundant.Needs, second: float) -> Any:
    """Exact pieces; those of pathway 0 important everywhere, those of pathway 1 to a degree."""
    target = dataclasses.replace(PATHS, needs=needs).train(1)
    U = {f"paths.{p}": path.weight.detach() for p, path in enumerate(target.linears)}
    gates = {"paths.0": constant_gates([1.0, 1.0]), "paths.1": constant_gates([second] * 2)}
    d = zoo.by_hand(target, U, {n: torch.eye(2) for n in U}, gates)
    d.info |= {"seed": 7, "loss": 0.5}
    return d


X, WEIGHT = torch.tensor([[1.0, 0.0], [0.0, 0.5], [0.0, 0.0]]), torch.tensor([0.25, 0.25, 0.5])


def test_a_skipped_backup_by_hand() -> None:
    """No error under allowed masks, and none either without everything that is important."""
    run = coverage.judge(by_hand("either", 0.0), X, WEIGHT)
    assert set(run) == coverage.RUN_KEYS[True]
    assert run["coverage"] == [[1.0, 1.0], [0.0, 0.0]]
    assert (run["seed"], run["live"], run["recovered"]) == (7, [2, 0], False)
    assert (run["random"], run["important"], run["without"]) == (0.0, 0.0, 0.0)


def test_a_share_that_is_needed_by_hand() -> None:
    """With both needed, half the output goes with the second: a quarter of its square."""
    run = coverage.judge(by_hand("both", 0.0), X, WEIGHT)
    assert run["important"] == pytest.approx(0.25)
    assert 0 < run["random"] < 0.25
    assert run["without"] == pytest.approx(0.25), "the second half is left"
    assert coverage.judge(by_hand("both", 0.4), X, WEIGHT)["without"] == pytest.approx(1)


def test_the_share_lost_counts_rows_by_weight() -> None:
    """(0.25 · 1 + 0.25 · 0)/(0.25 · 1 + 0.25 · 0.25), means over two outputs cancelling."""
    out = torch.tensor([[0.0, 0.0], [0.0, 0.5], [0.0, 0.0]])
    assert coverage.share(out, X, WEIGHT) == pytest.approx(0.8)


# The harness, and its file


def cells_of(path: Path) -> list[Cell]:
    assert coverage.problems(load(path)) == []
    return load(path)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_a_tiny_grid_runs_and_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "coverage.json"
    argv = ["--seeds", "1000:1002", "--data", str(path)]
    assert coverage.main(["plain", *argv]) == 0
    first = cells_of(path)
    assert [(c["arm"], c["octave"], c["price"]) for c in first] == [
        *[("plain", -1, 1.5e-3), ("plain", 1, 6e-3)]
    ]
    assert [r["seed"] for r in first[0]["runs"]] == [1000, 1001]
    assert first[0]["side_by_side"] == 4
    assert coverage.main(argv) == 0
    cells = cells_of(path)
    assert cells[:2] == first, "not made again"
    assert [c["arm"] for c in cells] == ["plain", "plain", "cut", "peel", "paired"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 5
    assert "near-perfect" in said[0] and "skipped [" in said[0] and "of 4, " in said[0]
    assert "merged (line, pair, other) [(" in said[-1]
    assert cells[2]["made_by"]["cut"] == 0.5
    assert cells[2]["made_by"]["setting"]["frequency_coeff"] == 0.5
    monkeypatch.setitem(ARMS, "cut", Arm(PATHS, cut=0.25, octaves=(0,)))
    assert coverage.problems(cells) == ["cut 0: made with other settings"]
    coverage.main(["cut", *argv])
    assert cells_of(path)[2]["made_by"]["cut"] == 0.25


@pytest.mark.usefixtures("tiny")
def test_peeling_covers_at_least_what_one_round_does() -> None:
    """The second round decomposes what the first left, and its findings are added."""
    arm = Arm(dataclasses.replace(PATHS, config=dataclasses.replace(TINY, steps=1)))
    target, sample = arm.preset.train(1), PATHS.sampler()
    d = by_hand("either", 0.0)
    d.config = arm.setting(0)
    first = coverage.judge(d, X, WEIGHT)
    again = coverage.peel(d, first | {"seed": 1000}, sample, X, WEIGHT)
    assert again["coverage"][0] == [1.0, 1.0]
    assert set(again) == coverage.RUN_KEYS[True]
    left = coverage.emptied(d, X)
    torch.testing.assert_close(left(X), target(X))
    assert left.get_parameter("paths.0.weight").abs().max() < 1e-6


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arm": "other"}, "no grid has it"),
        ({"octave": 5}, "no grid has it"),
        ({"octave": 1}, "made with other settings"),
        ({"target_seed": 3}, "seeds start at 1000"),
        ({"side_by_side": 2, "runs": []}, "2 runs side by side"),
        ({"runs": [{"seed": 1000}]}, "a run has other keys than it should"),
        ({"seconds_a_run": 0.0}, "no time"),
        ({"seconds_a_run": math.inf}, "not finite"),
    ],
)
def test_what_is_wrong_with_a_cell_is_said(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "coverage.json"
    coverage.main(["plain", "--seeds", "1000", "--data", str(path)])
    cell = load(path)[0]
    assert coverage.problems([cell]) == []
    assert any(message in line for line in coverage.problems([cell | change]))
    assert any("twice" in line for line in coverage.problems([cell, cell]))
    cell["runs"][0]["coverage"][0][0] = 1.5
    assert any("outside [0, 1]" in line for line in coverage.problems([cell]))
    del cell["torch"]
    assert any("lacks ['torch']" in line for line in coverage.problems([cell]))


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--seeds", "0:3"], "seeds start at 1000"),
        (["--target-seed", "5"], "seeds start at 1000"),
        (["nothing"], "no arms ['nothing']; there are ['plain', 'cut', 'peel', 'paired']"),
        (["--seeds", "many"], "'many' is not an integer seed"),
    ],
)
def test_bad_input(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert coverage.main(argv) == 2
    assert message in capsys.readouterr().err


# The file in the book


def test_the_recorded_file_is_well_formed() -> None:
    cells = load(coverage.DATA)
    assert coverage.problems(cells) == []
    for name, arm in ARMS.items():
        mine = [c for c in cells if c["arm"] == name]
        assert [c["octave"] for c in mine] == list(arm.octaves), name
        assert {tuple(r["seed"] for r in c["runs"]) for c in mine} == {tuple(range(1000, 1005))}
