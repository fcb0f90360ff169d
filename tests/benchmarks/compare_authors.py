"""Time and memory of one training step: the authors' released code against spd_mini, in one run.

Both decompose the same target with the paper's settings (batch, C, d_gate), in turns, in one
process, on the same number of threads. The authors' code is imported from a checkout that you give
(the release of the paper is tag `v1` of github.com/goodfire-ai/spd; it needs einops, jaxtyping,
pydantic, dotenv, matplotlib, pyyaml and tqdm); packages that their import chain names but a
training step never uses are replaced by empty stand-ins. Nothing of theirs is copied.

    python tests/benchmarks/compare_authors.py --authors PATH [resid-mlp-1 …] [--json FILE]
    python tests/benchmarks/ledger.py --merge FILE        # into the results ledger

Time is CPU time of the process; the allocator setting of `spd_mini` (large blocks are kept) holds
for both, since they share the process. Memory is the peak resident set during a few steps, less
what was resident before them, each side in a process of its own (Linux only).
"""

import argparse
import copy
import dataclasses
import importlib
import json
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.ledger_data import environment

from spd_mini.run import Run
from spd_mini.targets import PUBLISHED

UNUSED = ["wandb", "wandb.apis", "wandb.apis.public", "transformers", "datasets"]
UNUSED += ["datasets.distributed", "streamlit", "dotenv", "fire"]
WARM = 2
EFFORT = {"resid-mlp-2": (5, 5), "resid-mlp-3": (3, 2)}  # rounds, steps a round; a step is seconds
USUAL = (5, 15)
FIRST_STEPS = 20  # of the target's training: what a step costs does not depend on the weights


class StandIn(types.ModuleType):
    """An empty package: every name in it is an empty class."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def import_authors(path: Path) -> dict[str, Any]:
    """The authors' modules, by short name. Raises SystemExit with one line where that fails."""
    if not (path / "spd" / "run_spd.py").is_file():
        raise SystemExit(f"error: {path} is not a checkout of the authors' code: no spd/run_spd.py")
    sys.path.insert(0, str(path))
    for name in UNUSED:
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = StandIn(name)
    try:
        names = ("spd.run_spd", "spd.configs", "spd.data_utils")
        return {n.split(".")[-1]: importlib.import_module(n) for n in names}
    except ImportError as error:
        raise SystemExit(f"error: the authors' code needs a package: {error}") from error


class Clock:
    """Stands in for their progress bar: notes the CPU time at the start of every step."""

    def __init__(self, steps: range, **_: Any) -> None:
        self.steps = steps
        Clock.times = []

    times: list[float]

    def __iter__(self) -> Iterator[int]:
        for step in self.steps:
            Clock.times.append(time.process_time())
            yield step

    write = staticmethod(lambda _: None)


def their_steps(theirs: dict[str, Any], target: Any, preset: Any, steps: int) -> list[float]:
    """Milliseconds of CPU time of each of `steps` training steps of the authors' `optimize`."""
    c, inputs = preset.paper_config, preset.sampler(True)
    residual = target.structure()["kind"] == "residual"
    config = theirs["configs"].Config(
        C=c.C,
        n_mask_samples=c.mask_samples,
        n_ci_mlp_neurons=c.gate_hidden,
        target_module_patterns=[n for n, m in target.named_modules() if isinstance(m, nn.Linear)],
        stochastic_recon_coeff=1.0,
        stochastic_recon_layerwise_coeff=1.0,
        importance_minimality_coeff=c.importance_coeff,
        pnorm=c.p,
        output_loss_type=c.output_loss,
        lr=c.lr,
        steps=steps + WARM,
        batch_size=c.batch_size,
        lr_schedule=c.lr_schedule,
        n_eval_steps=1,
        print_freq=10**9,
        pretrained_model_class=f"{type(target).__module__}.{type(target).__name__}",
        task_config={
            "task_name": "residual_mlp" if residual else "tms",
            "feature_probability": inputs.probability,
            "data_generation_type": "at_least_zero_active",
        },
    )
    data = theirs["data_utils"]
    dataset = data.SparseFeatureDataset(
        n_features=inputs.n_features,
        feature_probability=inputs.probability,
        device="cpu",
        data_generation_type="at_least_zero_active",
        value_range=(inputs.low, inputs.high),
        synced_inputs=None,
    )
    loader = data.DatasetGeneratedDataLoader(dataset, batch_size=c.batch_size, shuffle=False)
    theirs["run_spd"].tqdm = Clock
    theirs["run_spd"].optimize(
        target_model=target,
        config=config,
        device="cpu",
        train_loader=loader,
        eval_loader=loader,
        n_eval_steps=1,
        out_dir=None,
        tied_weights=[(source, name) for name, source in target.tied.items()] or None,
    )
    pairs = zip(Clock.times[WARM:-1], Clock.times[WARM + 1 :], strict=True)
    return [1e3 * (b - a) for a, b in pairs]


def our_sides(target: Any) -> list[str]:
    """Ways to make our step: the same rows as theirs, or zero rows once; then with shortcuts."""
    sides = ["plain", "no_zero_rows"]
    return sides + ([f"{s}_shortcuts" for s in sides] if hasattr(target, "shortcut") else [])


def our_run(side: str, target: Any, preset: Any) -> Run:
    """A run with the paper's settings, one of `our_sides`."""
    config = dataclasses.replace(preset.paper_config, shortcuts=side.endswith("shortcuts"))
    sampler = preset.sampler(True)
    if side.startswith("no_zero_rows"):
        # As many non-zero rows as the plain batch holds on average; one zero row for all others.
        sampler = dataclasses.replace(sampler, stratified=True)
        rows = round(config.batch_size * (1 - sampler.p_zero))
        config = dataclasses.replace(config, batch_size=rows)
    return Run(target, sampler, config, None, target.tied, 0, torch.device("cpu"))


def our_steps(run: Run, steps: int) -> list[float]:
    """Milliseconds of CPU time of each of `steps` of our training steps."""
    times = []
    for _ in range(steps):
        start = time.process_time()
        run.train_step()
        times.append(1e3 * (time.process_time() - start))
    return times


def untrained(preset: Any) -> Any:
    """The experiment's target after a few steps of training."""
    return dataclasses.replace(preset, train_steps=FIRST_STEPS).train(0)


def resident(field: str) -> int:
    """Resident bytes of this process: now ("VmRSS") or at their peak ("VmHWM")."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}; memory is measured on Linux only")


def peak_mib(theirs: dict[str, Any] | None, side: str, preset: Any) -> float:
    """Peak memory of three steps of one side, in this process, above what it held before."""
    target = untrained(preset)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident("VmRSS")
    if theirs is not None:
        their_steps(theirs, target, preset, 1)
    else:
        our_steps(our_run(side, target, preset), 1 + WARM)
    return (resident("VmHWM") - before) / 2**20


def peak_in_a_process(side: str, preset: Any, authors: Path, threads: int) -> float:
    """`peak_mib` in a fresh process. Raises SystemExit, with what it said, when that fails."""
    command = [sys.executable, __file__, preset.name, "--authors", str(authors)]
    command += ["--threads", str(threads), "--peak-of", side]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise SystemExit(f"error: memory of {side}, {preset.name}: {said}")
    return float(done.stdout.split()[-1])


def compare(
    theirs: dict[str, Any], preset: Any, rounds: int, steps: int, authors: Path
) -> dict[str, Any]:
    """Medians over all steps of alternating rounds, the ratio round by round, and peak memory."""
    target, config, threads = untrained(preset), preset.paper_config, torch.get_num_threads()
    sides = our_sides(target)
    memory = {s: peak_in_a_process(s, preset, authors, threads) for s in ("authors", *sides)}
    runs = {side: our_run(side, target, preset) for side in sides}
    for run in runs.values():
        our_steps(run, WARM)
    times: dict[str, list[float]] = {"authors": [], **{side: [] for side in sides}}
    for _ in range(rounds):
        theirs_now = their_steps(theirs, copy.deepcopy(target), preset, steps)
        times["authors"].append(statistics.median(theirs_now))
        for side, run in runs.items():
            times[side].append(statistics.median(our_steps(run, steps)))
    step = {side: statistics.median(each) for side, each in times.items()}
    return {
        "experiment": preset.name,
        "threads": threads,
        "rounds": rounds,
        "steps_per_round": steps,
        "batch_size": config.batch_size,
        "C": config.C,
        "gate_hidden": config.gate_hidden,
        "paper_steps": config.steps,
        "ms_per_step": step,
        "authors_over_ours": {
            side: statistics.median(
                a / b for a, b in zip(times["authors"], times[side], strict=True)
            )
            for side in sides
        },
        "projected_hours": {side: ms * config.steps / 3.6e6 for side, ms in step.items()},
        "peak_mib": memory,
        **environment("cpu"),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print one line for each experiment, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("experiments", nargs="*", help="default: all of them")
    parser.add_argument("--authors", type=Path, required=True, help="their checkout")
    parser.add_argument("--rounds", type=int, help="alternating rounds (5; 3 for resid-mlp-3)")
    parser.add_argument("--steps", type=int, help="timed steps a round (15; fewer for slow ones)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="results, as ledger.py --merge takes them")
    parser.add_argument("--peak-of", metavar="SIDE", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if unknown := [n for n in args.experiments if n not in PUBLISHED]:
        raise SystemExit(f"error: unknown experiments {unknown}; there are {list(PUBLISHED)}")
    torch.set_num_threads(args.threads)
    if args.peak_of:
        theirs = import_authors(args.authors) if args.peak_of == "authors" else None
        print(peak_mib(theirs, args.peak_of, PUBLISHED[args.experiments[0]]))
        return
    theirs, rows = import_authors(args.authors), []
    for name in args.experiments or PUBLISHED:
        rounds, steps = EFFORT.get(name, USUAL)
        rounds, steps = args.rounds or rounds, args.steps or steps
        rows.append(compare(theirs, PUBLISHED[name], rounds, steps, args.authors.resolve()))
        print(json.dumps(rows[-1]), flush=True)
        if args.json:
            args.json.write_text(json.dumps({"side_by_side": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
