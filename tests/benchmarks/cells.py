"""A file of cells: {"cells": [{what was run, and with which settings, …, "runs": [one a seed]}]}.

One line a cell and one line a run, so that differences can be read; written atomically.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import ledger_data

Cell = dict[str, Any]
FACTS = {"cpu", "cores", "gpu", "torch", "python", "date", "commit"}
"""What `ledger_data.environment` adds to a cell."""


def say(line: str) -> None:
    """One line about progress."""
    sys.stderr.write(line + "\n")


def status(work: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Do the work of a command line: 0, or 2 for bad input, which is said."""
    try:
        work(args)
    except (ValueError, OSError) as error:
        say(f"error: {error}")
        return 2
    return 0


def describe(setting: Any) -> dict[str, Any]:
    """A dataclass as JSON values."""
    fields: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(setting)))
    return fields


def load(path: Path) -> list[Cell]:
    """The cells of a file; none if it is not there."""
    cells: list[Cell] = (
        json.loads(path.read_text(encoding="utf-8"))["cells"] if path.exists() else []
    )
    return cells


def dump(cells: Sequence[Cell], part: str = "runs") -> str:
    """The file's text: one line a cell, and one line for each entry of its `part`, if it has it."""
    lines = []
    for cell in cells:
        head = json.dumps({k: v for k, v in cell.items() if k != part}, ensure_ascii=False)
        if isinstance(entries := cell.get(part), Mapping):
            rows, ends = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in entries.items()], "{}"
        else:
            rows, ends = [json.dumps(entry) for entry in entries or []], "[]"
        body = f', "{part}": {ends[0]}\n    ' + ",\n    ".join(rows) + ends[1]
        lines.append(head[:-1] + (body if part in cell else "") + "}")
    return '{"cells": [\n  ' + ",\n  ".join(lines) + "\n]}\n"


def update(
    path: Path, new: Iterable[Cell], key: Callable[[Cell], tuple[Any, ...]], part: str = "runs"
) -> None:
    """Take cells into the file, atomically and safe against other processes doing the same.

    key: what makes two cells the same (the new one is kept), and their order. part: see `dump`.
    """
    with ledger_data.locked(path.parent):
        cells = {key(c): c for c in [*load(path), *new]}
        ledger_data.write(path, dump([cells[k] for k in sorted(cells)], part))
