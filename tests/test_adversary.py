"""Sources that climb against a run, and the run without them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import spd_mini as spd
from spd_mini.adversary import Adversary
from spd_mini.config import Config, Schedule
from spd_mini.decomposition import Decomposition
from spd_mini.run import TERMS, Run
from spd_mini.targets.sparse import SparseFeatures
from zoo import rows, tms, token_model, tokens, triangle

CPU = torch.device("cpu")
COLUMNS = {"a": slice(0, 2), "b": slice(2, 5)}
BASE = Config(C=6, steps=12, batch_size=8, lr=1e-2, log_every=4)


def run_of(config: Config, seed: int | list[int] = 0) -> Run:
    model = tms()
    return Run(model, rows(4), config, None, model.tied, seed, CPU)


def result(**changes: Any) -> Decomposition:
    model = tms()
    config = dataclasses.replace(BASE, **changes)
    return spd.decompose(model, rows(4), config, tied=model.tied, progress=False)


def tensors(d: Decomposition) -> list[Tensor]:
    return [t for n in d.names for t in (d.U[n], d.V[n], *d.gates[n])]


def same(a: Decomposition, b: Decomposition) -> bool:
    pairs = zip(tensors(a), tensors(b), strict=True)
    return all(torch.equal(s, t) for s, t in pairs) and a.history == b.history


def test_a_step_by_hand() -> None:
    """Up where the slope is positive, down where negative, and never out of [0, 1]."""
    adversary = Adversary(COLUMNS, 1, 0.25, 0, CPU)
    adversary.take(torch.tensor([[0.5, 0.9, 0.5, 0.1, 0.3]]))
    adversary.ascend(torch.tensor([[2.0, 1.0, -1e-9, -5.0, 0.0]]))
    torch.testing.assert_close(adversary.r.detach(), torch.tensor([[0.75, 1.0, 0.25, 0.0, 0.3]]))
    assert adversary.sources(["b"]).flatten().tolist() == adversary.r[0, 2:].tolist()
    assert adversary.sources(["b", "a"]).shape == (1, 5, 1)


def test_sources_start_random_and_from_their_seed() -> None:
    a, b, c = (Adversary(COLUMNS, 3, 0.1, seed, CPU).r for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert a.shape == (3, 5) and bool(((a >= 0) & (a <= 1)).all())
    assert not torch.equal(a[0], a[1]), "each restart has its own"


@pytest.mark.parametrize("off", [0.0, Schedule(0.0, 0.0)])
def test_off_changes_nothing(off: Any) -> None:
    assert same(result(), result(adversary_coeff=off, adversary_step=0.5))
    run = run_of(dataclasses.replace(BASE, adversary_coeff=off))
    assert run.adversary is None and run.terms == TERMS


def test_the_first_step_has_the_random_masks_of_a_run_without() -> None:
    """Its sources have a generator of their own: the four losses are the same bits."""
    without, against = (run_of(dataclasses.replace(BASE, adversary_coeff=c)) for c in (0.0, 2.0))
    for run in (without, against):
        run.train_step()
        run.flush()
    assert np.array_equal(without.log[0, 1:], against.log[0, 1:5])
    assert against.log[0, 0] == pytest.approx(without.log[0, 0] + 2 * against.log[0, 5], rel=1e-5)


def test_the_loss_is_that_of_its_masks() -> None:
    """Against a decomposition with m = g + (1 − g) r, r the same on every row."""
    run = run_of(dataclasses.replace(BASE, adversary_coeff=1.0))
    assert run.adversary is not None
    x = rows(4)(8, torch.Generator().manual_seed(3))
    loss = run.losses(x, None)[4, 0]
    run.log = np.zeros((1, 6, 1))
    d = run.result(finished=True)
    masks = {}
    for n, gamma in d.gate_logits(x).items():
        g = torch.where(gamma > 0, gamma, 0.01 * gamma).clamp(max=1)
        masks[n] = g + (1 - g) * run.adversary.r[0, run.columns[n]].detach()
    out, want = d(x, masks), d.target(x)
    torch.testing.assert_close(loss.detach(), (out - want).square().mean(), rtol=1e-4, atol=1e-6)


def test_the_sources_climb_and_the_parameters_descend() -> None:
    """The step's own sign gradient: each source moves the way that raises its loss."""
    run = run_of(dataclasses.replace(BASE, adversary_coeff=1.0, adversary_step=0.05))
    assert run.adversary is not None
    run.adversary.take(torch.full_like(run.adversary.r, 0.5))
    state = run.noise.get_state(), run.batches.generator.get_state()
    x, weight = run.batches.next()
    loss = run.losses(x, weight)[4]
    (slope,) = torch.autograd.grad(loss.sum(), [run.adversary.r])
    run.noise.set_state(state[0])
    run.batches.generator.set_state(state[1])
    run.train_step()
    torch.testing.assert_close(run.adversary.r.detach(), 0.5 + 0.05 * slope.sign())
    assert bool((slope != 0).any())


def test_one_that_hardly_counts_hardly_changes_anything() -> None:
    """Its gradient reaches tied matrices in a transposed layout, which fused Adam would misread."""
    for s, t in zip(tensors(result()), tensors(result(adversary_coeff=1e-12)), strict=True):
        torch.testing.assert_close(s, t, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_training_against_it_makes_the_worst_masks_less_bad() -> None:
    """The same run with and without, judged by the worst masks of inputs that neither has seen."""
    model, sample = triangle(), SparseFeatures(3, 0.1)
    x = SparseFeatures(3, 0.5)(40, torch.Generator().manual_seed(9))
    assert isinstance(x, Tensor)
    config = Config(C=12, steps=250, batch_size=64, lr=1e-2, gate_lr=3e-2, gate_hidden=8)
    worst = []
    for coeff in (0.0, 1.0):
        against = dataclasses.replace(config, adversary_coeff=coeff, faithfulness_warmup_steps=100)
        d = spd.decompose(model, sample, against, tied=model.tied, progress=False)
        m = spd.masks.worst_case(d, x, shared=True)
        worst.append(float(d.divergence(d(x, m), d.target(x)).mean()))
    assert worst[1] < 0.5 * worst[0], worst


def test_restarts_and_seeds_keep_their_own_sources() -> None:
    config = dataclasses.replace(BASE, adversary_coeff=1.0, restarts=3, restarts_until=0.5)
    run = run_of(config, [0, 1])
    assert run.adversary is not None and run.adversary.r.shape == (6, 12)
    for _ in range(6):
        run.train_step()
    before = run.adversary.r.detach().clone()
    run.keep_best_restart()
    assert run.chosen is not None
    kept = [3 * i + best for i, (best, _) in enumerate(run.chosen)]
    assert torch.equal(run.adversary.r.detach(), before[kept])
    while run.step < 12:
        run.train_step()
    assert run.adversary.r.shape == (2, 12)


def test_a_checkpoint_holds_the_sources(tmp_path: Path) -> None:
    model, path = tms(), tmp_path / "half.safetensors"
    config = dataclasses.replace(BASE, adversary_coeff=Schedule(0.0, 1.0))
    options: dict[str, Any] = {"tied": model.tied, "progress": False}
    whole = spd.decompose(model, rows(4), config, checkpoint=path, checkpoint_every=8, **options)
    assert same(whole, spd.decompose(model, rows(4), config, resume=path, **options))


def test_sequences_under_kl_and_the_history() -> None:
    config = dataclasses.replace(BASE, adversary_coeff=0.5, output_loss="kl")
    said: list[str] = []
    d = spd.decompose(token_model(), tokens, config, progress=said.append)
    assert list(d.history) == ["step", *TERMS, "adversary"]
    assert all("adversary" in line for line in said) and said
    assert min(d.history["adversary"]) > 0


def test_a_broken_adversary_is_named() -> None:
    run = run_of(dataclasses.replace(BASE, adversary_coeff=1.0))
    run.pending = [torch.tensor([[1.0], [1.0], [1.0], [1.0], [1.0], [torch.nan]])]
    with pytest.raises(FloatingPointError, match="loss term 'adversary' is not finite at step 0"):
        run.flush()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adversary_coeff": -1.0}, "Config.adversary_coeff must be a number ≥ 0, got -1.0"),
        ({"adversary_step": 0.0}, r"Config.adversary_step must be in \(0, 1\], got 0.0"),
        ({"adversary_step": 1.5}, r"Config.adversary_step must be in \(0, 1\], got 1.5"),
    ],
)
def test_bad_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(BASE, **changes)
