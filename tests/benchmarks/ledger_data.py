"""The results ledger's data: what is planned, what was run and by which preset, and what must hold.

One JSON file: `presets` {key: settings}, `runs` (rows of `python -m spd_mini run --json`, each with
the key of its preset and where and when it was made) and `side_by_side` (rows of
compare_authors.py). A file with only some of these can be merged into it.
"""

import dataclasses
import fcntl
import hashlib
import json
import math
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from spd_mini import Config
from spd_mini.targets import PUBLISHED

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "book" / "ledger.json"
FIRST_SEED = 1000
"""Settings were chosen on smaller seeds."""

Data = dict[str, Any]
PARTS = ("presets", "runs", "side_by_side")


GRADIENT = "-gradient"
"""Ends the name of an experiment's twin without discrete moves."""


def moves(*options: Any) -> bool:
    """Whether `Config.split_every` or `Config.prune_at`, or their descriptions, ask for a move."""
    tables = (o.items() if isinstance(o, Mapping) else o for o in options)
    return any(any(n for _, n in t) if not isinstance(t, int | float) else bool(t) for t in tables)


def with_twins(presets: Mapping[str, Any]) -> dict[str, Any]:
    """The presets, each one that uses discrete moves followed by a twin that does not."""
    found: dict[str, Any] = {}
    for name, preset in presets.items():
        found[name] = preset
        if moves(preset.config.split_every, preset.config.prune_at):
            config = dataclasses.replace(preset.config, split_every=0, prune_at=0.0, birth_from=0.0)
            twin = name + GRADIENT
            found[twin] = dataclasses.replace(preset, name=twin, config=config)
    return found


PRESETS = with_twins(PUBLISHED)
"""What the ledger runs, in its order."""


@dataclass(frozen=True)
class Plan:
    """Seeds that an experiment is run over, and the aim set for it.

    aim_of_20: runs recovered out of 20; aim_seconds: CPU seconds of one run.
    """

    seeds: range
    aim_of_20: int
    aim_seconds: int


TWENTY, TEN = range(FIRST_SEED, FIRST_SEED + 20), range(FIRST_SEED, FIRST_SEED + 10)
AIMS = {
    "tms-5-2": Plan(TWENTY, 19, 8),
    "tms-5-2-id": Plan(TWENTY, 19, 10),
    "tms-40-10": Plan(TWENTY, 19, 30),
    "tms-40-10-id": Plan(TWENTY, 19, 45),
    "resid-mlp-1": Plan(TEN, 18, 60),
    "resid-mlp-2": Plan(TEN, 16, 180),
    "resid-mlp-3": Plan(TEN, 12, 600),
}
SLOW = ("resid-mlp-2", "resid-mlp-3")
PLAN = {name: AIMS[name.removesuffix(GRADIENT)] for name in PRESETS} | {
    name + GRADIENT: dataclasses.replace(AIMS[name], seeds=range(FIRST_SEED, FIRST_SEED + 3))
    for name in SLOW  # minutes a run, and none of these has been seen to succeed
}


# Presets: a run counts as long as the preset that made it still stands


def _plain(value: Any) -> Any:
    """JSON values. Tables become lists of pairs: the first pattern that matches wins."""
    if isinstance(value, Mapping):
        return [[k, _plain(v)] for k, v in value.items()]
    return value


def describe(preset: Any) -> dict[str, Any]:
    """What decides a run: every field of a preset, its Config's as "config.…", as JSON values.

    The paper's settings stand in a preset as well, but not in its runs: they are left out.
    """
    fields = {f.name: getattr(preset, f.name) for f in dataclasses.fields(preset)}
    del fields["paper_config"]
    fields |= {f"config.{k}": v for k, v in fields.pop("config").to_dict().items()}
    return {k: _plain(v) for k, v in sorted(fields.items())}


def key_of(description: Mapping[str, Any]) -> str:
    """Hash of a description: the first 16 hexadecimal digits of the SHA-256 of its JSON."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]


def changes(then: Mapping[str, Any], preset: Any) -> list[str]:
    """What differs between a description and a preset as it stands; empty = the same runs.

    A setting that did not exist then changes nothing while it keeps its default.
    """
    now = describe(preset)
    defaults = {f.name: f.default for f in dataclasses.fields(preset)}
    defaults |= {f"config.{k}": _plain(v) for k, v in Config().to_dict().items()}
    found = []
    for k in sorted({*now, *then}):
        if k not in now:
            found.append(f"{k} is no setting any more")
        elif k in then and then[k] != now[k]:
            found.append(f"{k} was {then[k]}, is {now[k]}")
        elif k not in then and now[k] != defaults[k]:
            found.append(f"{k} is new, {now[k]}")
    return found


def is_current(data: Data, run: Mapping[str, Any]) -> bool:
    """Whether a run was made by its experiment's preset as it stands."""
    then, preset = data["presets"].get(run["preset"]), PRESETS.get(run["experiment"])
    return then is not None and preset is not None and not changes(then, preset)


# The file


def load(path: Path) -> Data:
    """The ledger in a file; parts that it lacks are empty. Raises ValueError if it is not one."""
    empty: Data = {"presets": {}, "runs": [], "side_by_side": []}
    if not path.exists():
        return empty
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict) or not data or not set(data) <= set(PARTS):
        raise ValueError(f"{path} is no ledger: it may have {list(PARTS)} and nothing else")
    return empty | data


def dump(data: Data) -> str:
    """The file's text: one line for each preset, run and comparison."""
    presets = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in data["presets"].items()]
    rows = {part: [json.dumps(row, ensure_ascii=False) for row in data[part]] for part in PARTS[1:]}
    blocks = [("presets", "{}", presets), *((part, "[]", rows[part]) for part in rows)]
    texts = [
        f'"{part}": {ends[0]}' + ",".join(f"\n  {line}" for line in lines) + f"\n {ends[1]}"
        for part, ends, lines in blocks
    ]
    return "{\n " + ",\n ".join(texts) + "\n}\n"


def place(run: Mapping[str, Any]) -> tuple[int, str, int]:
    """Order of runs, and what makes one the same as another: experiment, kind of device, seed."""
    kind = str(run["device"]).split(":")[0]
    names = [*PRESETS, run["experiment"]]  # one that is no more comes last
    return names.index(run["experiment"]), kind, run["seed"]


def merge(data: Data, new: Data) -> Data:
    """Both ledgers in one; where both have the same run, the new one stands.

    Runs of an experiment that has new ones go if an earlier preset made them.
    """
    presets = {**data["presets"], **new["presets"]}
    both = {"presets": presets}
    renewed = {run["experiment"] for run in new["runs"]}
    kept = [r for r in data["runs"] if r["experiment"] not in renewed or is_current(both, r)]
    runs = {place(run): run for run in [*kept, *new["runs"]]}
    rows = {row["experiment"]: row for row in [*data["side_by_side"], *new["side_by_side"]]}
    used = {run["preset"] for run in runs.values()}
    return {
        "presets": {k: v for k, v in presets.items() if k in used},
        "runs": [runs[k] for k in sorted(runs)],
        "side_by_side": [rows[n] for n in PUBLISHED if n in rows],
    }


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time, by a lock on the folder itself."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def update(path: Path, new: Data) -> Data:
    """Merge into the file, atomically and safe against other processes doing the same."""
    with locked(path.parent):
        data = merge(load(path), new)
        write(path, dump(data))
    return data


def write(path: Path, text: str) -> None:
    """Put a text in a file's place in one step: a reader finds the old one or the new one."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


# Where and when


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def environment(device: str) -> dict[str, Any]:
    """Machine, versions, date and commit ("+": the package had uncommitted changes)."""
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    changed = "+" if _git("status", "--porcelain", "--", "spd_mini") else ""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": (_git("rev-parse", "--short=10", "HEAD") or "unknown") + changed,
    }


# What must hold

FACTS = {"cpu", "cores", "gpu", "torch", "python", "date", "commit"}
RUN_KEYS = FACTS | {
    "experiment", "seed", "target_seed", "device", "threads", "steps", "restarts",
    "target_seconds", "decompose_seconds", "decompose_wall_seconds", "finished", "paper_settings",
    "recovered", "reasons", "identity_errors", "dense_errors", "live", "mmcs", "mmcs_null", "ml2r",
    "contribution_r", "contribution_slope", "faithfulness_relative", "recon", "preset", "at_once",
}  # fmt: skip
SIDE_KEYS = FACTS | {
    "experiment", "threads", "rounds", "steps_per_round", "batch_size", "C", "gate_hidden",
    "paper_steps", "ms_per_step", "authors_over_ours", "projected_hours", "peak_mib",
}  # fmt: skip


def numbers(value: Any) -> Iterator[float]:
    """Every number in nested JSON values."""
    if isinstance(value, Mapping):
        value = value.values()
    if isinstance(value, Iterable) and not isinstance(value, str):
        for part in value:
            yield from numbers(part)
    elif isinstance(value, int | float):
        yield value


def _complaints(data: Data, run: Data, seen: set[tuple[int, str, int]]) -> Iterator[str]:
    """What is wrong with one run; `seen` are the places of those before it."""
    if missing := sorted(RUN_KEYS - set(run)):
        yield f"lacks {missing}"
        return
    if run["experiment"] not in PLAN:
        yield "not an experiment of the ledger"
        return
    if run["seed"] < FIRST_SEED:
        yield f"seeds start at {FIRST_SEED}"
    if run["target_seed"] != run["seed"]:
        yield f"the target has seed {run['target_seed']}"
    if not run["finished"] or run["paper_settings"]:
        yield "not a finished run of our own settings"
    if run["recovered"] != (not run["reasons"]):
        yield "recovered without reasons against it, or the reverse"
    if not all(math.isfinite(number) for number in numbers(run)):
        yield "a number is not finite"
    if place(run) in seen:
        yield "twice"
    if (then := data["presets"].get(run["preset"])) is None or key_of(then) != run["preset"]:
        yield "no preset with its hash"
    elif changed := changes(then, PRESETS[run["experiment"]]):
        yield f"made by another preset ({'; '.join(changed)})"


def problems(data: Data) -> list[str]:
    """Everything that is wrong with a ledger, each in one line; empty = well-formed and current."""
    found, seen = [], set[tuple[int, str, int]]()
    for run in data["runs"]:
        complaints = list(_complaints(data, run, seen))
        found += [f"{run.get('experiment')} seed {run.get('seed')}: {c}" for c in complaints]
        if {"experiment", "device", "seed"} <= set(run):
            seen.add(place(run))
    for row in data["side_by_side"]:
        name = f"side by side, {row.get('experiment')}"
        if missing := sorted(SIDE_KEYS - set(row)):
            found.append(f"{name}: lacks {missing}")
        elif row["experiment"] not in PUBLISHED:
            found.append(f"{name}: not an experiment of the ledger")
        elif not all(math.isfinite(n) and n >= 0 for n in numbers(row)):
            found.append(f"{name}: a number is negative or not finite")
        elif wrong := [k for k, v in paper_settings(row["experiment"]).items() if row[k] != v]:
            found.append(f"{name}: not made with the paper's {', '.join(wrong)}")
    return found


def paper_settings(experiment: str) -> dict[str, Any]:
    """What a comparison with the authors' code must have been made with."""
    paper = PUBLISHED[experiment].paper_config
    return {
        "batch_size": paper.batch_size,
        "C": paper.C,
        "gate_hidden": paper.gate_hidden,
        "paper_steps": paper.steps,
    }


def check(data: Data) -> None:
    """Raises ValueError with the first few problems of a ledger, if it has any."""
    if found := problems(data):
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        raise ValueError("; ".join(found[:3]) + more)
