"""Saved plans: a run is lifted into one plan, its constants into inputs, and tools may drift."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from llmcompiler.compiler import LLMCompiler
from llmcompiler.errors import UsageError
from llmcompiler.history.save import save_run
from llmcompiler.language import print_plan
from llmcompiler.log.store import RunStore
from llmcompiler.passes.drift import schema_drift
from llmcompiler.plan.expressions import Input, Literal, Template
from llmcompiler.plan.model import Plan
from llmcompiler.testing.doubles import ScriptedModel, run_virtual
from llmcompiler.tools.base import Tool, tool
from tests.support.stories import dense_japan


@tool
def search(entity: str, limit: int = 10) -> dict[str, int]:
    """Find facts about an entity."""
    if entity == "Oz":
        raise LookupError("no Oz")
    return {"size": len(entity), "limit": limit}


@tool
def multiply(a: float, b: float) -> float:
    """Multiply two numbers."""
    return a * b


@tool
def total(names: list[str], weights: dict[str, float] | None = None) -> int:
    """Letters of all names."""
    return sum(map(len, names))


TOOLS = [search, multiply, total]


def answer(text: str) -> str:
    return json.dumps({"action": "answer", "text": text})


def replan(reason: str) -> str:
    return json.dumps({"action": "replan", "text": reason})


def save_question(question: str, script: Sequence[str], **options: Any) -> Plan:
    async def work() -> Plan:
        agent = LLMCompiler(TOOLS, ScriptedModel(script), store=":memory:")
        await agent.run(question)
        return save_run(agent.store, "last", **options)

    return run_virtual(work())


def execute_plan(plan: Plan, script: Sequence[str] = (), **inputs: Any) -> tuple[Any, RunStore]:
    async def work() -> tuple[Any, RunStore]:
        agent = LLMCompiler(TOOLS, ScriptedModel(script), store=":memory:")
        return await agent.execute(plan, inputs), agent.store

    return run_virtual(work())


PLAN = '1. search("Japan")\n2. search("Peru")\n3. multiply($1.size, $2.size)\n4. join($3)'


def test_a_run_becomes_a_plan_with_its_question_and_join() -> None:
    plan = save_question("how big?", [PLAN, answer("20")])
    assert print_plan(plan) == f'question "how big?"\n{PLAN}\n'
    result, _ = execute_plan(plan, [answer("20 again")])
    assert result.answer == "20 again"


def test_all_plans_of_a_run_become_one() -> None:
    script = [
        '1. search("Oz")\n2. search("Japan")\n3. join()',
        replan("Oz is nowhere"),
        '4. search("Peru")\n5. multiply($2.size, $4.size)\n6. join($5)',
        answer("20"),
    ]
    plan = save_question("how big?", script)
    assert [task.id for task in plan.tasks] == [2, 4, 5], "what failed was made up for"
    assert plan.join is not None and (plan.join.id, plan.join.on) == (6, (5,))
    assert plan.earlier == ()
    result, _ = execute_plan(plan, [answer("20")])
    assert result.observations[5].value == 20


def test_what_the_question_names_becomes_an_input() -> None:
    text = PLAN.replace('"Peru"', '"Peru", limit=3').replace("$2.size", "2.5")
    plan = save_question(
        "Is Japan bigger than Peru by 2.5, of 3?", [text, answer("yes")], parameterise=True
    )
    assert [
        (plan_input.name, plan_input.type, plan_input.default) for plan_input in plan.inputs
    ] == [
        ("entity", "string", "Japan"),
        ("entity_2", "string", "Peru"),
        ("b", "number", 2.5),
        ("limit", "integer", 3),
    ]
    assert print_plan(plan).splitlines()[4:7] == [
        'question "Is $entity bigger than $entity_2 by $b, of $limit?"',
        "1. search($entity)",
        "2. search($entity_2, limit=$limit)",
    ]
    result, store = execute_plan(plan, [answer("x")], entity="Fiji")
    assert result.observations[1].value["size"] == 4
    second_plan = save_run(store, result.run)
    assert second_plan.inputs[0].default == "Fiji", "a saved run has the inputs it was run with"
    assert second_plan.question == plan.question


def test_with_its_defaults_the_plan_asks_what_was_asked() -> None:
    plan = save_question('Is "Japan" $5 or 3?', [PLAN, answer("20")], parameterise=True)
    _, store = execute_plan(plan, [answer("x")])
    assert store.runs()[0].question == 'Is "Japan" $5 or 3?'


def test_constants_inside_lists_and_dicts_are_found() -> None:
    text = '1. total(["Japan", "Peru"], weights={"Peru": 7})\n2. join()'
    plan = save_question("Japan and Peru at 7?", [text, answer("9")], parameterise=True)
    assert print_plan(plan).splitlines()[-2] == (
        '1. total([$names, $names_2], weights={"Peru": $weights})'
    )


def test_a_part_of_a_word_or_a_number_is_not_the_constant() -> None:
    text = '1. search("York")\n2. search("New York", limit=3)\n3. multiply(2, 5)\n4. join()'
    script = [text, "4. join()", answer("9")]  # asked once more, as no call uses 2025
    plan = save_question("New York in 2025, 35 or 3.5 and 2.", script, parameterise=True)
    assert [(plan_input.name, plan_input.default) for plan_input in plan.inputs] == [
        ("entity", "New York"),
        ("a", 2),
    ]
    assert plan.inputs[1].type == "number", "the argument takes numbers"
    assert plan.question == Template(
        parts=(Input(name="entity"), " in 2025, 35 or 3.5 and ", Input(name="a"), ".")
    )
    assert plan.tasks[0].args == (Literal(value="York"),)


def test_a_run_that_goes_on_is_refused() -> None:
    store = RunStore(":memory:")
    store.begin("0123456789").append(dense_japan()[:-1])
    with pytest.raises(UsageError, match="did not end"):
        save_run(store, "last")


def test_a_run_without_tasks_is_refused() -> None:
    with pytest.raises(UsageError, match="no tasks"):
        save_question("how?", ["1. join()", answer("so")])


# What changed of the tools.


def pinned() -> Plan:
    return save_question("how big?", [PLAN, answer("20")])


def test_a_saved_plan_records_its_tools_and_json_keeps_them() -> None:
    plan = pinned()
    assert list(plan.tools) == ["search", "multiply"]
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert plan.tools["search"].parameters_schema == search.parameters_schema


def test_tools_that_did_not_change_have_not_drifted() -> None:
    assert schema_drift(pinned(), {tool_used.name: tool_used for tool_used in TOOLS}) == []


def test_a_plan_without_pins_has_not_drifted() -> None:
    assert schema_drift(Plan(), {}) == []


def drift(changed: Tool) -> list[str]:
    return schema_drift(pinned(), {"search": changed, "multiply": multiply})


def test_every_change_of_arguments_is_told() -> None:
    @tool(name="search")
    def changed(limit: int, name: str, deep: bool = False) -> dict[str, int]:
        """Find facts."""
        raise NotImplementedError

    assert drift(replace(changed, version="")) == [
        "search: the argument 'entity' is gone",
        "search: the argument 'limit' is required now",
        "search: there is a new required argument 'name'",
        "search: there is a new optional argument 'deep'",
    ]


def test_a_change_of_type_or_order_is_told() -> None:
    @tool(name="search")
    def changed(limit: str = "10", entity: str = "") -> dict[str, int]:
        """Find facts."""
        raise NotImplementedError

    assert drift(changed) == [
        "search: the argument 'entity' is optional now",
        "search: the argument 'limit' was an integer and is a string",
        "search: its arguments were in the order entity, limit and are in limit, entity",
    ]


def test_a_change_of_the_result_is_told() -> None:
    described = {"type": "object", "properties": {"size": {"type": "integer"}}}
    before = replace(search, return_schema=described)
    plan = pinned()
    pins = plan.model_dump(mode="json")
    pins["tools"]["search"]["return_schema"] = described
    plan = Plan.model_validate(pins)
    after = {"type": "object", "properties": {"length": {"type": "integer"}}}
    tools = {"search": replace(before, return_schema=after), "multiply": multiply}
    assert schema_drift(plan, tools) == ["search: the field 'size' of its result is gone"]
    tools["search"] = replace(before, return_schema=None)
    assert schema_drift(plan, tools) == ["search: its result is no longer described"]
    tools["search"] = replace(before, return_schema={"type": "string"})
    assert schema_drift(plan, tools)[0] == "search: the field 'size' of its result is gone"


def test_a_tool_that_is_gone_is_named() -> None:
    assert schema_drift(pinned(), {"search": search}) == [
        "multiply: there is no such tool any more"
    ]


def test_another_version_with_the_same_schemas_is_told() -> None:
    (line,) = drift(replace(search, version="2"))
    assert line.startswith("search: its version was") and line.endswith("is '2'")
