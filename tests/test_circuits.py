"""Circuits apart and in pairs: what the inputs are, and which features share a piece."""

import dataclasses

import pytest
import torch
from torch import Tensor

from spd_mini.targets import EXPERIMENTS, PUBLISHED
from spd_mini.targets.circuits import (
    CIRCUITS,
    CIRCUITS_MANY,
    CIRCUITS_PAIRED,
    Merges,
    Pairs,
    merges,
)
from spd_mini.targets.sparse import SparseFeatures
from zoo import generator


def rows(unlike: float, n: int = 4000) -> Tensor:
    x = Pairs(6, 0.3, unlike=unlike)(n, generator())
    assert isinstance(x, Tensor)
    return x


@pytest.mark.parametrize("unlike", [0.0, 0.5, 1.0])
def test_pairs_come_and_go_together(unlike: float) -> None:
    x = rows(unlike)
    assert x.shape == (4000, 6)
    first, second = x[:, ::2], x[:, 1::2]
    assert torch.equal(first != 0, second != 0)
    assert (first != 0).float().mean(0).tolist() == pytest.approx([0.3] * 3, abs=0.03)
    assert torch.equal(first, second) == (unlike == 0)
    on = first != 0
    # second − first = unlike · (b − a), with E(b − a)² = 1/6
    spread = (second - first)[on].square().mean()
    assert float(spread) == pytest.approx(unlike**2 / 6, abs=0.02)


def test_stratified_rows_and_weights() -> None:
    data = Pairs(4, 0.25, stratified=True, unlike=1.0)
    drawn = data(8, generator())
    assert isinstance(drawn, tuple)
    x, weight = drawn
    assert x.shape == (9, 4) and weight.shape == (9,)
    assert x[:8].sum(1).min() > 0 and x[8].abs().max() == 0
    assert data.p_zero == pytest.approx(0.75**2)
    assert float(weight[8]) == pytest.approx(data.p_zero)
    assert float(weight.sum()) == pytest.approx(1)


def test_merges_by_hand() -> None:
    """Six features: lines (0, 3), (1, 4), (2, 5); pairs (0, 1), (2, 3), (4, 5)."""
    g = torch.zeros(6, 4)
    g[[0, 3], 0] = 0.9  # one line
    g[[1, 2, 3], 1] = 0.6  # 2 and 3 are a pair, 1 is strange to both
    g[[0, 1], 2] = 0.8  # a pair
    g[:, 3] = 0.4  # none
    assert merges(g) == Merges(line=1, pair=2, other=2)
    assert merges(torch.eye(6)) == Merges(0, 0, 0)
    assert merges(torch.ones(6, 1)) == Merges(3, 3, 9)
    twice = torch.zeros(6, 2)
    twice[[0, 3]] = 1.0
    assert merges(twice).line == 1, "pairs of features are counted, not pieces"


@pytest.mark.parametrize("seed", range(3))
def test_every_circuit_works_alone(seed: int) -> None:
    """The certificate. Alone each gives its feature; without it the others are what they were; and
    a line holds the sum of two as one matrix of rank one."""
    target = CIRCUITS.train(seed)
    W, x = target.encoder.weight.detach(), target.truth().probes
    torch.testing.assert_close(target(x).detach(), x)
    for i in range(6):
        alone, rest = torch.zeros(3, 6), W.clone()
        alone[:, i], rest[:, i] = W[:, i], 0
        keep = x.clone()
        keep[i] = 0
        for part, want in ((alone, x - keep), (rest, keep)):
            torch.testing.assert_close(torch.relu(x @ part.mT @ part), want)
    for i in range(3):
        pair = torch.zeros(3, 6)
        pair[:, [i, i + 3]] = W[:, [i, i + 3]]
        assert torch.linalg.matrix_rank(pair) == 1
    torch.testing.assert_close((W.mT @ W)[:3, :3], torch.eye(3))


def test_opposite_features_interfere() -> None:
    out = CIRCUITS.train(4)(torch.tensor([0.8, 0.0, 0.5, 0.3, 0.0, 0.6])).detach()
    torch.testing.assert_close(out, torch.tensor([0.5, 0.0, 0.0, 0.0, 0.0, 0.1]))


def test_building_repeats_and_leaves_the_global_seed_alone() -> None:
    before = torch.get_rng_state()
    a, b, c = (CIRCUITS.train(seed).encoder.weight for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_presets() -> None:
    for preset, pairs in ((CIRCUITS, ""), (CIRCUITS_PAIRED, ", in pairs")):
        assert EXPERIMENTS[preset.name] is preset and preset.name not in PUBLISHED
        assert preset.summary() == "6 circuits on 3 lines" + pairs
        assert preset.paper_config is None
    assert EXPERIMENTS["circuits-many"] is CIRCUITS_MANY
    assert CIRCUITS_MANY.summary() == "40 circuits on 20 lines"
    assert type(CIRCUITS.sampler()) is SparseFeatures
    paired = CIRCUITS_PAIRED.sampler()
    assert isinstance(paired, Pairs) and paired.stratified and paired.unlike == 1.0
    equal = dataclasses.replace(CIRCUITS_PAIRED, unlike=0.0).sampler(paper=True)
    assert isinstance(equal, Pairs) and not equal.stratified and equal.unlike == 0.0


def test_errors() -> None:
    with pytest.raises(ValueError, match="pairs need an even number of features, got 5"):
        Pairs(5, 0.1)
    for unlike in (-0.1, 1.1):
        with pytest.raises(ValueError, match=r"unlike must be in \[0, 1\], got"):
            Pairs(4, 0.1, unlike=unlike)
    with pytest.raises(ValueError, match="feature probability"):
        Pairs(4, 0.0)
    for n, m in ((6, 2), (4, 2)):
        with pytest.raises(ValueError, match=f"2 · n_hidden ≥ 6, got {n} and {m}"):
            dataclasses.replace(CIRCUITS, n_features=n, n_hidden=m).train(0)
