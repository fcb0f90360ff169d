"""The checks of chapter 11: right answers pass, planted mistakes are named."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spd_mini.exercises import ch11


def delete(W: Tensor, U: Tensor, V: Tensor, which: list[int]) -> Tensor:
    return W - sum((torch.outer(U[:, c], V[c]) for c in which), torch.zeros_like(W))


def stay(W: Tensor, U: Tensor, V: Tensor, which: list[int]) -> Tensor:
    rest = [c for c in range(len(V)) if c not in which]
    return delete(0 * W, -U, V, rest)


def change(W: Tensor, k: Tensor, wanted: Tensor, S: Tensor) -> Tensor:
    q = torch.linalg.inv(S) @ k
    return torch.outer(wanted - W @ k, q / (k @ q))


def plain(W: Tensor, k: Tensor, wanted: Tensor, S: Tensor) -> Tensor:
    return change(W, k, wanted, torch.eye(len(k)))


def unscaled(W: Tensor, k: Tensor, wanted: Tensor, S: Tensor) -> Tensor:
    return torch.outer(wanted - W @ k, torch.linalg.inv(S) @ k)


def inverted(W: Tensor, k: Tensor, wanted: Tensor, S: Tensor) -> Tensor:
    return change(W, k, wanted, torch.linalg.inv(S))


def front(left: list[float], lost: list[float]) -> list[int]:
    def beaten(i: int) -> bool:
        others = [(a, b) for a, b in zip(left, lost, strict=True) if (a, b) != (left[i], lost[i])]
        return any(a <= left[i] and b <= lost[i] for a, b in others)

    return [i for i in range(len(left)) if not beaten(i)]


def strictly(left: list[float], lost: list[float]) -> list[int]:
    pairs = list(zip(left, lost, strict=True))
    return [i for i, (a, b) in enumerate(pairs) if not any(x < a and y < b for x, y in pairs)]


def best_of_each(left: list[float], lost: list[float]) -> list[int]:
    return [i for i in range(len(left)) if left[i] == min(left) and lost[i] == min(lost)]


def beaten(left: list[float], lost: list[float]) -> list[int]:
    return [i for i in range(len(left)) if i not in front(left, lost)]


def one_of_equals(left: list[float], lost: list[float]) -> list[int]:
    pairs = list(zip(left, lost, strict=True))
    return [i for i in front(left, lost) if pairs.index(pairs[i]) == i]


def pays(once: float, each: float, other: float) -> float:
    return math.floor(once / (other - each)) + 1 if other > each else math.inf


RIGHT: list[tuple[Callable[[Any], None], Any]] = [
    (ch11.check_1, delete),
    (ch11.check_2, change),
    (ch11.check_3, front),
    (ch11.check_4, pays),
]

MISTAKES: list[tuple[Callable[[Any], None], Any, str]] = [
    (ch11.check_1, stay, "leave over"),
    (ch11.check_1, lambda W, U, V, which: delete(W, -U, V, which), "second time"),
    (ch11.check_1, lambda W, U, V, which: W - delete(W, U, V, which), "what goes"),
    (ch11.check_1, lambda W, U, V, which: W, "Nothing was changed"),
    (ch11.check_1, lambda W, U, V, which: W[0], "should have shape"),
    (ch11.check_1, lambda W, U, V, which: W + 7, "The new weight: expected"),
    (ch11.check_2, plain, "use S"),
    (ch11.check_2, lambda W, k, wanted, S: change(0 * W, k, wanted, S), "something for k already"),
    (ch11.check_2, unscaled, "factor is missing"),
    (ch11.check_2, inverted, "others use most"),
    (ch11.check_2, lambda W, k, wanted, S: W + change(W, k, wanted, S), "asked is the change"),
    (ch11.check_3, strictly, "As good in one"),
    (ch11.check_3, best_of_each, "no defeat"),
    (ch11.check_3, beaten, "that are beaten"),
    (ch11.check_3, lambda a, b: front(a, b)[::-1], "another order"),
    (ch11.check_3, one_of_equals, "both stay"),
    (ch11.check_3, lambda a, b: 3, "list of indices"),
    (ch11.check_3, lambda a, b: [99], "expected"),
    (ch11.check_4, lambda o, e, t: o / (t - e) if t > e else math.inf, "one more"),
    (ch11.check_4, lambda o, e, t: math.floor(o / t) + 1, "with the decomposition, too"),
    (ch11.check_4, lambda o, e, t: pays(o, e, t) if t > e else 1, "math.inf"),
    (ch11.check_4, lambda o, e, t: pays(o, e, t) + 5, "expected"),
    (ch11.check_4, lambda o, e, t: pays(o, e, t) + 0.5, "come whole"),
]
