"""A run that goes on beside its caller: read, called off in part, called off whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llmcompiler import LLMCompiler, parse_plan, replay_run, tool
from llmcompiler.errors import UsageError
from llmcompiler.events import Event, RunFinished, TaskFailed, TaskStarted
from llmcompiler.testing.doubles import ScriptedModel, run_virtual

STOPPED: list[float] = []


@tool
async def wait(seconds: float, value: Any = None) -> Any:
    """Give ``value`` after some seconds."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        STOPPED.append(seconds)
        raise
    return value


def with_compiler(use: Callable[[LLMCompiler], Awaitable[Any]], *script: str) -> Any:
    STOPPED.clear()

    async def main() -> Any:
        before = asyncio.all_tasks()
        async with LLMCompiler([wait], ScriptedModel(script), store=":memory:") as compiler:
            result = await use(compiler)
        assert asyncio.all_tasks() == before, "a task outlived its run"
        return result

    return run_virtual(main())


def test_one_task_is_called_off_and_the_rest_goes_on() -> None:
    plan = parse_plan("1. wait(50)\n2. wait(5, value=7)\n3. wait(1, value=$1)\n4. join($2)")

    async def use(compiler: LLMCompiler) -> tuple[Any, list[Event]]:
        events: list[Event] = []
        async with compiler.start(plan) as live:
            async for event in live.events():
                events.append(event)
                if isinstance(event, TaskStarted) and event.task == 1:
                    assert await live.cancel(1, "it takes too long")
            result = await live.result()
        await replay_run(compiler.store, result.run)
        return result, events

    result, events = with_compiler(use)
    assert result.value == 7
    assert result.seconds == 5
    assert STOPPED == [50]
    ends = {task: observation.status for task, observation in result.observations.items()}
    assert ends == {1: "cancelled", 2: "done", 3: "skipped"}
    (failed,) = (event for event in events if isinstance(event, TaskFailed))
    assert failed.failure.message == "it takes too long"


def test_the_joiner_is_told_what_was_called_off() -> None:
    script = ["1. wait(50)\n2. wait(1, value=7)\n3. join()", "Action: Finish(seven)"]
    model = ScriptedModel(script)

    async def use(_: LLMCompiler) -> str:
        async with (
            LLMCompiler([wait], model, store=":memory:") as compiler,
            compiler.start("What comes first?") as live,
        ):
            await asyncio.sleep(3)
            await live.cancel(1, "no time for this")
            await live.result()
        return "\n".join(message.content for message in model.requests[-1].messages)

    assert "no time for this" in with_compiler(use)


def test_a_run_is_called_off_whole_and_can_be_resumed() -> None:
    async def use(compiler: LLMCompiler) -> tuple[Any, Any]:
        async with compiler.start(parse_plan("1. wait(9, value=1)")) as live:
            await asyncio.sleep(2)
            await live.stop()
            assert STOPPED == [9]
            events = [event async for event in _until_cancelled(live.events())]
            with pytest.raises(asyncio.CancelledError):
                await live.result()
        result = await compiler.resume("last")
        return events[-1], result

    last, result = with_compiler(use)
    assert isinstance(last, RunFinished)
    assert last.status == "interrupted"
    assert result.value == 1


async def _until_cancelled(events: Any) -> Any:
    try:
        async for event in events:
            yield event
    except asyncio.CancelledError:
        return


def test_leaving_the_block_calls_the_run_off() -> None:
    async def use(compiler: LLMCompiler) -> str:
        async with compiler.start(parse_plan("1. wait(9)")):
            await asyncio.sleep(2)
        return compiler.store.runs()[0].status

    assert with_compiler(use) == "interrupted"
    assert STOPPED == [9]


def test_there_is_nothing_to_call_off_before_the_plan_and_behind_the_end() -> None:
    async def use(compiler: LLMCompiler) -> list[bool]:
        async with compiler.start(parse_plan("1. wait(1)")) as live:
            early = await live.cancel(1)
            await live.result()
            return [early, await live.cancel(1), await live.cancel(8)]

    assert with_compiler(use) == [False, False, False]


def test_a_mistake_of_the_caller_reaches_who_waits() -> None:
    async def use(compiler: LLMCompiler) -> None:
        async with compiler.start(" ") as live:
            with pytest.raises(UsageError, match="question is empty"):
                await live.result()

    with_compiler(use)
