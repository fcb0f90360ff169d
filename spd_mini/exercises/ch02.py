"""Checks for the exercises of chapter 2."""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from . import Wrong, as_tensor, check


@check
def check_1(worst: Callable[[Tensor, Tensor, float], float]) -> str:
    """2.1: worst error of one output, against the enumeration of all corners."""
    generator = torch.Generator().manual_seed(21)
    for _ in range(12):
        q = torch.randn(6, generator=generator)
        g = torch.rand(6, generator=generator) * (torch.rand(6, generator=generator) < 0.7)
        b = float(torch.randn((), generator=generator)) / 2
        corners = torch.tensor(list(itertools.product((0.0, 1.0), repeat=6)))
        z, unbound = b + (g + (1 - g) * corners) @ q, b + corners @ q
        y = torch.relu(b + q.sum())
        change = z.relu() - y
        likely = {
            "All masks at the floor is one corner; others can be worse.": (
                (torch.relu(b + (g * q).sum()) - y).abs()
            ),
            "The masks may not go down to 0, only to their floors g.": (unbound.relu() - y).abs(),
            "The ReLU is missing.": (z - b - q.sum()).abs(),
            "You push the output up only; pushing it down can be worse.": change.clamp(min=0),
            "You push the output down only; pushing it up can be worse.": (-change).clamp(min=0),
        }
        got = float(as_tensor(worst(q, g, b), (), "worst(q, g, b)"))
        want = float(change.abs().max())
        if math.isclose(got, want, rel_tol=1e-4, abs_tol=1e-5):
            continue
        for message, value in likely.items():
            if math.isclose(got, float(value.max()), rel_tol=1e-4, abs_tol=1e-5):
                raise Wrong(message)
        raise Wrong(f"Expected {want:.4f}, the largest over all 2⁶ corners, got {got:.4f}.")
    return "two sums instead of 2ᶜ corners, and the same answer"


@check
def check_2(typical: Callable[[int, float], float]) -> str:
    """2.2: root mean square of the push left by n pairs of strength s / n: s / √(6 n)."""
    for n, s in ((1, 1.0), (3, 0.6), (50, 2.0)):
        got = float(as_tensor(typical(n, s), (), "typical(n, s)"))
        likely = {
            "Each pair has two masks; their variances add up.": s / math.sqrt(12 * n),
            "That adds up the pairs at full strength; each has only s / n.": s * math.sqrt(n / 6),
            "That is the variance; take its root.": s * s / (6 * n),
            "That is one pair alone; n of them add up.": s / (n * math.sqrt(6)),
            "That is the worst case, all masks against you at once.": s,
        }
        want = s / math.sqrt(6 * n)
        if math.isclose(got, want, rel_tol=1e-3):
            continue
        for message, value in likely.items():
            if math.isclose(got, value, rel_tol=1e-3):
                raise Wrong(message)
        raise Wrong(f"Expected {want:.4f} for n = {n}, s = {s}, got {got:.4f}.")
    return "chance averages out like 1/√n; an adversary does not"


@check
def check_3(probability: float) -> str:
    """2.3: the p where 5 p = 2 (1 − (1 − p)⁵)."""
    p = float(as_tensor(probability, (), "p"))
    if math.isclose(p, 0.4, abs_tol=2e-3):
        raise Wrong("You charge the SVD pieces on all-zero inputs too; nothing is needed there.")
    if not 1e-6 < p < 1:
        raise Wrong("At that p they do not differ, but no such data set is of use: 0 < p < 1.")
    columns, svd = 5 * p, 2 * (1 - (1 - p) ** 5)
    if abs(columns - svd) > 5e-3:
        cheaper = "the columns are" if columns < svd else "SVD is"
        raise Wrong(
            f"At p = {p:.3f} the columns cost {columns:.3f}, SVD {svd:.3f}: {cheaper} cheaper."
        )
    return f"above p = {p:.3f} the penalty prefers the two SVD pieces"


@check
def check_4(impostor: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]) -> str:
    """2.4: faithful, right with only one important piece an input, yet broken by random masks."""
    generator = torch.Generator().manual_seed(24)
    for _ in range(4):
        W = torch.randn(2, 5, generator=generator)
        answer = impostor(W)
        if not isinstance(answer, tuple | list) or len(answer) != 3:
            raise Wrong("Return three things: U (2, C), V (C, 5) and g (5, C).")
        C = len(answer[1])
        U = as_tensor(answer[0], (2, C), "U")
        V = as_tensor(answer[1], (C, 5), "V")
        g = as_tensor(answer[2], (5, C), "g, one row per one-hot input,")
        size = W.norm(dim=0)
        if (W - U @ V).norm() > 1e-4 * W.norm():
            raise Wrong("The pieces do not add up to W: not even faithful.")
        if not ((g == 0) | (g == 1)).all() or not (g.sum(1) == 1).all():
            raise Wrong("On each one-hot input exactly one piece must be important (g = 1).")
        h = V.T  # inner activations on the five one-hot inputs, one row each
        if (((g * h) @ U.T - W.T).norm(dim=1) > 1e-4 * size).any():
            raise Wrong("With only the important piece on, some input is not reproduced.")
        r = torch.rand(400, 5, C, generator=generator)
        error = ((g + (1 - g) * r) * h) @ U.T - W.T
        if not (error.norm(dim=-1).mean(0) > 0.1 * size).all():
            raise Wrong("Random masks leave some input within 10 %: too honest for an impostor.")
    return "every weak test passes, and random masks expose it"
