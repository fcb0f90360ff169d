"""The state of one run and its training step: where the losses and the parameters meet."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import importance, losses, masks, moves
from .adversary import Adversary
from .allocator import keep_freed_memory
from .config import Config, lookup, value_at
from .data import Batches, Sample, stream
from .decomposition import Decomposition
from .importance import Gates
from .model import Target
from .start import initial

TERMS: tuple[str, ...] = ("total", "faithfulness", "recon", "layerwise", "importance")


class Run:
    """The state of one run: parameters, optimiser, generators, losses.

    Several seeds may run side by side. Parameters have the leading dimension R: for each seed its
    restarts, one after the other. Each starts as it would alone; inputs are shared by all, and mask
    draws come from the first seed's generator.
    """

    def __init__(
        self,
        target: nn.Module,
        sample: Sample | Iterable[Any],
        config: Config,
        modules: Sequence[str] | None,
        tied: Mapping[str, str] | None,
        seed: int | Sequence[int],
        device: torch.device,
    ) -> None:
        self.config, self.step, self.warmed_up = config, 0, False
        self.seeds = (seed,) if isinstance(seed, int) else tuple(seed)
        first = self.seeds[0]
        if device.type == "cpu":
            keep_freed_memory()
        self.target = Target(target, modules, tied)
        self.target.module.to(device)
        self.batches = Batches(sample, config.batch_size, first, device)
        self.rows = self.target.check(self.batches.probe())
        self.passes = self.target.passes(config.shortcuts)
        self.noise = torch.Generator(device).manual_seed(stream(first, 2))
        C = {n: config.C_of(n) for n in self.target.names}
        config.check_patterns(self.target.names)
        for n, source in self.target.tied.items():
            if C[n] != C[source]:
                raise ValueError(f"tied modules need equal C; '{n}' {C[n]}, '{source}' {C[source]}")
        drawn = [initial(self.target, C, config, seed) for seed in self.seeds]
        self.set_parameters({k: torch.cat([params[k] for params in drawn]) for k in drawn[0]})
        ends = np.cumsum(list(C.values())).tolist()
        self.columns = {n: slice(e - C[n], e) for n, e in zip(C, ends, strict=True)}
        self.scale = {n: lookup(config.importance_scale, n, 1.0) for n in self.target.names}
        R, self.terms = len(self.gates.b_out), TERMS
        self.adversary: Adversary | None = None
        if config.has_adversary:
            self.terms += ("adversary",)
            self.adversary = Adversary(self.columns, R, config.adversary_step, first, device)
        betas = [getattr(config, f"{term}_coeff") for term in self.terms[1:]]
        table = [[value_at(b, s / config.steps) for b in betas] for s in range(config.steps)]
        self.coeffs = torch.tensor(table, device=device, dtype=self.gates.b_out.dtype)
        self.pending: list[Tensor] = []  # per-step losses (terms, R) still on the device
        self.log = np.zeros((0, len(self.terms), R), dtype=np.float64)
        self.chosen: list[tuple[int, list[float]]] | None = None  # restart kept early, all losses
        self.moves = dict.fromkeys(moves.MOVES, 0)  # discrete moves made so far, in all restarts

    def set_parameters(
        self, params: Mapping[str, Tensor], adam: Mapping[str, Mapping[str, Tensor]] | None = None
    ) -> None:
        """Take over parameters (and Adam's state of each), by name, restarts leading."""
        self.params = {k: t.detach().clone().requires_grad_() for k, t in params.items()}
        free = [n for n in self.target.names if n not in self.target.tied]
        self.free = {n: (self.params[f"U/{n}"], self.params[f"V/{n}"]) for n in free}
        self.gates = Gates(*(self.params[f"gate/{k}"] for k in Gates._fields))
        uv = [t for pair in self.free.values() for t in pair]
        groups = [{"params": uv}, {"params": list(self.gates)}]
        self.optimizer = torch.optim.Adam(groups, lr=self.config.lr, fused=True)
        for name, state in (adam or {}).items():
            self.optimizer.state[self.params[name]] = dict(state)

    def keep_best_restart(self) -> None:
        """Drop all restarts but the one with the lowest loss so far, seed by seed (label-free)."""
        self.flush()
        self.chosen = self.best_restarts()
        each = self.log.shape[2] // len(self.seeds)
        kept = [i * each + best for i, (best, _) in enumerate(self.chosen)]
        adam = {
            name: {k: v if k == "step" else v[kept] for k, v in state.items()}
            for name, param in self.params.items()
            if (state := self.optimizer.state[param])
        }
        self.set_parameters({k: t[kept] for k, t in self.params.items()}, adam)
        self.log = self.log[:, :, kept]
        if self.adversary:
            self.adversary.take(self.adversary.r[kept])

    def best_restarts(self) -> list[tuple[int, list[float]]]:
        """For each seed the restart with the lowest loss so far, and the losses of all of its."""
        rows = self.scores().reshape(len(self.seeds), -1)
        return [(int(row.argmin()), row.tolist()) for row in rows]

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
            losses.faithfulness(self.target.weight, *self.UV(), self.target.tied).sum().backward()
            adam.step()
        self.warmed_up = True

    def train_step(self) -> None:
        """One optimiser step on the total loss, summed over restarts (they do not interact)."""
        c = self.config
        if self.step >= c.restarts_until * c.steps and self.log.shape[2] > len(self.seeds):
            self.keep_best_restart()
        moves.make(self)
        x, weight = self.batches.next()
        factor = c.lr_factor(self.step)
        for group, lr in zip(self.optimizer.param_groups, (c.lr, c.gate_lr or c.lr), strict=True):
            group["lr"] = lr * factor
        terms = self.losses(x, weight)
        total = self.coeffs[self.step] @ terms
        params = list(self.params.values())
        hostile = [self.adversary.r] if self.adversary else []
        grads = torch.autograd.grad(total.sum(), params + hostile)
        for param, grad in zip(params, grads, strict=False):
            param.grad = grad.contiguous()  # fused Adam misreads any other layout, silently
        self.optimizer.step()
        if self.adversary:
            self.adversary.ascend(grads[-1])
        self.pending.append(torch.cat([total[None], terms]).detach())
        self.step += 1

    def losses(self, x: Tensor, weight: Tensor | None) -> Tensor:
        """The losses on one batch, in the order of `terms[1:]`: (4, R), or 5 with an adversary."""
        c, target = self.config, self.target
        progress = self.step / c.steps
        U, V = self.UV()
        passes = self.passes(x, U, V)
        lower, upper = self.importances(passes.h)

        outs: list[Tensor] = []  # per draw: all layers masked, then one layer at a time
        for _ in range(c.mask_samples):
            m, mh = self.draw_masks(lower)
            outs.append(passes.joint(m, mh))
            if c.layerwise_masks == "fresh":
                m, mh = self.draw_masks(lower)
            outs += passes.alone(m, mh)
        divergence = losses.DIVERGENCES[c.output_loss]
        errors = losses.recon(torch.cat(outs), passes.target_out, divergence, weight)
        joint, alone = errors.view(c.mask_samples, 1 + len(target.names), -1).split(
            [1, len(target.names)], 1
        )

        p = {n: c.p_of(n, progress) for n in target.names}
        minimality = losses.importance_minimality(upper, p, self.scale, weight)
        frequency = {n: s * c.frequency_of(n, progress) for n, s in self.scale.items()}
        if any(frequency.values()):
            minimality = minimality + losses.frequency(upper, frequency, weight)
        faithfulness = losses.faithfulness(target.weight, U, V, target.tied)
        terms = [faithfulness, joint.mean((0, 1)), alone.mean((0, 1)), minimality]
        if self.adversary:
            out = passes.joint(*self.draw_masks(lower, self.adversary))
            terms.append(losses.recon(out, passes.target_out, divergence, weight))
        return torch.stack(terms)

    def groups(self) -> list[list[str]]:
        """Modules with equally many rows: their importance MLPs run in one batched product."""
        by_rows: dict[int, list[str]] = {}
        for n, rows in self.rows.items():
            by_rows.setdefault(rows, []).append(n)
        return list(by_rows.values())

    def importances(
        self, h: Mapping[str, Tensor]
    ) -> tuple[list[tuple[list[str], Tensor, Tensor]], dict[str, Tensor]]:
        """Importances of inner activations {name: (R, C, N)}.

        Per group, still joined along C: names, inner activations, lower-leaky importances (they
        become masks). And the upper-leaky importances, which are penalised: per module, or still
        joined under the first name of a group where all modules are penalised alike.
        """
        c = self.config
        alike = not (
            isinstance(c.p, Mapping) or c.importance_scale or isinstance(c.frequency_coeff, Mapping)
        )
        lower: list[tuple[list[str], Tensor, Tensor]] = []
        upper: dict[str, Tensor] = {}
        for names in self.groups():
            gates = self.gates
            if len(names) < len(self.rows):
                gates = Gates(
                    *(torch.cat([w[:, self.columns[n]] for n in names], 1) for w in self.gates)
                )
            joined = torch.cat([h[n] for n in names], 1)
            gamma = importance.gate_logits_batched(joined, gates)
            lower.append((names, joined, importance.lower_leaky(gamma)))
            high = importance.upper_leaky(gamma)
            upper |= {names[0]: high} if alike else self._split(names, high)
        return lower, upper

    def _split(self, names: list[str], joined: Tensor) -> dict[str, Tensor]:
        """Undo the joining of a group along C."""
        sizes = [self.columns[n].stop - self.columns[n].start for n in names]
        return dict(zip(names, joined.split(sizes, 1), strict=True))

    def draw_masks(
        self, lower: Iterable[tuple[list[str], Tensor, Tensor]], adversary: Adversary | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Masks m = g + (1 − g) r with r fresh or the adversary's, and m · h: {name: (R, C, N)}."""
        m: dict[str, Tensor] = {}
        mh: dict[str, Tensor] = {}
        for names, h, g in lower:
            r = adversary.sources(names) if adversary else masks.uniform(g.shape, self.noise)
            mask = masks.from_source(g, r.to(g.dtype))
            m |= self._split(names, mask)
            mh |= self._split(names, mask * h)
        return m, mh

    def flush(self) -> None:
        """Bring pending losses to the host. Raises FloatingPointError if one is not finite."""
        if not self.pending:
            return
        block = torch.stack(self.pending).double().cpu().numpy()
        self.pending.clear()
        bad = np.argwhere(~np.isfinite(block))
        if len(bad):
            i, _, restart = bad[0]
            broken = ~np.isfinite(block[i, 1:, restart])
            term = self.terms[1 + int(broken.argmax())] if broken.any() else TERMS[0]
            raise FloatingPointError(
                f"loss term '{term}' is not finite at step {len(self.log) + i} "
                f"(restart {restart}); lower the learning rate, or check the inputs' range"
            )
        self.log = np.concatenate([self.log, block])

    def scores(self) -> np.ndarray:
        """Total loss of each restart, averaged over the last tenth of the steps so far: (R,)."""
        if not len(self.log):
            return np.zeros(self.log.shape[2])
        return np.asarray(self.log[-max(len(self.log) // 10, 1) :, 0].mean(0))

    def result(self, finished: bool, restart: int | None = None, which: int = 0) -> Decomposition:
        """One restart of one seed, by default the best so far, as a Decomposition of its own."""
        best, losses_now = self.best_restarts()[which]
        chosen = self.chosen[which] if self.chosen else (best, losses_now)
        restart = best if restart is None else restart
        score, best = losses_now[restart], which * len(losses_now) + restart
        U, V = ({n: t[best].detach().clone() for n, t in ts.items()} for ts in self.UV())
        gates = {
            n: Gates(*(w[best, cols].detach().clone() for w in self.gates))
            for n, cols in self.columns.items()
        }
        every = self.config.log_every
        ends = sorted({*range(every, len(self.log) + 1, every), len(self.log)} - {0})
        history: dict[str, list[float]] = {"step": [float(e) for e in ends]}
        for k, term in enumerate(self.terms):
            curve = self.log[:, k, best]
            history[term] = [float(curve[max(e - every, 0) : e].mean()) for e in ends]
        info = {
            "seed": self.seeds[which],
            "seeds_side_by_side": len(self.seeds),
            "finished": finished,
            "steps_done": self.step,
            "restarts": self.config.restarts,
            "restart_losses": chosen[1],
            "chosen_restart": chosen[0] if self.chosen else restart,
            "loss": score,
            **self.moves,
            "device": str(self.target.device),
            "threads": torch.get_num_threads(),
        }
        return Decomposition(self.target, U, V, gates, self.config, history, info)
