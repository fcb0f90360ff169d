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
that is on only where another one is, a double, is merged into it. In a matrix whose pieces are
dense, on at many inputs, they are a basis of what it reads, and any basis would do. There, pruning
writes it in as many of them as it reads directions: a weak one too many is dissolved into the
others, U_d ← U_d + a_d U_c where V_c = Σ a_d V_d, and a direction that several weak ones share goes
to one. U V stays, but for further directions in which little is held.

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
DENSE = 0.1
"""Those that serve at least this share of the inputs are what a dense mechanism is made of."""
WHOLE = 0.5
"""What the dead hold together is a piece from this part of a usual live one's size on."""
INDEPENDENT = 0.05
"""Smallest singular value, relative to the largest, of independent read directions."""
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
    """Remove what is important on fewer than `LEAST` inputs of a sample: U = V = 0. How many.

    Modules in which most of what lives is dense, and not tied, are settled: see `settle`.
    """
    count = 0
    found = {n: (a, h, on) for n, a, h, on in importances(run, run.target.names)}
    for n in names:
        a, h, on = found[n]
        together = users(run, n)
        served = torch.stack([found[m][2].sum(2) for m in together]).amax(0)  # (R, C)
        dead, dense = served < LEAST, served >= DENSE * on.shape[2]
        if len(together) == 1 and a.dim() == 2:
            for r in (2 * dense.sum(1) > (~dead).sum(1)).nonzero()[:, 0].tolist():
                dead[r] = settle(run, n, r, a, h[r], on[r])
        remove(run, n, dead)
        count += int(dead.sum())
    return count


def settle(run: "Run", name: str, restart: int, a: Tensor, h: Tensor, on: Tensor) -> Tensor:
    """Write a module as its dense subcomponents alone, as many as the directions it reads.

    The dense ones are a basis (any would do) of what the module reads on most inputs. What all the
    others hold goes to them as far as it reads the same directions, and to a new one for each
    further direction in which it is large. a (N, d_in), h and on (C, N). Returns what is left to be
    removed, (C,) booleans.
    """
    U, V = run.params[f"U/{name}"][restart], run.params[f"V/{name}"][restart]
    order = on.sum(1).argsort(descending=True)
    dense = order[: int((on.float().mean(1) >= DENSE).sum())]
    while torch.linalg.matrix_rank(V[dense], rtol=INDEPENDENT) < len(dense):
        dense = dense[:-1]  # it reads nothing that the others do not
    rest = torch.ones_like(order, dtype=torch.bool)
    rest[dense] = False
    other = U[:, rest] @ V[rest]
    basis = torch.linalg.qr(V[dense].T)[0]
    beyond = other - other @ basis @ basis.T
    U[:, dense] += (other - beyond) @ torch.linalg.pinv(V[dense])
    u, s, q = torch.linalg.svd(beyond, full_matrices=False)
    size = (U[:, dense].norm(dim=0) * V[dense].norm(dim=1)).median()
    like = int(dense[len(dense) // 2])
    places = rest.nonzero()[:, 0].tolist()
    for i, to in zip((s > WHOLE * size).nonzero()[:, 0].tolist(), places, strict=False):
        ah = a[on[like]], h[like, on[like]]
        place(run, name, restart, to, (s[i] * u[:, i], q[i]), like, ah)
        rest[to] = False
    return rest


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
                c = like[0]
                read = (V[n][r] @ q) * ~on[:, rows].any(1)  # of the silent
                u = U[n][r] @ read
                V[n][r] -= read[:, None] * q
                place(run, n, r, dead.pop(), (u, q), c, (a[rows], h[r, c, on[c]]))
                count += 1
    return count


def place(
    run: "Run",
    name: str,
    restart: int,
    to: int,
    uq: tuple[Tensor, Tensor],
    like: int,
    ah: tuple[Tensor, Tensor],
) -> None:
    """Make u qᵀ the subcomponent `to`, with the importance function of `like`.

    V is as long as makes its inner activations on a (N, d_in) the size and sign of h (N,), those of
    `like` where that is on.
    """
    (u, q), (a, h) = uq, ah
    own = a @ q
    size = h.abs().mean() / own.abs().mean() * (h @ h.abs()).sign() * (own @ own.abs()).sign()
    copy(run, name, restart, like, to)
    run.params[f"U/{name}"][restart, :, to] = u / size
    run.params[f"V/{name}"][restart, to] = q * size


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
