"""Passes: what each changes, how it reports that, and that no plan gives other results."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given, settings, strategies as st

from llmcompiler.compiler import LLMCompiler
from llmcompiler.errors import ToolError
from llmcompiler.events import Event, PlanDiagnosed
from llmcompiler.executors.local import LocalExecutor
from llmcompiler.language import parse_plan, print_plan
from llmcompiler.limits import Limits
from llmcompiler.log.journal import Journal
from llmcompiler.passes.deduplicate import Deduplicator, deduplicate
from llmcompiler.passes.fold import fold_constants
from llmcompiler.passes.optimize import (
    PASSES,
    Pass,
    lower_reasoning,
    optimize,
    prune_tasks,
    rank_tasks,
)
from llmcompiler.plan.model import Plan
from llmcompiler.reasoning.tool import think_tool
from llmcompiler.runtime.budget import RunBudget
from llmcompiler.runtime.engine import Engine
from llmcompiler.runtime.results import joined_value
from llmcompiler.testing.doubles import ScriptedModel, run_virtual
from llmcompiler.tools.base import tool


@tool(pure=True)
def add(a: int, b: int = 1) -> int:
    """Add numbers."""
    return a + b


@tool
async def read(key: Any) -> Any:
    """Read what is stored under a key."""
    return {"key": key, "n": len(str(key)), "items": [1, 2]}


@tool(effect="write")
async def write(value: Any) -> Any:
    """Store something."""
    return value


@tool(pure=True)
def half(number: int) -> int:
    """Half of an even number."""
    if number % 2:
        raise ToolError(f"{number} is odd")
    return number // 2


TOOLS = {a_tool.name: a_tool for a_tool in (add, read, write, half)}


def after(optimize_plan: Pass, text: str) -> tuple[list[str], list[str]]:
    plan, changes = optimize_plan(parse_plan(text), TOOLS)
    return print_plan(plan).strip().splitlines(), changes


def test_a_repeated_reading_call_is_made_once() -> None:
    assert after(deduplicate, '1. read("x")\n2. read(key="x")\n3. add($2.n, $1.n)\n4. join()') == (
        ['1. read("x")', "3. add($1.n, $1.n)", "4. join()"],
        ["task 2 repeats task 1 (read) and is not called"],
    )


def test_what_repeats_a_repeated_call_is_found_too() -> None:
    text = '1. read("x")\n2. read("x")\n3. read($1)\n4. read($2)\n5. add($3.n, $4.n)\n6. join($5)'
    assert after(deduplicate, text)[0] == [
        '1. read("x")',
        "3. read($1)",
        "5. add($3.n, $3.n)",
        "6. join($5)",
    ]


def test_calls_that_write_and_those_behind_them_are_made_again() -> None:
    text = '1. read("x")\n2. write(1)\n3. write(1)\n4. read("x")\n5. add($1.n, $4.n)\n6. join($5)'
    assert after(deduplicate, text) == (text.splitlines(), [])


def test_results_that_the_plan_gives_keep_their_numbers() -> None:
    for text in (
        '1. read("x")\n2. read("x")\n3. join()',
        '1. read("x")\n2. read("x")\n3. join($1, $2)',
        '1. read("x")\n2. read("x")\n3. add($2.n)\n4. join()',
    ):
        assert after(deduplicate, text) == (text.splitlines(), [])


def test_one_and_true_are_different_arguments() -> None:
    text = "1. read(1)\n2. read(true)\n3. read(1.0)\n4. read([$1, $2, $3])\n5. join()"
    assert after(deduplicate, text) == (text.splitlines(), [])


def test_pure_calls_on_literals_are_folded_into_their_users() -> None:
    text = '1. add(2)\n2. add($1, 4)\n3. read("$1 and $2")\n4. write([$2])\n5. join($3)'
    assert after(fold_constants, text) == (
        ['3. read("3 and 7")', "4. write([7])", "5. join($3)"],
        ["task 1 (add) is always 3", "task 2 (add) is always 7"],
    )


def test_calls_that_somebody_must_agree_to_or_that_may_take_long_are_not_folded() -> None:
    def double(number: int) -> int:
        """Twice the number."""
        raise AssertionError("it was called")

    for options in ({"approve": True}, {"timeout": 5.0}, {"effect": "write"}):
        double_tool = tool(pure=True, **options)(double)  # type: ignore[call-overload]
        plan = parse_plan("1. double(2)\n2. add($1)\n3. join($2)")
        assert fold_constants(plan, {**TOOLS, "double": double_tool}) == (plan, [])


def test_failures_shown_results_and_lists_to_fan_out_over_are_not_folded() -> None:
    for text in (
        "1. half(3)\n2. add($1)\n3. join()",
        "1. add(2)\n2. join()",
        "1. add(2)\n2. add($1)\n3. join($1, $2)",
    ):
        assert after(fold_constants, text) == (text.splitlines(), [])


def test_what_no_join_needs_is_pruned_unless_it_writes() -> None:
    text = '1. read("a")\n2. read($1)\n3. read("b")\n4. write($3)\n5. read("c")\n6. join($5)'
    assert after(prune_tasks, text) == (
        ['3. read("b")', "4. write($3)", '5. read("c")', "6. join($5)"],
        ["task 1 (read) is not needed by the join", "task 2 (read) is not needed by the join"],
    )
    everything = '1. read("a")\n2. read($1)\n3. join()'
    assert after(prune_tasks, everything) == (everything.splitlines(), [])


def test_tasks_are_ranked_by_the_longest_path_that_waits_for_them() -> None:
    text = '1. read("a")\n2. read("b")\n3. read($2)\n4. read($3)\n5. join()'
    assert after(rank_tasks, text) == (
        ['2. read("b")', "3. read($2)", '1. read("a")', "4. read($3)", "5. join()"],
        ["the critical path is 2 -> 3 -> 4: 3 calls in a row"],
    )


def test_the_pipeline_says_who_did_what() -> None:
    text = '1. add(1)\n2. read("x$1")\n3. read("x2")\n4. read($2)\n5. read([$3])\n6. join($5)'
    plan, changes = optimize(parse_plan(text), TOOLS)
    assert changes == [
        "fold: task 1 (add) is always 2",
        "deduplicate: task 3 repeats task 2 (read) and is not called",
        "prune: task 4 (read) is not needed by the join",
        "rank: the critical path is 2 -> 5: 2 calls in a row",
    ]
    assert print_plan(plan).splitlines() == ['2. read("x2")', "5. read([$2])", "6. join($5)"]


class TestStreaming:
    def test_a_repeated_call_is_answered_by_the_first(self) -> None:
        plan = parse_plan('1. read("x")\n2. read("x")\n3. add($2.n)\n4. join($2, $3)')
        deduplicator = Deduplicator(TOOLS)
        first, repetition, user = (deduplicator.accept(task) for task in plan.tasks)
        assert (first, repetition) == (plan.tasks[0], 1)
        assert not isinstance(user, int) and user.dependencies == (1,)
        assert plan.join is not None and deduplicator.redirect_join(plan.join).on == (1, 3)

    def test_also_across_plans_but_not_behind_a_write(self) -> None:
        earlier = parse_plan('1. read("x")').tasks
        (repetition,) = parse_plan('7. read("x")').tasks
        assert Deduplicator(TOOLS, earlier).accept(repetition) == 1
        assert Deduplicator(TOOLS).accept(repetition) == repetition
        with_write = parse_plan('1. read("x")\n2. write(1)').tasks
        assert Deduplicator(TOOLS, with_write).accept(repetition) == repetition

    def test_a_number_used_anew_means_the_new_task(self) -> None:
        deduplicator = Deduplicator(TOOLS)
        for text in ('1. read("x")', '2. read("x")', '2. read("y")'):
            last = deduplicator.accept(parse_plan(text).tasks[0])
        (user,) = parse_plan("3. add($2)", earlier_ids=(1, 2)).tasks
        assert not isinstance(last, int) and deduplicator.accept(user) == user

    def test_a_run_makes_a_repeated_call_once_and_says_so(self) -> None:
        async def main() -> list[Event]:
            events: list[Event] = []
            script = [
                '1. read("x")\n2. read("x")\n3. add($2.n)\n4. join()',
                '{"action": "replan", "text": "more"}',
                '4. read("x")\n5. add($4.n, 5)\n6. join($4, $5)',
                '{"action": "answer", "text": "done"}',
            ]
            model = ScriptedModel(script)
            async with LLMCompiler([*TOOLS.values()], model, store=":memory:") as compiler:
                result = await compiler.run("?", on_event=events.append)
            assert result.answer == "done"
            assert {number: end.value for number, end in result.observations.items()} == {
                1: {"key": "x", "n": 1, "items": [1, 2]},
                3: 2,
                5: 6,
            }
            assert [plan.join and plan.join.on for plan in result.plans] == [(), (1, 5)]
            return events

        events = run_virtual(main())
        assert [event.message for event in events if isinstance(event, PlanDiagnosed)] == [
            "task 2 repeats task 1 (read) and is not called",
            "task 4 repeats task 1 (read) and is not called",
        ]


class TestAcrossPlans:
    """What a plan read before or beside a write is read anew by the next."""

    @staticmethod
    def reads(first: str, second: str) -> list[Any]:
        stock = {"lamp": 5}

        @tool
        async def stock_of(item: str) -> int:
            """How many there are."""
            return stock[item]

        @tool(effect="write")
        async def order(item: str, fails: bool = False) -> str:
            """Take one."""
            await asyncio.sleep(1)
            stock[item] -= 1
            if fails:
                raise ToolError("the shop answered 504 after it took the order")
            return "ordered"

        async def main() -> list[Any]:
            replan, answer = ({"action": what, "text": "x"} for what in ("replan", "answer"))
            model = ScriptedModel([first, json.dumps(replan), second, json.dumps(answer)])
            async with LLMCompiler([stock_of, order], model, store=":memory:") as compiler:
                result = await compiler.run("?")
            observations = result.observations.values()
            return [end.value for end in observations if end.task.tool == "stock_of"]

        values: list[Any] = run_virtual(main())
        return values

    def test_beside_a_write(self) -> None:
        first = '1. order("lamp")\n2. stock_of("lamp")\n3. join()'
        assert self.reads(first, '3. stock_of("lamp")\n4. join()') == [5, 4]

    def test_before_a_write_that_failed(self) -> None:
        first = '1. stock_of("lamp")\n2. order("lamp", fails=true)\n3. join()'
        assert self.reads(first, '3. stock_of("lamp")\n4. join()') == [5, 4]

    def test_without_one_it_is_read_once(self) -> None:
        assert self.reads('1. stock_of("lamp")\n2. join()', '2. stock_of("lamp")\n3. join()') == [5]


def test_a_call_that_reasons_says_its_strategy() -> None:
    plan = parse_plan(
        '1. think("What?")\n2. think("Why?", [$1], "pdr")\n3. think("How?", strategy=$2)\n4. join()'
    )
    tools = {"think": think_tool("hogwild")}
    lowered, changes = lower_reasoning(plan, tools)
    assert print_plan(lowered).strip().splitlines() == [
        '1. think("What?", strategy="hogwild")',
        '2. think("Why?", [$1], "pdr")',
        '3. think("How?", strategy=$2)',
        "4. join()",
    ]
    assert changes == [
        "task 1 (think) is a branch: hogwild, as nothing else is said",
        "task 2 (think) is a branch: pdr",
        "task 3 (think) is a branch: as another task's result says",
    ]
    assert lower_reasoning(lowered, {"think": think_tool("vote")})[0] == lowered


# No plan gives anything else.


@st.composite
def plans(draw: st.DrawFn) -> str:
    lines: list[str] = []
    for number in range(1, draw(st.integers(1, 8)) + 1):
        values = ["1", "2", '"x"', "[1, 2]"]
        if number > 1:
            before = st.integers(1, number - 1)
            values += [f"${draw(before)}", f"[${draw(before)}]", f'"s $${draw(before)}"']
            values += [f"${draw(before)}.n", f"${draw(before)}.items[*]", f'"n ${draw(before)}"']
        value = st.sampled_from(values)
        call = draw(st.sampled_from(["add({})", "add({}, b={})", "read({})", "write({})"]))
        call = draw(st.sampled_from([call, "half({})", "read(key={})"]))
        lines.append(f"{number}. {call.format(draw(value), draw(value))}")
    named = draw(st.lists(st.integers(1, len(lines)), max_size=3, unique=True))
    return "\n".join([*lines, f"{len(lines) + 1}. join({', '.join(f'${n}' for n in named)})"])


def outcome(plan: Plan) -> Any:
    async def main() -> Any:
        engine = Engine(
            "run",
            tools=TOOLS,
            executor=LocalExecutor(),
            journal=Journal(asyncio.get_running_loop().time, None),
            budget=RunBudget(Limits()),
            inputs={},
        )
        engine.add(1, plan.tasks)
        await engine.wait_idle()
        try:
            return joined_value(plan, engine.observations)
        except ToolError:
            return "failed"

    return run_virtual(main())


@settings(max_examples=150, deadline=None)
@given(plans())
def test_no_pass_changes_what_a_plan_gives(text: str) -> None:
    plan = parse_plan(text)
    expected = outcome(plan)
    for optimize_plan in (*PASSES.values(), optimize):
        optimized, changes = optimize_plan(plan, TOOLS)
        assert outcome(Plan.model_validate(optimized.model_dump(mode="json"))) == expected, changes
