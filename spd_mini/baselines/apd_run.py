"""APD's settings, result and training step; see `apd` for the method."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .. import losses
from ..allocator import keep_freed_memory
from ..data import Batches, Sample, describe, stream
from ..model import Target
from .apd_losses import attributions, batch_topk, gradients, simplicity, spread

TERMS = ("faithfulness", "recon", "simplicity")


@dataclass(frozen=True)
class APDConfig:
    """Settings of an APD run, by default the authors' for TMS 5-2 (arXiv 2501.14926).

    Raises ValueError for values that make no sense.
    """

    C: int = 5
    """Components, each across all matrices."""
    rank: int = 3
    """Largest rank of a component in a matrix (m); in the released code, full rank and one more."""
    topk: float = 0.211
    """Active components per example, on average: the ⌊topk · batch⌋ highest attributions."""
    faithfulness_coeff: float = 1.0
    """Weight of the faithfulness loss (β1)."""
    recon_coeff: float = 1.0
    """Weight of the reconstruction with the active components alone (β2)."""
    simplicity_coeff: float = 0.7
    """Weight of the simplicity loss (β3)."""
    p: float = 1.0
    """Exponent of the simplicity loss (p)."""
    steps: int = 20_000
    """Training steps."""
    batch_size: int = 2048
    """Examples a step, all-zero ones included."""
    lr: float = 3e-2
    """Peak Adam learning rate."""
    lr_schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up: nothing, or a quarter of a cosine down to 0 (released code)."""
    lr_warmup: float = 0.05
    """Fraction of the steps in which the learning rate rises linearly from 0."""
    log_every: int = 50
    """Steps between history entries and checks for non-finite losses."""

    def __post_init__(self) -> None:
        for name in ("C", "rank", "steps", "batch_size", "log_every"):
            n = getattr(self, name)
            if not isinstance(n, int) or isinstance(n, bool) or n < 1:
                raise ValueError(f"APDConfig.{name} must be an integer ≥ 1, got {n!r}")
        for name in ("topk", "p", "lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"APDConfig.{name} must be > 0, got {getattr(self, name)}")
        for name in (f"{term}_coeff" for term in TERMS):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"APDConfig.{name} must be ≥ 0, got {getattr(self, name)}")
        if not 0 <= self.lr_warmup < 1:
            raise ValueError(f"APDConfig.lr_warmup must be in [0, 1), got {self.lr_warmup}")
        if self.lr_schedule not in ("constant", "cosine"):
            raise ValueError(
                f"APDConfig.lr_schedule must be 'constant' or 'cosine', got {self.lr_schedule!r}"
            )
        if not 1 <= self.topk * self.batch_size <= self.C * self.batch_size:
            raise ValueError(
                f"APDConfig.topk must keep at least one component a batch and at most C={self.C} "
                f"an example, got {self.topk} with batch_size={self.batch_size}"
            )

    def lr_factor(self, step: int) -> float:
        """Factor on the learning rate at a step."""
        warmup = int(self.steps * self.lr_warmup)
        if step < warmup:
            return step / warmup
        if self.lr_schedule == "constant":
            return 1.0
        return math.cos(0.5 * math.pi * (step - warmup) / (self.steps - warmup))


class APD:
    """The components of one run.

    U: {name: (d_out, C·m)} and V: {name: (C·m, d_in)}, m = `config.rank` columns a component.
    cutoff: the attribution from which a component is active, where batch top-k cuts on average at
    the end of training. history: {"step": …, loss: curve}; info: seed, finished steps, seconds.
    """

    def __init__(
        self,
        wrapped: Target,
        U: Mapping[str, Tensor],
        V: Mapping[str, Tensor],
        config: APDConfig,
        cutoff: float,
        history: Mapping[str, list[float]] | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        self.wrapped, self.config, self.cutoff = wrapped, config, cutoff
        self.U, self.V = dict(U), dict(V)
        self.history, self.info = dict(history or {}), dict(info or {})

    @property
    def pieces(self) -> dict[str, Tensor]:
        """The components' weights P_c: {name: (C, d_out, d_in)}."""
        parts = (self.config.C, self.config.rank)
        return {
            n: torch.einsum("ocm,cmi->coi", u.unflatten(1, parts), self.V[n].unflatten(0, parts))
            for n, u in self.U.items()
        }

    @property
    def trained_parameters(self) -> int:
        """Numbers trained: C · m · (d_in + d_out) for every matrix that is not tied to another."""
        free = [n for n in self.U if n not in self.wrapped.tied]
        return sum(self.U[n].numel() + self.V[n].numel() for n in free)

    def attributions(self, x: Tensor) -> Tensor:
        """Attribution of each component on each input. x: (B, d); returns (B, C)."""
        _, acts, grads = gradients(self.wrapped, x)
        return attributions(acts, grads, *self._one_run(), self.config.C)[0]

    def active(self, x: Tensor) -> Tensor:
        """Which components are active on each input, by the run's own cutoff: bool (B, C)."""
        scores = self.attributions(x)
        return (scores >= self.cutoff) & (scores > 0)

    def __call__(self, x: Tensor, active: Tensor | None = None) -> Tensor:
        """Output of the active components (B, C) alone; None = all of them."""
        mask = None if active is None else spread(active[None], self.config.rank).to(x)
        return self.wrapped.masked(x, *self._one_run(), dict.fromkeys(self.U, mask))[0]

    def _one_run(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {n: u[None] for n, u in self.U.items()}, {n: v[None] for n, v in self.V.items()}


class Run:
    """R = settings × seeds runs side by side: their parameters, optimiser and losses."""

    def __init__(
        self,
        target: nn.Module,
        sample: Sample | Iterable[Any],
        runs: Sequence[tuple[APDConfig, int]],
        modules: Sequence[str] | None,
        tied: Mapping[str, str] | None,
        device: torch.device,
    ) -> None:
        self.runs, self.config, self.step = list(runs), runs[0][0], 0
        if device.type == "cpu":
            keep_freed_memory()
        self.target = Target(target, modules, tied)
        self.target.module.to(device)
        self.batches = Batches(sample, self.config.batch_size, 0, device)
        x = self.batches.probe()
        rows, out = self.target.check(x), self.target(x)
        if out.dim() != 2 or set(rows.values()) != {len(x)} or not x.is_floating_point():
            raise ValueError(
                "APD takes a target of vectors, one row an example; here inputs are "
                f"{describe(x)}, outputs {describe(out)}"
            )
        # An all-zero input that reaches every matrix as zeros has attribution 0 for all components
        # and the target's own output under any mask: it may be left out, as long as it is counted.
        _, acts = self.target.record(torch.zeros_like(x[:1]))
        self.drop_zeros = not any(bool(a.any()) for a in acts.values())
        drawn = [initial(self.target, config, seed) for config, seed in runs]
        self.params = {k: torch.stack([d[k] for d in drawn]).requires_grad_() for k in drawn[0]}
        self.adam = torch.optim.Adam(list(self.params.values()), fused=True)
        coeffs = [[getattr(c, f"{term}_coeff") for c, _ in runs] for term in TERMS]
        self.coeffs = torch.tensor(coeffs, device=device, dtype=x.dtype)  # (3, R)
        self.pending: list[Tensor] = []  # losses (3, R) of steps not yet in the history
        self.history: list[tuple[int, Tensor]] = []  # step, mean losses (4, R) since the last entry

    def UV(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """U (R, d_out, C·m) and V (R, C·m, d_in) of every matrix, tied ones included."""
        U, V, tied = {}, {}, self.target.tied
        for n in self.target.names:
            u, v = self.params[f"U/{tied.get(n, n)}"], self.params[f"V/{tied.get(n, n)}"]
            U[n], V[n] = (v.mT, u.mT) if n in tied else (u, v)
        return U, V

    def batch(self) -> tuple[Tensor, int]:
        """Inputs (N, d), all-zero ones left out where that is exact; and how many were drawn."""
        x, weight = self.batches.next()
        if weight is not None:
            raise ValueError(
                "batch top-k counts examples, all alike: pass a sampler without row weights "
                "(stratified=False)"
            )
        if not self.drop_zeros:
            return x, len(x)
        keep = x.any(1)
        keep[0] = True  # never an empty batch
        return x[keep], len(x)

    def losses(self, x: Tensor, examples: int) -> tuple[Tensor, Tensor]:
        """The three losses in the order of TERMS (3, R), and the cutoffs (R,).

        x: (N, d), what was kept of a batch of `examples`.
        """
        U, V = self.UV()
        tied, config = self.target.tied, self.config
        target_out, acts, grads = gradients(self.target, x)
        with torch.no_grad():  # which components are active is a choice, not differentiated
            scores = attributions(acts, grads, U, V, config.C)
            active, cutoff = batch_topk(scores, [int(c.topk * examples) for c, _ in self.runs])
            mask = spread(active, config.rank).to(x)
        out = self.target.masked(x, U, V, dict.fromkeys(U, mask))
        faithfulness = losses.faithfulness(self.target.weight, U, V, tied)
        recon = losses.recon(out, target_out, losses.mse, x.new_full((len(x),), 1 / examples))
        simple = simplicity(active, U, V, tied, config.p, examples)
        return torch.stack([faithfulness, recon, simple]), cutoff

    def train_step(self) -> None:
        """One Adam step on the sum over runs (they do not interact)."""
        terms, _ = self.losses(*self.batch())
        params = list(self.params.values())
        grads = torch.autograd.grad((self.coeffs * terms).sum(), params)
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad
        self.adam.param_groups[0]["lr"] = self.config.lr * self.config.lr_factor(self.step)
        self.adam.step()
        self.pending.append(terms.detach())
        self.step += 1
        if self.step % self.config.log_every == 0 or self.step == self.config.steps:
            self.flush()

    def flush(self) -> None:
        """Put pending losses into the history. Raises FloatingPointError if one is not finite."""
        block = torch.stack(self.pending).cpu()  # (steps, 3, R)
        self.pending.clear()
        if len(bad := (~torch.isfinite(block)).nonzero()):
            i, term, run = bad[0].tolist()
            raise FloatingPointError(
                f"loss term '{TERMS[term]}' is not finite at step {self.step - len(block) + i} "
                f"(seed {self.runs[run][1]}); lower the learning rate, or check the inputs' range"
            )
        mean = block.mean(0)
        total = (self.coeffs.cpu() * mean).sum(0, keepdim=True)
        self.history.append((self.step, torch.cat([total, mean])))

    @torch.no_grad()
    def results(self, batches: int = 16) -> list[APD]:
        """One result per run. The cutoff is a mean over fresh batches."""
        cutoff = torch.stack([self.losses(*self.batch())[1] for _ in range(batches)]).mean(0)
        U, V = self.UV()
        found = []
        for i, (config, seed) in enumerate(self.runs):
            history = {"step": [float(step) for step, _ in self.history]}
            for k, term in enumerate(("total", *TERMS)):
                history[term] = [float(values[k, i]) for _, values in self.history]
            u, v = ({n: t[i].detach().clone() for n, t in ts.items()} for ts in (U, V))
            info = {"seed": seed, "runs_side_by_side": len(self.runs)}
            found.append(APD(self.target, u, v, config, float(cutoff[i]), history, info))
        return found


def initial(target: Target, config: APDConfig, seed: int) -> dict[str, Tensor]:
    """Random factors of one seed: normal, variance 2 / ((C + 1) · m · d), d the outer dimension.

    Xavier's rule with the fans PyTorch reads off a factor of shape (1, C, d, m) (released code).
    """
    generator = torch.Generator().manual_seed(stream(seed, 0))
    params = {}
    for n, W in target.weight.items():
        if n not in target.tied:
            d_out, d_in = W.shape
            k = config.C * config.rank
            for name, shape, d in (("U", (d_out, k), d_out), ("V", (k, d_in), d_in)):
                std = math.sqrt(2 / ((config.C + 1) * config.rank * d))
                params[f"{name}/{n}"] = (std * torch.randn(shape, generator=generator)).to(W)
    return params
