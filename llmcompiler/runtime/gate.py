"""Calls that wait until somebody agrees to them, and what was decided.

The module must not know schedules: who asks is told when there is a decision, and goes on from
there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmcompiler.errors import Failure, LimitReached
from llmcompiler.events import ApprovalAsked, ApprovalGiven, CallId, Index
from llmcompiler.log.journal import Journal
from llmcompiler.runtime.approval import ApprovalDecision, ApprovalRequest, Approve, Approver, Deny
from llmcompiler.runtime.schedule import TaskCall


class Gate:
    """Asks about calls, several at a time.

    Args:
        run: the run's id.
        approver: who is asked; ``None`` if there is nobody.
        decisions: what was decided before, by task and index.
        journal: told of questions and decisions.
        decided: called with each call that there is a decision about.
        crashed: called with what an approver raised.

    Attributes:
        decisions: what was decided about calls, by task and index.
        unattended: calls that nobody is there to ask about.
    """

    def __init__(
        self,
        run: str,
        approver: Approver | None,
        decisions: Mapping[CallId, ApprovalDecision],
        journal: Journal,
        *,
        decided: Callable[[TaskCall], None],
        crashed: Callable[[BaseException], None],
    ) -> None:
        self._run = run
        self._approver = approver
        self.decisions = dict(decisions)
        self._journal = journal
        self._decided = decided
        self._crashed = crashed
        self._asking: dict[TaskCall, asyncio.Future[ApprovalDecision]] = {}
        self.unattended: list[ApprovalRequest] = []

    def ask(self, call: TaskCall, index: Index, tool: str, arguments: dict[str, Any]) -> None:
        """Ask about a call; the decision comes by ``decided``."""
        self._journal.emit(ApprovalAsked, task=call.task, index=index, arguments=arguments)
        request = ApprovalRequest(self._run, call.task, index, tool, arguments)
        if self._approver is None:
            self.unattended.append(request)
            return

        def answered(asking: asyncio.Future[ApprovalDecision]) -> None:
            if self._asking.pop(call, None) is None or asking.cancelled():
                return
            if (error := asking.exception()) is not None:
                # The approver is the caller's code; without it no decision can be had.
                self._crashed(error)
                return
            self._note(call, index, asking.result())

        asking = self._asking[call] = asyncio.ensure_future(self._approver(request))
        asking.add_done_callback(answered)

    def _note(self, call: TaskCall, index: Index, decision: ApprovalDecision) -> None:
        self.decisions[call.task, index] = decision
        approved = isinstance(decision, Approve)
        self._journal.emit(
            ApprovalGiven,
            task=call.task,
            index=index,
            verdict="approved" if approved else "denied",
            arguments=decision.arguments if isinstance(decision, Approve) else None,
            reason=decision.reason if isinstance(decision, Deny) else "",
        )
        self._decided(call)

    def withdraw(self, task: int | None = None) -> list[asyncio.Future[ApprovalDecision]]:
        """Stop asking about the calls of a task, or about all.

        Returns:
            What is to be waited for, until nobody is being asked any more.
        """
        gone = [call for call in self._asking if task is None or call.task == task]
        stopped = [self._asking.pop(call) for call in gone]
        for asking in stopped:
            asking.cancel()
        if task is not None:
            self.unattended = [one for one in self.unattended if one.task != task]
        return stopped


def denied(tool: str, reason: str) -> Failure:
    """How a call fails that was not agreed to."""
    because = f": {reason}" if reason else ""
    return Failure("tool", "Denied", f"the call of {tool} was not approved{because}")


def nobody_to_ask(waiting: Sequence[ApprovalRequest]) -> LimitReached:
    """Why a run stops in which nothing can go on without an approval."""
    calls = ", ".join(f"{one.tool} (task {one.task})" for one in waiting[:3])
    more = f" and {len(waiting) - 3} more" if len(waiting) > 3 else ""
    return LimitReached(
        f"approval is needed for {calls}{more}, and there is nobody to ask",
        limit="approval",
        hint=f"resume run {waiting[0].run} where somebody can approve",
    )
