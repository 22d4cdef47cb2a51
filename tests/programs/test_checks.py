"""Checks of a program find what is bound to fail before anything runs, and nothing else."""

from __future__ import annotations

import random
from typing import Any

import pytest
from typing_extensions import TypedDict

from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.programs.program import CompiledStatement, ProgramCompiler
from llmcompiler.tools.base import tool
from llmcompiler.tools.loading import load_tools
from tests.support.random_programs import ProgramGenerator, run_python

TOOLS = load_tools(("geo",))
RECORDS = 'records = [country(name) for name in countries("Asia")]\n'


def compiled(text: str, tools: Any = TOOLS) -> list[CompiledStatement | Diagnostic]:
    program = ProgramCompiler(tools)
    return [*program.feed(text), *program.finish()]


def found(text: str) -> list[Diagnostic]:
    return [item for item in compiled(text) if isinstance(item, Diagnostic)]


WRONG = {
    # Arguments.
    'country("Chad", "Mali")': ("E301", "country takes 1 argument", ""),
    "country()": ("E302", "needs the argument name", ""),
    'country(nam="Chad")': ("E303", "no parameter 'nam'", 'did you mean "name"?'),
    'country("Chad", name="Mali")': ("E304", "by position and by name", ""),
    'countries("Asien")': ("E305", 'cannot be "Asien"', ""),
    "country(3)": ("E305", "cannot be 3", ""),
    'country(country("Chad"))': ("E307", "is a record (country)", 'country("Chad").name'),
    'country(countries("Asia"))': ("E307", "is a list of texts", "[country(item) for item in"),
    # Fields and elements.
    'answer = country("Chad").populaton': ("E306", "no field", 'did you mean "population"?'),
    'answer = country("Chad")["populaton"]': ("E306", "no field", 'did you mean "population"?'),
    'answer = [n.population for n in country("Chad").neighbours]': (
        "E306",
        "n is text",
        "country(n).population",
    ),
    'answer = country("Chad").neighbours.population': (
        "E306",
        "is a list of texts",
        "[country(name).population for name in",
    ),
    RECORDS + "answer = records.population": ("E306", "a list of records", "[item.population for"),
    RECORDS + "answer = max(records, key=lambda c: c.popultion)": (
        "E306",
        "no field",
        'did you mean "population"?',
    ),
    'answer = set(countries("Asia"))[0]': ("E507", "a set of texts", "sorted("),
    'answer = country("Chad").population[0]': ("E507", "is a number", ""),
    'answer = [x for x in country("Chad").population]': ("E507", "no elements", ""),
    # Names.
    "answer = total + 1": ("E511", "total has no value", ""),
    'country_record = country("Chad")\nanswer = country_recrd': (
        "E511",
        "no value",
        'did you mean "country_record"?',
    ),
    'answer = list(map(country, countries("Asia")))': ("E511", "is a function", "[country(item)"),
    'answer = contry("Chad")': ("E203", "no function or tool", 'did you mean "country"?'),
    # Comparisons.
    'c = country("Chad")\nanswer = c == "Chad"': ("E508", "compared with text", "c.name"),
    RECORDS + 'answer = "Chad" in records': ("E508", "holds records", "[item.name for item in"),
    'c = country("Chad")\nanswer = c in country("Mali").neighbours': ("E508", "texts in", "c.name"),
    'answer = country("Chad") > country("Mali")': ("E508", "less or more", "population"),
    # Operations.
    'answer = country("Chad").neighbours & country("Mali").neighbours': (
        "E509",
        "a list of texts & a list of texts",
        'set(country("Chad").neighbours) & set(country("Mali").neighbours)',
    ),
    RECORDS + "answer = sum(records)": ("E509", "sum takes numbers", "item.population"),
    RECORDS + "answer = max(records)": ("E509", "has no order", "key=lambda item: item."),
    RECORDS + 'answer = sorted(records, key="area_km2")': (
        "E509",
        "a function as its key",
        "key=lambda item: item.area_km2",
    ),
    RECORDS + "answer = set(records)": ("E509", "cannot stand in a set", "name"),
    RECORDS + 'answer = ", ".join(records)': ("E509", "join takes texts", "item.name"),
    'answer = "about " + country("Chad").population': ("E509", "text + a number", "str("),
    "import statistics\n" + RECORDS + "answer = statistics.mean(records)": (
        "E509",
        "mean takes numbers",
        "item.population",
    ),
    'answer = len(country("Chad").population)': ("E509", "len takes", ""),
    'answer = country("Chad").population()': ("E510", "no method", "without parentheses"),
    # Through blocks, loops and helper functions.
    'for n in countries("Asia"):\n    c = country(n)\n    if c.popultion > 3:\n        x = n': (
        "E306",
        "no field",
        'did you mean "population"?',
    ),
    'def record(n):\n    return country(n)\nanswer = record("Chad").capitol': (
        "E306",
        "no field",
        'did you mean "capital"?',
    ),
    'try:\n    c = country("Chad")\nexcept ToolError:\n    c = country("Mali")\nx = c.capitol': (
        "E306",
        "no field",
        'did you mean "capital"?',
    ),
}


@pytest.mark.parametrize("text", WRONG)
def test_what_must_fail_is_refused_with_its_place_and_a_hint(text: str) -> None:
    code, message, hint = WRONG[text]
    errors = [each for each in found(text) if each.severity == "error"]
    assert errors, "nothing was found"
    error = errors[0]
    assert error.code == code
    assert message in error.message
    assert hint in error.hint
    assert error.line and error.source_line, "the place is known"


RIGHT = {
    "a field that the program adds": (
        'c = country("Chad")\nc["density"] = c.population / c.area_km2\nanswer = c.density'
    ),
    "a maximum that is kept by hand": (
        RECORDS + "best = records[0]\nfor c in records:\n    if c.population > best.population:\n"
        "        best = c\nanswer = best.name"
    ),
    "a sum that changes its type": (
        RECORDS + "total = 0\nfor c in records:\n    total += c.area_km2\nanswer = total / 2"
    ),
    "a list of tuples": (
        "pairs = [(country(n).population, n) for n in countries()]\npairs.sort(reverse=True)\n"
        "answer = [name for number, name in pairs[:3]]"
    ),
    "a dict of numbers": (
        "d = {}\nfor n in countries():\n    d[n] = country(n).population\n"
        "answer = max(d, key=d.get)"
    ),
    "a list with two names": (
        "a = []\nb = a\nb.append(country('Chad'))\nanswer = [c.name for c in a]"
    ),
    "a loop that only a break ends": (
        "while True:\n    c = country('Chad')\n    break\nanswer = c.name"
    ),
    "a list that a helper function fills": (
        "def fill(xs):\n    xs.append({'size': 3})\n    return xs\nys = ['a']\nfill(ys)\n"
        "answer = ys[1].size"
    ),
    "two records that are compared": 'answer = country("Chad") == country("Mali")',
    "numbers and text in one list": "xs = [1, 'a']\nanswer = [x + 1 for x in xs if x != 'a']",
    "a value that was looked at": (
        "x = None\nfor n in countries():\n    x = country(n)\nif x is not None:\n"
        "    answer = x.name"
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_may_work_is_not_complained_about(name: str) -> None:
    assert [each.code for each in found(RIGHT[name]) if each.code != "W502"] == []


def test_a_name_that_has_a_value_on_some_ways_only_is_a_warning() -> None:
    text = 'if country("Chad").population > 3:\n    y = 1\nanswer = y'
    assert [each.code for each in found(text)] == ["W502"]


def test_a_record_that_may_be_none_is_a_warning() -> None:
    text = RECORDS + "best = None\nfor c in records:\n    best = c\nanswer = best.name"
    assert [each.code for each in found(text)] == ["W503"]


def test_nothing_of_a_statement_with_a_mistake_is_handed_on() -> None:
    items = compiled('a = country("Chad")\nb = country("Mali").popultion\nc = country("Togo")')
    assert [item.text for item in items if isinstance(item, CompiledStatement)] == [
        "a = country('Chad')"
    ]


def test_a_statement_that_was_refused_leaves_no_names_behind() -> None:
    program = ProgramCompiler(TOOLS)
    list(program.feed('a = country("Chad")\nif a.popultion > 3:\n    b = 1\n'))
    list(program.finish())
    program.reopen()
    items = [*program.feed("answer = b\n"), *program.finish()]
    assert [item.code for item in items if isinstance(item, Diagnostic)] == ["E511"]


def test_a_program_that_begins_anew_is_not_compiled_twice() -> None:
    program = ProgramCompiler(TOOLS)
    list(program.feed('# facts\na = country("Chad")\nb = a.popultion\n'))
    program.reopen()
    text = 'a = country("Chad")\nb = a.population\nanswer = b\n'
    items = [*program.feed(text), *program.finish()]
    assert [item.text for item in items if isinstance(item, CompiledStatement)] == [
        "b = a.population",
        "answer = b",
    ]
    assert program.source == '# facts\na = country("Chad")\nb = a.population\nanswer = b\n'


def test_a_tools_own_check_of_a_text_is_heard() -> None:
    @tool(lint=lambda name, pieces: "no tabs" if any("\t" in piece for piece in pieces) else None)
    def search(text: str) -> str:
        return text

    items = compiled('n = 3\nanswer = search(f"{n}\\tmore")', {"search": search})
    (error,) = [item for item in items if isinstance(item, Diagnostic)]
    assert (error.code, error.linted[:3]) == ("E309", ("search", "text", "no tabs"))


class Sized(TypedDict):
    """What ``get`` of the random programs returns."""

    id: Any
    size: int
    name: str
    tags: list[int]


@tool
def get(x: Any) -> Sized:
    """A record."""
    raise NotImplementedError


@tool
def near(x: Any) -> list[int]:
    """Numbers of other records."""
    raise NotImplementedError


@tool(effect="write")
def put(x: Any) -> int:
    """Write something."""
    raise NotImplementedError


@pytest.mark.parametrize("hundred", range(3))
def test_a_program_that_runs_to_its_end_has_no_error(hundred: int) -> None:
    tools = {each.name: each for each in (get, near, put)}
    for seed in range(100 * hundred, 100 * hundred + 100):
        source = ProgramGenerator(random.Random(seed)).program()
        if run_python(source)[0][0] == "value":
            items = compiled(source + "\n", tools)
            errors = [each for each in items if isinstance(each, Diagnostic) and each.code < "W"]
            assert errors == [], f"seed {seed}:\n{source}"
