"""The explorer of what runs cover: certified mechanisms against runs, under a slider (chapter 13)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..recovery import OFF, ON
from .html import Explorer

Run = Mapping[str, Any]


def coverage(
    knob: str,
    mechanisms: Sequence[str],
    arms: Mapping[str, Sequence[tuple[str, Sequence[Run]]]],
    near: float = 0.02,
    title: str | None = None,
) -> Explorer:
    """Which mechanisms each run calls important, and how well it reconstructs (chapter 13).

    knob: what the slider sets. mechanisms: what is in the weights, one name each. arms: ways to
    train, by name; of each the settings (value as text, runs), with the same values in all of them.
    A run has "name", the same everywhere; "g", the importance of each mechanism on its own probe, in
    [0, 1]; and "error", a share of the output. near: the largest error of a near-perfect run. It
    opens on the middle setting of the first arm. Raises ValueError for no arm, fewer than two
    settings, other values or runs in some of them, or importances that do not fit.
    """
    tables = {
        arm: [(label, [_covered(run, mechanisms) for run in runs]) for label, runs in settings]
        for arm, settings in arms.items()
    }
    grids = {
        arm: [(label, [run["name"] for run in runs]) for label, runs in settings]
        for arm, settings in tables.items()
    }
    first = next(iter(grids.values()), [])
    if len(first) < 2 or not first[0][1]:
        raise ValueError("coverage needs an arm with at least two settings and a run")
    names = first[0][1]
    for arm, grid in grids.items():
        if [label for label, _ in grid] != [label for label, _ in first] or any(
            found != names for _, found in grid
        ):
            raise ValueError(
                f"every arm and setting must have the same values and runs, not '{arm}'"
            )
    start = len(first) // 2
    payload = {
        "format": 1,
        "knob": knob,
        "mechanisms": list(mechanisms),
        "runs": names,
        "labels": [label for label, _ in first],
        "near": near,
        "off": OFF,
        "start": start,
        "arms": [
            {"name": arm, "settings": [runs for _, runs in settings]}
            for arm, settings in tables.items()
        ],
    }
    k = len(mechanisms) * len(names)
    counts = [
        f"{sum(run['state'].count(-1) for run in runs)} at {label}"
        for label, runs in next(iter(tables.values()))
    ]
    description = f"Skipped of {k}, by {knob}: " + ", ".join(counts) + "."
    return Explorer("coverage", payload, title or "What is skipped?", description)


def _covered(run: Run, mechanisms: Sequence[str]) -> dict[str, Any]:
    """One run: importances in hundredths; 1 = found, −1 = skipped, 0 = between; and its error."""
    g = torch.as_tensor(run["g"]).detach().cpu().float().flatten()
    if len(g) != len(mechanisms) or not bool(((g >= 0) & (g <= 1)).all()):
        raise ValueError(
            f"'{run['name']}': g must hold {len(mechanisms)} importances in [0, 1], got {g.tolist()}"
        )
    error = float(run["error"])
    if not 0 <= error < float("inf"):
        raise ValueError(f"'{run['name']}': the error must be a number ≥ 0, got {error}")
    return {
        "name": run["name"],
        "g": (100 * g).round().int().tolist(),
        "state": ((g >= ON).int() - (g < OFF).int()).tolist(),
        "error": round(error, 5),
    }
