"""Sources r and masks m = g + (1 − g) r: the importance g is the *floor* of the mask.

Random sources test a decomposition on average, as in training. The rest of this module looks for
the allowed masks that do most harm: by gradient ascent on the sources (`ladder`), by gradient
ascent and a search over corners (`worst_case`), and by trying every corner (`corners`).
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from .search import Search, Sources, where

if TYPE_CHECKING:
    from .decomposition import Decomposition

Measure = Literal["divergence", "output"]
"""What an attack raises in each row: the run's divergence, or the largest change of any one output
(of any log-probability where the divergence is KL)."""

LIVE = 0.1
"""A piece counts as live on some inputs when its importance exceeds this on one of them."""


def from_source(g: Tensor, r: Tensor | float) -> Tensor:
    """m = g + (1 − g) r. r = 0 keeps only what is important, r = 1 keeps everything."""
    return g + (1 - g) * r


def uniform(shape: torch.Size | tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A random source r ~ U(0, 1), as in training."""
    return torch.rand(shape, generator=generator, device=generator.device)


def random(g: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Masks drawn as in training. g: {name: (..., C)} importances; returns the same shapes."""
    return {n: from_source(v, uniform(v.shape, generator).to(v.device)) for n, v in g.items()}


def fixed(g: Mapping[str, Tensor], r: float) -> dict[str, Tensor]:
    """Masks with the same source value everywhere: 0 = only the important, 1 = everything."""
    return {n: from_source(v, r) for n, v in g.items()}


def worst_case(
    d: "Decomposition",
    x: Tensor,
    *,
    steps: int = 20,
    step_size: float = 0.2,
    starts: int = 4,
    seed: int = 0,
    shared: bool = False,
    measure: Measure = "divergence",
    aims: int = 8,
) -> dict[str, Tensor]:
    """Allowed masks that do most harm: projected sign-gradient ascent, then a search over corners.

    x: (B, ...) inputs. Every row has sources of its own, or, with `shared`, all rows and positions
    share one source for each subcomponent and the mean over rows counts. Each of `starts` random
    starts takes `steps` steps of `step_size` in r, clipped to [0, 1]. Ascent gets stuck: which
    output a start ends up moving, and which way, is decided early. So each of the `aims` outputs
    that random masks move most is also driven up and driven down by itself, from corner to corner,
    one module at a time; from there, and from where gradient ascent ended, the same is done for
    `measure`. Last come gradient steps from the worst found, shorter and shorter: a squared error
    may peak a little inside the box. The worst masks seen are kept. aims = 0 leaves the first
    gradient ascent alone.

    Returns {name: (B, ..., C)} with g ≤ m ≤ 1. Nothing certifies that they are the worst; see
    `corners` for small models. Raises ValueError for a budget that cannot attack, or an unknown
    measure.
    """
    if aims < 0:
        raise ValueError(f"worst_case needs aims ≥ 0, got {aims}")
    search, masks_of = _attack(d, x, measure, shared)
    _from_random_starts(search, steps, step_size, starts, seed)
    if aims:
        search.climb({n: r.round() for n, r in search.best.items()})
        search.drive(aims, seed + 1)
        search.ascend(search.best, steps, step_size, shrink=0.85)
    return masks_of(search.best)


def ladder(
    d: "Decomposition",
    x: Tensor,
    rungs: Sequence[int] = (1, 4, 20, 100),
    *,
    step_size: float = 0.2,
    starts: int = 4,
    seed: int = 0,
    shared: bool = False,
    measure: Measure = "divergence",
) -> dict[int, dict[str, Tensor]]:
    """Adversaries of growing strength: {steps: the worst masks that so many gradient steps find}.

    Projected sign-gradient ascent as in `worst_case`, without the corner search, from the same
    random starts on each rung. A step is `step_size` long, or 1/steps where that is longer: what
    cannot cross [0, 1] is no attack. Each rung keeps what a lower one found if that is worse.
    Raises ValueError for rungs that do not rise, and for a budget that cannot attack.
    """
    rungs = list(rungs)
    if not rungs or any(a >= b for a, b in itertools.pairwise(rungs)):
        raise ValueError(f"ladder needs one or more rungs, each higher than the last; got {rungs}")
    (search, masks_of), found = _attack(d, x, measure, shared), {}
    for steps in rungs:
        _from_random_starts(search, steps, max(step_size, 1 / max(steps, 1)), starts, seed)
        found[steps] = masks_of(search.best)
    return found


def _from_random_starts(
    search: Search, steps: int, step_size: float, starts: int, seed: int
) -> None:
    """Projected sign-gradient ascent from each start."""
    if steps < 1 or starts < 1 or not step_size > 0:
        raise ValueError(
            f"an attack needs steps ≥ 1, starts ≥ 1 and step_size > 0; got steps={steps}, "
            f"starts={starts}, step_size={step_size}"
        )
    generator = torch.Generator().manual_seed(seed)
    for _ in range(starts):
        search.ascend(search.draw(generator), steps, step_size)


def _attack(
    d: "Decomposition", x: Tensor, measure: Measure, shared: bool
) -> tuple[Search, Callable[[Sources], dict[str, Tensor]]]:
    """A search over sources that starts at r = 1, and the masks that sources make.

    Sources: {name: (S, ..., C)}, S = B rows; with `shared` (1, ..., 1, C), judged by the mean row.
    """
    g, target_out = d.causal_importance(x), d.target(x.to(d.device))
    per_row = _per_row(d, measure)

    def masks_of(r: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {n: from_source(v, r[n]) for n, v in g.items()}

    def pooled(values: Tensor) -> Tensor:
        return values.mean(0, keepdim=True) if shared else values

    def error(r: Mapping[str, Tensor]) -> Tensor:
        return pooled(per_row(d(x, masks_of(r)), target_out))

    def outputs(r: Mapping[str, Tensor]) -> Tensor:
        return pooled(_outputs(d, d(x, masks_of(r))))

    ones = {
        n: v.new_ones((1,) * (v.dim() - 1) + v.shape[-1:] if shared else v.shape)
        for n, v in g.items()
    }
    return Search(error, outputs, ones), masks_of


@dataclass(frozen=True)
class Corners:
    """Every corner of some sources. free: the k pieces (module, index) that were switched; an index
    −1 stands for all other pieces of that module, switched as one. errors: (2^k, B), in row `code`
    those with free[j] at 1 where bit j of `code` is set, else at its importance.
    worst: masks {name: (B, ..., C)} of the largest error in each input.
    """

    free: list[tuple[str, int]]
    errors: Tensor
    worst: dict[str, Tensor]


@torch.no_grad()
def corners(
    d: "Decomposition",
    x: Tensor,
    free: Iterable[tuple[str, int]] | None = None,
    *,
    rest: float | Literal["folded"] = 1.0,
    measure: Measure = "divergence",
    most: int = 16,
    chunk: int = 8192,
) -> Corners:
    """The error of every corner r ∈ {0, 1}^k of the sources of k pieces, on every input x (B, ...).

    free: pieces (module, index); None = those live on x (importance above 0.1 on some row). On
    TMS 5-2 these are ten of 80. The sources of all other pieces are `rest`: 1 (on), 0 (at their
    importance), or "folded", one more source for each module that they share. All positions of a
    row share a source. `chunk` rows go through the model at a time.

    Raises ValueError for more than `most` sources (2^k passes over x), or unknown pieces.
    """
    g, target_out = d.causal_importance(x), d.target(x.to(d.device))
    per_row = _per_row(d, measure)
    if free is None:
        highest = {n: v.flatten(0, -2).amax(0) for n, v in g.items()}
        free = [(n, c) for n, v in highest.items() for c in (v > LIVE).nonzero()[:, 0].tolist()]
    free = list(free)
    if unknown := [(n, c) for n, c in free if n not in d.C or not 0 <= c < d.C[n]]:
        raise ValueError(f"no such subcomponents: {unknown}; there are {d.C}")
    held = {n: torch.ones(d.C[n], device=d.device) for n in d.names}
    for n, c in free:
        held[n][c] = 0.0
    columns = [(n, torch.eye(d.C[n], device=d.device)[c]) for n, c in free]
    if rest == "folded":
        free += [(n, -1) for n in d.names if held[n].any()]
        columns += [(n, held[n]) for n in d.names if held[n].any()]
    k, base = len(free), 0.0 if rest == "folded" else rest
    if k > most:
        raise ValueError(
            f"2^{k} corners are too many to try; at most {most} sources may be free (raise `most`, "
            "or name the pieces in `free`)"
        )

    B, errors = len(x), []
    worst = fixed(g, 1.0)
    at_worst = per_row(d.target(x.to(d.device)), target_out) - 1  # below every error
    for codes in torch.arange(2**k, device=d.device).split(max(1, chunk // B)):
        N = len(codes)
        masks: dict[str, Tensor] = {}
        for n, v in g.items():
            r = (base * held[n]).expand(N, -1)
            for j, (name, column) in enumerate(columns):
                if name == n:
                    r = r + (codes >> j & 1)[:, None] * column
            r = r.view(N, *[1] * (v.dim() - 1), -1)
            masks[n] = from_source(v, r.to(v)).flatten(0, 1)  # (N · B, ..., C), corner by corner
        out = d(_repeat(x, N), masks)
        error: Tensor = per_row(out, _repeat(target_out, N)).view(N, B)
        errors.append(error)
        top, which = error.max(0)
        rows = which * B + torch.arange(B, device=d.device)
        worst = where(top > at_worst, {n: m[rows] for n, m in masks.items()}, worst)
        at_worst = torch.maximum(at_worst, top)
    return Corners(free, torch.cat(errors), worst)


def _repeat(t: Tensor, times: int) -> Tensor:
    return t.repeat(times, *[1] * (t.dim() - 1))


def _outputs(d: "Decomposition", out: Tensor) -> Tensor:
    """(B, ...) → (B, K): outputs, or log-probabilities where the divergence is KL."""
    if d.config.output_loss == "kl":
        out = out.log_softmax(-1)
    return out.reshape(len(out), -1)


def _per_row(d: "Decomposition", measure: Measure) -> Callable[[Tensor, Tensor], Tensor]:
    """The function of outputs and target outputs (B, ...) that `measure` names: → (B,)."""
    if measure == "divergence":
        return d.divergence
    if measure == "output":
        return lambda out, target_out: (_outputs(d, out) - _outputs(d, target_out)).abs().amax(1)
    raise ValueError(f"measure must be 'divergence' or 'output', got {measure!r}")
