"""The training loop: losses against a plain computation, bits, interruption, resuming, errors."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import oracles
from spd_mini import Config, Decomposition, Schedule, decompose, losses, masks
from spd_mini.importance import Gates, gate_logits, lower_leaky, upper_leaky
from spd_mini.run import TERMS, Run
from spd_mini.targets.sparse import SparseFeatures
from zoo import (
    Positions,
    Spare,
    Twice,
    fill,
    mlp,
    randn,
    rows,
    state_of,
    tms,
    token_model,
    tokens,
)

CPU = torch.device("cpu")
QUICK = Config(C=3, steps=12, batch_size=4, lr=1e-2, gate_hidden=4, log_every=5)
TIED = {"decoder": "encoder"}


def quick(target: nn.Module, sample: Any, config: Config = QUICK, **kwargs: Any) -> Decomposition:
    return decompose(target, sample, config, **{"progress": False, "device": "cpu", **kwargs})


def make_run(target: nn.Module, sample: Any, config: Config = QUICK, **kwargs: Any) -> Run:
    options = {"modules": None, "tied": None, "seed": 0, "device": CPU} | kwargs
    return Run(target, sample, config, **options)


def same_bits(a: Decomposition, b: Decomposition) -> bool:
    pairs = [(a.U[n], b.U[n]) for n in a.names] + [(a.V[n], b.V[n]) for n in a.names]
    pairs += [(s, t) for n in a.names for s, t in zip(a.gates[n], b.gates[n], strict=True)]
    return all(torch.equal(s, t) for s, t in pairs) and a.history == b.history


# Unlike modules, all through the same door


@pytest.mark.parametrize(
    ("make", "sample", "changes", "lead"),
    [
        (tms, rows(4), {}, ()),
        (lambda: tms(identity=True), SparseFeatures(4, 0.3, stratified=True), {}, ()),
        (mlp, rows(3), {"C": {"head.*": 2, "*": 6}}, ()),
        (token_model, tokens, {"output_loss": "kl", "mask_samples": 2}, (3,)),
        (lambda: mlp().double(), rows(3, torch.float64), {"restarts": 2}, ()),
    ],
    ids=["tms", "tms with identity, stratified", "biased MLP", "tokens and KL", "float64"],
)
def test_unlike_modules(
    make: Callable[[], nn.Module], sample: Any, changes: dict[str, Any], lead: tuple[int, ...]
) -> None:
    target, config = make(), dataclasses.replace(QUICK, steps=60, **changes)
    d = quick(target, sample, config)
    assert d.finished
    assert d.history["total"][-1] < d.history["total"][0]
    generator = torch.Generator().manual_seed(1)
    x = sample(5, generator)
    x = x[0] if isinstance(x, tuple) else x
    g = d.causal_importance(x)
    for n, W in d.weight.items():
        C = config.C_of(n)
        assert d.U[n].shape == (W.shape[0], C)
        assert d.V[n].shape == (C, W.shape[1])
        assert d.U[n].dtype == W.dtype
        assert g[n].shape == (len(x), *lead, C)
        assert float(g[n].min()) >= 0
        assert float(g[n].max()) <= 1
    assert torch.equal(d.target(x), target(x))
    assert d(x).shape == target(x).shape


@pytest.mark.parametrize("wrap", [list, DataLoader])
def test_batches_may_come_from_an_iterable(wrap: Callable[..., Any]) -> None:
    """A plain list of the batches a DataLoader gives: the same bits."""
    x = randn(12, 3)
    loader = DataLoader(TensorDataset(x), batch_size=4)
    d = quick(mlp(), loader if wrap is DataLoader else [x[:4], x[4:8], x[8:]])
    assert same_bits(d, quick(mlp(), [(x[:4],), (x[4:8],), (x[8:],)]))


def test_a_last_batch_may_be_smaller() -> None:
    assert quick(token_model(), DataLoader(torch.arange(21).view(7, 3) % 6, batch_size=4)).finished  # type: ignore[arg-type]


def test_only_the_named_modules_are_decomposed() -> None:
    d = quick(mlp(), rows(3), modules=["head.*"])
    assert d.names == list(d.U) == ["head.out"]
    d = quick(fill(Twice()), rows(3), modules=["out"])
    assert d.names == ["out"]


def test_one_number_per_row_and_one_input_per_row() -> None:
    class Curve(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(1, 3), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(torch.relu(self.up(x))).squeeze(-1)

    d = quick(fill(Curve()), rows(1))
    x = torch.rand(5, 1)
    assert d(x).shape == (5,)
    assert {n: tuple(g.shape) for n, g in d.causal_importance(x).items()} == {
        "up": (5, 3),
        "down": (5, 3),
    }


def test_plain_classification_with_kl() -> None:
    d = quick(mlp(), rows(3), dataclasses.replace(QUICK, output_loss="kl"))
    assert d.finished
    assert all(np.isfinite(d.history["recon"]))


def test_tied_matrices_share_their_subcomponents() -> None:
    d = quick(tms(), rows(4), tied=TIED)
    assert torch.equal(d.U["decoder"], d.V["encoder"].mT)
    assert torch.equal(d.V["decoder"], d.U["encoder"].mT)
    assert not torch.equal(d.gates["decoder"].w_in, d.gates["encoder"].w_in)
    free = quick(tms(), rows(4))
    assert not torch.allclose(free.U["decoder"], free.V["encoder"].mT)


# The losses of a step against a plain computation


def record_sources(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    drawn: list[Tensor] = []
    uniform = masks.uniform

    def spy(shape: torch.Size, generator: torch.Generator) -> Tensor:
        drawn.append(uniform(shape, generator))
        return drawn[-1]

    monkeypatch.setattr(masks, "uniform", spy)
    return drawn


def plain_losses(
    run: Run, x: Tensor, weight: Tensor | None, drawn: list[Tensor]
) -> list[list[Tensor]]:
    """Terms of each restart: masked weights row by row, readable gates, no shortcut at all."""
    c, module, names = run.config, run.target.module, run.target.names
    w = torch.full((len(x),), 1 / len(x), dtype=x.dtype) if weight is None else weight
    inputs: dict[str, Tensor] = {}
    handles = [
        module.get_submodule(n).register_forward_pre_hook(
            lambda _, a, n=n: inputs.__setitem__(n, a[0])
        )
        for n in names
    ]
    target_out = module(x)
    for handle in handles:
        handle.remove()
    Us, Vs = run.UV()
    result = []
    for r in range(c.restarts):
        U, V = {n: Us[n][r] for n in names}, {n: Vs[n][r] for n in names}
        gamma = {
            n: gate_logits(inputs[n] @ V[n].mT, Gates(*(t[r, run.columns[n]] for t in run.gates)))
            for n in names
        }

        def error(
            named: dict[str, Tensor], U: dict[str, Tensor] = U, V: dict[str, Tensor] = V
        ) -> Tensor:
            out = oracles.masked_rows(module, x, U, V, named)
            return ((out - target_out) ** 2).mean(1) @ w

        source = iter([{n: t[r, run.columns[n]].mT for n in names} for t in drawn])
        zero = torch.zeros((), dtype=x.dtype)
        recon, layerwise = zero, zero
        for _ in range(c.mask_samples):

            def draw(gamma: dict[str, Tensor] = gamma, s: Iterator[Any] = source) -> Any:
                r = next(s)
                return {n: (g := lower_leaky(t)) + (1 - g) * r[n].to(g) for n, t in gamma.items()}

            m = draw()
            recon = recon + error(m) / c.mask_samples
            if c.layerwise_masks == "fresh":
                m = draw()
            for n in names:
                layerwise = layerwise + error({n: m[n]}) / (c.mask_samples * len(names))
        assert next(source, None) is None, "more masks were drawn than the loss needs"
        weights = run.target.weight
        squares = torch.stack([((W - U[n] @ V[n]) ** 2).sum() for n, W in weights.items()]).sum()
        faithfulness = squares / sum(W.numel() for W in weights.values())
        importance = sum(((upper_leaky(t) ** 2).sum(1) @ w for t in gamma.values()), zero)
        result.append([faithfulness, recon, layerwise, importance])
    return result


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("layerwise_masks", ["fresh", "shared"])
@pytest.mark.parametrize("build", ["tied tms", "biased MLP, weighted rows"])
def test_losses_and_gradients_equal_the_plain_computation(
    build: str,
    layerwise_masks: Any,
    dtype: torch.dtype,
    tolerance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = dataclasses.replace(
        QUICK,
        restarts=2,
        mask_samples=2,
        layerwise_masks=layerwise_masks,
        p=2.0,
    )
    target: nn.Module
    tied: dict[str, str]
    weight: Tensor | None
    if build == "tied tms":
        target, width, tied, weight = tms(identity=True), 4, TIED, None
    else:
        target, width, tied = mlp(), 3, {}
        weight = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=dtype)
    run = make_run(target.to(dtype), rows(width, dtype), config, tied=tied)
    x = randn(4, width, dtype=dtype)
    drawn = record_sources(monkeypatch)
    fast = run.losses(x, weight)
    slow = plain_losses(run, x, weight, drawn)
    want = torch.stack([torch.stack(terms) for terms in slow], 1)
    for k, term in enumerate(TERMS[1:]):
        assert torch.allclose(fast[k], want[k], rtol=tolerance, atol=tolerance), term
    params = list(run.params.values())
    coeffs = torch.tensor([0.5, 2.0, 3.0, 0.1], dtype=dtype)
    fast_grads = torch.autograd.grad((coeffs @ fast).sum(), params)
    slow_grads = torch.autograd.grad((coeffs @ want).sum(), params)
    for name, a, b in zip(run.params, fast_grads, slow_grads, strict=True):
        scale = float(b.abs().max())
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance * scale), name


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("identity", [False, True])
def test_all_zero_rows_count_as_one(
    identity: bool, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three rows and five of zeros, or one of zeros with five rows' weight: the same numbers."""
    target, tied = tms(identity=identity), TIED
    run = make_run(target.to(dtype), rows(4, dtype), dataclasses.replace(QUICK, p=2.0), tied=tied)
    x = torch.cat([randn(3, 4, dtype=dtype), torch.zeros(5, 4, dtype=dtype)])
    weight = torch.tensor([1, 1, 1, 5], dtype=dtype) / 8
    params, coeffs = list(run.params.values()), torch.tensor([0.5, 2.0, 3.0, 0.1], dtype=dtype)
    found = []
    for rows_in, w in ((x, None), (x[:4], weight)):
        drawn = itertools.count()

        def uniform(
            shape: torch.Size, generator: torch.Generator, drawn: Iterator[int] = drawn
        ) -> Tensor:
            own = torch.Generator().manual_seed(next(drawn))  # row by row the same in both batches
            return torch.rand((*shape[:-1], len(x)), generator=own, dtype=dtype)[..., : shape[-1]]

        monkeypatch.setattr(masks, "uniform", uniform)
        losses = run.losses(rows_in, w)
        found.append((losses, torch.autograd.grad((coeffs @ losses).sum(), params)))
    (plain, plain_grads), (one, one_grads) = found
    assert torch.allclose(one, plain, rtol=tolerance, atol=tolerance)
    for name, a, b in zip(run.params, one_grads, plain_grads, strict=True):
        scale = float(b.abs().max())
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance * scale), name


@pytest.mark.parametrize("coeff", [0.5, {"*coder": 0.5}, {"decoder": 0.5}])
def test_the_frequency_penalty_joins_the_importance_term(coeff: float | dict[str, float]) -> None:
    x = randn(4, 4)
    plain = make_run(tms(), rows(4)).losses(x, None)[3]
    config = dataclasses.replace(QUICK, frequency_coeff=coeff)
    run = make_run(tms(), rows(4), config)
    with_penalty = run.losses(x, None)[3]
    h = run.passes(x, *run.UV()).h
    apart = dataclasses.replace(QUICK, frequency_coeff={"nothing": 1.0})  # modules not joined
    run.config = apart
    upper = run.importances(h)[1]
    assert list(upper) == run.target.names
    penalised = [n for n in upper if not isinstance(coeff, dict) or config.frequency_of(n, 0)]
    assert ("encoder" in penalised) == (coeff != {"decoder": 0.5})
    want = oracles.frequency(
        [upper[n][0].detach() for n in penalised], [1.0] * len(penalised), None
    )
    assert float((with_penalty - plain).detach()) == pytest.approx(0.5 * want, rel=1e-4)


def test_coefficients_and_exponents_follow_their_schedules() -> None:
    config = dataclasses.replace(
        QUICK, steps=10, importance_coeff=Schedule(0.0, 1.0), recon_coeff=Schedule(4.0, 2.0)
    )
    run = make_run(tms(), rows(4), config)
    for _ in range(10):
        run.train_step()
    run.flush()
    for step, (total, f, r, w, i) in enumerate(run.log[:, :, 0].tolist()):
        want = f + (4 - 0.2 * step) * r + w + 0.1 * step * i
        assert total == pytest.approx(want, rel=1e-5)


def test_exponents_reach_the_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, float]] = []
    real = losses.importance_minimality

    def spy(upper: dict[str, Tensor], p: dict[str, float], *rest: Any) -> Tensor:
        seen.append(p)
        return real(upper, p, *rest)

    monkeypatch.setattr(losses, "importance_minimality", spy)
    config = dataclasses.replace(QUICK, steps=4, p={"enc*": Schedule(2.0, 1.0), "*": 0.9})
    quick(tms(), rows(4), config)
    assert [p["encoder"] for p in seen] == [2.0, 1.75, 1.5, 1.25]
    assert {p["decoder"] for p in seen} == {0.9}


def test_restarts_train_as_if_each_were_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Same start, same batches, same sources: three restarts side by side, then one by one."""
    config = dataclasses.replace(QUICK, restarts=3)
    only: list[int | None] = [None]
    draws = itertools.count()

    def uniform(shape: torch.Size, generator: torch.Generator) -> Tensor:
        full = torch.rand(
            3, *shape[1:], generator=torch.Generator().manual_seed(1000 + next(draws))
        )
        return full if only[0] is None else full[only[0]][None]

    monkeypatch.setattr(masks, "uniform", uniform)
    together = make_run(token_model(), tokens, config)
    start = {k: t.detach().clone() for k, t in together.params.items()}
    for _ in range(4):
        together.train_step()
    together.flush()
    for r in range(3):
        only[0], draws = r, itertools.count()
        alone = make_run(token_model(), tokens, dataclasses.replace(config, restarts=1))
        alone.set_parameters({k: t[r : r + 1] for k, t in start.items()})
        for _ in range(4):
            alone.train_step()
        alone.flush()
        assert np.allclose(alone.log[:, :, 0], together.log[:, :, r], rtol=1e-4)
        for k, t in alone.params.items():
            assert torch.allclose(t[0], together.params[k][r], atol=1e-4), k


def test_the_restart_with_the_lowest_loss_is_kept() -> None:
    run = make_run(tms(), rows(4), dataclasses.replace(QUICK, restarts=3))
    for _ in range(12):
        run.train_step()
    run.flush()
    d = run.result(finished=True)
    best = int(run.log[-1, 0].argmin())
    assert d.info["chosen_restart"] == best
    assert d.info["restart_losses"] == pytest.approx(run.log[-1, 0].tolist())
    assert d.info["loss"] == min(d.info["restart_losses"])
    assert torch.equal(d.U["encoder"], run.params["U/encoder"][best])
    assert d.U["encoder"].data_ptr() != run.params["U/encoder"].data_ptr()
    for r in range(3):
        one = run.result(True, r)
        assert torch.equal(one.U["encoder"], run.params["U/encoder"][r])
        assert (one.info["chosen_restart"], one.info["loss"]) == (r, run.scores()[r])


def test_restarts_may_end_early() -> None:
    config = dataclasses.replace(QUICK, restarts=3, restarts_until=0.5)
    run = make_run(tms(), rows(4), config)
    for _ in range(6):
        run.train_step()
    run.flush()
    scores, before = run.scores(), {k: t.detach().clone() for k, t in run.params.items()}
    run.keep_best_restart()
    best = int(scores.argmin())
    assert all(torch.equal(t[0], before[k][best]) for k, t in run.params.items())
    for _ in range(6):
        run.train_step()
    run.flush()
    d = run.result(finished=True)
    assert d.info["chosen_restart"] == best
    assert d.info["restart_losses"] == scores.tolist()
    assert d.history["step"] == [5, 10, 12]
    whole = quick(tms(), rows(4), config)
    assert same_bits(whole, d)


# Bits


def test_same_seed_same_bits_whatever_the_global_seed() -> None:
    target = tms()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = quick(target, rows(4), tied=TIED, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = quick(tms(), rows(4), tied=TIED, seed=7)
    assert same_bits(first, again)
    other = quick(tms(), rows(4), tied=TIED, seed=8)
    assert not torch.equal(first.U["encoder"], other.U["encoder"])


def test_watching_a_run_does_not_change_it() -> None:
    plain = quick(tms(), rows(4))
    watched = quick(
        tms(), rows(4), progress=lambda line: None, callback=lambda step, d: d(torch.ones(2, 4))
    )
    assert same_bits(plain, watched)


BATCH_LIST = [randn(4, 4, seed=k) for k in range(5)]


@pytest.mark.parametrize("sample", [rows(4), BATCH_LIST], ids=["function", "list"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"faithfulness_warmup_steps": 3, "lr_warmup_steps": 2, "mask_samples": 2},
        {"restarts": 3},
        {"restarts": 3, "restarts_until": 0.8},
        {"restarts": 3, "restarts_until": 0.3},
        {"importance_coeff": Schedule(1e-3, 1e-1, log=True), "p": {"enc*": 0.9, "*": 2.0}},
    ],
    ids=["plain", "warm-ups", "restarts", "restarts end after", "restarts end before", "schedules"],
)
def test_resumed_equals_uninterrupted(sample: Any, changes: dict[str, Any], tmp_path: Path) -> None:
    config, path = dataclasses.replace(QUICK, **changes), tmp_path / "run.safetensors"
    whole = quick(tms(), sample, config, tied=TIED, checkpoint=path, checkpoint_every=7)
    resumed = quick(tms(), sample, config, tied=TIED, resume=path)
    assert same_bits(whole, resumed)
    skip = {"seconds"}
    assert {k: v for k, v in whole.info.items() if k not in skip} == {
        k: v for k, v in resumed.info.items() if k not in skip
    }
    assert same_bits(whole, quick(tms(), sample, config, tied=TIED)), "checkpoints cost no bits"


def test_an_interrupted_run_can_be_resumed_to_the_same_bits(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    whole = quick(tms(), rows(4))

    def stop(step: int, d: Decomposition) -> None:
        if step == 10:
            raise KeyboardInterrupt

    part = quick(tms(), rows(4), callback=stop, checkpoint=path, checkpoint_every=4)
    assert not part.finished
    assert same_bits(whole, quick(tms(), rows(4), resume=path))


@pytest.mark.parametrize(
    ("what", "kwargs"),
    [
        ("config", {"config": dataclasses.replace(QUICK, lr=0.5)}),
        ("seed", {"seed": 1}),
        ("target", {"target": tms(seed=9)}),
        ("modules", {"modules": ["encoder"]}),
        ("tied", {"tied": TIED}),
    ],
)
def test_a_checkpoint_of_another_run(what: str, kwargs: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    quick(tms(), rows(4), checkpoint=path, checkpoint_every=5)
    mine: dict[str, Any] = {
        "target": tms(),
        "sample": rows(4),
        "config": QUICK,
        "resume": path,
    } | kwargs
    with pytest.raises(ValueError, match=f"belongs to another run: its {what} differs"):
        quick(**mine)


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    with pytest.raises(FileNotFoundError, match="no file at"):
        quick(tms(), rows(4), resume=path)
    quick(tms(), rows(4)).save(path)
    with pytest.raises(ValueError, match="not a saved checkpoint of spd_mini"):
        quick(tms(), rows(4), resume=path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="not a saved checkpoint, or it was truncated"):
        quick(tms(), rows(4), resume=path)


def test_checkpoints_need_a_distance(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="checkpoint_every must be ≥ 1, got 0"):
        quick(tms(), rows(4), checkpoint=tmp_path / "c", checkpoint_every=0)


# Interruption


def interrupt_at(call: int, width: int = 4) -> Callable[[int, torch.Generator], Tensor]:
    calls = itertools.count(1)

    def sample(n: int, g: torch.Generator) -> Tensor:
        if next(calls) == call:
            raise KeyboardInterrupt
        return torch.rand(n, width, generator=g)

    return sample


def test_ctrl_c_returns_what_there_is() -> None:
    """The eighth step's batch never comes (call 1 is the probe): seven steps are done."""
    lines: list[str] = []
    d = quick(tms(), interrupt_at(9), progress=lines.append)
    assert not d.finished
    assert d.info["steps_done"] == 7
    assert d.history["step"] == [5, 7]
    assert lines[-1] == "interrupted at step 7/12; returning the decomposition so far"
    short = dataclasses.replace(QUICK, steps=12)
    run = make_run(tms(), rows(4), short)
    for _ in range(7):
        run.train_step()
    run.flush()
    assert same_bits(d, run.result(finished=False)), "the seven steps are those of the whole run"
    assert float(d(torch.ones(1, 4)).sum()) == float(d(torch.ones(1, 4)).sum())


def test_ctrl_c_during_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Run) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "warm_up", interrupted)
    d = quick(tms(), rows(4))
    assert not d.finished
    assert d.info["steps_done"] == 0
    assert d.history["step"] == d.history["total"] == []


# Losses that are not finite


@pytest.mark.parametrize(
    ("function", "entry", "term"),
    [
        ("faithfulness", 1, "faithfulness"),
        ("recon", 1, "recon"),  # all layers, restarts 0 and 1; then each layer
        ("recon", 5, "layerwise"),
        ("importance_minimality", 1, "importance"),
    ],
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_step_and_term(
    function: str, entry: int, term: str, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted in one term of restart 1 at step 3."""
    real, calls = getattr(losses, function), itertools.count()

    def planted(*args: Any) -> Tensor:
        value = real(*args)
        plant = torch.zeros_like(value)
        if next(calls) == 3:
            plant[entry] = bad
        return value + plant

    monkeypatch.setattr(losses, function, planted)
    message = rf"loss term '{term}' is not finite at step 3 \(restart 1\); lower the learning rate"
    with pytest.raises(FloatingPointError, match=message):
        quick(tms(), rows(4), dataclasses.replace(QUICK, restarts=2))


def test_a_total_that_overflows_is_named_as_such() -> None:
    with pytest.raises(FloatingPointError, match="'total' is not finite at step 0"):
        quick(tms(), rows(4), dataclasses.replace(QUICK, recon_coeff=1e300))


def test_nan_inputs_after_the_first_batch() -> None:
    calls = itertools.count()

    def sample(n: int, g: torch.Generator) -> Tensor:
        return torch.full((n, 4), float("nan") if next(calls) == 3 else 0.5)

    with pytest.raises(FloatingPointError, match="'recon' is not finite at step 2"):
        quick(tms(), sample)


# Progress, callback, history


@pytest.mark.slow
def test_progress_is_about_ten_lines(capsys: pytest.CaptureFixture[str]) -> None:
    config = dataclasses.replace(QUICK, steps=100, log_every=2)
    quick(tms(), rows(4), config, progress=True)
    lines = capsys.readouterr().out.splitlines()
    assert 10 <= len(lines) <= 12
    assert lines[0].startswith("step ")
    assert lines[-1].split()[:2] == ["step", "100/100"]
    terms = ("loss", "faith", "recon", "layer", "imp")
    assert all(all(f" {t} " in line for t in terms) for line in lines)
    assert max(map(len, lines)) <= 80, "a page shows about 80 columns"
    quick(tms(), rows(4), config, progress=False)
    assert capsys.readouterr().out == ""


def test_callback_sees_snapshots() -> None:
    seen: list[tuple[int, Decomposition, Tensor]] = []
    final = quick(tms(), rows(4), callback=lambda s, d: seen.append((s, d, d.U["encoder"].clone())))
    assert [s for s, _, _ in seen] == [5, 10, 12]
    assert [d.finished for _, d, _ in seen] == [False, False, True]
    assert all(torch.equal(d.U["encoder"], u) for _, d, u in seen), "training moved a snapshot"
    assert not torch.equal(seen[0][2], seen[1][2])
    assert same_bits(seen[-1][1], final)


def test_history_is_the_mean_of_each_window() -> None:
    run = make_run(tms(), rows(4))
    for _ in range(12):
        run.train_step()
    run.flush()
    history = quick(tms(), rows(4)).history
    assert set(history) == {"step", *TERMS}
    assert history["step"] == [5, 10, 12]
    for k, term in enumerate(TERMS):
        curve = run.log[:, k, 0]
        want = [curve[0:5].mean(), curve[5:10].mean(), curve[7:12].mean()]
        assert history[term] == pytest.approx(want)
    total = [
        f + r + w + QUICK.importance_coeff * i
        for f, r, w, i in zip(*(history[t] for t in TERMS[1:]), strict=True)
    ]
    assert history["total"] == pytest.approx(total, rel=1e-5)


def test_facts_about_the_run() -> None:
    d = quick(tms(), rows(4), seed=3)
    assert d.info["seed"] == 3
    assert d.info["device"] == "cpu"
    assert d.info["threads"] == torch.get_num_threads()
    assert d.info["steps_done"] == 12
    assert d.info["seconds"] > 0
    assert d.config is QUICK


# Learning rates and warm-up


def test_learning_rates_reach_the_optimiser() -> None:
    config = dataclasses.replace(QUICK, lr=0.1, gate_lr=0.3, steps=4)
    run = make_run(tms(), rows(4), config)
    for step in range(4):
        run.train_step()
        uv, gates = (group["lr"] for group in run.optimizer.param_groups)
        assert uv == pytest.approx(0.1 * config.lr_factor(step))
        assert gates == pytest.approx(0.3 * config.lr_factor(step))


def test_warm_up_fits_the_weights_and_nothing_else() -> None:
    config = dataclasses.replace(QUICK, C=8, faithfulness_warmup_steps=150)
    run = make_run(tms(), rows(4), config)
    gates = [t.detach().clone() for t in run.gates]
    noise, data = run.noise.get_state(), run.batches.state()
    before = losses.faithfulness(run.target.weight, *run.UV())
    run.warm_up()
    after = losses.faithfulness(run.target.weight, *run.UV())
    assert float(after.detach()) < 0.05 * float(before.detach())
    assert all(torch.equal(a, b) for a, b in zip(gates, run.gates, strict=True))
    assert torch.equal(run.noise.get_state(), noise)
    assert torch.equal(run.batches.state(), data)
    kept = {k: t.detach().clone() for k, t in run.params.items()}
    run.warm_up()
    assert all(torch.equal(t, kept[k]) for k, t in run.params.items()), "it happens once"


def test_gates_are_evaluated_together_or_apart() -> None:
    """Modules with unlike numbers of rows go in groups; each gets its own gates."""

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.early, self.head, self.late = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:  # (B, T, 3) → (B, 2)
            return self.late(self.head(torch.relu(self.early(x)).mean(1)))

    run = make_run(
        fill(Pooled()), lambda n, g: torch.rand(n, 5, 3, generator=g), modules=["early", "l*", "h*"]
    )
    assert run.groups() == [["early"], ["head", "late"]]
    x = torch.rand(4, 5, 3)
    _, acts = run.target.record(x)
    _, V = run.UV()
    h = run.target.inner(acts, V)
    joined, upper = run.importances(h)
    assert list(upper) == ["early", "head"], "a group penalised alike stays joined"
    run.config = dataclasses.replace(run.config, p={"early": 2.0, "*": 1.0})
    _, upper = run.importances(h)
    lower = {n: t for names, _, g in joined for n, t in run._split(names, g).items()}
    for n in run.target.names:
        gamma = gate_logits(h[n][0].mT, Gates(*(w[0, run.columns[n]] for w in run.gates))).mT
        assert torch.allclose(lower[n][0], lower_leaky(gamma), atol=1e-5)
        assert torch.allclose(upper[n][0], upper_leaky(gamma), atol=1e-5)
    d = quick(fill(Pooled()), lambda n, g: torch.rand(n, 5, 3, generator=g))
    assert {n: tuple(g.shape) for n, g in d.causal_importance(x).items()} == {
        "early": (4, 5, 3),
        "head": (4, 3),
        "late": (4, 3),
    }


# The target is left exactly as it was found


@pytest.mark.parametrize("ending", ["finished", "exception", "interrupted", "not finite"])
def test_the_target_is_left_as_found(ending: str) -> None:
    target = mlp().train()
    target(randn(2, 3)).sum().backward()
    target.body[0].requires_grad_(False)
    target.head.register_forward_hook(lambda *_: None)
    before = state_of(target)
    calls = itertools.count()

    def sample(n: int, g: torch.Generator) -> Tensor:
        if next(calls) == 5:
            if ending == "exception":
                raise RuntimeError("the sampler failed")
            if ending == "interrupted":
                raise KeyboardInterrupt
        scale = float("inf") if ending == "not finite" and next(calls) > 5 else 1.0
        return torch.rand(n, 3, generator=g) * scale

    outcomes: dict[str, Any] = {"exception": RuntimeError, "not finite": FloatingPointError}
    if ending in outcomes:
        with pytest.raises(outcomes[ending]):
            quick(target, sample)
    else:
        assert quick(target, sample).finished == (ending == "finished")
    assert state_of(target) == before


def test_the_result_does_not_follow_the_users_model() -> None:
    target = mlp()
    d = quick(target, rows(3))
    x = randn(2, 3)
    want = d.target(x).clone()
    with torch.no_grad():
        next(target.parameters()).zero_()
    assert torch.equal(d.target(x), want)


def test_dropout_and_batch_norm_stand_still() -> None:
    model = fill(
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    )
    model.train()
    d = quick(model, rows(3))
    model.eval()
    x = randn(3, 3)
    assert torch.equal(d.target(x), model(x))


# Bad input


@pytest.mark.parametrize(
    ("target", "sample", "kwargs", "message"),
    [
        (
            tms,
            rows(4),
            {"modules": ["enc"]},
            r"'enc' matches no .* it has \['encoder', 'decoder'\]",
        ),
        (tms, rows(4), {"modules": "encoder"}, "must be a list of names"),
        (tms, rows(4), {"tied": {"decoder": "x"}}, "tied names 'x'"),
        (tms, rows(7), {}, r"the target fails on a tensor of shape \(4, 7\), torch.float32"),
        (
            token_model,
            rows(3),
            {},
            r"the target fails on a tensor of shape \(4, 3\), torch.float32",
        ),
        (tms, lambda n, g: [1.0], {}, "sample must return a tensor of inputs.*got list"),
        (tms, lambda n, g: randn(n + 1, 4), {}, r"must return 4 rows, got shape \(5, 4\)"),
        (tms, lambda n, g: randn(n, 4) * float("nan"), {}, "inputs contain NaN"),
        (tms, [], {}, "iterable of batches is empty"),
        (tms, rows(4), {"config": Config(C={"encoder": 3})}, "C has no entry for module 'decoder'"),
        (
            tms,
            rows(4),
            {"config": Config(C={"encoder": 3, "*": 4}), "tied": TIED},
            "tied modules need equal C; 'decoder' 4, 'encoder' 3",
        ),
        (lambda: fill(Twice()), rows(3), {}, "'shared' is called more than once"),
        (lambda: fill(Spare()), rows(3), {}, r"\['spare'\] match but are not called"),
        (
            lambda: fill(Positions()),
            tokens,
            {},
            r"inputs of modules \['position'\] do not have the batch .* leave them out",
        ),
        (
            tms,
            rows(4),
            {"device": "cuda:99"},
            "device 'cuda:99' is not there; this machine has cpu",
        ),
        (tms, rows(4), {"device": "abacus"}, "device 'abacus' is not there"),
        (tms, rows(4), {"seed": -1}, "non-negative"),
    ],
)
def test_bad_input(
    target: Callable[[], nn.Module], sample: Any, kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        quick(target(), sample, **{"config": QUICK, **kwargs})


def test_the_positions_can_be_left_out() -> None:
    d = quick(fill(Positions()), tokens, modules=["token", "out"])
    assert d.names == ["token", "out"]


@pytest.mark.parametrize("reduce", [lambda y: y.sum(), lambda y: y.mT])
def test_outputs_must_be_batch_first(reduce: Callable[[Tensor], Tensor]) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return reduce(self.a(x))

    with pytest.raises(ValueError, match=r"output must be batch first; inputs of shape \(4, 3\)"):
        quick(fill(Odd()), rows(3))


# With a graphics card

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@CUDA
@pytest.mark.parametrize("changes", [{}, {"restarts": 2, "frequency_coeff": 0.1, "p": 0.9}])
def test_no_host_synchronisation_within_a_step(changes: dict[str, Any]) -> None:
    run = make_run(
        tms(),
        SparseFeatures(4, 0.3, stratified=True),
        dataclasses.replace(QUICK, **changes),
        tied=TIED,
        device=torch.device("cuda"),
    )
    run.train_step()  # the first step sets up the optimiser
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            run.train_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    run.flush()
    assert np.isfinite(run.log).all()


@pytest.mark.gpu
@CUDA
def test_the_same_code_runs_and_resumes_on_cuda(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    whole = quick(tms(), rows(4), device="cuda", checkpoint=path, checkpoint_every=7)
    resumed = quick(tms(), rows(4), device="cuda", resume=path)
    assert whole.device.type == "cuda"
    for n in whole.names:
        assert torch.allclose(whole.U[n], resumed.U[n], atol=1e-5)
    back = whole.to("cpu")
    x = torch.rand(2, 4)
    assert back(x).device.type == "cpu"
