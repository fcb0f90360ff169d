"""Checks for the exercises of chapter 6."""

import math
from typing import Any

import torch

from . import Wrong, as_tensor, check
from .ch05 import compare


@check
def check_1(least: Any) -> str:
    """6.1: least(n, m, k) = k (n − m + 1)."""
    for n, m, k in ((5, 2, 2), (40, 10, 10), (7, 3, 5), (9, 4, 4)):
        likely = {
            "Every piece is counted as important to every feature; some it can be blind to.": k * n,
            "A piece can be blind to m − 1 of them: m span the space, and leave no direction.": (
                k * (n - m)
            ),
            "In m dimensions a piece can be blind to more than one direction.": k * (n - 1),
            "That is the number for one piece; there are k.": n - m + 1,
            "As if only m of the k pieces had a price.": m * (n - m + 1),
        }
        compare(float(least(n, m, k)), k * (n - m + 1), likely)
    return "it grows with every further piece, so the fewest that are faithful, k = m, are cheapest"


@check
def check_2(blind: Any) -> str:
    """6.2: blind(W, i, j): UV = I, V_0 · W_i = 0 and V_1 · W_j = 0."""
    generator = torch.Generator().manual_seed(62)
    for n in (2, 5, 8):
        W = torch.randn(2, n, generator=generator)
        i, j = torch.randperm(n, generator=generator)[:2].tolist()
        answer = blind(W.clone(), i, j)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise Wrong("Return two things: U and V.")
        U, V = as_tensor(answer[0], (2, 2), "U"), as_tensor(answer[1], (2, 2), "V")
        V = V / V.norm(dim=1, keepdim=True) if V.norm(dim=1).min() > 0 else V
        reads = (V @ (W / W.norm(dim=0))[:, [i, j]]).abs()  # (pieces, features i and j)
        if max(reads[0, 1], reads[1, 0]) < 1e-4:
            raise Wrong("The other way round: the first piece is blind to i, the second to j.")
        if max(reads[0, 0], reads[1, 1]) > 1e-4:
            raise Wrong("A piece still reads its feature; its row of V must be at right angles.")
        if not torch.allclose(U @ as_tensor(answer[1], (2, 2), "V"), torch.eye(2), atol=1e-3):
            raise Wrong(
                "The two pieces do not sum to the identity. Vᵀ does that only for rows of length 1 "
                "at right angles."
            )
    return "two lines of blindness can be chosen freely, and fix the rest"


@check
def check_3(own_share: Any) -> str:
    """6.3: own_share(n, m) = m / n."""
    for n, m in ((5, 2), (40, 10), (12, 3)):
        likely = {
            "The piece carries the factor m/n.": 1.0,
            "The other way round: the more features share the space, the less each has.": (n / m),
            "That is the share of one of n equal parts; but the pieces overlap.": 1 / n,
            "That is what the other pieces must supply.": 1 - m / n,
        }
        compare(float(own_share(n, m)), m / n, likely)
    return "the rest comes from pieces of features that are off: all of them are needed"


@check
def check_4(missing: Any) -> str:
    """6.4: missing(g, k) = (1 − g)² (1/4 + 1/(12 k))."""
    for g, k in ((0.0, 1), (0.0, 2), (0.3, 2), (0.5, 5), (0.8, 3)):
        room = (1 - g) ** 2
        likely = {
            "The mean never shrinks: 1 − m is (1 − g)/2 on average, however many parts.": (
                room / (3 * k)
            ),
            "The parts have masks of their own, so they do not move together.": room / 3,
            "The variance of what is left is missing.": room / 4,
            "The square of the mean is missing.": room / (12 * k),
            "The variance of a mean of k falls like 1/k, not 1/k².": (
                room * (1 / 4 + 1 / (12 * k * k))
            ),
            "The room left to a mask is 1 − g; it enters squared.": (
                (1 - g) * (1 / 4 + 1 / (12 * k))
            ),
        }
        compare(float(missing(g, k)), room * (1 / 4 + 1 / (12 * k)), likely)
    return "from 1/3 it falls to 1/4 at best, while the price grows k-fold"


@check
def check_5(dearest: Any) -> str:
    """6.5: dearest(k) = 1 / cos(π / k)."""
    for k in (5, 3, 8, 40):
        cosine = math.cos(math.pi / k)
        likely = {
            "The other way round: two latents that add up to 1 reach that far.": cosine,
            "The dearest input lies half a gap from its neighbours: π/k, not 2π/k.": (
                1 / math.cos(2 * math.pi / k)
            ),
            "That is one latent of two that are on.": 1 / (2 * cosine),
            "A latent is never negative, so the directions go all the way round: 2π, not π.": (
                1 / math.cos(math.pi / (2 * k))
            ),
            "That is the cheapest input, which lies along a latent.": 1.0,
        }
        compare(float(dearest(k)), 1 / cosine, likely)
    return "each further direction saves something, from ten on in a plane next to nothing"
