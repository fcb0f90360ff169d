"""A report on a decomposition of one's own, without ground truth: what holds, and what does not.

Losses can look fine while a decomposition is wrong. What can be seen without knowing the true
mechanisms: whether the pieces add up to the weights; whether the output stands still when what is
not important is switched off, at random or by an adversary; whether importances are decided; and
whether pieces are dead, double, or shared by unrelated inputs. All of that is necessary and not
sufficient: no warning does not mean that the true mechanisms were found.

Errors are told relative to knowing nothing: to the output with every subcomponent off, or to the
best constant output, whichever is nearer to the target's. 0 = no error, 1 = nothing preserved.

Thresholds. Measured with this report on the book's toy models: decompositions that recover every
mechanism of TMS 5-2, 40-10, 40-10 with a hidden identity and the residual MLPs of one and two
layers, and some that miss a few mechanisms of many, have all pieces on at an error of 0 to 0.03,
only the important ones at 0.03 to 0.09, random masks at 0.01 to 0.07; the worst mask of each input
spreads from 0.05 to 0.6. One trained an eighth as long as it takes has 0.27, 0.66, 0.22 and 1.4.
The `BOUNDS` stand between the two.
"""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import losses, masks
from .data import Batches, Sample, describe
from .decomposition import Decomposition
from .pieces import ON, SURE, Matrix, look

FAITHFULNESS = 0.02
"""Largest ‖W − UV‖/‖W‖ of a matrix without a warning."""
BOUNDS = {"unmasked": 0.05, "important": 0.2, "random": 0.1, "worst": 1.0}
"""Largest relative errors without a warning."""
SAID = {
    "unmasked": "Even with every piece on the output is off: the pieces are not the weights yet. "
    "Train longer, or raise faithfulness_coeff.",
    "important": "With only the important pieces the output is off: something needed is called "
    "unimportant. Train longer, or lower importance_coeff.",
    "random": "Random allowed masks move the output, though training is against just these. Train "
    "longer, or lower importance_coeff.",
    "worst": "Some allowed masks make the output worse than knowing nothing: what is called "
    "unimportant matters when it is switched the wrong way. Train longer, or prune what is dead "
    "(prune_at).",
}
MIN_INPUTS = 100


@dataclass(frozen=True)
class Finding:
    """kind: one word, listed at `Diagnosis`. module: where, or None for the whole. text: a line."""

    kind: str
    module: str | None
    text: str


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` saw. str() is a page to read, `to_dict` what JSON can hold.

    errors: relative errors (see the module) of "unmasked" (all pieces on), "important" (m = g),
    "rounded" (m = 1 where g > 0.5, else 0), "random" (mean over draws), "random_99" (99 % of draws
    and inputs lie below), "worst" (for each input its own mask) and "worst_shared" (one source for
    all inputs), the last two on `attacked` inputs on which the decomposed weights matter.
    reference: the divergence that counts as 1.

    Kinds of warnings: unfinished, unfaithful, unmasked, important, random, worst, silent, crowded,
    full, unsure, duplicate, shared.
    """

    inputs: int
    attacked: int
    output_loss: str
    reference: float
    errors: dict[str, float]
    matrices: dict[str, Matrix]
    warnings: list[Finding]

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        e = self.errors
        width = max(6, *(len(n) for n in self.matrices))
        lines = [
            f"Errors on {self.inputs} inputs, as shares of knowing nothing "
            f"({self.output_loss} {self.reference:.2e})",
            f"  every piece on            {e['unmasked']:8.4f}",
            f"  only the important        {e['important']:8.4f}   rounded {e['rounded']:.4f}",
            f"  random masks              {e['random']:8.4f}   99 % below {e['random_99']:.4f}",
            f"  worst mask of each input  {e['worst']:8.4f}   one for all "
            f"{e['worst_shared']:.4f}   ({self.attacked} inputs)",
            "",
            f"{'matrix':{width}}     C  live  dead  at once  rank  |W-UV|/|W|",
        ]
        for n, m in self.matrices.items():
            lines.append(
                f"{n:{width}} {m.C:5} {len(m.live):5} {m.dead:5} {m.at_once:8.2f} {m.rank:5} "
                f"{m.faithfulness:11.4f}"
            )
        lines += ["", f"{len(self.warnings) or 'No'} warning{'s' * (len(self.warnings) != 1)}."]
        return "\n".join(lines + [f"- {w.text}" for w in self.warnings])


@torch.no_grad()
def diagnose(
    d: Decomposition,
    inputs: Tensor | Sample | Iterable[Any],
    *,
    rows: int = 1024,
    draws: int = 10,
    attacked: int = 32,
    seed: int = 0,
) -> Diagnosis:
    """Look at a decomposition without ground truth.

    inputs: like those it was trained on: a tensor (B, ...), or what `decompose` takes, of which
    about `rows` are drawn (row weights count). draws: random masks of each input. attacked: inputs
    on which the worst masks are searched for, the slow part. The same seed gives the same report.

    Raises ValueError for fewer than 100 inputs (positions of a sequence count), inputs on which
    the decomposed weights make no difference, or results that are not finite.
    """
    if draws < 1 or attacked < 1:
        raise ValueError(f"draws and attacked must be ≥ 1, got {draws} and {attacked}")
    x, weight = _draw(inputs, rows, seed, d.device)
    g, h, target_out = d.causal_importance(x), d.inner(x), d.target(x)
    if (seen := min(v.numel() // v.shape[-1] for v in g.values())) < MIN_INPUTS:
        raise ValueError(f"{seen} inputs say too little; at least {MIN_INPUTS} are needed")

    def error(m: dict[str, Tensor] | None) -> Tensor:
        return d.divergence(d(x, m), target_out)

    generator = torch.Generator().manual_seed(seed)
    random = torch.stack([error(masks.random(g, generator)) for _ in range(draws)])
    off = error({n: torch.zeros_like(v) for n, v in g.items()})
    nothing = torch.stack([off, constant_error(d, target_out, weight)])
    reference = float(losses.batch_mean(nothing, weight).min())
    if not math.isfinite(reference):
        raise ValueError(f"outputs are not finite: every piece off, or constant, {reference}")
    if reference == 0:
        raise ValueError("on these inputs the output does not depend on the decomposed weights")
    absolute = {
        "unmasked": error(None),
        "important": error(g),
        "rounded": error({n: (v > ON).to(v) for n, v in g.items()}),
        "random": random.mean(0),
    }
    errors = {k: float(losses.batch_mean(v, weight)) / reference for k, v in absolute.items()}
    errors["random_99"] = quantile(random, weight, 0.99) / reference
    needy = (off > 1e-3 * reference).nonzero()[:attacked, 0]
    few, few_weight = x[needy], None if weight is None else weight[needy]
    scale = float(losses.batch_mean(nothing[:, needy], few_weight).min())
    for shared in (False, True):
        m = masks.worst_case(d, few, starts=2, aims=4, seed=seed, shared=shared)
        found = d.divergence(d(few, m), target_out[needy])
        name = "worst_shared" if shared else "worst"
        errors[name] = float(losses.batch_mean(found, few_weight)) / scale
    if not all(map(math.isfinite, errors.values())):
        raise ValueError(f"outputs are not finite: relative errors {errors}")

    _, acts = d.wrapped.record(x)
    matrices = {n: look(d, n, acts[n], h[n], g[n], weight) for n in d.names}
    return Diagnosis(
        inputs=len(x),
        attacked=len(few),
        output_loss=d.config.output_loss,
        reference=reference,
        errors=errors,
        matrices=matrices,
        warnings=_warnings(d, errors, matrices),
    )


def _draw(
    inputs: Tensor | Sample | Iterable[Any], rows: int, seed: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Inputs (B, ...) and their weights in a mean, (B,), or None for equal ones."""
    if isinstance(inputs, Tensor):
        return inputs.to(device), None
    if callable(inputs):
        batches = Batches(inputs, rows, seed, device)
        batches.probe()
        return batches.next()
    parts: list[Tensor] = []
    for batch in inputs:
        first = batch[0] if isinstance(batch, tuple | list) and len(batch) else batch
        if not isinstance(first, Tensor) or first.dim() < 1:
            raise ValueError(f"inputs must be tensors, batch first; got {describe(first)}")
        parts.append(first.to(device))
        if sum(map(len, parts)) >= rows:
            break
    if not parts:
        raise ValueError("the iterable of inputs is empty")
    return torch.cat(parts), None


def constant_error(d: Decomposition, out: Tensor, weight: Tensor | None) -> Tensor:
    """Divergence of the best constant output, row by row, (B,): the mean, or mean probabilities."""
    kl = d.config.output_loss == "kl"
    pooled = (out.softmax(-1) if kl else out).reshape(out.numel() // out.shape[-1], -1)
    if out.dim() == 1:  # one number for each row
        pooled = out[:, None]
    mean = losses.batch_mean(pooled.mT, weight)
    if kl:
        mean = mean.clamp(min=1e-30).log()
    return d.divergence(mean.expand_as(out) if out.dim() > 1 else mean.expand(len(out)), out)


def quantile(errors: Tensor, weight: Tensor | None, q: float) -> float:
    """The least value that a share q of all draws and rows, (draws, B), does not exceed."""
    each = torch.ones_like(errors) if weight is None else weight.to(errors).expand_as(errors)
    values, order = errors.flatten().sort()
    share = each.flatten()[order].double().cumsum(0)
    return float(values[min(int((share < q * share[-1]).sum()), len(values) - 1)])


def _warnings(
    d: Decomposition, errors: dict[str, float], matrices: dict[str, Matrix]
) -> list[Finding]:
    """Everything that speaks against the decomposition, in plain words."""
    found = []

    def warn(kind: str, text: str, module: str | None = None) -> None:
        found.append(Finding(kind, module, text if module is None else f"{module}: {text}"))

    if not d.finished:
        warn("unfinished", "The run was interrupted.")
    for kind, text in SAID.items():
        if errors[kind] > BOUNDS[kind]:
            warn(kind, f"{text} (Relative error {errors[kind]:.3f} > {BOUNDS[kind]}.)")
    for n, m in matrices.items():
        if m.faithfulness > FAITHFULNESS:
            warn(
                "unfaithful",
                f"the pieces do not add up to the matrix: ‖W − UV‖/‖W‖ = {m.faithfulness:.3f} > "
                f"{FAITHFULNESS}. What is missing is in no piece.",
                n,
            )
        if not m.live:
            warn("silent", "no piece is ever important. Lower importance_coeff.", n)
        if m.live and not m.dead:
            warn("full", f"all {m.C} pieces are live; there may be more mechanisms. Raise C.", n)
        if m.at_once > m.rank:
            warn(
                "crowded",
                f"{m.at_once:.1f} pieces are important on an input, more than the rank {m.rank}: "
                "no simpler than the matrix. Raise importance_coeff.",
                n,
            )
        if m.unsure:
            warn(
                "unsure",
                f"importance of {_named(m.unsure)} never reaches {SURE}: half needed everywhere, "
                "a part of something, or not trained long enough.",
                n,
            )
        if m.duplicates:
            pairs = _named([f"{i} and {j}" for i, j in m.duplicates])
            warn("duplicate", f"one piece could do the work of both {pairs}.", n)
        if m.shared:
            warn(
                "shared",
                f"{_named(m.shared)} serve two unrelated lines of inputs: mechanisms that have "
                "merged? split_every takes such pieces apart.",
                n,
            )
    return found


def _named(items: Iterable[Any], most: int = 5) -> str:
    """The first few of a list, and how many more there are."""
    names = [str(i) for i in items]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
