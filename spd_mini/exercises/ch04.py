"""Checks for the exercises of chapter 4."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..importance import LEAK, hard_sigmoid, lower_leaky, upper_leaky
from . import Wrong, answered, right


def check_1(lost: Any) -> None:
    """4.1: lost(g) = E_r[(1 − m)²] = (1 − g)²/3, by the midpoint rule over r."""
    if not answered(lost):
        return
    g = torch.rand(20, generator=torch.Generator().manual_seed(41), dtype=torch.float64)
    r = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    want = (1 - (g[:, None] + (1 - g[:, None]) * r)).square().mean(1)
    got = torch.as_tensor(lost(g), dtype=torch.float64)
    if got.shape != g.shape:
        raise Wrong(f"Expected one value for each g, shape {tuple(g.shape)}, got {got.shape}.")
    likely = {
        "That is the mask at its floor (r = 0), as if m = g; but r is drawn from all of [0, 1].": (
            (1 - g).square()
        ),
        "That is the square of the mean, (E[1 − m])²; asked is the mean of the square.": (
            (1 - g).square() / 4
        ),
        "That is the variance of m; the mean distance from 1 counts as well.": (
            (1 - g).square() / 12
        ),
        "That is the mean of 1 − m; the error is squared before it is averaged.": (1 - g) / 2,
    }
    _compare(got, want, likely)
    right("a third of (1 − g)², the squared room left to the mask")


def check_2(penalty: Any) -> None:
    """4.2: penalty(gamma, p) = mean over the batch of Σ_c σ_upper(γ)^p, from γ."""
    if not answered(penalty):
        return
    gamma = 3 * torch.randn(40, 6, generator=torch.Generator().manual_seed(42))

    def mean_sum(g: Tensor, p: float) -> Tensor:
        return torch.tensor([sum(float(v) ** p for v in row) for row in g]).mean()

    for p in (1.0, 2.0):
        upper, hard, lower = upper_leaky(gamma), hard_sigmoid(gamma), lower_leaky(gamma)
        want = mean_sum(upper, p)
        likely = {
            "Did you sum over the batch? It is a mean over inputs.": 40 * want,
            "That averages over subcomponents; they are summed, so each has the same price.": (
                want / 6
            ),
            "That is the hard sigmoid: above 1 its slope is 0, and a saturated γ is never pulled "
            "back.": mean_sum(hard, p),
            "That is the lower-leaky sigmoid: a negative importance would be paid for.": (
                mean_sum(lower, p)
            ),
            "p is ignored: did you forget the power?": mean_sum(upper, 1.0),
        }
        if p == 1.0:
            del likely["p is ignored: did you forget the power?"]
        _compare(torch.as_tensor(penalty(gamma, p)), want, likely)
    right("summed over subcomponents, averaged over inputs, and alive above 1")


def check_3(slopes: Any) -> None:
    """4.3: slopes of mask floor and penalty (p = 1) at γ = −2, 0.4, 3."""
    if not answered(slopes):
        return
    want: dict[str, list[float]] = {}
    for name, f in (("mask", lower_leaky), ("penalty", upper_leaky)):
        gamma = torch.tensor([-2.0, 0.4, 3.0], requires_grad=True)
        want[name] = torch.autograd.grad(f(gamma).sum(), gamma)[0].tolist()
    if set(slopes) != set(want) or any(len(slopes[name]) != 3 for name in want):
        raise Wrong("Give a dictionary with 'mask' and 'penalty', three slopes each.")
    close = {
        (a, b): all(abs(u - v) < 1e-6 for u, v in zip(slopes[a], want[b], strict=True))
        for a in want
        for b in want
    }
    if close["mask", "penalty"] and close["penalty", "mask"]:
        raise Wrong("Swapped: the mask must be revived from below, the penalty felt from above.")
    for name in want:
        if any(v < 0 for v in slopes[name]):
            raise Wrong(f"'{name}': a slope is negative, but both sigmoids only ever rise.")
        if list(slopes[name]) == [0.0, 1.0, 0.0]:
            raise Wrong(f"'{name}': that is the hard sigmoid without a leak.")
        if all(abs(u - v) < 1e-6 for u, v in zip(slopes[name], (LEAK, 1.0, LEAK), strict=True)):
            raise Wrong(f"'{name}': leaky at both ends; each sigmoid leaks at one end only.")
        if not close[name, name]:
            raise Wrong(f"'{name}': expected slopes of {LEAK}, 1 or 0, in another arrangement.")
    right("each end of the interval keeps the one gradient that can bring γ back")


def check_4(threshold: Any) -> None:
    """4.4: threshold(beta3, k, n, L), the break-even input of a linear chain of L layers."""
    if not answered(threshold):
        return
    generator = torch.Generator().manual_seed(44)
    r = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    one, two = float(r.mean()), float(r.square().mean())
    for L in (1, 2, 3):
        u = torch.rand(2, generator=generator).tolist()
        beta3, k, n = 0.001 + 0.01 * u[0], 0.5 + u[1], 5 + L
        joint, single = 1 - 2 * one**L + two**L, 1 - 2 * one + two

        def at(price: float, loss: float, n: int = n, k: float = k) -> float:
            return math.sqrt(price * n / (k * k * loss))

        likely = {
            "Only one importance is paid for; all L layers need theirs.": at(beta3, joint + single),
            "The squared error is a mean over n outputs; did you divide by n?": (
                at(L * beta3, joint + single, n=1)
            ),
            "The layerwise loss is missing: it also feels the missing piece.": at(L * beta3, joint),
            "The layerwise losses are summed; they are averaged over the L layers.": (
                at(L * beta3, joint + L * single)
            ),
            "Both losses must be averages of (1 − m)², not (1 − average m)².": (
                at(L * beta3, (1 - one**L) ** 2 + (1 - one) ** 2)
            ),
            "That is x²: take the root.": at(L * beta3, joint + single) ** 2,
        }
        got = torch.tensor(float(threshold(beta3, k, n, L)), dtype=torch.float64)
        want = torch.tensor(at(L * beta3, joint + single), dtype=torch.float64)
        wrong = {why: torch.tensor(v, dtype=torch.float64) for why, v in likely.items()}
        _compare(got, want, wrong)
    right("the price L·β₃ against the error that silence causes")


def check_5(smallest: Any) -> None:
    """4.5: smallest(W), the x_j above which no other single feature gives the same reading."""
    if not answered(smallest):
        return
    W = torch.randn(2, 6, generator=torch.Generator().manual_seed(45), dtype=torch.float64)
    got = torch.as_tensor(smallest(W), dtype=torch.float64)
    n = W.shape[1]
    if got.shape != (n,):
        raise Wrong(f"Expected one value for each of the {n} columns, got {tuple(got.shape)}.")

    def each(read: Callable[[float], float], norm: Callable[[float], float]) -> Tensor:
        values = []
        for j in range(n):
            others = [read(float(W[:, k] @ W[:, j])) for k in range(n) if k != j]
            values.append(max([0.0, *others]) / norm(float(W[:, j] @ W[:, j])))
        return torch.tensor(values, dtype=torch.float64)

    identity, one = (lambda v: v), (lambda _: 1.0)
    likely = {
        "A negative reading is no rival: γ can tell signs apart. No absolute value.": (
            each(abs, identity)
        ),
        "Divide by what x_j = 1 itself causes, W_j · W_j.": each(identity, one),
        "That divides by the norm, not by its square: h grows as x_j (W_j · W_j).": (
            each(identity, math.sqrt)
        ),
        "The column itself was counted among its rivals.": torch.ones(n, dtype=torch.float64)
        * each(identity, identity).clamp(min=1),
    }
    _compare(got, each(identity, identity), likely)
    right("below that value one number, h, cannot tell the feature from its neighbours")


def _compare(got: Tensor, want: Tensor, likely: Mapping[str, Tensor]) -> None:
    """Raise Wrong, with the likely mistake where one fits, unless got = want to 1e-4."""

    def close(a: Tensor, b: Tensor) -> bool:
        a, b = a.detach().double(), b.double()
        return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-6)

    if close(got, want):
        return
    for why, mistaken in likely.items():
        if close(got, mistaken):
            raise Wrong(why)
    raise Wrong(f"Expected {_short(want)}, got {_short(got)}.")


def _short(values: Tensor) -> str:
    return ", ".join(f"{v:.4f}" for v in values.detach().reshape(-1)[:3].tolist())
