"""Batches: functions and iterables, what is checked, and where the stream stands."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from spd_mini.data import Batches, describe, stream
from zoo import generator, randn, rows

CPU = torch.device("cpu")


def batches(source: Any, n: int = 4, seed: int = 0) -> Batches:
    return Batches(source, n, seed, CPU)


def test_a_function_gets_n_and_the_runs_generator() -> None:
    seen: list[tuple[int, int]] = []

    def sample(n: int, g: torch.Generator) -> Tensor:
        seen.append((n, g.initial_seed()))
        return torch.rand(n, 2, generator=g)

    b = batches(sample, n=6, seed=3)
    x, weight = b.next()
    assert x.shape == (6, 2)
    assert weight is None
    assert seen == [(6, stream(3, 1))]


def test_same_seed_same_batches() -> None:
    a, b, other = batches(rows(2)), batches(rows(2)), batches(rows(2), seed=1)
    first = a.next()[0]
    assert torch.equal(first, b.next()[0])
    assert not torch.equal(first, a.next()[0]), "the stream must move on"
    assert not torch.equal(first, other.next()[0])


def test_streams_of_a_run_differ() -> None:
    seeds = {stream(seed, index) for seed in range(50) for index in range(3)}
    assert len(seeds) == 150
    assert all(0 <= s < 2**63 for s in seeds)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    b = batches(rows(2))
    b.probe()
    b.next()
    assert torch.equal(torch.get_rng_state(), before)


def test_pairs_carry_row_weights() -> None:
    weight = torch.tensor([0.5, 0.25, 0.25])
    b = batches(lambda n, g: (torch.rand(3, 2, generator=g), weight))
    assert b.probe().shape == (3, 2), "with weights, the number of rows is the sampler's business"
    assert b.next()[1] is weight


@pytest.mark.parametrize(
    "make",
    [
        lambda x: [x[:4], x[4:8], x[8:]],
        lambda x: [(x[:4], 1), (x[4:8], 2), (x[8:], 3)],
        lambda x: [[x[:4]], [x[4:8]], [x[8:]]],
        lambda x: DataLoader(TensorDataset(x), batch_size=4),
        lambda x: DataLoader(TensorDataset(x, torch.zeros(12)), batch_size=4),
        lambda x: DataLoader(list(x), batch_size=4),  # type: ignore[arg-type]
    ],
)
def test_iterables_of_batches_go_round(make: Callable[[Tensor], Any]) -> None:
    x = randn(12, 2)
    b = batches(make(x))
    assert torch.equal(b.probe(), x[:4])
    for _ in range(2):
        for k in range(3):
            got, weight = b.next()
            assert torch.equal(got, x[4 * k : 4 * k + 4])
            assert weight is None


def test_the_probe_leaves_no_trace() -> None:
    probed, untouched = batches(rows(2)), batches(rows(2))
    first = probed.probe()
    assert torch.equal(probed.next()[0], first)
    assert torch.equal(untouched.next()[0], first)


def test_the_probe_loses_no_batch_of_a_one_shot_iterator() -> None:
    x = randn(6, 2)

    def once() -> Iterator[Tensor]:
        yield x[:3]
        yield x[3:]

    b = batches(once())
    b.probe()
    assert torch.equal(b.next()[0], x[:3])
    assert torch.equal(b.next()[0], x[3:])
    with pytest.raises(ValueError, match="empty, or cannot be iterated a second time"):
        b.next()


def test_an_empty_iterable() -> None:
    with pytest.raises(ValueError, match="the iterable of batches is empty"):
        batches([]).probe()


@pytest.mark.parametrize("source", [rows(2), [randn(3, 2, seed=k) for k in range(5)]])
def test_skip_moves_to_where_a_run_stood(source: Any) -> None:
    run, resumed = batches(source), batches(source)
    run.probe()
    for _ in range(7):
        run.next()
    state = run.state()
    resumed.probe()
    resumed.skip(7, state)
    assert torch.equal(resumed.next()[0], run.next()[0])


# What is refused


def returns(value: Any) -> Callable[[int, torch.Generator], Any]:
    return lambda n, g: value


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ([1.0, 2.0], "list"),
        (None, "NoneType"),
        (torch.tensor(3.0), r"a tensor of shape \(\), torch.float32"),
        ((randn(4, 2), 1, 2), "tuple"),
        ((randn(4, 2), [0.25] * 4), "list"),
        ((randn(4, 2), torch.tensor(1.0)), r"a tensor of shape \(\)"),
    ],
)
def test_not_a_tensor_of_inputs(value: Any, got: str) -> None:
    with pytest.raises(ValueError, match=f"sample must return a tensor of inputs.*, got {got}"):
        batches(returns(value)).probe()


def test_batches_that_are_not_tensors() -> None:
    with pytest.raises(ValueError, match="sample must return a tensor of inputs.*got str"):
        batches(["abc"]).probe()


def test_a_single_tensor_is_not_a_stream_of_batches() -> None:
    with pytest.raises(ValueError, match=r"single tensor; pass a list of batches"):
        batches(randn(8, 2))


def test_wrong_number_of_rows() -> None:
    with pytest.raises(ValueError, match=r"sample\(4, generator\) must return 4 rows.*\(3, 2\)"):
        batches(returns(randn(3, 2))).probe()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_inputs_that_are_not_finite(bad: float) -> None:
    x = randn(4, 2)
    x[2, 1] = bad
    for source in (returns(x), [x]):
        with pytest.raises(ValueError, match="inputs contain NaN or infinite values"):
            batches(source).probe()


@pytest.mark.parametrize(
    "weight",
    [
        torch.full((3,), 1 / 3),
        torch.full((4, 1), 1 / 4),
        torch.full((4,), 1 / 2),
        torch.tensor([1.5, -0.5, 0.0, 0.0]),
        torch.full((4,), float("nan")),
    ],
)
def test_row_weights(weight: Tensor) -> None:
    with pytest.raises(ValueError, match=r"shape \(4,\), be ≥ 0 and sum to 1; got shape") as error:
        batches(returns((randn(4, 2), weight))).probe()
    assert str(tuple(weight.shape)) in str(error.value)


def test_describe() -> None:
    assert describe(torch.zeros(2, 3)) == "a tensor of shape (2, 3), torch.float32"
    assert describe("x") == "str"


def test_tokens_need_not_be_finite_checked() -> None:
    tokens = torch.randint(5, (4, 3), generator=generator())
    assert torch.equal(batches(returns(tokens)).probe(), tokens)
