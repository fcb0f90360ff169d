"""Checks for the exercises of chapter 10."""

import math
from typing import Any

import torch

from . import Wrong, check
from .ch05 import compare


@check
def check_1(rate: Any) -> str:
    """10.1: rate(k) = 1 − 0.05^(1/k), the largest failure rate that k clean runs leave possible."""
    for k in (3, 20, 100):
        compare(
            float(rate(k)),
            1 - 0.05 ** (1 / k),
            {
                "That is the success rate; asked is the rate of failures.": 0.05 ** (1 / k),
                "That is how rare k clean runs are if 5 % of all runs fail; solve for the rate.": (
                    0.95**k
                ),
                "With 0.95 instead of 0.05: a rate at which k clean runs are no surprise at all.": (
                    1 - 0.95 ** (1 / k)
                ),
                "3/k is the rule of thumb for large k; give the exact rate.": 3 / k,
            },
        )
    return "twenty clean runs of twenty still allow one failure in seven"


@check
def check_2(auc: Any) -> str:
    """10.2: auc(failed, recovered), pairs in which the failed run has the higher loss."""
    generator = torch.Generator().manual_seed(102)
    cases = [([3.0], [1.0, 2.0]), ([1.0, 2.0], [2.0, 2.0, 5.0])]
    for _ in range(20):
        n, m = (int(v) for v in torch.randint(1, 7, (2,), generator=generator))
        drawn = torch.randint(0, 5, (n + m,), generator=generator).float().tolist()
        cases.append((drawn[:n], drawn[n:]))
    for failed, recovered in cases:
        pairs = [(a, b) for a in failed for b in recovered]
        more, ties = sum(a > b for a, b in pairs), sum(a == b for a, b in pairs)
        compare(
            float(auc(list(failed), list(recovered))),
            (more + ties / 2) / len(pairs),
            {
                "Ties are left out; a tie tells nothing, so it counts half.": more / len(pairs),
                "A tie counts half, not as a win.": (more + ties) / len(pairs),
                "The other way round: a failed run should have the higher loss.": (
                    1 - (more + ties / 2) / len(pairs)
                ),
                "Divide by the number of pairs, failed times recovered.": more + ties / 2,
            },
        )
    return "½ is chance, and 1 says that one threshold would separate the two groups"


@check
def check_3(null: Any) -> str:
    """10.3: null(C), the expected best cosine of a direction with C random ones in the plane."""
    angle = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000 * math.pi
    for C in (2, 5, 20, 40):
        density = C / math.pi * (1 - angle / math.pi) ** (C - 1)  # of the smallest of C angles
        want, folded = (float((v.cos() * density).mean()) * math.pi for v in (angle, angle / 2))
        likely: dict[str, float] = {
            "That is the cosine of the mean angle; asked is the mean of the cosine.": (
                math.cos(math.pi / (C + 1))
            ),
            "A piece that points the other way is no match: angles lie between 0 and π.": folded,
            "That is the mean over the pieces; asked is the best of them.": 0.0,
        }
        got = float(null(C))
        if not abs(got - want) <= 0.01:
            why = next((w for w, v in likely.items() if abs(got - v) <= 0.01), None)
            raise Wrong(why or f"For C = {C} expected {want:.3f}, got {got:.3f}.")
    return "the more pieces are on offer, the better chance looks"


@check
def check_4(spread: Any) -> str:
    """10.4: spread(P, u), worst and typical displacement along u by masks of pieces that cancel."""
    generator = torch.Generator().manual_seed(104)
    for n in (2, 6, 35):
        P = torch.randn(n, 2, generator=generator)
        P = P - P.mean(0)
        u = torch.randn(2, generator=generator)
        u = u / u.norm()
        answer = spread(P.clone(), u.clone())
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise Wrong("Return two numbers: worst and typical.")
        along = P @ u
        worst, typical = along.clamp(min=0).sum(), (along.square().sum() / 12).sqrt()
        compare(
            float(answer[0]),
            float(worst),
            {
                "The pieces that push back are on, too; the adversary switches them off.": (
                    float(along.sum())
                ),
                "That adds those that push against u; they are best left off.": (
                    float(along.abs().sum())
                ),
                "That adds up whole lengths; along u only a part of each counts.": (
                    float(P.norm(dim=1).sum())
                ),
                "That is the length of the way; asked is how far it goes along u.": (
                    float(P[along > 0].sum(0).norm())
                ),
            },
        )
        compare(
            float(answer[1]),
            float(typical),
            {
                "The variance of a mask in [0, 1] is missing: 1/12.": float(12**0.5 * typical),
                "That is a variance; take its root.": float(typical.square()),
                "Independent displacements add in their squares, not in their sizes.": (
                    float(along.abs().sum() / 12**0.5)
                ),
            },
        )
    return "n in the worst case, √n by chance: that is what chance cannot see"
