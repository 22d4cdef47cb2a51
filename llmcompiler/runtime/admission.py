"""Decides what becomes of a call, before an attempt and after one that failed.

The module changes nothing: it looks up what is known of the call and returns a verdict, which the
engine carries out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from llmcompiler.errors import Failure, ToolError, failure_of
from llmcompiler.events import CallId, Index, Outcome
from llmcompiler.executors.value_handles import contains_handles
from llmcompiler.runtime.approval import ApprovalDecision, Approve, denial
from llmcompiler.runtime.result_cache import Hit, ResultCache
from llmcompiler.tools.base import Tool
from llmcompiler.tools.context import CallContext
from llmcompiler.tools.policy import Retry

ToolResultLookup: TypeAlias = Callable[[str, Mapping[str, Any]], Outcome | None]
"""Finds how a call of the named tool with these arguments ended in another run."""


@dataclass(frozen=True, slots=True)
class MakeCall:
    """Make the call now, if the run's budget allows one more.

    Attributes:
        arguments: what replaces the planned arguments; ``None`` to keep them.
        cache_miss: why no cached result serves; empty for a tool whose results are not cached.
    """

    arguments: dict[str, Any] | None = None
    cache_miss: str = ""


@dataclass(frozen=True, slots=True)
class ReuseOutcome:
    """Do not make the call: it ended before, in this run or in one that this run follows.

    Attributes:
        arguments: what the call is noted to have been made with.
        outcome: how it ended.
    """

    arguments: dict[str, Any]
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class ServeCached:
    """Do not make the call: the cache holds its result.

    Attributes:
        arguments: what the call is noted to have been made with.
        value: the result as JSON.
    """

    arguments: dict[str, Any]
    value: Any


@dataclass(frozen=True, slots=True)
class AskApproval:
    """Ask somebody first."""


@dataclass(frozen=True, slots=True)
class DelayCall:
    """Decide again after ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class RetryCall:
    """The attempt failed: make the call again after ``delay`` seconds."""

    failure: Failure
    delay: float


@dataclass(frozen=True, slots=True)
class FailCall:
    """The call fails for good."""

    failure: Failure


Verdict: TypeAlias = MakeCall | ReuseOutcome | ServeCached | AskApproval | DelayCall | FailCall
"""What becomes of a call whose inputs have arrived."""

AS_PLANNED = MakeCall()
"""The verdict on most calls, made once: nothing is known of the call, so it is made as planned."""


@dataclass(slots=True)
class Admission:
    """What is known of a run's calls, and the verdicts that follow from it.

    Attributes:
        now: gives the seconds since the run began.
        recorded: outcomes of calls in the log.
        lookup_tool_result: finds the outcome of an equal call of another run.
        decisions: what somebody decided about calls that need approval.
        retry_at: seconds since the run began, before which a call is not made again.
        cache: results of earlier runs.
    """

    now: Callable[[], float]
    recorded: dict[CallId, Outcome]
    lookup_tool_result: ToolResultLookup | None
    decisions: Mapping[CallId, ApprovalDecision]
    retry_at: dict[CallId, float]
    cache: ResultCache | None

    def judge(self, task: int, index: Index, tool: Tool, arguments: dict[str, Any]) -> Verdict:
        """Decide about a call before an attempt.

        A known outcome comes first and needs no approval. Then come approval, the time of a
        retry, and the cache.

        Args:
            task: the task's id.
            index: position in a fan-out; empty for an ordinary call.
            tool: what the task calls.
            arguments: as planned, by parameter name.
        """
        outcome = self.recorded.get((task, index)) if self.recorded else None
        if outcome is None and self.lookup_tool_result is not None:
            outcome = self.lookup_tool_result(tool.name, arguments)
        decision = self.decisions.get((task, index)) if self.decisions else None
        replacement: dict[str, Any] | None = None
        if decision is None:
            if tool.approve and outcome is None and _accepts(tool, arguments):
                return AskApproval()
        elif not isinstance(decision, Approve):
            return FailCall(denial(tool.name, decision.reason))
        elif decision.arguments is not None:
            arguments = replacement = decision.arguments
        if outcome is not None:
            return ReuseOutcome(arguments, outcome)
        if self.retry_at:
            # A crash is no reason to ask an endpoint earlier than it allows.
            seconds = self.retry_at.get((task, index), 0.0) - self.now()
            if seconds > 0:
                return DelayCall(seconds)
        if tool.cache is not None and self.cache is not None:
            result = self.cache.look(tool, arguments)
            if isinstance(result, Hit):
                return ServeCached(arguments, result.value)
            return MakeCall(replacement, result.why)
        return AS_PLANNED if replacement is None else MakeCall(replacement)

    def discard_recorded(self, task: int) -> None:
        """Forget the recorded outcomes of a task, so that its calls are made again."""
        for call_id in [call_id for call_id in self.recorded if call_id[0] == task]:
            del self.recorded[call_id]


def _accepts(tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """True if the arguments fit the tool: nobody is asked about a call that cannot be made."""
    if contains_handles(arguments):
        return True  # whoever has the values validates them
    try:
        tool.validate(arguments)
    except ToolError:
        return False
    return True


def judge_failure(
    error: BaseException | None,
    tool: Tool,
    context: CallContext,
    *,
    retry: Retry,
    cancellation: Failure | None = None,
    timed_out: bool = False,
) -> RetryCall | FailCall:
    """Decide about a call whose attempt failed.

    Args:
        error: what the attempt raised; ``None`` if it was stopped before its end.
        tool: what was called.
        context: the attempt.
        retry: the run's policy, for a tool without one of its own.
        cancellation: how the task fails, if the caller has cancelled it; it is not retried then.
        timed_out: True if the attempt was stopped because it took too long.
    """
    if error is None:
        if cancellation is not None:
            return FailCall(cancellation)
        error = ToolError(
            f"{tool.name} timed out after {tool.timeout:g} s"
            if timed_out
            else f"{tool.name} cancelled itself"
        )
    failure = failure_of(error, "tool")
    policy = tool.retry or retry
    if cancellation is None and policy.helps(error, context.attempt):
        asked_delay = getattr(error, "retry_after", None)
        return RetryCall(failure, policy.delay(context.key, context.attempt, asked_delay))
    return FailCall(failure)
