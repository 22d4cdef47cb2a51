"""Approval: somebody agrees before a tool changes the world.

A tool made with ``@tool(effect="write", approve=True)`` is called only once somebody agreed. A call
that waits holds no slot, everything that does not depend on it goes on, and several calls may wait
at once. With nobody to ask, the run stops as soon as nothing else can go on, and can be resumed
where there is somebody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llmcompiler.errors import Failure, LimitReached
from llmcompiler.events import ApprovalAsked, ApprovalGiven, CallId, Index
from llmcompiler.log.journal import Journal
from llmcompiler.runtime.schedule import TaskCall


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """A call that waits for somebody to agree.

    Attributes:
        run: the run's id.
        task: the task's id.
        index: position in a fan-out; empty for an ordinary call.
        tool: the tool's name.
        arguments: what it would be called with, by parameter name.
    """

    run: str
    task: int
    index: tuple[int, ...]
    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Approve:
    """The call may be made.

    Attributes:
        arguments: what to call the tool with instead; ``None`` for what was planned.
    """

    arguments: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Deny:
    """The call is not made: it fails, and the joiner reads why.

    Attributes:
        reason: for the joiner and the log; may be empty.
    """

    reason: str = ""


ApprovalDecision: TypeAlias = Approve | Deny

Approver: TypeAlias = Callable[[ApprovalRequest], Awaitable[ApprovalDecision]]
"""Asks somebody. An exception that it raises ends the run."""


class Approvals:
    """Asks about the calls of one run, several at a time, and holds the decisions.

    Args:
        run: the run's id.
        approver: asks somebody; ``None`` if there is nobody.
        decisions: decisions that are known already.
        journal: receives requests and decisions.
        on_decision: called with each call that was decided about.
        on_error: called with what the approver raised.

    Attributes:
        decisions: what was decided, by call.
        unattended: requests that nobody is there to answer.
    """

    def __init__(
        self,
        run: str,
        approver: Approver | None,
        decisions: Mapping[CallId, ApprovalDecision],
        journal: Journal,
        *,
        on_decision: Callable[[TaskCall], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._run = run
        self._approver = approver
        self.decisions = dict(decisions)
        self._journal = journal
        self._on_decision = on_decision
        self._on_error = on_error
        self._pending: dict[TaskCall, asyncio.Future[ApprovalDecision]] = {}
        self.unattended: list[ApprovalRequest] = []

    def ask(self, call: TaskCall, index: Index, tool: str, arguments: dict[str, Any]) -> None:
        """Ask about a call; ``on_decision`` is called when somebody has decided."""
        self._journal.emit(ApprovalAsked, task=call.task, index=index, arguments=arguments)
        request = ApprovalRequest(self._run, call.task, index, tool, arguments)
        if self._approver is None:
            self.unattended.append(request)
            return

        def on_answer(answer: asyncio.Future[ApprovalDecision]) -> None:
            if self._pending.pop(call, None) is None or answer.cancelled():
                return
            if (error := answer.exception()) is not None:
                # The approver is the caller's code; without it there can be no decision.
                self._on_error(error)
                return
            self._record(call, index, answer.result())

        answer = self._pending[call] = asyncio.ensure_future(self._approver(request))
        answer.add_done_callback(on_answer)

    def _record(self, call: TaskCall, index: Index, decision: ApprovalDecision) -> None:
        self.decisions[call.task, index] = decision
        is_approved = isinstance(decision, Approve)
        self._journal.emit(
            ApprovalGiven,
            task=call.task,
            index=index,
            verdict="approved" if is_approved else "denied",
            arguments=decision.arguments if isinstance(decision, Approve) else None,
            reason=decision.reason if isinstance(decision, Deny) else "",
        )
        self._on_decision(call)

    def withdraw(self, task: int | None = None) -> list[asyncio.Future[ApprovalDecision]]:
        """Stop asking about the calls of a task, or about all calls.

        Returns:
            Futures to wait for: once they are done, nobody is being asked any more.
        """
        calls = [call for call in self._pending if task is None or call.task == task]
        answers = [self._pending.pop(call) for call in calls]
        for answer in answers:
            answer.cancel()
        if task is not None:
            self.unattended = [request for request in self.unattended if request.task != task]
        return answers


def denial(tool: str, reason: str) -> Failure:
    """The failure of a call that somebody denied."""
    because = f": {reason}" if reason else ""
    return Failure("tool", "Denied", f"the call of {tool} was not approved{because}")


def nobody_to_ask(requests: Sequence[ApprovalRequest]) -> LimitReached:
    """The error of a run in which nothing can go on without an approval."""
    calls = ", ".join(f"{request.tool} (task {request.task})" for request in requests[:3])
    more = f" and {len(requests) - 3} more" if len(requests) > 3 else ""
    return LimitReached(
        f"approval is needed for {calls}{more}, and there is nobody to ask",
        limit="approval",
        hint=f"resume run {requests[0].run} where somebody can approve",
    )
