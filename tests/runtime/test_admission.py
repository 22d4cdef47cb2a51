"""What becomes of a call: verdicts, without an event loop or an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from llmcompiler.errors import Failure, ToolError
from llmcompiler.events import Outcome, TaskFailed, TaskFinished
from llmcompiler.executors.value_handles import ValueHandle
from llmcompiler.runtime.admission import (
    AS_PLANNED,
    Admission,
    AskApproval,
    DelayCall,
    FailCall,
    MakeCall,
    RetryCall,
    ReuseOutcome,
    ServeCached,
    judge_failure,
)
from llmcompiler.runtime.approval import Approve, Deny
from llmcompiler.runtime.result_cache import ResultCache
from llmcompiler.tools.base import tool
from llmcompiler.tools.context import CallContext
from llmcompiler.tools.policy import Retry


@tool
def double(number: int) -> int:
    """Twice a number."""
    return 2 * number


@tool(effect="write", approve=True)
def send(to: str) -> str:
    """Send a mail."""
    return to


@tool(cache=60)
def area(country: str) -> float:
    """Look an area up."""
    return 1.0


@tool(timeout=2)
def slow() -> int:
    """Take long."""
    return 1


@tool(retry=Retry(attempts=9, base=100, most=100))
def stubborn() -> int:
    """Be tried often."""
    return 1


FINISHED = TaskFinished(0.0, 1, (), 4, 1.5)
FAILED = TaskFailed(0.0, 1, (), Failure("tool", "ToolError", "no"), 1.5)


def admission(**fields: Any) -> Admission:
    return Admission(
        **{
            "now": lambda: 10.0,
            "recorded": {},
            "lookup_tool_result": None,
            "decisions": {},
            "retry_at": {},
            "cache": None,
            **fields,
        }
    )


class TestBeforeAnAttempt:
    def test_a_call_of_which_nothing_is_known_is_made_as_planned(self) -> None:
        assert admission().judge(1, (), double, {"number": 2}) is AS_PLANNED

    @pytest.mark.parametrize("outcome", [FINISHED, FAILED])
    def test_a_recorded_outcome_is_reused(self, outcome: Outcome) -> None:
        subject = admission(recorded={(1, (3,)): outcome})
        verdict = subject.judge(1, (3,), double, {"number": 2})
        assert verdict == ReuseOutcome({"number": 2}, outcome)
        assert subject.judge(1, (4,), double, {"number": 2}) is AS_PLANNED

    def test_a_recorded_outcome_that_is_discarded_is_not(self) -> None:
        subject = admission(recorded={(1, (0,)): FINISHED, (1, (1,)): FINISHED, (2, ()): FINISHED})
        subject.discard_recorded(1)
        assert subject.recorded == {(2, ()): FINISHED}

    def test_an_equal_call_of_another_run_is_reused_unless_this_run_has_an_outcome(self) -> None:
        def look_up(name: str, arguments: Mapping[str, Any]) -> Outcome | None:
            return FAILED if (name, arguments) == ("double", {"number": 2}) else None

        subject = admission(lookup_tool_result=look_up, recorded={(9, ()): FINISHED})
        assert subject.judge(1, (), double, {"number": 2}) == ReuseOutcome({"number": 2}, FAILED)
        assert subject.judge(9, (), double, {"number": 2}) == ReuseOutcome({"number": 2}, FINISHED)
        assert subject.judge(1, (), double, {"number": 3}) is AS_PLANNED

    def test_somebody_is_asked_before_a_tool_that_needs_approval(self) -> None:
        assert admission().judge(1, (), send, {"to": "a"}) == AskApproval()

    def test_nobody_is_asked_about_an_outcome_or_arguments_that_do_not_fit(self) -> None:
        subject = admission(recorded={(1, ()): FINISHED})
        assert subject.judge(1, (), send, {"to": "a"}) == ReuseOutcome({"to": "a"}, FINISHED)
        assert subject.judge(2, (), send, {"to": [1]}) is AS_PLANNED  # and fails when it is made

    def test_arguments_that_are_stored_elsewhere_are_not_validated_before_asking(self) -> None:
        handle = ValueHandle({"hash": "ab"})
        assert admission().judge(1, (), send, {"to": handle}) == AskApproval()

    def test_a_denied_call_fails_with_the_reason(self) -> None:
        verdict = admission(decisions={(1, ()): Deny("wrong")}).judge(1, (), send, {"to": "a"})
        assert isinstance(verdict, FailCall)
        assert (verdict.failure.type, verdict.failure.blame) == ("Denied", "tool")
        assert "wrong" in verdict.failure.message

    def test_an_approved_call_is_made_with_the_arguments_that_were_agreed_to(self) -> None:
        decisions = {(1, ()): Approve(), (2, ()): Approve({"to": "b"})}
        subject = admission(decisions=decisions, recorded={(3, ()): FINISHED})
        assert subject.judge(1, (), send, {"to": "a"}) is AS_PLANNED
        assert subject.judge(2, (), send, {"to": "a"}) == MakeCall({"to": "b"})

    def test_an_outcome_is_noted_with_the_arguments_that_were_agreed_to(self) -> None:
        subject = admission(decisions={(1, ()): Approve({"to": "b"})}, recorded={(1, ()): FINISHED})
        assert subject.judge(1, (), send, {"to": "a"}) == ReuseOutcome({"to": "b"}, FINISHED)

    def test_a_call_is_not_repeated_before_its_time(self) -> None:
        subject = admission(retry_at={(1, ()): 12.5, (2, ()): 10.0})
        assert subject.judge(1, (), double, {"number": 2}) == DelayCall(2.5)
        assert subject.judge(2, (), double, {"number": 2}) is AS_PLANNED
        assert subject.judge(3, (), double, {"number": 2}) is AS_PLANNED

    def test_an_outcome_does_not_wait(self) -> None:
        subject = admission(retry_at={(1, ()): 12.5}, recorded={(1, ()): FINISHED})
        assert isinstance(subject.judge(1, (), double, {"number": 2}), ReuseOutcome)

    def test_the_cache_serves_a_result_or_says_why_not(self) -> None:
        cache = ResultCache(":memory:", clock=lambda: 0.0)
        cache.keep(area, {"country": "Japan"}, 377.9)
        subject = admission(cache=cache)
        arguments = {"country": "Japan"}
        assert subject.judge(1, (), area, arguments) == ServeCached(arguments, 377.9)
        verdict = subject.judge(1, (), area, {"country": "Egypt"})
        assert isinstance(verdict, MakeCall)
        assert verdict.arguments is None and "Japan" in verdict.cache_miss
        assert subject.judge(1, (), double, {"number": 2}) is AS_PLANNED
        cache.close()

    def test_a_verdict_changes_nothing(self) -> None:
        subject = admission(
            recorded={(1, ()): FINISHED},
            decisions={(2, ()): Deny()},
            retry_at={(3, ()): 12.0},
        )
        tables = [dict(subject.recorded), dict(subject.decisions), dict(subject.retry_at)]
        verdicts = [subject.judge(task, (), double, {"number": 2}) for task in (1, 2, 3, 4)]
        assert [subject.judge(task, (), double, {"number": 2}) for task in (1, 2, 3, 4)] == verdicts
        assert [subject.recorded, subject.decisions, subject.retry_at] == tables


class TestAfterAFailedAttempt:
    RETRY = Retry(attempts=3, base=1, most=1)

    def context(self, attempt: int = 1) -> CallContext:
        return CallContext("run", 1, (), "run/1", attempt)

    def test_an_error_that_may_pass_is_retried_until_the_attempts_are_used_up(self) -> None:
        error = ToolError("busy", retryable=True)
        verdict = judge_failure(error, double, self.context(1), retry=self.RETRY)
        assert isinstance(verdict, RetryCall)
        assert verdict.failure.message == "busy"
        assert verdict.delay == self.RETRY.delay("run/1", 1, None)
        verdict = judge_failure(error, double, self.context(3), retry=self.RETRY)
        assert isinstance(verdict, FailCall)

    def test_the_delay_that_the_other_side_asks_for_is_kept(self) -> None:
        error = ToolError("busy", retryable=True, retry_after=40)
        verdict = judge_failure(error, double, self.context(), retry=self.RETRY)
        assert isinstance(verdict, RetryCall) and verdict.delay == 40

    def test_any_other_error_is_final(self) -> None:
        verdict = judge_failure(ValueError("no"), double, self.context(), retry=self.RETRY)
        assert isinstance(verdict, FailCall)
        assert (verdict.failure.message, verdict.failure.blame) == ("no", "tool")

    def test_a_tools_own_policy_comes_first(self) -> None:
        error = ToolError("busy", retryable=True)
        verdict = judge_failure(error, stubborn, self.context(7), retry=Retry(attempts=1))
        assert isinstance(verdict, RetryCall)

    @pytest.mark.parametrize("error", [None, ToolError("busy", retryable=True)])
    def test_a_cancelled_task_is_not_retried(self, error: ToolError | None) -> None:
        cancellation = Failure("usage", "Cancelled", "by me")
        verdict = judge_failure(
            error, double, self.context(), retry=self.RETRY, cancellation=cancellation
        )
        assert isinstance(verdict, FailCall)
        assert verdict.failure.message == ("by me" if error is None else "busy")

    @pytest.mark.parametrize(
        ("timed_out", "message"),
        [(True, "slow timed out after 2 s"), (False, "slow cancelled itself")],
    )
    def test_an_attempt_that_was_stopped_says_by_whom(self, timed_out: bool, message: str) -> None:
        verdict = judge_failure(None, slow, self.context(), retry=self.RETRY, timed_out=timed_out)
        assert isinstance(verdict, FailCall) and verdict.failure.message == message
