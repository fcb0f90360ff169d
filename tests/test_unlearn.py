"""Baselines of forgetting: each by hand, or against what it promises."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spd_mini.baselines import unlearn
from zoo import by_hand, constant_gates, generator, randn

EYE = torch.eye(3)


def memory() -> nn.Sequential:
    """Three facts on the axes: neuron i reads key i and writes 4 to answer i."""
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 3, bias=False))
    with torch.no_grad():
        model.get_parameter("0.weight").copy_(EYE)
        model.get_parameter("2.weight").copy_(4 * EYE)
    return model


def diagonal(model: nn.Module) -> list[float]:
    """The logit of each fact's own answer."""
    return [round(v, 4) for v in model(EYE).diagonal().tolist()]


FORGET = (EYE[:1], torch.tensor([0]))
RETAIN = (EYE[1:], torch.tensor([1, 2]))


# Trained


@torch.no_grad()
def losses(model: nn.Module) -> tuple[float, float]:
    """Cross-entropy of what shall go and of what shall stay."""
    return tuple(float(F.cross_entropy(model(x), y)) for x, y in (FORGET, RETAIN))  # type: ignore[return-value]


def test_gradient_ascent_forgets_and_retain_examples_hold_the_rest() -> None:
    """The neuron of fact 0 dies and all answers are alike; the first step is Adam's, lr long."""
    model = memory()
    alone = unlearn.gradient_ascent(model, FORGET, steps=40, lr=0.05)
    held = unlearn.gradient_ascent(model, FORGET, RETAIN, steps=40, lr=0.05, weight=5.0)
    assert losses(alone) == pytest.approx((math.log(3), losses(model)[1]))
    assert losses(held)[0] == pytest.approx(math.log(3))
    assert losses(held)[1] < 0.01 * losses(alone)[1]
    step = unlearn.gradient_ascent(model, FORGET, steps=1, lr=0.05)
    assert step.get_parameter("2.weight")[:, 0].tolist() == pytest.approx([3.95, 0.05, 0.05])
    assert diagonal(model) == [4.0, 4.0, 4.0], "the model itself stays"


def test_tuning_to_uniform_answers() -> None:
    tuned = unlearn.to_uniform(memory(), FORGET[0], RETAIN, steps=150, lr=0.05)
    assert tuned(FORGET[0]).softmax(-1)[0].tolist() == pytest.approx([1 / 3] * 3, abs=0.02)
    assert losses(tuned)[1] < 0.1
    assert type(tuned) is nn.Sequential


# Computed


def test_the_closed_form_by_hand() -> None:
    """Facts on axes are told apart without cost: only the column of fact 0 changes."""
    edited = unlearn.closed_form(memory(), "2", EYE[:1], EYE[1:], torch.tensor([1.0, 2.0, 3.0]))
    want = torch.tensor([[1.0, 0.0, 0.0], [2.0, 4.0, 0.0], [3.0, 0.0, 4.0]])
    torch.testing.assert_close(edited.get_parameter("2.weight"), want)


@settings(max_examples=15)
@given(st.integers(0, 1000))
def test_the_closed_form_disturbs_least(seed: int) -> None:
    """What is wanted comes out; no other rank-one change to the same end costs less."""
    layer = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(randn(2, 4, seed=seed))
    model = nn.Sequential(layer)
    k, retain, wanted = randn(1, 4, seed=seed + 1), randn(9, 4, seed=seed + 2), randn(2, seed=seed)
    edited = unlearn.closed_form(model, "0", k, retain, wanted, ridge=1e-6)
    torch.testing.assert_close(edited(k)[0], wanted, rtol=1e-3, atol=1e-3)

    def cost(W: Tensor) -> float:
        return float(((W - layer.weight).detach() @ retain.T).square().sum())

    best = cost(edited.get_parameter("0.weight"))
    for other in (k[0], randn(4, seed=seed + 3)):
        q = other / (other @ k[0])
        W = layer.weight + torch.outer(wanted - layer.weight @ k[0], q)
        assert best <= cost(W) * (1 + 1e-3) + 1e-5


@pytest.mark.parametrize("how", [unlearn.svd_direction, unlearn.top_neuron])
def test_what_fact_0_uses_most_goes(how: Any) -> None:
    """Singular values 5, 4, 3 on the axes: directions and neurons are the same here."""
    model = memory()
    with torch.no_grad():
        model.get_parameter("2.weight").copy_(torch.diag(torch.tensor([5.0, 4.0, 3.0])))
    assert diagonal(how(model, "2", EYE[1:2], EYE)) == [5.0, 0.0, 3.0]
    # used a little by the fact, and hardly by the rest: neuron 2, though neuron 0 is used more
    forget, retain = torch.tensor([[1.0, 0.0, 0.5]]), torch.tensor([[1.0, 1.0, 0.01]])
    assert diagonal(how(model, "2", forget, retain)) == [5.0, 4.0, 0.0]


def test_projection_acts_while_it_runs() -> None:
    """Means (1, 0, 0) and (0, ½, ½): along (2, −1, −1)/√6 fact 0 keeps 1/3 of its own reading."""
    model = memory()
    projected = unlearn.Projected(model, "2", EYE[:1], EYE[1:])
    want = torch.tensor([2.0, -1.0, -1.0]) / 6**0.5
    torch.testing.assert_close(projected.direction.abs(), want.abs())
    torch.testing.assert_close(projected(EYE), 4 * (EYE - torch.outer(want, want)))
    assert diagonal(projected.model) == diagonal(model) == [4.0, 4.0, 4.0]


# Random


def test_a_random_change_is_as_long() -> None:
    model = memory()
    changes = {"0": randn(3, 3), "2": torch.zeros(3, 3)}
    edited = unlearn.random_rank_one(model, changes, generator())
    delta = edited.get_parameter("0.weight").detach() - EYE
    assert float(delta.norm()) == pytest.approx(float(changes["0"].norm()), rel=1e-4)
    assert torch.linalg.svdvals(delta)[1] < 1e-5
    assert torch.equal(edited.get_parameter("2.weight"), 4 * EYE)


def test_random_pieces_are_live_ones() -> None:
    C = {"0": [1.0, 0.0, 1.0, 1.0], "2": [0.0, 1.0, 0.0, 0.0]}
    d = by_hand(
        memory(),
        {n: randn(3, 4) for n in C},
        {n: randn(4, 3) for n in C},
        {n: constant_gates(g) for n, g in C.items()},
    )
    drawn = [unlearn.random_pieces(d, EYE, {"0": 2, "2": 1}, generator(s)) for s in range(20)]
    assert all(len(set(p)) == 3 and ("2", 1) in p and ("0", 1) not in p for p in drawn)
    assert {c for p in drawn for n, c in p if n == "0"} == {0, 2, 3}
    assert unlearn.random_pieces(d, EYE, {}, generator()) == []
    with pytest.raises(ValueError, match="'2' has 1 live pieces, asked for 2"):
        unlearn.random_pieces(d, EYE, {"2": 2}, generator())


# Errors


ERRORS = [
    (lambda m: unlearn.gradient_ascent(m, FORGET, steps=0, lr=1.0), "steps ≥ 1 and lr > 0, got 0"),
    (lambda m: unlearn.to_uniform(m, EYE, steps=1, lr=0.0), "steps ≥ 1 and lr > 0, got 1 and 0.0"),
    (lambda m: unlearn.closed_form(m, "2", EYE, EYE, EYE[0], ridge=0.0), "must be > 0, got 0.0"),
    (lambda m: unlearn.Projected(m, "2", EYE, EYE), "'2' reads the same mean from both sets"),
    (lambda m: unlearn.top_neuron(m, "1", EYE, EYE), "pattern '1' matches no nn.Linear"),
]


@pytest.mark.parametrize(("act", "message"), ERRORS, ids=[message[:30] for _, message in ERRORS])
def test_errors(act: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (compared below)
        act(memory())
    assert message in str(caught.value)
