"""Splitting shared subcomponents: the one discrete move, off unless `Config.split_every` is set.

Gradient descent sometimes lets one subcomponent serve two unrelated inputs (two features whose
columns of W are nearly parallel): nothing in the losses pushes the two apart strongly, and a
subcomponent that has died has no gradient to take one of them over. A split gives the read
direction of one of the two inputs to a dead subcomponent. It changes neither U V nor the output:

    V_c = V_c' + V_d,   U_d = U_c,   the importance function is copied,

so everything afterwards is again the work of the losses. Which inputs a subcomponent serves is read
off its own importances on a sample; no label or ground truth enters.
"""

from collections.abc import Iterable
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
APART = 0.4
"""Largest cosine between two lines that count as two."""
SHARE = 0.02
"""Least part of the inner activation's square that the weaker line must carry."""
BOTH = 0.8
"""Least part that the two lines must carry together."""
LEAST = 6
"""Fewest served inputs that make a line, out of `ROWS` or a little more (single ones mislead)."""
ROWS = 4096


def lines(a: Tensor, v: Tensor, rounds: int = 5) -> tuple[Tensor, Tensor] | None:
    """Two directions through the inputs a (N, k) that a read direction v (k,) serves.

    Lloyd's rounds over lines through the origin, rows weighing as much as they drive h = v · a.
    Only rows of one sign of h count, that with the larger Σ h²: a feature behind a ReLU may look
    different when it is negative, without being a second feature. Returns unit directions (k,), or
    None unless each has `LEAST` rows, carries at least `SHARE` of Σ h², and both together `BOTH`.
    """
    h = a @ v
    same_sign = h > 0 if float((h * h.abs()).sum()) > 0 else h < 0
    a, h = a[same_sign], h[same_sign]
    if len(a) < 2 * LEAST:
        return None
    driven = a * h[:, None]
    unit = driven / driven.norm(dim=1, keepdim=True).clamp(min=1e-12)
    first = unit[h.abs().argmax()]
    second = unit[(h.abs() * (1 - (unit @ first).square())).argmax()]
    for _ in range(rounds):
        nearer = (unit @ first).abs() >= (unit @ second).abs()
        sums = [(driven * side[:, None]).sum(0) for side in (nearer, ~nearer)]
        first, second = (s / s.norm().clamp(min=1e-12) for s in sums)
    pair = torch.stack([first, second])
    rows = int(nearer.sum())
    if abs(float(first @ second)) > APART or not LEAST <= rows <= len(a) - LEAST:
        return None
    parts = (a @ torch.linalg.pinv(pair)) * (pair @ v)  # what each carries beyond the other
    total = h.square().sum().clamp(min=1e-12)
    carried = parts.square().sum(0) / total
    missed = (h - parts.sum(1)).square().sum() / total
    clear = float(carried.min()) >= SHARE and float(missed) <= 1 - BOTH
    return (first, second) if clear else None


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


@torch.no_grad()
def split_shared(run: "Run", names: Iterable[str]) -> int:
    """Split every shared subcomponent of some modules once, in every restart. Returns how many."""
    draws = -(-ROWS // run.config.batch_size)
    x = torch.cat([run.batches.next()[0] for _ in range(draws)])
    _, acts = run.target.record(x)
    h = run.target.inner(acts, run.UV()[1])
    count = 0
    for n in names:
        V = run.params[f"V/{n}"]
        if acts[n].dim() < 2:
            continue  # an embedding's inputs are tokens: there is nothing to cluster
        gates = Gates(*(w[:, run.columns[n]] for w in run.gates))
        g = importance.hard_sigmoid(importance.gate_logits_batched(h[n], gates))
        for r in range(len(g)):
            on = g[r] > ON  # (C, N)
            served = on.float().mean(1)
            dead = (served == 0).nonzero()[:, 0].tolist()
            rare = (served * on.shape[1] >= 2 * LEAST) & (served < RARE)
            for c in sorted(rare.nonzero()[:, 0].tolist(), key=lambda c: -float(served[c])):
                if not dead:
                    break
                found = lines(acts[n][on[c]], V[r, c])
                if found is None:
                    continue
                pair, d = torch.stack(found), dead.pop()
                copy(run, n, r, c, d)
                V[r, d] = torch.linalg.pinv(pair)[:, 1] * (pair[1] @ V[r, c])
                V[r, c] -= V[r, d]
                count += 1
    return count
