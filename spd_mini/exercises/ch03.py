"""Checks for the exercises of chapter 3."""

from collections.abc import Callable

import torch
from torch import Tensor

from . import Wrong, check


@check
def check_1(mask: Callable[[Tensor, Tensor], Tensor]) -> str:
    """3.1: m = g + (1 − g) r."""
    gen = torch.Generator().manual_seed(31)
    g, r = torch.rand(50, 4, generator=gen), torch.rand(50, 4, generator=gen)
    m = mask(g, r)
    if torch.allclose(m, g * r) or torch.allclose(m, g + r):
        raise Wrong("g = 1 must give a mask of exactly 1 whatever r is, and g = 0 must give r.")
    if torch.allclose(m, r + (1 - r) * (1 - g)) or torch.allclose(m, (1 - g) * r):
        raise Wrong("Did you swap g and 1 − g? The importance is the floor of the mask.")
    if bool((m < g - 1e-6).any()) or bool((m > 1 + 1e-6).any()):
        raise Wrong("The mask left the interval [g, 1].")
    if not torch.allclose(m, g + (1 - g) * r):
        raise Wrong("In [g, 1], but not uniform there: r = ½ must give the middle of the interval.")
    return "the mask moves evenly from g (at r = 0) to 1 (at r = 1)"


@check
def check_2(minimality: Callable[[Tensor, float], Tensor]) -> str:
    """3.2: mean over inputs of Σ_c g_c^p."""
    g = torch.rand(7, 3, generator=torch.Generator().manual_seed(32))
    for p in (1.0, 2.0):
        got, want = float(minimality(g, p)), float((g**p).sum(1).mean())
        if abs(got - 7 * want) < 1e-4:
            raise Wrong("That is the sum over inputs; the loss is a mean over the batch.")
        if abs(got - want / 3) < 1e-5:
            raise Wrong("That averages over subcomponents too; they must be summed.")
        if p == 2.0 and abs(got - float(g.sum(1).mean())) < 1e-5:
            raise Wrong("p is ignored: did you forget the power?")
        if abs(got - want) > 1e-5:
            raise Wrong(f"For p = {p} and a random batch expected {want:.4f}, got {got:.4f}.")
    return "a sum over subcomponents, a mean over inputs"


@check
def check_3(largest: float) -> str:
    """3.3: two cancelling dead pieces are killed by random masks, so their norm must be 0."""
    if largest == float("inf"):
        raise Wrong(
            "Their sum cancels, so faithfulness is content; but on each input the random masks "
            "r₁, r₂ differ, and (r₁ − r₂) P a ≠ 0 reaches the output."
        )
    if largest != 0:
        raise Wrong("Scale it: if some size were harmless, why would half of it not be?")
    return "what is never important must write nothing that reaches the output"


@check
def check_4(ungated: Callable[[Tensor, Tensor, Tensor], Tensor]) -> str:
    """3.4: with g = 1 the masked pass is the target itself."""
    gen = torch.Generator().manual_seed(34)
    W, b, x = (torch.randn(*s, generator=gen) for s in ((2, 5), (5,), (6, 5)))
    got, want = ungated(x, W, b), torch.relu(x @ W.T @ W + b)
    if got.shape == want.shape and torch.allclose(got, x @ W.T @ W + b, atol=1e-5):
        raise Wrong("The final ReLU is missing.")
    if got.shape == want.shape and torch.allclose(got, torch.relu(x @ W.T @ W), atol=1e-5):
        raise Wrong("The bias is missing: biases are not decomposed and always on.")
    if got.shape != want.shape or not torch.allclose(got, want, atol=1e-5):
        raise Wrong("With g = 1 every mask is 1 whatever r is: the masked pass is the target.")
    return "without the penalty, 'everything is important' passes every test"
