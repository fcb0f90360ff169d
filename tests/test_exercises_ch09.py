"""The measurements behind the text of chapter 9."""

import math

import pytest

from spd_mini import Config, decompose
from spd_mini.exercises import ch09
from spd_mini.targets.sparse import SparseFeatures
from zoo import tms


@pytest.mark.parametrize(
    ("shares", "want"),
    [
        ([0, 0, 0, 0, 0], (0, 0)),
        ([0, 0, 1, 0, 0], (0, 4)),
        ([0, 0.5, 1, 0.4, 0], (2, 6)),
        ([0, 0, 1, 1, 1], (4, math.inf)),
        ([1, 1, 1, 1, 1], (8, math.inf)),
        ([1, 0, 0, 1, 1], (2, math.inf)),
        ([1, 0, 0, 0, 0], (0, math.inf)),
        ([1, 0, 1, 0, 0], (0, math.inf)),
    ],
)
def test_width_of_the_working_region(shares: list[float], want: tuple[float, float]) -> None:
    """Two octaves from setting to setting; half of the runs are enough."""
    assert ch09.width(shares, 2) == want


def test_which_region_is_wider() -> None:
    """Of two rows the larger bounds, each by itself; what reaches no further is undecided."""
    rows = [[0.0, 0.6, 0.6, 0.0, 0.0], [0.6, 0.0, 0.0, 0.0, 0.0], [0.0] * 5]
    assert ch09.widest(rows, 0.25) == (0.25, math.inf)
    assert ch09.widest(rows[:1], 0.25) == (0.25, 0.75)
    for least, most, other, want in (
        (1.0, 3.0, (0.0, 0.5), "a"),
        (1.0, 3.0, (0.5, 1.0), "a"),
        (0.0, 0.5, (1.0, 3.0), "b"),
        (1.0, 3.0, (0.5, math.inf), None),
        (0.0, 2.0, (0.0, 2.0), None),
        (0.0, 2.0, (0.0, 0.0), "a"),  # one that works, against none
        (0.0, 0.0, (0.0, 0.0), None),
    ):
        assert ch09.wider({"a": (least, most), "b": other}) == want


def test_what_a_tied_matrix_trains_counts_once() -> None:
    """4 × 2 and back: 3 pieces of 4 + 2 numbers, and two matrices' gates of 3 · 4 + 1."""
    config = Config(C=3, gate_hidden=4, steps=1, batch_size=4)
    data = SparseFeatures(4, 0.4)
    d = decompose(tms(), data, config, tied={"decoder": "encoder"}, device="cpu", progress=False)
    assert ch09.trained_numbers(d) == 3 * 6 + 2 * 3 * 13


def test_costs_grow_as_the_formulas_say() -> None:
    small, large = ch09.costs(8), ch09.costs(32)
    for n, cost in ((8, small), (32, large)):
        assert cost["APD"][0] == 2 * n**3
        assert cost["SPD"][0] == 2 * n**2 + 25 * n
    growth = {m: large[m][1] / small[m][1] for m in ("APD", "SPD")}
    assert growth["APD"] > 3 * growth["SPD"] > 3
