"""Calls that somebody must agree to: what waits, what goes on, what is left if nobody is there."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from llmcompiler import LLMCompiler, parse_plan, replay_run
from llmcompiler.events import ApprovalAsked, ApprovalGiven, Event, LimitHit, TaskStarted
from llmcompiler.limits import Limits
from llmcompiler.runtime.approval import ApprovalDecision, ApprovalRequest, Approve, Deny
from llmcompiler.testing.doubles import run_virtual
from llmcompiler.tools.base import tool

SENT: list[str] = []


@tool(effect="write", approve=True)
async def send(to: str) -> str:
    """Send a mail."""
    SENT.append(to)
    return f"sent to {to}"


@tool
async def look(seconds: float = 1) -> str:
    """Look something up."""
    await asyncio.sleep(seconds)
    return "seen"


@tool
async def anything() -> Any:
    """Give a list."""
    return [1, 2]


@pytest.fixture(autouse=True)
def nothing_sent() -> None:
    SENT.clear()


def compiler(**options: Any) -> LLMCompiler:
    return LLMCompiler([send, look, anything], store=":memory:", **options)


def test_other_branches_go_on_while_several_calls_wait_and_none_holds_a_slot() -> None:
    requests: list[ApprovalRequest] = []
    two_requested = asyncio.Event()
    events: list[Event] = []

    async def approver(request: ApprovalRequest) -> ApprovalDecision:
        requests.append(request)
        if len(requests) == 2:
            two_requested.set()
        await two_requested.wait()
        await asyncio.sleep(5)
        return Approve()

    async def main() -> Any:
        llm_compiler = compiler(approver=approver, limits=Limits(concurrency=1))
        return await llm_compiler.execute(
            parse_plan('1. send("a")\n2. send("b")\n3. look()\n4. look()\n5. join()'),
            on_event=events.append,
        )

    result = run_virtual(main())
    assert result.status == "answered"
    assert sorted(SENT) == ["a", "b"]
    start_times = {event.task: event.at for event in events if isinstance(event, TaskStarted)}
    assert start_times == {3: 0, 4: 1, 1: 5, 2: 5}
    assert [request.arguments for request in requests] == [{"to": "a"}, {"to": "b"}]


def test_a_denied_call_is_not_made_and_its_users_are_skipped() -> None:
    async def approver(request: ApprovalRequest) -> ApprovalDecision:
        return Deny("wrong address")

    async def main() -> Any:
        return await compiler(approver=approver).execute(
            parse_plan('1. send("a")\n2. send("$1")\n3. look()\n4. join($3)')
        )

    result = run_virtual(main())
    assert SENT == []
    assert result.value == "seen"
    assert "wrong address" in result.observations[1].failure.message
    assert result.observations[2].status == "skipped"


def test_edited_arguments_are_what_the_tool_gets_and_a_replay_agrees() -> None:
    async def approver(request: ApprovalRequest) -> ApprovalDecision:
        return Approve({"to": "c"}) if request.arguments["to"] == "a" else Deny("no")

    async def main() -> Any:
        llm_compiler = compiler(approver=approver)
        result = await llm_compiler.execute(parse_plan('1. send("a")\n2. send("b")\n3. join($1)'))
        await replay_run(llm_compiler.store, result.run)
        return result

    assert run_virtual(main()).value == "sent to c"
    assert SENT == ["c"]


def test_nobody_is_asked_about_arguments_that_do_not_fit() -> None:
    async def approver(request: ApprovalRequest) -> ApprovalDecision:
        raise AssertionError("asked")

    async def main() -> Any:
        return await compiler(approver=approver).execute(
            parse_plan("1. anything()\n2. send($1)\n3. join($1)")
        )

    result = run_virtual(main())
    assert result.observations[2].status == "failed"


def test_with_nobody_to_ask_the_run_does_the_rest_stops_and_can_be_resumed() -> None:
    events: list[Event] = []

    async def main() -> Any:
        llm_compiler = compiler()
        stopped_run = await llm_compiler.execute(
            parse_plan('1. send("a")\n2. look(9)\n3. join()'), on_event=events.append
        )
        assert stopped_run.status == "failed"
        assert stopped_run.failure is not None
        assert "resume" in stopped_run.failure.hint
        assert stopped_run.observations[2].status == "done"
        assert [event.limit for event in events if isinstance(event, LimitHit)] == ["approval"]
        assert SENT == []

        async def approver(request: ApprovalRequest) -> ApprovalDecision:
            return Approve()

        attended_compiler = LLMCompiler(
            [send, look, anything], store=llm_compiler.store, approver=approver
        )
        resumed_events: list[Event] = []
        resumed_run = await attended_compiler.resume(
            stopped_run.run, on_event=resumed_events.append
        )
        starts = [event.task for event in events + resumed_events if isinstance(event, TaskStarted)]
        assert starts.count(1) == 1
        return resumed_run, resumed_events

    resumed_run, resumed_events = run_virtual(main())
    assert resumed_run.status == "answered"
    assert SENT == ["a"]
    assert [event.verdict for event in resumed_events if isinstance(event, ApprovalGiven)] == [
        "approved"
    ]
    assert any(isinstance(event, ApprovalAsked) for event in resumed_events)


def outcome_with(approver: Any, plan: str = '1. send("a")\n2. look()\n3. join($2)') -> Any:
    async def main() -> Any:
        llm_compiler = compiler(approver=approver)
        result = await llm_compiler.execute(parse_plan(plan))
        if result.status == "answered":
            await replay_run(llm_compiler.store, result.run)
        return result

    return run_virtual(main())


@pytest.mark.parametrize(
    "answer",
    [None, False, True, 0, 1, "yes", "approve", {"approved": True}, [Approve()], Approve, Deny],
    ids=repr,
)
def test_an_answer_that_is_no_approve_denies_and_the_reason_says_what_came(answer: Any) -> None:
    asked: list[ApprovalRequest] = []

    async def approver(request: ApprovalRequest) -> Any:
        asked.append(request)
        return answer

    result = outcome_with(approver)
    assert SENT == []
    assert len(asked) == 1
    assert result.value == "seen"
    assert repr(answer)[:40] in result.observations[1].failure.message


@pytest.mark.parametrize(
    "arguments", ["a", ["a"], {"to": float("nan")}, {"to": object()}, {"unknown": 1}, {"to": 5}]
)
def test_arguments_that_cannot_be_passed_on_are_no_approval(arguments: Any) -> None:
    async def approver(request: ApprovalRequest) -> Any:
        return Approve(arguments)

    result = outcome_with(approver)
    assert SENT == []
    assert result.value == "seen"
    assert result.observations[1].status == "failed"


def test_a_reason_of_any_type_becomes_text() -> None:
    async def approver(request: ApprovalRequest) -> Any:
        return Deny(404)  # type: ignore[arg-type]

    assert outcome_with(approver).observations[1].failure.message.endswith("404")


@pytest.mark.parametrize(
    "error", [ConnectionError("chat is down"), asyncio.CancelledError(), SystemExit(3)], ids=repr
)
def test_an_approver_that_ends_without_a_decision_leaves_the_call_open(error: Any) -> None:
    async def approver(request: ApprovalRequest) -> Any:
        raise error

    async def agree(request: ApprovalRequest) -> Any:
        return Approve()

    async def main() -> Any:
        llm_compiler = compiler(approver=approver)
        stopped = await llm_compiler.execute(parse_plan('1. send("a")\n2. look()\n3. join($1, $2)'))
        assert SENT == []
        llm_compiler.approve_with(agree)
        return stopped, await llm_compiler.resume(stopped.run)

    stopped, resumed = run_virtual(main())
    assert stopped.observations[2].status == "done"
    assert stopped.failure.type == "LimitReached"
    expected = {ConnectionError: "chat is down", SystemExit: "sys.exit(3)"}
    assert expected.get(type(error), "was cancelled") in stopped.failure.message
    assert SENT == ["a"]
    assert resumed.value == {"1": "sent to a", "2": "seen"}


def test_one_failing_question_does_not_end_the_others() -> None:
    async def approver(request: ApprovalRequest) -> Any:
        if request.task == 1:
            raise ConnectionError("chat is down")
        await asyncio.sleep(60)
        return Approve()

    result = outcome_with(approver, '1. send("a")\n2. send("b")\n3. join($1, $2)')
    assert SENT == ["b"]
    assert result.status == "failed"
    assert result.observations[2].value == "sent to b"


def test_a_plain_function_is_asked_in_a_thread_and_may_return_a_coroutine() -> None:
    threads: list[bool] = []

    def approver(request: ApprovalRequest) -> ApprovalDecision:
        threads.append(threading.current_thread() is threading.main_thread())
        return Approve()

    async def later(request: ApprovalRequest) -> ApprovalDecision:
        return Approve({"to": "b"})

    assert outcome_with(approver, '1. send("a")\n2. join($1)').value == "sent to a"
    assert threads == [False]

    def start_later(request: ApprovalRequest) -> Any:
        return later(request)

    assert outcome_with(start_later, '1. send("a")\n2. join($1)').value == "sent to b"


def test_an_approver_that_changes_its_request_changes_nothing() -> None:
    asked: list[Event] = []

    async def approver(request: ApprovalRequest) -> ApprovalDecision:
        request.arguments["to"] = "b"
        return Approve()

    async def main() -> Any:
        return await compiler(approver=approver).execute(
            parse_plan('1. send("a")\n2. join($1)'), on_event=asked.append
        )

    assert run_virtual(main()).value == "sent to a"
    assert [e.arguments for e in asked if isinstance(e, ApprovalAsked)] == [{"to": "a"}]


def test_a_deadline_ends_the_waiting_too() -> None:
    async def approver(request: ApprovalRequest) -> ApprovalDecision:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def main() -> Any:
        llm_compiler = compiler(approver=approver, limits=Limits(deadline=60))
        return await llm_compiler.execute(parse_plan('1. send("a")\n2. join()'))

    result = run_virtual(main())
    assert result.status == "failed"
    assert result.seconds == 60
    assert SENT == []
