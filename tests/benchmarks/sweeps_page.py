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
            + "."
        )
        grid = table([f"{short} ↓ {long} →", *map(power, places)], lines)
        blocks.append(f"{said}\n\n{grid}")
    return "\n\n".join(blocks)


def _verdicts(runs: Sequence[Row]) -> str:
    if not runs:
        return "–"
    return " / ".join(tally(runs, verdict) for verdict in ("strict", "pattern", "separated"))


# Adversaries


def attacks(rows: Sequence[Cell]) -> str:
    """One line for each decomposition: random masks, each rung of the ladder, the search."""
    rungs = [rung for rung in rows[0]["ladder"]["divergence, own"] if rung != "search"]

    def both(figures: Row) -> str:
        return f"{figures['mean']:.3f} ({figures['worst']:.3f})"

    return table(
        ["experiment", "seed", "recovered", "99 % of random", *rungs, "search", "all alike"],
        [
            [
                f"`{r['experiment']}`",
                str(r["seed"]),
                "yes" if r["recovered"] else "no",
                both(r["random_99"]),
                *(both(r["ladder"]["divergence, own"][rung]) for rung in rungs),
                *(both(r["ladder"][f"output, {who}"]["search"]) for who in ("own", "shared")),
            ]
            for r in rows
        ],
    )


# Deleting

MEASURES = {
    "paraphrased": "fact left",
    "others": "others",
    "neighbours": "neighbours",
    "lost": "worst loss",
    "own_steps": "steps back",
    "others_end": "back by others",
    "probe": "probe",
}


def deleting(rows: Sequence[Cell]) -> str:
    """One table for each arm: each method's measures over the seeds."""
    blocks = []
    for (arm,), mine in grouped(rows, "arm").items():
        lines = []
        for method in mine[0]["methods"]:
            found = [c["methods"][method] for c in mine]
            spread = (
                mean_sd([f[m] for f in found], 1 if m.endswith("steps") else 3) for m in MEASURES
            )
            lines.append([method, *spread])
        seconds = mean_sd([c["decompose_seconds"] for c in mine], 1)
        said = f"`{arm}`, {len(mine)} targets; a decomposition takes {seconds} CPU seconds."
        blocks.append(f"{said}\n\n{table(['method', *MEASURES.values()], lines)}")
    return "\n\n".join(blocks)


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
```

## Adversarial masks

*Chapter 10.* The largest change of one output, mean over the inputs and in brackets the worst: what
99 % of random masks stay below, what so many steps of gradient ascent on the sources reach (aimed
at the mean squared error), what a search aimed at that output reaches; *all alike* is the search
with one source for all inputs.

{attacks}

```
python tests/benchmarks/attack_ladder.py tms-5-2 --seed 1000 --probes 10 --data book/attacks.json
```

## Deleting facts

*Chapter 11.* Mean probability of the deleted fact's answer on paraphrases, of the other facts', and
of those of the same subject; the most that any other fact lost; steps of fine-tuning on the fact
until nine tenths of it are back; its probability after fine-tuning on other facts only; and how
often a linear probe of the hidden neurons still names the answer.

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
