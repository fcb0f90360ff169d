"""Measures of forgetting: by hand on a memory of three facts, and against plain loops."""

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spd_mini.baselines import forgetting
from spd_mini.baselines.forgetting import Outcome
from spd_mini.targets.facts import Facts
from zoo import fill, generator, randn

EYE = torch.eye(3)
KNOWN = math.exp(4) / (math.exp(4) + 2)  # logits 4, 0, 0


def memory() -> Facts:
    """Three facts on the axes: neuron i reads key i and writes 4 to answer i. Subjects 0, 0, 1."""
    model = Facts(n_facts=3, facts_per_subject=2, n_answers=3, d_key=3, d_mlp=3)
    with torch.no_grad():
        model.keys.copy_(EYE)
        model.get_parameter("paths.0.W_in.weight").copy_(EYE)
        model.get_parameter("paths.0.W_in.bias").zero_()
        model.get_parameter("paths.0.W_out.weight").copy_(4 * EYE)
    return model.eval()


def without(*facts: int, half: str = "W_out") -> Facts:
    """The memory with the column that writes a fact, or the row that reads it, at 0."""
    model = memory()
    with torch.no_grad():
        W = model.get_parameter(f"paths.0.{half}.weight")
        (W.mT if half == "W_out" else W)[list(facts)] = 0
    return model


# What is left


def test_outcome_by_hand() -> None:
    """Fact 1 deleted: all answers alike. Fact 2 has half its logit: e²/(e² + 2) is left."""
    model = without(1)
    model.get_parameter("paths.0.W_out.weight").data[2, 2] = 2.0
    half = math.exp(2) / (math.exp(2) + 2)
    found = forgetting.outcome(model, memory(), 1, noise=0.0)
    want = Outcome(
        clean=1 / 3,
        paraphrased=1 / 3,
        recall=0.0,
        recall_paraphrased=0.0,
        others=(KNOWN + half) / 2,
        others_recall=1.0,
        neighbours=KNOWN,
        lost=KNOWN - half,
    )
    assert vars(found) == pytest.approx(vars(want))
    alone = forgetting.outcome(model, memory(), 2, noise=0.0)
    assert alone.neighbours == alone.others, "fact 2 is the only one of its subject"
    kept = forgetting.outcome(memory(), memory(), 1, noise=0.0)
    assert (kept.lost, kept.recall) == (0.0, 1.0)
    assert kept.others == pytest.approx(KNOWN)
    # 1 − ⅓/p of the fact is gone; the others lose a share, and the worst of them a part
    gone, lost = 1 - 1 / 3 / KNOWN, 1 - (KNOWN + half) / 2 / KNOWN
    assert found.score(kept) == pytest.approx(gone - lost - (KNOWN - half))
    assert kept.score(kept) == 0
    assert replace(kept, paraphrased=0.0, others=1.0).score(kept) == 1


def test_paraphrases_are_harder() -> None:
    model = memory()
    clean, noisy = (forgetting.outcome(model, model, 0, noise) for noise in (0.0, 1.0))
    assert clean.paraphrased == pytest.approx(clean.clean) and noisy.clean == clean.clean
    assert noisy.paraphrased < clean.paraphrased - 0.05
    assert noisy.others_recall < noisy.recall == 1


def test_the_mean_of_outcomes() -> None:
    one = forgetting.outcome(memory(), memory(), 0, 0.0)
    two = replace(one, clean=0.0, lost=0.5)
    both = forgetting.mean([one, two])
    assert both == replace(one, clean=one.clean / 2, lost=0.25)


def test_examples() -> None:
    """Twenty of the fact, four of each other, each with a noise of its own."""
    forget, retain = forgetting.examples(memory(), 1, noise=0.1)
    assert forget[0].shape == (20, 3) and forget[1].tolist() == [1] * 20
    assert sorted(retain[1].tolist()) == [0] * 4 + [2] * 4
    assert 0 < float((forget[0] - EYE[1]).abs().max()) < 0.5
    assert len(forget[0].unique(dim=0)) == 20
    assert torch.equal(retain[0].argmax(1), retain[1])
    again, other = (forgetting.examples(memory(), 1, 0.1, seed)[0][0] for seed in (0, 1))
    assert torch.equal(again, forget[0]) and not torch.equal(other, forget[0])


# Coming back


def test_relearning_side_by_side_is_a_plain_loop() -> None:
    """Two models, each on batches of its own, and each as if it were alone."""
    models = [fill(memory(), 1), fill(memory(), 2)]
    before = copy.deepcopy(models[0].state_dict())
    x, y = randn(2, 5, 3, seed=3), torch.tensor([[0] * 5, [1, 2, 1, 2, 0]])
    held = (randn(2, 4, 3, seed=4), torch.tensor([[0] * 4, [1] * 4]))

    def draw(g: torch.Generator) -> tuple[Tensor, Tensor]:
        return x + 0.1 * torch.randn(x.shape, generator=g), y

    curve = forgetting.relearn(models, draw, held, steps=3, lr=0.01, seed=7)
    assert curve.shape == (4, 2)
    assert all(torch.equal(t, before[n]) for n, t in models[0].state_dict().items())
    for i, model in enumerate(models):
        tuned, g = copy.deepcopy(model), generator(7)
        adam = torch.optim.Adam(tuned.parameters(), lr=0.01)
        for step in range(4):
            p = tuned(held[0][i]).softmax(-1)[torch.arange(4), held[1][i]].mean().detach()
            assert float(curve[step, i]) == pytest.approx(float(p), rel=1e-4)
            adam.zero_grad()
            F.cross_entropy(tuned(draw(g)[0][i]), y[i]).backward()
            adam.step()


def test_lessons() -> None:
    """Of the facts asked for, with their answers, and new noise each time."""
    chosen, g = torch.tensor([[0, 0], [2, 1]]), generator()
    draw = forgetting.lessons(memory(), chosen, noise=0.1)
    (x, y), (again, _) = draw(g), draw(g)
    assert torch.equal(y, chosen) and torch.equal(x.argmax(-1), chosen)
    assert not torch.equal(x, again) and not torch.equal(x[0, 0], x[0, 1])


def test_steps_to_a_goal() -> None:
    """There from the start, at the second step, after a fall too; and never: one more than all."""
    curve = torch.tensor([[0.9, 0.1, 0.1, 0.0], [0.2, 0.5, 0.9, 0.1], [0.0, 0.9, 0.1, 0.2]])
    assert forgetting.steps_to(curve, torch.full((4,), 0.8)).tolist() == [0, 2, 1, 3]
    goals = torch.tensor([0.95, 0.5, 0.05, 0.2])
    assert forgetting.steps_to(curve, goals).tolist() == [3, 1, 0, 2]


# What is left inside


def test_the_probe_is_ridge_regression_with_an_intercept() -> None:
    """Against least squares on rows that carry the penalty."""
    a, labels, b = randn(12, 4), torch.arange(12) % 3, randn(9, 4, seed=5)
    centred = a - a.mean(0)
    price = (0.5 * centred.square().sum(0).mean()).sqrt()
    rows = torch.cat([centred, price * torch.eye(4)])
    wanted = torch.cat([F.one_hot(labels).float() - 1 / 3, torch.zeros(4, 3)])
    weights = torch.linalg.lstsq(rows, wanted).solution
    want = (b - a.mean(0)) @ weights
    assert torch.equal(forgetting.probe(a, labels, ridge=0.5)(b), want.argmax(1))


def test_what_the_neurons_pass_on() -> None:
    two = Facts(n_facts=1, facts_per_subject=1, n_answers=1, d_key=2, d_mlp=2, n_paths=2)
    with torch.no_grad():
        for i, sign in enumerate((1.0, -1.0)):
            two.get_parameter(f"paths.{i}.W_in.weight").copy_(sign * torch.eye(2))
            two.get_parameter(f"paths.{i}.W_in.bias").zero_()
    assert forgetting.hidden(two, torch.tensor([[1.0, -2.0]])).tolist() == [[1.0, 0.0, 0.0, 2.0]]


def test_a_probe_finds_what_is_read_and_nothing_else() -> None:
    """A memory that cannot write fact 1 still reads it; one that reads nothing has nothing."""
    how: dict[str, Any] = {"noise": 0.1, "rows": 4, "test_noise": 0.2}
    assert forgetting.extracted(without(1), 1, **how) == 1
    assert forgetting.extracted(without(0, 1, 2, half="W_in"), 1, **how) == 0
    assert 0 < forgetting.extracted(memory(), 1, noise=0.1, rows=4, test_noise=2.0) < 1


def test_halves_by_hand() -> None:
    """What was deleted where the answer is written is there again with the target's W_out."""
    target = memory()
    assert forgetting.halves(without(1), target, 1) == pytest.approx((KNOWN, 1 / 3))
    assert forgetting.halves(without(1, half="W_in"), target, 1) == pytest.approx((1 / 3, KNOWN))


# Several at once


def test_changes_add_up() -> None:
    target = memory()
    joint = forgetting.together(target, [without(0), without(2)])
    assert torch.equal(joint.get_parameter("paths.0.W_out.weight"), torch.diag(EYE[1] * 4))
    assert torch.equal(joint.get_buffer("answers"), target.answers)
    assert forgetting.additivity_error(target, [without(0), without(2)], EYE) == 0
    # reading and writing of the same fact: each takes 4 from its logit, and so do both
    twice = [without(0), without(0, half="W_in")]
    assert forgetting.additivity_error(target, twice, EYE) == pytest.approx(0.5)


# Errors


ERRORS = [
    (lambda m: forgetting.examples(m, 3, 0.1), r"facts are 0 to 2, got [3]"),
    (lambda m: forgetting.outcome(m, m, -1, 0.1), r"facts are 0 to 2, got [-1]"),
    (lambda m: forgetting.extracted(m, 9, 0.1, 1, 0.1), r"facts are 0 to 2, got [9]"),
    (lambda m: forgetting.halves(m, m, 3), r"facts are 0 to 2, got [3]"),
    (lambda m: forgetting.mean([]), "the mean of outcomes needs at least one"),
    (lambda m: forgetting.probe(EYE, torch.arange(3), ridge=0.0), "a probe must be > 0, got 0.0"),
    (
        lambda m: forgetting.relearn([], lambda g: (EYE, EYE), (EYE, EYE), steps=1, lr=1.0),
        "relearning needs models",
    ),
    (
        lambda m: forgetting.relearn([m], lambda g: (EYE, EYE), (EYE, EYE), steps=0, lr=1.0),
        "steps ≥ 1, lr > 0; got 0 and 1.0",
    ),
]


@pytest.mark.parametrize(("act", "message"), ERRORS, ids=[message for _, message in ERRORS])
def test_errors(act: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (compared below)
        act(memory())
    assert message in str(caught.value)
