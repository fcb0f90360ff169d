"""The search over a box, on functions whose maxima are known."""

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spd_mini.search import Search, where
from zoo import generator, randn

A = torch.tensor([1.0, 2.0, -3.0])


def linear(r: Mapping[str, Tensor]) -> Tensor:
    """z = r₀ + 2 r₁ − 3 r₂, from −3 to 3."""
    return r["a"] @ A


def parabola(r: Mapping[str, Tensor]) -> Tensor:
    """(z − ½)²: 6.25 at the corner (1, 1, 0), 12.25 at (0, 0, 1)."""
    return (linear(r) - 0.5).square()


def corner(*values: float) -> dict[str, Tensor]:
    return {"a": torch.tensor([values], dtype=torch.float32)}


def search() -> Search:
    return Search(parabola, lambda r: linear(r)[:, None], corner(1, 1, 1))


def test_a_climb_stops_at_the_top_of_its_own_hill() -> None:
    s = search()
    assert float(s.best_error) == 0.25
    assert torch.equal(s.climb(corner(1, 0, 0))["a"], corner(1, 1, 0)["a"])
    assert float(s.best_error) == 6.25
    assert torch.equal(s.climb(corner(0, 0, 1))["a"], corner(0, 0, 1)["a"])
    assert float(s.best_error) == 12.25


def test_driving_an_output_both_ways_finds_the_higher_hill() -> None:
    s = search()
    s.drive(count=5, seed=0)  # there is one output only
    assert float(s.best_error) == 12.25
    assert torch.equal(s.best["a"], corner(0, 0, 1)["a"])


def test_ascent_by_hand() -> None:
    """From (½, ½, ½), z = 0: the slope is −2·½·(1, 2, −3), so r₂ rises and the others fall."""
    s = search()
    s.ascend(corner(0.5, 0.5, 0.5), steps=1, step_size=0.3)
    torch.testing.assert_close(s.best["a"], corner(0.2, 0.2, 0.8)["a"])
    torch.testing.assert_close(s.best_error, torch.tensor([(0.2 + 0.4 - 2.4 - 0.5) ** 2]))
    s.ascend(corner(0.5, 0.5, 0.5), steps=2, step_size=0.3, shrink=0.5)
    torch.testing.assert_close(s.best["a"], corner(0.05, 0.05, 0.95)["a"])
    s.ascend(corner(0.5, 0.5, 0.5), steps=9, step_size=0.3)
    assert torch.equal(s.best["a"], corner(0, 0, 1)["a"]), "clipped to the box"


def test_rows_are_kept_one_by_one() -> None:
    s = Search(parabola, lambda r: linear(r)[:, None], {"a": torch.ones(2, 3)})
    s.consider({"a": torch.tensor([[1.0, 1, 0], [1, 0, 0]])}, torch.tensor([6.25, 0.2]))
    assert torch.equal(s.best["a"], torch.tensor([[1.0, 1, 0], [1, 1, 1]]))
    assert s.best_error.tolist() == [6.25, 0.25]


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 3)])
def test_where_takes_whole_rows(shape: tuple[int, ...]) -> None:
    ones, zeros = {"a": torch.ones(shape)}, {"a": torch.zeros(shape)}
    mixed = where(torch.tensor([True, False]), ones, zeros)["a"]
    assert torch.equal(mixed[0], ones["a"][0]) and torch.equal(mixed[1], zeros["a"][1])


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40)
def test_a_climb_never_falls_and_ends_where_no_block_step_helps(seed: int) -> None:
    """On ‖Q r‖² over two names; the end is a corner whose value no smaller step raises either."""
    Q = randn(4, 6, seed=seed)

    def bowl(r: Mapping[str, Tensor]) -> Tensor:
        return (torch.cat([r["a"], r["b"]], 1) @ Q.mT).square().sum(1)

    s = Search(bowl, bowl, {"a": torch.zeros(5, 3), "b": torch.zeros(5, 3)})
    start = {n: r.round() for n, r in s.draw(generator(seed)).items()}
    end = s.climb(start)
    assert bool((bowl(end) >= bowl(start)).all())
    assert all(bool(((v == 0) | (v == 1)).all()) for v in end.values())
    torch.testing.assert_close(s.best_error, torch.maximum(bowl(end), torch.zeros(5)))
    again = s.climb(end)
    assert all(torch.equal(end[n], again[n]) for n in end)
