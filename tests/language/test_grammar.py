"""The plan grammar: it allows only plans without mistakes, and it allows the good ones."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given, settings, strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field

from llmcompiler.language import read_plan
from llmcompiler.language.gbnf import SHARED
from llmcompiler.language.grammar import MAX_SIZE, plan_grammar
from llmcompiler.language.plan_schema import plan_schema
from llmcompiler.passes.check import check_plan
from llmcompiler.plan.types import SchemaType, json_types, misfit
from llmcompiler.tools.base import DEFAULT_TOOLS, tool
from llmcompiler.tools.loading import load_tools
from tests.support.gbnf import Grammar


@dataclass(frozen=True)
class View:
    """The part of a tool that grammars and checks use."""

    name: str
    parameters_schema: dict[str, Any]
    return_schema: dict[str, Any] | None = None
    lint: None = None


class Leg(BaseModel):
    """A part of a route."""

    town: str
    nights: int = Field(ge=0, le=30)
    extras: list[Literal["bike", "canoe"]] = []
    then: Leg | None = None


@tool
def book(
    route: list[Leg],
    level: Literal["easy", "hard", 3],
    budget: float | None = None,
    pair: tuple[int, str] = (1, "a"),
    tags: dict[str, bool | int] | None = None,
    anything: Any = None,
) -> Any:
    """Book a journey."""


@tool
def size(number: int = Field(ge=-20, le=1250), code: str = Field("ab", max_length=3)) -> Any:
    """Take numbers within bounds."""


TOOLS = {"book": book, "size": size}


BEYOND = {"E306", "E307", "E308", "E309"}
"""What depends on the tool that an earlier line calls, on whether that line is a fan-out, and on
what a tool makes of a text."""


def errors_of(text: str, tools: Mapping[str, Any], earlier_ids: tuple[int, ...] = ()) -> set[str]:
    """Codes of the errors in a plan that a context-free grammar could exclude."""
    plan, diagnostics = read_plan(
        text, earlier_ids=earlier_ids, first_id=max(earlier_ids, default=0) + 1
    )
    all_diagnostics = [*diagnostics, *check_plan(plan, tools)[1]]
    codes = {diagnostic.code for diagnostic in all_diagnostics if diagnostic.severity == "error"}
    if "E110" in codes:
        # An open dict was given one key twice; whatever refers to that task is lost too.
        return set()
    assert plan.join is not None, text
    return codes - BEYOND


@pytest.mark.parametrize("seed", range(60))
def test_all_that_the_grammar_allows_is_a_plan_without_errors(seed: int) -> None:
    text = GRAMMAR.sentence(random.Random(seed))
    assert errors_of(text, TOOLS) == set(), text


GRAMMAR = Grammar(plan_grammar(TOOLS))


@pytest.mark.parametrize("seed", range(40))
def test_so_it_is_where_the_results_of_tools_are_known(seed: int) -> None:
    tools = load_tools(DEFAULT_TOOLS)
    text = Grammar(plan_grammar(tools)).sentence(random.Random(seed), depth=25)
    assert errors_of(text, tools) == set(), text


names = st.sampled_from(["a", "b_1", "größe", "x.y", "two words", 'quo"te'])
leaves = st.one_of(
    st.sampled_from(
        [
            {"type": "string"},
            {"type": "integer"},
            {"type": "number"},
            {"type": "boolean"},
            {"type": "null"},
            {"type": "string", "maxLength": 2},
            {"type": ["integer", "null"]},
            {},
        ]
    ),
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(-1200, 1200),
        st.integers(0, 3000),
    ),
    st.lists(
        st.sampled_from(["a$1", 'b"', 1, True, None, 2.5]), min_size=1, max_size=3, unique_by=repr
    ).map(lambda options: {"enum": options}),
)


def closed(properties: dict[str, Any], optional: set[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


objects = st.dictionaries(names, leaves, max_size=3).map(lambda p: closed(p, set()))
schemas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(
            lambda item, low, more: {
                "type": "array",
                "items": item,
                "minItems": low,
                "maxItems": low + more,
            },
            inner,
            st.integers(0, 2),
            st.integers(0, 2),
        ),
        st.builds(closed, st.dictionaries(names, inner, min_size=1, max_size=3), st.sets(names)),
        st.lists(inner, min_size=1, max_size=2).map(lambda some: {"anyOf": some}),
    ),
    max_leaves=5,
)
views = st.builds(
    lambda properties, optional: View("do-it.now", closed(properties, optional)),
    st.dictionaries(names, schemas, max_size=4),
    st.sets(names),
)


@settings(max_examples=60, deadline=None)
@given(views, st.integers(0, 10**9))
def test_any_tools_have_a_grammar_of_sound_plans(view: View, seed: int) -> None:
    tools = {view.name: view, "other": View("other", closed({"q": {"type": "string"}}, set()))}
    grammar = Grammar(plan_grammar(tools))
    text = grammar.sentence(random.Random(seed), depth=20)
    assert errors_of(text, tools) == set(), text


def test_a_later_plan_counts_on_and_may_refer_to_the_earlier_ones() -> None:
    grammar = Grammar(plan_grammar(TOOLS, first_id=9, earlier_ids=(1, 2, 8)))
    for seed in range(20):
        text = grammar.sentence(random.Random(seed), depth=20)
        assert errors_of(text, TOOLS, earlier_ids=(1, 2, 8)) == set(), text


def test_ranges_of_whole_numbers_are_exact() -> None:
    view = View("f", closed({"n": {"type": "integer", "minimum": -13, "maximum": 207}}, set()))
    grammar = Grammar(plan_grammar({"f": view}, thoughts=False))
    values = set()
    for seed in range(600):
        plan, _ = read_plan(grammar.sentence(random.Random(seed), depth=4))
        for task in plan.tasks:
            (argument,) = task.expressions()
            if (value := getattr(argument, "value", None)) is not None:
                assert (
                    misfit(value, SchemaType(view.parameters_schema["properties"]["n"], {})) is None
                )
                values.add(value)
    assert min(values) < -9 and max(values) > 199


@pytest.mark.parametrize("number", ["0", "-7", "1234567890123456789", str(2**63 - 1)])
def test_whole_numbers_of_64_bits_are_not_cut(number: str) -> None:
    pattern = SHARED["int"].replace('"', "").replace(" ", "")
    assert re.fullmatch(pattern, number)


def test_a_large_catalogue_has_a_grammar_of_bounded_size() -> None:
    many = {
        f"tool_{number}": View(
            f"tool_{number}", closed({f"p{n}": {"type": "string"} for n in range(6)}, set())
        )
        for number in range(40)
    }
    assert len(plan_grammar(many)) < 2 * MAX_SIZE


def test_without_tools_a_plan_is_only_join() -> None:
    assert Grammar(plan_grammar({}, thoughts=False)).sentence(random.Random(0)) == "1. join()"


@pytest.mark.parametrize(
    "inside",
    [
        {"a": {"type": "integer"}, "b": {"$ref": "#/properties/a"}},
        {"b": {"$ref": "#/definitions/P"}},
        {"b": {"$ref": "#/$defs/a~1b"}},
        {"b": {"anyOf": [{"type": "integer"}, {"$ref": "#"}]}},
    ],
)
def test_what_a_schema_refers_to_comes_along_by_whatever_path(inside: dict[str, Any]) -> None:
    number = {"type": "integer"}
    root = {**closed(inside, {"a"}), "definitions": {"P": number}, "$defs": {"a/b": number}}
    schema = plan_schema({"f": View("f", root)})
    validator = Draft202012Validator(schema)

    def fits(**args: Any) -> bool:
        return validator.is_valid({"tasks": [{"id": 1, "tool": "f", "args": args}]})

    assert fits(b=3) and fits(b="$1")
    if "anyOf" not in inside["b"]:
        assert not fits(b=[True])
    text = Grammar(plan_grammar({"f": View("f", root)})).sentence(random.Random(1), depth=9)
    assert errors_of(text, {"f": View("f", root)}) == set(), text


def test_a_union_that_is_its_own_alternative_comes_to_an_end() -> None:
    root = closed({"b": {"anyOf": [{"$ref": "#/properties/b"}, {"type": "integer"}]}}, set())
    assert json_types(SchemaType(root["properties"]["b"], root)) == {"integer"}
    view = View("f", root)
    assert Grammar(plan_grammar({"f": view})).sentence(random.Random(1))
    assert plan_schema({"f": view})


def test_what_stands_beside_a_union_holds_for_each_alternative() -> None:
    either = [{"required": ["a"]}, {"required": ["b"]}]
    fields = {"a": {"type": "integer"}, "b": {"type": "integer"}}
    typed = SchemaType({"type": "object", "properties": fields, "anyOf": either}, {})
    assert json_types(typed) == {"object"}
    assert misfit({"a": 1}, typed) is None
    assert misfit({"a": "x"}, typed) and misfit({}, typed) and misfit("text", typed)


def test_fields_beside_a_union_and_in_its_alternatives_are_one_records() -> None:
    by = [closed({name: {"type": "integer"}}, set()) for name in ("a", "b")]
    town = closed({"town": {"type": "string"}}, set())
    root = closed({"where": {**town, "anyOf": by}}, set())
    typed = SchemaType(root["properties"]["where"], root)
    assert misfit({"town": "Ulm", "b": 1}, typed) is None
    assert misfit({"b": 1}, typed) and misfit({"town": "Ulm"}, typed)
    view = View("f", root)
    grammar = Grammar(plan_grammar({"f": view}, thoughts=False))
    texts = [grammar.sentence(random.Random(seed)) for seed in range(20)]
    assert any('"town": "' in text and '", "a": ' in text for text in texts)
    for text in texts:
        assert errors_of(text, {"f": view}) == set(), text


def test_the_json_schema_takes_plans_and_refuses_what_does_not_fit() -> None:
    schema = plan_schema(TOOLS)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)

    def plan(**args: Any) -> dict[str, Any]:
        return {"tasks": [{"id": 1, "tool": "book", "args": args}]}

    assert validator.is_valid(plan(route=[{"town": "Ulm", "nights": 2}], level="easy"))
    assert validator.is_valid(plan(route="$1.legs", level=3, budget="$2"))
    assert validator.is_valid(plan(route=["$1", "$2[0].leg"], level="hard"))
    assert not validator.is_valid(plan(route=[], level="steep"))
    assert not validator.is_valid(plan(route=[]))
    assert not validator.is_valid(plan(route=[], level=3, wings=2))
    assert not validator.is_valid({"tasks": [{"id": 1, "tool": "fly", "args": {}}]})
