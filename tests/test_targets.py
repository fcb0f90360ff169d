"""Toy targets: sparse inputs and their statistics, TMS and its training, a small real run."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from spd_mini import decompose, recovery
from spd_mini.targets import PUBLISHED, AnyPreset, tms
from spd_mini.targets.sparse import SparseFeatures
from spd_mini.targets.tms import TMS
from zoo import generator, triangle

SMALL = dataclasses.replace(
    tms.TMS_5_2, name="small", n_features=3, train_steps=800, train_restarts=3
)


def stratified(data: SparseFeatures, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    drawn = data(n, generator(seed))
    assert isinstance(drawn, tuple)
    return drawn


# Sparse inputs


def test_plain_inputs_have_the_stated_frequency_and_values() -> None:
    data = SparseFeatures(5, 0.05)
    x = data(40_000, generator())
    assert isinstance(x, Tensor)
    assert x.shape == (40_000, 5)
    on = x[x != 0]
    assert float((x != 0).float().mean()) == pytest.approx(0.05, rel=0.03)
    assert torch.allclose((x != 0).float().mean(0), torch.full((5,), 0.05), atol=0.005)
    assert (float(on.min()) > 0, float(on.max()) <= 1) == (True, True)
    assert float(on.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(on.var()) == pytest.approx(1 / 12, rel=0.05)
    assert data.p_zero == pytest.approx(0.95**5)
    assert float((x == 0).all(1).float().mean()) == pytest.approx(data.p_zero, abs=0.01)


def test_other_ranges() -> None:
    x = SparseFeatures(3, 1.0, low=-1.0, high=1.0)(10_000, generator())
    assert isinstance(x, Tensor)
    assert float(x.mean()) == pytest.approx(0, abs=0.02)
    assert float(x.var()) == pytest.approx(1 / 3, rel=0.03)


@pytest.mark.parametrize(("n_features", "p"), [(1, 0.3), (3, 0.3), (5, 0.05), (4, 1.0)])
def test_stratified_rows_are_never_zero_but_the_last(n_features: int, p: float) -> None:
    data = SparseFeatures(n_features, p, stratified=True)
    x, weight = stratified(data, 500)
    assert x.shape == (501, n_features)
    assert bool((x[:-1] != 0).any(1).all())
    assert not x[-1].any()
    assert float(weight.sum()) == pytest.approx(1, abs=1e-5)
    assert float(weight[-1]) == pytest.approx((1 - p) ** n_features)
    assert torch.equal(weight[:-1], weight[:1].expand(500))


def test_stratified_patterns_have_their_exact_probabilities() -> None:
    """Each of the 7 patterns of three features at p = 0.3, given that one is on."""
    data = SparseFeatures(3, 0.3, stratified=True)
    n = 60_000
    x, _ = stratified(data, n)
    code = ((x[:-1] != 0) * torch.tensor([4, 2, 1])).sum(1)
    counts = torch.bincount(code, minlength=8) / n
    for k in range(1, 8):
        on = bin(k).count("1")
        want = 0.3**on * 0.7 ** (3 - on) / (1 - 0.7**3)
        spread = (want * (1 - want) / n) ** 0.5
        assert abs(float(counts[k]) - want) < 4 * spread, f"pattern {k:03b}"
    assert counts[0] == 0


def test_weighted_means_equal_plain_means() -> None:
    """E[x], E[x²] and E[x₁x₂] of plain rows come out of the stratified ones, too."""
    data = SparseFeatures(3, 0.3, stratified=True)
    x, w = stratified(data, 60_000)
    assert torch.allclose(w @ x, torch.full((3,), 0.3 / 2), atol=0.003)
    assert torch.allclose(w @ x.square(), torch.full((3,), 0.3 / 3), atol=0.003)
    assert float(w @ (x[:, 0] * x[:, 1])) == pytest.approx(0.09 / 4, abs=0.001)


def test_samples_depend_on_their_generator_only() -> None:
    for strat in (False, True):
        data = SparseFeatures(4, 0.2, stratified=strat)
        before = torch.get_rng_state()
        a, b, c = (data(20, generator(s)) for s in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), before)
        a, b, c = (t[0] if isinstance(t, tuple) else t for t in (a, b, c))
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_features": 0}, "n_features must be ≥ 1, got 0"),
        ({"probability": 0.0}, r"probability must be in \(0, 1\], got 0.0"),
        ({"probability": 1.2}, r"probability must be in \(0, 1\], got 1.2"),
        ({"probability": -0.1}, r"probability must be in \(0, 1\], got -0.1"),
        ({"probability": float("nan")}, r"probability must be in \(0, 1\], got nan"),
        ({"low": 1.0, "high": 1.0}, r"need low < high, got \[1.0, 1.0\]"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseFeatures(**{"n_features": 5, "probability": 0.05, **settings})


# TMS


@pytest.mark.parametrize("identity", [False, True])
def test_forward_by_hand(identity: bool) -> None:
    """The triangle: W_i·W_j = −½; x = (1, 0, ½) gives relu(1 − ¼, −½ − ¼, ½ − ½) = (¾, 0, 0)."""
    x = torch.tensor([[1.0, 0.0, 0.5]])
    out = triangle(identity)(x)
    assert out.tolist()[0] == pytest.approx([0.75, 0.0, 0.0], abs=1e-6)
    assert triangle(identity)(x.expand(2, 4, 3)).shape == (2, 4, 3)


def test_truth_follows_the_target() -> None:
    truth = TMS(5, 2, identity=True).truth()
    assert torch.equal(truth.probes, 0.75 * torch.eye(5))
    assert truth.patterns == {
        "encoder": recovery.Identity(5),
        "decoder": recovery.Identity(5),
        "hidden": recovery.Dense(2),
    }
    assert (truth.ml2r_range, truth.max_faithfulness) == ((0.95, 1.05), 0.01)
    assert "hidden" not in TMS(5, 2).truth().patterns
    assert TMS(5, 2).double().truth().probes.dtype == torch.float64


@pytest.mark.slow
def test_training_finds_every_feature_and_says_how() -> None:
    target = tms.train(SMALL, seed=0)
    info = target.training_info
    assert info["restarts"] == len(info["losses"]) == 3
    assert info["losses"][info["chosen"]] == min(info["losses"])
    assert min(info["losses"]) < 2e-3, "an untrained model is at 0.015"
    lengths = target.encoder.weight.detach().norm(dim=0)
    assert float(lengths.min()) > 0.5, "a feature was left out"
    out = target(0.75 * torch.eye(3)).detach()
    assert float((out.diagonal() - 0.75).abs().max()) < 0.15
    assert torch.equal(target.decoder.weight, target.encoder.weight.mT)
    assert not target.training


def test_training_repeats_and_leaves_the_global_seed_alone() -> None:
    brief = dataclasses.replace(SMALL, train_steps=20, identity=True)
    before = torch.get_rng_state()
    a, b, c = (brief.train(seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a.encoder.weight, b.encoder.weight)
    assert a.training_info == b.training_info
    assert not torch.equal(a.encoder.weight, c.encoder.weight)
    assert a.hidden is not None
    assert torch.equal(a.hidden.weight, torch.eye(2))
    assert torch.equal(a.decoder.weight, a.encoder.weight.mT)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_5_2_target_shows_all_five_features(seed: int) -> None:
    target = tms.TMS_5_2.train(seed)
    assert float(target.encoder.weight.detach().norm(dim=0).min()) > 0.5


# Presets


# METHOD, section 3: features, width, layers, C, β3, p, steps, batch, lr and d_gate of the paper's.
PAPER = {
    "tms-5-2": (5, 2, 0, 20, 3e-3, 1.0, 40_000, 4096, 1e-3, 16),
    "tms-5-2-id": (5, 2, 0, 20, 3e-3, 1.0, 40_000, 4096, 1e-3, 16),
    "tms-40-10": (40, 10, 0, 200, 1e-4, 2.0, 40_000, 4096, 1e-3, 16),
    "tms-40-10-id": (40, 10, 0, 200, 1e-4, 2.0, 40_000, 4096, 1e-3, 16),
    "resid-mlp-1": (100, 50, 1, 100, 1e-5, 2.0, 30_000, 2048, 2e-3, 16),
    "resid-mlp-2": (100, 25, 2, 400, 1e-5, 2.0, 50_000, 2048, 1e-3, 16),
    "resid-mlp-3": (102, 17, 3, 500, 5e-6, 2.0, 200_000, 2048, 1e-3, 128),
}


def test_presets() -> None:
    assert list(PUBLISHED) == list(PAPER)
    for name, preset in PUBLISHED.items():
        n, width, layers, *settings = PAPER[name]
        assert preset.name == name
        assert preset.n_features == n
        if isinstance(preset, tms.Preset):
            assert (preset.n_hidden, preset.identity) == (width, name.endswith("-id"))
            assert f"{n} features in {width} dimensions" in preset.summary()
        else:
            assert (preset.d_mlp, preset.n_layers, preset.d_resid) == (width, layers, 1000)
            neurons = " + ".join([str(width)] * layers)
            assert f"{n} features on {neurons} neurons" in preset.summary()
        c = preset.paper_config
        found = [c.C, c.importance_coeff, c.p, c.steps, c.batch_size, c.lr, c.gate_hidden]
        assert found == settings
        assert (c.layerwise_masks, c.faithfulness_warmup_steps, c.restarts) == ("fresh", 0, 1)


@pytest.mark.parametrize("preset", PUBLISHED.values(), ids=lambda preset: preset.name)
def test_samplers_of_presets(preset: AnyPreset) -> None:
    assert preset.sampler().stratified
    paper = preset.sampler(paper=True)
    p, low = (0.05, 0.0) if isinstance(preset, tms.Preset) else (0.01, -1.0)
    assert not paper.stratified
    assert (paper.probability, paper.n_features) == (p, preset.n_features)
    assert (paper.low, paper.high) == (low, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PUBLISHED.values(), ids=lambda preset: preset.name)
def test_every_preset_trains_on_its_own_model(preset: AnyPreset) -> None:
    """A few steps of the whole way: target, sampler, our settings, report."""
    target = dataclasses.replace(preset, train_steps=20).train(0)
    config = dataclasses.replace(preset.config, steps=10, faithfulness_warmup_steps=5)
    d = decompose(target, preset.sampler(), config, tied=target.tied, progress=False)
    report = recovery.report(d, target.truth())
    assert set(report.live) == set(d.names)
    assert not report.recovered, "ten steps cannot be enough"


def test_a_sampler_may_differ_from_the_targets_data() -> None:
    other = dataclasses.replace(tms.TMS_5_2, spd_feature_probability=0.2)
    assert other.sampler().probability == 0.2
    assert other.sampler(paper=True).probability == 0.05


# A real run


@pytest.mark.slow
def test_a_small_model_is_recovered() -> None:
    """Three features in the plane, from random initialisation: every mechanism on its own."""
    config = dataclasses.replace(
        tms.TMS_5_2.config, C=8, steps=600, faithfulness_warmup_steps=150, restarts=2
    )
    target = triangle()
    data = SparseFeatures(3, 0.05, stratified=True)
    d = decompose(target, data, config, tied=target.tied, device="cpu", progress=False)
    report = recovery.report(d, target.truth())
    assert report.recovered, report.reasons
    assert report.live == {"encoder": 3, "decoder": 3}
    assert d.history["recon"][-1] < 0.1 * d.history["recon"][0]
    x, weight = data(200, generator(1))
    assert float(weight @ d.divergence(d(x), d.target(x))) < 1e-4
