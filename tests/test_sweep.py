"""Several seeds of one target side by side: each starts as it would alone, none meets another."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from spd_mini import Config, decompose, recovery, sweep
from spd_mini.__main__ import main
from spd_mini.run import Run
from spd_mini.targets import EXPERIMENTS
from spd_mini.targets import tms as toy
from spd_mini.targets.sparse import SparseFeatures
from zoo import tms, triangle

QUICK = Config(C=3, steps=12, batch_size=8, lr=1e-2, gate_hidden=4, log_every=5, restarts=2)
TIED = {"decoder": "encoder"}
CPU = torch.device("cpu")


def sample() -> SparseFeatures:
    return SparseFeatures(4, 0.4, stratified=True)


def side_by_side(seeds: list[int], config: Config = QUICK) -> Run:
    return Run(tms(), sample(), config, None, TIED, seeds, CPU)


def test_each_seed_starts_as_it_would_alone() -> None:
    together = side_by_side([7, 2, 5])
    for i, seed in enumerate([7, 2, 5]):
        alone = side_by_side([seed])
        for name, value in alone.params.items():
            assert torch.equal(together.params[name][2 * i : 2 * i + 2], value), name


def test_one_seed_alone_gives_the_bits_of_decompose() -> None:
    (one,) = sweep(tms(), sample(), QUICK, [4], tied=TIED, device="cpu", progress=False)
    same = decompose(tms(), sample(), QUICK, tied=TIED, seed=4, device="cpu", progress=False)
    assert torch.equal(one.U["encoder"], same.U["encoder"])
    assert one.history == same.history
    assert {k: v for k, v in one.info.items() if k != "seconds"} == {
        k: v for k, v in same.info.items() if k != "seconds"
    }


@pytest.mark.parametrize("until", [1.0, 0.5])
def test_every_seed_keeps_the_best_of_its_own_restarts(until: float) -> None:
    config = dataclasses.replace(QUICK, restarts_until=until)
    run = side_by_side([7, 2, 5], config)
    for step in range(12):
        if step == 6 and until < 1:
            run.flush()
            scores = run.scores().reshape(3, 2)
        run.train_step()
    run.flush()
    if until == 1:
        scores = run.scores().reshape(3, 2)
    for i, seed in enumerate([7, 2, 5]):
        d = run.result(True, which=i)
        best = int(scores[i].argmin())
        assert d.info["seed"] == seed
        assert d.info["seeds_side_by_side"] == 3
        assert (d.info["chosen_restart"], d.info["restart_losses"]) == (best, scores[i].tolist())
        row = i if until < 1 else 2 * i + best
        assert torch.equal(d.U["encoder"], run.params["U/encoder"][row])
        assert d.info["loss"] == pytest.approx(float(run.scores()[row]))


def test_seeds_do_not_meet() -> None:
    """The second seed's parameters after a step do not depend on who stands beside it."""
    config = dataclasses.replace(QUICK, restarts=1, recon_coeff=0.0, layerwise_coeff=0.0)
    a, b = side_by_side([1, 2], config), side_by_side([1, 3, 2], config)
    for run in (a, b):
        for _ in range(4):
            run.train_step()
    for name, value in a.params.items():
        assert torch.allclose(value[1], b.params[name][2], atol=1e-6), name
        assert not torch.allclose(value[1], b.params[name][1], atol=1e-3), name


@pytest.mark.slow
def test_a_sweep_recovers_what_single_runs_do() -> None:
    config = dataclasses.replace(
        toy.TMS_5_2.config, C=8, steps=600, faithfulness_warmup_steps=150, restarts=2
    )
    target = triangle()
    data = SparseFeatures(3, 0.05, stratified=True)
    seeds = [0, 1, 2]
    ds = sweep(target, data, config, seeds, tied=target.tied, device="cpu", progress=False)
    assert [d.info["seed"] for d in ds] == seeds
    assert all(recovery.report(d, target.truth()).recovered for d in ds)
    assert not np.allclose(ds[0].U["encoder"], ds[1].U["encoder"])


@pytest.mark.parametrize("seeds", [[], [1, 2, 1]])
def test_seeds_must_differ(seeds: list[int]) -> None:
    with pytest.raises(ValueError, match="sweep needs one or more different seeds"):
        sweep(tms(), sample(), QUICK, seeds)


def test_command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = dataclasses.replace(
        toy.TMS_5_2, name="tiny", train_steps=5, config=dataclasses.replace(QUICK, restarts=1)
    )
    monkeypatch.setitem(EXPERIMENTS, "tiny", tiny)
    assert main(["run", "tiny", "--seeds", "3:6", "--together", "--json", "-"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["seed"] for r in rows] == [3, 4, 5]
    assert [r["seeds_side_by_side"] for r in rows] == [3, 3, 3]
    assert {r["target_seed"] for r in rows} == {0}
    argv = ["run", "tiny", "--seeds", "3:5", "--together", "--target-seed", "same", "--json", "-"]
    assert main(argv) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(r["seed"], r["seeds_side_by_side"]) for r in rows] == [(3, 1), (4, 1)]
    assert main(["run", "tiny", "--seeds", "3,3", "--together"]) == 2
    assert "different seeds" in capsys.readouterr().err
