"""The attack ladder of the benchmarks: its one line of JSON, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch
from benchmarks import attack_ladder

import spd_mini as spd
from spd_mini.targets import tms
from zoo import tms as small


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decomposition of an untrained 5-2 model, begun and not trained: every piece is live."""
    target = small(5, 2)
    config = spd.Config(C=6, steps=1, batch_size=8)
    sample = tms.TMS_5_2.sampler()
    d = spd.decompose(target, sample, config, tied=target.tied, seed=3, progress=False)
    path = tmp_path_factory.mktemp("ladder") / "begun.safetensors"
    d.save(path)
    return path


@pytest.mark.slow
def test_one_line_says_what_every_attack_finds(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attack_ladder, "RUNGS", (1, 3))
    assert attack_ladder.main(["tms-5-2", "--file", str(file), "--probes", "2"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert (line["experiment"], line["seed"], line["probes"]) == ("tms-5-2", 3, 2)
    assert line["recovered"] is False and line["reasons"]
    assert set(line["ladder"]) == {
        f"{measure}, {who}" for measure in ("output", "divergence") for who in ("own", "shared")
    }
    ladder = line["ladder"]["output, own"]
    assert set(ladder) == {"1", "3", "search"}
    assert 0 < ladder["1"]["mean"] <= ladder["3"]["mean"] <= ladder["search"]["mean"]
    assert all(v["mean"] <= v["worst"] for v in ladder.values())
    assert line["random_99"]["worst"] <= ladder["search"]["worst"]
    assert line["diagnose"]["worst"] >= line["diagnose"]["worst_shared"] > 0

    d = spd.load(file)
    probes = d.target.truth().probes[:2]  # type: ignore[operator]
    m = spd.masks.worst_case(d, probes, measure="output")
    with torch.no_grad():
        want = (d(probes, m) - d.target(probes)).abs().amax(1)
    assert ladder["search"]["worst"] == pytest.approx(want.max().item(), abs=1e-5)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["tms-40-10"], "does not hold a decomposition of tms-40-10"),
        (["tms-5-2-id"], "does not hold a decomposition of tms-5-2-id"),
        (["tms-5-2", "--probes", "0"], "--threads and --probes must be ≥ 1"),
    ],
)
def test_what_it_refuses(
    argv: list[str], message: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attack_ladder.main([*argv, "--file", str(file)]) == 2
    assert message in capsys.readouterr().err
