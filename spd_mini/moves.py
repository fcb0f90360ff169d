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

A birth does for inputs that no subcomponent serves what a split does for those that share one. What
W reads of such an input is spread over many that are silent on it; a matrix that hardly uses a
feature ends like that, since no single one of them is worth its price. The parts are handed to one:

    u = Σ_c U_c (V_c · q) over the silent,   V_c ← V_c − (V_c · q) qᵀ,   U_d V_d = u qᵀ,

with q the direction of the input. U V stays, and the losses decide whether the new one lives.

Which inputs a subcomponent serves is read off its own importances on a sample: no label or ground
truth enters.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import importance, losses
from .config import Config
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
OPPOSITE = 0.3
"""The same where h has opposite signs: one feature's two signs look up to 0.45 apart."""
SHARE = 0.002
"""Least part of the inner activation's square that the weaker line must carry."""
BOTH = 0.8
"""Least part that the two lines must carry together."""
LEAST = 4
"""Fewest served inputs that make a line, out of `ROWS` or a little more (single ones mislead)."""
MISSED = 0.7
"""Least part of ‖W a‖ that served inputs must lack for a birth."""
USUAL = 0.8
"""Quantile of the lengths of a module's inputs up to which small ones are scaled: a feature's small
values switch nothing on, which does not make it unserved."""
ROWS = 4096


def lines(a: Tensor, v: Tensor) -> tuple[Tensor, Tensor] | None:
    """Two directions through the inputs a (N, k) that a read direction v (k,) serves.

    Rows of one feature alone lie on one ray, rows of several in many places: the first line is the
    row that those close to it carry the most of Σ h² with, h = v · a, the second the same among the
    rows apart from the first. Rows of the sign of h that has the larger Σ h² are searched first: a
    feature behind a ReLU may look different when it is negative, without being a second feature.
    If they hold no second line, one among the other rows counts that is farther still (`OPPOSITE`).
    Returns unit directions (k,), or None unless each has `LEAST` rows, carries at least `SHARE` of
    Σ h², and both together `BOTH`.
    """
    h = a @ v
    side = torch.sign((h * h.abs()).sum())
    same_sign = h * side > 0
    return _lines(a[same_sign], v, side) or _lines(a, v, side)


def _lines(a: Tensor, v: Tensor, side: Tensor) -> tuple[Tensor, Tensor] | None:
    h = a @ v
    driven = a * h[:, None]
    unit = driven / driven.norm(dim=1, keepdim=True).clamp(min=1e-12)
    cosines, found = unit @ unit.T, []
    rest = h * side > 0
    for _ in range(2):
        close = (cosines > CLOSE) & rest
        many = rest & (close.sum(1) >= LEAST)
        if not bool(many.any()):
            return None
        centre = torch.where(many, close.to(h) @ h.square(), -1).argmax()
        line = driven[close[centre]].sum(0)
        found.append(line / line.norm())
        rest = cosines[centre] < torch.where(h * side > 0, APART, OPPOSITE)
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


def sample(run: "Run") -> Tensor:
    """New inputs, `ROWS` or a little more."""
    draws = -(-ROWS // run.config.batch_size)
    return torch.cat([run.batches.next()[0] for _ in range(draws)])


def importances(run: "Run", names: Iterable[str]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each module with its inputs on a new sample, and where its pieces are on, (R, C, N)."""
    _, acts = run.target.record(sample(run))
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


def rays(a: Tensor, weight: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Lines through the origin on which inputs a (N, k) of positive weight (N,) recur, heavy first.

    Each has at least `LEAST` rows and lies apart from those before. Yields a unit direction (k,),
    on its heavier side, and the indices of its rows.
    """
    rows = weight.nonzero()[:, 0]
    a, weight = a[rows], weight[rows]
    unit = a / a.norm(dim=1, keepdim=True).clamp(min=1e-12)
    cosines, rest = unit @ unit.T, torch.ones_like(rows, dtype=torch.bool)
    while True:
        close = (cosines.abs() > CLOSE) & rest
        many = rest & (close.sum(1) >= LEAST)
        if not bool(many.any()):
            return
        centre = torch.where(many, close.to(weight) @ weight, -1).argmax()
        on_line = close[centre]
        sides = cosines[centre, on_line].sign()
        line = sides @ a[on_line] * (sides @ weight[on_line]).sign()
        yield line / line.norm(), rows[on_line]
        rest &= cosines[centre].abs() < APART


@torch.no_grad()
def give_birth(run: "Run", names: Iterable[str]) -> int:
    """Give dead subcomponents of some modules the inputs that nothing serves. Returns how many."""
    x, count = sample(run), 0
    target_out, acts = run.target.record(x)
    U, V = run.UV()
    inner = run.target.inner(acts, V)
    for n in names:
        a, h, W = acts[n], inner[n], run.target.weight[n]
        if a.dim() < 2:
            continue  # tokens, see `split_shared`
        gates = Gates(*(w[:, run.columns[n]] for w in run.gates))
        length = a.norm(dim=1)
        usual = h * (length.quantile(USUAL) / length.clamp(min=1e-9)).clamp(min=1)
        g, up, down = (
            importance.hard_sigmoid(importance.gate_logits_batched(v, gates))
            for v in (h, usual, -usual)
        )
        out = run.target.masked(x, U, V, {n: g})
        cost = losses.DIVERGENCES[run.config.output_loss](out, target_out.expand_as(out))
        wanted = a @ W.T
        for r, on in enumerate(g > ON):
            served = on.float().mean(1)
            rare = (served * on.shape[1] >= LEAST) & (served < RARE)
            reached = (torch.maximum(up, down)[r, rare] > ON).any(0)
            missed = wanted - (g[r] * h[r]).T @ U[n][r].T
            lacking = ~reached & (missed.norm(dim=1) > MISSED * wanted.norm(dim=1))
            weight = cost[r].repeat_interleave(len(a) // len(x)) * lacking
            dead = (served == 0).nonzero()[:, 0].tolist()
            like = rare.nonzero()[:, 0]
            like = like[served[like].argsort()][len(like) // 2 :][:1].tolist()  # a usual one
            for q, rows in rays(a, weight) if like else ():
                if not dead:
                    break
                usual_h = h[r, like[0], on[like[0]]]
                size = usual_h.abs().mean() * (usual_h @ usual_h.abs()).sign()
                silent = ~on[:, rows].any(1)
                read = (V[n][r] @ q) * silent
                hand_over(
                    run, n, r, q, read, size / (a[rows] @ q).abs().mean(), like[0], dead.pop()
                )
                count += 1
    return count


def hand_over(
    run: "Run", name: str, restart: int, q: Tensor, read: Tensor, size: Tensor, like: int, to: int
) -> None:
    """Make `to` read q (k,), times `size`, in place of all: read (C,) is what each gives up.

    Its importance function is a copy of that of `like`.
    """
    U, V = run.params[f"U/{name}"][restart], run.params[f"V/{name}"][restart]
    u = U @ read
    V -= read[:, None] * q
    copy(run, name, restart, like, to)
    U[:, to], V[to] = u / size, q * size


MOVES = {
    "splits": (Config.splits_at, split_shared),
    "pruned": (Config.prunes_at, prune_dead),
    "births": (Config.births_at, give_birth),
}


def make(run: "Run") -> None:
    """Make the moves that are due before a step, and count them in `run.moves`."""
    for kind, (due, move) in MOVES.items():
        if names := [n for n in run.free if due(run.config, run.step, n)]:
            run.moves[kind] += move(run, names)
