"""Checks for the exercises of chapter 8."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from . import Wrong, as_tensor, check


def _table(N: int, m: int, seed: int) -> Tensor:
    """(N, m) booleans: mostly silent rows, the others with some of the m pieces on."""
    generator = torch.Generator().manual_seed(seed)
    loud = torch.rand(N, 1, generator=generator) < 0.3
    return loud & (torch.rand(N, m, generator=generator) < 0.7)


def _choose(n: float, k: float) -> float:
    """log2 of the binomial coefficient."""
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


def _compare(got: Tensor, want: Tensor, likely: Mapping[str, Tensor], what: str) -> None:
    """Raise `Wrong`, with the likely mistake where one fits, unless got = want to 1e-3."""

    def same(a: Tensor, b: Tensor) -> bool:
        return torch.allclose(a, b, rtol=1e-4, atol=1e-3)

    if same(got, want):
        return
    for why, mistaken in likely.items():
        if same(got, mistaken):
            raise Wrong(why)
    first = [f"{v.reshape(-1)[0]:.3f}" for v in (want, got)]
    raise Wrong(f"{what}: expected {first[0]}, got {first[1]}.")


@check
def check_1(overlap: Callable[[Tensor], Tensor]) -> str:
    """8.1: |A ∩ B| / |A ∪ B| for each pair of columns."""
    on = _table(60, 4, seed=81)
    got = as_tensor(overlap(on), (4, 4), "overlap(on)")
    ones = on.float()
    both, count = ones.mT @ ones, ones.sum(0)
    either = count[:, None] + count - both
    likely = {
        "That is how often both are on; divide by how often either is.": both,
        "Inputs on which both are on are counted twice below the line.": (
            both / (count[:, None] + count)
        ),
        "Divided by how often one of the two is on: not the same from both sides.": (
            both / count[:, None]
        ),
        "Divided by the number of inputs: what is rarely on would never be together.": both / 60,
        "Inputs on which neither is on count for nothing here.": (
            (ones.mT @ ones + (1 - ones).mT @ (1 - ones)) / 60
        ),
    }
    _compare(got, both / either, likely, "overlap(on)")
    return "1 for pieces that are always on together, 0 for pieces that never meet"


@check
def check_2(bits: Callable[[Tensor], Any]) -> str:
    """8.2: log2(min(N, K) − max n_c + 1) + log2 C(N, n) + log2 C(m n, K)."""
    for N, m in ((200, 3), (90, 5), (50, 1)):
        on = _table(N, m, seed=82)
        n, each = int(on.any(1).sum()), on.sum(0)
        K, most = int(each.sum()), int(each.max())
        sizes = math.log2(min(N, K) - most + 1)
        which, there = _choose(N, n), _choose(m * n, K)
        want = torch.tensor(sizes + which + there)
        likely = {
            "That is in natural units; bits are logarithms to base 2.": want * math.log(2),
            "How large n is has to be told as well.": want - sizes,
            "Which of the pieces are on there has to be told as well.": want - there,
            "The group is on where any member is, not where all are.": torch.tensor(
                sizes + _choose(N, int(on.all(1).sum())) + there
            ),
            "The selection is among the m n bits of the inputs on which the group is on.": (
                torch.tensor(sizes + which + _choose(m * N, K))
            ),
        }
        if m == 1:
            likely = {}
        _compare(as_tensor(bits(on), (), "bits(on)"), want, likely, f"bits of {m} pieces")
    return "the silence of a group is told once for all of its pieces"


@check
def check_3(split: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> str:
    """8.3: first + second = v, first · q = 0, second · p = 0."""
    v, p, q = torch.randn(3, 7, generator=torch.Generator().manual_seed(83))
    parts = split(v, p, q)
    if len(parts) != 2:
        raise Wrong(f"Return two read directions, not {len(parts)}.")
    first, second = (as_tensor(part, (7,), "a read direction") for part in parts)
    if not torch.allclose(first + second, v, atol=1e-4):
        raise Wrong("The two do not sum to v: the split would change W.")
    blind = {
        (name, to): abs(float(part @ direction)) < 1e-3
        for name, part in (("first", first), ("second", second))
        for to, direction in (("p", p), ("q", q))
    }
    if blind["first", "p"] and blind["second", "q"]:
        raise Wrong("Swapped: the first keeps p, the second takes q over.")
    for name, to in (("first", "q"), ("second", "p")):
        if not blind[name, to]:
            raise Wrong(
                f"The {name} sees {to}. A projection on p or q alone is not enough: the two are "
                "not at right angles."
            )
    return "each reads one of the two, and nothing that the pieces do together has changed"


@check
def check_4(gain: Callable[[int, int, int], Any]) -> str:
    """8.4: log2 C(N, n) − log2(min(N, 2n) − n + 1) − log2 C(k, 2)."""
    for n, N, k in ((5, 400, 30), (60, 3000, 250)):
        once, price = _choose(N, n), _choose(k, 2)
        size = math.log2(min(N, 2 * n) - n + 1)
        want = torch.tensor(once - size - price)
        likely = {
            "The join has a price: log2 of k choose 2.": want + price,
            "How large n is must be told for the pair: up to 2n inputs are possible.": want + size,
            "That is what the pair saves and what it still costs: tell the inputs once.": (
                want + once
            ),
            "The sign: saved is what apart costs more than together.": -want,
            "That is in natural units; bits are logarithms to base 2.": want * math.log(2),
        }
        got = as_tensor(gain(n, N, k), (), "gain(n, N, k)")
        _compare(got, want, likely, f"gain({n}, {N}, {k})")
    return "a handful of common inputs is enough, once is not"
