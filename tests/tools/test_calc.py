"""The ``calc`` tool: right on all of arithmetic, forgiving in spelling, safe against the rest."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, strategies as st

from llmcompiler.errors import ToolError
from llmcompiler.tools.calc import calc

numbers = st.integers(0, 10**9).map(str) | st.floats(
    0, 1e9, allow_nan=False, allow_subnormal=False
).map(repr)


def combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.tuples(
        inner,
        st.sampled_from(["+", "-", "*", "/", "//", "%", "<", "<=", ">", ">=", "==", "!="]),
        inner,
    )
    call = st.tuples(st.sampled_from(["min", "max"]), inner, inner)
    choice = st.tuples(inner, inner, inner)
    return (
        binary.map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        | call.map(lambda t: f"{t[0]}({t[1]}, {t[2]})")
        | choice.map(lambda t: f"({t[0]} if {t[1]} else {t[2]})")
        | inner.map(lambda text: f"-{text}")
        | inner.map(lambda text: f"abs({text})")
    )


@given(st.recursive(numbers, combined, max_leaves=12))
def test_it_agrees_with_python(expression: str) -> None:
    allowed = {"min": min, "max": max, "abs": abs, "__builtins__": {}}
    try:
        expected = eval(expression, allowed)
    except (ZeroDivisionError, OverflowError):
        expected = math.nan
    if isinstance(expected, float) and not math.isfinite(expected):
        with pytest.raises(ToolError):
            calc(expression)
    else:
        result = calc(expression)
        assert result == expected
        assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("max(338.6, 232.3) / min(338.6, 232.3)", 338.6 / 232.3),
        ("2^3 + 1", 9),
        ("2 ** -1", 0.5),
        ("12 % 5", 2),
        ("1,234,567 + 1", 1234568),
        ("(1,234 + 6) * 2", 2480),
        ("max(1,234)", 234),
        ("sum([1,234])", 235),
        ("6 × 7 − 2", 40),
        ("7 ÷ 2 ≥ 3", True),
        ("sum([1,2]) + sum(3, 4)", 10),
        ("mean([1, 2, 6])", 3.0),
        ("len([1, 2, 3])", 3),
        ("round(3.14159, 2)", 3.14),
        ("floor(2.7) + ceil(2.1)", 5),
        ("sqrt(16) + log10(100) + exp(0)", 7.0),
        ("log(8, 2)", 3.0),
        ("MAX(1, 2)", 2),
        ("pi > 3 and not e > 3", True),
        ("true and false", False),
        ("null == None", True),
        ("[1, 2][1] * 2", 4),
        ("[1, 2.5]", [1, 2.5]),
        ('"a" in ["a", "b"]', True),
        ("'Japan' == \"Japan\"", True),
        ("Japan if 3 > 2 else South Korea", "Japan"),
        ("Japan if 2 > 3 else South Korea", "South Korea"),
        ("Guinea-Bissau", "Guinea-Bissau"),
        ('{"population": 3}.population + 1', 4),
        ('sum([c["n"] for c in [{"n": 3}, {"n": 4}]])', 7),
        ('sum([c.n for c in [{"n":3,"x":null},{"n":4,"x":true}]])', 7),
        ("  1 +\n 2 ", 3),
    ],
)
def test_spellings_that_plans_use(expression: str, result: Any) -> None:
    assert calc(expression) == result


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("1 / 0", "division by zero"),
        ("1 +", "not an expression"),
        ("", "not an expression"),
        ("area / 2", "'area' is not known"),
        ("sqr(4)", "did you mean 'sqrt'"),
        ("launch(4)", "there is no function 'launch'"),
        ("null + 1", "a value in it is null"),
        ('{"a": 1}.b', "no field 'b'"),
        ('"a" * 2', "'a' is not a number"),
        ("sum(['a', 1])", "'a' is not a number"),
        ("max([])", "the max of nothing"),
        ("(-8) ** 0.5", "not a real number"),
        ("sqrt(-1)", "math domain error"),
        ("1e308 * 10", "not a finite number"),
        ("max", "nothing that can be reckoned with"),
        ("null", "nothing that can be reckoned with"),
    ],
)
def test_what_it_cannot_do_is_said_with_the_expression(expression: str, words: str) -> None:
    with pytest.raises(ToolError, match=words) as caught:
        calc(expression)
    assert f'"{expression}"' in caught.value.message


SQUARES = "7" + "".join(f"*{n}" for n in range(2, 9))


@pytest.mark.parametrize(
    "expression",
    [
        "9 ** 9 ** 9",
        "9 ** 99999",
        "'a' * 10 ** 9",
        "[0] * 10 ** 9",
        "'%999999999d' % 1",
        "f'{1:999999999}'",
        "'a'.ljust(999999999)",
        "1 << 99999",
        "''.__class__",
        "__import__('os').getcwd()",
        "(lambda: 1)()",
        "[x for x in [1] for y in [1]]",
        "[[x, x] for x in [[y, y] for y in [1]]]",
        f"[{'*'.join(['x'] * 200)} for x in [99]]",
        "(" * 400 + "1" + ")" * 400,
        "-" * 5000 + "1",
        "1+" * 60_000 + "1",
        "9**3000 * 9**3000 * 9**3000",
        pytest.param("*".join(["9**3000"] * 30), id="product"),
    ],
)
def test_nothing_harmful_is_evaluated(expression: str) -> None:
    with pytest.raises(ToolError):
        calc(expression)


def test_the_planner_is_told_what_it_takes() -> None:
    assert calc.signature() == "calc(expression: str) -> int | float | bool | str | list"
    assert "max" in calc.description
    assert calc.pure
