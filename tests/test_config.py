"""Config and Schedule: values, checks that trip, and the way to JSON and back."""

import ast
import dataclasses
import inspect
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_mini import Config, Schedule, config
from spd_mini.config import lookup, value_at

NAN, INF = float("nan"), float("inf")


def test_every_field_says_what_it_is() -> None:
    body = ast.parse(inspect.getsource(Config)).body[0]
    assert isinstance(body, ast.ClassDef)
    documented = {
        a.target.id
        for a, b in zip(body.body, body.body[1:], strict=False)
        if isinstance(a, ast.AnnAssign)
        and isinstance(a.target, ast.Name)
        and isinstance(b, ast.Expr)
        and isinstance(b.value, ast.Constant)
    }
    assert documented == {f.name for f in dataclasses.fields(Config)}


def test_frozen_and_replaceable() -> None:
    c = Config(C=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        c.C = 4  # type: ignore[misc]
    assert dataclasses.replace(c, steps=7).steps == 7
    with pytest.raises(ValueError, match="steps"):
        dataclasses.replace(c, steps=0)


COUNTS = ["C", "steps", "batch_size", "mask_samples", "gate_hidden", "restarts", "log_every"]


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [0, -3, 2.5, True, "4", None])
def test_counts_are_integers_from_one(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"Config.{name} must be an integer ≥ 1, got {value!r}"):
        Config(**{name: value})


def test_counts_per_module_are_checked_too() -> None:
    with pytest.raises(ValueError, match=r"Config.C\['enc\*'\] must be an integer ≥ 1, got 0"):
        Config(C={"enc*": 0, "*": 3})


@pytest.mark.parametrize("name", ["lr_warmup_steps", "faithfulness_warmup_steps"])
@pytest.mark.parametrize("value", [-1, 1.5, "3"])
def test_warm_ups_are_integers_from_zero(name: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=f"Config.{name} must be an integer ≥ 0, got {value!r}"):
        Config(**{name: value})
    nothing: dict[str, Any] = {name: 0}
    assert getattr(Config(**nothing), name) == 0


@pytest.mark.parametrize("name", ["lr", "gate_lr", "faithfulness_warmup_lr"])
@pytest.mark.parametrize("value", [0.0, -1e-3, NAN, INF])
def test_learning_rates_are_positive(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"Config.{name} must be a positive number, got {value}"):
        Config(**{name: value})  # type: ignore[arg-type]


COEFFS = ["importance", "faithfulness", "recon", "layerwise", "frequency"]


@pytest.mark.parametrize("name", [f"{c}_coeff" for c in COEFFS])
@pytest.mark.parametrize("value", [-0.1, NAN, INF])
def test_coefficients_are_not_negative(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"Config.{name} must be a number ≥ 0, got {value}"):
        Config(**{name: value})  # type: ignore[arg-type]


def test_scales_are_not_negative() -> None:
    with pytest.raises(ValueError, match=r"importance_scale\['hidden'\] must be a number ≥ 0"):
        Config(importance_scale={"hidden": -1.0})


def test_the_frequency_penalty_may_differ_per_module_and_move() -> None:
    config = Config(frequency_coeff={"a*": Schedule(4.0, 0.0), "b": 2.0})
    assert [config.frequency_of(n, 0.5) for n in ("a1", "b", "c")] == [2.0, 2.0, 0.0]
    assert Config(frequency_coeff=Schedule(0.0, 1.0)).frequency_of("a", 0.25) == 0.25
    assert Config(frequency_coeff=3.0).frequency_of("a", 0.25) == 3.0
    with pytest.raises(ValueError, match=r"frequency_coeff\['b'\] must be a number ≥ 0, got -1"):
        Config(frequency_coeff={"b": -1.0})


@pytest.mark.parametrize(
    "p", [0.0, -1.0, NAN, INF, {"*": 0.0}, Schedule(2.0, 0.0), {"a": 1.0, "b": Schedule(0.0, 1.0)}]
)
def test_exponents_are_positive(p: Any) -> None:
    with pytest.raises(ValueError, match=r"Config.p must be > 0"):
        Config(p=p)


@pytest.mark.parametrize("value", [0.0, 1.5, -0.1, NAN])
def test_restarts_end_within_the_run(value: float) -> None:
    with pytest.raises(ValueError, match=rf"restarts_until must be in \(0, 1\], got {value}"):
        Config(restarts_until=value)


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("output_loss", ("mse", "kl")),
        ("layerwise_masks", ("fresh", "shared")),
        ("lr_schedule", ("cosine", "constant")),
    ],
)
def test_choices(name: str, choices: tuple[str, ...]) -> None:
    for choice in choices:
        assert getattr(Config(**{name: choice}), name) == choice  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"Config.{name} must be one of .* got 'huber'") as error:
        Config(**{name: "huber"})  # type: ignore[arg-type]
    assert str(choices) in str(error.value)


# Schedules


def test_schedule_by_hand() -> None:
    s = Schedule(1.0, 3.0, until=0.5)
    assert [s.at(t) for t in (0.0, 0.25, 0.5, 0.9, 1.0)] == [1.0, 2.0, 3.0, 3.0, 3.0]
    g = Schedule(1e-4, 1e-2, log=True)
    assert [g.at(t) for t in (0.0, 0.5, 1.0)] == pytest.approx([1e-4, 1e-3, 1e-2])
    assert value_at(0.7, 0.3) == 0.7
    assert value_at(s, 0.25) == 2.0


@given(
    start=st.floats(1e-6, 10),
    end=st.floats(1e-6, 10),
    until=st.floats(0.05, 1),
    log=st.booleans(),
    t=st.floats(0, 1),
)
def test_schedule_stays_between_its_ends(
    start: float, end: float, until: float, log: bool, t: float
) -> None:
    value = Schedule(start, end, until, log).at(t)
    slack = 1e-9 * max(start, end)
    assert min(start, end) - slack <= value <= max(start, end) + slack


@pytest.mark.parametrize("until", [0.0, -0.5, 1.01, NAN])
def test_schedules_end_within_the_run(until: float) -> None:
    with pytest.raises(ValueError, match=rf"Schedule.until must be in \(0, 1\], got {until}"):
        Schedule(1.0, 2.0, until)


@pytest.mark.parametrize(
    ("start", "end", "log"),
    [(-1, 1, False), (1, -1, False), (0, 1, True), (1, 0, True), (NAN, 1, False), (1, INF, False)],
)
def test_schedule_ends(start: float, end: float, log: bool) -> None:
    with pytest.raises(ValueError, match="must be finite and ≥ 0, and > 0 when log=True") as error:
        Schedule(start, end, log=log)
    assert f"got start={start}, end={end}" in str(error.value)


# Values per module


def test_first_matching_pattern_wins() -> None:
    c = Config(C={"blocks.*": 7, "*": 3}, p={"head": 2.0})
    assert (c.C_of("blocks.0.mlp"), c.C_of("head")) == (7, 3)
    assert (c.p_of("head", 0.0), c.p_of("body", 0.0)) == (2.0, 1.0)
    assert Config(C=5).C_of("anything") == 5
    assert lookup({"a": 1}, "b", 9) == 9


def test_p_follows_its_schedule() -> None:
    c = Config(p={"*": Schedule(2.0, 1.0)})
    assert [c.p_of("a", t) for t in (0.0, 0.5, 1.0)] == [2.0, 1.5, 1.0]
    assert Config(p=Schedule(2.0, 1.0)).p_of("a", 0.5) == 1.5


def test_a_module_without_C_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no entry for module 'head'; it has \['body'\]"):
        Config(C={"body": 3}).C_of("head")


# Learning rate


def test_learning_rate_by_hand() -> None:
    """Two warm-up steps at 1/3 and 2/3, then half a cosine over the remaining four steps."""
    c = Config(steps=6, lr_warmup_steps=2)
    want = [1 / 3, 2 / 3, 1.0, 0.853553, 0.5, 0.146447]
    assert [c.lr_factor(s) for s in range(6)] == pytest.approx(want, abs=1e-6)
    constant = dataclasses.replace(c, lr_schedule="constant")
    assert [constant.lr_factor(s) for s in range(6)] == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1])


def test_a_warm_up_as_long_as_the_run_still_has_a_learning_rate() -> None:
    c = Config(steps=3, lr_warmup_steps=5)
    assert [c.lr_factor(s) for s in range(3)] == pytest.approx([1 / 6, 2 / 6, 3 / 6])


# To JSON and back

RICH = Config(
    C={"a*": 4, "*": 9},
    importance_coeff=Schedule(1e-4, 1e-2, log=True),
    p={"a": Schedule(2.0, 0.9, until=0.5), "*": 1.5},
    importance_scale={"hidden": 0.1},
    output_loss="kl",
    gate_lr=0.1,
)


@pytest.mark.parametrize("c", [Config(), RICH])
def test_json_round_trip(c: Config) -> None:
    assert Config.from_dict(json.loads(json.dumps(c.to_dict()))) == c


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown Config fields \['stepz'\]; known are") as error:
        Config.from_dict({"stepz": 3})
    assert "'steps'" in str(error.value)


def test_from_dict_checks_values() -> None:
    with pytest.raises(ValueError, match="Config.steps"):
        Config.from_dict({"steps": 0})


def test_scalar_type_is_public() -> None:
    assert config.Scalar == float | Schedule


@pytest.mark.parametrize(
    "settings",
    [{"C": {"encodr": 3, "*": 4}}, {"p": {"typo": 2.0}}, {"importance_scale": {"x*": 2}}],
)
def test_a_pattern_that_matches_no_module_is_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="matches none of the decomposed modules"):
        Config(**settings).check_patterns(["encoder", "decoder"])
