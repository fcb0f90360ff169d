"""The command line, on experiments small enough to run in a second."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from spd_mini import __main__ as cli
from spd_mini import __version__, load, sweep
from spd_mini.targets import EXPERIMENTS, tms

TINY = dataclasses.replace(
    tms.TMS_5_2_ID,
    name="tiny",
    n_features=3,
    train_steps=10,
    train_restarts=2,
    config=dataclasses.replace(
        tms.TMS_5_2.config, C=4, steps=20, batch_size=8, faithfulness_warmup_steps=5, restarts=2
    ),
    paper_config=dataclasses.replace(tms.TMS_5_2.paper_config, C=4, steps=6, batch_size=8),
)

# DESIGN, section 3: what each row of `run --json` holds.
KEYS = {
    "experiment",
    "seed",
    "target_seed",
    "device",
    "threads",
    "steps",
    "target_seconds",
    "decompose_seconds",
    "recovered",
    "reasons",
    "identity_errors",
    "dense_errors",
    "live",
    "mmcs",
    "mmcs_null",
    "ml2r",
    "faithfulness_relative",
    "recon",
}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(EXPERIMENTS, "tiny", TINY)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = cli.main(argv)
    out, err = capsys.readouterr()
    return status, out, err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "list")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == list(EXPERIMENTS)
    assert "5 features in 2 dimensions" in out


def test_run_gives_a_row_for_each_seed(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(
        capsys, "run", "tiny", "--seeds", "3:5", "--device", "cpu", "--json", "-"
    )
    assert status == 0
    rows = json.loads(out)
    assert [r["seed"] for r in rows] == [3, 4]
    for row in rows:
        assert row.keys() >= KEYS
        assert (row["experiment"], row["target_seed"], row["device"]) == ("tiny", 0, "cpu")
        assert (row["steps"], row["threads"], row["finished"]) == (20, 1, True)
        assert row["decompose_seconds"] > 0
        assert row["recovered"] == (row["reasons"] == [])
        assert row["identity_errors"].keys() == {"encoder", "decoder"}
        assert row["dense_errors"].keys() == {"hidden"}
        assert len(row["restart_losses"]) == row["restarts"] == row["target_restarts"] == 2
    assert "tiny seed 3 target 0:" in err
    assert f"tiny: {sum(r['recovered'] for r in rows)} of 2 recovered" in err


def test_without_json_nothing_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "run", "tiny")
    assert (status, out) == (0, "")
    assert "tiny seed 0 target 0" in err


def test_results_repeat_over_processes_of_one_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """The same seeds give the same numbers, whatever ran before them; repeats are allowed."""
    _, out, _ = run(capsys, "run", "tiny", "--seeds", "7,2,7", "--json", "-")
    first, other, again = json.loads(out)
    timing = {"target_seconds", "decompose_seconds", "decompose_wall_seconds"}
    strip = [{k: v for k, v in row.items() if k not in timing} for row in (first, other, again)]
    assert strip[0] == strip[2]
    assert strip[0] != strip[1]


def test_json_file_and_saved_decompositions(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file, folder = tmp_path / "new" / "r.json", tmp_path / "saved"
    argv = ["run", "tiny", "--seeds", "1,4", "--target-seed", "same", "--device", "cpu"]
    status, out, _ = run(capsys, *argv, "--json", str(file), "--save", str(folder))
    assert (status, out) == (0, "")
    rows = json.loads(file.read_text())
    assert [(r["seed"], r["target_seed"]) for r in rows] == [(1, 1), (4, 4)]
    assert os.listdir(file.parent) == ["r.json"]
    assert sorted(os.listdir(folder)) == ["tiny-seed1.safetensors", "tiny-seed4.safetensors"]
    d = load(folder / "tiny-seed4.safetensors")
    assert (d.info["seed"], d.finished) == (4, True)


def test_the_papers_settings(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "run", "tiny", "--paper", "--json", "-")
    (row,) = json.loads(out)
    assert (row["steps"], row["restarts"], row["paper_settings"]) == (6, 1, True)


def test_ctrl_c_ends_the_whole_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """sweep returns what it has; the seeds that have not begun must not begin."""

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        ds = sweep(*args, **kwargs)
        for d in ds:
            d.info["finished"] = False
        return ds

    monkeypatch.setattr(cli, "sweep", interrupted)
    _, out, _ = run(capsys, "run", "tiny", "--seeds", "0:5", "--json", "-")
    (row,) = json.loads(out)
    assert (row["seed"], row["finished"]) == (0, False)


def test_bench(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "bench", "tiny", "--steps", "3", "--device", "cpu", "--json", "-")
    assert status == 0
    (row,) = json.loads(out)
    assert (row["experiment"], row["device"], row["batch_size"]) == ("tiny", "cpu", 8)
    assert 0 < row["ms_per_step_min"] <= row["ms_per_step_median"]
    assert row["projected_seconds"] == pytest.approx(row["ms_per_step_median"] * 20 / 1e3)


@pytest.mark.slow
def test_bench_takes_all_experiments_by_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(EXPERIMENTS):
        monkeypatch.setitem(EXPERIMENTS, name, dataclasses.replace(TINY, name=name))
    _, out, _ = run(capsys, "bench", "--steps", "1", "--json", "-")
    assert [row["experiment"] for row in json.loads(out)] == list(EXPERIMENTS)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["run", "tms-9-9"], "unknown experiment 'tms-9-9'; there are ['tms-5-2', 'tms-5-2-id'"),
        (["bench", "tms-9-9"], "unknown experiment 'tms-9-9'"),
        (["run", "tiny", "--seeds", "x"], "'x' is not an integer seed"),
        (["run", "tiny", "--seeds", ""], "'' is not an integer seed"),
        (["run", "tiny", "--seeds", "0:1:2"], "'1:2' is not an integer seed"),
        (["run", "tiny", "--seeds", "5:5"], "--seeds needs at least one seed ≥ 0"),
        (["run", "tiny", "--seeds=-2:1"], "--seeds needs at least one seed ≥ 0, such as 0:10; got"),
        (["run", "tiny", "--target-seed", "y"], "'y' is not an integer seed"),
        (["run", "tiny", "--threads", "0"], "--threads must be ≥ 1, got 0"),
        (["run", "tiny", "--device", "cuda:99"], "device 'cuda:99' is not there"),
        (["run", "tiny", "--device", "abacus"], "device 'abacus' is not there"),
        (["bench", "tiny", "--steps", "0"], "--steps must be ≥ 1, got 0"),
    ],
)
def test_bad_input_is_one_clear_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, *argv)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(f"error: {message}")


def test_results_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    status, _, err = run(capsys, "run", "tiny", "--json", str(blocked / "r.json"))
    assert status == 2
    assert err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("argv", [[], ["dance"], ["run"], ["run", "tiny", "--threads", "many"]])
def test_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 2
    assert "usage: python -m spd_mini" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("7", [7]), ("0,3", [0, 3]), ("0:3", [0, 1, 2]), ("1000:1002", [1000, 1001])],
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert cli.parse_seeds(text) == seeds


@pytest.mark.slow
def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "spd_mini", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == __version__
