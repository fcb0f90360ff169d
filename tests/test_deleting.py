"""The benchmark of chapter 11: its methods, its file, and the recorded file of the book."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import deleting
from benchmarks.cells import Cell, load
from benchmarks.deleting import ALL, ARMS, METHODS, PLAN

from spd_mini import Config, edit
from spd_mini.baselines import unlearn
from spd_mini.targets import facts

TINY = dataclasses.replace(
    facts.FACTS_REDUNDANT,
    name="facts",
    n_facts=6,
    facts_per_subject=2,
    n_answers=6,
    d_key=16,
    d_mlp=24,
    train_steps=60,
    config=Config(C=8, steps=6, batch_size=8, restarts=1, gate_hidden=4),
)
BRIEF = dataclasses.replace(PLAN, reported=(0, 3), validation=(5,), own_steps=2, others_steps=2)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """One arm of six facts, and two settings for each method at most."""
    monkeypatch.setattr(deleting, "ARMS", {"facts": TINY})
    monkeypatch.setattr(deleting, "PLAN", BRIEF)
    few = {name: (act, settings[:2]) for name, (act, settings) in METHODS.items()}
    monkeypatch.setattr(deleting, "METHODS", few)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)


# The plan


def test_validation_facts_are_others_of_other_subjects() -> None:
    for preset in ARMS.values():
        subject = preset.facts_per_subject
        reported = {fact // subject for fact in PLAN.reported}
        validation = {fact // subject for fact in PLAN.validation}
        assert len(reported) == len(PLAN.reported), "one fact a subject"
        assert not reported & validation
        assert max(*PLAN.reported, *PLAN.validation) < preset.n_facts


def test_methods_have_the_same_budget_of_trials() -> None:
    """Six, or fewer where there is less to settle; controls and the oracle take none."""
    counts = {name: len(settings) for name, (_, settings) in METHODS.items()}
    assert {name for name, n in counts.items() if not n} == {
        *("spd, reading", "spd, writing", "spd, one path"),
        *("random pieces", "random rank one", "oracle"),
    }
    assert {name for name, n in counts.items() if 0 < n < 6} == {
        *("svd direction", "top neuron", "projection"),
    }
    assert max(counts.values()) == 6
    for _, settings in METHODS.values():
        assert all(settings.count(s) == 1 for s in settings)


# A run of the harness, and its file


def cells_of(path: Path) -> list[Cell]:
    assert deleting.problems(load(path)) == []
    return load(path)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_a_tiny_grid_runs_and_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deleting.json"
    argv = ["facts", "--data", str(path), "--keep", str(tmp_path)]
    assert deleting.main([*argv, "--seeds", "1000"]) == 0
    (first,) = cells_of(path)
    assert (tmp_path / "facts-1000.safetensors").exists()
    rows = first["methods"]
    assert list(rows) == list(ALL)
    # the target knows the facts, the one that was never told does not, though it may learn
    target, oracle = rows["target"], rows["oracle"]
    assert (target["recall"], target["lost"], target["own_steps"]) == (1, 0, 0)
    assert oracle["recall"] == 0 and oracle["own_steps"] > 0 and oracle["others_recall"] > 0.9
    assert target["reading_left"] == pytest.approx(target["clean"], abs=1e-4)
    # who has the weights of a projected model has the target's
    same = ("own_steps", "probe", "reading_left", "writing_left")
    assert [rows["projection"][k] for k in same] == [target[k] for k in same]
    assert [len(table) for table in first["together"].values()] == [2] * 4
    assert first["decompose_inputs"] == 48
    assert deleting.main([*argv, "--seeds", "1000:1002"]) == 0
    assert cells_of(path)[0] == first, "not made again"
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == [
        "facts 1000",
        "facts 1001",
    ]
    # other settings: made again, from the decomposition that was kept, with its seconds
    monkeypatch.setattr(deleting, "PLAN", dataclasses.replace(BRIEF, noise=0.4))
    assert deleting.problems([first]) == ["facts 1000: made with other settings"]
    deleting.main([*argv, "--seeds", "1000"])
    again = load(path)[0]
    assert again["setting"] != first["setting"]
    assert again["decompose_seconds"] == first["decompose_seconds"]


@pytest.mark.usefixtures("tiny")
def test_every_method_does_what_its_name_says() -> None:
    d = deleting.decomposed(TINY, 1000, None)
    job = deleting.job(d, TINY, 1000, 3, BRIEF)
    chosen = job.pieces({"above": 0.5})
    scores = edit.by_importance(d, job.forget[0])
    assert {leaf for leaf in edit.top(scores, len(chosen) or 1) if chosen} == set(chosen)
    changed = {}
    for name, (act, settings) in METHODS.items():
        control = {"above": 0.0 if name.startswith("spd") else 0.5}
        model = act(job, settings[0] if settings else control)
        held = deleting.held_weights(model).state_dict()
        changed[name] = {
            n for n, t in job.target.state_dict().items() if not torch.equal(held[n], t)
        }
    assert changed["projection"] == set()
    sites = {n: {f"paths.{i}.{n}.weight" for i in (0, 1)} for n in ("W_in", "W_out")}
    assert changed["spd, reading"] == sites["W_in"]
    assert changed["spd, writing"] == sites["W_out"]
    assert changed["spd, one path"] == {"paths.0.W_in.weight", "paths.0.W_out.weight"}
    assert changed["closed form"] == changed["top neuron"] == sites["W_out"]
    assert changed["svd direction"] == sites["W_in"]
    for name in ("ascent", "ascent, retain", "uniform", "uniform, retain", "oracle"):
        assert len(changed[name]) == 6, name
    assert len(changed["spd, by effect"]) == 1
    nested = METHODS["projection"][0](job, {"where": "W_out"})
    assert isinstance(nested, unlearn.Projected) and isinstance(nested.model, unlearn.Projected)
    assert (nested.name, nested.model.name) == ("model.paths.1.W_out", "paths.0.W_out")


@pytest.mark.usefixtures("tiny")
def test_the_best_on_validation_facts_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of doing nothing, a model that knows nothing, and one never told; the first of equals."""
    d = deleting.decomposed(TINY, 1000, None)
    jobs = [deleting.job(d, TINY, 1000, 5, BRIEF)]
    blank = facts.Facts(**d.target.init_kwargs)  # type: ignore[arg-type]
    blank.load_state_dict({n: 0 * t for n, t in d.target.state_dict().items()})
    untold = TINY.train(1000, without=[5])
    models = {"nothing": d.target, "blank": blank, "untold": untold, "too": untold}
    settings = [{"model": name} for name in models]
    act = (lambda job, s: models[s["model"]], settings)
    monkeypatch.setitem(deleting.METHODS, "made up", act)
    setting, score = deleting.tuned("made up", jobs, BRIEF)
    assert setting == {"model": "untold"}
    assert 0.5 < score < 1


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Cell:
    """A recorded cell of the book."""
    return load(deleting.DATA)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arm": "figures"}, "no such arm"),
        ({"setting": "0"}, "made with other settings"),
        ({"seed": 3}, "seeds start at 1000"),
        ({"methods": {}}, "methods are []"),
        ({"decompose_seconds": 0.0}, "no time"),
        ({"agreement": math.inf}, "not finite"),
    ],
)
def test_what_is_wrong_with_a_cell_is_said(
    cell: Cell, change: dict[str, Any], message: str
) -> None:
    assert deleting.problems([cell]) == []
    assert any(message in line for line in deleting.problems([cell | change]))
    assert any("twice" in line for line in deleting.problems([cell, cell]))
    without = {k: v for k, v in cell.items() if k != "torch"}
    assert any("lacks ['torch']" in line for line in deleting.problems([without]))


def test_what_is_wrong_with_a_row_is_said(cell: Cell) -> None:
    rows, target = cell["methods"], cell["methods"]["target"]
    for row, message in (
        ({k: v for k, v in target.items() if k != "probe"}, "target has the keys"),
        (target | {"probe": 1.5}, "target has a share outside [0, 1]"),
    ):
        changed = cell | {"methods": rows | {"target": row}}
        assert any(message in line for line in deleting.problems([changed]))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--seeds", "0:3"], "seeds start at 1000"),
        (["--seeds", "many"], "'many' is not an integer seed"),
        (["figures"], "arms are facts, facts-superposed, facts-redundant, not figures"),
    ],
)
def test_bad_input(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert deleting.main(argv) == 2
    assert message in capsys.readouterr().err


# The file in the book


def test_the_recorded_file_is_well_formed_and_complete() -> None:
    cells = load(deleting.DATA)
    assert deleting.problems(cells) == []
    seeds = {arm: [c["seed"] for c in cells if c["arm"] == arm] for arm in ARMS}
    assert all(len(s) >= 5 for s in seeds.values())
    assert len({tuple(s) for s in seeds.values()}) == 1


def test_what_the_recorded_target_and_oracle_must_be() -> None:
    """The target knows every fact and nothing was lost; whoever was never told does not know."""
    for c in load(deleting.DATA):
        target, oracle = c["methods"]["target"], c["methods"]["oracle"]
        assert target["recall"] == 1 and target["lost"] == 0 and target["own_steps"] == 0
        assert oracle["recall"] == 0 and oracle["paraphrased"] < 0.1
        assert oracle["own_steps"] > 0
