"""Printing a plan and reading it back gives the same plan."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from llmcompiler.language import Parser, parse_plan, print_plan, print_task
from llmcompiler.plan.expressions import (
    STAR,
    Expr,
    Input,
    Literal,
    Reference,
    Template,
    make_dict,
    make_list,
)
from llmcompiler.plan.model import Join, Plan, PlanInput, Task

INPUTS = ("city", "größe", "x_1", "a")

text = st.one_of(
    st.text(max_size=12),
    st.text(alphabet="$1230{}[]().,_*a \"'\\#\n\r\t“”‘’é\x00\x7f\u2028", max_size=14),
    st.sampled_from(
        ["$1 and $10", "$1,000.50", "a, (b]", "1. f(\n2. g()", "${}", "$$", "<END_OF_PLAN>", "```"]
    ),
)
literals = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
segments = st.one_of(
    st.sampled_from(["a", "population", "a b", "", "0", "größe", '"', "]"]),
    text,
    st.integers(-3, 20),
    st.just(STAR),
)
paths = st.lists(segments, max_size=3).map(tuple)


@st.composite
def references(draw: Any, ids: list[int], names: tuple[str, ...]) -> Reference | Input:
    kinds = [kind for kind, some in (("task", ids), ("input", names)) if some]
    if draw(st.sampled_from(kinds)) == "task":
        return Reference(task=draw(st.sampled_from(ids)), path=draw(paths))
    return Input(name=draw(st.sampled_from(names)), path=draw(paths))


@st.composite
def templates(draw: Any, refs: Any) -> Template:
    parts: list[Any] = []
    for part in draw(st.lists(refs | text.filter(bool), min_size=1, max_size=4)):
        if isinstance(part, str) and parts and isinstance(parts[-1], str):
            parts[-1] += part
        else:
            parts.append(part)
    if all(isinstance(part, str) for part in parts):
        parts.append(draw(refs))
    return Template(parts=tuple(parts))


def expressions(ids: list[int], names: tuple[str, ...]) -> st.SearchStrategy[Expr]:
    constants = literals.map(lambda value: Literal(value=value))
    if not ids and not names:
        return constants
    refs = references(ids, names)
    return st.recursive(
        constants | refs | templates(refs),
        lambda inner: (
            st.lists(inner, max_size=3).map(make_list)
            | st.dictionaries(text, inner, max_size=3).map(make_dict)
        ),
        max_leaves=4,
    )


tools = st.sampled_from(["search", "a.b", "max-of", "größe", "_x", "thought", "input", "f2"])
thoughts = st.none() | text | st.sampled_from(["Thought: x", '"q"', "one\ntwo", "2. g()", "# no"])
keywords = st.sampled_from(["name", "a.b", "max-results", "true", "join"]) | text


@st.composite
def plans(draw: Any) -> Plan:
    names = draw(st.sampled_from([(), INPUTS]))
    earlier = draw(st.sampled_from([(), (1, 2), (7,)]))
    new = draw(st.lists(st.integers(8, 60), max_size=4, unique=True))
    ids = list(earlier)
    tasks = []
    for task_id in new:
        expr = expressions(ids, names)
        tasks.append(
            Task(
                id=task_id,
                tool=draw(tools),
                args=tuple(draw(st.lists(expr, max_size=3))),
                kwargs=draw(st.dictionaries(keywords, expr, max_size=2)),
                thought=draw(thoughts),
            )
        )
        ids.append(task_id)
    on = st.lists(st.sampled_from(ids), unique=True, max_size=3) if ids else st.just([])
    join = Join(id=61, on=tuple(draw(on))) if draw(st.booleans()) else None
    question: Expr | None = None
    if draw(st.booleans()):
        refs = references([], names) if names else None
        choices = text.map(lambda value: Literal(value=value))
        question = draw(choices | refs | templates(refs) if refs is not None else choices)
    inputs = tuple(
        PlanInput(name=name, type="any", required=False, default=draw(literals))
        if draw(st.booleans())
        else PlanInput(name=name, type=draw(st.sampled_from(["any", "string", "array"])))
        for name in names
    )
    return Plan(question=question, inputs=inputs, tasks=tuple(tasks), join=join, earlier=earlier)


@settings(max_examples=100, deadline=None)
@given(plans())
def test_a_printed_plan_is_read_back_as_it_was(plan: Plan) -> None:
    printed = print_plan(plan)
    parser = Parser(earlier_ids=plan.earlier, inputs="declare", first_id=1)
    parser.feed(printed)
    parser.close()
    assert parser.diagnostics == []
    assert parser.plan() == plan
    assert print_plan(parser.plan()) == printed


@settings(max_examples=60, deadline=None)
@given(plans())
def test_the_json_form_is_read_back_as_it_was(plan: Plan) -> None:
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert Plan.model_validate(json.loads(json.dumps(plan.model_dump(mode="json")))) == plan


@pytest.mark.parametrize(
    "line",
    [
        '1. country("Japan")',
        '1. f(1, -2.5, true, null, [1, "a"], {"k": []}, name="x")',
        '1. f("a\\nb", "say \\"hi\\"", "日本")',
        '1. f("it costs $$5")',
        '1. f("odd name"=1)',
    ],
)
def test_there_is_one_way_to_write_a_task(line: str) -> None:
    assert print_task(parse_plan(line).tasks[0]) == line


def test_a_whole_plan() -> None:
    text = (
        'input city: string = "Paris"\n'
        "input depth\n"
        'question "How large is $city?"\n'
        "Thought: look it up\n"
        "1. city($city)\n"
        '2. calc("$1.population / 2", $1.rows[0]["a b"], [$1[*], $depth])\n'
        "3. join($2)\n"
    )
    assert print_plan(parse_plan(text)) == text


def test_a_plan_is_printed_as_its_text() -> None:
    text = '1. city("Oslo")\n2. calc("$1.population / 2")\n3. join($2)\n'
    assert str(parse_plan(text)) == text
