"""How far ever stronger adversaries move the outputs of one decomposition: one line of JSON.

With --data FILE the line also goes there, among those of other experiments and seeds; the ledger's
page of sweeps shows book/attacks.json.

    python tests/benchmarks/attack_ladder.py EXPERIMENT --seed 1000       # trained anew
    python tests/benchmarks/attack_ladder.py EXPERIMENT --file FILE       # a saved one

Inputs are the experiment's probes, one feature at 0.75 in each, of which the first `--probes` are
used. Changes are the largest of any one output, input by input; of them the line gives mean and
worst over the inputs: of what 99 % of random masks stay below, of each rung of `masks.ladder` with
own and with shared sources, and of `masks.worst_case` ("search"), aimed at that change ("output")
and at the run's divergence. Where few pieces are live, also of every corner of theirs, the rest on.
With the errors and warnings of `diagnose`, and whether the mechanisms were recovered.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import cells, ledger_data

import spd_mini as spd
from spd_mini import masks
from spd_mini.decomposition import Decomposition
from spd_mini.recovery import Truth
from spd_mini.targets import PUBLISHED, AnyPreset, tms

RUNGS = (1, 4, 20, 100)
DRAWS = 200
MOST_FREE = 12
"""Live pieces of which every corner is tried: 2^12 masks of each probe."""


def change(d: Decomposition, x: Tensor, m: dict[str, Tensor]) -> Tensor:
    """(B,): the largest change of one output in each row of x under masks m."""
    return (d(x, m) - d.target(x)).flatten(1).abs().amax(1)


def both(values: Tensor) -> dict[str, float]:
    """Mean and worst over the inputs."""
    return {"mean": round(values.mean().item(), 5), "worst": round(values.max().item(), 5)}


@torch.no_grad()
def attacks(d: Decomposition, x: Tensor, seed: int = 0) -> dict[str, Any]:
    """Every figure of the ladder on the inputs x (B, n_features)."""
    g, generator = d.causal_importance(x), torch.Generator().manual_seed(seed)
    drawn = torch.stack([change(d, x, masks.random(g, generator)) for _ in range(DRAWS)])
    found: dict[str, Any] = {"random_99": both(drawn.quantile(0.99, dim=0)), "ladder": {}}
    for measure in get_args(masks.Measure):
        for shared in (False, True):
            name = f"{measure}, {'shared' if shared else 'own'}"
            rungs = masks.ladder(d, x, RUNGS, seed=seed, shared=shared, measure=measure)
            figures = {str(steps): both(change(d, x, m)) for steps, m in rungs.items()}
            m = masks.worst_case(d, x, seed=seed, shared=shared, measure=measure)
            found["ladder"][name] = figures | {"search": both(change(d, x, m))}
    live = sum(int((v.flatten(0, -2).amax(0) > masks.LIVE).sum()) for v in g.values())
    if live <= MOST_FREE:
        found["corners_of_live"] = both(masks.corners(d, x, measure="output").errors.amax(0))
    return found


def matrices(preset: AnyPreset) -> int:
    """How many matrices of the experiment's model are decomposed."""
    return 2 + preset.identity if isinstance(preset, tms.Preset) else 2 * preset.n_layers


def key(line: cells.Cell) -> tuple[Any, ...]:
    """What makes two lines the same, and their order."""
    return list(PUBLISHED).index(line["experiment"]), line["seed"], line["probes"]


def measure(preset: AnyPreset, seed: int, file: Path | None, probes: int | None) -> dict[str, Any]:
    """The whole line. Raises ValueError for a file that holds another experiment's model."""
    started = time.process_time()
    if file is None:
        target = preset.train(seed)
        d = spd.decompose(
            target, preset.sampler(), preset.config, tied=target.tied, seed=seed, progress=False
        )
    else:
        d = spd.load(file)
    truth: Truth = d.target.truth()  # type: ignore[operator]  # every toy target knows its truth
    made = time.process_time()
    x = truth.probes[:probes]
    if x.shape[1] != preset.n_features or len(d.names) != matrices(preset):
        raise ValueError(f"{file} does not hold a decomposition of {preset.name}")
    report, seen = spd.recovery.report(d, truth), spd.diagnose(d, preset.sampler(), seed=0)
    return {
        "experiment": preset.name,
        "seed": seed if file is None else d.info["seed"],
        "file": None if file is None else file.name,
        "recovered": report.recovered,
        "reasons": report.reasons,
        "loss": d.info["loss"],
        "adversary_coeff": d.config.adversary_coeff,
        "probes": len(x),
        "output": round(d.target(x).abs().max().item(), 5),
        **attacks(d, x),
        "diagnose": {k: round(v, 5) for k, v in seen.errors.items()},
        "warnings": sorted({w.kind for w in seen.warnings}),
        "train_seconds": round(made - started, 1),
        "attack_seconds": round(time.process_time() - made, 1),
        **ledger_data.environment("cpu"),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0 when a line was printed, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("experiment", choices=list(PUBLISHED))
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--seed", type=int, default=1000, help="of the target and the run")
    source.add_argument("--file", type=Path, help="a saved decomposition instead")
    parser.add_argument("--probes", type=int, help="use the first so many; default: all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, help="a file of lines, into which this one goes")
    args = parser.parse_args(argv)
    try:
        if args.threads < 1 or (args.probes is not None and args.probes < 1):
            raise ValueError("--threads and --probes must be ≥ 1")
        torch.set_num_threads(args.threads)
        line = measure(PUBLISHED[args.experiment], args.seed, args.file, args.probes)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    print(json.dumps(line, allow_nan=False))
    if args.data:
        cells.update(args.data.resolve(), [line], key)
    return 0


if __name__ == "__main__":
    sys.exit(main())
