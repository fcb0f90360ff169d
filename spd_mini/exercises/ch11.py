"""Checks for the exercises of chapter 11."""

import math
from typing import Any

import torch

from . import Wrong, as_tensor, check, compare, random


@check
def check_1(delete: Any) -> str:
    """11.1: delete(W, U, V, which), the weight without some pieces; the rest of it stays."""
    for seed, (which, C) in enumerate((([1], 3), ([0, 4], 5), ([], 4), ([2, 3, 0], 6))):
        W, U, V = random(4, 3, seed=seed), random(4, C, seed=seed + 9), random(C, 3, seed=seed + 20)
        got = as_tensor(delete(W.clone(), U.clone(), V.clone(), which), (4, 3), "The new weight")
        gone, left = U[:, which] @ V[which], [c for c in range(C) if c not in which]
        compare(
            got,
            W - gone,
            {
                "That is the sum of the pieces that stay. What the pieces leave over, W − UV, "
                "stays, too: change W.": U[:, left] @ V[left],
                "The pieces are added a second time; take them away.": W + gone,
                "That is what goes; asked is what stays.": gone,
                "Nothing was changed.": W,
            },
            "The new weight",
        )
    return "an edit is a change of the weights, and nothing else stays behind"


@check
def check_2(change: Any) -> str:
    """11.2: change(W, k, wanted, S), the rank-one ΔW with (W + ΔW) k = wanted that disturbs least.

    S: second moments (d_in, d_in) of what W reads otherwise.
    """
    for seed in range(4):
        W, k, wanted = (random(*s, seed=seed + i) for i, s in enumerate(((3, 5), (5,), (3,))))
        a = random(40, 5, seed=seed + 7) * torch.tensor([3.0, 1.0, 0.3, 1.0, 2.0])
        S = a.mT @ a / len(a)
        got = as_tensor(change(W.clone(), k.clone(), wanted.clone(), S.clone()), (3, 5), "ΔW")
        q, missing = torch.linalg.solve(S, k), wanted - W @ k
        compare(
            got,
            torch.outer(missing, q) / (k @ q),
            {
                "It writes what is wanted, and disturbs other inputs more than it must: use S.": (
                    torch.outer(missing, k) / (k @ k)
                ),
                "W writes something for k already; only what is missing is to be added.": (
                    torch.outer(wanted, q) / (k @ q)
                ),
                "The factor is missing that makes ΔW k exactly wanted − W k.": (
                    torch.outer(missing, q)
                ),
                "That reads along S k: the directions that others use most. Along S⁻¹ k.": (
                    torch.outer(missing, S @ k) / (k @ S @ k)
                ),
                "That is the new weight; asked is the change.": (
                    W + torch.outer(missing, q) / (k @ q)
                ),
            },
            "ΔW",
        )
    return "no other rank-one change to the same end costs less on what W reads otherwise"


@check
def check_3(front: Any) -> str:
    """11.3: front(left, lost), the indices of methods that no other method beats; rising."""
    generator = torch.Generator().manual_seed(113)
    # the first one tells the mistakes apart
    cases = [([0.1, 0.1, 0.2], [0.2, 0.2, 0.2]), ([0.1, 0.2, 0.3], [0.3, 0.2, 0.1])]
    cases += [([0.0, 0.5], [0.1, 0.1]), ([0.3, 0.3, 0.3], [0.2, 0.1, 0.3])]
    for _ in range(20):
        table = torch.randint(0, 5, (2, 6), generator=generator).float()
        cases.append((table[0].tolist(), table[1].tolist()))
    for a, b in cases:
        points = list(zip(a, b, strict=True))

        def kept(beats: Any, points: Any = points) -> list[int]:
            return [i for i, p in enumerate(points) if not any(beats(q, p) for q in points)]

        want = kept(lambda q, p: q[0] <= p[0] and q[1] <= p[1] and q != p)
        try:
            got = [int(i) for i in front(list(a), list(b))]
        except TypeError as error:
            raise Wrong("Return a list of indices.") from error
        if got == want:
            continue
        mistakes = {
            "As good in one and better in the other is beaten, too.": kept(
                lambda q, p: q[0] < p[0] and q[1] < p[1]
            ),
            "Being worse in one of the two is no defeat.": kept(
                lambda q, p: q[0] < p[0] or q[1] < p[1]
            ),
            "Those are the ones that are beaten.": [i for i in range(len(a)) if i not in want],
            "The right ones, in another order: rising.": sorted(got) if sorted(got) == want else [],
            "Of equals, neither beats the other: both stay.": [
                i for i in want if points.index(points[i]) == i
            ],
        }
        likely = [
            why
            for why, wrong in mistakes.items()
            if wrong == (sorted(got) if why.startswith("The right") else got)
        ]
        raise Wrong(likely[0] if likely else f"For {points} expected {want}, got {got}.")
    return "what is not on the front needs no discussion; what is, does"


@check
def check_4(pays: Any) -> str:
    """11.4: pays(once, each, other), the fewest deletions at which decomposing is cheaper.

    once, each: seconds of the decomposition, and of one deletion with it; other: of one deletion
    without. math.inf where it never is.
    """
    cases = [(12.0, 1.0, 3.0), (16.0, 0.25, 2.25), (15.0, 0.0, 0.5), (0.0, 0.5, 1.0)]
    for once, each, other in (*cases, (9.0, 1.0, 1.0), (9.0, 2.0, 1.0)):
        got = float(pays(once, each, other))
        exact = once / (other - each) if other > each else math.inf
        want = math.floor(exact) + 1 if other > each else math.inf
        if got == want:
            continue
        mistakes = {
            "If a deletion saves nothing, no number of them pays: math.inf.": other <= each,
            "Equal is not cheaper: one more.": got == exact,
            "Each deletion costs something with the decomposition, too.": (
                math.isfinite(got) and got == math.floor(once / other) + 1
            ),
            "Deletions come whole.": not got.is_integer(),
        }
        likely = [why for why, is_it in mistakes.items() if is_it]
        raise Wrong(likely[0] if likely else f"For {once, each, other} expected {want}, got {got}.")
    return "a decomposition is dear once; a method that looks at each fact is dear each time"
