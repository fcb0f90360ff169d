"""Discrete moves, off unless `Config.split_every` or `Config.prune_at` is set.

Gradient descent sometimes lets one subcomponent serve two unrelated inputs (two features whose
columns of W are nearly parallel): nothing in the losses pushes the two apart strongly, and a
subcomponent that has died has no gradient to take one of them over. A split gives the read
direction of one of the two inputs to a dead subcomponent. It changes neither U V nor the output:

    V_c = V_c' + V_d,   U_d = U_c,   the importance function is copied,

so everything afterwards is again the work of the losses.

Pruning removes what no input switches on. Dead subcomponents still hold a few per cent of W, each
a part of columns that live ones serve, and late in a run some grow from there into second ones for
the same input. Without them the faithfulness loss hands their share of W to the live ones. A pruned
one has no gradient any more; a later split may still use its place.

Which inputs a subcomponent serves is read off its own importances on a sample: no label or ground
truth enters.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import importance
from .importance import Gates

if TYPE_CHECKING:
    from .run import Run

ON = 0.5
"""A subcomponent serves an input when its importance exceeds this."""
RARE = 0.2
"""Those that serve more than this share of the inputs are dense mechanisms and stay whole."""
CLOSE = 0.9
"""Least cosine between inputs that lie on one line."""
APART = 0.6
"""Largest cosine between two lines that count as two."""
SHARE = 0.002
"""Least part of the inner activation's square that the weaker line must carry."""
BOTH = 0.8
"""Least part that the two lines must carry together."""
LEAST = 4
"""Fewest served inputs that make a line, out of `ROWS` or a little more (single ones mislead)."""
ROWS = 4096


def lines(a: Tensor, v: Tensor) -> tuple[Tensor, Tensor] | None:
    """Two directions through the inputs a (N, k) that a read direction v (k,) serves.

    Rows of one feature alone lie on one ray, rows of several in many places: the first line is the
    row that those close to it carry the most of Σ h² with, h = v · a, the second the same among the
    rows apart from the first. Only rows of one sign of h count, that with the larger Σ h²: a
    feature behind a ReLU may look different when it is negative, without being a second feature.
    Returns unit directions (k,), or None unless each has `LEAST` rows, carries at least `SHARE` of
    Σ h², and both together `BOTH`.
    """
    h = a @ v
    same_sign = h > 0 if float((h * h.abs()).sum()) > 0 else h < 0
    a, h = a[same_sign], h[same_sign]
    driven = a * h[:, None]
    unit = driven / driven.norm(dim=1, keepdim=True).clamp(min=1e-12)
    cosines, found = unit @ unit.T, []
    rest = torch.ones_like(h, dtype=torch.bool)
    for _ in range(2):
        close = (cosines > CLOSE) & rest
        many = rest & (close.sum(1) >= LEAST)
        if not bool(many.any()):
            return None
        centre = torch.where(many, close.to(h) @ h.square(), -1).argmax()
        line = driven[close[centre]].sum(0)
        found.append(line / line.norm())
        rest &= cosines[centre] < APART
    pair = torch.stack(found)
    parts = (a @ torch.linalg.pinv(pair)) * (pair @ v)  # what each carries beyond the other
    total = h.square().sum().clamp(min=1e-12)
    carried = parts.square().sum(0) / total
    missed = (h - parts.sum(1)).square().sum() / total
    clear = float(carried.min()) >= SHARE and float(missed) <= 1 - BOTH
    return (found[0], found[1]) if clear else None


def copy(run: "Run", name: str, restart: int, c: int, to: int) -> None:
    """Make `to` a copy of c in one restart: U, V, gates (tied modules' too) and Adam's moments."""
    tied = [n for n, source in run.target.tied.items() if source == name]
    starts = [run.columns[n].start for n in (name, *tied)]
    for key, param in run.params.items():
        moments = [v for v in run.optimizer.state[param].values() if v.shape == param.shape]
        for tensor in (t[restart] for t in (param, *moments)):
            if key == f"U/{name}":
                tensor[:, to] = tensor[:, c]
            elif key == f"V/{name}":
                tensor[to] = tensor[c]
            elif key.startswith("gate/"):
                for start in starts:
                    tensor[start + to] = tensor[start + c]


def importances(run: "Run", names: Iterable[str]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each module with its inputs on a new sample, and where its pieces are on, (R, C, N)."""
    draws = -(-ROWS // run.config.batch_size)
    x = torch.cat([run.batches.next()[0] for _ in range(draws)])
    _, acts = run.target.record(x)
    h = run.target.inner(acts, run.UV()[1])
    for n in names:
        gates = Gates(*(w[:, run.columns[n]] for w in run.gates))
        yield n, acts[n], importance.hard_sigmoid(importance.gate_logits_batched(h[n], gates)) > ON


@torch.no_grad()
def split_shared(run: "Run", names: Iterable[str]) -> int:
    """Split every shared subcomponent of some modules once, in every restart. Returns how many."""
    count = 0
    for n, a, on in importances(run, names):
        if a.dim() < 2:
            continue  # an embedding's inputs are tokens: there is nothing to cluster
        V = run.params[f"V/{n}"]
        for r in range(len(on)):
            served = on[r].float().mean(1)
            dead = (served == 0).nonzero()[:, 0].tolist()
            rare = (served * on.shape[2] >= 2 * LEAST) & (served < RARE)
            for c in sorted(rare.nonzero()[:, 0].tolist(), key=lambda c: -float(served[c])):
                if not dead:
                    break
                found = lines(a[on[r, c]], V[r, c])
                if found is None:
                    continue
                pair, d = torch.stack(found), dead.pop()
                copy(run, n, r, c, d)
                V[r, d] = torch.linalg.pinv(pair)[:, 1] * (pair[1] @ V[r, c])
                V[r, c] -= V[r, d]
                count += 1
    return count


@torch.no_grad()
def prune_dead(run: "Run", names: Iterable[str]) -> int:
    """Remove what is important on fewer than `LEAST` inputs of a sample: U = V = 0. How many."""
    tied, count = run.target.tied, 0
    sources = {n: tied.get(n, n) for n in run.target.names}
    on = {n: rows for n, _, rows in importances(run, sources)}
    for n in names:
        users = [on[m] for m, source in sources.items() if source == n]
        dead = torch.stack([u.sum(2) for u in users]).amax(0) < LEAST  # (R, C)
        for key, columns in ((f"U/{n}", dead[:, None]), (f"V/{n}", dead[:, :, None])):
            param = run.params[key]
            for moment in run.optimizer.state[param].values():
                if moment.shape == param.shape:
                    moment.masked_fill_(columns, 0.0)
            param.masked_fill_(columns, 0.0)
        count += int(dead.sum())
    return count
