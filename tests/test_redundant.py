"""Two pathways that do the same: certificate, cuts, coverage, and what training makes of them."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

import spd_mini as spd
import zoo
from spd_mini import prices, recovery
from spd_mini.targets import EXPERIMENTS, PUBLISHED, redundant
from spd_mini.targets.redundant import REDUNDANT, REDUNDANT_BOTH, Redundant, WithCuts
from spd_mini.targets.sparse import SparseFeatures
from zoo import constant_gates, generator, randn


def by_hand(needs: redundant.Needs, switches: bool = False) -> Redundant:
    """Path 0 keeps two features as they are, path 1 exchanges them and back, at twice the size."""
    model = Redundant(2, 2, needs=needs, switches=switches)
    swap = [[0.0, 1.0], [1.0, 0.0]]
    values = {
        "paths.0.weight": [[1.0, 0.0], [0.0, 1.0]],
        "paths.1.weight": [[0.0, 2.0], [2.0, 0.0]],
        "back": [[[1.0, 0.0], [0.0, 1.0]], swap],
    }
    model.load_state_dict({k: torch.tensor(v) for k, v in values.items()})
    return model


def test_forward_by_hand() -> None:
    """Path 0 gives x, path 1 gives 2x; nothing goes below 0."""
    x = torch.tensor([[0.5, -1.0], [0.0, 0.25]])
    assert by_hand("either")(x).tolist() == [[1.0, 0.0], [0.0, 0.5]]
    assert by_hand("both")(x).tolist() == [[0.75, 0.0], [0.0, 0.375]]


def test_a_switch_cuts_a_pathway() -> None:
    model = by_hand("either", switches=True)
    rows = torch.tensor(
        [[0.5, 0.25, 1, 1], [0.5, 0.25, 1, 0], [0.5, 0.25, 0, 1], [0.5, 0.25, 0, 0]]
    )
    assert model(rows).tolist() == [[1.0, 0.5], [0.5, 0.25], [1.0, 0.5], [0.0, 0.0]]
    assert by_hand("both", switches=True)(rows[1:2]).tolist() == [[0.25, 0.125]]
    assert model.probes().tolist() == [[0.75, 0, 1, 1], [0, 0.75, 1, 1]]


def test_certificate_by_hand() -> None:
    """By the maximum, path 0 alone gives half of what path 1 does, and only path 1 is missed."""
    c = redundant.certificate(by_hand("either"))
    assert c.alone.tolist() == [[0.5, 0.5], [1.0, 1.0]]
    assert c.missed.tolist() == [[0.0, 0.0], [1.0, 1.0]]
    c = redundant.certificate(by_hand("both"))
    torch.testing.assert_close(c.alone, torch.tensor([[1 / 3, 1 / 3], [2 / 3, 2 / 3]]))
    assert c.missed.tolist() == [[0.5, 0.5], [1.0, 1.0]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("preset", [REDUNDANT, REDUNDANT_BOTH], ids=lambda p: p.name)
def test_every_mechanism_is_in_the_weights(preset: redundant.Preset, seed: int) -> None:
    """The certificate of both presets: each alone does its job; each is missed, or none."""
    target = preset.train(seed)
    share, missed = (1.0, 0.0) if preset.needs == "either" else (0.5, 0.5)
    c = redundant.certificate(target)
    assert c.alone.shape == (2, 5)
    torch.testing.assert_close(c.alone, torch.full((2, 5), share))
    torch.testing.assert_close(c.missed, torch.full((2, 5), missed), atol=1e-6, rtol=1e-5)
    x = torch.rand(50, 5, generator=generator()) - 0.3
    torch.testing.assert_close(target(x), x.clamp(min=0))
    on = torch.ones(50, 2)
    torch.testing.assert_close(target.with_switches()(torch.cat([x, on], 1)), target(x))
    a, b = (path.weight.detach() for path in target.linears)
    assert float((a - b).norm()) > 0.5


def test_building_repeats_and_leaves_the_global_seed_alone() -> None:
    before = torch.get_rng_state()
    a, b, c = (REDUNDANT.train(seed) for seed in (1, 1, 2))
    redundant.certificate(a.with_switches())
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(t, b.state_dict()[n]) for n, t in a.state_dict().items())
    assert not torch.equal(a.back, c.back)


def test_cut_rows() -> None:
    """A share of the rows has one pathway cut, each as often; the inputs are what they were."""
    data = SparseFeatures(3, 0.2, stratified=True)
    x, weight = WithCuts(data, 2, 0.4)(5000, generator())
    assert x.shape == (5001, 5) and weight.shape == (5001,)
    plain = data(5000, generator())
    assert torch.equal(x[:, :3], plain[0])
    assert torch.equal(weight, plain[1])
    on = x[:, 3:]
    assert set(on.flatten().tolist()) == {0.0, 1.0}
    assert on.sum(1).min() == 1
    assert (1 - on).mean(0).tolist() == pytest.approx([0.2, 0.2], abs=0.02)
    assert WithCuts(data, 2, 0.0)(10, generator())[0][:, 3:].min() == 1


def decomposed(target: Redundant, on: list[list[float]]) -> spd.Decomposition:
    """Exact pieces of both pathways, piece i for feature i, with importances `on`, whatever x."""
    U = {f"paths.{p}": path.weight.detach() for p, path in enumerate(target.linears)}
    V = {n: torch.eye(target.n) for n in U}
    return zoo.by_hand(target, U, V, {n: constant_gates(g) for n, g in zip(U, on, strict=True)})


def test_coverage_by_hand() -> None:
    """The highest importance in each pathway on each probe: here the same on all."""
    d = decomposed(by_hand("either"), [[1.0, 0.3], [0.0, 0.05]])
    torch.testing.assert_close(redundant.coverage(d), torch.tensor([[1.0, 1.0], [0.05, 0.05]]))
    switched = decomposed(by_hand("either", switches=True), [[0.4, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(redundant.coverage(switched), torch.tensor([[0.4] * 2, [0.0] * 2]))


def test_a_skip_is_no_error_under_any_mask() -> None:
    """With pathway 0 important and 1 not, no allowed mask moves the output: not even the worst."""
    target = REDUNDANT.train(3)
    d = decomposed(target, [[1.0] * 5, [0.0] * 5])
    x = torch.rand(20, 5, generator=generator())
    for r in (0.0, 0.3, 1.0):
        m = spd.masks.fixed(d.causal_importance(x), r)
        torch.testing.assert_close(d(x, m), target(x))
    m = spd.masks.worst_case(d, x, steps=5, starts=2)
    torch.testing.assert_close(d(x, m), target(x))
    report = recovery.report(d, target.truth())
    assert not report.recovered, "half of what is in the weights is skipped"


QUICK = dataclasses.replace(REDUNDANT.config, C=6, steps=400, faithfulness_warmup_steps=100)


def trained(preset: redundant.Preset, cut: float = 0.0) -> Tensor:
    small = dataclasses.replace(preset, n_features=3, n_hidden=3)
    target, data = small.train(0), small.sampler()
    config = dataclasses.replace(QUICK, importance_coeff=4e-3)
    if cut:
        switched = target.with_switches()
        found = prices.sweep(switched, WithCuts(data, 2, cut), [config], [0])
    else:
        found = prices.sweep(target, data, [config], [0])
    return redundant.coverage(found[0][0])


@pytest.mark.slow
def test_training_skips_one_of_two_unless_both_are_needed_or_one_may_be_cut() -> None:
    plain, both, cut = trained(REDUNDANT), trained(REDUNDANT_BOTH), trained(REDUNDANT, 0.3)
    assert plain.amax(0).min() > 0.8 and plain.amin(0).max() < 0.5
    assert both.min() > 0.8
    assert cut.min() > 0.8


def test_it_travels_with_its_decomposition(tmp_path: Path) -> None:
    target = REDUNDANT.train(0).with_switches()
    decomposed(target, [[1.0] * 5, [0.0] * 5]).save(tmp_path / "d.safetensors")
    again = spd.load(tmp_path / "d.safetensors")
    x = randn(4, 7)
    assert torch.equal(again.target(x), target(x))


def test_presets() -> None:
    for preset, needed in ((REDUNDANT, "either is enough"), (REDUNDANT_BOTH, "both are needed")):
        assert EXPERIMENTS[preset.name] is preset
        assert preset.name not in PUBLISHED and preset.paper_config is None
        assert preset.summary() == f"5 features in 2 pathways, {needed}"
        x = preset.sampler(paper=True)(4, generator())
        assert isinstance(x, Tensor) and x.shape == (4, 5)


def test_errors() -> None:
    for sizes in ((0, 2, 2), (3, 2, 2), (2, 2, 0)):
        with pytest.raises(ValueError, match="need 1 ≤ n_features ≤ n_hidden and n_paths ≥ 1, got"):
            Redundant(*sizes)
    with pytest.raises(ValueError, match="needs must be 'either' or 'both', got 'any'"):
        Redundant(2, 2, needs="any")  # type: ignore[arg-type]
    for share in (-0.1, 1.5):
        with pytest.raises(ValueError, match=r"a cut must be in \[0, 1\], got"):
            WithCuts(SparseFeatures(2, 0.1), 2, share)
