"""Plans on which LLMCompiler's published code hangs, crashes or corrupts a value."""

from __future__ import annotations

from typing import Any

import pytest

from llmcompiler.errors import PlanError
from llmcompiler.language import Diagnostic, Parser, parse_plan, read_plan
from llmcompiler.passes.check import check_plan, check_task
from llmcompiler.plan.model import Join, Plan, Task
from llmcompiler.runtime.binding import evaluate_expression


def call(arguments: str, results: dict[int, Any] | None = None) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of the last task's call."""
    results = results or {}
    task = parse_plan(f"90. f({arguments})", earlier_ids=results).tasks[-1]
    return (
        [evaluate_expression(expr, results.__getitem__, {}) for expr in task.args],
        {
            name: evaluate_expression(expr, results.__getitem__, {})
            for name, expr in task.kwargs.items()
        },
    )


def test_a_cycle_is_an_error_that_names_it() -> None:
    with pytest.raises(PlanError, match="wait for each other: 1 -> 2 -> 1"):
        parse_plan("1. f($2)\n2. g($1)\n3. join()")


def test_a_gap_in_the_ids() -> None:
    plan = parse_plan("1. f()\n4. g($1)\n9. join()")
    assert [task.id for task in plan.tasks] == [1, 4]
    assert plan.tasks[1].dependencies == (1,)


def test_an_unknown_tool_mid_stream_costs_only_its_own_task() -> None:
    class Search:
        name = "search"
        parameters_schema = {"properties": {"q": {"type": "string"}}, "required": ["q"]}  # noqa: RUF012
        return_schema = None
        lint = None

    parser, produced = Parser(), dict[int, Any]()
    sound: list[tuple[int, list[Diagnostic]]] = []
    wrong: list[tuple[int, list[Diagnostic]]] = []
    for char in '1. search("a")\n2. serch("b")\n3. search("c")\n4. join()\n':
        for item in parser.feed(char):
            if isinstance(item, Task):
                diagnostics = check_task(
                    item, tools={"search": Search()}, result_types=produced, spans=parser.spans
                )[1]
                (wrong if diagnostics else sound).append((item.id, diagnostics))
    assert [task_id for task_id, _ in sound] == [1, 3]
    ((task_id, (unknown,)),) = wrong
    assert (task_id, unknown.code, unknown.line, unknown.column) == (2, "E203", 2, 4)
    assert unknown.hint == 'did you mean "search"?'
    assert parser.finished


def test_a_whole_plan_in_one_chunk() -> None:
    text = 'Thought: all at once\n1. f("a")\n2. g($1)\n3. join()<END_OF_PLAN>\n'
    parser = Parser()
    tasks = [item for item in parser.feed(text) if isinstance(item, Task | Join)]
    assert tasks == [*parse_plan(text).tasks, Join(id=3)]


@pytest.mark.parametrize(
    "text", ["a, b", "f(x)", ")", "(", "],[", "line\nbreak", "2. g()", "it's", 'say "hi"', "# no"]
)
def test_strings_keep_commas_parentheses_and_newlines(text: str) -> None:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    assert call(f'"{quoted}", 1') == ([text, 1], {})
    assert call(f'[["{quoted}"]], key="{quoted}"') == ([[[text]]], {"key": text})


def test_1_beside_10() -> None:
    assert call('"$1 $10 $1", $10, $1', {1: "a", 10: "b"}) == (["a b a", "b", "a"], {})


def test_a_price_in_dollars() -> None:
    results = {1: "x", 5: "y"}
    text = "$1.50, $5,000 and $20 of $1"
    assert call(f'"{text}"', results) == (["$1.50, $5,000 and $20 of x"], {})


def test_an_observation_that_contains_a_reference() -> None:
    assert call('"<$1>", "$2"', {1: "$2 ${2} $$2", 2: "secret"}) == (
        ["<$2 ${2} $$2>", "secret"],
        {},
    )


def test_dict_arguments() -> None:
    assert call("{'a': {'b': [1, $1]}, \"c\": true}, key={}", {1: {"x": 1}}) == (
        [{"a": {"b": [1, {"x": 1}]}, "c": True}],
        {"key": {}},
    )


def test_keyword_arguments_in_any_order() -> None:
    first, second = call('b="x=1, y=2", a=[1]'), call('a=[1], b="x=1, y=2"')
    assert first == second == ([], {"a": [1], "b": "x=1, y=2"})


@pytest.mark.parametrize("text", ["", "\n", "Thought: nothing to do\n", "<END_OF_PLAN>"])
def test_an_empty_plan(text: str) -> None:
    plan, diagnostics = read_plan(text)
    assert (plan, diagnostics) == (Plan(), [])
    assert check_plan(plan, {}) == (plan, [])
