"""What chapters read of results recorded beside them (`tests/benchmarks` writes them)."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.special import stdtrit


def cells(name: str) -> list[dict[str, Any]]:
    """The cells of a record, a JSON file in the working directory: a setting's results each.

    Empty where the file is not: a chapter that runs alone, as in Colab, leaves recorded results
    out. Raises ValueError for a file without cells.
    """
    path = Path(name)
    if not path.exists():
        return []
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{name} is not a record: a JSON object with 'cells'") from error
    return found


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean of independent values, and half the width of its 95 % interval (Student's t).

    Raises ValueError for fewer than two values.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval needs two or more values, got {n}")
    return statistics.fmean(values), stdtrit(n - 1, 0.975) * statistics.stdev(values) / n**0.5
