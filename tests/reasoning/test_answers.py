"""Answers are found in texts, and equal answers are recognised in any spelling."""

from __future__ import annotations

import importlib.util
import json
from fractions import Fraction

import pytest
from hypothesis import example, given, settings, strategies as st

from llmcompiler.errors import UsageError
from llmcompiler.reasoning.answers import (
    extract_answer,
    group_equal,
    normalise,
    parse_quantity,
    same_answer,
)

FRACTIONS = st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=999)
WHOLE = st.integers(min_value=-(10**12), max_value=10**12)
TEXTS = st.text(max_size=80)


@pytest.mark.parametrize(
    ("text", "answer_format", "answer"),
    [
        (r"so it is \boxed{\frac{1}{2}}, not \boxed{x}", "boxed", "x"),
        (r"\boxed{\frac{1}{2}}", "auto", r"\frac{1}{2}"),
        ("first\nAnswer: 12 apples\nsecond", "auto", "12 apples"),
        ("The answer is 7.\nNo: the final answer is **8**", "auto", "8"),
        ("3 + 4 = 7\n#### 7", "auto", "7"),
        ('{"draft": 1} then {"answer": {"value": 5}}', "json:answer.value", "5"),
        ('{"answer": "yes"}', "auto", "yes"),
        ('{"answer": [1, 2]', "json:answer", None),
        ("one\ntwo\n```\n", "last_line", "two"),
        ("he paid 3 coins, so 1,250.5 kg are left", "number", "1,250.5 kg"),
        ("no number", "number", None),
        ("take 5, then 6", r"regex:take (\d+)", "5"),
        ("take 5, then 6", r"regex:\d+", "6"),
        ("<think>Answer: 3</think>\nAnswer: 4", "auto", "4"),
        ("<think>Answer: 3", "auto", None),
        (r"\boxed{never closed", "boxed", None),
        ("", "auto", None),
        ("12 + 3 = 15", "marked", None),
        ("12 + 3 = 15\nAnswer: 15", "marked", "15"),
    ],
)
def test_extraction(text: str, answer_format: str, answer: str | None) -> None:
    assert extract_answer(text, answer_format) == answer


@pytest.mark.parametrize("answer_format", ["box", "json:", "regex:", "boxed:x", r"regex:("])
def test_an_unknown_way_to_extract_is_refused(answer_format: str) -> None:
    with pytest.raises(UsageError):
        extract_answer("x", answer_format)


@pytest.mark.parametrize(
    ("spelling", "other_spelling"),
    [
        ("0.75", "75 %"),
        ("3/4", r"\dfrac{3}{4}"),
        ("3/4", "$\\frac34$"),
        ("1 3/4", "7/4"),
        ("½", "0.5"),
        ("1,234,567", "1 234 567"),
        ("1{,}234", "1234"),
        ("1,5", "1.5"),
        ("1.5e3", r"1.5 \times 10^{3}"),
        ("−4", "-4.0"),
        ("x = 5", "5."),
        ("$5$", "(5)"),
        ("$18", "18 dollars"),
        ("12", "12 apples"),
        ("1 apple", "1 apples"),
        ("(B)", "b."),
        (r"\text{Yes}", "**yes**"),
        ("The  Cat.", "the cat"),
        ("33", "There are 33 sheep left."),
        ("33 sheep", "There are 33 sheep left."),
        ("33", "33 sheep are left"),
        ("33 sheep left", "33 sheep"),
        ("33", "40 - 7 = 33 sheep"),
        ("33 sheep", "That leaves 33 in the fold."),
        ("$1,250", "So she paid $1,250 in total."),
    ],
)
def test_spellings_of_one_answer(spelling: str, other_spelling: str) -> None:
    assert same_answer(spelling, other_spelling)
    assert len(group_equal([spelling, other_spelling])) == 1


@pytest.mark.parametrize(
    ("answer", "other_answer"),
    [
        ("50", "50 %"),
        ("12 km", "12 m"),
        ("1,234,56", "123456"),
        ("3/0", "0"),
        ("x", "y"),
        ("a b", "a"),
        ("33", "Of 40 sheep 33 are left."),
        ("33", "The B33 is the one."),
        ("33 km", "It is 33 miles away."),
        ("It began in 1815.", "It ended in 1815."),
    ],
)
def test_different_answers(answer: str, other_answer: str) -> None:
    assert not same_answer(answer, other_answer)
    assert len(group_equal([answer, other_answer])) == 2


def test_sentences_count_as_their_numbers_where_somebody_answers_with_a_number() -> None:
    sentences = ["There are 33 sheep left.", "The flock has 33 sheep."]
    assert group_equal(sentences) == [[0], [1]]
    assert group_equal([*sentences, "33", "40"]) == [[0, 1, 2], [3]]


@pytest.mark.skipif(importlib.util.find_spec("math_verify") is None, reason="extra `maths`")
def test_formulas_are_compared_as_formulas() -> None:
    assert same_answer("$(x+1)^2$", "x^2 + 2x + 1")
    assert not same_answer("$(x+1)^2$", "x^2 + 1")
    assert group_equal([r"\sqrt{8}", "3", r"2\sqrt{2}"]) == [[0, 2], [1]]


def test_a_formula_that_could_be_computed_for_ever_is_not_computed() -> None:
    assert not same_answer("9^{9^{9^9}}", "9^(9^(9^9)) + 1")
    assert not same_answer("2^99999999", "2^99999999 + 1")


@settings(deadline=None)
@given(FRACTIONS)
def test_every_spelling_of_a_fraction_is_that_number(value: Fraction) -> None:
    top, bottom = value.numerator, value.denominator
    for text in (f"{top}/{bottom}", rf"\boxed{{\frac{{{top}}}{{{bottom}}}}}", f"${top}/{bottom}$"):
        answer = extract_answer(text)
        assert answer is not None
        assert parse_quantity(answer) is not None
        assert parse_quantity(answer).value == value  # type: ignore[union-attr]


@settings(deadline=None)
@given(WHOLE, st.sampled_from(["{:,}", "{}", "{}.00", "**{}**", r"\({}\)", "{:,} apples", "{} %"]))
def test_whole_numbers(number: int, spelling: str) -> None:
    number_with_unit = parse_quantity(spelling.format(number))
    assert number_with_unit is not None
    assert number_with_unit.value == (Fraction(number, 100) if "%" in spelling else number)


@settings(deadline=None)
@given(TEXTS)
@example("\\\r0")
@example(r"\le\;ft(a)")
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_no_text_breaks_extraction_or_comparison(text: str, other_text: str) -> None:
    for answer_format in ("auto", "boxed", "last_line", "number", "json:answer"):
        extract_answer(text, answer_format)
    assert same_answer(text, text)
    assert same_answer(text, other_text) == same_answer(other_text, text)


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["12", "12.0", "12 km", "12 m", "1/2", "50%", "yes", "Yes.", "It is 12 m.", "It is 12."]
        ),
        max_size=8,
    )
)
def test_groups_hold_every_answer_once_and_are_the_same_in_any_order(answers: list[str]) -> None:
    groups = group_equal(answers)
    assert sorted(position for members in groups for position in members) == [*range(len(answers))]
    backwards = group_equal(answers[::-1])
    sizes = sorted(len(members) for members in groups)
    assert sorted(len(members) for members in backwards) == sizes


@settings(deadline=None)
@given(st.recursive(st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)))
def test_a_field_of_json_comes_back(value: object) -> None:
    answer = extract_answer(f"so: {json.dumps({'answer': value})} done", "json:answer")
    if value != "" and isinstance(value, list):
        assert json.loads(answer or "") == value
