"""The results ledger: its statistics by hand, its file, its page, and the ledger of the book."""

import dataclasses
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from benchmarks import compare_authors, ledger, ledger_data, ledger_page
from benchmarks.ledger_data import PLAN, PRESETS, Data

from spd_mini import Config, Schedule
from spd_mini.recovery import Identity
from spd_mini.targets import PUBLISHED

ROOT = Path(__file__).resolve().parent.parent


# Made-up results


def matrices(name: str) -> tuple[dict[str, int], dict[str, int]]:
    """Names of an experiment's matrices with what is to be found: one each, and together."""
    preset = PRESETS[name]
    if name.startswith("tms"):
        hidden = {"hidden": preset.n_hidden} if preset.identity else {}
        return dict.fromkeys(("encoder", "decoder"), preset.n_features), hidden
    layers = range(preset.n_layers)
    return (
        {f"layers.{i}.W_in": preset.n_features for i in layers},
        {f"layers.{i}.W_out": preset.d_mlp for i in layers},
    )


def a_run(name: str, seed: int, **different: Any) -> dict[str, Any]:
    """A good run's row, made by the preset as it stands."""
    each, together = matrices(name)
    tms = name.startswith("tms")
    return {
        "experiment": name,
        "seed": seed,
        "target_seed": seed,
        "device": "cpu",
        "threads": 1,
        "steps": 1500,
        "paper_settings": False,
        "finished": True,
        "restarts": 3,
        "target_seconds": 1.0,
        "decompose_seconds": 0.8 * PLAN[name].aim_seconds + seed % 10,
        "decompose_wall_seconds": 2.0,
        "recovered": True,
        "reasons": [],
        "identity_errors": dict.fromkeys(each, 0),
        "dense_errors": dict.fromkeys(together, 0),
        "live": each | together,
        "mmcs": 1.0 if tms else None,
        "mmcs_null": 0.99 if tms else None,
        "ml2r": 0.999 if tms else None,
        "contribution_r": None if tms else 0.999,
        "contribution_slope": None if tms else 1.02,
        "faithfulness_relative": dict.fromkeys(each | together, 0.004),
        "recon": 1e-4,
        "preset": ledger_data.key_of(ledger_data.describe(PRESETS[name])),
        "at_once": 2,
        "cpu": "An abacus",
        "cores": 2,
        "gpu": None,
        "torch": "2.13.0",
        "python": "3.11.7",
        "date": "2026-01-02",
        "commit": "0123456789",
    } | different


def a_comparison(name: str) -> dict[str, Any]:
    """A row of compare_authors.py: theirs 10 ms, ours 4 (and 2 with each shortcut)."""
    sides = ["plain", "no_zero_rows"]
    if name.startswith("resid"):
        sides += [f"{side}_shortcuts" for side in sides]
    steps = {"authors": 10.0, **{side: 4.0 / (1 + i) for i, side in enumerate(sides)}}
    return {
        "experiment": name,
        "threads": 1,
        "rounds": 5,
        "steps_per_round": 15,
        **ledger_data.paper_settings(name),
        "ms_per_step": steps,
        "authors_over_ours": {side: 10 / steps[side] for side in sides},
        "projected_hours": {side: ms / 100 for side, ms in steps.items()},
        "peak_mib": dict.fromkeys(steps, 123.0),
        "cpu": "An abacus",
        "cores": 2,
        "gpu": None,
        "torch": "2.13.0",
        "python": "3.11.7",
        "date": "2026-01-05",
        "commit": "0123456789+",
    }


def with_presets(*runs: dict[str, Any], side_by_side: tuple[str, ...] = ()) -> Data:
    """A ledger of these runs."""
    described = [ledger_data.describe(PRESETS[run["experiment"]]) for run in runs]
    return {
        "presets": {ledger_data.key_of(d): d for d in described},
        "runs": list(runs),
        "side_by_side": [a_comparison(name) for name in side_by_side],
    }


FAILED = {"recovered": False, "reasons": ["encoder: 3 wrong entries in the identity pattern"]}


def a_full_ledger() -> Data:
    """Every planned run; every tenth one failed."""
    runs = [
        a_run(name, seed, **(FAILED if seed % 10 == 3 else {}))
        for name, plan in PLAN.items()
        for seed in plan.seeds
    ]
    return with_presets(*runs, side_by_side=tuple(PUBLISHED))


EMPTY: Data = {"presets": {}, "runs": [], "side_by_side": []}


# Statistics


def test_wilson_by_hand() -> None:
    """Without failures the lower end is n / (n + z²); at one half the middle is one half."""
    z2 = 1.959964**2
    assert ledger_page.wilson(20, 20) == pytest.approx((20 / (20 + z2), 1.0))
    assert ledger_page.wilson(0, 10) == pytest.approx((0.0, z2 / (10 + z2)))
    assert ledger_page.wilson(10, 20) == pytest.approx((0.29930, 0.70070), abs=1e-5)
    assert ledger_page.wilson(19, 20) == pytest.approx((0.76387, 0.99112), abs=1e-5)


def test_wilson_solves_its_equation() -> None:
    """Both ends p satisfy |k/n − p| = z √(p (1 − p) / n): the definition of the interval."""
    for n in (1, 7, 20):
        for k in range(n + 1):
            for p in ledger_page.wilson(k, n):
                assert abs(k / n - p) == pytest.approx(1.959964 * (p * (1 - p) / n) ** 0.5)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_needs_trials(k: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"needs 0 ≤ successes ≤ n and n ≥ 1, got {k} of {n}"):
        ledger_page.wilson(k, n)


def test_summaries_by_hand() -> None:
    assert ledger_page.mean_sd([1.0, 2.0, 3.0]) == "2.000 ± 1.000"
    assert ledger_page.mean_sd([1.0, 1.5], 1) == "1.2 ± 0.4"
    assert ledger_page.mean_sd([0.99366]) == "0.994"
    assert ledger_page.middle_and_range([3.0, 1.0, 20.0]) == "3.00 (1.00–20.0)"
    assert ledger_page.middle_and_range([4.0]) == "4.00"
    assert ledger_page.among([5, 5]) == "5"
    assert ledger_page.among([6, 4, 5]) == "4–6"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.01234, "0.0123"), (9.876, "9.88"), (98.76, "98.8"), (12345.6, "12,346")],
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert ledger_page.significant(value) == text


# Presets


def test_a_description_tells_presets_apart() -> None:
    """Every experiment has its own; it survives JSON; the paper's settings are not in it."""
    described = {name: ledger_data.describe(preset) for name, preset in PUBLISHED.items()}
    assert len({ledger_data.key_of(d) for d in described.values()}) == len(PUBLISHED)
    for name, description in described.items():
        again = json.loads(json.dumps(description))
        assert ledger_data.key_of(again) == ledger_data.key_of(description)
        assert ledger_data.changes(again, PUBLISHED[name]) == []
    preset = PUBLISHED["tms-5-2"]
    other = dataclasses.replace(preset, paper_config=Config(steps=7))
    assert ledger_data.describe(other) == ledger_data.describe(preset)


def test_the_hash_by_hand() -> None:
    """SHA-256 of '{"a": 1}', as sha256sum gives it."""
    assert ledger_data.key_of({"a": 1}) == "f9d86028c6e0d64e"


def test_changes_name_the_setting() -> None:
    preset: Any = PUBLISHED["tms-40-10"]
    config = Config(lr=0.04, p=Schedule(2.0, 1.0, until=0.6))
    preset = dataclasses.replace(preset, config=config, train_rows=512)
    then = ledger_data.describe(preset)
    config = dataclasses.replace(config, lr=0.5, p=Schedule(2.0, 1.5))
    changed = ledger_data.changes(then, dataclasses.replace(preset, config=config, train_rows=7))
    assert changed == [
        "config.lr was 0.04, is 0.5",
        "config.p was [['start', 2.0], ['end', 1.0], ['until', 0.6], ['log', False]], is "
        "[['start', 2.0], ['end', 1.5], ['until', 1.0], ['log', False]]",
        "train_rows was 512, is 7",
    ]


def test_the_order_of_patterns_counts() -> None:
    """The first pattern that matches wins: "*" first would leave "hidden" without a say."""
    first, turned = (
        dataclasses.replace(PUBLISHED["tms-5-2-id"], config=Config(C=C))
        for C in ({"hidden": 20, "*": 40}, {"*": 40, "hidden": 20})
    )
    assert ledger_data.changes(ledger_data.describe(first), turned) == [
        "config.C was [['hidden', 20], ['*', 40]], is [['*', 40], ['hidden', 20]]"
    ]


def test_a_new_setting_changes_nothing_while_it_is_at_its_default() -> None:
    standing: Any = PUBLISHED["tms-5-2"]
    preset = dataclasses.replace(standing, config=Config(), train_restarts=8)
    then = ledger_data.describe(preset)
    del then["config.frequency_coeff"], then["train_restarts"]  # as if they had not been there
    assert ledger_data.changes(then, preset) == []
    on = dataclasses.replace(
        preset, config=dataclasses.replace(preset.config, frequency_coeff=2.0), train_restarts=9
    )
    assert ledger_data.changes(then, on) == [
        "config.frequency_coeff is new, 2.0",
        "train_restarts is new, 9",
    ]
    del then["n_features"]  # a field without a default is never taken for granted
    assert ledger_data.changes(then | {"gone": 1}, preset) == [
        "gone is no setting any more",
        "n_features is new, 5",
    ]


# The file


def test_a_file_reads_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    assert ledger_data.load(path) == EMPTY
    for data in (EMPTY, a_full_ledger()):
        path.write_text(ledger_data.dump(data), encoding="utf-8")
        assert ledger_data.load(path) == data
    lines = path.read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith('  {"experiment": "tms-5-2",') for line in lines) == 21


@pytest.mark.parametrize("text", ["[]", "{}", '{"runs": [], "walks": []}'])
def test_another_file_is_no_ledger(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json is no ledger: it may have \['presets'"):
        ledger_data.load(path)


def test_merging_keeps_order_and_the_newer_run() -> None:
    old = with_presets(a_run("tms-5-2", 1001), a_run("tms-5-2", 1003), side_by_side=("tms-40-10",))
    gpu = a_run("tms-5-2", 1003, device="cuda")
    newer = a_run("tms-5-2", 1003, recon=7.0)
    new = with_presets(newer, gpu, a_run("tms-5-2", 1002), side_by_side=("tms-5-2",))
    both = ledger_data.merge(old, new)
    assert [(r["seed"], r["device"]) for r in both["runs"]] == [
        (1001, "cpu"),
        (1002, "cpu"),
        (1003, "cpu"),
        (1003, "cuda"),
    ]
    assert both["runs"][2] == newer
    assert [row["experiment"] for row in both["side_by_side"]] == ["tms-5-2", "tms-40-10"]


STEPS = PUBLISHED["tms-5-2"].config.steps
EARLIER = f"tms-5-2 seed 1000: made by another preset (config.steps was {2 * STEPS}, is {STEPS})"


def by_an_earlier_preset(name: str, seed: int) -> Data:
    """A ledger with one run at twice the steps."""
    preset = PUBLISHED[name]
    longer = dataclasses.replace(preset.config, steps=2 * preset.config.steps)
    description = ledger_data.describe(dataclasses.replace(preset, config=longer))
    key = ledger_data.key_of(description)
    return {**EMPTY, "presets": {key: description}, "runs": [a_run(name, seed, preset=key)]}


def test_runs_of_an_earlier_preset_go_when_the_experiment_is_run_again() -> None:
    data = ledger_data.merge(
        by_an_earlier_preset("tms-5-2", 1000), by_an_earlier_preset("tms-40-10", 1000)
    )
    assert len(data["runs"]) == len(data["presets"]) == 2
    data = ledger_data.merge(data, with_presets(a_run("tms-40-10", 1001)))
    assert [(r["experiment"], r["seed"]) for r in data["runs"]] == [
        ("tms-5-2", 1000),  # hours of work are not thrown away unasked
        ("tms-40-10", 1001),
    ]
    assert len(data["presets"]) == 2
    assert [ledger_data.is_current(data, run) for run in data["runs"]] == [False, True]


def test_several_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    seeds = range(1000, 1016)

    def write(seed: int) -> None:
        ledger_data.update(path, with_presets(a_run("tms-5-2", seed)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, seeds))
    assert [run["seed"] for run in ledger_data.load(path)["runs"]] == list(seeds)
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.json"]


# What must hold


def test_a_full_ledger_has_no_problems() -> None:
    assert ledger_data.problems(a_full_ledger()) == []
    ledger_data.check(a_full_ledger())


def corrupt(key: str, value: Any) -> Callable[[Data], None]:
    def change(data: Data) -> None:
        data["runs"][0][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["runs"][0].pop("recon"), "tms-5-2 seed 1000: lacks ['recon']"),
        (lambda data: data["runs"].append(data["runs"][0]), "tms-5-2 seed 1000: twice"),
        (corrupt("experiment", "tms-9-9"), "tms-9-9 seed 1000: not an experiment of the ledger"),
        (corrupt("seed", 7), "tms-5-2 seed 7: seeds start at 1000"),
        (corrupt("target_seed", 0), "tms-5-2 seed 1000: the target has seed 0"),
        (corrupt("finished", False), "seed 1000: not a finished run of our own settings"),
        (corrupt("paper_settings", True), "seed 1000: not a finished run of our own settings"),
        (corrupt("recovered", False), "recovered without reasons against it, or the reverse"),
        (corrupt("live", {"encoder": float("nan")}), "seed 1000: a number is not finite"),
        (corrupt("preset", "0" * 16), "tms-5-2 seed 1000: no preset with its hash"),
        (lambda data: data["side_by_side"][0].pop("C"), "side by side, tms-5-2: lacks ['C']"),
        (
            lambda data: data["side_by_side"][0].update(experiment="tms-9-9"),
            "side by side, tms-9-9: not an experiment of the ledger",
        ),
        (
            lambda data: data["side_by_side"][0]["ms_per_step"].update(plain=-1.0),
            "side by side, tms-5-2: a number is negative or not finite",
        ),
        (
            lambda data: data["side_by_side"][0].update(batch_size=8, paper_steps=9),
            "side by side, tms-5-2: not made with the paper's batch_size, paper_steps",
        ),
    ],
)
def test_problems_are_found(change: Callable[[Data], None], message: str) -> None:
    data = with_presets(a_run("tms-5-2", 1000), side_by_side=("tms-5-2",))
    change(data)
    found = ledger_data.problems(data)
    assert [message in line for line in found].count(True) == 1, found
    with pytest.raises(ValueError, match=re.escape(message)):
        ledger_data.check(data)


def test_a_changed_description_loses_its_hash() -> None:
    data = with_presets(a_run("tms-5-2", 1000))
    next(iter(data["presets"].values()))["config.lr"] = 1.0
    assert ledger_data.problems(data) == ["tms-5-2 seed 1000: no preset with its hash"]


def test_a_changed_preset_makes_the_ledger_fail() -> None:
    data = ledger_data.merge(
        with_presets(*(a_run("tms-40-10", s) for s in range(1000, 1005))), EMPTY
    )
    data = ledger_data.merge(data, by_an_earlier_preset("tms-5-2", 1000))
    assert ledger_data.problems(data) == [EARLIER]
    several = {**data, "runs": [{**run, "recon": float("inf")} for run in data["runs"]]}
    with pytest.raises(
        ValueError, match=r"not finite; tms-5-2 seed 1000: made by .*\(and 4 more\)"
    ):
        ledger_data.check(several)


def test_the_plan_is_for_every_experiment_and_for_seeds_that_were_not_tuned_on() -> None:
    assert set(ledger_data.AIMS) == set(PUBLISHED)
    assert list(PLAN) == list(PRESETS)
    for name, plan in PLAN.items():
        assert min(plan.seeds) >= 1000
        slow_twin = name in ("resid-mlp-2-gradient", "resid-mlp-3-gradient")
        assert len(plan.seeds) >= (20 if name.startswith("tms") else 3 if slow_twin else 10)


def test_an_experiment_with_discrete_moves_has_a_twin_without() -> None:
    plain: Any = PUBLISHED["tms-5-2"]
    plain = dataclasses.replace(plain, config=Config(split_every={"encoder": 0}))
    split = dataclasses.replace(
        plain,
        config=Config(steps=70, split_every={"encoder": 0, "*": 50}, prune_at=0.5, birth_from=0.6),
        name="b",
    )
    both = ledger_data.with_twins({"tms-5-2": plain, "b": split, "c": plain})
    assert list(both) == ["tms-5-2", "b", "b-gradient", "c"]
    assert (both["b"], both["b-gradient"].name) == (split, "b-gradient")
    assert both["b-gradient"].config == Config(steps=70)
    assert [n for n in PRESETS if n.endswith("-gradient")] == [
        f"{n}-gradient"
        for n, preset in PUBLISHED.items()
        if ledger_data.moves(preset.config.split_every, preset.config.prune_at)
    ]


# Running


def fake_run(name: str, seed: int, device: str, jobs: int) -> Data:
    """In place of a process: seed 1001 is not recovered, seed 1002 ends with an error."""
    if seed == 1002:
        raise ledger.RunError(f"{name} seed {seed}: loss term 'recon' is not finite")
    verdict = FAILED if seed == 1001 else {}
    return with_presets(a_run(name, seed, device=device, at_once=jobs, **verdict))


WROTE = [f"wrote appendix_{name}" for name in ("ledger.md", "ledger.svg", "sweeps.md")]


def run_ledger(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, list[str]]:
    status = ledger.main(argv)
    out, err = capsys.readouterr()
    assert out == ""
    return status, err.splitlines()


@pytest.mark.slow
def test_runs_are_written_one_by_one_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ledger, "run_seed", fake_run)
    path = tmp_path / "ledger.json"
    argv = ["tms-5-2", "--data", str(path), "--seeds"]
    status, said = run_ledger(capsys, *argv, "1000:1002")
    assert status == 0
    assert said[0] == "2 runs to make; results go into ledger.json one by one"
    assert sorted(line[4:] for line in said[1:3]) == [
        "tms-5-2 seed 1000: 6.4 s, recovered",
        "tms-5-2 seed 1001: 7.4 s, encoder: 3 wrong entries in the identity pattern",
    ]
    assert said[3:] == WROTE
    data = ledger_data.load(path)
    assert ledger_data.problems(data) == []
    assert [(run["seed"], run["at_once"]) for run in data["runs"]] == [(1000, 1), (1001, 1)]
    assert (tmp_path / "appendix_ledger.md").read_text() == ledger_page.render(data)

    status, said = run_ledger(capsys, *argv, "1000:1004", "--jobs", "2")
    assert (status, said[0].split(";")[0]) == (1, "2 runs to make")
    assert any("tms-5-2 seed 1002: loss term 'recon' is not finite" in line for line in said)
    assert said[-1] == "1 of 2 runs ended without a result"
    assert [run["seed"] for run in ledger_data.load(path)["runs"]] == [1000, 1001, 1003]


@pytest.mark.slow
def test_everything_planned_is_run_and_runs_of_an_earlier_preset_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    todo = ledger.to_do(by_an_earlier_preset("tms-5-2", 1000), list(PLAN), None, "cpu")
    assert todo == [(name, seed) for name, plan in PLAN.items() for seed in plan.seeds]
    once = with_presets(a_run("resid-mlp-3", 1009))
    assert len(ledger.to_do(once, list(PLAN), None, "cpu")) == len(todo) - 1
    assert len(ledger.to_do(once, list(PLAN), None, "cuda")) == len(todo)

    monkeypatch.setattr(ledger, "run_seed", fake_run)
    path = tmp_path / "ledger.json"
    ledger_data.update(path, by_an_earlier_preset("tms-5-2", 1009))
    status, _ = run_ledger(capsys, "tms-5-2", "--data", str(path), "--seeds", "1000:1001")
    assert (status, [run["seed"] for run in ledger_data.load(path)["runs"]]) == (0, [1000])


def test_ctrl_c_begins_nothing_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []

    def interrupted(name: str, seed: int, device: str, jobs: int) -> Data:
        begun.append(seed)
        time.sleep(0.05 * (len(begun) > 1))  # a run takes time: there is some to call the rest off
        raise KeyboardInterrupt

    monkeypatch.setattr(ledger, "run_seed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ledger.run_all([("tms-5-2", s) for s in range(1000, 1500)], "cpu", 1, tmp_path / "l.json")
    assert len(begun) < 500


@pytest.mark.slow
def test_a_run_that_ends_badly_says_why() -> None:
    with pytest.raises(ledger.RunError, match="tms-9-9 seed 3: error: unknown experiments"):
        ledger.run_seed("tms-9-9", 3, "cpu", 1)


@pytest.mark.parametrize(
    ("status", "run", "said"), [(1, {}, "status 1"), (0, {"finished": False}, "interrupted")]
)
def test_a_run_without_a_result(
    status: int, run: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = json.dumps({"runs": [run]})
    done = subprocess.CompletedProcess([], status, stdout=out, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: done)
    with pytest.raises(ledger.RunError, match=f"tms-5-2 seed 1000: {said}"):
        ledger.run_seed("tms-5-2", 1000, "cpu", 1)


def test_the_command_line_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "command_line", lambda argv: 2)
    with pytest.raises(SystemExit, match="2"):
        ledger.one("tms-5-2", 1000, "cpu", 1)


@pytest.mark.slow
def test_a_real_run_makes_a_good_entry() -> None:
    data = ledger.run_seed("tms-5-2", 1000, "cpu", 2)
    assert ledger_data.problems(data) == []
    (run,) = data["runs"]
    assert (run["experiment"], run["seed"], run["target_seed"]) == ("tms-5-2", 1000, 1000)
    assert (run["threads"], run["at_once"], run["device"], run["gpu"]) == (1, 2, "cpu", None)
    assert re.fullmatch(r"([0-9a-f]{10}|unknown)\+?", run["commit"])
    assert "- `tms-5-2`: 1 of 20 seeds so far" in ledger_page.render(data)


@pytest.mark.slow
def test_results_made_elsewhere_are_taken_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, runs, compared = (tmp_path / n for n in ("ledger.json", "runs.json", "compared.json"))
    runs.write_text(ledger_data.dump(with_presets(a_run("tms-5-2", 1000, device="cuda"))))
    compared.write_text(json.dumps({"side_by_side": [a_comparison("tms-5-2")]}))
    argv = ["--merge", str(runs), str(compared), "--data", str(path)]
    assert run_ledger(capsys, *argv)[0] == 0
    data = ledger_data.load(path)
    assert (len(data["runs"]), len(data["side_by_side"])) == (1, 1)
    assert run_ledger(capsys, "--only-render", "--data", str(path)) == (
        0,
        WROTE,
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["tms-9-9"], "unknown experiments ['tms-9-9']; the ledger has ['tms-5-2', "),
        (["--seeds", "0:10"], "the ledger's seeds start at 1000; smaller ones served tuning"),
        (["--seeds", "x"], "'x' is not an integer seed"),
        (["--jobs", "0"], "--jobs must be ≥ 1, got 0"),
        (["--merge", "nowhere.json"], "nowhere.json is not there"),
        (["--only-render"], EARLIER),
    ],
)
def test_bad_input_is_one_clear_line(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ledger.json"
    ledger_data.update(path, by_an_earlier_preset("tms-5-2", 1000))
    status, (line,) = run_ledger(capsys, *argv, "--data", str(path))
    assert status == 2
    assert line.startswith(f"error: {message}")


# The page


def cells(text: str, first: str) -> list[list[str]]:
    """Cells of all table rows that begin with this cell, with ordinary spaces."""
    text = text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{WORD JOINER}", "")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [row[1:] for row in rows if row[0] == first]


def test_the_page_says_what_the_data_say() -> None:
    text = ledger_page.render(a_full_ledger())
    assert "not yet run" not in text and "so far" not in text
    total = sum(len(plan.seeds) for plan in PLAN.values())
    assert f"This appendix counts: {total} runs" in text
    success, mmcs, ml2r, *pieces, quality, step, memory, whole = cells(text, "`tms-40-10-id`")
    assert success == ["18 of 20", "1000–1019", "70–97 %", "≥ 19", "40.5 (36.0–45.0)", "≤ 45", "3"]
    assert "a median\nof 1.00 to 1.00 seconds" in text
    assert mmcs == ["MMCS", "0.990", "–", "1.000", "1.000 ± 0.000"]
    assert ml2r == ["ML2R", "–", "–", "1.031 ± 0.001", "0.999 ± 0.000"]
    config = PUBLISHED["tms-40-10-id"].config
    offered = [str(config.C_of(matrix)) for matrix in ("encoder", "decoder", "hidden")]
    assert pieces == [
        ["`encoder`", "40, one each", offered[0], "40", "20 of 20"],
        ["`decoder`", "40, one each", offered[1], "40", "20 of 20"],
        ["`hidden`", "10, together", offered[2], "10", "20 of 20"],
    ]
    assert quality == ["0.0040", "≤ 0.01", "–", "–"]
    assert step == ["10.0", "4.00 (2.5×)", "2.00 (5.0×)", "–", "–"]
    assert memory == ["123", "123", "123", "–", "–"]
    assert whole == ["40,000", "4096, 200, 16", "6.00 min", "2.40 min", "72.0 s", "40.5 s"]
    quality, step, memory, whole = cells(text, "`resid-mlp-3`")[-4:]
    assert quality == ["0.0040", "≤ 0.02", "0.9990 ± 0.0000", "1.020 ± 0.000"]
    assert step[1:] == ["4.00 (2.5×)", "2.00 (5.0×)", "1.33 (7.5×)", "1.00 (10.0×)"]
    assert whole[-2:] == ["36.0 s", "8.07 min"]
    assert "- `resid-mlp-3`, seed 1003: encoder: 3 wrong entries" in text
    assert text.count("wrong entries in the identity pattern") == total // 10
    assert "takes 2.5 to 2.5 times as long" in text
    machine = "An abacus, 2 cores; torch 2.13.0, Python 3.11.7"
    assert f"- {total} runs, 2 at a time: {machine}; 2026-01-02; commit `0123456789`\n" in text
    assert f"- 7 comparisons: {machine}; 2026-01-05; commit `0123456789+`\n" in text


@pytest.mark.parametrize("name", list(PLAN))
def test_the_page_expects_what_the_verdict_expects(name: str) -> None:
    """Counts and bounds on the page are those of the target's own truth."""
    text = ledger_page.render(with_presets(a_run(name, 1000)))
    truth = compare_authors.untrained(PRESETS[name]).truth()
    *_, quality = cells(text, f"`{name}`")
    assert quality[1] == f"≤ {truth.max_faithfulness}"
    expected = {f"`{matrix}`": pattern for matrix, pattern in truth.patterns.items()}
    shown = {row[0]: row[1] for row in cells(text, f"`{name}`") if row[0] in expected}
    assert shown == {
        matrix: f"{p.n}, one each" if isinstance(p, Identity) else f"{p.k}, together"
        for matrix, p in expected.items()
    }


def test_the_page_says_how_subcomponents_move_and_on_what_data() -> None:
    data = with_presets(a_run("tms-5-2", 1000), a_run("tms-40-10", 1000))
    first, second = data["presets"].values()
    first |= {"config.split_every": 0, "spd_feature_probability": None}
    second |= {"config.split_every": [["*", 0]], "spd_feature_probability": None}
    second["config.prune_at"] = 0.0
    assert "gradient descent alone.\n" in ledger_page.render(data)
    second |= {"config.split_every": [["hidden", 0], ["*", 50]], "spd_feature_probability": 0.01}
    text = ledger_page.render(data)
    assert "In `tms-40-10` shared subcomponents are split now and then: discrete moves." in text
    assert "In `tms-40-10`, features are on more rarely during the decomposition" in text
    first["config.split_every"] = 50
    first["config.prune_at"] = [["hidden", 0.0], ["*", 0.5]]
    text = ledger_page.render(data)
    assert "In `tms-5-2`, `tms-40-10` shared subcomponents are split now and then, in " in text
    assert "in `tms-5-2` dead ones are removed once and doubles merged: discrete moves." in text
    first["config.prune_at"] = 0.5
    text = ledger_page.render(data)
    assert "merged, in `tms-5-2` pieces that act together are made as many as the " in text


def test_numbers_do_not_break_over_lines() -> None:
    text = ledger_page.table(["a b", "c d"], [["e f", "1.0 (0–2)"]])
    assert text == "| a b | c d |\n| --- | ---: |\n| e\xa0f | 1.0\xa0(0–\u20602) |"
    assert ledger_page.table(["a", "b", "c"], [], left=2).splitlines()[1] == "| --- | --- | ---: |"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(119.0, "119 s"), (120.0, "2.00 min"), (7200.0, "2.00 h"), (5e6, "1,389 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert ledger_page.duration(seconds) == text


def test_what_is_missing_is_said_plainly() -> None:
    text = ledger_page.render(with_presets(a_run("tms-5-2", 1000), a_run("tms-5-2", 1050)))
    assert "- `tms-5-2`: 1 of 20 seeds so far\n- `tms-5-2-id`: not yet run\n" in text
    assert f"- `{list(PLAN)[-1]}`: not yet run\n:::" in text
    assert cells(text, "`tms-40-10`") == [
        ["MMCS", "not yet run", "0.996", "1.000", "not yet run"],
        ["ML2R", "–", "0.935 ± 0.001", "1.010 ± 0.007", "not yet run"],
    ]
    assert "None: every run above was recovered." in text
    assert "Not yet measured: `tms-5-2`, `tms-5-2-id`, `tms-40-10`" in text
    nothing = ledger_page.render(EMPTY)
    assert "Nothing yet." in nothing and "This appendix counts: 0 runs" in nothing
    assert [line for line in nothing.splitlines() if line.endswith("not yet run")] == [
        f"- `{name}`: not yet run" for name in PLAN
    ]
    compared = ledger_page.render(with_presets(side_by_side=("tms-5-2",)))
    assert cells(compared, "`tms-5-2`")[-1][-1] == "not yet run"
    assert "Not yet measured: `tms-5-2-id`, `tms-40-10`" in compared
    assert "Not yet measured" not in ledger_page.render(a_full_ledger())


def test_a_gpu_has_columns_only_where_there_was_one() -> None:
    runs = [a_run("tms-5-2", 1000), a_run("tms-40-10", 1000)]
    assert "GPU" not in ledger_page.render(with_presets(*runs))
    there = a_run("tms-5-2", 1000, device="cuda", gpu="A GPU", decompose_wall_seconds=3.0)
    data = with_presets(*runs, there)
    text = ledger_page.render(data)
    assert cells(text, "`tms-5-2`")[0][-2:] == ["1 of 1", "3.00"]
    assert cells(text, "`tms-40-10`")[0][-2:] == ["–", "–"]
    assert "- 1 runs, 2 at a time: A GPU with An abacus" in text
    assert "#009e73" in ledger_page.draw(data)


@pytest.mark.slow
def test_the_figure_is_made_of_the_data_and_nothing_else() -> None:
    data = a_full_ledger()
    figure = ledger_page.draw(data)
    assert figure == ledger_page.draw(data)
    assert ledger_page.fingerprint(data) in figure
    assert "<dc:date>" not in figure
    for label in (">18/20<", ">9/10<", ">resid-mlp-3<", "recovered, % of runs"):
        assert label in figure
    data["runs"][0]["recovered"] = False
    assert ledger_page.fingerprint(data) not in figure
    assert ledger_page.draw(EMPTY).count(">not yet run<") == len(PLAN)


def test_the_ledger_in_the_book() -> None:
    """Well-formed, made by the presets as they stand, and shown as it is.

    Until the ledger has been made there is no data, no page, no figure, and no entry in the
    contents; after that all four, and the page names the seeds that are missing.
    """
    pages = {ledger_data.DATA.parent / name for name in (ledger_page.PAGE, ledger_page.FIGURE)}
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    listed = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    there = ledger_data.DATA.exists()
    assert {page.exists() for page in pages} == {there}
    assert ("book/appendix_ledger" in listed) == there
    data = ledger_data.load(ledger_data.DATA)
    assert ledger_data.problems(data) == []
    if there:
        page, figure = (page.read_text(encoding="utf-8") for page in sorted(pages))
        assert page == ledger_page.render(data), "make ledger, or ledger.py --only-render"
        assert ledger_page.fingerprint(data) in figure
        assert ledger_data.DATA.read_text(encoding="utf-8") == ledger_data.dump(data)


# Beside the authors' code


@pytest.mark.slow
def test_our_sides_take_the_rows_they_say() -> None:
    """The same rows as the paper's batch, or as many non-zero ones as it holds on average."""
    preset = PUBLISHED["tms-5-2"]
    target = compare_authors.untrained(preset)
    assert compare_authors.our_sides(target) == ["plain", "no_zero_rows"]
    plain, fewer = (compare_authors.our_run(s, target, preset) for s in ("plain", "no_zero_rows"))
    assert len(plain.batches.next()[0]) == 4096
    x, weight = fewer.batches.next()
    assert len(x) == round(4096 * (1 - 0.95**5)) + 1
    assert weight is not None and float(weight[-1]) == pytest.approx(0.95**5)
    assert all(time > 0 for time in compare_authors.our_steps(fewer, 2))


@pytest.mark.slow
def test_shortcuts_are_measured_where_a_target_has_some() -> None:
    preset = PUBLISHED["resid-mlp-1"]
    target = compare_authors.untrained(preset)
    sides = compare_authors.our_sides(target)
    assert sides[2:] == ["plain_shortcuts", "no_zero_rows_shortcuts"]
    runs = [compare_authors.our_run(side, target, preset) for side in sides]
    assert [run.config.shortcuts for run in runs] == [False, False, True, True]
    assert [len(run.batches.next()[0]) for run in runs] == [2048, 1299, 2048, 1299]


def test_memory_is_that_of_this_process() -> None:
    now, peak = (compare_authors.resident(field) for field in ("VmRSS", "VmHWM"))
    assert 2**20 < now <= peak
    with pytest.raises(OSError, match="/proc/self/status has no VmNothing; memory is measured on"):
        compare_authors.resident("VmNothing")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--authors", "nowhere"], "nowhere is not a checkout of the authors' code: no spd/run_sp"),
        (["tms-9-9", "--authors", "."], "unknown experiments ['tms-9-9']; there are ['tms-5-2', "),
    ],
)
def test_comparison_with_bad_input(argv: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=f"^error: {re.escape(message)}"):
        compare_authors.main(argv)


@pytest.mark.slow
def test_comparison_without_what_their_code_needs(tmp_path: Path) -> None:
    """In a process of its own: it changes what can be imported."""
    (tmp_path / "spd").mkdir()
    (tmp_path / "spd" / "run_spd.py").write_text("import not_there\n")
    done = subprocess.run(
        [sys.executable, compare_authors.__file__, "--authors", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    said = "error: the authors' code needs a package: No module named 'not_there'\n"
    assert done.stderr == said


@pytest.mark.slow
def test_memory_that_cannot_be_measured(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="memory of authors, tms-5-2: error: .* is not a checkout"):
        compare_authors.peak_in_a_process("authors", PUBLISHED["tms-5-2"], tmp_path, 1)


@pytest.mark.slow
def test_memory_of_our_side_is_measured() -> None:
    """A step at the paper's batch holds a few tensors of 4096 rows, 40 pieces and 16 neurons."""
    one = 4096 * 40 * 16 * 4 / 2**20  # MiB
    peak = compare_authors.peak_in_a_process("plain", PUBLISHED["tms-5-2"], ROOT, 1)
    assert one < peak < 50 * one
