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
one has no gradient any more; a later split may still use its place. From then on a subcomponent
that is on only where another one is, a double, is merged into it.

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
from .lines import LEAST, lines, rays

if TYPE_CHECKING:
    from .run import Run

ON = 0.5
"""A subcomponent serves an input when its importance exceeds this."""
RARE = 0.2
"""Those that serve more than this share of the inputs are dense mechanisms and stay whole."""
MISSED = 0.7
"""Least part of ‖W a‖ that served inputs must lack for a birth."""
USUAL = 0.8
"""Quantile of the lengths of a module's inputs up to which small ones are scaled: a feature's small
values switch nothing on, which does not make it unserved."""
DOUBLE = 0.9
"""Least part of the inputs of a double on which the other one is on, too."""
ROWS = 4096


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


def importances(run: "Run", names: Iterable[str]) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """Each module with its inputs on a new sample, h (R, C, N), and where its pieces are on."""
    _, acts = run.target.record(sample(run))
    h = run.target.inner(acts, run.UV()[1])
    for n in names:
        gates = Gates(*(w[:, run.columns[n]] for w in run.gates))
        g = importance.hard_sigmoid(importance.gate_logits_batched(h[n], gates))
        yield n, acts[n], h[n], g > ON


def users(run: "Run", name: str) -> list[str]:
    """A module and those tied to it."""
    return [n for n in run.target.names if run.target.tied.get(n, n) == name]


def remove(run: "Run", name: str, pieces: Tensor) -> None:
    """U = V = 0 for some pieces, (R, C) booleans, and Adam forgets them."""
    for key, columns in ((f"U/{name}", pieces[:, None]), (f"V/{name}", pieces[:, :, None])):
        param = run.params[key]
        for moment in run.optimizer.state[param].values():
            if moment.shape == param.shape:
                moment.masked_fill_(columns, 0.0)
        param.masked_fill_(columns, 0.0)


@torch.no_grad()
def split_shared(run: "Run", names: Iterable[str]) -> int:
    """Split every shared subcomponent of some modules once, in every restart. Returns how many."""
    count = 0
    for n, a, _, on in importances(run, names):
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
    count, on = 0, {n: rows for n, _, _, rows in importances(run, run.target.names)}
    for n in names:
        dead = torch.stack([on[m].sum(2) for m in users(run, n)]).amax(0) < LEAST  # (R, C)
        remove(run, n, dead)
        count += int(dead.sum())
    return count


@torch.no_grad()
def merge_doubles(run: "Run", names: Iterable[str]) -> int:
    """Merge what is on only where another one is into that, in every restart. Returns how many.

    With k the least-squares factor in h_c ≈ k h_d where the double c is on, U_d ← U_d + k U_c and c
    is removed. It must be a double in tied modules, too.
    """
    count = 0
    found = {n: (h, on) for n, _, h, on in importances(run, run.target.names)}
    for n in names:
        h, on = found[n]
        gone = torch.zeros(on.shape[:2], dtype=torch.bool, device=on.device)
        for r, U in enumerate(run.params[f"U/{n}"]):
            inside = ~torch.eye(len(gone[r]), dtype=torch.bool, device=on.device)
            for rows in (found[m][1][r].to(U) for m in users(run, n)):
                inside &= rows @ rows.T >= DOUBLE * rows.sum(1)[:, None]
            served = on[r].sum(1)
            rare = (served >= LEAST) & (served < RARE * on.shape[2])
            inside &= rare & rare[:, None]
            for c in served.argsort().tolist():
                if not bool((inside[c] & ~gone[r]).any()):
                    continue
                d = int(torch.where(inside[c] & ~gone[r], served, -1).argmax())
                h_c, h_d = h[r, c, on[r, c]], h[r, d, on[r, c]]
                U[:, d] += (h_c @ h_d) / (h_d @ h_d) * U[:, c]
                gone[r, c] = True
        remove(run, n, gone)
        count += int(gone.sum())
    return count


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
    "merges": (Config.merges_at, merge_doubles),
    "births": (Config.births_at, give_birth),
}


def make(run: "Run") -> None:
    """Make the moves that are due before a step, and count them in `run.moves`."""
    for kind, (due, move) in MOVES.items():
        if names := [n for n in run.free if due(run.config, run.step, n)]:
            run.moves[kind] += move(run, names)
