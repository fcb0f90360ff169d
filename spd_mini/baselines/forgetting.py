"""How far a model has forgotten a fact: what is left of it, what else went, how soon it is back.

A model under test is a `Facts` or anything that maps keys to logits like one; the target is the
model that still knows. Probabilities are those of a fact's own answer, on its clean key or in the
mean over paraphrases.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from ..targets.facts import Facts, confidence, paraphrase, recall
from .unlearn import Examples, reads

DRAWS = 20
"""Paraphrases of each fact in a measurement."""


def examples(target: Facts, fact: int, noise: float, seed: int = 0) -> tuple[Examples, Examples]:
    """What a method may see: 20 paraphrases of the fact, and 4 of each other one, with answers.

    Raises ValueError for a fact that is not there.
    """
    _check(target, [fact])
    generator = torch.Generator().manual_seed(seed)

    def told(which: Tensor, rows: int) -> Examples:
        which = which.repeat(rows)
        return paraphrase(target.keys[which], noise, generator), target.answers[which]

    others = torch.arange(len(target.keys)) != fact
    return told(torch.tensor([fact]), 20), told(others.nonzero()[:, 0], 4)


@dataclass(frozen=True)
class Outcome:
    """What is left of a fact, and what became of the others. All but the recalls: probabilities."""

    clean: float
    paraphrased: float
    recall: float
    recall_paraphrased: float
    others: float
    """Of all other facts, in the mean over them and their paraphrases."""
    others_recall: float
    neighbours: float
    """The same for the facts of the same subject, or for all where there are none."""
    lost: float
    """The largest loss of any other fact, clean."""

    def score(self, before: "Outcome") -> float:
        """What methods are tuned by, 1 at best: the share of the fact that is gone, less the share
        of the others that is lost in the mean, less the largest loss of one of them."""
        gone = 1 - self.paraphrased / before.paraphrased
        return gone - max(0.0, 1 - self.others / before.others) - self.lost


def outcome(
    model: Callable[[Tensor], Tensor], target: Facts, fact: int, noise: float, seed: int = 0
) -> Outcome:
    """Measure a model on a fact. noise: of the paraphrases. Raises ValueError as `examples`."""
    _check(target, [fact])
    clean, p = confidence(model, target), confidence(model, target, noise, DRAWS, seed)
    hit, r = recall(model, target), recall(model, target, noise, DRAWS, seed)
    others = torch.arange(len(p)) != fact
    near = others & (target.subjects == target.subjects[fact])
    lost = (confidence(target, target) - clean)[others]
    return Outcome(
        clean=float(clean[fact]),
        paraphrased=float(p[fact]),
        recall=float(hit[fact]),
        recall_paraphrased=float(r[fact]),
        others=float(p[others].mean()),
        others_recall=float(r[others].mean()),
        neighbours=float(p[near if near.any() else others].mean()),
        lost=max(0.0, float(lost.max())),
    )


def mean(outcomes: Sequence[Outcome]) -> Outcome:
    """Each number's mean. Raises ValueError for none."""
    if not outcomes:
        raise ValueError("the mean of outcomes needs at least one")
    rows = [asdict(o) for o in outcomes]
    return Outcome(**{k: sum(r[k] for r in rows) / len(rows) for k in rows[0]})


# Coming back


def lessons(target: Facts, chosen: Tensor, noise: float) -> Callable[[torch.Generator], Examples]:
    """Batches for `relearn`: paraphrases of chosen facts (models, n), with new noise each time."""

    def draw(generator: torch.Generator) -> Examples:
        return paraphrase(target.keys[chosen], noise, generator), target.answers[chosen]

    return draw


def relearn(
    models: Sequence[nn.Module],
    draw: Callable[[torch.Generator], Examples],
    held: Examples,
    *,
    steps: int,
    lr: float,
    seed: int = 0,
) -> Tensor:
    """Fine-tune models of one class side by side and watch the answer: (steps + 1, models).

    draw: a generator to each model's next batch, inputs (models, n, ...) and answers (models, n).
    held: what is watched, likewise; the mean probability of its answers before and after each step
    of Adam is returned. The models stay as they are. Raises ValueError for an empty budget.
    """
    if steps < 1 or not lr > 0 or not models:
        raise ValueError(f"relearning needs models, steps ≥ 1, lr > 0; got {steps} and {lr}")
    copies = [copy.deepcopy(m).requires_grad_(True) for m in models]
    weights, buffers = stack_module_state(copies)
    adam = torch.optim.Adam(weights.values(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    many = vmap(lambda w, b, x: functional_call(copies[0], (w, b), (x,)))

    def losses(batch: Examples) -> Tensor:
        logits = many(weights, buffers, batch[0])
        return F.cross_entropy(logits.mT, batch[1], reduction="none")  # (models, n)

    seen = []
    for step in range(steps + 1):
        with torch.no_grad():
            seen.append((-losses(held)).exp().mean(1))
        if step < steps:
            adam.zero_grad()
            losses(draw(generator)).mean(1).sum().backward()
            adam.step()
    return torch.stack(seen)


def steps_to(curve: Tensor, goal: Tensor) -> Tensor:
    """The first row of a curve (steps + 1, k) at which each column reaches its goal (k,).

    A column that never does counts as steps + 1.
    """
    there = torch.cat([curve >= goal, torch.ones_like(curve[:1], dtype=torch.bool)])
    return there.int().argmax(0)


# What is left inside


def hidden(model: Facts, x: Tensor) -> Tensor:
    """What the neurons of all pathways pass on: (n, n_paths · d_mlp)."""
    sites = [f"paths.{i}.W_out" for i in range(len(model.paths))]
    return torch.cat([reads(model, site, x) for site in sites], -1)


def probe(a: Tensor, labels: Tensor, ridge: float = 1e-2) -> Callable[[Tensor], Tensor]:
    """Fit a linear probe to activations a (n, d) with labels (n,): what maps (m, d) to labels.

    Ridge regression to one-hot labels, `ridge` times the mean square of a centred activation.
    Raises ValueError for a ridge that is not positive.
    """
    if not ridge > 0:
        raise ValueError(f"the ridge of a probe must be > 0, got {ridge}")
    centre, wanted = a.mean(0), F.one_hot(labels).to(a)
    offset, a = wanted.mean(0), a - centre
    S = a.mT @ a
    price = ridge * S.diagonal().mean().clamp(min=1e-12)  # all neurons may be silent
    S = S + price * torch.eye(len(S), dtype=S.dtype, device=S.device)
    weights = torch.linalg.solve(S, a.mT @ (wanted - offset))
    return lambda b: ((b - centre) @ weights + offset).argmax(-1)


def extracted(
    model: Facts, fact: int, noise: float, rows: int, test_noise: float, seed: int = 0
) -> float:
    """How often a probe, told `rows` paraphrases of every fact, knows others of this one again.

    It reads what the neurons pass on. What it finds in a model that was never told the fact is in
    the keys, not in the model: compare. Raises ValueError as `examples`.
    """
    _check(model, [fact])
    generator = torch.Generator().manual_seed(seed)
    which = torch.arange(len(model.keys)).repeat(rows)
    fitted = probe(hidden(model, paraphrase(model.keys[which], noise, generator)), which)
    asked = paraphrase(model.keys[[fact] * 200], test_noise, generator)
    return float((fitted(hidden(model, asked)) == fact).float().mean())


def halves(model: Facts, target: Facts, fact: int) -> tuple[float, float]:
    """The fact's probability (clean) with the target's W_out put back, and with its W_in.

    The first tells what is left where the key is read, the second where the answer is written.
    """
    _check(target, [fact])
    found = []
    for half in ("W_out", "W_in"):
        state = {n: t for n, t in target.state_dict().items() if f".{half}." in n}
        mixed = copy.deepcopy(model)
        mixed.load_state_dict(model.state_dict() | state)
        found.append(float(confidence(mixed, target)[fact]))
    return found[0], found[1]


# Several at once


def together(target: nn.Module, edited: Sequence[nn.Module]) -> nn.Module:
    """A copy of the target with the sum of what each edited copy changed in the weights."""
    joint, start = copy.deepcopy(target), target.state_dict()
    changed = [m.state_dict() for m in edited]
    joint.load_state_dict(
        {
            n: t + sum(s[n] - t for s in changed) if t.is_floating_point() else t
            for n, t in start.items()
        }
    )
    return joint


@torch.no_grad()
def additivity_error(target: nn.Module, edited: Sequence[nn.Module], x: Tensor) -> float:
    """How far what the sum of all edits does to the outputs is from the sum of what each does.

    The distance as a share of that sum's own length, over inputs x; 0 when edits do not meet.
    """
    before = target(x)
    apart = sum((m(x) - before for m in edited), torch.zeros_like(before))
    joint = together(target, edited)(x) - before
    return float((joint - apart).norm() / apart.norm())


def _check(target: Facts, facts: Sequence[int]) -> None:
    if not set(facts) <= set(range(len(target.keys))):
        raise ValueError(f"facts are 0 to {len(target.keys) - 1}, got {list(facts)}")
