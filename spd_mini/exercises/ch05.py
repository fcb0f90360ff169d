"""Checks for the exercises of chapter 5."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..recovery import identity_errors, ml2r, mmcs
from . import Wrong, as_tensor, check


@check
def check_1(welch: Any) -> str:
    """5.1: welch(n, m) = (n − m) / (m (n − 1))."""
    for n, m in ((40, 10), (5, 2), (7, 3), (64, 8)):
        got = float(welch(n, m))
        least = (n - m) / (m * (n - 1))
        likely = {
            "That is the mean over all n² entries; each vector's cosine with itself is left out.": (
                1 / m
            ),
            "That is the root of the mean square; asked is the mean square.": least**0.5,
            "The diagonal is left out of the sum but not of the count: n (n − 1) pairs.": (
                (n - m) / (m * n)
            ),
            "That is a sum over pairs; divide by their number, n (n − 1).": n * n / m - n,
        }
        compare(got, least, likely)
    return "n²/m of squared cosines must go somewhere, and only n of it fits on the diagonal"


@check
def check_2(wrong: Any) -> str:
    """5.2: wrong(g), entries that are not as they should be after the best matching."""
    generator = torch.Generator().manual_seed(52)
    rivals = torch.tensor([[1.0, 0.95, 0.0], [1.0, 0.0, 0.0]])  # both want the first
    cases = [rivals]
    for _ in range(20):
        n = int(torch.randint(2, 7, (1,), generator=generator))
        g = torch.eye(n + 3)[:n, torch.randperm(n + 3, generator=generator)]
        noise = torch.rand(n, n + 3, generator=generator)
        cases.append(torch.where(noise < 0.25, torch.rand(n, n + 3, generator=generator), g))
    for g in cases:
        want = identity_errors(g, len(g))[0]
        matched = _cells(g, identity_errors(g, len(g))[1])
        likely = {
            "Each feature got its largest entry, so two features may share one subcomponent.": (
                _off(g, _cells(g, g.argmax(1).tolist()))
            ),
            "Only matched entries are counted; an unmatched one above 0.1 is an error too.": (
                int((g[matched] < 0.9).sum())
            ),
            "Only unmatched entries are counted; a matched one below 0.9 is an error too.": (
                int((g[~matched] > 0.1).sum())
            ),
            "That matching makes the sum as small as it can be; asked is the largest.": (
                _off(g, _cells(g, identity_errors(-g, len(g))[1]))
            ),
        }
        compare(float(wrong(g.clone())), float(want), {k: float(v) for k, v in likely.items()})
    return "the matching may reorder, but every entry still has to be right"


@check
def check_3(own_mmcs: Any) -> str:
    """5.3: own_mmcs(W, U, V), the mean best cosine over columns."""
    generator = torch.Generator().manual_seed(53)
    for m, n, C in ((2, 5, 7), (10, 40, 60), (3, 4, 1)):
        W, U, V = (torch.randn(size, generator=generator) for size in ((m, n), (m, C), (C, n)))
        cosines = torch.einsum("ij,ic->jc", W / W.norm(dim=0), U / U.norm(dim=0))  # (n, C)
        signed = cosines * V.T.sign()
        got = float(own_mmcs(W.clone(), U.clone(), V.clone()))
        likely = {
            "The sign of V_cj is missing: column j of U_c V_c is V_cj U_c.": (
                cosines.amax(1).mean()
            ),
            "No absolute value: a column pointing the other way is no match.": (
                signed.abs().amax(1).mean()
            ),
            "Take the best subcomponent for each column, not the mean.": signed.mean(),
            "Best column for each subcomponent; asked is the best subcomponent for each column.": (
                signed.amax(0).mean()
            ),
        }
        compare(got, mmcs(W, U, V), {why: float(v) for why, v in likely.items()})
    return "of V it knows one sign per column: what else the piece reads does not count"


@check
def check_4(impostor: Any) -> str:
    """5.4: impostor(W): faithful, MMCS = ML2R = 1, and every piece reads every feature."""
    for seed, (m, n) in ((54, (2, 5)), (55, (10, 40))):
        W = torch.randn(m, n, generator=torch.Generator().manual_seed(seed))
        answer = impostor(W.clone())
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise Wrong("Return two things: U and V.")
        C = torch.as_tensor(answer[0]).shape[-1]
        U, V = as_tensor(answer[0], (m, C), "U"), as_tensor(answer[1], (C, n), "V")
        if (W - U @ V).norm() > 1e-3 * W.norm():
            raise Wrong("The pieces do not add up to W. Subtract what is too much.")
        if V.abs().min() < 1e-6 or U.norm(dim=0).min() < 1e-6:
            raise Wrong("Some piece leaves a feature unread, or writes nothing; all must work.")
        if mmcs(W, U, V) < 0.995:
            raise Wrong(f"MMCS is {mmcs(W, U, V):.3f}: for each j some piece must write along W_j.")
        ratio = ml2r(W, U, V, torch.ones(C, dtype=torch.bool))
        if abs(ratio - 1) > 0.005:
            raise Wrong(
                f"ML2R is {ratio:.3f}: the piece along W_j must give column j its length, "
                "so read feature j with weight 1."
            )
    return "scores of vectors can be perfect where no input could do without any piece"


def _cells(g: Tensor, columns: list[int]) -> Tensor:
    """One cell of each row of g, as a mask."""
    cells = torch.zeros_like(g, dtype=torch.bool)
    cells[range(len(g)), columns] = True
    return cells


def _off(g: Tensor, matched: Tensor) -> int:
    return int(torch.where(matched, g < 0.9, g > 0.1).sum())


def compare(got: float, want: float, likely: Mapping[str, float]) -> None:
    """Raise Wrong, with the likely mistake where one fits, unless got = want to 1e-4."""

    def close(a: float, b: float) -> bool:
        return abs(a - b) <= 1e-4 * max(1.0, abs(b))

    if not close(got, want):
        why = next((w for w, v in likely.items() if close(got, v)), None)
        raise Wrong(why or f"Expected {want:.4f}, got {got:.4f}.")
