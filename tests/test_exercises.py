"""The checks of the exercises: right answers pass, typical mistakes are named."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

import answers_ch01
import answers_ch02
import answers_ch03
import answers_ch04
import answers_ch05
import answers_ch06
import answers_ch07
import answers_ch08
import answers_ch09
import answers_ch10
import answers_ch11
import answers_ch13
from spd_mini.exercises import (
    Wrong,
    ch01,
    ch02,
    ch03,
    ch04,
    ch05,
    ch06,
    ch07,
    ch08,
    ch09,
    ch10,
    ch11,
    ch13,
)

Check = Callable[[Any], None]
CHAPTERS = [
    (ch01, answers_ch01),
    (ch02, answers_ch02),
    (ch03, answers_ch03),
    (ch04, answers_ch04),
    (ch05, answers_ch05),
    (ch06, answers_ch06),
    (ch07, answers_ch07),
    (ch08, answers_ch08),
    (ch09, answers_ch09),
    (ch10, answers_ch10),
    (ch11, answers_ch11),
    (ch13, answers_ch13),
]
RIGHT = [pair for _, answers in CHAPTERS for pair in answers.RIGHT]
MISTAKES = [triple for _, answers in CHAPTERS for triple in answers.MISTAKES]


def checks(chapter: ModuleType) -> list[Check]:
    return [check for name, check in vars(chapter).items() if name.startswith("check_")]


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_right_answers_pass(check: Check, answer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    check(answer)
    assert capsys.readouterr().out.startswith("correct: ")


@pytest.mark.parametrize(("check", "answer", "message"), MISTAKES)
def test_typical_mistakes_are_named(check: Check, answer: Any, message: str) -> None:
    with pytest.raises(Wrong, match=f"(?i){message}"):
        check(answer)


@pytest.mark.parametrize("check", [c for chapter, _ in CHAPTERS for c in checks(chapter)])
def test_no_answer_yet(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    check(None)
    assert capsys.readouterr().out == "not answered yet\n"


@pytest.mark.parametrize(("chapter", "answers"), CHAPTERS)
def test_every_check_has_a_right_answer_and_a_mistake(
    chapter: ModuleType, answers: ModuleType
) -> None:
    assert {c for c, _ in answers.RIGHT} == set(checks(chapter))
    assert {c for c, *_ in answers.MISTAKES} == set(checks(chapter))
