"""Checks for the exercises of chapter 13."""

import itertools
import math
from typing import Any

import torch

from . import Wrong, check
from .ch05 import compare

NONE = -1.0
"""Stands for "no share is enough" where numbers are compared."""


@check
def check_1(lost: Any) -> str:
    """13.1: lost(g, P) = (1 − g)² · 2/((P + 1)(P + 2)), what random masks lose of max_p m_p."""
    for g, P in ((0.5, 3), (0.0, 1), (0.0, 2), (0.3, 2), (0.9, 5)):
        compare(
            float(lost(g, P)),
            (1 - g) ** 2 * 2 / ((P + 1) * (P + 2)),
            {
                "That is for one pathway; the largest of P masks is nearer to 1.": (1 - g) ** 2 / 3,
                "That is the square of the mean; asked is the mean of the square.": (
                    (1 - g) ** 2 / (P + 1) ** 2
                ),
                "The distance to 1 shrinks with 1 − g, its square with (1 − g)².": (
                    (1 - g) * 2 / ((P + 1) * (P + 2))
                ),
                "That is the mean distance; asked is the mean of its square.": (1 - g) / (P + 1),
                "Masks do not multiply: the largest of them counts.": ((1 - g) ** 2 / 3) ** P,
            },
        )
    return "the more copies there are, the less random masks notice that none is important"


@check
def check_2(minimal: Any) -> str:
    """13.2: minimal(works, k), all the sets of parts that suffice and of which no part can go."""
    generator = torch.Generator().manual_seed(132)
    families = [[{0}, {1}], [{0, 1}], [{0}, {1, 2}], [{0, 1}, {1, 2}, {0, 2}]]
    for _ in range(8):
        drawn = (torch.rand(3, 4, generator=generator) < 0.5).tolist()
        families.append([{i for i, on in enumerate(row) if on} or {0} for row in drawn])
    for family in families:
        want = {frozenset(a) for a in family if not any(b < a for b in family)}
        k = 1 + max(i for a in family for i in a)

        def works(kept: Any, wanted: set[frozenset[int]] = want) -> bool:
            return any(a <= frozenset(kept) for a in wanted)

        subsets = [frozenset(s) for n in range(k + 1) for s in itertools.combinations(range(k), n)]
        enough = {s for s in subsets if works(s)}
        least = min(len(s) for s in want)
        got = {frozenset(s) for s in minimal(works, k)}
        if got == want:
            continue
        if got == enough:
            raise Wrong("Those are all that suffice; leave out sets from which a part can go.")
        if got == {s for s in want if len(s) == least}:
            raise Wrong("Only the smallest ones: {1, 2} counts beside {0}, if it works without 0.")
        if len(got) == 1 and got < want:
            raise Wrong("That is one way to do it. SPD stops there, too; asked are all.")
        raise Wrong(f"Expected {_told(want)}, got {_told(got)}.")
    return "SPD returns one of these sets; what the weights contain is all of them"


def _told(family: set[frozenset[int]]) -> str:
    return str(sorted(sorted(s) for s in family))


@check
def check_3(one_piece: Any) -> str:
    """13.3: one_piece(x), the least mean ‖x − u (v · x)‖² that one rank-one piece leaves."""
    generator = torch.Generator().manual_seed(133)
    for k, unlike in ((2, 0.5), (2, 1.0), (2, 0.0), (3, 1.0)):
        a, b = torch.rand(2, 500, k, generator=generator)
        x = (1 - unlike) * a[:, :1] + unlike * b
        moments = torch.linalg.eigvalsh((x.mT @ x / len(x)).double())
        centred = torch.linalg.eigvalsh(torch.cov(x.mT, correction=0).double().reshape(k, k))
        compare(
            float(one_piece(x.clone())),
            float(moments[:-1].sum()),
            {
                "That is what the piece keeps; asked is what it leaves.": float(moments[-1]),
                "A piece has no constant term: do not subtract the mean.": float(
                    centred[:-1].sum()
                ),
                "A mean over rows is asked, not the sum.": float(len(x) * moments[:-1].sum()),
                "Sum over the features; only rows are averaged.": float(moments[:-1].sum() / k),
                "Of three directions one is kept and two are lost.": float(moments[0]),
            },
        )
    return "two circuits are two for SPD if one piece leaves more than a second one costs"


@check
def check_4(least_share: Any) -> str:
    """13.4: least_share(price, worth) = 2 price/worth, or infinity where no share is enough."""
    for price, worth in ((0.001, 0.03), (0.01, 0.04), (0.02, 0.03), (0.05, 0.04)):
        exact, got = 2 * price / worth, float(least_share(price, worth))
        compare(
            NONE if got == math.inf else got,
            exact if exact <= 1 else NONE,
            {
                "A share above 1 is no share: then no cutting is enough (math.inf).": exact,
                "In half of the cut rows it is the backup that is cut, and then nothing is lost.": (
                    price / worth
                ),
                "The gate cannot see the cut, so the price is paid on every input.": 0.0,
                "The other way round: the dearer a piece, the more often it must be needed.": (
                    worth / (2 * price)
                ),
            },
        )
    return "a backup is worth its price only if it is seen at work often enough"
