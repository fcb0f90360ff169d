"""Recovery metrics: right on the true columns, and failing on every kind of wrong matrix."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from spd_mini import Decomposition, recovery
from spd_mini.recovery import Dense, Identity, Truth
from zoo import by_hand, constant_gates, exact_columns, randn, threshold_gates, triangle


def eye(n: int, spare: int = 2, on: float = 1.0, off: float = 0.0) -> Tensor:
    g = torch.full((n, n + spare), off)
    g[:, :n] += (on - off) * torch.eye(n)
    return g


def shuffled(g: Tensor, seed: int = 0) -> Tensor:
    return g[:, torch.randperm(g.shape[1], generator=torch.Generator().manual_seed(seed))]


# Patterns


def test_identity_pattern_in_any_order() -> None:
    for seed in range(5):
        g = shuffled(eye(4), seed)
        errors, matched = recovery.identity_errors(g, 4)
        assert errors == 0
        assert all(float(g[i, c]) == 1 for i, c in enumerate(matched))


@pytest.mark.parametrize(
    ("on", "off", "errors"),
    [(0.9, 0.1, 0), (0.9001, 0.0999, 0), (0.89, 0.0, 4), (1.0, 0.11, 20), (0.5, 0.5, 24)],
)
def test_identity_thresholds(on: float, off: float, errors: int) -> None:
    """4 matched entries and 20 others; 0.9 is on and 0.1 is off, inclusive."""
    g = eye(4).double()
    assert recovery.identity_errors(g * on + (1 - g) * off, 4)[0] == errors


def merged(g: Tensor) -> Tensor:
    """Features 0 and 1 share subcomponent 0."""
    g = g.clone()
    g[1, 0], g[1, 1] = 1.0, 0.0
    return g


def duplicated(g: Tensor) -> Tensor:
    """Feature 0 has two subcomponents."""
    g = g.clone()
    g[0, -1] = 1.0
    return g


def missing(g: Tensor) -> Tensor:
    g = g.clone()
    g[2] = 0.0
    return g


@pytest.mark.parametrize(
    ("damage", "errors"), [(merged, 2), (duplicated, 1), (missing, 1), (torch.zeros_like, 4)]
)
@pytest.mark.parametrize("seed", range(3))
def test_identity_pattern_fails_on_wrong_matrices(damage: object, errors: int, seed: int) -> None:
    assert callable(damage)
    assert recovery.identity_errors(shuffled(damage(eye(4)), seed), 4)[0] == errors


def test_identity_matching_is_the_best_one_to_one() -> None:
    """Greedy would give feature 0 its 0.95 and leave feature 1 without; the best sum does not."""
    g = torch.tensor([[0.95, 0.94], [0.93, 0.0]])
    assert recovery.identity_errors(g, 2)[1] == [1, 0]


def test_fewer_subcomponents_than_features() -> None:
    assert recovery.identity_errors(torch.eye(4)[:, :3], 4)[0] == 1


def test_identity_needs_a_probe_for_each_feature() -> None:
    with pytest.raises(ValueError, match="identity pattern of 4 features needs 4 probes, got 3"):
        recovery.identity_errors(torch.eye(3), 4)


@pytest.mark.parametrize(
    ("columns", "errors"),
    [
        ([1.0, 0.9, 0.1, 0.0], 0),
        ([1.0, 1.0, 1.0, 0.0], 1),  # one too many
        ([1.0, 0.0, 0.0, 0.0], 1),  # one too few
        ([0.0, 0.0, 0.0, 0.0], 2),
        ([1.0, 0.5, 0.0, 0.0], 1),  # live, but never on
        ([1.0, 1.0, 0.2, 0.0], 2),  # too many, and that one never on
        ([1.0, 1.0, 0.11, 0.0], 2),
    ],
)
def test_dense_pattern_of_two(columns: list[float], errors: int) -> None:
    """Each column reaches its value on one probe only; the others see nothing."""
    g = torch.zeros(5, 4)
    for c, value in enumerate(columns):
        g[c, c] = value
    assert recovery.dense_errors(g, 2) == errors


def test_live() -> None:
    g = torch.tensor([[0.1, 0.11, 0.0], [0.0, 0.0, 1.0]])
    assert recovery.live(g).tolist() == [False, True, True]
    assert recovery.live(g[None]).tolist() == [False, True, True]


# Columns


def true_columns(n: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    W = triangle().encoder.weight.detach()[:, :n]
    return W, W.clone(), torch.eye(n)


ALL = torch.ones(3, dtype=torch.bool)


def test_true_columns_score_one() -> None:
    W, U, V = true_columns()
    assert recovery.mmcs(W, U, V) == pytest.approx(1)
    assert recovery.ml2r(W, U, V, ALL) == pytest.approx(1)
    assert recovery.relative_faithfulness(W, U, V) == 0


def test_columns_by_hand() -> None:
    """W = 1; u = (1, 0), v = (1, 1) writes (1, 0) in both columns: cosines 1 and 0, ratio 1."""
    W, U, V = torch.eye(2), torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0, 1.0]])
    cosines, ratios = recovery.best_columns(W, U, V)
    assert cosines.tolist() == [1.0, 0.0]
    assert ratios.tolist() == [1.0, 1.0]
    assert recovery.mmcs(W, U, V) == 0.5
    assert recovery.relative_faithfulness(W, U, V) == pytest.approx(1.0)


def test_sign_counts_but_only_of_the_product() -> None:
    W, U, V = true_columns()
    assert recovery.mmcs(W, -U, -V) == pytest.approx(1)
    assert recovery.mmcs(W, -U, V) < 0.6


def test_shrunk_norms_show_in_ml2r_and_faithfulness_not_in_mmcs() -> None:
    W, U, V = true_columns()
    assert recovery.mmcs(W, 0.8 * U, V) == pytest.approx(1)
    assert recovery.ml2r(W, 0.8 * U, V, ALL) == pytest.approx(0.8)
    assert recovery.relative_faithfulness(W, 0.8 * U, V) == pytest.approx(0.2)


def test_a_merged_pair_lowers_mmcs() -> None:
    """One subcomponent for columns 0 and 1 writes their mean direction: 60° off each."""
    W, U, _ = true_columns()
    pair = torch.stack([(U[:, 0] + U[:, 1]), U[:, 2]], 1)
    reads = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert recovery.mmcs(W, pair, reads) == pytest.approx((2 * math.cos(math.pi / 3) + 1) / 3)


def test_a_duplicate_hides_from_mmcs_but_halves_ml2r() -> None:
    """Two halves of column 0: MMCS 1 and perfectly faithful, ML2R (½ + 1 + 1) / 3."""
    W, U, V = true_columns()
    U, V = torch.cat([U, U[:, :1]], 1), torch.cat([V, V[:1]], 0)
    U[:, 0] /= 2
    U[:, 3] /= 2
    assert recovery.mmcs(W, U, V) == pytest.approx(1)
    assert recovery.relative_faithfulness(W, U, V) == pytest.approx(0, abs=1e-6)
    assert recovery.ml2r(W, U, V, torch.ones(4, dtype=torch.bool)) == pytest.approx(2.5 / 3)


def test_a_dead_subcomponent_that_happens_to_align_does_not_count() -> None:
    """A tiny dead copy of column 0 beats a live one that is slightly turned (METHOD, trap 2)."""
    W, U, V = true_columns()
    U, V = torch.cat([U, 1e-3 * U[:, :1]], 1), torch.cat([V, V[:1]], 0)
    turn = 0.1
    U[:, 0] = U[:, 0] * math.cos(turn) + torch.stack([-U[1, 0], U[0, 0]]) * math.sin(turn)
    everyone = torch.ones(4, dtype=torch.bool)
    alive = torch.tensor([True, True, True, False])
    assert recovery.ml2r(W, U, V, everyone) == pytest.approx(2.001 / 3, abs=1e-4)
    assert recovery.ml2r(W, U, V, alive) == pytest.approx(1, abs=1e-4)


def test_nothing_alive() -> None:
    W, U, V = true_columns()
    assert recovery.ml2r(W, U, V, ~ALL) == 0.0


@pytest.mark.parametrize(
    ("m", "n", "C", "low", "high"), [(2, 5, 20, 0.97, 0.99), (10, 40, 200, 0.755, 0.775)]
)
def test_mmcs_of_random_directions(m: int, n: int, C: int, low: float, high: float) -> None:
    """METHOD, trap 1: 0.98 in the plane with 20, 0.76 to 0.77 in ten dimensions with 200."""
    W = randn(m, n)
    assert low < recovery.mmcs_null(W, C) < high
    assert recovery.mmcs_null(W, C, draws=3) == recovery.mmcs_null(W, C, draws=3)
    assert recovery.mmcs_null(W, C, draws=1, seed=1) != recovery.mmcs_null(W, C, draws=1, seed=2)


def test_the_null_is_independent_of_the_global_seed() -> None:
    before = torch.get_rng_state()
    recovery.mmcs_null(randn(2, 3), 4, draws=2)
    assert torch.equal(torch.get_rng_state(), before)


# The verdict


def rebuilt(d: Decomposition, U: Tensor, V: Tensor) -> Decomposition:
    """The triangle with other encoder matrices; the decoder follows by its tie."""
    return by_hand(
        d.target,
        {"encoder": U, "decoder": V.mT.clone()},
        {"encoder": V, "decoder": U.mT.clone()},
        {"encoder": threshold_gates(U.shape[1]), "decoder": d.gates["decoder"]},
        tied={"decoder": "encoder"},
    )


@pytest.mark.parametrize("identity", [False, True])
def test_the_true_decomposition_is_recovered(identity: bool) -> None:
    target = triangle(identity)
    r = recovery.report(exact_columns(target), target.truth())
    assert r.recovered
    assert r.reasons == []
    assert r.identity_errors == {"encoder": 0, "decoder": 0}
    assert r.dense_errors == ({"hidden": 0} if identity else {})
    assert r.live == {"encoder": 3, "decoder": 3} | ({"hidden": 2} if identity else {})
    assert r.mmcs == pytest.approx(1)
    assert r.mmcs_null is not None
    assert 0.7 < r.mmcs_null < 1
    assert r.ml2r == pytest.approx(1)
    assert all(f == pytest.approx(0, abs=1e-6) for f in r.faithfulness_relative.values())
    assert r.recon == pytest.approx(0, abs=1e-10)
    assert r.order["encoder"] == [0, 1, 2, 3]
    assert all(sorted(order) == list(range(len(order))) for order in r.order.values())


def test_a_merged_pair_is_not_recovered() -> None:
    """Subcomponent 0 reads features 0 and 1; a dead one stands in the second's place."""
    d = exact_columns(triangle())
    U, V = d.U["encoder"].clone(), d.V["encoder"].clone()
    V[0, 1], V[1, 1] = 1.0, 0.0
    r = recovery.report(rebuilt(d, U, V), d.target.truth())  # type: ignore[operator]
    assert not r.recovered
    assert r.identity_errors["encoder"] == 2
    assert "encoder: 2 wrong entries in the identity pattern" in r.reasons
    assert r.live["encoder"] == 2
    assert any("‖W − UV‖/‖W‖" in reason for reason in r.reasons)


def test_a_duplicate_is_not_recovered_though_it_is_faithful() -> None:
    d = exact_columns(triangle())
    U, V = d.U["encoder"].clone(), d.V["encoder"].clone()
    U[:, 0] /= 2
    U[:, 3], V[3] = U[:, 0], V[0]
    r = recovery.report(rebuilt(d, U, V), d.target.truth())  # type: ignore[operator]
    assert not r.recovered
    assert r.identity_errors["encoder"] == 1
    assert r.faithfulness_relative["encoder"] == pytest.approx(0, abs=1e-6)
    assert any("ML2R 0.833 outside [0.95, 1.05]" in reason for reason in r.reasons)


def test_shrunk_norms_are_not_recovered_though_the_pattern_is() -> None:
    d = exact_columns(triangle())
    r = recovery.report(rebuilt(d, 0.94 * d.U["encoder"], d.V["encoder"]), d.target.truth())  # type: ignore[operator]
    assert r.identity_errors["encoder"] == 0
    assert r.ml2r == pytest.approx(0.94)
    assert any("encoder: ‖W − UV‖/‖W‖ = 0.0600 > 0.01" in reason for reason in r.reasons)
    assert any("ML2R 0.940 outside" in reason for reason in r.reasons)
    assert not r.recovered


@pytest.mark.parametrize(
    ("values", "errors"), [([1.0, 1.0], 0), ([1.0, 0.0], 1), ([1.0, 0.5], 1), ([0.0, 0.0], 2)]
)
def test_a_dense_layer_with_columns_missing(values: list[float], errors: int) -> None:
    d = exact_columns(triangle(identity=True))
    d.gates["hidden"] = constant_gates(values)
    r = recovery.report(d, d.target.truth())  # type: ignore[operator]
    assert r.dense_errors["hidden"] == errors
    assert r.recovered == (errors == 0)
    if errors:
        assert f"hidden: {errors} errors in the dense pattern of 2" in r.reasons


def test_a_dense_layer_with_a_column_too_many() -> None:
    d = exact_columns(triangle(identity=True))
    half = torch.tensor([[1.0, 0.5, 0.5], [0.0, 0.5, 0.5]])
    d.U["hidden"], d.V["hidden"] = half, torch.linalg.pinv(half)
    d.gates["hidden"] = constant_gates([1.0, 1.0, 1.0])
    r = recovery.report(d, d.target.truth())  # type: ignore[operator]
    assert r.dense_errors["hidden"] == 1


def test_bounds_belong_to_the_truth() -> None:
    d = exact_columns(triangle())
    shrunk = rebuilt(d, 0.94 * d.U["encoder"], d.V["encoder"])
    truth: Truth = d.target.truth()  # type: ignore[operator]
    lenient = dataclasses.replace(truth, ml2r_range=None, max_faithfulness=0.07)
    assert recovery.report(shrunk, lenient).recovered
    assert not recovery.report(
        shrunk, dataclasses.replace(lenient, max_faithfulness=0.05)
    ).recovered


def test_weights_that_are_not_finite_are_not_recovered() -> None:
    d = exact_columns(triangle())
    d.U["encoder"][0, 3] = float("nan")
    truth: Truth = d.target.truth()  # type: ignore[operator]
    patterns = dataclasses.replace(truth, patterns={"decoder": Dense(3)}, ml2r_range=None)
    assert not recovery.report(d, patterns).recovered


@pytest.mark.parametrize(
    "change",
    [
        {"patterns": {"encoder": Identity(3), "hidden": Dense(2)}},
        {"columns_of": "hidden"},
    ],
)
def test_truth_about_a_module_that_was_not_decomposed(change: dict[str, object]) -> None:
    d = exact_columns(triangle())
    truth: Truth = d.target.truth()  # type: ignore[operator]
    with pytest.raises(
        ValueError, match=r"truth speaks of \['hidden'\], but decomposed are \['enc"
    ):
        recovery.report(d, dataclasses.replace(truth, **change))  # type: ignore[arg-type]
