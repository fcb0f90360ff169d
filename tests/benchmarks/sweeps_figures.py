"""The two figures on the page of sweeps, as SVG: the same rows give the same text."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from benchmarks.cells import Cell
from matplotlib.figure import Figure

from spd_mini import plots

METHODS = (
    *("spd", "spd, by effect", "ascent, retain", "uniform, retain"),
    *("closed form", "projection", "oracle"),
)
"""Of those that delete facts: the ones that remove them, and the ideal. The table has them all."""


def grids(rows: Sequence[Cell]) -> Figure:
    """APD beside SPD: of each setting the share of runs with the right pattern, and how many."""
    found: dict[tuple[str, str, int], dict[tuple[float, float], Sequence[Mapping[str, Any]]]] = {}
    for c in rows:
        key = (c["experiment"], c["method"], c["steps"])
        found.setdefault(key, {})[c["octaves"][0], c["octaves"][1]] = c["runs"]
    # a method that ran at one length along one line only is in the table, not in a heat map
    found = {k: v for k, v in found.items() if all(len(set(a)) > 1 for a in zip(*v, strict=True))}
    names = {"apd": ("APD", "top-k", "simplicity"), "spd": ("SPD", "β₃", "p")}
    fig, axes = plt.subplots(
        -(-len(found) // 2), 2, figsize=(9, 0.6 + 2.2 * -(-len(found) // 2)), layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for ax, ((experiment, method, steps), places) in zip(axes.flat, found.items(), strict=False):
        across, down = (sorted(set(axis)) for axis in zip(*places, strict=True))
        right = np.full((len(down), len(across)), np.nan)
        for (x, y), runs in places.items():
            i, j = down.index(y), across.index(x)
            good = sum(run["pattern"] for run in runs)
            right[i, j] = good / len(runs)
            ink = "k" if right[i, j] > 0.5 else "w"
            ax.text(j, i, f"{good}/{len(runs)}", ha="center", va="center", color=ink, fontsize=9)
        image = ax.imshow(right, vmin=0, vmax=1, cmap="cividis", aspect="auto")
        title, long, short = names[method]
        ax.set(title=f"{experiment}, {title}, {steps:,} steps")
        ax.set(xlabel=f"log₂ of the factor on {long}", ylabel=f"log₂, {short}")
        ax.set(xticks=range(len(across)), xticklabels=[f"{v:g}" for v in across])
        ax.set(yticks=range(len(down)), yticklabels=[f"{v:g}" for v in down])
    for ax in axes.flat[len(found) :]:
        ax.set_axis_off()
    fig.colorbar(image, ax=axes, label="runs with the right pattern")
    return fig


def deleting(rows: Sequence[Cell]) -> Figure:
    """What is left of a deleted fact against the worst loss of another, arm by arm."""
    panels = {
        arm: {
            method: tuple(
                [c["methods"][method][m] for c in rows if c["arm"] == arm]
                for m in ("paraphrased", "lost")
            )
            for method in METHODS
        }
        for arm in dict.fromkeys(c["arm"] for c in rows)
    }
    names = ("left of the fact", "worst loss of another fact")
    return plots.fronts(panels, names, ideal="oracle")  # type: ignore[arg-type]


FIGURES: dict[str, tuple[str, Callable[[Sequence[Cell]], Figure]]] = {
    "appendix_rematch.svg": ("rematch", grids),
    "appendix_deleting.svg": ("deleting", deleting),
}
"""File name: which rows it shows, and how."""


def fingerprint(rows: Sequence[Cell]) -> str:
    """Hash of the rows, written into the figure that shows them."""
    return f"cells {hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]}"


def draw(name: str, rows: Sequence[Cell]) -> str:
    """One of `FIGURES` as SVG."""
    style: Any = plots.STYLE | {"svg.hashsalt": name}
    with mpl.rc_context(style):
        fig, text = FIGURES[name][1](rows), io.StringIO()
        fig.savefig(text, format="svg", metadata={"Date": None, "Description": fingerprint(rows)})
        plt.close(fig)
    return text.getvalue()
