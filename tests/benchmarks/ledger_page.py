"""The results ledger as a page of the book: statistics, tables and one figure, from its data only.

`render` is a pure function of the data and of the presets' sizes, so that a test can hold the page
in the book against it.
"""

import hashlib
import io
import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from benchmarks.ledger_data import FIRST_SEED, GRADIENT, PLAN, PRESETS, Data, moves
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from spd_mini.plots import INK, STYLE
from spd_mini.recovery import MIN_R, SLOPES
from spd_mini.targets import PUBLISHED

PAGE, FIGURE = "appendix_ledger.md", "appendix_ledger.svg"
Runs = Sequence[dict[str, Any]]

# (MMCS, ML2R) of arXiv 2506.20790, table 1, and of APD, arXiv 2501.14926.
PAPER = {
    "tms-5-2": ("1.000", "0.993 ± 0.002"),
    "tms-5-2-id": ("1.000", "0.992 ± 0.010"),
    "tms-40-10": ("1.000", "1.010 ± 0.007"),
    "tms-40-10-id": ("1.000", "1.031 ± 0.001"),
}
APD = {"tms-5-2": ("0.998", "0.893 ± 0.004"), "tms-40-10": ("0.996", "0.935 ± 0.001")}
BOUND = {"tms": 0.01, "resid": 0.02}  # on ‖W − UV‖/‖W‖, by kind of target
SIDES = {
    "plain": "same rows",
    "no_zero_rows": "zero rows once",
    "plain_shortcuts": "same rows, folded",
    "no_zero_rows_shortcuts": "zero rows once, folded",
}


# Statistics


def wilson(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a proportion, 95 % by default. Raises ValueError without trials."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"an interval needs 0 ≤ successes ≤ n and n ≥ 1, got {successes} of {n}")
    p, scale = successes / n, 1 + z * z / n
    middle = (p + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def mean_sd(values: Sequence[float], digits: int = 3) -> str:
    """ "mean ± sd" over runs (n − 1 in the denominator); of one run its value alone."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def significant(value: float) -> str:
    """Three significant digits below 100, whole numbers above."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(2 - math.floor(math.log10(abs(value))), 0)}f}"


def middle_and_range(values: Sequence[float]) -> str:
    """ "median (least–most)"."""
    least, most = min(values), max(values)
    middle = significant(statistics.median(values))
    return middle if least == most else f"{middle} ({significant(least)}–{significant(most)})"


def among(values: Sequence[int]) -> str:
    """The one value, or the range."""
    return str(min(values)) if min(values) == max(values) else f"{min(values)}–{max(values)}"


# Parts of the page


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; the first columns to the left, the others, numbers, to the right.

    No cell is broken over lines (a wide table scrolls): spaces do not break, nor does a dash.
    """
    aligned = ["---"] * left + ["---:"] * (len(headings) - left)
    body = [[cell.replace(" ", "\N{NO-BREAK SPACE}") for cell in row] for row in rows]
    body = [[cell.replace("–", "–\N{WORD JOINER}") for cell in row] for row in body]
    return "\n".join("| " + " | ".join(line) + " |" for line in ([*headings], aligned, *body))


def of_kind(data: Data, kind: str) -> dict[str, Runs]:
    """Runs on "cpu" or "cuda" by experiment, in the order of the plan; experiments without any
    are left out."""
    runs = [run for run in data["runs"] if run["device"].split(":")[0] == kind]
    by_name = {name: [r for r in runs if r["experiment"] == name] for name in PLAN}
    return {name: each for name, each in by_name.items() if each}


def recovered(runs: Runs) -> int:
    return sum(run["recovered"] for run in runs)


def missing(cpu: dict[str, Runs]) -> str:
    """What has not been run yet, said plainly; empty when all planned seeds are there."""
    lines = []
    for name, plan in PLAN.items():
        done = len({run["seed"] for run in cpu.get(name, [])} & set(plan.seeds))
        if done < len(plan.seeds):
            so_far = f"{done} of {len(plan.seeds)} seeds so far" if done else "not yet run"
            lines.append(f"- `{name}`: {so_far}")
    if not lines:
        return ""
    return ":::{admonition} Not complete\n" + "\n".join(lines) + "\n:::\n\n"


def overview(cpu: dict[str, Runs], gpu: dict[str, Runs]) -> str:
    """Success with intervals, and seconds, beside the aims."""
    headings = ["experiment", "recovered", "seeds", "95 %", "aim of 20", "CPU seconds", "aim"]
    headings += ["starts"]
    headings += ["GPU: recovered", "GPU: seconds"] if gpu else []
    rows = []
    for name, runs in cpu.items():
        low, high = wilson(recovered(runs), len(runs))
        seeds = sorted(run["seed"] for run in runs)
        row = [f"`{name}`", f"{recovered(runs)} of {len(runs)}", f"{seeds[0]}–{seeds[-1]}"]
        row += [f"{100 * low:.0f}–{100 * high:.0f} %", f"≥ {PLAN[name].aim_of_20}"]
        row += [middle_and_range([run["decompose_seconds"] for run in runs])]
        row += [f"≤ {PLAN[name].aim_seconds}", among([run["restarts"] for run in runs])]
        if there := gpu.get(name, []):
            seconds = [run["decompose_wall_seconds"] for run in there]
            row += [f"{recovered(there)} of {len(there)}", middle_and_range(seconds)]
        rows.append(row + ["–"] * (len(headings) - len(row)))
    return table(headings, rows)


def recipes(data: Data, cpu: dict[str, Runs]) -> str:
    """Which experiments use discrete moves, and which change the data's distribution."""
    settings = {name: data["presets"][runs[-1]["preset"]] for name, runs in cpu.items()}

    def names(holds: Callable[[dict[str, Any]], object]) -> str:
        return ", ".join(f"`{name}`" for name, then in settings.items() if holds(then))

    text = "Subcomponents move by gradient descent alone."
    splits = names(lambda then: moves(then.get("config.split_every", 0)))
    prunes = names(lambda then: moves(then.get("config.prune_at", 0)))
    said = [f"in {splits} shared subcomponents are split now and then"] if splits else []
    said += [f"in {prunes} dead ones are removed once and doubles merged"] if prunes else []
    # for every matrix, those whose pieces act together included
    everywhere = names(
        lambda then: type(then.get("config.prune_at")) is float and moves(then["config.prune_at"])
    )
    if everywhere:
        said.append(
            f"in {everywhere} pieces that act together are made as many as the directions that "
            "their matrix reads"
        )
    births = names(lambda then: then.get("config.birth_from", 0))
    said += [f"in {births} inputs that nothing serves are given to dead ones"] if births else []
    if said:
        text = (
            f"I{', '.join(said)[1:]}: discrete moves. All else is gradient descent alone. The same "
            f"without these moves ends in `{GRADIENT}`."
        )
    if some := names(lambda then: then.get("spd_feature_probability")):
        text += (
            f" In {some}, features are on more rarely during the decomposition than in the "
            "target's own training, a change of the data's distribution."
        )
    return text


def targets(cpu: dict[str, Runs]) -> str:
    """Least to most CPU seconds, over experiments, that training a target takes."""
    medians = [statistics.median(run["target_seconds"] for run in runs) for runs in cpu.values()]
    return f"{significant(min(medians))} to {significant(max(medians))}" if medians else "unknown"


def beside_the_paper(cpu: dict[str, Runs]) -> str:
    """The paper's table 1 with ours; the null beside MMCS."""

    def ours(name: str, key: str, form: Callable[[list[float]], str] = mean_sd) -> str:
        return form([run[key] for run in cpu[name]]) if name in cpu else "not yet run"

    rows = []
    for name, (mmcs, ml2r) in PAPER.items():
        apd_mmcs, apd_ml2r = APD.get(name, ("–", "–"))
        null = ours(name, "mmcs_null", lambda values: f"{statistics.fmean(values):.3f}")
        rows.append([f"`{name}`", "MMCS", null, apd_mmcs, mmcs, ours(name, "mmcs")])
        rows.append([f"`{name}`", "ML2R", "–", apd_ml2r, ml2r, ours(name, "ml2r")])
    return table(["experiment", "", "random", "APD", "paper", "here"], rows, left=2)


def pieces(cpu: dict[str, Runs]) -> str:
    """Live subcomponents of every matrix, beside what is there to be found."""
    headings = ["experiment", "matrix", "to be found", "offered", "live", "runs with that many"]
    rows = []
    for name, runs in cpu.items():
        preset = PRESETS[name]
        width = preset.n_hidden if hasattr(preset, "n_hidden") else preset.d_mlp
        for matrix in runs[0]["live"]:
            dense = matrix in runs[0]["dense_errors"]
            true = width if dense else preset.n_features
            live = [run["live"][matrix] for run in runs]
            row = [f"`{name}`", f"`{matrix}`", f"{true}, " + ("together" if dense else "one each")]
            row += [str(preset.config.C_of(matrix)), among(live)]
            rows.append([*row, f"{live.count(true)} of {len(live)}"])
    return table(headings, rows, left=2)


def quality(cpu: dict[str, Runs]) -> str:
    """Faithfulness of the worst matrix, and the fit of neuron contributions."""
    headings = ["experiment", "worst ‖W − UV‖/‖W‖", "allowed", "$r$", "slope"]
    rows = []
    for name, runs in cpu.items():
        worst = max(max(run["faithfulness_relative"].values()) for run in runs)
        row = [f"`{name}`", f"{worst:.4f}", f"≤ {BOUND[name.split('-')[0]]}"]
        for key in ("contribution_r", "contribution_slope"):
            values = [run[key] for run in runs if run[key] is not None]
            row.append(mean_sd(values, 4 if key.endswith("r") else 3) if values else "–")
        rows.append(row)
    return table(headings, rows)


def failures(cpu: dict[str, Runs]) -> str:
    """Every run that was not recovered, with the reasons."""
    lines = [
        f"- `{name}`, seed {run['seed']}: " + "; ".join(run["reasons"])
        for name, runs in cpu.items()
        for run in runs
        if not run["recovered"]
    ]
    return "\n".join(lines) or "None: every run above was recovered."


def duration(seconds: float) -> str:
    """In seconds up to 2 minutes, in minutes up to 2 hours, in hours beyond."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{significant(seconds / size)} {unit}"
    return f"{significant(seconds)} s"


def steps(rows: Runs) -> str:
    """Milliseconds of one training step, theirs and ours, and their ratio."""

    def ours(row: dict[str, Any], side: str) -> str:
        if side not in row["ms_per_step"]:
            return "–"
        ms, ratio = row["ms_per_step"][side], row["authors_over_ours"][side]
        return f"{significant(ms)} ({ratio:.1f}×)"

    return table(
        ["experiment", "authors", *SIDES.values()],
        [
            [f"`{row['experiment']}`", significant(row["ms_per_step"]["authors"])]
            + [ours(row, side) for side in SIDES]
            for row in rows
        ],
    )


def memory(rows: Runs) -> str:
    """Peak MiB of a few steps, theirs and ours."""
    return table(
        ["experiment", "authors", *SIDES.values()],
        [
            [f"`{row['experiment']}`"]
            + [
                significant(row["peak_mib"][side]) if side in row["peak_mib"] else "–"
                for side in ("authors", *SIDES)
            ]
            for row in rows
        ],
    )


def whole_runs(rows: Runs, cpu: dict[str, Runs]) -> str:
    """The paper's settings with the time they would take, and ours with the time they took."""
    headings = ["experiment", "steps", "rows, C, d_gate", "authors", "same rows", "fastest"]
    lines = []
    for row in rows:
        sides = ("authors", "plain", list(row["ms_per_step"])[-1])
        runs = [run["decompose_seconds"] for run in cpu.get(row["experiment"], [])]
        lines.append(
            [
                f"`{row['experiment']}`",
                f"{row['paper_steps']:,}",
                f"{row['batch_size']}, {row['C']}, {row['gate_hidden']}",
                *(duration(3600 * row["projected_hours"][side]) for side in sides),
                duration(statistics.median(runs)) if runs else "not yet run",
            ]
        )
    return table([*headings, "our settings"], lines)


def side_by_side(rows: Runs, cpu: dict[str, Runs]) -> str:
    """The comparison with the authors' code, or that there is none yet."""
    done = {row["experiment"] for row in rows}
    absent = ", ".join(f"`{name}`" for name in PUBLISHED if name not in done)
    if not rows:
        return f"Not yet measured: {absent}."
    ratios = [row["authors_over_ours"]["plain"] for row in rows]
    return SIDE_BY_SIDE.format(
        absent=f"Not yet measured: {absent}.\n\n" if absent else "",
        steps=steps(rows),
        least=f"{min(ratios):.1f}",
        most=f"{max(ratios):.1f}",
        memory=memory(rows),
        whole_runs=whole_runs(rows, cpu),
    )


def machines(data: Data) -> str:
    """Where, when and with what the numbers were made."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in [*data["runs"], *data["side_by_side"]]:
        what = f"runs, {row['at_once']} at a time" if "at_once" in row else "comparisons"
        gpu = f"{row['gpu']} with " if row["gpu"] else ""
        where = f"{gpu}{row['cpu']}, {row['cores']} cores"
        key = f"{what}: {where}; torch {row['torch']}, Python {row['python']}"
        groups.setdefault(key, []).append(row)
    lines = []
    for key, rows in groups.items():
        dates = sorted({row["date"] for row in rows})
        when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
        commits = ", ".join(f"`{c}`" for c in dict.fromkeys(row["commit"] for row in rows))
        lines.append(f"- {len(rows)} {key}; {when}; commit {commits}")
    return "\n".join(lines) or "Nothing yet."


# The figure

BLUE = "#0072B2"
GOOD: dict[str, Any] = {"marker": "o", "ls": "none", "color": BLUE, "mec": "white", "mew": 0.4}
BAD: dict[str, Any] = {"marker": "x", "ls": "none", "color": "#D55E00", "mew": 1.5}
AIM: dict[str, Any] = {"marker": "d", "ls": "none", "mfc": "none", "mec": "#777777", "ms": 8}
GPU: dict[str, Any] = {"marker": "s", "ls": "none", "mfc": "none", "mec": "#009E73", "mew": 1.5}
MEDIAN: dict[str, Any] = {"marker": "|", "ls": "none", "color": INK, "mew": 1.5, "ms": 10}
GOLDEN = 0.6180339887  # its multiples, modulo 1, keep the marks of a row apart, always alike


def fingerprint(data: Data) -> str:
    """Hash of the runs, written into the figure that shows them."""
    text = json.dumps(data["runs"], sort_keys=True)
    return f"runs {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _successes(ax: Axes, cpu: dict[str, Runs]) -> None:
    for y, name in enumerate(PLAN):
        ax.plot(100 * PLAN[name].aim_of_20 / 20, y, **AIM)
        if name not in cpu:
            ax.text(2, y, "not yet run", va="center", color=INK, fontsize=9)
            continue
        good, n = recovered(cpu[name]), len(cpu[name])
        low, high = wilson(good, n)
        ax.plot([100 * low, 100 * high], [y, y], color=BLUE, lw=2.5, solid_capstyle="butt")
        ax.plot(100 * good / n, y, **GOOD, ms=8, zorder=3)
        ax.text(104, y, f"{good}/{n}", va="center", color=INK, fontsize=9)
    ax.set(xlim=(0, 100), xticks=range(0, 101, 25), xlabel="recovered, % of runs", yticks=[])
    ax.set_yticks(range(len(PLAN)), list(PLAN))
    ax.invert_yaxis()


def _seconds(ax: Axes, cpu: dict[str, Runs], gpu: dict[str, Runs]) -> None:
    for y, name in enumerate(PLAN):
        ax.plot(PLAN[name].aim_seconds, y, **AIM)
        runs = cpu.get(name, [])
        for good, style in ((True, GOOD), (False, BAD)):
            some = [run for run in runs if run["recovered"] == good]
            xs = [run["decompose_seconds"] for run in some]
            ys = [
                y + 0.3 * (run["seed"] * GOLDEN % 1 - 0.5) for run in some
            ]  # apart, and repeatable
            ax.plot(xs, ys, **style, zorder=3)
        if runs:
            median = statistics.median(run["decompose_seconds"] for run in runs)
            ax.plot([median, median], [y - 0.3, y + 0.3], color=INK, lw=1.5, zorder=4)
        if there := gpu.get(name, []):
            wall = statistics.median(run["decompose_wall_seconds"] for run in there)
            ax.plot(wall, y, **GPU, zorder=3)
    ax.set(xscale="log", xlabel="seconds of one decomposition (logarithmic)")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.grid(axis="x", color="#dddddd", lw=0.6)
    ax.set_axisbelow(True)


def _legend(fig: Figure, gpu: dict[str, Runs]) -> None:
    shown = {"recovered": GOOD, "not recovered": BAD, "median": MEDIAN, "aim": AIM}
    shown |= {"GPU, median": GPU} if gpu else {}
    marks = [Line2D([], [], label=text, **style) for text, style in shown.items()]
    fig.legend(handles=marks, loc="outside upper center", ncols=len(marks), frameon=False)


def draw(data: Data) -> str:
    """Success and seconds of every experiment, as SVG; the same data gives the same text."""
    cpu, gpu = of_kind(data, "cpu"), of_kind(data, "cuda")
    style: Any = STYLE | {"svg.hashsalt": "ledger"}
    with mpl.rc_context(style):
        fig = Figure(figsize=(9, 1.4 + 0.4 * len(PLAN)), layout="constrained")
        left, right = fig.subplots(1, 2, sharey=True, width_ratios=[4, 5])
        _successes(left, cpu)
        _seconds(right, cpu, gpu)
        _legend(fig, gpu)
        text = io.StringIO()
        fig.savefig(text, format="svg", metadata={"Date": None, "Description": fingerprint(data)})
    return text.getvalue()


def alt_text(cpu: dict[str, Runs]) -> str:
    """The figure in words."""
    parts = [
        f"{name} {recovered(runs)} of {len(runs)}, "
        f"{significant(statistics.median(run['decompose_seconds'] for run in runs))} s"
        for name, runs in cpu.items()
    ]
    return "Runs recovered and median CPU seconds: " + ("; ".join(parts) or "none yet") + "."


# The page


def render(data: Data) -> str:
    """The page's Markdown."""
    cpu, gpu = of_kind(data, "cpu"), of_kind(data, "cuda")
    return TEMPLATE.format(
        first=FIRST_SEED,
        total=sum(map(len, cpu.values())),
        min_r=MIN_R,
        slopes=f"{SLOPES[0]} and {SLOPES[1]}",
        missing=missing(cpu),
        figure=FIGURE,
        alt=alt_text(cpu),
        square=GPU_CAPTION * bool(gpu),
        overview=overview(cpu, gpu),
        recipes=recipes(data, cpu),
        target=targets(cpu),
        twenty=f"{100 * wilson(20, 20)[0]:.0f} %",
        gpu=GPU_TEXT * bool(gpu),
        paper=beside_the_paper(cpu),
        pieces=pieces(cpu),
        quality=quality(cpu),
        failures=failures(cpu),
        side_by_side=side_by_side(data["side_by_side"], cpu),
        machines=machines(data),
    )


GPU_CAPTION = " An open square is the median on a GPU, in seconds of the clock."
GPU_TEXT = """ The GPU's seconds are those of the clock, and its random numbers are others for the
same seed."""
SIDE_BY_SIDE = """\
{absent}\
Milliseconds of one training step, and how many times as long the authors' takes:

{steps}

Peak memory in MiB:

{memory}

Time of a whole run:

{whole_runs}

All with the paper's batch (*rows*), $C$ and $d_\\text{{gate}}$, on the same target, in turns in one
process with one thread; medians of CPU time. *Same rows* does the same mathematics on as many
inputs; there the authors' step takes {least} to {most} times as long, depending on the experiment.
*Zero rows once* lets one weighted row stand for all inputs in which no feature is on, and *folded*
multiplies the residual MLP's matrices with its embedding first; both are exact. Memory is the peak
during a few steps above what the process held before, each side in a process of its own. A whole
run at the paper's settings is projected from one step, not run; *our settings* is the median of the
runs above, with fewer rows and steps, which is where most of the difference comes from. Nothing
here compares what the two codes find."""
TEMPLATE = """\
% Written by tests/benchmarks/ledger.py from ledger.json: change those, not this page.

# Results ledger

A chapter shows one run, with its seed named. This appendix counts: {total} runs from random
initialisation, with seeds from {first} on that had no part in choosing the settings, and a target
model trained anew for each seed. Verdicts are on the final state of runs of fixed length. No number
on this page was typed; `make ledger` measures them into {{download}}`ledger.json` and writes the
page from that file. Where a chapter varies settings, attacks or methods instead of seeds, its runs
are among the [sweeps](appendix_sweeps.md).

*{{term}}`Recovered <recovered>`* is a strict verdict. Where each feature should have a subcomponent
of its own, its causal importance must be at least 0.9 on that feature's probe and at most 0.1 on
all others; where the pieces should act together, exactly as many must be live as there are
dimensions; and they must sum to the weights. For TMS their lengths must agree as well (ML2R between
0.95 and 1.05), for the residual MLPs their neuron contributions ($r$ at least {min_r}, slope
between {slopes}). One wrong entry in one matrix makes a run a failure.

{missing}## How often, and how long

```{{figure}} {figure}
:alt: {alt}
```

*Figure A.1* Left: share of the runs that were recovered, and the 95 % interval for the success
rate. Right: seconds of each decomposition, one mark a run (heights within a row mean nothing). An
open diamond is the aim set beforehand.{square}

{overview}

*95 %* is the interval to read before the count: 20 successes in 20 runs still leave room for a true
rate of {twenty}. It is Wilson's, for the chance that one more seed of the same experiment is
recovered; it says nothing about other models or other settings. Seconds are median and range of the
CPU time of one thread, with all random *starts* included, of which the one with the lowest loss is
kept; they vary with what else the machine is doing. Training the target comes on top: a median
of {target} seconds, depending on the experiment.{gpu} {recipes}

## Beside the paper's table

{paper}

MMCS asks whether each column of $W$ has a subcomponent in the same direction, ML2R whether it has
the same length; 1 is perfect. The first column is what random directions score. In two dimensions
that is almost everything, so a high MMCS alone shows nothing there, and lengths are where the
methods differ. Ours are mean ± standard deviation over all runs, failed ones included, with ML2R
over live subcomponents only. The paper's ± is most likely over the features of one run, so the two
spreads cannot be compared. The paper's numbers are table 1 of {{cite:t}}`bushnaq2025spd`; APD's
are those reported for that method {{cite:p}}`braun2025apd`.

## How many pieces

{pieces}

Each matrix is offered more subcomponents than it needs. *One each* marks matrices in which every
feature should have its own, *together* those whose pieces all act at once. The right count is
necessary, not sufficient: two features may share a piece while a third has two. The verdict looks
at the whole pattern of importances; this table shows only where counts go wrong.

## Do the pieces add up?

{quality}

The first column is the worst matrix of the worst run. For the residual MLPs, $r$ and slope compare
what each neuron contributes to each feature in the target with what it contributes through the
feature's best subcomponent: points on a line of slope 1 mean that one piece carries the whole
feature. Both are mean ± standard deviation over all runs. They are weaker evidence than the
pattern, since the best subcomponent is picked for each feature and the others are not looked at.

## Runs that failed

{failures}

The list does not weigh: a run that misses by one entry stands beside one that misses by a hundred.

## Beside the authors' code

{side_by_side}

## Made with

{machines}

A plus behind a commit: the package had changes that were not committed. To make all of it again,
or to go on where an interrupted ledger stopped (runs of presets that still stand are kept):

```
make ledger
```

The comparison needs the authors' code as well:

```
python tests/benchmarks/compare_authors.py --authors PATH --json side_by_side.json
python tests/benchmarks/ledger.py --merge side_by_side.json
```
"""


def write(data: Data, folder: Path) -> list[Path]:
    """The page and its figure into a folder; returns both paths."""
    files = [folder / PAGE, folder / FIGURE]
    for file, text in zip(files, (render(data), draw(data)), strict=True):
        file.write_text(text, encoding="utf-8")
    return files
