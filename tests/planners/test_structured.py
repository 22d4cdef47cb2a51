"""The structured planner: a plan as JSON, checked and repaired like any other plan."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from llmcompiler.compiler import LLMCompiler
from llmcompiler.errors import PlanError
from llmcompiler.history.replay import replay
from llmcompiler.language import print_task
from llmcompiler.log.store import RunStore
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.model import Join, Task
from llmcompiler.planners.base import PlanningContext
from llmcompiler.planners.structured import StructuredPlanner
from llmcompiler.prompting.prompts import Prompts
from llmcompiler.reasoning.tool import think_tool
from llmcompiler.testing.doubles import ScriptedModel
from llmcompiler.tools.base import DEFAULT_TOOLS, tool
from llmcompiler.tools.loading import load_tools


@tool
def search(entity: str) -> dict[str, int]:
    """Find numbers about an entity."""
    return {"size": len(entity)}


@tool
def add(a: float, b: float) -> float:
    """Add two numbers."""
    return a + b


TOOLS = {"search": search, "add": add}


def plan(*calls: tuple[str, dict[str, Any]]) -> str:
    tasks = [{"id": n, "tool": name, "args": args} for n, (name, args) in enumerate(calls, 1)]
    return json.dumps({"tasks": tasks})


GOOD = plan(("search", {"entity": "Chad"}), ("add", {"a": "$1.size", "b": 2}))


async def items(model: ScriptedModel, **fields: Any) -> list[Any]:
    context = PlanningContext("How large is Chad?", TOOLS, model.stream, **fields)
    return [item async for item in StructuredPlanner().plan(context)]


async def test_references_in_strings_are_typed_where_no_text_is_taken() -> None:
    plan_items = await items(ScriptedModel([GOOD]))
    tasks = [print_task(item) for item in plan_items if isinstance(item, Task)]
    assert tasks == ['1. search(entity="Chad")', "2. add(a=$1.size, b=2)"]
    assert isinstance(plan_items[-1], Join)


async def test_a_broken_plan_is_asked_for_again_with_what_is_wrong() -> None:
    model = ScriptedModel([plan(("search", {"entity": "Chad", "x": 1})), GOOD])
    plan_items = await items(model)
    assert sum(isinstance(item, Task) for item in plan_items) == 2
    assert "has no parameter 'x'" in model.requests[1].messages[-1].content


async def test_every_text_can_be_another() -> None:
    prompts = Prompts(
        structured="Plan.\n{guidelines}{tools}",
        structured_repair="No: {problems}",
        guidelines=("Be brief.",),
        question="Q: {question}",
    )
    model = ScriptedModel([plan(("search", {"entity": "Chad", "x": 1})), GOOD])
    tools = {**TOOLS, "think": think_tool()}
    context = PlanningContext("How large is Chad?", tools, model.stream)
    assert [item async for item in StructuredPlanner(prompts).plan(context)]
    system, *_, question, _, complaint = [message.content for message in model.requests[1].messages]
    assert system.startswith(f"Plan.\n- {prompts.reason}\n- Be brief.\n")
    assert question == "Q: How large is Chad?" and complaint.startswith("No: error[E303]")


@pytest.mark.parametrize(
    ("calls", "code"),
    [
        ([("search", {"entity": "$2.name"}), ("search", {"entity": "Chad"})], "E204"),
        ([("search", {"entity": "$1"})], "E204"),
        ([("search", {"entity": "Chad"}), ("add", {"a": 1, "b": "$7.size"})], "E202"),
        ([("search", {"entity": 1, "x": 1}), ("search", {"entity": "$1.size"})], "E207"),
    ],
)
async def test_a_reference_to_no_task_above_is_no_text(calls: Any, code: str) -> None:
    plan_items = await items(ScriptedModel([plan(*calls), GOOD]))
    assert code in [item.code for item in plan_items if isinstance(item, Diagnostic)]
    tasks = [print_task(item) for item in plan_items if isinstance(item, Task)]
    assert tasks == ['1. search(entity="Chad")', "2. add(a=$1.size, b=2)"]


async def test_a_price_is_text() -> None:
    plan_items = await items(ScriptedModel([plan(("search", {"entity": "a hat of $20 or $ 3"}))]))
    assert not [item for item in plan_items if isinstance(item, Diagnostic)]


@pytest.mark.parametrize(
    "broken", ['{"tasks": [{"id": 1e999, "tool": "add", "args": {}}]}', "[" * 30_000]
)
async def test_json_beyond_all_bounds_is_asked_for_again(broken: str) -> None:
    plan_items = await items(ScriptedModel([broken, GOOD]))
    assert sum(isinstance(item, Task) for item in plan_items) == 2


async def test_what_cannot_be_repaired_is_an_error() -> None:
    with pytest.raises(PlanError, match="no plan that can be executed"):
        await items(ScriptedModel(["oops", "{}"]), repairs=1)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (plan(("search", {"entity": json.loads("[" * 400 + "]" * 400)})), "nested more than 64"),
        (plan(("search", {"entity": {"$ref": "$9"}})), '"$9" does not refer to an earlier task'),
    ],
)
async def test_what_can_be_no_argument_is_asked_for_again(text: str, complaint: str) -> None:
    model = ScriptedModel([text, GOOD])
    plan_items = await items(model)
    assert sum(isinstance(item, Task) for item in plan_items) == 2
    assert complaint in model.requests[1].messages[-1].content


async def test_arguments_may_be_nested_as_in_a_plans_text() -> None:
    @tool
    def keep(value: Any) -> None:
        """Keep a value."""

    model = ScriptedModel([plan(("keep", {"value": json.loads("[" * 64 + "1" + "]" * 64)}))])
    context = PlanningContext("Keep it!", {"keep": keep}, model.stream)
    plan_items = [item async for item in StructuredPlanner().plan(context)]
    assert isinstance(plan_items[0], Task)


async def test_the_model_is_held_to_a_schema_that_its_own_examples_fit() -> None:
    tools = load_tools(DEFAULT_TOOLS)
    model = ScriptedModel(['{"tasks": []}'])
    context = PlanningContext("Thanks!", tools, model.stream)
    assert [item async for item in StructuredPlanner().plan(context)] == [Join(id=1)]
    (request,) = model.requests
    assert request.schema is not None
    plans = [
        json.loads(message.content) for message in request.messages if message.role == "assistant"
    ]
    assert len(plans) > 5
    for example in plans:
        Draft202012Validator(request.schema).validate(example)


async def test_a_run_is_planned_with_it_by_name_and_replayed() -> None:
    store = RunStore(":memory:")
    model = ScriptedModel([GOOD, json.dumps({"text": "6", "action": "answer"})])
    compiler = LLMCompiler([search, add], model, planner="structured", store=store)
    result = await compiler.run("How large is Chad and 2?")
    assert result.answer == "6" and result.observations[2].value == 6
    assert (await replay(store, result.run)).answer == "6"
