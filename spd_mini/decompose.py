"""The training loop: `decompose` turns a target model and inputs into a `Decomposition`."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import components, importance, losses, masks, storage
from .config import Config, lookup, value_at
from .data import Batches, Sample, stream
from .decomposition import Decomposition, fingerprint, resolve_device
from .importance import Gates
from .model import Target

TERMS = ("total", "faithfulness", "recon", "layerwise", "importance")


def decompose(
    target: nn.Module,
    sample: Sample | Iterable[Any],
    config: Config | None = None,
    modules: Sequence[str] | None = None,
    tied: Mapping[str, str] | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool | Callable[[str], object] = True,
    callback: Callable[[int, Decomposition], object] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    resume: str | Path | None = None,
) -> Decomposition:
    """Decompose the weights of `target` into rank-one subcomponents (arXiv 2506.20790).

    target: any module returning a tensor, batch first; it is left exactly as it was found.
    sample: `sample(n, generator)` → inputs (n, ...), or a pair (inputs, row weights summing to 1);
        or an iterable of batches, such as a DataLoader (the first entry of a tuple is the input).
    modules: names or glob patterns of nn.Linear or nn.Embedding submodules; None = all.
    tied: {"decoder": "encoder"} where one weight is the other's transpose.
    seed: fixes everything: same seed, machine and thread count give the same bits on CPU.
    progress: True prints about ten lines; a function receives them instead.
    callback: called as callback(step, decomposition) every `config.log_every` steps.
    checkpoint: file to write every `checkpoint_every` steps; `resume` continues from such a file
        to the same result as an uninterrupted run.

    Ctrl-C returns what there is so far, with `finished` False. Raises ValueError for bad input and
    FloatingPointError, naming step and loss term, when a loss is not finite.
    """
    run = Run(target, sample, config or Config(), modules, tied, seed, resolve_device(device))
    if resume is not None:
        run.restore(resume)
    say = progress if callable(progress) else _print if progress else None
    started, last_said, steps = time.perf_counter(), -1, run.config.steps
    finished = False
    try:
        run.warm_up()
        while run.step < steps:
            run.train_step()
            at_log = run.step % run.config.log_every == 0 or run.step == steps
            at_checkpoint = checkpoint is not None and run.step % checkpoint_every == 0
            if at_log or at_checkpoint:
                run.flush()
            if at_checkpoint and checkpoint is not None:
                run.save(checkpoint)
            if at_log and say and (10 * run.step // steps > last_said):
                last_said = 10 * run.step // steps
                say(run.progress_line(time.perf_counter() - started))
            if at_log and callback is not None:
                callback(run.step, run.result(finished=run.step == steps))
        finished = True
    except KeyboardInterrupt:
        run.flush()
        if say:
            say(f"interrupted at step {run.step}/{steps}; returning the decomposition so far")
    result = run.result(finished)
    result.info["seconds"] = time.perf_counter() - started
    return result


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Run:
    """The state of one run: parameters (leading dimension R = restarts), optimiser, generators."""

    def __init__(
        self,
        target: nn.Module,
        sample: Sample | Iterable[Any],
        config: Config,
        modules: Sequence[str] | None,
        tied: Mapping[str, str] | None,
        seed: int,
        device: torch.device,
    ) -> None:
        self.config, self.seed, self.step, self.warmed_up = config, seed, 0, False
        self.target = Target(target, modules, tied)
        self.target.module.to(device)
        self.batches = Batches(sample, config.batch_size, seed, device)
        self.rows = {n: len(a) for n, a in self.target.record(self.batches.probe())[1].items()}
        self.noise = torch.Generator(device).manual_seed(stream(seed, 2))
        init = torch.Generator().manual_seed(stream(seed, 0))
        R, weight = config.restarts, self.target.weight
        C = {n: config.C_of(n) for n in self.target.names}
        self.free: dict[str, tuple[Tensor, Tensor]] = {}
        for n, W in weight.items():
            if n not in self.target.tied:
                U, V = components.init_components(W, C[n], R, init)
                self.free[n] = (U.requires_grad_(), V.requires_grad_())
        for n, source in self.target.tied.items():
            if C[n] != C[source]:
                raise ValueError(f"tied modules need equal C; '{n}' {C[n]}, '{source}' {C[source]}")
        dtype = next(iter(weight.values())).dtype
        gates = importance.init_gates(sum(C.values()), config.gate_hidden, R, init)
        self.gates = Gates(*(w.to(device, dtype).requires_grad_() for w in gates))
        ends = np.cumsum(list(C.values())).tolist()
        self.columns = {n: slice(e - C[n], e) for n, e in zip(C, ends, strict=True)}
        self.optimizer = torch.optim.Adam(
            [{"params": [t for uv in self.free.values() for t in uv]}, {"params": list(self.gates)}],
            lr=config.lr,
            fused=True,
        )
        self.pending: list[Tensor] = []  # per-step losses (terms, R) still on the device
        self.log = np.zeros((0, len(TERMS), R), dtype=np.float64)

    def UV(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """U (R, d_out, C) and V (R, C, d_in) of every module, tied ones included."""
        U = {n: uv[0] for n, uv in self.free.items()}
        V = {n: uv[1] for n, uv in self.free.items()}
        for n, source in self.target.tied.items():
            U[n], V[n] = V[source].mT, U[source].mT
        return {n: U[n] for n in self.target.names}, {n: V[n] for n in self.target.names}

    def warm_up(self) -> None:
        """Fit W = UV alone before training starts."""
        if self.warmed_up:
            return
        params = [t for uv in self.free.values() for t in uv]
        adam = torch.optim.Adam(params, lr=self.config.faithfulness_warmup_lr, fused=True)
        for _ in range(self.config.faithfulness_warmup_steps):
            adam.zero_grad()
            losses.faithfulness(self.target.weight, *self.UV()).sum().backward()
            adam.step()
        self.warmed_up = True

    def train_step(self) -> None:
        """One optimiser step on the total loss, summed over restarts (they do not interact)."""
        c = self.config
        x, weight = self.batches.next()
        factor = c.lr_factor(self.step)
        for group, lr in zip(self.optimizer.param_groups, (c.lr, c.gate_lr or c.lr), strict=True):
            group["lr"] = lr * factor
        terms = self.losses(x, weight)
        self.optimizer.zero_grad()
        terms[0].sum().backward()
        self.optimizer.step()
        self.pending.append(torch.stack(terms).detach())
        self.step += 1

    def losses(self, x: Tensor, weight: Tensor | None) -> list[Tensor]:
        """Total and terms of the loss on one batch, in the order of TERMS, each (R,)."""
        c, target = self.config, self.target
        progress = self.step / c.steps
        divergence = losses.DIVERGENCES[c.output_loss]
        U, V = self.UV()
        target_out, acts = target.record(x)
        h = target.inner(acts, V)
        lower, upper = self.importances(h)

        recon = layerwise = torch.zeros((), device=x.device)
        for _ in range(c.mask_samples):
            m = self.draw_masks(lower)
            out = target.masked(x, U, V, m, known={target.first: h[target.first]})
            recon = recon + losses.recon(out, target_out, divergence, weight)
            if c.layerwise_masks == "fresh":
                m = self.draw_masks(lower)
            for n in target.names:
                out = target.masked(x, U, V, {n: m[n]}, known=h)
                layerwise = layerwise + losses.recon(out, target_out, divergence, weight)

        p = {n: c.p_of(n, progress) for n in target.names}
        scale = {n: lookup(c.importance_scale, n, 1.0) for n in target.names}
        minimality = losses.importance_minimality(upper, p, scale, weight)
        if c.frequency_coeff:
            minimality = minimality + c.frequency_coeff * losses.frequency(upper, scale, weight)
        terms = [
            losses.faithfulness(target.weight, U, V),
            recon / c.mask_samples,
            layerwise / (c.mask_samples * len(target.names)),
            minimality,
        ]
        coeffs = (c.faithfulness_coeff, c.recon_coeff, c.layerwise_coeff, c.importance_coeff)
        values = [value_at(k, progress) * t for k, t in zip(coeffs, terms, strict=True)]
        return [values[0] + values[1] + values[2] + values[3], *terms]

    def groups(self) -> list[list[str]]:
        """Modules with equally many rows: their importance MLPs run in one batched product."""
        by_rows: dict[int, list[str]] = {}
        for n, rows in self.rows.items():
            by_rows.setdefault(rows, []).append(n)
        return list(by_rows.values())

    def importances(self, h: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Lower- and upper-leaky importances of inner activations: {name: (R, C, N)} each."""
        lower: dict[str, Tensor] = {}
        upper: dict[str, Tensor] = {}
        for names in self.groups():
            gates = self.gates
            if len(names) < len(self.rows):
                gates = Gates(
                    *(torch.cat([w[:, self.columns[n]] for n in names], 1) for w in self.gates)
                )
            gamma = importance.gate_logits_batched(torch.cat([h[n] for n in names], 1), gates)
            sizes = [h[n].shape[1] for n in names]
            for kind, leaky in ((lower, importance.lower_leaky), (upper, importance.upper_leaky)):
                kind.update(zip(names, leaky(gamma).split(sizes, 1), strict=True))
        return lower, upper

    def draw_masks(self, lower: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fresh stochastic masks m = g + (1 − g) r."""
        return {
            n: masks.from_source(g, masks.uniform(g.shape, self.noise).to(g.dtype))
            for n, g in lower.items()
        }

    def flush(self) -> None:
        """Bring pending losses to the host. Raises FloatingPointError if one is not finite."""
        if not self.pending:
            return
        block = torch.stack(self.pending).double().cpu().numpy()
        self.pending.clear()
        bad = np.argwhere(~np.isfinite(block))
        if len(bad):
            i, _, restart = bad[0]
            term = next((t for k, t in enumerate(TERMS) if k and not np.isfinite(block[i, k, restart])), TERMS[0])
            raise FloatingPointError(
                f"loss term '{term}' is not finite at step {len(self.log) + i} (restart {restart}); "
                "lower the learning rate, or check the inputs for extreme values"
            )
        self.log = np.concatenate([self.log, block])

    def scores(self) -> np.ndarray:
        """Total loss of each restart, averaged over the last tenth of the steps so far: (R,)."""
        if not len(self.log):
            return np.zeros(self.config.restarts)
        tail = self.log[-max(len(self.log) // 10, 1) :, 0]
        return np.asarray(tail.mean(0))

    def result(self, finished: bool) -> Decomposition:
        """The best restart so far, as a Decomposition of its own (nothing is shared)."""
        scores = self.scores()
        best = int(scores.argmin())
        U, V = ({n: t[best].detach().clone() for n, t in ts.items()} for ts in self.UV())
        gates = {
            n: Gates(*(w[best, cols].detach().clone() for w in self.gates))
            for n, cols in self.columns.items()
        }
        every = self.config.log_every
        ends = sorted({*range(every, len(self.log) + 1, every), len(self.log)} - {0})
        history: dict[str, list[float]] = {"step": [float(e) for e in ends]}
        for k, term in enumerate(TERMS):
            curve = self.log[:, k, best]
            history[term] = [float(curve[max(e - every, 0) : e].mean()) for e in ends]
        info = {
            "seed": self.seed,
            "finished": finished,
            "steps_done": self.step,
            "restarts": self.config.restarts,
            "restart_losses": scores.tolist(),
            "chosen_restart": best,
            "device": str(self.target.device),
            "threads": torch.get_num_threads(),
        }
        return Decomposition(self.target, U, V, gates, self.config, history, info)

    def progress_line(self, seconds: float) -> str:
        recent = self.log[-self.config.log_every :, :, int(self.scores().argmin())].mean(0)
        terms = "  ".join(f"{t} {v:.2e}" for t, v in zip(TERMS, recent, strict=True))
        return f"step {self.step:>6}/{self.config.steps}  {terms}  {seconds:.1f} s"

    def _tensors(self) -> dict[str, Tensor]:
        names = [f"{k}/{n}" for n in self.free for k in "UV"]
        names += [f"gate/{k}" for k in Gates._fields]
        params = [t for uv in self.free.values() for t in uv] + list(self.gates)
        return dict(zip(names, params, strict=True))

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with to be resumed."""
        config = json.loads(json.dumps(self.config.to_dict()))
        return {"config": config, "seed": self.seed, "weights": fingerprint(self.target.weight)}

    def save(self, path: str | Path) -> None:
        """Write a checkpoint: parameters, Adam's moments, generators, losses so far."""
        tensors = dict(self._tensors())
        for name, param in self._tensors().items():
            state = self.optimizer.state[param]
            tensors |= {f"adam/{k}/{name}": v for k, v in state.items()}
        tensors["noise"], tensors["data"] = self.noise.get_state(), self.batches.generator.get_state()
        tensors["log"] = torch.from_numpy(self.log)
        storage.write(path, "checkpoint", tensors, {"step": self.step, **self._identity()})

    def restore(self, path: str | Path) -> None:
        """Continue from a checkpoint. Raises ValueError when it belongs to another run."""
        tensors, meta = storage.read(path, "checkpoint")
        for key, value in self._identity().items():
            if meta[key] != value:
                raise ValueError(f"checkpoint {path} belongs to another run: its {key} differs")
        for name, param in self._tensors().items():
            with torch.no_grad():
                param.copy_(tensors[name])
            state = {k: tensors[f"adam/{k}/{name}"] for k in ("step", "exp_avg", "exp_avg_sq")}
            self.optimizer.state[param] = {
                k: v if k == "step" else v.to(param.device) for k, v in state.items()
            }
        self.noise.set_state(tensors["noise"])
        self.batches.skip(meta["step"], tensors["data"])
        self.log, self.step, self.warmed_up = tensors["log"].numpy(), meta["step"], True
