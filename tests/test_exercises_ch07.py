"""The training runs behind exercise 7.5."""

import dataclasses

import pytest
import torch
from torch import Tensor

from answers_ch07 import embedding
from spd_mini.exercises import Wrong, ch07
from spd_mini.targets.resid_mlp import RESID_MLP_1

SMALL = dataclasses.replace(RESID_MLP_1, n_features=8, d_mlp=4, feature_probability=0.1)


def overlaps(n: int, size: float) -> Tensor:
    M = torch.randn(n, n, generator=torch.Generator().manual_seed(0))
    return size * (M + M.mT).fill_diagonal_(0)


@pytest.mark.slow
def test_mixing_trains_one_network_for_each_strength() -> None:
    M = overlaps(8, 0.05)
    before = ch07.mixing(embedding, M, steps=1, preset=SMALL)
    after = ch07.mixing(embedding, M, steps=300, preset=SMALL)
    assert list(after) == [0.0, 0.5, 1.0]
    assert all(after[s] < 0.7 * before[s] for s in after)
    assert after == ch07.mixing(embedding, M, steps=300, preset=SMALL)


def test_the_embedding_that_is_given_is_the_one_that_is_used() -> None:
    M = overlaps(8, 0.05)
    asked: list[float] = []

    def spy(M: Tensor, s: float) -> Tensor:
        asked.append(s)
        return embedding(M, s)

    errors = ch07.mixing(spy, M, strengths=(0.0, 0.3), steps=20, preset=SMALL)
    assert asked == [0.0, 0.3]
    plain = ch07.mixing(lambda M, s: torch.eye(8), M, strengths=(0.3,), steps=20, preset=SMALL)
    assert plain[0.3] == errors[0.0] != errors[0.3]


def test_mixing_leaves_the_global_random_state_alone() -> None:
    state = torch.get_rng_state()
    ch07.mixing(embedding, overlaps(8, 0.05), strengths=(1.0,), steps=2, preset=SMALL)
    assert torch.equal(state, torch.get_rng_state())


def test_an_embedding_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(Wrong, match=r"should have shape \(100, 100\), yours has \(8, 8\)"):
        ch07.mixing(lambda M, s: M, torch.zeros(8, 8))
