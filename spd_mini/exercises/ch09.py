"""Checks for the exercises of chapter 9, and what its text measures with."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..baselines import apd
from ..config import Config
from ..decompose import decompose
from ..decomposition import Decomposition
from ..targets.sparse import SparseFeatures
from . import Wrong, as_tensor, check, compare, random


@check
def check_1(attribution: Callable[..., Tensor]) -> str:
    """9.1: Σ_o (Σ_l ∂f_o/∂y^l · P_c^l a^l)² for one input, all components."""
    shapes = ((4, 3), (2, 4))  # of two matrices; three components, five outputs
    acts = [random(i, seed=91 + i) for _, i in shapes]
    grads = [random(5, o, seed=95 + o) for o, _ in shapes]
    pieces = [random(3, o, i, seed=99 + o) for o, i in shapes]
    got = as_tensor(attribution(acts, grads, pieces), (3,), "attribution(acts, grads, pieces)")
    layers = zip(acts, grads, pieces, strict=True)
    # (matrices, components, outputs)
    by_layer = torch.stack([torch.einsum("od,cdi,i->co", g, P, a) for a, g, P in layers])
    want = by_layer.sum(0).square().sum(1)
    likely = {
        "Sum over the matrices before squaring: a component acts in all of them at once.": (
            by_layer.square().sum((0, 2))
        ),
        "Square before summing over the outputs: changes of two outputs must not cancel.": (
            by_layer.sum((0, 2)).square()
        ),
        "The square is missing.": by_layer.sum((0, 2)),
        "Take the square, not the absolute value.": by_layer.sum(0).abs().sum(1),
        "Only the first matrix is counted.": by_layer[0].square().sum(1),
        "Only the last matrix is counted.": by_layer[-1].square().sum(1),
        "Sum over the outputs; do not take the mean.": want / 5,
    }
    compare(got, want, likely, "attribution(...)")
    return "one backward pass for all outputs estimates what removing each component would do"


@check
def check_2(chosen: Callable[[Tensor, float], Tensor]) -> str:
    """9.2: the ⌊k · B⌋ highest of all B × C attributions, without zeros."""
    for B, C, k in ((40, 5, 0.33), (30, 4, 1.25)):
        scores = random(B, C, seed=92).square()
        scores[B // 2 :] *= 0.1  # inputs on which everything matters less
        got = as_tensor(chosen(scores, k), (B, C), "chosen(scores, k)").bool()
        count = int(k * B)
        want = scores >= scores.flatten().sort(descending=True).values[count - 1]
        each = scores >= scores.sort(1, descending=True).values[:, [max(math.ceil(k), 1) - 1]]
        if torch.equal(got, want):
            continue
        if torch.equal(got, each) or bool((got.sum(1) == got[0].sum()).all()):
            raise Wrong("The budget is the batch's: inputs may use different numbers.")
        if int(got.sum()) == int(k * B * C):
            raise Wrong("k is components an input: the batch gets k · B of them, not k · B · C.")
        if int(got.sum()) != count:
            raise Wrong(f"{int(got.sum())} are active; ⌊k · B⌋ is {count}.")
        raise Wrong("The number is right, but they are not the highest attributions.")
    empty = torch.zeros(10, 3)
    empty[0, 1] = 0.5
    if bool(as_tensor(chosen(empty, 1.0), (10, 3), "chosen(scores, k)").bool()[1:].any()):
        raise Wrong("An attribution of 0 is never active, even when the budget is not used up.")
    return "whether a component is active depends on who else is in the batch"


@check
def check_3(length: Callable[[float, float], float]) -> str:
    """9.3: the stationary s of pull (1 − s²)² + price s that is a minimum, near 1."""
    for pull, price in ((0.027, 0.0167), (1.0, 0.3), (0.5, 0.0)):
        got = float(as_tensor(length(pull, price), (), "length(pull, price)"))
        s = torch.linspace(0.58, 1, 420_001, dtype=torch.float64)
        want = float(s[(pull * (1 - s**2) ** 2 + price * s).argmin()])
        if abs(got - want) < 1e-3:
            continue
        if not 0 < got <= 1:
            raise Wrong(f"A length between 0 and 1 is asked for, not {got:.4f}.")
        if abs(4 * pull * got * (1 - got**2) - price) < 1e-3 * max(price, pull):
            raise Wrong("The slope is zero there, but it is a maximum: take the larger root.")
        one = 1 - price / (2 * pull)
        if abs(got - one) < 1e-3:
            raise Wrong("Both matrices shrink: the output goes with s², not with s.")
        if abs(got - (1 - price / (8 * pull))) < 1e-3:
            raise Wrong("That is the first step from s = 1. Solve 4 · pull · s (1 − s²) = price.")
        raise Wrong(f"length({pull}, {price}) should be {want:.4f}, not {got:.4f}.")
    return "any price on size, however low, leaves the pieces too short"


@check
def check_4(trained: Callable[..., Sequence[int]]) -> str:
    """9.4: C m Σ(d_in + d_out), and Σ C (d_in + d_out) + C (3 d_gate + 1)."""
    cases: list[tuple[list[tuple[int, int]], int, int, int]] = [
        ([(7, 5)], 4, 3, 8),
        ([(50, 20), (20, 50)], 30, 20, 16),
    ]
    for shapes, C, m, gate in cases:
        got = as_tensor(list(trained(shapes, C, m, gate)), (2,), "trained(shapes, C, m, d_gate)")
        ends, L = sum(a + b for a, b in shapes), len(shapes)
        apd, spd = C * m * ends, C * ends + L * C * (3 * gate + 1)
        likely: dict[str, list[float]] = {
            "SPD's gates are trained, too: three vectors and a number for each subcomponent.": [
                apd, C * ends],
            "A gate has 3 d_gate + 1 numbers: in-weights, biases, out-weights, one more bias.": [
                apd, C * ends + L * C * 3 * gate],
            "Two weight vectors and no biases make 2 d_gate; there are d_gate + 1 biases.": [
                apd, C * ends + L * C * 2 * gate],
            "Every matrix has gates of its own.": [apd, C * ends + C * (3 * gate + 1)],
            "An APD component has rank m: m columns and m rows a matrix.": [C * ends, spd],
            "Factors are trained, not full matrices.": [C * sum(a * b for a, b in shapes), spd],
            "First APD, then SPD.": [spd, apd],
        }  # fmt: skip
        wrong = {why: torch.tensor([float(v) for v in values]) for why, values in likely.items()}
        compare(got, torch.tensor([float(apd), float(spd)]), wrong, "trained(...)")
    return "for full-rank components the first grows like C times all parameters"


def width(shares: Sequence[float], step: float, least: float = 0.5) -> tuple[float, float]:
    """How many octaves wide a working region is: at least, and less than.

    shares: part of the runs that succeed at each of some settings, `step` octaves apart; a setting
    works when its share is ≥ `least`. Of the longest stretch of working neighbours: the octaves
    from its first to its last, and between the two beside it that fail (∞ at the end of the axis);
    (0, 0) when nothing works.
    """
    best = (0.0, 0.0)
    for i, j in itertools.combinations(range(len(shares) + 1), 2):
        if min(shares[i:j]) >= least:
            open_end = i == 0 or j == len(shares)
            best = max(best, ((j - i - 1) * step, math.inf if open_end else (j - i + 1) * step))
    return best


def widest(rows: Sequence[Sequence[float]], step: float) -> tuple[float, float]:
    """`width` over several rows of a grid: the largest lower and the largest upper bound."""
    low, high = zip(*(width(row, step) for row in rows), strict=True)
    return max(low), max(high)


def wider(regions: Mapping[str, tuple[float, float]]) -> str | None:
    """Which of two regions, by name, is wider for sure; None if that is undecided.

    It is one that works at all and whose lower bound reaches the other's upper one.
    """
    for (name, (least, most)), (_, bound) in itertools.permutations(regions.items(), 2):
        if most > 0 and least >= bound[1]:
            return name
    return None


def trained_numbers(d: Decomposition | apd.APD) -> int:
    """How many numbers were trained; a matrix tied to another has no U and V of its own."""
    if isinstance(d, apd.APD):
        return d.trained_parameters
    free = [n for n in d.U if n not in d.wrapped.tied]
    gates = sum(t.numel() for g in d.gates.values() for t in g)
    return gates + sum(d.U[n].numel() + d.V[n].numel() for n in free)


def costs(n: int) -> dict[str, tuple[int, float]]:
    """What one step of each method takes on an n × n matrix with C = n, 64 rows, d_gate = 8.

    Returns {method: (numbers trained, MiB of tensors kept for backward passes)}. APD's components
    are of full rank, as two factors.
    """
    layer, draw = nn.Sequential(nn.Linear(n, n, bias=False)), SparseFeatures(n, 0.5)
    free = apd.APDConfig(C=n, rank=n, topk=1.0, steps=1, batch_size=64)
    narrow = Config(C=n, gate_hidden=8, steps=1, batch_size=64)
    held: list[int] = []

    def keep(t: Tensor) -> Tensor:
        held.append(t.numel() * t.element_size())
        return t

    def kept(run: Callable[[], Decomposition | apd.APD]) -> tuple[int, float]:
        held.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            return trained_numbers(run()), sum(held) / 2**20

    return {
        "APD": kept(lambda: apd.decompose(layer, draw, free, device="cpu")[0]),
        "SPD": kept(lambda: decompose(layer, draw, narrow, device="cpu", progress=False)),
    }
