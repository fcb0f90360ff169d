"""Numbers as text: how the arrays of a payload travel, small once the page is compressed.

Exact: base64 of little-endian float32, all lowest bytes first, all highest last (signs and
exponents side by side compress well). Fixed: multiples of 2^-digits in an exponential Golomb code,
in which small numbers, most of a large model, are short.
"""

import base64
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

BUDGET = 126_000
"""Bytes that the fixed arrays of one payload may take; digits are dropped until they fit."""
EXTRA_DIGITS = 4
DIGITS = np.arange(24, 9.9, -0.25)
LARGEST = 2.0**29
"""In steps of 2^-digits; decides the digits of arrays with numbers of 32 and above."""


class Fine(NamedTuple):
    """An array that needs more digits: what leads to inner activations behind steep importances."""

    array: Tensor


def numbers(array: Tensor, what: str) -> Tensor:
    """The values on the CPU, as they are. Raises ValueError, naming `what`, unless all are finite."""
    array = array.detach().cpu()
    if not array.isfinite().all():
        raise ValueError(f"{what} has values that are not finite; nothing to explore")
    return array


def exact(array: Tensor) -> str:
    """float32 values, byte plane by byte plane."""
    planes = array.float().contiguous().numpy().astype("<f4").reshape(-1, 1).view("u1").T
    return base64.b64encode(planes.tobytes()).decode()


def code_lengths(whole: NDArray[np.int64], low: int) -> NDArray[np.int64]:
    """Bits of each number |q|: L zeros, |q| / 2^low + 1 in L + 1 bits, `low` more bits, the sign."""
    size = np.frexp((whole >> low) + 1)[1]  # L + 1
    lengths: NDArray[np.int64] = 2 * size - 1 + low + (whole > 0)
    return lengths


def best_low(whole: NDArray[np.int64]) -> int:
    """The number of low bits with which the code is shortest."""
    return min(range(25), key=lambda low: int(code_lengths(whole, low).sum()))


def fixed(array: Tensor, digits: float) -> dict[str, Any]:
    """Multiples of 2^-digits: "low", see `code_lengths`, and the bits of all numbers, in order."""
    q = np.rint(array.double().numpy().ravel() * 2.0**digits).astype(np.int64)
    whole = np.abs(q)
    low = best_low(whole)
    lengths = code_lengths(whole, low)
    code = whole + (1 << low)  # (|q| >> low) + 1, then the low bits
    code = np.where(q == 0, code, 2 * code + (q < 0))
    bits = np.unpackbits(code.astype(">u8").view("u1").reshape(-1, 8), axis=1)
    stream = np.packbits(bits[np.arange(64) >= 64 - lengths[:, None]])
    return {"digits": digits, "low": low, "bits": base64.b64encode(stream.tobytes()).decode()}


def digits_for(arrays: list[Tensor], fine: list[Tensor]) -> float:
    """The most digits, up to 24, with which all arrays stay within BUDGET."""
    scaled = [a.double().numpy().ravel() for a in arrays]
    scaled += [a.double().numpy().ravel() * 2.0**EXTRA_DIGITS for a in fine]
    for digits in DIGITS:
        whole = [np.rint(np.abs(values) * 2.0**digits) for values in scaled]
        counts = [w.astype(np.int64) for w in whole if w.max(initial=0) < LARGEST]
        if len(counts) < len(whole):
            continue
        if sum(int(code_lengths(w, best_low(w)).sum()) for w in counts) <= 8 * BUDGET:
            break
    return float(digits)


def packed(payload: Any, as_fixed: bool = False) -> Any:
    """The payload with every tensor written as text, exactly or with as many digits as fit."""
    found: list[Tensor] = []
    fine: list[Tensor] = []

    def collect(node: Any) -> None:
        if isinstance(node, Tensor):
            found.append(node)
        elif isinstance(node, Fine):
            fine.append(node.array)
        elif isinstance(node, dict | list):
            for child in node.values() if isinstance(node, dict) else node:
                collect(child)

    def write(node: Any) -> Any:
        if isinstance(node, Tensor):
            return fixed(node, digits) if as_fixed else exact(node)
        if isinstance(node, Fine):
            return fixed(node.array, digits + EXTRA_DIGITS)
        if isinstance(node, dict):
            return {key: write(child) for key, child in node.items()}
        return [write(child) for child in node] if isinstance(node, list) else node

    collect(payload)
    digits = digits_for(found, fine) if as_fixed else 0.0
    return write(payload)
