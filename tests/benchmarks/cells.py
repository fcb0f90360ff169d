"""A file of cells: {"cells": [{what was run, and with which settings, …, "runs": [one a seed]}]}.

One line a cell and one line a run, so that differences can be read; written atomically.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import ledger_data

Cell = dict[str, Any]
FACTS = {"cpu", "cores", "gpu", "torch", "python", "date", "commit"}
"""What `ledger_data.environment` adds to a cell."""


def say(line: str) -> None:
    """One line about progress."""
    sys.stderr.write(line + "\n")


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


def dump(cells: Sequence[Cell]) -> str:
    """The file's text: one line a cell and one line a run."""
    lines = []
    for cell in cells:
        head = json.dumps({k: v for k, v in cell.items() if k != "runs"}, ensure_ascii=False)
        runs = ",\n    ".join(json.dumps(run) for run in cell["runs"])
        lines.append(f'{head[:-1]}, "runs": [\n    {runs}]}}')
    return '{"cells": [\n  ' + ",\n  ".join(lines) + "\n]}\n"


def update(path: Path, new: Iterable[Cell], key: Callable[[Cell], tuple[Any, ...]]) -> None:
    """Take cells into the file, atomically and safe against other processes doing the same.

    key: what makes two cells the same (the new one is kept), and their order.
    """
    with ledger_data.locked(path.parent):
        cells = {key(c): c for c in [*load(path), *new]}
        ledger_data.write(path, dump([cells[k] for k in sorted(cells)]))
