"""Several prices side by side: each run is what it would be alone."""

import dataclasses

import pytest
import torch

from spd_mini import Config, Schedule, prices, sweep
from spd_mini.targets import tms as toy

QUICK = Config(C=6, steps=6, batch_size=8, restarts=1, gate_hidden=4)


def target() -> toy.TMS:
    model = toy.TMS(5, 2)
    model.decoder.weight.data = model.encoder.weight.data.T.clone()
    return model


def at(*values: float | Schedule, config: Config = QUICK) -> list[Config]:
    return [dataclasses.replace(config, importance_coeff=v) for v in values]


def test_prices_side_by_side_are_those_alone() -> None:
    """A setting's parameters are those of `sweep`, whoever stands beside it (without masks' draws,
    which come from one stream)."""
    model, data = target(), toy.TMS_5_2.sampler()
    calm = dataclasses.replace(QUICK, recon_coeff=0.0, layerwise_coeff=0.0, lr=0.1)
    settings = at(3e-3, 0.3, config=calm)
    together = prices.sweep(model, data, settings, [4, 7], model.tied, "cpu")
    for setting, runs in zip(settings, together, strict=True):
        alone = sweep(model, data, setting, [4, 7], tied=model.tied, progress=False, device="cpu")
        for a, b in zip(runs, alone, strict=True):
            assert a.info["seed"] == b.info["seed"]
            assert a.config == setting
            assert torch.allclose(a.V["encoder"], b.V["encoder"], atol=1e-5)
            assert a.info["loss"] == pytest.approx(b.info["loss"], rel=1e-4)
    low, high = (runs[0].V["encoder"] for runs in together)
    assert not torch.allclose(low, high, atol=1e-3)


def test_a_scheduled_price_and_an_adversary() -> None:
    """Twice the schedule is the factor 2 throughout; the adversary's loss keeps its own weight."""
    model, data = target(), toy.TMS_5_2.sampler()
    rising = Schedule(1e-3, 1e-2, log=True)
    twice = Schedule(2e-3, 2e-2, log=True)
    hostile = dataclasses.replace(QUICK, adversary_coeff=0.5, recon_coeff=0.0, layerwise_coeff=0.0)
    (one,), (two,) = prices.sweep(model, data, at(rising, twice, config=hostile), [3], model.tied)
    assert (one.config.importance_coeff, two.config.importance_coeff) == (rising, twice)
    assert one.history["adversary"][0] == pytest.approx(two.history["adversary"][0], rel=0.2)
    assert two.history["importance"][0] == pytest.approx(2 * one.history["importance"][0], rel=0.2)


def test_errors() -> None:
    model, data = target(), toy.TMS_5_2.sampler()
    other = dataclasses.replace(QUICK, p=2.0)
    for wrong in ([QUICK, other], [dataclasses.replace(QUICK, restarts=2)]):
        with pytest.raises(ValueError, match="have one start and differ in β3 only"):
            prices.sweep(model, data, wrong, [4], model.tied)
    with pytest.raises(ValueError, match=r"start above 0, got \[0.003, 0.0\]"):
        prices.sweep(model, data, at(3e-3, 0.0), [4], model.tied)
    for settings, seeds in (([], [4]), ([QUICK], [])):
        with pytest.raises(ValueError, match="at least one setting and one seed"):
            prices.sweep(model, data, settings, seeds, model.tied)
