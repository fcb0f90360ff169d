"""Command line: list the experiments, run them over seeds, measure their speed."""

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from . import __version__, recovery
from .config import Config
from .decompose import sweep
from .decomposition import resolve_device
from .run import Run
from .targets import EXPERIMENTS, facts

UNJUDGED = "no verdict, it is not known what is to be found"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit status: 0 when it ran, 2 with one line for bad input."""
    parser = argparse.ArgumentParser(prog="python -m spd_mini", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the experiments and their sizes")
    run = commands.add_parser("run", help="train a target, decompose it, report, for each seed")
    run.add_argument("experiment")
    run.add_argument("--seeds", default="0", help="a seed, a list 0,3,7 or a range 0:10")
    run.add_argument("--target-seed", default="0", help="seed of the target, or 'same' = the seed")
    run.add_argument("--save", metavar="DIR", help="write each decomposition there")
    run.add_argument(
        "--together", action="store_true", help="seeds of one target side by side, in one process"
    )
    bench = commands.add_parser(
        "bench", help="milliseconds per training step, ours and the paper's"
    )
    bench.add_argument("experiment", nargs="*")
    bench.add_argument("--steps", type=int, default=50, help="timed steps per setting")
    for command in (run, bench):
        command.add_argument("--device", default="auto")
        command.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
        command.add_argument("--paper", action="store_true", help="the paper's own settings")
        command.add_argument("--json", metavar="FILE", help="write results there; - = stdout")
    args = parser.parse_args(argv)
    try:
        return _dispatch(args)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def _dispatch(args: argparse.Namespace) -> int:
    if args.command == "list":
        for name, preset in EXPERIMENTS.items():
            c = preset.config
            sys.stdout.write(f"{name:14} {preset.summary():52} C {c.C}, {c.steps} steps\n")
        return 0
    if args.threads < 1:
        raise ValueError(f"--threads must be ≥ 1, got {args.threads}")
    device = resolve_device(args.device)
    torch.set_num_threads(args.threads)
    if args.command == "bench":
        if args.steps < 1:
            raise ValueError(f"--steps must be ≥ 1, got {args.steps}")
        names = args.experiment or [
            n for n, p in EXPERIMENTS.items() if p.paper_config or not args.paper
        ]
        results = [_bench(_preset(n), args.steps, args.paper, device) for n in names]
        for r in results:
            _say(f"{r['experiment']}: {r['ms_per_step_median']:.1f} ms a step on {r['device']}")
        _write(args.json, results)
        return 0
    preset, seeds = _preset(args.experiment), parse_seeds(args.seeds)
    targets = {s: s if args.target_seed == "same" else _integer(args.target_seed) for s in seeds}
    groups = [[s] for s in seeds]
    if args.together:
        groups = [[s for s in seeds if targets[s] == t] for t in dict.fromkeys(targets.values())]
    rows: list[dict[str, Any]] = []
    _write(args.json, rows, final=False)  # a path that cannot be written is noticed now
    for group in groups:
        rows += _run(preset, group, targets[group[0]], device, args)
        interrupted = not rows[-1]["finished"]
        _write(args.json, rows, final=interrupted or len(rows) == len(seeds))
        if interrupted:
            break
    judged = [r["recovered"] for r in rows if r["recovered"] is not None]
    said = f"{sum(judged)} of {len(judged)} recovered" if judged else UNJUDGED
    _say(f"{preset.name}: {said}")
    return 0


def _run(
    preset: Any, seeds: list[int], target_seed: int, device: torch.device, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """One target, decomposed from one seed, or from several side by side: a result for each."""
    config = _config(preset, args.paper)
    started = time.process_time()
    target = preset.train(target_seed)
    trained = time.process_time()
    ds = sweep(
        target,
        _sampler(preset, target, args.paper),
        config,
        seeds,
        tied=target.tied,
        device=device,
        progress=_say if len(sys.argv) and sys.stderr.isatty() else False,
    )
    seconds = (time.process_time() - trained) / len(seeds)
    rows = []
    for seed, d in zip(seeds, ds, strict=True):
        report = recovery.report(d, target.truth())
        if args.save:
            d.save(Path(args.save) / f"{preset.name}-seed{seed}.safetensors")
        verdict = "recovered" if report.recovered else "NOT recovered: " + "; ".join(report.reasons)
        if report.recovered is None:
            verdict = "; ".join([UNJUDGED, *report.reasons])
        _say(f"{preset.name} seed {seed} target {target_seed}: {seconds:.1f} s, {verdict}")
        row = dataclasses.asdict(report)
        del row["order"]
        about = {
            "experiment": preset.name,
            "seed": seed,
            "target_seed": target_seed,
            "device": str(d.device),
            "threads": torch.get_num_threads(),
            "steps": config.steps,
            "paper_settings": args.paper,
            "finished": d.finished,
            "restarts": config.restarts,
            "restart_losses": d.info["restart_losses"],
            "splits": d.info["splits"],
            "pruned": d.info["pruned"],
            "merges": d.info["merges"],
            "births": d.info["births"],
            "seeds_side_by_side": len(seeds),
            "target_restarts": target.training_info["restarts"],
            "target_seconds": trained - started,
            "decompose_seconds": seconds,
            "decompose_wall_seconds": d.info["seconds"] / len(seeds),
        }
        rows.append(about | row)
    return rows


def _bench(preset: Any, steps: int, paper: bool, device: torch.device) -> dict[str, Any]:
    """Median CPU (or, on CUDA, wall) milliseconds per training step, after a warm-up."""
    target, config = dataclasses.replace(preset, train_steps=50).train(0), _config(preset, paper)
    run = Run(target, _sampler(preset, target, paper), config, None, target.tied, 0, device)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    times = []
    for step in range(steps + 5):
        start = clock()
        run.train_step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if step >= 5:
            times.append(1e3 * (clock() - start))
    return {
        "experiment": preset.name,
        "paper_settings": paper,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "restarts": config.restarts,
        "batch_size": config.batch_size,
        "ms_per_step_median": statistics.median(times),
        "ms_per_step_min": min(times),
        "projected_seconds": statistics.median(times) * config.steps / 1e3,
    }


def _preset(name: str) -> Any:
    if name not in EXPERIMENTS:
        raise ValueError(f"unknown experiment '{name}'; there are {list(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def _config(preset: Any, paper: bool) -> Config:
    """An experiment's settings. Raises ValueError for the paper's where it has none."""
    config: Config | None = preset.paper_config if paper else preset.config
    if config is None:
        raise ValueError(f"the paper has no experiment '{preset.name}'")
    return config


def _sampler(preset: Any, target: Any, paper: bool) -> Any:
    """Inputs for the decomposition. Those of facts are made from the keys of their own target."""
    if isinstance(preset, facts.Preset):
        return preset.sampler(target)
    return preset.sampler(paper)


def parse_seeds(text: str) -> list[int]:
    """ "7" → [7]; "0,3" → [0, 3]; "0:10" → [0, …, 9]. Raises ValueError for anything else."""
    if ":" in text:
        first, _, last = text.partition(":")
        seeds = list(range(_integer(first), _integer(last)))
    else:
        seeds = [_integer(t) for t in text.split(",")]
    if not seeds or min(seeds) < 0:
        raise ValueError(f"--seeds needs at least one seed ≥ 0, such as 0:10; got '{text}'")
    return seeds


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"'{text}' is not an integer seed") from None


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _write(where: str | None, rows: list[dict[str, Any]], final: bool = True) -> None:
    """Results as JSON: a file is rewritten (atomically) after each seed, stdout at the end."""
    text = json.dumps(rows, indent=1)
    if where is None or where == "-":
        if final:
            sys.stdout.write(text + "\n" if where else "")
        return
    path = Path(where)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text + "\n")
    os.replace(file.name, path)


if __name__ == "__main__":
    sys.exit(main())
