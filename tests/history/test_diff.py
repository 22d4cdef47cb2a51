"""Diff: tasks are matched before they are compared, and only real differences are told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from llmcompiler.compiler import LLMCompiler
from llmcompiler.errors import LogError
from llmcompiler.history.diff import RunDiff, diff_runs
from llmcompiler.llm.base import Usage
from llmcompiler.llm.prices import Price, Prices
from llmcompiler.log.store import RunStore
from llmcompiler.prompting.prompts import Prompts
from llmcompiler.testing.doubles import Answer, ScriptedModel, run_virtual
from llmcompiler.tools.base import tool
from llmcompiler.view.diff import render

SIZES = {"ab": 2, "abc": 3, "abcd": 4}


@tool
async def search(entity: str, unit: str = "km") -> dict[str, Any]:
    """Find facts about an entity."""
    if entity not in SIZES:
        raise LookupError(f"no {entity}")
    return {"name": entity, "size": SIZES[entity], "tags": ["x", entity]}


@tool
def add(a: float, b: float) -> float:
    """Add two numbers."""
    return a + b


@tool
def multiply(a: float, b: float) -> float:
    """Multiply two numbers."""
    return a * b


@tool
async def names() -> list[str]:
    """What can be searched."""
    return list(SIZES)


def answer(text: str) -> str:
    return json.dumps({"action": "answer", "text": text})


def replan(reason: str) -> str:
    return json.dumps({"action": "replan", "text": reason})


def compare(*scripts: Sequence[str]) -> RunDiff:
    """Two runs of the same question with these answers of the model, beside each other."""

    async def work() -> RunDiff:
        store = RunStore(":memory:")
        runs = []
        for script in scripts:
            agent = LLMCompiler([search, add, multiply, names], ScriptedModel(script), store=store)
            runs.append((await agent.run("what?")).run)
        return diff_runs(store, *runs)

    return run_virtual(work())


def render_text(diff: RunDiff) -> str:
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(render(diff))
    return capture.get()


PLAN = '1. search("ab")\n2. search("abc")\n3. add($1.size, $2.size)\n4. join()'


def test_equal_runs_have_no_differences() -> None:
    diff = compare([PLAN, answer("5")], [PLAN, answer("5")])
    assert diff.same_plan and diff.same_values and diff.same_answer
    assert [task.change for task in diff.tasks] == ["same"] * 3


def test_an_argument_by_name_is_the_argument_by_position() -> None:
    named = PLAN.replace('"ab"', 'entity="ab"').replace("$1.size, $2.size", "b=$2.size, a=$1.size")
    assert compare([PLAN, answer("5")], [named, answer("5")]).same_plan


def test_a_changed_argument_is_named_and_its_consequences_are_values() -> None:
    diff = compare([PLAN, answer("5")], [PLAN.replace('"abc"', '"abcd"'), answer("6")])
    assert [task.change for task in diff.tasks] == ["same", "changed", "same"]
    (argument,) = diff.tasks[1].arguments
    assert (argument.name, argument.before, argument.after) == ("entity", '"abc"', '"abcd"')
    (outcome,) = diff.tasks[2].outcomes
    assert (outcome.before, outcome.after) == ("5.0", "6.0")
    assert not diff.same_answer


def test_a_changed_tool_is_named() -> None:
    diff = compare([PLAN, answer("5")], [PLAN.replace("add", "multiply"), answer("6")])
    assert [
        (argument.name, argument.before, argument.after) for argument in diff.tasks[2].arguments
    ] == [("tool", "add", "multiply")]


def test_a_task_that_only_got_another_number_is_the_same() -> None:
    moved = (
        '1. search("abcd")\n2. search("ab")\n3. search("abc")\n4. add($2.size, $3.size)\n5. join()'
    )
    diff = compare([PLAN, answer("5")], [moved, answer("5")])
    assert [(task.before, task.after, task.change) for task in diff.tasks] == [
        (1, 2, "same"),
        (2, 3, "same"),
        (3, 4, "same"),
        (None, 1, "added"),
    ]
    back = compare([moved, answer("5")], [PLAN, answer("5")])
    assert [(task.before, task.after, task.change) for task in back.tasks] == [
        (1, None, "removed"),
        (2, 1, "same"),
        (3, 2, "same"),
        (4, 3, "same"),
    ]


def test_only_the_part_of_a_value_that_differs_is_shown() -> None:
    diff = compare([PLAN, answer("5")], [PLAN.replace('"abc"', '"abcd"'), answer("5")])
    (outcome,) = diff.tasks[1].outcomes
    assert (outcome.path, outcome.before, outcome.after) == (".name", '"abc"', '"abcd"')


def test_elements_of_a_fan_out_are_compared_one_by_one() -> None:
    plan = '1. search("ab")\n2. names()\n3. search($2[*])\n4. join()'
    diff = compare([plan, answer("5")], [plan.replace("[*]", "[0]"), answer("5")])
    assert diff.tasks[2].elements == 3
    assert diff.tasks[2].outcomes[0].after == "no such element"
    same = compare([plan, answer("5")], [plan, answer("5")])
    assert same.same_values and same.tasks[2].elements == 3


def test_a_failure_in_place_of_a_value_is_told() -> None:
    plan = PLAN.replace("4. join()", '4. search("abcd")\n5. join()')
    diff = compare([plan, answer("5")], [plan.replace('"abc"', '"Oz"'), answer("4")])
    assert diff.tasks[1].outcomes[0].after == "failed: no Oz"
    assert (diff.tasks[2].outcomes[0].before, diff.tasks[2].outcomes[0].after) == ("5.0", "skipped")


def test_replans_are_compared_as_one_plan() -> None:
    first = '1. search("ab")\n2. search("abc")\n3. join()'
    second = "4. add($1.size, $2.size)\n5. join()"
    diff = compare([PLAN, answer("5")], [first, replan("add them"), second, answer("5")])
    assert diff.same_plan
    assert [(task.before, task.after) for task in diff.tasks] == [(1, 1), (2, 2), (3, 4)]
    assert (diff.before.plans, diff.after.plans) == (1, 2)
    assert diff.after.usage.calls == 4


def test_a_fork_is_told_from_its_parent() -> None:
    async def work() -> RunDiff:
        store = RunStore(":memory:")
        script = [PLAN, answer("5"), answer("13")]
        agent = LLMCompiler([search, add, multiply], ScriptedModel(script), store=store)
        parent = await agent.run("what?")
        fork = await agent.fork(parent.run, values={1: {"size": 10}})
        return diff_runs(store, parent.run, fork.run)

    diff = run_virtual(work())
    assert diff.after.parent == diff.before.run and diff.same_plan
    (value,) = diff.tasks[2].outcomes
    assert (value.before, value.after) == ("5.0", "13.0")
    assert "forked from" in render_text(diff)


def test_a_diff_is_json() -> None:
    diff = compare([PLAN, answer("5")], [PLAN.replace('"abc"', '"abcd"'), answer("6")])
    data = json.loads(json.dumps(diff.to_json()))
    assert data["same"] == {"plan": False, "values": False, "answer": False}
    assert data["tasks"][1]["arguments"] == [
        {"name": "entity", "before": '"abc"', "after": '"abcd"'}
    ]
    assert data["after"]["answer"] == "6"


def test_a_terminal_shows_what_differs_and_counts_the_rest() -> None:
    text = render_text(compare([PLAN, answer("5")], [PLAN.replace('"abc"', '"abcd"'), answer("6")]))
    assert "plan: 2 tasks alike" in text
    assert '~ 2 search\n      entity: "abc" → "abcd"' in "\n".join(
        line.rstrip() for line in text.splitlines()
    )
    assert "values: 1 result alike, 2 different" in text
    assert "~ 3 add: 5.0 → 6.0" in text


def compare_priced(
    *scripts: Sequence[Answer], start: str | None = None, **prices: Price
) -> RunDiff:
    """A question asked of the model ``m``, and a fork of the run or a second run beside it."""

    async def work() -> RunDiff:
        store = RunStore(":memory:")
        for number, script in enumerate(scripts):
            agent = LLMCompiler([search, add], ScriptedModel(script, name="m"), store=store)
            if number and start is not None:
                await agent.fork("last", start=start)
            else:
                await agent.run("what?")
        first, second = reversed(store.runs())
        return diff_runs(store, first.run, second.run, prices=Prices(prices))

    return run_virtual(work())


PLANNED = Answer(PLAN, usage=Usage(10, 0, 0, 1))
JOINED = Answer(answer("5"), usage=Usage(4, 0, 0, 1))


def test_money_is_compared_where_prices_are_known() -> None:
    diff = compare_priced([PLANNED, JOINED], [PLANNED, JOINED], m=Price(100_000, 0))
    assert (diff.before.cost, diff.after.cost, diff.anew) == pytest.approx((1.4, 1.4, 1.4))
    (line,) = (line for line in render_text(diff).splitlines() if line.startswith("cost"))
    assert line.split() == ["cost", "$1.40", "$1.40"]
    assert json.loads(json.dumps(diff.to_json()))["after"]["cost"] == pytest.approx(1.4)


def test_a_fork_is_charged_only_for_what_it_asked_anew() -> None:
    diff = compare_priced([PLANNED, JOINED], [JOINED], start="join", m=Price(100_000, 0))
    assert (diff.before.cost, diff.after.cost, diff.anew) == pytest.approx((1.4, 1.4, 0.4))
    assert "$1.40 ($0.4 of it anew)" in render_text(diff)


def test_a_price_that_is_not_known_is_not_made_up() -> None:
    diff = compare_priced([PLANNED, JOINED], [PLANNED, JOINED])
    assert diff.before.cost is None and diff.to_json()["before"]["cost"] is None
    assert "not known" in render_text(diff)


def test_texts_that_differ_are_named() -> None:
    async def work() -> RunDiff:
        store = RunStore(":memory:")
        for guidelines in ((), ("Be brief.",)):
            texts = Prompts(joiner_guidelines=guidelines)
            model = ScriptedModel([PLAN, answer("5")])
            await LLMCompiler([search, add], model, store=store, prompts=texts).run("what?")
        first, second = reversed(store.runs())
        return diff_runs(store, first.run, second.run)

    diff = run_virtual(work())
    assert diff.prompts == ("joiner_guidelines",)
    assert "prompts: joiner_guidelines differ" in render_text(diff)


def test_a_run_that_is_not_there_is_named() -> None:
    with pytest.raises(LogError, match='no run "a"'):
        diff_runs(RunStore(":memory:"), "a", "b")
