"""A joiner with a reducer: one decision of several drafts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from llmcompiler.compiler import LLMCompiler
from llmcompiler.errors import LimitReached, ModelError, UsageError
from llmcompiler.events import Event, Joined, ModelStarted
from llmcompiler.history.replay import replay
from llmcompiler.joiners.reduced import JoinReducer
from llmcompiler.limits import Limits
from llmcompiler.llm.base import Request
from llmcompiler.run.result import RunResult
from llmcompiler.testing.doubles import Answer, ScriptedModel, run_virtual
from llmcompiler.tools.base import tool


@tool
def size(name: str) -> int:
    """How large something is."""
    return len(name)


PLAN = '1. size("abc")\n2. join()'


def answer(text: str) -> str:
    return json.dumps({"action": "answer", "text": text})


def replan(reason: str) -> str:
    return json.dumps({"action": "replan", "text": reason})


def joined(
    drafts: Sequence[Any],
    reducer: str = "vote",
    judge: Callable[[Request], str] | None = None,
    **options: Any,
) -> tuple[RunResult, list[Event], list[Request]]:
    """Run a question whose joiner drafts these by their seeds, and replay it from its log."""

    def script(request: Request) -> Any:
        if request.schema is None:
            if request.seed is None:
                return PLAN
            assert judge is not None
            return judge(request)
        if not request.seed:
            return answer("plain")
        return drafts[request.seed - 1]

    async def work() -> tuple[RunResult, list[Event], list[Request]]:
        model = ScriptedModel(script)
        compiler = LLMCompiler([size], model, join_reducer=reducer, store=":memory:", **options)
        events: list[Event] = []
        result = await compiler.run("how large?", on_event=events.append)
        if result.status == "answered":
            assert (await replay(compiler.store, result.run)).answer == result.answer
        return result, events, model.requests

    outcome: tuple[RunResult, list[Event], list[Request]] = run_virtual(work())
    return outcome


def why(events: Sequence[Event]) -> list[str]:
    return [event.why for event in events if isinstance(event, Joined)]


def test_drafts_are_written_at_once_and_vote() -> None:
    drafts = [Answer(answer(text), delay=1) for text in ("4", "3", "3.0")]
    result, events, _ = joined(drafts)
    assert result.answer == "3"
    assert result.seconds == 1, "one after the other they would take three"
    assert why(events) == ["vote: 2 of 3 that answer say so"]
    calls = [event.call for event in events if isinstance(event, ModelStarted)]
    assert calls == ["plan/1", "join/1/draft1", "join/1/draft2", "join/1/draft3"]


def test_an_answer_of_several_lines_is_given_whole() -> None:
    result, _, _ = joined([answer(text) for text in ("Twice:\n3", "Once:\n4", "So:\n3")])
    assert result.answer == "Twice:\n3"


def test_more_than_half_must_wish_for_another_plan() -> None:
    result, events, _ = joined([replan("more"), answer("3"), replan("also more")], limits=ONE)
    assert [event.decision for event in events if isinstance(event, Joined)] == ["replan", "answer"]
    assert why(events)[0] == "2 of 3 drafts ask for another plan"
    result, events, _ = joined([replan("more"), answer("3")], "vote:2")
    assert (result.answer, why(events)) == ("3", ["the only draft that answers"])


ONE = Limits(replans=1)


def test_a_judge_reads_the_results_and_picks_the_best_draft() -> None:
    def judge(request: Request) -> str:
        text = request.messages[0].content
        assert 'size("abc")\n   -> 3' in text and "how large?" in text
        return "Score: 9" if "three" in text else "Score: 2"

    result, events, requests = joined([answer("4"), answer("three"), answer("5")], "best_of", judge)
    assert result.answer == "three"
    assert why(events) == ["best_of: score 9"]
    assert len(requests) == 1 + 3 + 3


def test_an_answer_may_be_written_from_all_drafts() -> None:
    result, _, _ = joined([answer("a"), answer("b")], "synthesize:2", lambda _: "both")
    assert result.answer == "both"


def test_a_judge_that_decides_nothing_fails_the_run_by_name() -> None:
    result, _, _ = joined([answer("a"), answer("b")], "best_of:2", lambda _: "hm")
    assert result.failure is not None
    assert "gave no candidate a score" in result.failure.message


def test_a_draft_that_fails_is_left_out_and_all_of_them_fail_the_run() -> None:
    down = ModelError("down")
    result, events, _ = joined([down, answer("3"), answer("3.0")])
    assert (result.answer, why(events)) == ("3", ["vote: 2 of 2 that answer say so"])
    result, _, _ = joined([down, down, down])
    assert result.failure is not None and result.failure.message == "down"


def test_a_limit_of_the_run_holds_for_drafts_too() -> None:
    result, _, _ = joined([answer("3")] * 3, limits=Limits(model_calls=3))
    assert result.failure is not None and result.failure.type == LimitReached.__name__


def test_a_run_that_was_stopped_in_its_drafts_goes_on_with_those_that_it_lacks() -> None:
    drafts: list[Any] = [answer("3"), Answer(answer("3"), delay=9), answer("4")]

    def script(request: Request) -> Any:
        return PLAN if request.schema is None else drafts[(request.seed or 0) - 1]

    async def work() -> tuple[str | None, int]:
        model = ScriptedModel(script)
        first = LLMCompiler(
            [size], model, join_reducer="vote", limits=Limits(deadline=5), store=":memory:"
        )
        stopped = await first.run("how large?")
        assert stopped.status == "failed"
        calls_before = len(model.requests)
        # Who resumes need not say it: the run knows how it joins.
        second_compiler = LLMCompiler([size], model, store=first.store)
        result = await second_compiler.resume(stopped.run, limits=Limits())
        assert (await replay(first.store, stopped.run)).answer == result.answer
        return result.answer, len(model.requests) - calls_before

    assert run_virtual(work()) == ("3", 1)


@pytest.mark.parametrize("text", ["concat", "vote:1", "vote:", "vote:x", ""])
def test_what_is_no_reducer_of_drafts_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        JoinReducer.parse(text)


def test_a_reducer_is_written_as_it_is_read() -> None:
    assert str(JoinReducer.parse("vote")) == "vote:3"
    assert JoinReducer.parse("tournament:4") == JoinReducer("tournament", 4)
