"""Cancelling one task: it stops, what needs it is skipped, and nothing else notices."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from llmcompiler.errors import ToolError
from llmcompiler.events import Event, TaskFailed, TaskRetried
from llmcompiler.executors.local import LocalExecutor
from llmcompiler.language import parse_plan
from llmcompiler.limits import Limits
from llmcompiler.log.journal import Journal
from llmcompiler.runtime.approval import ApprovalDecision, ApprovalRequest, Approve
from llmcompiler.runtime.budget import RunBudget
from llmcompiler.runtime.engine import Engine
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
async def listed(count: int) -> list[int]:
    """Numbers from 0 on."""
    return list(range(count))


@tool(effect="write", approve=True)
async def send(text: str) -> str:
    """Send a text."""
    return text


@tool(retry=Retry(attempts=9, base=100, most=100))
async def busy() -> None:
    """Fail in passing."""
    error = ToolError("busy")
    error.retryable = True
    raise error


def start_engine(
    text: str,
    tools: Sequence[Tool] = (wait, listed, send, busy),
    *,
    limits: Limits | None = None,
    on_error: OnError = "observe",
    approver: Any = None,
) -> tuple[Engine, list[Event]]:
    events: list[Event] = []
    engine = Engine(
        "run",
        tools={tool.name: tool for tool in tools},
        executor=LocalExecutor(),
        journal=Journal(asyncio.get_running_loop().time, None, (events.append,)),
        budget=RunBudget(limits or Limits()),
        inputs={},
        on_error=on_error,
        approver=approver,
    )
    engine.add(1, parse_plan(text).tasks)
    return engine, events


def statuses(engine: Engine) -> dict[int, str]:
    return {number: observation.status for number, observation in engine.observations.items()}


@pytest.mark.parametrize("on_error", ["observe", "fail"])
def test_only_what_needs_the_task_is_lost(on_error: OnError) -> None:
    async def work() -> Engine:
        engine, _ = start_engine(
            "1. wait(50)\n2. wait(5)\n3. wait($1)\n4. wait(1)", on_error=on_error
        )
        await asyncio.sleep(2)
        assert await engine.cancel(1)
        assert asyncio.get_running_loop().time() == 2, "the others are not waited for"
        await engine.wait_idle()
        assert asyncio.get_running_loop().time() == 5
        return engine

    engine = run_virtual(work())
    assert statuses(engine) == {4: "done", 1: "cancelled", 3: "skipped", 2: "done"}
    assert engine.observations[1].seconds == 2


def test_the_call_has_stopped_when_cancel_returns() -> None:
    stopped_keys: list[str] = []

    @tool
    async def tidy() -> None:
        """Wait, and tidy up."""
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            stopped_keys.append(current_call().key)

    async def work() -> None:
        engine, _ = start_engine("1. tidy()", [tidy])
        await asyncio.sleep(1)
        await engine.cancel(1)
        assert stopped_keys == ["run/1"]
        await engine.wait_idle()

    run_virtual(work())


def test_a_task_that_waits_for_inputs_ends_at_once_and_never_starts() -> None:
    async def work() -> tuple[Engine, list[Event]]:
        engine, events = start_engine("1. wait(5)\n2. wait(1, value=$1)\n3. wait(1, value=$2)")
        await asyncio.sleep(1)
        await engine.cancel(2, "not needed")
        assert statuses(engine)[2] == "cancelled"
        await engine.wait_idle()
        return engine, events

    engine, events = run_virtual(work())
    assert statuses(engine) == {2: "cancelled", 3: "skipped", 1: "done"}
    (failed,) = (event for event in events if isinstance(event, TaskFailed))
    assert failed.failure.message == "not needed" and failed.failure.blame == "usage"


@pytest.mark.parametrize("slots", [None, 3])
def test_a_fan_out_keeps_what_it_has_and_frees_its_slots(slots: int | None) -> None:
    async def work() -> tuple[Engine, list[Event]]:
        engine, events = start_engine(
            "1. listed(8)\n2. wait($1[*], value=$1[*])\n3. wait(1, value=$2[*])\n4. wait(1)",
            limits=Limits(concurrency=slots),
        )
        await asyncio.sleep(2.5)
        await engine.cancel(2)
        await engine.wait_idle()
        return engine, events

    engine, events = run_virtual(work())
    observations = engine.observations
    values = observations[2].value
    assert values[:3] == [0, 1, 2] and values[4:] == [None] * 4
    assert observations[2].status == observations[3].status == "failed"
    assert observations[4].status == "done"
    ended_elements = [
        event.index for event in events if isinstance(event, TaskFailed) and event.task == 2
    ]
    assert len(ended_elements) == len(set(ended_elements)), "no element ends twice"


def test_a_call_that_is_asked_about_or_to_be_repeated_is_let_go() -> None:
    answers: list[asyncio.Future[ApprovalDecision]] = []

    async def never(request: ApprovalRequest) -> ApprovalDecision:
        answers.append(asyncio.get_running_loop().create_future())
        return await answers[-1]

    async def work() -> tuple[Engine, list[Event]]:
        engine, events = start_engine('1. send("a")\n2. busy()\n3. send("b")', approver=never)
        await asyncio.sleep(1)
        assert await engine.cancel(1)
        assert await engine.cancel(2)
        answers[1].set_result(Approve())
        await engine.wait_idle()
        return engine, events

    engine, events = run_virtual(work())
    assert statuses(engine) == {1: "cancelled", 2: "cancelled", 3: "done"}
    assert answers[0].cancelled()
    assert sum(isinstance(event, TaskRetried) for event in events) == 1


def test_what_nobody_could_be_asked_about_no_longer_stops_the_run() -> None:
    async def work() -> Engine:
        engine, _ = start_engine('1. send("a")\n2. wait(3)')
        await asyncio.sleep(1)
        await engine.cancel(1)
        await engine.wait_idle()
        return engine

    assert statuses(run_virtual(work())) == {1: "cancelled", 2: "done"}


def test_there_is_nothing_to_cancel_in_what_has_ended_or_does_not_exist() -> None:
    async def work() -> None:
        engine, _ = start_engine("1. wait(1)")
        await engine.wait_idle()
        assert not await engine.cancel(1)
        assert not await engine.cancel(7)
        assert statuses(engine) == {1: "done"}

    run_virtual(work())


def test_a_thread_hears_that_its_task_was_cancelled() -> None:
    has_started, was_cancelled = threading.Event(), threading.Event()

    @tool
    def long() -> None:
        """Look for the token now and then."""
        has_started.set()
        if current_call().cancelled.wait(30):
            was_cancelled.set()

    async def work() -> None:
        engine, _ = start_engine("1. long()\n2. wait(0)", [long, wait])
        await asyncio.to_thread(has_started.wait, 30)
        await engine.cancel(1)
        await engine.wait_idle()
        assert statuses(engine) == {2: "done", 1: "cancelled"}
        assert await asyncio.to_thread(was_cancelled.wait, 30)

    asyncio.run(work())
