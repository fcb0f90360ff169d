"""What SPD skips where two pathways do the same, and which circuits it merges (chapter 13).

    python tests/benchmarks/coverage.py [ARM …] [--seeds 1000:1005] [--target-seed 1000]

An arm is an experiment with or without a remedy; each runs at the prices β3 of its grid, all prices
and seeds side by side. `peel`, whose second round has another target in every run, has one price.
A run's seconds are process CPU time on one thread, divided by the runs side by side.

Mechanism (p, i), feature i in pathway p, is in the weights by `redundant.certificate`. It is
*found* if some piece of pathway p has an importance of at least 0.9 on the probe with feature i
alone on, *skipped* if none exceeds 0.1, else in between. Errors are shares of the target's mean
squared output on fixed inputs: under random allowed masks ("random"), with only what is important
(m = g, "important"), and after deleting every piece that is ever important ("without").
*Near-perfect* is a run with the first two at most 0.02.

Cells go into book/coverage.json one by one; those that are there, made with the same settings, are
not repeated.
"""

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import ledger_data
from benchmarks.cells import FACTS, Cell, describe, load, say, status, update
from benchmarks.ledger_data import FIRST_SEED, ROOT

from spd_mini import Config, Decomposition, decompose, edit, masks, prices, recovery
from spd_mini.__main__ import parse_seeds
from spd_mini.targets import circuits, redundant, tms

DATA = ROOT / "book" / "coverage.json"
NEAR = 0.02
"""Largest share of the output that a near-perfect run may lose."""
ROWS = 1000


@dataclass(frozen=True)
class Arm:
    """changes: to the preset's settings. cut: share of rows with a pathway cut. rounds: of peeling.
    octaves: of β3, around the preset's."""

    preset: redundant.Preset | circuits.Preset
    changes: Mapping[str, Any] = field(default_factory=dict)
    cut: float = 0.0
    rounds: int = 1
    octaves: Sequence[float] = (-6, -4, -2, -1, 0, 1, 2, 4)

    def setting(self, octave: float) -> Config:
        """The settings at a place of the grid."""
        config = dataclasses.replace(self.preset.config, **self.changes)
        assert isinstance(config.importance_coeff, float)
        price = float(f"{config.importance_coeff * 2**octave:.6g}")
        return dataclasses.replace(config, importance_coeff=price)


PRICES = range(-4, 3)
"""Octaves of the arms with circuits."""
CROWDED = dataclasses.replace(circuits.CIRCUITS, feature_probability=0.3)
"""Features are on so often that those of one line meet."""


def _paired(unlike: float) -> Arm:
    preset = dataclasses.replace(circuits.CIRCUITS_PAIRED, unlike=unlike)
    return Arm(preset, octaves=PRICES)


ARMS = {
    "plain": Arm(redundant.REDUNDANT),
    "both": Arm(redundant.REDUNDANT_BOTH),
    "frequency": Arm(redundant.REDUNDANT, {"frequency_coeff": 1.0}),
    "adversary": Arm(redundant.REDUNDANT, {"adversary_coeff": 0.3}),
    "cut": Arm(redundant.REDUNDANT, cut=0.3),
    "peel": Arm(redundant.REDUNDANT, rounds=2, octaves=(1,)),
    "apart": Arm(circuits.CIRCUITS, octaves=PRICES),
    "many": Arm(circuits.CIRCUITS_MANY, octaves=range(-3, 3)),
    "crowded": Arm(CROWDED, octaves=PRICES),
    "crowded-frequency": Arm(CROWDED, {"frequency_coeff": 1.0}, octaves=PRICES),
    "paired": _paired(1.0),
    "paired-half": _paired(0.5),
    "paired-equal": _paired(0.0),
}


# One run


def share(out: Tensor, want: Tensor, weight: Tensor) -> float:
    """Mean squared error in units of the mean square of `want`: (N, n) each, row weights (N,)."""
    return float(((out - want).square().mean(1) @ weight) / (want.square().mean(1) @ weight))


@torch.no_grad()
def errors(d: Decomposition, x: Tensor, weight: Tensor) -> dict[str, float]:
    """The errors of one decomposition on inputs x (N, …), and what is live on the probes."""
    g, want = d.causal_importance(x), d.target(x)
    drawn = masks.random(g, torch.Generator().manual_seed(1))
    return {
        "random": share(d(x, drawn), want, weight),
        "important": share(d(x, g), want, weight),
        "without": share(emptied(d, x)(x), want, weight),
    }


def emptied(d: Decomposition, x: Tensor) -> nn.Module:
    """The target without the pieces that are live on inputs x."""
    g = d.causal_importance(x)
    return edit.delete(d, {n: recovery.live(v).nonzero()[:, 0].tolist() for n, v in g.items()})


def judge(d: Decomposition, x: Tensor, weight: Tensor) -> dict[str, Any]:
    """What is noted of one run."""
    assert isinstance(d.target, redundant.Redundant | tms.TMS)
    truth = d.target.truth()
    report = recovery.report(d, truth)
    found: dict[str, Any] = {
        "seed": d.info["seed"],
        "recovered": report.recovered,
        "live": list(report.live.values()),
        "loss": d.info["loss"],
        **{k: round(v, 6) for k, v in errors(d, x, weight).items()},
    }
    if isinstance(d.target, redundant.Redundant):
        return found | {"coverage": _rounded(redundant.coverage(d))}
    g = d.causal_importance(truth.probes)["encoder"]
    merged = dataclasses.asdict(circuits.merges(g))
    return found | {"merged": merged, "lost": int((g.amax(1) < 0.1).sum())}


def _rounded(table: Tensor) -> list[list[float]]:
    return [[round(v, 3) for v in row] for row in table.tolist()]


def peel(d: Decomposition, first: dict[str, Any], sample: Any, x: Tensor, w: Tensor) -> Cell:
    """Delete what was found and decompose the rest: the run with what both rounds cover."""
    rest = emptied(d, x)
    assert isinstance(rest, redundant.Redundant)
    again = decompose(rest, sample, d.config, seed=first["seed"], device="cpu", progress=False)
    covered = torch.maximum(torch.tensor(first["coverage"]), redundant.coverage(again))
    with torch.no_grad():
        without = share(emptied(again, x)(x), d.target(x), w)
    return first | {"coverage": _rounded(covered), "without": round(without, 6)}


def run_cells(name: str, seeds: Sequence[int], target_seed: int) -> list[Cell]:
    """Train an arm, every seed at every price, side by side, and judge each run."""
    arm = ARMS[name]
    target, sample = arm.preset.train(target_seed), arm.preset.sampler()
    x, weight = dataclasses.replace(sample, stratified=True)(ROWS, torch.Generator().manual_seed(0))
    data: Any = sample
    if arm.cut and isinstance(target, redundant.Redundant):
        target, data = target.with_switches(), redundant.WithCuts(sample, 2, arm.cut)
        x = F.pad(x, (0, 2), value=1.0)
    settings = [arm.setting(octave) for octave in arm.octaves]
    started = time.process_time()
    found = prices.sweep(target, data, settings, seeds, target.tied, "cpu")
    count = len(settings) * len(seeds)
    cells = []
    for octave, setting, ds in zip(arm.octaves, settings, found, strict=True):
        runs = [judge(d, x, weight) for d in ds]
        if arm.rounds > 1:
            both = zip(ds, runs, strict=True)
            runs = [peel(d, run, data, x, weight) for d, run in both]
        about = {
            "arm": name,
            "target_seed": target_seed,
            "octave": octave,
            "price": setting.importance_coeff,
            "seconds_a_run": 0.0,
            "side_by_side": count,
            "threads": torch.get_num_threads(),
            "made_by": made_by(name, octave),
        }
        cells.append(about | ledger_data.environment("cpu") | {"runs": runs})
    seconds = round((time.process_time() - started) / count, 3)
    return [c | {"seconds_a_run": seconds} for c in cells]


def made_by(name: str, octave: float) -> dict[str, Any]:
    """Everything that settles a cell, as JSON values: the preset, and the settings at its price."""
    arm = ARMS[name]
    preset = {k: v for k, v in describe(arm.preset).items() if k not in ("config", "paper_config")}
    return {
        "preset": preset,
        "cut": arm.cut,
        "rounds": arm.rounds,
        "setting": describe(arm.setting(octave)),
    }


# The file

CELL_KEYS = FACTS | {
    "arm", "target_seed", "octave", "price", "seconds_a_run", "side_by_side", "threads",
    "made_by", "runs",
}  # fmt: skip
BOTH_KEYS = {"seed", "recovered", "live", "loss", "random", "important", "without"}
RUN_KEYS = {True: BOTH_KEYS | {"coverage"}, False: BOTH_KEYS | {"merged", "lost"}}
"""Keys of a run, by whether the arm has pathways."""


def pathways(arm: str) -> bool:
    """Whether an arm's target is `redundant`, not circuits."""
    return isinstance(ARMS[arm].preset, redundant.Preset)


def key(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two cells the same, and their order."""
    return (list(ARMS).index(cell["arm"]), cell["target_seed"], cell["octave"])


def current(cell: Mapping[str, Any]) -> bool:
    """Whether a cell was made with the settings that its place has now."""
    return cell["made_by"] == made_by(cell["arm"], cell["octave"])


def problems(cells: Iterable[Cell]) -> list[str]:
    """Everything that is wrong with the cells of a file, one line each; empty = well-formed."""
    found, seen = [], set()
    for cell in cells:
        name = f"{cell.get('arm')} {cell.get('octave')}"
        if missing := sorted(CELL_KEYS - set(cell)):
            found.append(f"{name}: lacks {missing}")
            continue
        if cell["arm"] not in ARMS or cell["octave"] not in ARMS[cell["arm"]].octaves:
            found.append(f"{name}: no grid has it")
            continue
        if not current(cell):
            found.append(f"{name}: made with other settings")
        if key(cell) in seen:
            found.append(f"{name}: twice")
        seen.add(key(cell))
        if any(set(run) != RUN_KEYS[pathways(cell["arm"])] for run in cell["runs"]):
            found.append(f"{name}: a run has other keys than it should")
            continue
        seeds = [run["seed"] for run in cell["runs"]]
        if not seeds or len(set(seeds)) < len(seeds) or cell["side_by_side"] % len(seeds):
            found.append(f"{name}: seeds {seeds}, {cell['side_by_side']} runs side by side")
        if min([*seeds, cell["target_seed"]]) < FIRST_SEED:
            found.append(f"{name}: seeds start at {FIRST_SEED}")
        if not all(math.isfinite(n) for n in ledger_data.numbers(cell)):
            found.append(f"{name}: a number is not finite")
        tables = [run.get("coverage", []) for run in cell["runs"]]
        if not all(0 <= g <= 1 for g in ledger_data.numbers(tables)):
            found.append(f"{name}: an importance outside [0, 1]")
        if not cell["seconds_a_run"] > 0:
            found.append(f"{name}: no time")
    return found


# Command line


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0 when all cells are there, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("arms", nargs="*", metavar="ARM", help=f"of {list(ARMS)}; none = all")
    parser.add_argument("--seeds", default="1000:1005", help="such as 1000:1005")
    parser.add_argument("--target-seed", type=int, default=1000, help="seed of the targets")
    parser.add_argument("--data", type=Path, default=DATA, help="where the cells go")
    return status(_work, parser.parse_args(argv))


def _work(args: argparse.Namespace) -> None:
    seeds, path = parse_seeds(args.seeds), args.data.resolve()
    if min([*seeds, args.target_seed]) < FIRST_SEED:
        raise ValueError(f"seeds start at {FIRST_SEED}; smaller ones served to choose settings")
    if unknown := [name for name in args.arms if name not in ARMS]:
        raise ValueError(f"no arms {unknown}; there are {list(ARMS)}")
    torch.set_num_threads(1)
    done = {key(c): c for c in load(path) if not problems([c])}
    for name in args.arms or ARMS:
        at = {"arm": name, "target_seed": args.target_seed}
        there = [done.get(key(at | {"octave": octave})) for octave in ARMS[name].octaves]
        if all(c and {run["seed"] for run in c["runs"]} >= set(seeds) for c in there):
            continue
        cells = run_cells(name, seeds, args.target_seed)
        update(path, cells, key)
        for cell in cells:
            say(f"{name} β₃ {cell['price']:.2e}: {told(cell)}, {cell['seconds_a_run']:.2f} s a run")


def told(cell: Cell) -> str:
    """A cell in a few words."""
    near = sum(max(run["random"], run["important"]) <= NEAR for run in cell["runs"])
    said = f"near-perfect {near} of {len(cell['runs'])}, "
    if not pathways(cell["arm"]):
        merged = [tuple(run["merged"].values()) for run in cell["runs"]]
        return said + f"merged (line, pair, other) {merged}"
    tables = torch.tensor([run["coverage"] for run in cell["runs"]])
    return said + f"skipped {(tables < 0.1).sum((1, 2)).tolist()} of {tables[0].numel()}"


if __name__ == "__main__":
    sys.exit(main())
