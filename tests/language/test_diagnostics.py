"""Diagnostics as a person reads them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmcompiler.language import Diagnostic, Span, catalogue_markdown, read_plan
from llmcompiler.plan.diagnostics import CODES, did_you_mean

ROOT = Path(__file__).parent.parent.parent


def test_a_diagnostic_reads_like_a_compilers() -> None:
    diagnostic = Diagnostic(
        "E203",
        'unknown tool "serch"',
        line=3,
        column=4,
        end_column=9,
        source_line='3. serch("x")',
        hint='did you mean "search"?',
        expected="search, calc",
    )
    assert diagnostic.severity == "error"
    assert diagnostic.render() == (
        'error[E203]: unknown tool "serch"\n'
        " --> line 3, column 4\n"
        "  |\n"
        '3 | 3. serch("x")\n'
        "  |    ^^^^^\n"
        "  = expected: search, calc\n"
        '  = hint: did you mean "search"?'
    )


def test_the_margin_is_as_wide_as_the_line_number() -> None:
    text = "\n" * 119 + "\t1. f(Oslo)"
    (diagnostic,) = read_plan(text)[1]
    assert diagnostic.render().splitlines()[1:5] == [
        "   --> line 120, column 7",
        "    |",
        "120 | \t1. f(Oslo)",
        "    | \t     ^^^^",
    ]


def test_a_plan_without_text_is_placed_by_task() -> None:
    diagnostic = Diagnostic("E302", "calc needs the argument expression", task=4)
    assert diagnostic.render() == "error[E302]: calc needs the argument expression\n --> task 4"


def test_warnings_say_so() -> None:
    assert Diagnostic.at(Span(1, 1, 2, "x"), "W104", "a call").render().startswith("warning[W104]")


def test_only_codes_of_the_catalogue_exist() -> None:
    with pytest.raises(ValueError, match="E999"):
        Diagnostic("E999", "?")


def test_every_code_of_the_catalogue_is_used_and_no_other() -> None:
    used = set()
    for path in (ROOT / "llmcompiler").rglob("*.py"):
        if path.name != "diagnostics.py":
            used |= set(re.findall(r'"([EW][1-5]\d\d)"', path.read_text(encoding="utf-8")))
    assert used == set(CODES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("serch", 'did you mean "search"?'),
        ("SEARCH", 'did you mean "search"?'),
        ("popluation", 'did you mean "Population"?'),
        ("xyz", ""),
    ],
)
def test_did_you_mean(name: str, expected: str) -> None:
    assert did_you_mean(name, ["search", "calc", "Population"]) == expected


def test_the_page_of_the_docs_is_the_catalogue() -> None:
    page = ROOT / "docs" / "diagnostics.md"
    assert page.read_text(encoding="utf-8") == catalogue_markdown()


@pytest.mark.parametrize(
    ("line", "column", "end", "marks"),
    [
        ("1. f(x)", 6, 7, "     ^"),
        ('1. f("日本", y)', 12, 13, "             ^"),
        ("1. f(日本)", 6, 8, "     ^^^^"),
        ("1. f(e\u0301, y)", 10, 11, "        ^"),
        ("\t1. f(x)", 7, 8, "\t     ^"),
        ("1. f(", 6, 7, "     ^"),
        ("", 1, 2, "^"),
    ],
)
def test_carets_stand_below_what_they_mark(line: str, column: int, end: int, marks: str) -> None:
    diagnostic = Diagnostic("E105", "not a value", 1, column, end, line)
    assert diagnostic.render().splitlines()[-1] == f"  | {marks}"
