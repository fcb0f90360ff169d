"""The sweeps behind chapters 9, 10, 11 and 13 as a page of the book: tables, from their data only.

`render` is a pure function of the four files, so that a test can hold the page against them.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import cells, ledger_data, sweeps_figures
from benchmarks.cells import Cell
from benchmarks.ledger_page import mean_sd, table

from spd_mini.exercises import ch09

PAGE = "appendix_sweeps.md"
FILES = {
    "rematch": "rematch.json",
    "attacks": "attacks.json",
    "deleting": "deleting.json",
    "coverage": "coverage.json",
}
Row = Mapping[str, Any]


def tally(runs: Sequence[Row], what: str) -> str:
    """Of how many runs something holds."""
    return str(sum(bool(run[what]) for run in runs))


def grouped(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by the values of some keys, in order of first appearance."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[k] for k in keys), []).append(row)
    return found


def power(octave: float) -> str:
    """A factor as a power of two."""
    return "1" if octave == 0 else f"$2^{{{octave:g}}}$"


# APD beside SPD


def rematch(rows: Sequence[Cell]) -> str:
    """One table for each experiment, length and method: its grid, three verdicts in each cell."""
    blocks = []
    names = {"apd": ("APD", "top-$k$", "simplicity"), "spd": ("SPD", "$\\beta_3$", "$p$")}
    for (experiment, method, steps), mine in grouped(rows, "experiment", "method", "steps").items():
        title, long, short = names[method]
        by_short = grouped([{**c, "at": c["octaves"][1]} for c in mine], "at")
        places = sorted({c["octaves"][0] for c in mine})
        lines = []
        for (at,), row in sorted(by_short.items()):
            there = {c["octaves"][0]: c["runs"] for c in row}
            lines.append([power(at), *(_verdicts(there.get(place, [])) for place in places)])
        runs = [run for c in mine for run in c["runs"]]
        right = [run["ml2r"] for run in runs if run["pattern"]]
        seconds = statistics.fmean(c["seconds_a_run"] for c in mine)
        said = (
            f"`{experiment}`, {title}, {steps:,} steps, {seconds:.1f} CPU seconds a run: recovered "
            f"{tally(runs, 'strict')}, right pattern {tally(runs, 'pattern')}, separable "
            f"{tally(runs, 'separated')} of {len(runs)} runs"
            + (f"; ML2R of those with the right pattern {mean_sd(right)}" if right else "")
            + f".{_widths(mine, places, sorted(by_short))}"
        )
        grid = table([f"{short} ↓ {long} →", *map(power, places)], lines)
        blocks.append(f"{said}\n\n{grid}")
    return "\n\n".join(blocks)


def _widths(mine: Sequence[Row], places: Sequence[float], lines: Sequence[tuple[float]]) -> str:
    """How many octaves of the long axis work, by chapter 9's rule, for a whole grid."""
    if len(places) < 2 or len(mine) != len(places) * len(lines):
        return ""
    found = []
    for verdict, name in (("strict", "recovered"), ("pattern", "right pattern")):
        share = {
            tuple(c["octaves"]): sum(r[verdict] for r in c["runs"]) / len(c["runs"]) for c in mine
        }
        grid = [[share[place, line] for place in places] for (line,) in lines]
        least, most = ch09.widest(grid, places[1] - places[0])
        found.append(f"{name} {least:g} or more, less than {most:g}" if most else f"{name} none")
    return f" Octaves in which half the runs succeed: {'; '.join(found)}.".replace("inf", "∞")


def _verdicts(runs: Sequence[Row]) -> str:
    if not runs:
        return "–"
    return " / ".join(tally(runs, verdict) for verdict in ("strict", "pattern", "separated"))


# Adversaries


def attacks(rows: Sequence[Cell]) -> str:
    """Two lines for each decomposition, masks of each input's own and one for all: every rung."""
    rungs = [rung for rung in rows[0]["ladder"]["divergence, own"] if rung != "search"]

    def both(figures: Row) -> str:
        return f"{figures['mean']:.3f} ({figures['worst']:.3f})"

    return table(
        ["experiment", "seed", "recovered", "masks", "99 % of random", *rungs, "search"],
        [
            [
                *(f"`{r['experiment']}`", str(r["seed"]), "yes" if r["recovered"] else "no"),
                *(who, both(r["random_99"]) if who == "own" else ""),
                *(both(r["ladder"][f"divergence, {who}"][rung]) for rung in rungs),
                both(r["ladder"][f"output, {who}"]["search"]),
            ]
            for r in rows
            for who in ("own", "shared")
        ],
    )


# Deleting

MEASURES = {
    "clean": "left, key",
    "paraphrased": "left, paraphrases",
    "others": "others",
    "others_recall": "recalled",
    "neighbours": "neighbours",
    "lost": "worst loss",
    "selectivity": "selectivity",
    "own_steps": "steps back",
    "others_end": "back by others",
    "probe": "probe",
}


def deleting(rows: Sequence[Cell]) -> str:
    """For each arm the methods' measures, their prices, and their edits added up."""
    blocks = []
    for (arm,), mine in grouped(rows, "arm").items():
        lines = []
        for method in mine[0]["methods"]:
            found = [_with_selectivity(c["methods"], method) for c in mine]
            lines.append([method, *(_measure(found, m) for m in MEASURES)])
        seconds = mean_sd([c["decompose_seconds"] for c in mine], 1)
        said = (
            f"`{arm}`, {len(mine)} targets; a decomposition takes {seconds} CPU seconds and "
            f"{mine[0]['decompose_inputs']:,} inputs."
        )
        blocks.append(f"{said}\n\n{table(['method', *MEASURES.values()], lines)}")
        blocks.append(f"`{arm}`, edits of single facts added up:\n\n{_together(mine)}")
    return "\n\n".join(blocks)


def _with_selectivity(methods: Mapping[str, Row], method: str) -> Row:
    """A method's measures, and what the fact lost beyond what the worst hit of the others did."""
    row = methods[method]
    fact = methods["target"]["paraphrased"] - row["paraphrased"]
    return {**row, "selectivity": fact - row["lost"]}


def _measure(found: Sequence[Row], measure: str) -> str:
    """Mean ± sd over targets; steps that were not enough, for some fact, make it a lower bound."""
    if not measure.endswith("steps"):
        return mean_sd([f[measure] for f in found], 3)
    bound = "≥ " if any(f["own_back"] < 1 for f in found) else ""
    return bound + mean_sd([f[measure] for f in found], 1)


def _together(mine: Sequence[Row]) -> str:
    """Of 1, 2, … n edits added up: what is left, the others, the additivity error; and prices."""
    lines = []
    for method in mine[0]["together"]:
        sums = zip(*(c["together"][method] for c in mine), strict=True)  # by number of edits
        keys = ("left", "others", "additivity_error")
        means = [[statistics.fmean(row[k] for row in rows) for k in keys] for rows in sums]
        found = [c["methods"][method] for c in mine]
        price = [statistics.fmean(f[k] for f in found) for k in ("tuning_seconds", "edit_seconds")]
        shown = (" / ".join(f"{v:.2f}" for v in row) for row in means)
        lines.append([method, *shown, f"{price[0]:.1f}", f"{1000 * price[1]:.0f}"])
    heads = ["method", *map(str, range(1, len(means) + 1)), "tuning, CPU s", "ms an edit"]
    return table(heads, lines)


# Coverage


def coverage(rows: Sequence[Cell]) -> str:
    """Skipped mechanisms, or merged circuits, of each arm at each price; errors beside them."""
    lines = []
    for c in rows:
        runs = c["runs"]
        if "coverage" in runs[0]:
            tables = [[g for row in r["coverage"] for g in row] for r in runs]
            missed = [sum(g < 0.1 for g in t) for t in tables]
            of = f" of {len(tables[0])} skipped"
        else:
            missed, of = [sum(r["merged"].values()) for r in runs], " merged"
        lines.append(
            [
                c["arm"],
                f"{c['price']:.1e}",
                ", ".join(map(str, missed)) + of,
                mean_sd([100 * r["random"] for r in runs], 2),
                mean_sd([100 * r["important"] for r in runs], 2),
            ]
        )
    heads = ["arm", "$\\beta_3$", "in each run", "error, random masks, %", "only important, %"]
    return table(heads, lines)


# The page

TEMPLATE = """\
% Written by tests/benchmarks/ledger.py from the files it names: change those, not this page.

# Results ledger: sweeps

Four chapters vary a setting, an attack or a method instead of repeating one. Their runs in full:
seeds from {first} on, none of which had a part in choosing the settings. No number on this page was
typed. ± is the standard deviation over runs.

## APD beside SPD

*Chapter 9.* Powers of two are factors on the setting in the middle of the grid. In each cell:
recovered / right pattern / separable by some threshold, out of its runs.

{rematch}

```
python tests/benchmarks/rematch.py tms-5-2 --seeds 1000:1005
python tests/benchmarks/rematch.py tms-5-2 --seeds 1000:1005 --only apd --short 0 --steps 20000
python tests/benchmarks/rematch.py tms-40-10 --seeds 1000:1003
```

## Adversarial masks

*Chapter 10.* The largest change of one output, mean over the inputs and in brackets the worst: what
99 % of random masks stay below, what so many steps of gradient ascent on the sources reach (aimed
at the mean squared error), what a search aimed at that output reaches. *Own*: each input has masks
of its own; *shared*: one set of sources for all inputs.

{attacks}

```
python tests/benchmarks/attack_ladder.py EXPERIMENT --seed 1000 --probes 10 --data book/attacks.json
```

## Deleting facts

*Chapter 11.* Mean probability of the deleted fact's answer on its key and on paraphrases, of the
other facts' answers (*recalled*: the share that is still the likeliest), and of those of the same
subject; the most that any other fact lost; *selectivity*, what the fact lost beyond that (compare
with the random rows); steps of fine-tuning on the fact until nine tenths of it are back (≥: after
100 steps some were not, and count as 101); its probability after fine-tuning on other facts only;
and how often a linear probe of the hidden neurons still names the answer. Edits added up: left of
the facts / others / additivity error after 1, 2, … edits; then the price of choosing a method's
settings and of one edit.

{deleting}

```
python tests/benchmarks/deleting.py
```

## Redundancy and interference

*Chapter 13.* Mechanisms that exist by construction and have no important piece, or circuits that
share one; errors as shares of the mean squared output.

{coverage}

```
python tests/benchmarks/coverage.py
```
"""
NONE = "Not measured yet."


def load(folder: Path) -> dict[str, list[Cell]]:
    """The rows of each file; none where it is not there."""
    return {part: cells.load(folder / name) for part, name in FILES.items()}


PICTURES = {
    "rematch": (
        "Heat maps, APD beside SPD: of how many runs the pattern was right, as in the tables.",
        "Runs with the right pattern at each setting.",
    ),
    "deleting": (
        "Left of a deleted fact against the worst loss of another, for the methods that remove it.",
        "Dots: seeds. Signs: geometric means with 95 % intervals. Dotted line: methods that no "
        "other beats. Good is lower left.",
    ),
}
"""For parts with a figure: its text for those who cannot see it, and its caption."""


def with_figure(part: str, shown: str) -> str:
    """A part of the page, under its figure if it has one."""
    for name, (of, _) in sweeps_figures.FIGURES.items():
        if of == part:
            alt, caption = PICTURES[part]
            return f"```{{figure}} {name}\n:alt: {alt}\n\n{caption}\n```\n\n{shown}"
    return shown


def render(data: Mapping[str, Sequence[Cell]]) -> str:
    """The page's Markdown."""
    parts = {"rematch": rematch, "attacks": attacks, "deleting": deleting, "coverage": coverage}
    return TEMPLATE.format(
        first=ledger_data.FIRST_SEED,
        **{
            part: with_figure(part, show(data[part])) if data[part] else NONE
            for part, show in parts.items()
        },
    )


def write(folder: Path) -> list[Path]:
    """The page and its figures into a folder; returns their paths."""
    data = load(folder)
    (folder / PAGE).write_text(render(data), encoding="utf-8")
    drawn = {name: part for name, (part, _) in sweeps_figures.FIGURES.items() if data[part]}
    for name, part in drawn.items():
        (folder / name).write_text(sweeps_figures.draw(name, data[part]), encoding="utf-8")
    return [folder / PAGE, *(folder / name for name in drawn)]
