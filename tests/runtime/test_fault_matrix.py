"""Whole runs against an endpoint that misbehaves: each fault, where it strikes, what comes of it.

The server is real and local, the clock is virtual. Three rules stand behind the table. What may
pass is asked again, a bounded number of times, no earlier than the endpoint wants. What a planner
had written before it broke off goes on, and only the rest is asked for. A run that fails says whose
fault it was and keeps every result that it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from llmcompiler import LLMCompiler, RunResult, tool
from llmcompiler.events import Event, ModelFinished, ModelStarted, RunFinished
from llmcompiler.history.replay import replay
from llmcompiler.llm.endpoint import RETRIES, EndpointModel
from llmcompiler.model_options import cut_off_note
from llmcompiler.testing.doubles import run_virtual
from tests.support.fake_openai import ReceivedRequest, Reply, fake_openai

PLAN = ['1. weigh("pear")\n', '2. weigh("plum")\n', "3. join()\n"]
ANSWER = Reply(text=["4", " kg"])


@tool
async def weigh(item: str) -> int:
    """Weigh an item."""
    await asyncio.sleep(1)
    return len(item)


class RunReport(NamedTuple):
    """A run as its caller and the endpoint saw it."""

    result: RunResult
    events: list[Event]
    requests: list[ReceivedRequest]
    seconds: float

    @property
    def weighed_items(self) -> list[str]:
        """What was weighed."""
        tasks = [
            observation.task
            for observation in self.result.observations.values()
            if observation.status == "done"
        ]
        return [str(task.args[0].value) for task in tasks]  # type: ignore[union-attr]


@asynccontextmanager
async def open_compiler(url: str) -> AsyncIterator[LLMCompiler]:
    """A compiler that asks the endpoint at ``url``, of which it knows what it can do."""
    model = EndpointModel(
        "m1",
        base_url=url,
        read_timeout=30,
        constraint="none",
        abilities=frozenset(),
        functions=False,
    )
    async with LLMCompiler([weigh], model, store=":memory:") as compiler:
        yield compiler
    await model.aclose()


def run(replies: Sequence[Reply]) -> RunReport:
    """Ask a question; the endpoint gives these replies, the last one again and again."""

    async def main() -> RunReport:
        events: list[Event] = []
        async with fake_openai(replies) as server, open_compiler(server.url) as compiler:
            result = await compiler.run("How heavy?", on_event=events.append)
            seconds = asyncio.get_running_loop().time()
            await replay(compiler.store, result.run)
        assert server.open == 0
        return RunReport(result, events, server.requests, seconds)

    return run_virtual(main())


AT_ONCE = {
    "429": (Reply(status=429), "answered 429"),
    "500": (Reply(status=500), "answered 500"),
    "disconnected": (Reply(text=(), disconnect=True), "broke off its answer"),
    "stalled": (Reply(text=(), stall=True), "did not answer in time"),
    "malformed": (Reply(text=(), raw="data: {not json\n\n"), "not a chat completion"),
    "no choices": (Reply(text=(), finish=None), "sent no choices"),
}
"""Faults before anything of the answer came."""

MIDWAY = {
    "disconnected": (Reply(text=PLAN[:1], disconnect=True), "broke off its answer"),
    "stalled": (Reply(text=PLAN[:1], stall=True), "did not answer in time"),
    "malformed": (Reply(text=PLAN[:1], raw="data: {not json\n\n"), "not a chat completion"),
    "ended early": (Reply(text=PLAN[:1], finish=None, done=False), "ended its stream early"),
}
"""The same behind the plan's first task."""

REST = Reply(text=['2. weigh("plum")\n', "3. join()\n"])


@pytest.mark.parametrize("fault", AT_ONCE)
def test_a_fault_that_passes_costs_one_more_request(fault: str) -> None:
    report = run([AT_ONCE[fault][0], Reply(text=PLAN), ANSWER])
    assert (report.result.status, report.result.answer) == ("answered", "4 kg")
    assert len(report.requests) == 3
    assert report.weighed_items == ["pear", "plum"]
    patience = 30 if fault == "stalled" else 0
    assert patience + 1 <= report.seconds <= patience + 2


@pytest.mark.parametrize("fault", AT_ONCE)
def test_a_fault_of_the_planner_that_stays_ends_the_run(fault: str) -> None:
    reply, says = AT_ONCE[fault]
    report = run([reply])
    assert_failed(report, says)
    assert report.weighed_items == []
    assert len(report.requests) == 1 + RETRIES


@pytest.mark.parametrize("fault", AT_ONCE)
def test_a_fault_of_the_joiner_that_stays_leaves_the_results(fault: str) -> None:
    reply, says = AT_ONCE[fault]
    report = run([Reply(text=PLAN), reply])
    assert_failed(report, says)
    assert report.weighed_items == ["pear", "plum"]
    assert len(report.requests) == 1 + 1 + RETRIES


@pytest.mark.parametrize("fault", MIDWAY)
def test_a_plan_that_breaks_off_is_gone_on_with(fault: str) -> None:
    report = run([MIDWAY[fault][0], REST, ANSWER])
    assert (report.result.status, report.result.answer) == ("answered", "4 kg")
    assert report.weighed_items == ["pear", "plum"]
    assert len(report.requests) == 3
    assert 'weigh("pear")' in report.requests[1].body["messages"][-1]["content"]


@pytest.mark.parametrize("fault", MIDWAY)
def test_a_plan_that_always_breaks_off_leaves_what_it_began(fault: str) -> None:
    reply, says = MIDWAY[fault]
    report = run([reply])
    assert_failed(report, says)
    assert report.weighed_items[:1] == ["pear"]


@pytest.mark.parametrize("fault", MIDWAY)
def test_an_answer_that_breaks_off_is_asked_for_once_more(fault: str) -> None:
    report = run([Reply(text=PLAN), MIDWAY[fault][0], ANSWER])
    assert (report.result.status, report.result.answer) == ("answered", "4 kg")
    assert len(report.requests) == 3


@pytest.mark.parametrize("fault", MIDWAY)
def test_an_answer_that_breaks_off_twice_is_no_answer(fault: str) -> None:
    reply, says = MIDWAY[fault]
    report = run([Reply(text=PLAN), reply])
    assert_failed(report, says)
    assert report.weighed_items == ["pear", "plum"]
    assert len(report.requests) == 3


def test_a_run_whose_answer_broke_off_is_gone_on_with_by_one_more_request() -> None:
    async def main() -> None:
        broken = MIDWAY["disconnected"][0]
        replies = [Reply(text=PLAN), broken, broken, ANSWER]
        async with fake_openai(replies) as server, open_compiler(server.url) as compiler:
            failed = await compiler.run("How heavy?")
            resumed = await compiler.resume(failed.run)
            await replay(compiler.store, failed.run)
        assert (failed.status, resumed.status, resumed.answer) == ("failed", "answered", "4 kg")
        assert len(server.requests) == 4

    run_virtual(main())


def test_retry_after_is_waited_for_before_the_run_goes_on() -> None:
    busy = Reply(status=429, headers={"Retry-After": "20"})
    report = run([busy, Reply(text=PLAN), ANSWER])
    assert report.result.answer == "4 kg"
    assert 20 <= report.requests[1].at <= 20.3


def test_a_wait_of_hours_is_told_at_once() -> None:
    report = run([Reply(status=429, headers={"Retry-After": "7200"})])
    assert_failed(report, "answered 429")
    assert (len(report.requests), report.seconds) == (1, pytest.approx(0, abs=1))


def test_a_model_that_the_endpoint_does_not_know_is_named_at_once() -> None:
    report = run([Reply(status=404, error={"message": "no such model"})])
    assert_failed(report, "answered 404: no such model")
    assert "knows no model 'm1'" in failure_of(report).hint
    assert len(report.requests) == 1


def test_an_answer_of_another_model_is_recorded_as_such() -> None:
    report = run([Reply(text=PLAN, model="m0"), ANSWER])
    assert report.result.answer == "4 kg"
    assert {event.model for event in report.events if isinstance(event, ModelStarted)} == {
        "openai:m1"
    }
    assert [event.model for event in report.events if isinstance(event, ModelFinished)] == [
        "m0",
        "m1",
    ]


def test_a_plan_cut_at_the_most_tokens_is_gone_on_with_from_its_last_whole_task() -> None:
    cut = Reply(text=[PLAN[0], '2. weigh("pl'], finish="length")
    report = run([cut, REST, ANSWER])
    assert report.result.answer == "4 kg"
    assert report.weighed_items == ["pear", "plum"]
    assert "its answer became too long" in report.requests[1].body["messages"][-1]["content"]


@pytest.mark.parametrize("text", ["4", '{"text": "4'])
def test_an_answer_cut_at_the_most_tokens_is_given_and_says_so(text: str) -> None:
    report = run([Reply(text=PLAN), Reply(text=[text], finish="length")])
    assert (report.result.status, report.result.answer) == (
        "answered",
        "4" + cut_off_note("answer", None),
    )
    ends = [event.finish for event in report.events if isinstance(event, ModelFinished)]
    assert ends == ["stop", "length"]


def assert_failed(report: RunReport, says: str) -> None:
    """The run failed by the model's fault, and its last event says the same."""
    failure = failure_of(report)
    assert report.result.status == "failed"
    assert failure.blame == "model"
    assert says in failure.message
    last = report.events[-1]
    assert isinstance(last, RunFinished)
    assert last.failure == failure


def failure_of(report: RunReport) -> Any:
    """Why the run failed."""
    assert report.result.failure is not None
    return report.result.failure
