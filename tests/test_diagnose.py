"""`diagnose`: a good decomposition raises no warning, and each fault its own."""

import json
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spd_mini as spd
from spd_mini import diagnose as run_report
from spd_mini import lines, pieces, plots
from spd_mini.config import Config
from spd_mini.data import Batches
from spd_mini.decomposition import Decomposition
from spd_mini.diagnose import constant_error, quantile
from spd_mini.targets.sparse import SparseFeatures
from zoo import (
    by_hand,
    constant_gates,
    exact_columns,
    generator,
    mlp,
    randn,
    rows,
    threshold_gates,
    token_model,
    tokens,
    triangle,
)


def single(n: int = 240) -> Tensor:
    """One feature of three at a time, between ½ and 1: what `exact_columns` is exact on."""
    strength = 0.5 + 0.5 * torch.rand(n, 1, generator=generator(5))
    return strength * torch.eye(3).repeat(n // 3, 1)


def sparse() -> Tensor:
    """The same among silent inputs, so that a piece is on rarely."""
    return torch.cat([single(60), torch.zeros(440, 3)])


def good() -> Decomposition:
    return exact_columns(triangle(), spare=2)


def kinds(d: Decomposition, x: Any, **options: Any) -> set[tuple[str, str | None]]:
    return {(w.kind, w.module) for w in run_report(d, x, attacked=9, **options).warnings}


def by_svd(model: nn.Module, names: list[str], config: Config | None = None) -> Decomposition:
    """Singular directions, all of them always important, and one that is nothing."""
    U, V, gates = {}, {}, {}
    for n in names:
        module = model.get_submodule(n)
        W = module.get_parameter("weight").detach()
        W = W.mT if isinstance(module, nn.Embedding) else W
        left, size, right = torch.linalg.svd(W, full_matrices=False)
        U[n] = torch.cat([left * size, torch.zeros(len(W), 1)], 1)
        V[n] = torch.cat([right, torch.zeros(1, W.shape[1])])
        gates[n] = constant_gates([1.0] * len(size) + [0.0])
    return by_hand(model, U, V, gates, config=config)


# Nothing to complain about


def test_a_good_decomposition_has_no_warning() -> None:
    assert kinds(good(), sparse()) == set()
    report = run_report(good(), single())
    assert report.warnings == []
    for name, error in report.errors.items():
        assert error == pytest.approx(0, abs=1e-9), name
    for m in report.matrices.values():
        assert (m.live, m.dead, m.rank, m.at_once) == ([0, 1, 2], 2, 2, 1.0)
        assert m.faithfulness < 1e-6
    assert report.inputs == 240 and report.attacked == 32


@pytest.mark.parametrize("case", ["mlp", "tokens"])
def test_any_model_any_divergence(case: str) -> None:
    """An MLP with LayerNorm under squared error; an embedding and sequences under KL."""
    if case == "mlp":
        d, x = by_svd(mlp(), ["body.0", "head.out"]), rows(3)(150, generator())
    else:
        config = Config(output_loss="kl")
        d = by_svd(token_model(), ["embed", "mix", "unembed"], config)
        x = tokens(60, generator())
    report = run_report(d, x, attacked=5)
    assert report.warnings == []
    assert report.output_loss == d.config.output_loss
    assert max(report.errors.values()) < 1e-5
    assert all(m.at_once == m.rank == len(m.live) for m in report.matrices.values())


# One fault at a time


def unfaithful(d: Decomposition) -> None:
    d.U["encoder"] = 0.7 * d.U["encoder"]


def blind(d: Decomposition) -> None:
    d.gates["encoder"] = constant_gates([0.0] * 5)


def cancelling(d: Decomposition) -> None:
    """Two spare pieces, never important, whose sum is nothing and whose parts are not."""
    d.U["encoder"][:, 3:] = torch.tensor([[4.0, -4.0], [0.0, 0.0]])
    d.V["encoder"][3:] = 1.0
    d.gates["encoder"] = constant_gates([1.0] * 3 + [0.0] * 2)


def double(d: Decomposition) -> None:
    """Piece 0 in two halves."""
    d.U["encoder"][:, 0] /= 2
    d.U["encoder"][:, 3], d.V["encoder"][3] = d.U["encoder"][:, 0], d.V["encoder"][0]


def merged(d: Decomposition) -> None:
    """Piece 0 reads feature 1, too; piece 1 is dead."""
    d.V["encoder"][0] = torch.tensor([1.0, 1.0, 0.0])
    d.V["encoder"][1] = 0.0


def hesitant(d: Decomposition) -> None:
    d.gates["encoder"].b_out[0] = -3.0  # γ = 10 |h| − 3
    d.gates["encoder"].w_out[0] = 0.0038  # at |h| = 1 it is 0.8


def busy(d: Decomposition) -> None:
    d.gates["encoder"] = constant_gates([1.0] * 3 + [0.0] * 2)


def interrupted(d: Decomposition) -> None:
    d.info["finished"] = False


FAULTS: list[tuple[Callable[[Decomposition], None], set[tuple[str, str | None]]]] = [
    (unfaithful, {("unfaithful", "encoder"), ("unmasked", None)}),
    (blind, {("silent", "encoder"), ("important", None), ("random", None)}),
    (cancelling, {("worst", None), ("random", None)}),
    (double, {("duplicate", "encoder")}),
    (merged, {("shared", "encoder")}),
    (hesitant, {("unsure", "encoder")}),
    (busy, {("crowded", "encoder")}),
    (interrupted, {("unfinished", None)}),
]


@pytest.mark.parametrize(("spoil", "expected"), FAULTS, ids=[f.__name__ for f, _ in FAULTS])
def test_a_fault_raises_its_warning(
    spoil: Callable[[Decomposition], None], expected: set[tuple[str, str | None]]
) -> None:
    d = good()
    spoil(d)
    assert expected <= kinds(d, sparse())


def test_pieces_are_named_in_the_warning() -> None:
    d = good()
    double(d)
    report = run_report(d, single())
    assert [w.text for w in report.warnings if w.kind == "duplicate"] == [
        "encoder: one piece could do the work of both 0 and 3."
    ]
    assert report.matrices["encoder"].duplicates == [(0, 3)]
    d = good()
    merged(d)
    assert run_report(d, sparse()).matrices["encoder"].shared == [0]
    d = good()
    hesitant(d)
    assert run_report(d, sparse()).matrices["encoder"].unsure == [0]


def test_no_room_left() -> None:
    assert ("full", "encoder") in kinds(exact_columns(triangle(), spare=0), single())


def test_an_untrained_run_is_seen_through() -> None:
    model = triangle()
    config = Config(C=8, steps=1, batch_size=32)
    sample = SparseFeatures(3, 0.3)
    d = spd.decompose(model, sample, config, tied=model.tied, progress=False)
    found = kinds(d, sample, rows=300)
    assert {("unfaithful", "encoder"), ("unmasked", None), ("important", None)} <= found


# The numbers


def test_errors_by_hand() -> None:
    """The pieces of an identity are halves: y = x/2 with all on, and importances are ¾."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].get_parameter("weight").copy_(torch.eye(2))
    d = by_hand(
        model, {"0": 0.5 * torch.eye(2)}, {"0": torch.eye(2)}, {"0": constant_gates([0.75] * 2)}
    )
    x = torch.tensor([[3.0, 0.0], [1.0, 0.0]]).repeat(50, 1)
    report = run_report(d, x, attacked=2)
    # A constant (2, 0) misses by ½ on average, nothing by (9 + 1)/2/2 = 2.5; the former counts.
    assert report.reference == pytest.approx(0.5)
    assert report.errors["unmasked"] == pytest.approx(0.25 * 2.5 / 0.5)
    assert report.errors["important"] == pytest.approx((1 - 0.375) ** 2 * 2.5 / 0.5)
    assert report.errors["rounded"] == report.errors["unmasked"]
    mean = sum((1 - (0.75 + 0.25 * (k + 0.5) / 1000) / 2) ** 2 for k in range(1000)) / 1000
    assert report.errors["random"] == pytest.approx(mean * 5, rel=0.02)
    assert report.errors["worst"] == pytest.approx(report.errors["important"])
    assert report.errors["worst_shared"] == pytest.approx(report.errors["important"])
    top = 4.5 * (1 - 0.375) ** 2 / 0.5  # of the strong inputs, with r near 0
    assert 0.97 * top < report.errors["random_99"] <= top


def test_row_weights_count() -> None:
    """A stratified sample: each error against a loop over rows."""
    d = good()
    blind(d)
    sample = SparseFeatures(3, 0.3, stratified=True)
    report = run_report(d, sample, rows=120, seed=4, attacked=3)
    batches = Batches(sample, 120, 4, torch.device("cpu"))
    x, weight = batches.next()
    assert weight is not None and report.inputs == 121
    target_out, g = d.target(x), d.causal_importance(x)
    mean_out = sum(w * y for w, y in zip(weight, target_out, strict=True))
    silent = torch.relu(d.target.get_parameter("decoder.bias"))
    off, constant = (
        sum(
            float(w) * float((y - other).square().mean())
            for w, y in zip(weight, target_out, strict=True)
        )
        for other in (silent, mean_out)
    )
    assert report.reference == pytest.approx(min(off, constant), rel=1e-5)
    out = d(x, g)
    error = sum(
        float(w) * float((a - b).square().mean())
        for w, a, b in zip(weight, out, target_out, strict=True)
    )
    assert report.errors["important"] == pytest.approx(error / report.reference, rel=1e-5)
    on = sum(float(w) * float(r.sum()) for w, r in zip(weight, g["decoder"] > 0.5, strict=True))
    assert report.matrices["decoder"].at_once == pytest.approx(on, rel=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_best_constant_under_kl(n: int) -> None:
    """The mean of the probabilities over rows and positions: its KL, by a loop."""
    d = by_svd(token_model(), ["embed", "unembed"], Config(output_loss="kl"))
    out = d.target(tokens(4 * n, generator(n)))
    got = constant_error(d, out, None)
    p = out.softmax(-1).double()
    mean = p.flatten(0, 1).mean(0)
    for row in range(len(out)):
        want = sum(float((q * (q / mean).log()).sum()) for q in p[row]) / out.shape[1]
        assert float(got[row]) == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize(
    ("weight", "q", "value"),
    [(None, 0.5, 2.0), (None, 0.99, 4.0), (None, 0.25, 1.0), ([0.1, 0.9], 0.5, 3.0)],
)
def test_quantile_by_hand(weight: list[float] | None, q: float, value: float) -> None:
    """Draws (2, 2) of values 1 … 4; weighted, rows 0 and 1 have 0.1 and 0.9."""
    errors = torch.tensor([[1.0, 3.0], [2.0, 4.0]])
    weights = None if weight is None else torch.tensor(weight)
    assert quantile(errors, weights, q) == value


# Duplicates


@given(seed=st.integers(0, 10_000), alike=st.sampled_from(["read", "write", "neither"]))
@settings(max_examples=40)
def test_duplicates_against_singular_values(seed: int, alike: str) -> None:
    """What one rank-one piece misses of two, by the SVD of what they write on all inputs."""
    act, U = randn(30, 2, seed=seed), randn(4, 2, seed=seed + 1)
    noise = 0.05 * (seed % 12)
    if alike == "read":
        act[:, 1] = 2 * act[:, 0] + noise * act[:, 1]
    if alike == "write":
        U[:, 1] = -U[:, 0] + noise * U[:, 1]
    size = torch.linalg.svdvals((act @ U.mT).double())[1].square()
    smaller = (act.norm(dim=0) * U.norm(dim=0)).square().min()
    found = pieces.duplicate_pairs(act, U, torch.ones(30, 2, dtype=torch.bool), [0, 1])
    share = float(size / smaller)
    if abs(share - pieces.DUPLICATE) > 1e-3:
        assert found == ([(0, 1)] if share < pieces.DUPLICATE else [])


def test_pieces_on_other_inputs_are_no_duplicates() -> None:
    """Both write alike, on 4 of 8 and 3 of 8 inputs, with so many of them in common."""
    U = torch.ones(2, 2)
    for both, same in ((3, True), (2, False)):  # 3 of 4 and 2 of 5
        on = torch.zeros(8, 2, dtype=torch.bool)
        on[:4, 0] = True
        on[4 - both : 7 - both, 1] = True
        assert pieces.duplicate_pairs(on.float(), U, on, [0, 1]) == ([(0, 1)] if same else [])


def test_dense_mechanisms_are_not_called_shared() -> None:
    """Three features on pieces that each serve two of them: in company, hence one mechanism."""
    W = torch.eye(3)
    pairs = torch.tensor([[1.0, 1, 0], [0, 1, 1], [1, 0, 1]])
    model = nn.Sequential(nn.Linear(3, 3, bias=False))
    with torch.no_grad():
        model[0].get_parameter("weight").copy_(W)
    x = torch.cat([single(90), torch.zeros(400, 3)])
    d = by_hand(model, {"0": torch.linalg.inv(pairs)}, {"0": pairs}, {"0": threshold_gates(3)})
    report = run_report(d, x, attacked=5)
    assert report.matrices["0"].live == [0, 1, 2]
    assert report.matrices["0"].shared == []
    d.V["0"] = torch.tensor([[1.0, 1, 0], [0, 0, 1], [0, 0, 0]])
    assert run_report(d, x, attacked=5).matrices["0"].shared == [0]


def test_inputs_that_are_on_together_are_no_second_line() -> None:
    """Piece 0 reads feature 0 alone; feature 1 often comes with it, and stronger."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].get_parameter("weight").copy_(torch.eye(2))
    x = torch.cat(
        [
            torch.tensor([[1.0, 0.0]]).repeat(20, 1),
            torch.tensor([[0.4, 1.0]]).repeat(20, 1),
            torch.zeros(400, 2),
        ]
    )
    gates = threshold_gates(3)
    U = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    d = by_hand(model, {"0": U}, {"0": U.mT.clone()}, {"0": gates})
    gates.b_out[1] = -100.0  # the other piece is silent: it is no company
    assert lines.lines(x[:40], d.V["0"][0]) is not None, "alone, `lines` would say two"
    assert run_report(d, x, attacked=5).matrices["0"].shared == []


# What it takes and what it gives


@pytest.mark.slow
def test_inputs_of_every_kind() -> None:
    x = single()
    want = run_report(good(), x, attacked=3)
    for inputs in ([(x, "label")], iter([x[:100], x[100:]])):
        assert run_report(good(), inputs, attacked=3) == want
    some = run_report(good(), [x[:120], x[120:]], rows=110, attacked=3)
    assert some.inputs == 120, "no more batches than asked for"


def test_the_same_seed_the_same_report_and_nothing_is_disturbed() -> None:
    d, sample = good(), SparseFeatures(3, 0.3)
    before = torch.get_rng_state()
    a, b, c = (run_report(d, sample, rows=150, seed=s, attacked=3) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert a == b and a.errors != c.errors


def test_as_json_and_as_a_page() -> None:
    d = good()
    double(d)
    unfaithful(d)
    report = run_report(d, single())
    values = json.loads(json.dumps(report.to_dict()))
    assert values["errors"] == report.errors
    assert values["matrices"]["encoder"]["duplicates"] == [[0, 3]]
    assert [w["kind"] for w in values["warnings"]] == [w.kind for w in report.warnings]
    page = str(report)
    for text in (
        "Errors on 240 inputs",
        f"every piece on            {report.errors['unmasked']:8.4f}",
        "(32 inputs)",
        "encoder     5     4     1",
        f"{len(report.warnings)} warnings.",
        *(f"- {w.text}" for w in report.warnings),
    ):
        assert text in page
    assert "No warnings." in str(run_report(good(), single()))


def test_the_picture() -> None:
    d = good()
    double(d)
    report = run_report(d, single())
    fig = plots.diagnosis(report)
    errors, matrices = fig.axes
    assert [t.get_text() for t in matrices.get_yticklabels()] == ["encoder", "decoder"]
    assert len(errors.get_yticklabels()) == 6
    widths = [[bar.get_width() for bar in group] for group in matrices.containers]
    assert widths == [[2, 3], [2, 0], [1, 2]], "live and sound, in doubt, dead"
    assert "1 warning" in fig.get_suptitle()
    plt.close(fig)


# Errors


def infinite() -> Decomposition:
    """A spare pair that cancels until a mask parts it."""
    d = good()
    cancelling(d)
    d.U["encoder"][:, 3:] *= 1e25
    return d


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: run_report(good(), single(99)), "99 inputs say too little; at least 100"),
        (lambda: run_report(good(), torch.zeros(120, 3)), "does not depend on the decomposed"),
        (
            lambda: run_report(good(), torch.full((120, 3), torch.nan)),
            "outputs are not finite: every piece off, or constant, nan",
        ),
        (lambda: run_report(infinite(), single()), "outputs are not finite: relative errors"),
        (lambda: run_report(good(), single(), draws=0), "draws and attacked must be ≥ 1, got 0"),
        (lambda: run_report(good(), single(), attacked=0), "must be ≥ 1, got 10 and 0"),
        (lambda: run_report(good(), []), "the iterable of inputs is empty"),
        (lambda: run_report(good(), ["x"]), "inputs must be tensors, batch first; got str"),
    ],
)
def test_bad_input(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
