"""The facts model: keys, paraphrases, recall; what training stores; no verdict where none is."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import spd_mini as spd
import zoo
from spd_mini import __main__ as cli
from spd_mini import recovery
from spd_mini.config import Config
from spd_mini.targets import EXPERIMENTS, facts
from spd_mini.targets.facts import Facts
from zoo import constant_gates, fill, generator

TINY = dataclasses.replace(
    facts.FACTS_REDUNDANT,
    name="tiny-facts",
    n_facts=6,
    facts_per_subject=2,
    n_answers=6,
    d_key=16,
    d_mlp=24,
    train_steps=100,
    config=Config(C=4, steps=10, batch_size=8, faithfulness_warmup_steps=2),
)
ARMS = (facts.FACTS, facts.FACTS_SUPERPOSED, facts.FACTS_REDUNDANT)


def by_hand() -> Facts:
    """Two facts on the axes of a plane; path 0 has a neuron for each, path 1 knows fact 0 alone."""
    model = Facts(n_facts=2, facts_per_subject=1, n_answers=2, d_key=2, d_mlp=2, n_paths=2)
    values = {
        "keys": [[1.0, 0.0], [0.0, 1.0]],
        "answers": [0, 1],
        "paths.0.W_in.weight": [[1.0, 0.0], [0.0, 1.0]],
        "paths.0.W_in.bias": [0.0, -0.5],
        "paths.0.W_out.weight": [[2.0, 0.0], [0.0, 4.0]],
        "paths.1.W_in.weight": [[1.0, 1.0], [0.0, 0.0]],
        "paths.1.W_in.bias": [0.0, 0.0],
        "paths.1.W_out.weight": [[3.0, 0.0], [0.0, 0.0]],
    }
    model.load_state_dict({k: torch.tensor(v) for k, v in values.items()})
    return model


def test_forward_by_hand() -> None:
    """Key (1, 0): 2 + 3 for answer 0. Key (0, 1): path 0 gives 4 · ½ to 1, path 1 gives 3 to 0."""
    model = by_hand()
    assert model(model.keys).tolist() == [[5.0, 0.0], [3.0, 2.0]]
    assert model(torch.tensor([[[-1.0, 2.0]]])).tolist() == [[[3.0, 6.0]]]


def test_recall_by_hand() -> None:
    """Together the paths get fact 1 wrong, 3 against 2; path 0 alone gets both, path 1 one."""
    model = by_hand()
    assert facts.recall(model, model).tolist() == [1.0, 0.0]
    assert facts.recall(model.paths[0], model).tolist() == [1.0, 1.0]
    assert facts.recall(model.paths[1], model).tolist() == [1.0, 0.0]
    # Answer 1 for whatever has more of the second coordinate: for fact 1 and noise of length √2,
    # a difference of 1 against a standard deviation of √2: Φ(1/√2) = 0.760 of the draws.
    share = facts.recall(lambda x: x, model, noise=2**0.5, draws=4000)
    assert share.tolist() == pytest.approx([0.760, 0.760], abs=0.03)


def test_confidence_by_hand() -> None:
    """Logits (5, 0) and (3, 2): 1/(1 + e⁻⁵) for fact 0, 1/(1 + e) for fact 1, in every draw."""
    model = by_hand()
    want = [1 / (1 + math.exp(-5)), 1 / (1 + math.e)]
    assert facts.confidence(model, model).tolist() == pytest.approx(want)
    assert facts.confidence(model, model, draws=3).tolist() == pytest.approx(want)
    # logits equal to a coordinate and noise: E[σ(1 + √2 z)] by quadrature
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2)
    mean = float((density * torch.sigmoid(1 + 2**0.5 * z)).sum() / density.sum())
    noisy = facts.confidence(lambda x: x, model, noise=2**0.5, draws=4000)
    assert noisy.tolist() == pytest.approx([mean] * 2, abs=0.02)


def test_answers_and_subjects() -> None:
    model = Facts(n_facts=5, facts_per_subject=2, n_answers=3, d_key=4, d_mlp=1)
    assert model.answers.tolist() == [0, 1, 2, 0, 1]
    assert model.subjects.tolist() == [0, 0, 1, 1, 2]


# Keys and paraphrases


def cosines(keys: Tensor, per: int) -> tuple[float, float]:
    """Mean cosine of keys of one subject, and of two."""
    subject = torch.arange(len(keys)) // per
    one = subject[:, None] == subject
    products = keys @ keys.T
    off = ~torch.eye(len(keys), dtype=torch.bool)
    return float(products[one & off].mean()), float(products[~one].mean())


@pytest.mark.parametrize("shared", [0.0, 0.5, 0.8])
def test_keys_of_one_subject_are_neighbours(shared: float) -> None:
    keys = facts.draw_keys(200, 4, 256, shared, generator())
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(200))
    assert cosines(keys, 4) == pytest.approx((shared, 0.0), abs=0.02)


def test_keys_of_an_incomplete_subject_and_of_one_alone() -> None:
    assert facts.draw_keys(5, 4, 8, 0.5, generator()).shape == (5, 8)
    together = facts.draw_keys(3, 3, 8, 1.0, generator())
    torch.testing.assert_close(together @ together.T, torch.ones(3, 3))


def test_the_noise_has_the_stated_length() -> None:
    x = facts.paraphrase(torch.zeros(5000, 16), 0.5, generator())
    assert float(x.square().sum(1).mean()) == pytest.approx(0.25, rel=0.03)
    assert torch.equal(facts.paraphrase(torch.ones(2, 3), 0.0, generator()), torch.ones(2, 3))


def test_the_sampler_draws_all_facts_alike() -> None:
    sample = facts.Paraphrases(torch.eye(4), 0.01)
    x = sample(8000, generator())
    assert x.shape == (8000, 4)
    counts = torch.bincount(x.argmax(1), minlength=4)
    assert counts.tolist() == pytest.approx([2000] * 4, abs=150)
    assert 0 < float((x - x.round()).abs().max()) < 0.1


# Training


@pytest.mark.slow
def test_training_repeats_and_leaves_the_global_seed_alone() -> None:
    before = torch.get_rng_state()
    a, b, c = (TINY.train(seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(t, b.state_dict()[n]) for n, t in a.state_dict().items())
    assert not torch.equal(a.keys, c.keys)
    assert not a.training


def test_a_brief_training_stores_six_facts_twice() -> None:
    target = TINY.train(0)
    for model in (target, *target.paths):
        assert facts.recall(model, target).tolist() == [1.0] * 6


def test_a_target_that_was_never_told_a_fact() -> None:
    """Same keys and first weights, all other facts known."""
    target, untold = TINY.train(0), TINY.train(0, without=[2])
    assert torch.equal(target.keys, untold.keys)
    assert facts.recall(untold, untold).tolist() == [1.0, 1.0, 0.0, 1.0, 1.0, 1.0]


@pytest.mark.slow
@pytest.mark.parametrize("preset", ARMS, ids=lambda preset: preset.name)
@pytest.mark.parametrize("seed", range(5))
def test_every_arm_knows_its_facts(preset: facts.Preset, seed: int) -> None:
    """Clean keys and paraphrases as in training, and a chance of 1/48 without the keys."""
    target = preset.train(seed)
    assert facts.recall(target, target).min() == 1
    assert facts.recall(target, target, preset.noise, draws=100).mean() >= 0.999
    strong = {"facts": 0.99, "facts-redundant": 0.99, "facts-superposed": 0.93}[preset.name]
    assert facts.recall(target, target, 2 * preset.noise, draws=100).mean() >= strong
    assert facts.recall(lambda x: target(0 * x), target).mean() <= 1 / 48
    if preset.n_paths > 1:
        for path in target.paths:
            assert facts.recall(path, target, preset.noise, draws=100).mean() >= 0.999


def test_arms() -> None:
    more, fewer, twice = ARMS
    assert more.d_mlp > more.n_facts > fewer.d_mlp
    assert (more.n_paths, fewer.n_paths, twice.n_paths) == (1, 1, 2)
    assert more.summary() == "48 facts on 96 neurons"
    assert twice.summary() == "48 facts on 64 neurons in each of 2 pathways"
    assert [EXPERIMENTS[preset.name] for preset in ARMS] == list(ARMS)


# Decomposed


def test_a_decomposition_takes_the_facts_along(tmp_path: Path) -> None:
    target = TINY.train(0)
    d = spd.decompose(target, TINY.sampler(target), TINY.config, device="cpu", progress=False)
    d.save(tmp_path / "d.safetensors")
    again = spd.load(tmp_path / "d.safetensors")
    assert isinstance(again.target, Facts)
    assert torch.equal(again.target.keys, target.keys)
    assert torch.equal(again(target.keys), d(target.keys))


def test_without_patterns_there_is_no_verdict() -> None:
    """Neither for faithful pieces nor for others; what can be measured is measured."""
    target = fill(Facts(3, 1, 3, d_key=3, d_mlp=3))
    target.keys.copy_(torch.eye(3))
    W = {f"paths.0.{n}": target.get_parameter(f"paths.0.{n}.weight") for n in ("W_in", "W_out")}
    for factor, reasons in ((1.0, 0), (0.5, 2)):
        U = {n: factor * w.detach() for n, w in W.items()}
        gates = {n: constant_gates([1.0] * 3) for n in W}
        V = {n: torch.eye(3) for n in W}
        report = recovery.report(zoo.by_hand(target, U, V, gates), target.truth())
        assert report.recovered is None
        assert len(report.reasons) == reasons
        assert list(report.live.values()) == [3, 3]


def test_the_command_line_says_that_there_is_no_verdict(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXPERIMENTS, "tiny-facts", TINY)
    assert cli.main(["run", "tiny-facts", "--device", "cpu", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert '"recovered": null' in out
    first, last = err.splitlines()
    assert "s, no verdict, it is not known what is to be found" in first
    assert last == "tiny-facts: no verdict, it is not known what is to be found"
    assert cli.main(["bench", "tiny-facts", "--steps", "1", "--device", "cpu"]) == 0


def test_timing_the_papers_settings_leaves_out_what_it_does_not_have(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "EXPERIMENTS", {"tiny-facts": TINY})
    assert cli.main(["bench", "--paper", "--steps", "1", "--device", "cpu", "--json", "-"]) == 0
    assert capsys.readouterr().out == "[]\n"


# Errors


def test_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="sizes of facts must be ≥ 1, got {'n_facts': 0, "):
        Facts(0, 1, 1, 1, 1)
    with pytest.raises(ValueError, match=r"one subject must be in \[0, 1\], got 1.5"):
        facts.draw_keys(2, 1, 2, 1.5, generator())
    for without in ([6], range(6)):
        with pytest.raises(ValueError, match="of facts 0 to 5 some must stay, without"):
            TINY.train(0, without=without)
    assert cli.main(["run", "facts", "--paper"]) == 2
    assert capsys.readouterr().err == "error: the paper has no experiment 'facts'\n"
