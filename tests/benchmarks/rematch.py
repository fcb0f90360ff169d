"""APD against SPD over a grid of settings each, on the same frozen targets (chapter 9).

    python tests/benchmarks/rematch.py [EXPERIMENT] [--seeds 1000:1010] [--target-seeds 1000]
    python tests/benchmarks/rematch.py tms-5-2 --steps 20000 --only apd   # APD at full length
    python tests/benchmarks/rematch.py tms-40-10                          # hours

A grid has 5 × 3 settings: powers of two around a centre, in APD of top-k and the simplicity weight,
in SPD of β3 and p. The centres are the authors' settings for APD and this book's preset, as far as
gradient descent from one start goes, for SPD; centre and spacing were settled on seeds below 1000.

What is equal: number of settings, seeds and target, one random start a run (no restarts chosen by
their loss), and a budget of CPU seconds a run. A run's seconds are process CPU time of the
training, on one thread, divided by the runs trained side by side: five settings that differ in
top-k, or in β3, times their seeds. With APD's number of steps here it takes no less than SPD.

Cells go into book/rematch.json one by one; those that are there, made with the same settings, are
not repeated.
"""

import argparse
import dataclasses
import itertools
import math
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import ledger_data
from benchmarks.cells import FACTS, Cell, describe, load, say, status, update
from benchmarks.ledger_data import FIRST_SEED, GRADIENT, PRESETS, ROOT

from spd_mini import Config, Schedule, prices, recovery
from spd_mini.__main__ import parse_seeds
from spd_mini.baselines import apd
from spd_mini.targets import PUBLISHED

DATA = ROOT / "book" / "rematch.json"
METHODS = ("apd", "spd")
AXES = {"apd": ("topk", "simplicity_coeff"), "spd": ("importance_coeff", "p")}
"""What varies in each method: along the long side of the grid, and along the short one."""
VERDICTS = ("strict", "pattern", "separated")
Setting = apd.APDConfig | Config


@dataclass(frozen=True)
class Grid:
    """The settings of one experiment: centres, and exponents of 2 along each method's axes."""

    apd: apd.APDConfig
    spd: Config
    octaves: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]
    """{method: (exponents along the long axis, along the short one)}, of equal lengths."""

    def places(self, method: str) -> list[tuple[float, float]]:
        """All settings of a method, as exponents of 2 relative to its centre."""
        return list(itertools.product(*self.octaves[method]))

    def setting(self, method: str, place: Sequence[float], steps: int | None = None) -> Setting:
        """The configuration at a place, with another number of steps if asked for."""
        centre: Setting = self.apd if method == "apd" else self.spd
        changes: dict[str, Any] = {
            axis: scaled(getattr(centre, axis), 2**octave)
            for axis, octave in zip(AXES[method], place, strict=True)
        }
        if steps:
            changes["steps"] = steps
        return dataclasses.replace(centre, **changes)


_OCTAVES = {
    "apd": ((-0.5, -0.25, 0.0, 0.25, 0.5), (-1.0, 0.0, 1.0)),
    "spd": ((-2.0, -1.0, 0.0, 1.0, 2.0), (-1.0, 0.0, 1.0)),
}
GRIDS = {
    "tms-5-2": Grid(
        dataclasses.replace(apd.PAPER["tms-5-2"], steps=4000),
        dataclasses.replace(PRESETS["tms-5-2"].config, restarts=1),
        _OCTAVES,
    ),
    "tms-40-10": Grid(
        dataclasses.replace(apd.PAPER["tms-40-10"], steps=170),
        PRESETS["tms-40-10" + GRADIENT].config,
        _OCTAVES,
    ),
}


def batches(
    grid: Grid, only: str | None = None, short: float | None = None
) -> list[tuple[str, list[tuple[float, float]]]]:
    """What is trained side by side, row by row; the middle of the grids comes first."""
    found = [
        (method, [(x, y) for x in grid.octaves[method][0]])
        for method in ([only] if only else METHODS)
        for y in (grid.octaves[method][1] if short is None else [short])
    ]
    return sorted(found, key=lambda batch: (abs(batch[1][0][1]), METHODS.index(batch[0])))


def scaled(value: Any, factor: float) -> Any:
    """A number or both ends of a Schedule times a factor, rounded to 6 digits."""
    if isinstance(value, Schedule):
        ends = {k: scaled(getattr(value, k), factor) for k in ("start", "end")}
        return dataclasses.replace(value, **ends)
    return float(f"{value * factor:.6g}")


# One cell


def separated(scores: Tensor) -> bool:
    """Whether some threshold gives the identity pattern: (n, C), after the best matching.

    The mildest verdict: it does not ask for the run's own cutoff, or 0.9 and 0.1.
    """
    _, matched = recovery.identity_errors(scores, len(scores))
    if scores.shape[1] < len(scores):
        return False
    mine = torch.zeros_like(scores, dtype=torch.bool)
    mine[range(len(scores)), matched] = True
    others = scores[~mine]
    return bool(scores[mine].min() > (others.max() if len(others) else 0))


def verdicts(d: Any, truth: recovery.Truth) -> dict[str, Any]:
    """What is noted of one run. strict: METHOD section 3, the house verdict. pattern: no wrong
    entry in any matrix, whatever the lengths. separated: see there, in every matrix."""
    probes = truth.probes
    if isinstance(d, apd.APD):
        report, loss = apd.report(d, truth), d.history["total"][-1]
        scores = {"all": d.attributions(probes)}
    else:
        report, loss = recovery.report(d, truth), d.info["loss"]
        scores = {n: d.causal_importance(probes)[n] for n in truth.patterns}
    return {
        "seed": d.info["seed"],
        "strict": report.recovered,
        "pattern": not any(report.identity_errors.values()),
        "separated": all(separated(s) for s in scores.values()),
        "identity_errors": max(report.identity_errors.values()),
        "live": max(report.live.values()),
        "mmcs": report.mmcs,
        "mmcs_null": report.mmcs_null,
        "ml2r": report.ml2r,
        "faithfulness_relative": max(report.faithfulness_relative.values()),
        "recon": report.recon,
        "loss": loss,
    }


def run_cells(
    name: str,
    target: Any,
    method: str,
    places: Sequence[tuple[float, float]],
    seeds: Sequence[int],
    steps: int | None = None,
) -> list[Cell]:
    """Train every seed at some places of a method's grid, side by side, and judge each run."""
    preset, truth, grid = PUBLISHED[name], target.truth(), GRIDS[name]
    settings: list[Any] = [grid.setting(method, place, steps) for place in places]
    started = time.process_time()
    ds: Sequence[Any]
    if method == "apd":
        data = preset.sampler(paper=True)
        ds = apd.decompose(target, data, settings, seeds, tied=target.tied, device="cpu")
    else:
        found = prices.sweep(target, preset.sampler(), settings, seeds, target.tied, "cpu")
        ds = list(itertools.chain(*found))
    seconds = (time.process_time() - started) / len(ds)
    cells = []
    for i, (place, setting) in enumerate(zip(places, settings, strict=True)):
        mine = ds[i * len(seeds) : (i + 1) * len(seeds)]
        about = {
            "experiment": name,
            "target_seed": target.training_info["seed"],
            "method": method,
            "octaves": list(place),
            "values": {axis: describe(setting)[axis] for axis in AXES[method]},
            "steps": setting.steps,
            "seconds_a_run": round(seconds, 3),
            "side_by_side": len(ds),
            "threads": torch.get_num_threads(),
            "setting": describe(setting),
        }
        runs = [verdicts(d, truth) for d in mine]
        cells.append(about | ledger_data.environment("cpu") | {"runs": runs})
    return cells


# The file

CELL_KEYS = FACTS | {
    "experiment", "target_seed", "method", "octaves", "values", "steps", "seconds_a_run",
    "side_by_side", "threads", "setting", "runs",
}  # fmt: skip
RUN_KEYS = {
    "seed", "strict", "pattern", "separated", "identity_errors", "live", "mmcs", "mmcs_null",
    "ml2r", "faithfulness_relative", "recon", "loss",
}  # fmt: skip


def key(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two cells the same, and their order."""
    return (
        list(GRIDS).index(cell["experiment"]),
        cell["target_seed"],
        METHODS.index(cell["method"]),
        cell["steps"],
        *cell["octaves"],
    )


def current(cell: Cell) -> bool:
    """Whether a cell was made with the settings its place has now."""
    grid = GRIDS.get(cell["experiment"])
    return grid is not None and cell["setting"] == describe(
        grid.setting(cell["method"], cell["octaves"], cell["steps"])
    )


def problems(cells: Iterable[Cell]) -> list[str]:
    """Everything that is wrong with the cells of a file, one line each; empty = well-formed."""
    found, seen = [], set()
    for cell in cells:
        name = f"{cell.get('experiment')} {cell.get('method')} {cell.get('octaves')}"
        if missing := sorted(CELL_KEYS - set(cell)):
            found.append(f"{name}: lacks {missing}")
            continue
        if cell["experiment"] not in GRIDS or cell["method"] not in METHODS:
            found.append(f"{name}: no grid has it")
            continue
        if not current(cell):
            found.append(f"{name}: made with other settings")
        if key(cell) in seen:
            found.append(f"{name}: twice")
        seen.add(key(cell))
        if any(set(run) != RUN_KEYS for run in cell["runs"]):
            found.append(f"{name}: a run has not the keys {sorted(RUN_KEYS)}")
            continue
        seeds = [run["seed"] for run in cell["runs"]]
        if not seeds or len(set(seeds)) < len(seeds) or cell["side_by_side"] % len(seeds):
            found.append(f"{name}: seeds {seeds}, {cell['side_by_side']} runs side by side")
        if min([*seeds, cell["target_seed"]]) < FIRST_SEED:
            found.append(f"{name}: seeds start at {FIRST_SEED}")
        if any(r["strict"] > r["pattern"] or r["pattern"] > r["separated"] for r in cell["runs"]):
            found.append(f"{name}: a stricter verdict holds where a milder one does not")
        if not all(math.isfinite(n) for n in ledger_data.numbers(cell)):
            found.append(f"{name}: a number is not finite")
        if not cell["seconds_a_run"] > 0:
            found.append(f"{name}: no time")
    return found


# Command line


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0 when all cells are there, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("experiment", nargs="?", default="tms-5-2", choices=list(GRIDS))
    parser.add_argument("--seeds", default="1000:1010", help="such as 1000:1010")
    parser.add_argument("--target-seeds", default="1000", help="seeds of the targets")
    parser.add_argument("--only", choices=METHODS, help="one method alone")
    parser.add_argument("--short", type=float, help="one place along the short axis alone")
    parser.add_argument("--steps", type=int, help="another length than the grid's")
    parser.add_argument("--data", type=Path, default=DATA, help="where the cells go")
    return status(_work, parser.parse_args(argv))


def _work(args: argparse.Namespace) -> None:
    seeds, target_seeds = parse_seeds(args.seeds), parse_seeds(args.target_seeds)
    if min([*seeds, *target_seeds]) < FIRST_SEED:
        raise ValueError(f"seeds start at {FIRST_SEED}; smaller ones served to choose the grid")
    if args.steps is not None and args.steps < 1:
        raise ValueError(f"--steps must be ≥ 1, got {args.steps}")
    torch.set_num_threads(1)
    grid, path = GRIDS[args.experiment], args.data.resolve()
    done = {key(c): c for c in load(path) if current(c)}
    for target_seed in target_seeds:
        target = PUBLISHED[args.experiment].train(target_seed)
        target.training_info["seed"] = target_seed
        for method, places in batches(grid, args.only, args.short):
            at = {"experiment": args.experiment, "target_seed": target_seed, "method": method}
            steps = grid.setting(method, places[0], args.steps).steps
            there = [done.get(key(at | {"steps": steps, "octaves": place})) for place in places]
            if all(c and {run["seed"] for run in c["runs"]} >= set(seeds) for c in there):
                continue
            cells = run_cells(args.experiment, target, method, places, seeds, args.steps)
            update(path, cells, key)
            for c in cells:
                count = {v: sum(r[v] for r in c["runs"]) for v in VERDICTS}
                say(f"{method} {c['values']}: {count}, {c['seconds_a_run']:.2f} s a run")


if __name__ == "__main__":
    sys.exit(main())
