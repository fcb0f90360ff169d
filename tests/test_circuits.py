"""Circuits apart and in pairs: what the inputs are, and which features share a piece."""

import dataclasses

import pytest
import torch
from torch import Tensor

from spd_mini.targets import EXPERIMENTS, PUBLISHED, circuits
from spd_mini.targets.circuits import CIRCUITS, CIRCUITS_PAIRED, Pairs, merges
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
    """Piece 0 serves 0 and 1, a pair; piece 1 serves 1, 2 and 3, with one pair in it; 2 none."""
    g = torch.zeros(4, 3)
    g[[0, 1], 0] = 0.9
    g[[1, 2, 3], 1] = 0.6
    g[:, 2] = 0.4
    assert merges(g) == (2, 2)
    assert merges(torch.eye(4)) == (0, 0)
    assert merges(torch.ones(4, 1)) == (2, 4)


def test_presets() -> None:
    for preset in (CIRCUITS, CIRCUITS_PAIRED):
        assert EXPERIMENTS[preset.name] is preset and preset.name not in PUBLISHED
        assert preset.summary() == "8 features in 3 dimensions"
    assert type(CIRCUITS.sampler()) is SparseFeatures
    paired = CIRCUITS_PAIRED.sampler()
    assert isinstance(paired, Pairs) and paired.stratified and paired.unlike == 1.0
    equal = dataclasses.replace(CIRCUITS_PAIRED, unlike=0.0).sampler(paper=True)
    assert isinstance(equal, Pairs) and not equal.stratified and equal.unlike == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1000])
def test_every_circuit_works_alone(seed: int) -> None:
    """The certificate: on its probe each gives most of its feature, and hardly anything else."""
    target = CIRCUITS.train(seed)
    out = target(target.truth().probes).detach()
    assert out.diagonal().min() > 0.6
    assert (out - torch.diag(out.diagonal())).max() < 0.1


def test_errors() -> None:
    with pytest.raises(ValueError, match="pairs need an even number of features, got 5"):
        Pairs(5, 0.1)
    for unlike in (-0.1, 1.1):
        with pytest.raises(ValueError, match=r"unlike must be in \[0, 1\], got"):
            circuits.Pairs(4, 0.1, unlike=unlike)
    with pytest.raises(ValueError, match="feature probability"):
        Pairs(4, 0.0)
