"""Matplotlib figures of decompositions. They know the core; the core does not know them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .decomposition import Decomposition
from .diagnose import BOUNDS, Diagnosis
from .records import mean_interval
from .recovery import Report

OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#C2B000", "#0072B2", "#D55E00")
INK = "#222222"
STYLE: dict[str, Any] = {
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 10,
    "svg.fonttype": "none",
}


def book_style() -> None:
    """Use the book's figure style in a notebook: SVG output, quiet axes, white card."""
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("svg")
    plt.rcParams.update(STYLE)  # type: ignore[arg-type]


def colour(index: int) -> str:
    """The colour of a subcomponent, as in the explorer (Okabe–Ito with a darker yellow, repeating).

    Figures add its number as well: never colour alone.
    """
    return OKABE_ITO[index % len(OKABE_ITO)]


def arrows(
    ax: Axes, vectors: Tensor | np.ndarray, colours: Sequence[str], labels: Iterable[str] = ()
) -> None:
    """Draw columns (2, n) as arrows from the origin, each with its label at the tip."""
    points = np.asarray(vectors)
    labels = list(labels) or [""] * points.shape[1]
    for (u, v), c, text in zip(points.T, colours, labels, strict=True):
        ax.annotate("", (u, v), (0, 0), arrowprops={"arrowstyle": "-|>", "color": c, "lw": 1.8})
        ax.annotate(text, (1.12 * u, 1.12 * v), color=c, ha="center", va="center")
    reach = 1.3 * float(np.abs(points).max() or 1.0)
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    ax.axhline(0, color="#cccccc", lw=0.8, zorder=0)
    ax.axvline(0, color="#cccccc", lw=0.8, zorder=0)


def plane(d: Decomposition, report: Report, name: str = "encoder") -> Figure:
    """Columns of a 2-row weight in ink beside the arrows U_c V_cj of its live subcomponents.

    Raises ValueError when the module does not write into a plane.
    """
    W, U, V = (t.cpu() for t in (d.weight[name], d.U[name], d.V[name]))
    if len(W) != 2:
        raise ValueError(f"plane() draws 2-dimensional outputs; '{name}' writes {len(W)}")
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
    arrows(left, W, [INK] * W.shape[1], [f"$W_{{:,{j}}}$" for j in range(W.shape[1])])
    left.set_title("target: columns of W")
    kept = report.order[name][: report.live[name]]
    columns = np.stack([np.outer(U[:, c], V[c])[:, int(V[c].abs().argmax())] for c in kept], 1)
    arrows(right, columns, [colour(i) for i in range(len(kept))], [f"$c_{{{c}}}$" for c in kept])
    right.set_title(f"{len(kept)} live subcomponents: largest column of U_c V_c")
    right.set(xlim=left.get_xlim(), ylim=left.get_ylim())
    return fig


def importances(d: Decomposition, probes: Tensor, report: Report, most: int = 60) -> Figure:
    """Causal importance on each probe, one panel a module, subcomponents in matched order."""
    g = d.causal_importance(probes)
    shown = [n for n in d.names if n in report.order]
    widths = [min(d.C[n], most) for n in shown]
    fig, axes = plt.subplots(
        1, len(shown), figsize=(9, 2.6), width_ratios=widths, layout="constrained", squeeze=False
    )
    for ax, n, width in zip(axes[0], shown, widths, strict=True):
        order = report.order[n][:width]
        image = ax.imshow(
            g[n].cpu()[:, order], vmin=0, vmax=1, cmap="cividis", aspect="auto", rasterized=True
        )
        ax.set(
            title=f"{n}: {report.live[n]} live of {d.C[n]}", xlabel="subcomponent (matched order)"
        )
        ax.set(ylabel="feature that is on", yticks=range(len(probes)), xticks=[])
        ax.set_yticklabels([str(i) for i in range(len(probes))])
    fig.colorbar(image, ax=axes, label="g", shrink=0.9)
    return fig


def history(d: Decomposition) -> Figure:
    """Loss terms over the run, logarithmic, each with its own line style."""
    fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
    terms = [t for t in d.history if t != "step"]
    for i, (term, dash) in enumerate(zip(terms, ("-", "--", "-.", ":", (0, (5, 1))), strict=False)):
        ax.semilogy(d.history["step"], d.history[term], ls=dash, color=colour(i), label=term)
    ax.set(xlabel="training step", ylabel="loss (unweighted terms)")
    ax.legend(ncols=len(terms), frameon=False, fontsize=8, loc="upper right")
    return fig


def diagnosis(report: Diagnosis) -> Figure:
    """Relative errors with the bounds of their warnings, and the pieces of every matrix.

    Errors below 0.0001 are drawn as 0.0001.
    """
    least = 1e-4
    fig, (left, right) = plt.subplots(
        1, 2, figsize=(9, 0.8 + 0.35 * max(6, len(report.matrices))), layout="constrained"
    )
    names = {
        "unmasked": "every piece on",
        "important": "only the important",
        "rounded": "the same, g rounded to 0 or 1",
        "random": "random masks",
        "worst_shared": "worst mask, one for all",
        "worst": "worst mask of each input",
    }
    for row, kind in enumerate(names):
        error, bound = report.errors[kind], BOUNDS.get(kind)
        over = bound is not None and error > bound
        left.plot([least, max(error, least)], [row, row], color=OKABE_ITO[6 if over else 5], lw=5)
        left.text(
            0.99,
            row,
            f"{error:.3f}" + " !" * over,
            transform=left.get_yaxis_transform(),
            ha="right",
            va="center",
            fontsize=9,
        )
        if bound is not None:
            left.plot([bound, bound], [row - 0.4, row + 0.4], color=INK, lw=1.5)
    left.axvline(1, color=INK, ls=":", lw=1)
    top = max(100.0, *(100 * e for e in report.errors.values()))
    left.set(xscale="log", xlim=(least, top), yticks=range(len(names)))
    left.set(yticklabels=list(names.values()), xlabel="error (1 = knowing nothing); | = bound")
    left.invert_yaxis()
    doubted = {
        n: len({*m.unsure, *m.shared, *(c for pair in m.duplicates for c in pair)})
        for n, m in report.matrices.items()
    }
    parts = {
        "live": [len(m.live) - doubted[n] for n, m in report.matrices.items()],
        "live, in doubt": list(doubted.values()),
        "dead": [m.dead for m in report.matrices.values()],
    }
    start = np.zeros(len(doubted))
    looks = ((OKABE_ITO[5], ""), (OKABE_ITO[6], "///"), ("#dddddd", ""))
    for (text, counts), (look, hatch) in zip(parts.items(), looks, strict=True):
        right.barh(list(doubted), counts, left=start, color=look, hatch=hatch, label=text)
        start += counts
    right.invert_yaxis()
    right.set(xlabel="subcomponents")
    right.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    count = len(report.warnings)
    kinds = ", ".join(dict.fromkeys(w.kind for w in report.warnings))
    fig.suptitle(f"{count or 'No'} warning{'s' * (count != 1)}{': ' * bool(count)}{kinds}")
    return fig


def fronts(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    names: tuple[str, str],
    *,
    ideal: str = "",
    least: float = 1e-4,
) -> Figure:
    """Methods by two losses, logarithmic, in one panel for each setting; good is lower left.

    panels: {title: {method: (losses along x, along y), one of each a seed}}. Values below `least`
    are drawn there. Small dots are seeds, large signs their geometric means with 95 % intervals
    (Student's t of the logarithms); the dotted line joins the methods that no other beats, without
    the one called `ideal`, which is drawn in ink. Raises ValueError where a method has fewer than
    two seeds or not as many of one loss as of the other.
    """
    methods = list(dict.fromkeys(m for panel in panels.values() for m in panel))
    fig, axes = plt.subplots(
        1, len(panels), figsize=(9, 4.2), layout="constrained", sharex=True, sharey=True,
        squeeze=False,
    )  # fmt: skip
    for ax, (title, panel) in zip(axes[0], panels.items(), strict=True):
        means = []
        for method, losses in panel.items():
            if len({len(v) for v in losses}) != 1 or len(losses[0]) < 2:
                raise ValueError(
                    f"'{method}' needs two losses of the same two or more seeds; "
                    f"got {' and '.join(str(len(v)) for v in losses)} in '{title}'"
                )
            logs = np.log10(np.maximum(losses, least))  # (2, seeds)
            (x, x_half), (y, y_half) = (mean_interval(v) for v in logs.tolist())
            i = methods.index(method)
            paint = INK if method == ideal else colour(i)
            ax.plot(*logs, ".", color=paint, ms=4, alpha=0.6)
            ax.errorbar(
                x, y, y_half, x_half, fmt="os^vPD*X"[i % 8], color=paint, ms=8, lw=1, mec=INK,
                mew=0.5, label=method,
            )  # fmt: skip
            if method != ideal:
                means.append((x, y))
        beaten = {p for p in means for q in means if q != p and q[0] <= p[0] and q[1] <= p[1]}
        best = sorted(set(means) - beaten)
        ax.step(*np.transpose(best), where="post", color=INK, lw=1, ls=":", zorder=0)
        low, ticks = math.log10(least), range(math.floor(math.log10(least)), 1)
        labels = ["≤ " * (t <= low) + f"$10^{{{t}}}$" for t in ticks]
        ax.set(title=title, xlabel=names[0], xlim=(low - 0.3, 0.3), ylim=(low - 0.3, 0.3))
        ax.set(xticks=ticks, xticklabels=labels, yticks=ticks, yticklabels=labels)
    axes[0, 0].set_ylabel(names[1])
    handles = axes[0, 0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside lower center", ncols=4, frameon=False)
    return fig
