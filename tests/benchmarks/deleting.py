"""Deleting facts by their pieces, beside other ways to make a model forget (chapter 11).

    python tests/benchmarks/deleting.py [ARM …] [--seeds 1000:1005] [--keep FOLDER]

For each arm of the facts model and each seed: train, decompose, and let every method take single
facts away. Six facts are reported, each of another subject. What a method leaves open is settled
before, on four validation facts of other subjects of the same target: every method that leaves
something open has at most six settings to try, and the best mean `forgetting.Outcome.score` there
is taken. All methods see the same examples; random controls are not tuned.

Then the same models are measured once more: by fine-tuning them on the fact, and on other facts
only, until 90 % of the probability that the target gave is back; by a linear probe of what the
neurons pass on; and with half the weights put back. The fact's models are also added up, 1 … 6 at a
time. A projection is no change of the weights: whoever has them has the target.

Seconds are process CPU time on one thread. Cells go into book/deleting.json one by one; those that
are there, made with the same settings, are not repeated. --keep saves decompositions, and reads
them again with the seconds that they took.
"""

import argparse
import dataclasses
import functools
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import ledger_data
from benchmarks.cells import FACTS, Cell, load, say, status, update
from benchmarks.ledger_data import FIRST_SEED, ROOT

import spd_mini as spd
from spd_mini import Decomposition, edit
from spd_mini.__main__ import parse_seeds
from spd_mini.baselines import forgetting, unlearn
from spd_mini.baselines.unlearn import Examples
from spd_mini.targets import facts
from spd_mini.targets.facts import Facts

DATA = ROOT / "book" / "deleting.json"
ARMS = {p.name: p for p in (facts.FACTS, facts.FACTS_SUPERPOSED, facts.FACTS_REDUNDANT)}
Setting = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is measured: all that decides on the numbers of a cell, beside the arm's preset."""

    reported: tuple[int, ...] = (0, 9, 18, 27, 32, 41)
    validation: tuple[int, ...] = (4, 13, 22, 47)
    noise: float = 0.5
    """Of all paraphrases: as the target was trained."""
    back: float = 0.9
    """The share of the target's probability at which a fact counts as relearned."""
    own_steps: int = 100
    others_steps: int = 60
    lr: float = 1e-3
    own_batch: int = 8
    """Paraphrases of the fact in a step of relearning."""
    others_batch: int = 24
    probe_rows: int = 1
    """Paraphrases of each fact that the probe is told."""
    probe_noise: float = 2.0
    """Of the paraphrases that it is asked."""


PLAN = Plan()


# Methods


@dataclass(frozen=True)
class Job:
    """One fact to be taken out of one target."""

    d: Decomposition
    target: Facts
    preset: facts.Preset
    seed: int
    fact: int
    forget: Examples
    retain: Examples

    def pieces(self, setting: Setting, where: str = "") -> list[tuple[str, int]]:
        """SPD's choice by importance, from all matrices or those with this in their name."""
        scores = edit.by_importance(self.d, self.forget[0])
        sites = [n for n in scores if where in n]
        return [(n, c) for n in sites for c, s in enumerate(scores[n]) if s > setting["above"]]

    @functools.cached_property
    def effects(self) -> edit.Scores:
        return edit.by_effect(self.d, self.forget[0])

    def random(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.fact)


def _spd(job: Job, s: Setting) -> nn.Module:
    return edit.delete(job.d, job.pieces(s))


def _spd_reading(job: Job, s: Setting) -> nn.Module:
    return edit.delete(job.d, job.pieces(s, "W_in"))


def _spd_writing(job: Job, s: Setting) -> nn.Module:
    return edit.delete(job.d, job.pieces(s, "W_out"))


def _spd_one_path(job: Job, s: Setting) -> nn.Module:
    return edit.delete(job.d, job.pieces(s, "paths.0."))


def _spd_effect(job: Job, s: Setting) -> nn.Module:
    return edit.delete(job.d, edit.top(job.effects, s["pieces"]))


def _random_pieces(job: Job, s: Setting) -> nn.Module:
    chosen = [n for n, _ in job.pieces(s)]
    counts = {n: chosen.count(n) for n in set(chosen)}
    keys = job.target.keys
    return edit.delete(job.d, unlearn.random_pieces(job.d, keys, counts, job.random()))


def _random_rank_one(job: Job, s: Setting) -> nn.Module:
    changes = edit.change(job.d, edit.scaling(job.pieces(s), 0.0))
    return unlearn.random_rank_one(job.target, changes, job.random())


def _ascent(job: Job, s: Setting) -> nn.Module:
    return unlearn.gradient_ascent(job.target, job.forget, **s)


def _ascent_retain(job: Job, s: Setting) -> nn.Module:
    return unlearn.gradient_ascent(job.target, job.forget, job.retain, **s)


def _uniform(job: Job, s: Setting) -> nn.Module:
    return unlearn.to_uniform(job.target, job.forget[0], **s)


def _uniform_retain(job: Job, s: Setting) -> nn.Module:
    return unlearn.to_uniform(job.target, job.forget[0], job.retain, **s)


def _each_path(job: Job, where: str, act: Callable[[nn.Module, str], nn.Module]) -> nn.Module:
    """One pathway after the other."""
    model: nn.Module = job.target
    for i in range(len(job.target.paths)):
        model = act(model, f"paths.{i}.{where}")
    return model


def _closed_form(job: Job, s: Setting) -> nn.Module:
    x, others = job.forget[0], job.retain[0]

    def act(model: nn.Module, name: str) -> nn.Module:
        W = model.get_parameter(f"{name}.weight")
        usual = W @ unlearn.reads(model, name, others).mean(0)
        wanted = s["wanted"] * usual  # 0: nothing; 1: what it writes for others in the mean
        return unlearn.closed_form(model, name, x, others, wanted, s["ridge"])

    return _each_path(job, "W_out", act)


def _svd(job: Job, s: Setting) -> nn.Module:
    x, others = job.forget[0], job.retain[0]
    return _each_path(job, s["where"], lambda m, n: unlearn.svd_direction(m, n, x, others))


def _neuron(job: Job, s: Setting) -> nn.Module:
    x, others = job.forget[0], job.retain[0]
    return _each_path(job, "W_out", lambda m, n: unlearn.top_neuron(m, n, x, others))


def _projected(job: Job, s: Setting) -> nn.Module:
    x, others = job.forget[0], job.retain[0]
    model: nn.Module = job.target
    for i in range(len(job.target.paths)):
        name = "model." * i + f"paths.{i}.{s['where']}"
        model = unlearn.Projected(model, name, x, others)
    return model


def _oracle(job: Job, s: Setting) -> nn.Module:
    return job.preset.train(job.seed, without=[job.fact])


_RATES = (1e-3, 3e-3, 1e-2)
_FREE = [{"steps": n, "lr": lr} for n in (10, 40) for lr in _RATES]
_HELD = [{"steps": 40, "lr": lr, "weight": w} for w in (1.0, 5.0) for lr in _RATES]
_ABOVE = [{"above": g} for g in (0.5, 0.9, 0.2, 0.1, 0.05, 0.02)]
_SITES = [{"where": w} for w in ("W_in", "W_out")]
METHODS: dict[str, tuple[Callable[[Job, Setting], nn.Module], list[Setting]]] = {
    "spd": (_spd, _ABOVE),
    "spd, reading": (_spd_reading, []),
    "spd, writing": (_spd_writing, []),
    "spd, one path": (_spd_one_path, []),
    "spd, by effect": (_spd_effect, [{"pieces": k} for k in (1, 2, 3, 4, 6, 8)]),
    "ascent": (_ascent, _FREE),
    "ascent, retain": (_ascent_retain, _HELD),
    "uniform": (_uniform, _FREE),
    "uniform, retain": (_uniform_retain, _HELD),
    "closed form": (
        _closed_form,
        [{"wanted": w, "ridge": r} for w in (0.0, 1.0) for r in (1e-3, 1e-2, 1e-1)],
    ),
    "svd direction": (_svd, _SITES),
    "top neuron": (_neuron, [{}]),
    "projection": (_projected, _SITES),
    "random pieces": (_random_pieces, []),
    "random rank one": (_random_rank_one, []),
    "oracle": (_oracle, []),
}
"""{name: (what it does, the settings to choose from)}. Those without take SPD's."""
ALL = ("target", *METHODS)

# One cell


def decomposed(preset: facts.Preset, seed: int, keep: Path | None) -> Decomposition:
    """A trained and decomposed target; `info` has the CPU seconds of both."""
    path = keep / f"{preset.name}-{seed}.safetensors" if keep else None
    if path and path.exists():
        d = spd.load(path)
        if d.config == preset.config and "cpu_seconds" in d.info:
            return d
    clock = [time.process_time()]
    target = preset.train(seed)
    clock.append(time.process_time())
    config = preset.config
    d = spd.decompose(
        target, preset.sampler(target), config, seed=seed, device="cpu", progress=False
    )
    clock.append(time.process_time())
    d.info["target_cpu_seconds"], d.info["cpu_seconds"] = clock[1] - clock[0], clock[2] - clock[1]
    if path:
        d.save(path)
    return d


def job(d: Decomposition, preset: facts.Preset, seed: int, fact: int, plan: Plan) -> Job:
    """The examples of a fact depend on the fact alone."""
    target = d.target
    assert isinstance(target, Facts)
    forget, retain = forgetting.examples(target, fact, plan.noise, seed=fact)
    return Job(d, target, preset, seed, fact, forget, retain)


def tuned(name: str, jobs: Sequence[Job], plan: Plan) -> tuple[Setting, float]:
    """The setting with the best mean score on validation facts, the first of equals; and it."""
    act, settings = METHODS[name]

    def score(setting: Setting) -> float:
        found = []
        for j in jobs:
            before = forgetting.outcome(j.target, j.target, j.fact, plan.noise)
            after = forgetting.outcome(act(j, setting), j.target, j.fact, plan.noise)
            found.append(after.score(before))
        return sum(found) / len(found)

    scores = [score(s) for s in settings]
    best = max(scores)
    return settings[scores.index(best)], best


def held_weights(model: nn.Module) -> Facts:
    """The model as its weights are, without what only runs beside them."""
    while isinstance(model, unlearn.Projected):
        model = model.model
    assert isinstance(model, Facts)
    return model


def come_back(
    models: Mapping[tuple[str, int], Facts], target: Facts, plan: Plan
) -> dict[str, Tensor]:
    """Relearning curves of {(method, fact): model}, all side by side: {kind: (steps + 1, k)}."""
    which = torch.tensor([fact for _, fact in models])[:, None]
    everyone = torch.arange(len(target.keys))
    rest = torch.stack([everyone[everyone != fact] for fact in which])  # (k, n_facts − 1)

    def others(generator: torch.Generator) -> Examples:
        some = torch.randperm(rest.shape[1], generator=generator)[: plan.others_batch]
        return forgetting.lessons(target, rest[:, some], plan.noise)(generator)

    own, held = (
        forgetting.lessons(target, which.expand(-1, n), plan.noise) for n in (plan.own_batch, 10)
    )
    watched = held(torch.Generator().manual_seed(1))
    ways = {"own": (own, plan.own_steps), "others": (others, plan.others_steps)}
    return {
        kind: forgetting.relearn(list(models.values()), draw, watched, steps=steps, lr=plan.lr)
        for kind, (draw, steps) in ways.items()
    }


def run_cell(arm: str, seed: int, keep: Path | None, plan: Plan) -> Cell:
    """Everything about one target."""
    preset = ARMS[arm]
    d = decomposed(preset, seed, keep)
    tuning = [job(d, preset, seed, fact, plan) for fact in plan.validation]
    jobs = [job(d, preset, seed, fact, plan) for fact in plan.reported]
    target = jobs[0].target
    rows: dict[str, dict[str, Any]] = {}
    models: dict[tuple[str, int], nn.Module] = {("target", j.fact): target for j in jobs}
    for name, (act, settings) in METHODS.items():
        clock = [time.process_time()]
        setting, score = tuned(name, tuning, plan) if settings else (rows["spd"]["setting"], None)
        clock.append(time.process_time())
        models |= {(name, j.fact): act(j, setting) for j in jobs}
        clock.append(time.process_time())
        rows[name] = {
            "setting": setting if settings else {},
            "validation": score,
            "tuning_seconds": round(clock[1] - clock[0], 2),
            "edit_seconds": round((clock[2] - clock[1]) / len(jobs), 4),
        }
    held = {at: held_weights(m) for at, m in models.items()}
    curves = come_back(held, target, plan)
    goal = curves["own"][0, : len(jobs)] * plan.back
    for k, name in enumerate(ALL):
        found = [forgetting.outcome(models[name, j.fact], target, j.fact, plan.noise) for j in jobs]
        mine = slice(k * len(jobs), (k + 1) * len(jobs))
        rows.setdefault(name, {})
        rows[name] |= dataclasses.asdict(forgetting.mean(found))
        rows[name]["worst_left"] = max(o.paraphrased for o in found)
        for kind, curve in curves.items():
            steps = forgetting.steps_to(curve[:, mine], goal)
            rows[name][f"{kind}_steps"] = float(steps.float().mean())
            rows[name][f"{kind}_back"] = float((steps < len(curve)).float().mean())
            rows[name][f"{kind}_end"] = float(curve[-1, mine].mean())
        inside = [
            (
                forgetting.extracted(m, j.fact, plan.noise, plan.probe_rows, plan.probe_noise),
                *forgetting.halves(m, target, j.fact),
            )
            for j in jobs
            for m in [held[name, j.fact]]
        ]
        for i, what in enumerate(("probe", "reading_left", "writing_left")):
            rows[name][what] = sum(v[i] for v in inside) / len(inside)
    return {
        "arm": arm,
        "seed": seed,
        "threads": torch.get_num_threads(),
        "setting": fingerprint(arm, plan),
        "target_seconds": round(d.info["target_cpu_seconds"], 2),
        "decompose_seconds": round(d.info["cpu_seconds"], 2),
        "decompose_inputs": preset.config.steps * preset.config.batch_size,
        "pieces": [len(j.pieces(rows["spd"]["setting"])) for j in jobs],
        "agreement": agreement(jobs, rows["spd"]["setting"]),
        "together": composed(models, jobs, plan),
        "methods": {name: rounded(rows[name]) for name in ALL},
        **ledger_data.environment("cpu"),
    }


def agreement(jobs: Sequence[Job], setting: Setting) -> float:
    """The share of the pieces chosen by importance that as many chosen by effect have, too."""
    shares = []
    for j in jobs:
        k, scores = len(j.pieces(setting)), edit.by_importance(j.d, j.forget[0])
        shares.append(edit.agreement(scores, j.effects, k) if k else 0.0)
    return round(sum(shares) / len(shares), 4)


def composed(
    models: Mapping[tuple[str, int], nn.Module], jobs: Sequence[Job], plan: Plan
) -> dict[str, Any]:
    """The first 1 … n facts taken away together: {method: a row for each n}."""
    target, found = jobs[0].target, {}
    for name in ("spd", "ascent, retain", "uniform, retain", "closed form"):
        rows = []
        for n in range(1, len(jobs) + 1):
            edited = [models[name, j.fact] for j in jobs[:n]]
            p = facts.confidence(
                forgetting.together(target, edited), target, plan.noise, forgetting.DRAWS
            )
            gone = torch.zeros(len(p), dtype=torch.bool)
            gone[[j.fact for j in jobs[:n]]] = True
            rows.append(
                rounded(
                    {
                        "left": float(p[gone].mean()),
                        "others": float(p[~gone].mean()),
                        "additivity_error": forgetting.additivity_error(
                            target, edited, target.keys
                        ),
                    }
                )
            )
        found[name] = rows
    return found


def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers to 5 places."""
    return {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}


def fingerprint(arm: str, plan: Plan) -> str:
    """A hash of everything that decides on a cell: the preset, the plan and every setting."""
    what = {
        "preset": dataclasses.asdict(ARMS[arm]),
        "plan": dataclasses.asdict(plan),
        "methods": {name: settings for name, (_, settings) in METHODS.items()},
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


# The file

CELL_KEYS = FACTS | {
    "arm", "seed", "threads", "setting", "target_seconds", "decompose_seconds", "decompose_inputs",
    "pieces", "agreement", "together", "methods",
}  # fmt: skip
MEASURES = {f.name for f in dataclasses.fields(forgetting.Outcome)} | {
    "worst_left", "own_steps", "own_back", "own_end", "others_steps", "others_back", "others_end",
    "probe", "reading_left", "writing_left",
}  # fmt: skip
PRICES = {"setting", "validation", "tuning_seconds", "edit_seconds"}


def key(cell: Mapping[str, Any]) -> tuple[int, int]:
    """What makes two cells the same, and their order."""
    return list(ARMS).index(cell["arm"]), cell["seed"]


def current(cell: Cell) -> bool:
    """Whether a cell was made with the settings that hold now."""
    return cell["arm"] in ARMS and cell["setting"] == fingerprint(cell["arm"], PLAN)


def problems(cells: Iterable[Cell]) -> list[str]:
    """Everything that is wrong with the cells of a file, one line each; empty = well-formed."""
    found, seen = [], set()
    for cell in cells:
        name = f"{cell.get('arm')} {cell.get('seed')}"
        if missing := sorted(CELL_KEYS - set(cell)):
            found.append(f"{name}: lacks {missing}")
            continue
        if cell["arm"] not in ARMS:
            found.append(f"{name}: no such arm")
            continue
        if not current(cell):
            found.append(f"{name}: made with other settings")
        if key(cell) in seen:
            found.append(f"{name}: twice")
        seen.add(key(cell))
        if cell["seed"] < FIRST_SEED:
            found.append(f"{name}: seeds start at {FIRST_SEED}")
        if list(cell["methods"]) != list(ALL):
            found.append(f"{name}: methods are {list(cell['methods'])}")
            continue
        for method, row in cell["methods"].items():
            if set(row) != MEASURES | (PRICES if method != "target" else set()):
                found.append(f"{name}: {method} has the keys {sorted(row)}")
            shares = [v for k, v in row.items() if k in MEASURES and not k.endswith("_steps")]
            if not all(0 <= v <= 1 for v in shares):
                found.append(f"{name}: {method} has a share outside [0, 1]")
        if not all(math.isfinite(n) for n in ledger_data.numbers(cell)):
            found.append(f"{name}: a number is not finite")
        if not cell["decompose_seconds"] > 0:
            found.append(f"{name}: no time")
    return found


# Command line


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0 when all cells are there, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("arms", nargs="*", help=f"of {', '.join(ARMS)}; default: all")
    parser.add_argument("--seeds", default="1000:1005", help="such as 1000:1005")
    parser.add_argument("--keep", type=Path, help="a folder for the decompositions")
    parser.add_argument("--data", type=Path, default=DATA, help="where the cells go")
    return status(_work, parser.parse_args(argv))


def _work(args: argparse.Namespace) -> None:
    seeds, arms = parse_seeds(args.seeds), args.arms or list(ARMS)
    if min(seeds) < FIRST_SEED:
        raise ValueError(f"seeds start at {FIRST_SEED}; smaller ones served to choose settings")
    if unknown := sorted(set(arms) - set(ARMS)):
        raise ValueError(f"arms are {', '.join(ARMS)}, not {', '.join(unknown)}")
    torch.set_num_threads(1)
    path = args.data.resolve()
    for seed in seeds:
        for arm in arms:
            done = {key(c) for c in load(path) if current(c)}  # others may be at work, too
            if key({"arm": arm, "seed": seed}) in done:
                continue
            begun = time.process_time()
            cell = run_cell(arm, seed, args.keep, PLAN)
            update(path, [cell], key, part="methods")
            spd_row, seconds = cell["methods"]["spd"], time.process_time() - begun
            say(
                f"{arm} {seed}: of a fact {spd_row['paraphrased']:.3f} left, of the others "
                f"{spd_row['others']:.3f}; {seconds:.0f} CPU s"
            )


if __name__ == "__main__":
    sys.exit(main())
