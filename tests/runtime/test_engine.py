"""The engine: what starts when, what a failure costs, what a limit or a stop leaves behind."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from llmcompiler.errors import LimitReached, LogError, ToolError
from llmcompiler.events import (
    Event,
    LimitHit,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskProgress,
    TaskRetried,
    TaskSkipped,
    TaskStarted,
)
from llmcompiler.executors.local import LocalExecutor
from llmcompiler.language import parse_plan
from llmcompiler.limits import Limits
from llmcompiler.log.journal import Journal
from llmcompiler.runtime.budget import RunBudget
from llmcompiler.runtime.engine import Engine
from llmcompiler.runtime.results import Observation
from llmcompiler.testing.doubles import run_virtual
from llmcompiler.tools.base import Tool, tool
from llmcompiler.tools.context import current_call
from llmcompiler.tools.policy import OnError, Retry


@tool
async def wait(seconds: float, value: Any = None) -> Any:
    """Give ``value`` after some seconds."""
    await asyncio.sleep(seconds)
    return value


@tool
async def fail(message: str, seconds: float = 0) -> Any:
    """Raise after some seconds."""
    await asyncio.sleep(seconds)
    raise RuntimeError(message)


@tool
async def echo(value: Any) -> Any:
    """Give the value back."""
    return value


@tool
async def half(number: int) -> int:
    """Half of an even number."""
    if number % 2:
        raise ToolError(f"{number} is odd")
    return number // 2


TOOLS = (wait, fail, echo, half)


class Harness:
    """An engine whose events are kept in a list."""

    def __init__(
        self,
        tools: Sequence[Tool] = TOOLS,
        *,
        limits: Limits | None = None,
        on_error: OnError = "observe",
        inputs: dict[str, Any] | None = None,
        retry: Retry | None = None,
    ) -> None:
        self.events: list[Event] = []
        self.journal = Journal(asyncio.get_running_loop().time, None, (self.events.append,))
        self.engine = Engine(
            "run",
            tools={tool.name: tool for tool in tools},
            executor=LocalExecutor(),
            journal=self.journal,
            budget=RunBudget(limits or Limits()),
            inputs=inputs or {},
            on_error=on_error,
            retry=retry,
        )

    def add(self, text: str, earlier_ids: Sequence[int] = ()) -> None:
        self.engine.add(1, parse_plan(text, earlier_ids=earlier_ids).tasks)

    async def run(self, text: str) -> dict[int, Observation]:
        self.add(text)
        await self.engine.wait_idle()
        return self.engine.observations

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        tasks_before = asyncio.all_tasks()
        result = await work()
        assert asyncio.all_tasks() == tasks_before, "a task outlived its run"
        return result

    return run_virtual(main())


def values(text: str, **options: Any) -> dict[int, Any]:
    async def work() -> dict[int, Any]:
        return {
            i: observation.value for i, observation in (await Harness(**options).run(text)).items()
        }

    results: dict[int, Any] = run(work)
    return results


def test_others_on_the_loop_have_their_turns_while_a_wide_level_starts() -> None:
    async def work() -> tuple[list[int], list[type[Event]]]:
        harness = Harness()
        harness.add("\n".join(f"{number}. echo({number})" for number in range(1, 2502)))
        start_counts: list[int] = []
        while not start_counts or start_counts[-1] < 2501:
            await asyncio.sleep(0)
            start_counts.append(len(harness.of(TaskStarted)))
        await harness.engine.wait_idle()
        return start_counts, [type(event) for event in harness.events]

    start_counts, kinds = run(work)
    assert max(later - earlier for earlier, later in itertools.pairwise([0, *start_counts])) == 1000
    assert kinds.index(TaskFinished) < len(kinds) - 1 - kinds[::-1].index(TaskStarted)


def test_independent_calls_run_side_by_side_and_no_level_waits_for_another() -> None:
    async def work() -> tuple[float, Harness]:
        harness = Harness()
        await harness.run("1. wait(1)\n2. wait(5)\n3. wait(5, value=$1)\n4. wait(1, value=$2)")
        return harness.journal.now(), harness

    now, harness = run(work)
    assert now == 6
    start_times = {event.task: event.at for event in harness.of(TaskStarted)}
    assert start_times == {1: 0, 2: 0, 3: 1, 4: 5}


def test_values_keep_their_types_and_are_rendered_in_strings() -> None:
    assert values(
        '1. echo({"a": [1, {"b c": "x"}], "n": 2.50})\n'
        "2. echo($1.a[1])\n"
        '3. echo("n=$1.n l=$1.a s=$1.a[1][\\"b c\\"]")\n'
        "4. echo([$1.n, $2])"
    ) == {
        1: {"a": [1, {"b c": "x"}], "n": 2.5},
        2: {"b c": "x"},
        3: 'n=2.5 l=[1,{"b c":"x"}] s=x',
        4: [2.5, {"b c": "x"}],
    }


def test_an_observation_that_looks_like_a_reference_stays_text() -> None:
    assert values('1. echo("one")\n2. echo("costs $$1, see $$2")\n3. echo("$2!")')[3] == (
        "costs $1, see $2!"
    )


def test_ten_is_not_one_and_a_zero() -> None:
    plan = "\n".join(f'{n}. echo("v{n}")' for n in range(1, 11)) + '\n11. echo("$1 $10 $1.")'
    assert values(plan)[11] == "v1 v10 v1."


def test_a_failing_task_costs_only_what_depends_on_it() -> None:
    async def work() -> Harness:
        harness = Harness()
        await harness.run(
            '1. fail("boom", seconds=1)\n2. wait(3, value="kept")\n3. echo($1)\n4. echo($3)\n'
            "5. echo($2)"
        )
        return harness

    harness = run(work)
    observations = harness.engine.observations
    assert {i: observations[i].status for i in observations} == {
        1: "failed",
        2: "done",
        3: "skipped",
        4: "skipped",
        5: "done",
    }
    assert observations[1].failure.message == "boom" and observations[1].failure.blame == "tool"
    assert observations[5].value == "kept"
    assert [(e.task, e.because) for e in harness.of(TaskSkipped)] == [(3, 1), (4, 3)]


def test_fail_stops_the_rest_and_says_which_task_it_was() -> None:
    async def work() -> Harness:
        harness = Harness(on_error="fail")
        with pytest.raises(ToolError, match=r"task 1 \(fail\) failed: boom"):
            await harness.run('1. fail("boom", seconds=1)\n2. wait(100)\n3. echo($2)')
        await harness.engine.stop("failed")
        assert harness.journal.now() == 1
        return harness

    harness = run(work)
    assert {event.task for event in harness.of(TaskCancelled)} == {2, 3}


def test_arguments_that_do_not_fit_are_the_calls_failure() -> None:
    results = values('1. echo({"a": 1})\n2. echo($1.b)\n3. half("x")\n4. echo(1)')
    assert results == {1: {"a": 1}, 2: None, 3: None, 4: 1}


def test_an_input_is_bound_by_name() -> None:
    async def work() -> Any:
        harness = Harness(inputs={"city": {"name": "Oslo"}})
        plan = parse_plan('1. echo("in $city.name")\n2. echo($city)')
        harness.engine.add(1, plan.tasks)
        await harness.engine.wait_idle()
        return [observation.value for observation in harness.engine.observations.values()]

    assert run(work) == ["in Oslo", {"name": "Oslo"}]


def test_slots_are_never_exceeded_nor_left_free() -> None:
    async def work() -> tuple[float, int]:
        harness = Harness(limits=Limits(concurrency=3))
        await harness.run("\n".join(f"{n}. wait(1)" for n in range(1, 11)))
        return harness.journal.now(), len(harness.of(TaskStarted))

    assert run(work) == (4, 10)


def test_a_tools_own_concurrency_holds_up_no_other_tool() -> None:
    @tool(concurrency=1)
    async def narrow() -> int:
        await asyncio.sleep(1)
        return 1

    async def work() -> float:
        harness = Harness([narrow, wait])
        await harness.run("1. narrow()\n2. narrow()\n3. wait(1)\n4. wait(1)")
        return harness.journal.now()

    assert run(work) == 2


def test_a_timeout_fails_the_call_alone() -> None:
    @tool(timeout=2)
    async def stuck() -> int:
        await asyncio.sleep(1000)
        return 1

    async def work() -> Any:
        harness = Harness([stuck, wait])
        await harness.run('1. stuck()\n2. wait(3, value="ok")')
        assert harness.journal.now() == 3
        return harness.engine.observations

    observations = run(work)
    assert observations[1].failure.message == "stuck timed out after 2 s"
    assert observations[2].value == "ok"


def test_a_call_that_may_succeed_later_is_repeated_with_the_same_key() -> None:
    keys: list[tuple[str, int]] = []

    @tool
    async def busy() -> str:
        call = current_call()
        keys.append((call.key, call.attempt))
        if len(keys) < 3:
            raise ToolError("busy", retryable=True, retry_after=10 if len(keys) == 1 else None)
        return "ok"

    async def work() -> Harness:
        harness = Harness([busy])
        await harness.run("1. busy()")
        return harness

    harness = run(work)
    assert keys == [("run/1", 1), ("run/1", 2), ("run/1", 3)]
    delays = [event.delay for event in harness.of(TaskRetried)]
    assert delays[0] == 10 and 0 <= delays[1] <= 1
    assert harness.engine.observations[1].value == "ok"


def test_a_call_that_waits_to_be_repeated_holds_no_slot() -> None:
    @tool
    async def busy() -> str:
        if current_call().attempt == 1:
            raise ToolError("busy", retryable=True, retry_after=10)
        return "ok"

    async def work() -> list[tuple[int, float]]:
        harness = Harness([busy, wait], limits=Limits(concurrency=1))
        await harness.run("1. busy()\n2. wait(3)")
        return [(event.task, event.at) for event in harness.of(TaskFinished)]

    assert run(work) == [(2, 3), (1, 10)]


def test_repetitions_end() -> None:
    @tool
    async def busy() -> str:
        raise ToolError("busy", retryable=True)

    async def work() -> Harness:
        harness = Harness([busy], retry=Retry(attempts=4))
        await harness.run("1. busy()")
        return harness

    harness = run(work)
    assert len(harness.of(TaskStarted)) == 4
    assert harness.engine.observations[1].failure.message == "busy"


class TestFanOut:
    def test_results_keep_the_order_of_the_list_whatever_ends_first(self) -> None:
        async def work() -> tuple[float, Any]:
            harness = Harness()
            await harness.run("1. echo([3, 1, 2])\n2. wait($1[*], value=$1[*])\n3. echo($2)")
            return harness.journal.now(), harness.engine.observations[3].value

        assert run(work) == (3, [3, 1, 2])

    def test_an_empty_list_gives_an_empty_list(self) -> None:
        assert values("1. echo([])\n2. echo($1[*])\n3. echo($2)")[3] == []

    def test_several_lists_zip(self) -> None:
        plan = '1. echo([1, 2])\n2. echo(["a", "b"])\n3. echo("$1[*]$2[*]")'
        assert values(plan)[3] == ["1a", "2b"]

    def test_unequal_lists_are_an_error(self) -> None:
        async def work() -> Any:
            observations = await Harness().run(
                "1. echo([1])\n2. echo([1, 2])\n3. echo([$1[*], $2[*]])"
            )
            return observations[3].failure.message

        message = run(work)
        assert "$1[*]" in message and "$2[*]" in message

    def test_nested_lists_give_nested_lists(self) -> None:
        plan = '1. echo([{"l": [1, 2]}, {"l": []}, {"l": [3]}])\n2. echo($1[*].l[*])'
        assert values(plan)[2] == [[1, 2], [], [3]]

    def test_what_is_no_list_cannot_be_fanned_out(self) -> None:
        async def work() -> Any:
            return await Harness().run('1. echo("abc")\n2. echo($1[*])\n3. echo($2)')

        observations = run(work)
        assert (observations[2].status, observations[3].status) == ("failed", "skipped")

    def test_a_consumer_of_an_element_starts_when_that_element_is_done(self) -> None:
        async def work() -> dict[tuple[int, Any], float]:
            harness = Harness()
            await harness.run("1. echo([5, 1])\n2. wait($1[*], value=1)\n3. wait($2[*])")
            return {(event.task, event.index): event.at for event in harness.of(TaskStarted)}

        start_times = run(work)
        assert start_times[3, (1,)] == 1 and start_times[3, (0,)] == 5

    def test_a_failed_element_costs_neither_its_siblings_nor_their_consumers(self) -> None:
        async def work() -> Harness:
            harness = Harness()
            await harness.run("1. echo([2, 3, 4])\n2. half($1[*])\n3. echo($2[*])\n4. echo($2)")
            return harness

        harness = run(work)
        observations = harness.engine.observations
        assert observations[2].status == "failed" and observations[2].value == [1, None, 2]
        assert observations[2].failure.message == "1 of 3 elements failed: [1] 3 is odd"
        assert observations[3].value == [1, None, 2]
        assert observations[4].status == "skipped"
        assert [(e.task, e.index) for e in harness.of(TaskSkipped)] == [(3, (1,)), (4, ())]

    def test_ten_thousand_elements(self) -> None:
        plan = f"1. echo({list(range(0, 20000, 2))})\n2. half($1[*])\n3. echo($2[*])"
        assert values(plan, limits=Limits(concurrency=100))[3] == list(range(10_000))

    def test_each_element_has_a_key_of_its_own(self) -> None:
        async def work() -> list[str]:
            harness = Harness()
            await harness.run("1. echo([[7], [8, 9]])\n2. echo($1[*][*])")
            return [event.key for event in harness.of(TaskStarted)]

        assert run(work) == ["run/1", "run/2/0/0", "run/2/1/0", "run/2/1/1"]


class TestSyncTools:
    def test_a_blocking_tool_does_not_stall_the_loop(self) -> None:
        gate = threading.Event()

        @tool
        def block() -> str:
            return "opened" if gate.wait(30) else "never opened"

        @tool
        async def opener() -> int:
            gate.set()
            return 1

        async def work() -> Any:
            return (await Harness([block, opener]).run("1. block()\n2. opener()"))[1].value

        assert run(work) == "opened"

    def test_a_cancelled_thread_hears_of_it(self) -> None:
        has_started, was_cancelled = threading.Event(), threading.Event()

        @tool
        def long() -> str:
            call = current_call()
            has_started.set()
            if call.cancelled.wait(30):
                was_cancelled.set()
            return "late"

        async def work() -> None:
            harness = Harness([long])
            harness.add("1. long()")
            await asyncio.sleep(0)
            await asyncio.get_running_loop().run_in_executor(None, has_started.wait, 30)
            await harness.engine.stop("enough")
            assert harness.engine.observations[1].status == "cancelled"

        run(work)
        assert was_cancelled.wait(30)

    def test_a_tool_that_exits_ends_itself_only(self) -> None:
        @tool
        def leave() -> None:
            raise SystemExit(3)

        async def work() -> Any:
            return (await Harness([leave]).run("1. leave()"))[1].failure.message

        assert run(work) == "leave called sys.exit(3)"


def test_a_tool_says_how_far_it_has_come_and_views_hear_of_some_of_it() -> None:
    @tool
    async def copy() -> str:
        for part in range(30):
            current_call().report(part, 30, "copying")
            await asyncio.sleep(0.01)
        return "copied"

    async def main() -> list[Event]:
        harness = Harness([copy])
        harness.add("1. copy()")
        await harness.engine.wait_idle()
        return harness.events

    events = run_virtual(main())
    reports = [event for event in events if isinstance(event, TaskProgress)]
    assert [
        (report.task, report.index, report.total, report.message) for report in reports
    ] == 3 * [(1, (), 30, "copying")]
    assert [report.done for report in reports] == sorted(report.done for report in reports)
    assert isinstance(events[-1], TaskFinished)


def test_a_result_that_cannot_be_json_is_the_tools_failure() -> None:
    @tool
    async def odd() -> Any:
        return object()

    async def work() -> Any:
        return (await Harness([odd]).run("1. odd()"))[1].failure

    failure = run(work)
    assert failure.blame == "tool" and "cannot be JSON" in failure.message


def test_tasks_of_a_later_plan_use_results_of_an_earlier_one() -> None:
    async def work() -> Any:
        harness = Harness()
        await harness.run('1. echo("first")\n2. fail("no")')
        harness.add("3. echo($1)\n4. echo($2)", earlier_ids=(1, 2))
        await harness.engine.wait_idle()
        return {i: observation.status for i, observation in harness.engine.observations.items()}

    assert run(work) == {1: "done", 2: "failed", 3: "done", 4: "skipped"}


def test_a_limit_on_calls_stops_the_run_and_keeps_what_is_done() -> None:
    async def work() -> Harness:
        harness = Harness(limits=Limits(tool_calls=2))
        with pytest.raises(LimitReached, match="tool_calls=2"):
            await harness.run("1. echo(1)\n2. wait(50)\n3. echo($1)")
        await harness.engine.stop("limit")
        return harness

    harness = run(work)
    assert harness.engine.observations[1].value == 1
    assert {event.task for event in harness.of(TaskCancelled)} == {2, 3}
    assert [event.limit for event in harness.of(LimitHit)] == ["tool_calls"]


def test_stop_cancels_and_drains_everything() -> None:
    async def work() -> Harness:
        harness = Harness()
        harness.add("1. wait(100)\n2. echo($1)\n3. echo([1, 2])\n4. wait(9, value=$3[*])")
        await asyncio.sleep(1)
        await harness.engine.stop("enough")
        assert harness.journal.now() == 1
        return harness

    harness = run(work)
    assert {i: observation.status for i, observation in harness.engine.observations.items()} == {
        1: "cancelled",
        2: "cancelled",
        3: "done",
        4: "cancelled",
    }


def test_a_log_that_cannot_be_written_stops_the_run_before_anything_stands_on_it() -> None:
    class Broken:
        def append(self, events: Sequence[Event]) -> None:
            raise LogError("disk full")

    called: list[int] = []

    @tool
    async def effect() -> int:
        called.append(1)
        return 1

    async def work() -> None:
        harness = Harness([effect])
        harness.journal._log = Broken()  # type: ignore[assignment]
        with pytest.raises(LogError, match="disk full"):
            await harness.run("1. effect()")

    run(work)
    assert called == []


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_results_do_not_depend_on_the_schedule(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    lines, expected = [], {}
    for n in range(1, count + 1):
        deps = data.draw(st.lists(st.integers(1, n - 1), max_size=3)) if n > 1 else []
        seconds = data.draw(st.integers(0, 5))
        lines.append(f"{n}. wait({seconds}, value=[{n}, {', '.join(f'${d}' for d in deps)}])")
        expected[n] = [n, *(expected[d] for d in deps)]
    slots = data.draw(st.none() | st.integers(1, 4))
    assert values("\n".join(lines), limits=Limits(concurrency=slots)) == expected


def test_arguments_beyond_the_tools_own_are_the_calls_failure() -> None:
    async def work() -> dict[int, Observation]:
        return await Harness().run("1. half(2, 3)\n2. half(4, number=5)\n3. half(6)")

    observations = run(work)
    assert "takes 1 argument, and 2 were given" in observations[1].failure.message
    assert "twice: by position (4) and by name (5)" in observations[2].failure.message
    assert observations[3].value == 3


def test_calls_that_end_in_one_turn_of_the_loop_are_noted_in_the_order_of_their_ends() -> None:
    async def work() -> list[int]:
        harness = Harness()
        await harness.run("1. half(1)\n2. half(2)\n3. half(3)\n4. half(4)")
        return [e.task for e in harness.events if isinstance(e, TaskFailed | TaskFinished)]

    assert run(work) == [1, 2, 3, 4]


def test_a_call_does_not_find_the_context_of_the_one_that_it_follows() -> None:
    mark = contextvars.ContextVar("mark", default=0)

    @tool
    async def count(before: int = 0) -> int:
        """Leave a mark, and give the one that was there."""
        count_before = mark.get()
        mark.set(count_before + 1)
        return count_before

    text = "1. count()\n2. count($1)\n3. count($2)\n4. count($3)\n5. count($3)\n6. count($5)"
    assert values(text, tools=(count,)) == dict.fromkeys(range(1, 7), 0)


def test_a_call_that_is_cancelled_as_it_returns_has_failed() -> None:
    @tool
    async def leave() -> int:
        """Give a value, too late."""
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return 1

    async def work() -> dict[int, Observation]:
        return await Harness((leave,)).run("1. leave()")

    assert run(work)[1].failure.message == "leave cancelled itself"
