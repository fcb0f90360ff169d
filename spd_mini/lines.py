"""Lines along which inputs recur: where a feature shows as a direction. Used by `moves`."""

from collections.abc import Iterator

import torch
from torch import Tensor

CLOSE = 0.9
"""Least cosine between inputs that lie on one line."""
APART = 0.6
"""Largest cosine between two lines that count as two."""
OPPOSITE = 0.3
"""The same where h has opposite signs: one feature's two signs look up to 0.45 apart."""
SHARE = 0.002
"""Least part of the inner activation's square that the weaker line must carry."""
ALL = 0.8
"""Least part that the lines found must carry together."""
MOST = 4
"""Lines searched for: a piece that serves more inputs than these is not a few features' piece."""
LEAST = 4
"""Fewest served inputs that make a line, out of `ROWS` or a little more (single ones mislead)."""


def lines(a: Tensor, v: Tensor) -> tuple[Tensor, Tensor] | None:
    """Two directions through the inputs a (N, k) that a read direction v (k,) serves.

    Rows of one feature alone lie on one ray, rows of several in many places: the first line is the
    row that those close to it carry the most of Σ h² with, h = v · a, the second the same among the
    rows apart from the first. Rows of the sign of h that has the larger Σ h² are searched first: a
    feature behind a ReLU may look different when it is negative, without being a second feature.
    If they hold no second line, one among the other rows counts that is farther still (`OPPOSITE`).
    Where there are more lines, the first two are returned. Returns unit directions (k,), or None
    unless each has `LEAST` rows, carries at least `SHARE` of Σ h², and all lines (at most `MOST`)
    carry `ALL` of it together.
    """
    h = a @ v
    side = torch.sign((h * h.abs()).sum())
    same_sign = h * side > 0
    return _lines(a[same_sign], v, side) or _lines(a, v, side)


def _lines(a: Tensor, v: Tensor, side: Tensor) -> tuple[Tensor, Tensor] | None:
    h = a @ v
    driven = a * h[:, None]
    unit = driven / driven.norm(dim=1, keepdim=True).clamp(min=1e-12)
    cosines, found = unit @ unit.T, list[Tensor]()
    rest, apart = h * side > 0, torch.ones_like(h, dtype=torch.bool)
    while len(found) < MOST:
        close = (cosines > CLOSE) & rest
        many = rest & (close.sum(1) >= LEAST)
        if not bool(many.any()):
            break
        centre = torch.where(many, close.to(h) @ h.square(), -1).argmax()
        line = driven[close[centre]].sum(0)
        found.append(line / line.norm())
        apart &= cosines[centre] < torch.where(h * side > 0, APART, OPPOSITE)
        rest = apart
    if len(found) < 2:
        return None
    directions = torch.stack(found)
    # what each carries beyond the others
    parts = (a @ torch.linalg.pinv(directions)) * (directions @ v)
    total = h.square().sum().clamp(min=1e-12)
    carried = parts[:, :2].square().sum(0) / total
    missed = (h - parts.sum(1)).square().sum() / total
    clear = float(carried.min()) >= SHARE and float(missed) <= 1 - ALL
    return (found[0], found[1]) if clear else None


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
