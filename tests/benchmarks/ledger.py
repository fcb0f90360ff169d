"""Runs every experiment over its seeds and writes the results ledger, appendix A of the book.

    python tests/benchmarks/ledger.py [EXPERIMENT …] [--seeds 1000:1020] [--jobs 2] [--device cpu]
    python tests/benchmarks/ledger.py --merge FILE …    # runs or comparisons made elsewhere
    python tests/benchmarks/ledger.py --only-render     # the page again, from the data there is

Each seed is a process of its own: `python -m spd_mini run`, with one thread. Results go into
book/ledger.json after every run, so that an interrupted ledger goes on where it stopped; runs made
by the presets as they stand are not repeated. At the end the page and its figure are written.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import ledger_data, ledger_page, sweeps_page
from benchmarks.ledger_data import DATA, FIRST_SEED, PLAN, PRESETS, Data

from spd_mini.__main__ import main as command_line
from spd_mini.__main__ import parse_seeds
from spd_mini.targets import EXPERIMENTS


class RunError(RuntimeError):
    """A run that ended without a result."""


def say(line: str) -> None:
    """One line about progress."""
    sys.stderr.write(line + "\n")


def one(name: str, seed: int, device: str, jobs: int) -> Data:
    """Make one run here, through the command line: a ledger with this run alone.

    What is noted of preset and machine is what this process sees: presets may be edited while
    other runs go on. Raises SystemExit with the command line's status when that is not 0.
    """
    preset = EXPERIMENTS.setdefault(name, PRESETS[name])  # so that the command line knows twins
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        argv = ["run", name, "--seeds", str(seed), "--target-seed", "same", "--device", device]
        if status := command_line([*argv, "--threads", "1", "--json", str(file)]):
            raise SystemExit(status)
        (row,) = json.loads(file.read_text(encoding="utf-8"))
    description = ledger_data.describe(preset)
    key = ledger_data.key_of(description)
    run = row | {"preset": key, "at_once": jobs} | ledger_data.environment(row["device"])
    return {"presets": {key: description}, "runs": [run], "side_by_side": []}


def run_seed(name: str, seed: int, device: str, jobs: int) -> Data:
    """`one` in a process of its own. Raises RunError with its last words if there is no result."""
    command = [sys.executable, __file__, name, "--one", str(seed), "--device", device]
    done = subprocess.run(
        [*command, "--jobs", str(jobs)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise RunError(f"{name} seed {seed}: {said}")
    data: Data = json.loads(done.stdout)
    if not data["runs"][0]["finished"]:
        raise RunError(f"{name} seed {seed}: interrupted")
    return data


def to_do(
    data: Data, names: Iterable[str], seeds: str | None, device: str
) -> list[tuple[str, int]]:
    """The runs that are still missing, or were made by another preset."""
    done = {ledger_data.place(run) for run in data["runs"] if ledger_data.is_current(data, run)}
    wanted = [(n, s) for n in names for s in (parse_seeds(seeds) if seeds else PLAN[n].seeds)]
    return [
        (n, s)
        for n, s in wanted
        if ledger_data.place({"experiment": n, "seed": s, "device": device}) not in done
    ]


def run_all(todo: Sequence[tuple[str, int]], device: str, jobs: int, path: Path) -> int:
    """Make the runs, `jobs` at a time, each into the file as it ends. Returns how many could not
    be made."""
    failed = 0
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(run_seed, n, s, device, jobs) for n, s in todo}
        try:
            for i, future in enumerate(as_completed(futures), 1):
                try:
                    new = future.result()
                except RunError as error:
                    failed += 1
                    say(f"{i}/{len(todo)} {error}")
                    continue
                ledger_data.update(path, new)
                (row,) = new["runs"]
                verdict = "recovered" if row["recovered"] else "; ".join(row["reasons"])
                say(
                    f"{i}/{len(todo)} {row['experiment']} seed {row['seed']}: "
                    f"{row['decompose_seconds']:.1f} s, {verdict}"
                )
        except BaseException:  # Ctrl-C above all: nothing new may begin
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0 when the page is written, 1 when a run failed, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("experiments", nargs="*", help="default: all of them")
    parser.add_argument("--seeds", help="such as 1000:1020; default: those planned")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--merge", type=Path, nargs="+", metavar="FILE", help="take these in")
    parser.add_argument("--only-render", action="store_true", help="run nothing")
    parser.add_argument("--data", type=Path, default=DATA, help="the page is written beside it")
    parser.add_argument("--one", type=int, metavar="SEED", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    try:
        return _work(args)
    except (ValueError, OSError) as error:
        say(f"error: {error}")
        return 2


def _work(args: argparse.Namespace) -> int:
    names, path = args.experiments or list(PLAN), args.data.resolve()
    if unknown := [n for n in names if n not in PLAN]:
        raise ValueError(f"unknown experiments {unknown}; the ledger has {list(PLAN)}")
    if args.seeds and min(parse_seeds(args.seeds)) < FIRST_SEED:
        raise ValueError(f"the ledger's seeds start at {FIRST_SEED}; smaller ones served tuning")
    if args.jobs < 1:
        raise ValueError(f"--jobs must be ≥ 1, got {args.jobs}")
    if args.one is not None:
        print(ledger_data.dump(one(names[0], args.one, args.device, args.jobs)))
        return 0
    failed = 0
    for file in args.merge or []:
        if not file.exists():
            raise ValueError(f"{file} is not there")
        new = ledger_data.load(file)
        ledger_data.check(new)
        ledger_data.update(path, new)
    if not args.merge and not args.only_render:
        todo = to_do(ledger_data.load(path), names, args.seeds, args.device)
        say(f"{len(todo)} runs to make; results go into {path.name} one by one")
        failed = run_all(todo, args.device, args.jobs, path)
        unmade = f"{failed} of {len(todo)} runs ended without a result"
    data = ledger_data.load(path)
    ledger_data.check(data)
    for file in [*ledger_page.write(data, path.parent), *sweeps_page.write(path.parent)]:
        say(f"wrote {file.name}")
    if failed:
        say(unmade)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
