"""Approval: somebody agrees before a tool changes the world.

A tool made with ``@tool(effect="write", approve=True)`` is called only once somebody agreed. A call
that waits holds no slot, everything that does not depend on it goes on, and several calls may wait
at once. With nobody to ask, the run stops as soon as nothing else can go on, and can be resumed
where there is somebody.

Approval fails closed: an ``Approve`` lets a call be made, and nothing else does. An answer of any
other type denies the call. An approver that raises or is cancelled has decided nothing; its call
waits as if there were nobody to ask.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llmcompiler.errors import Failure, LimitReached, LLMCompilerError, error_text
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

Approver: TypeAlias = Callable[[ApprovalRequest], Awaitable[ApprovalDecision] | ApprovalDecision]
"""Asks somebody. A plain function is called in a thread, so it may block."""


class Approvals:
    """Asks about the calls of one run, several at a time, and holds the decisions.

    Args:
        run: the run's id.
        approver: asks somebody; ``None`` if there is nobody.
        decisions: decisions that are known already.
        journal: receives requests and decisions.
        on_decision: called with each call that was decided about.
        on_unattended: called when the approver has ended without a decision.

    Attributes:
        decisions: what was decided, by call.
        unattended: requests that nobody is there to answer, with the reason.
    """

    def __init__(
        self,
        run: str,
        approver: Approver | None,
        decisions: Mapping[CallId, ApprovalDecision],
        journal: Journal,
        *,
        on_decision: Callable[[TaskCall], None],
        on_unattended: Callable[[], None],
    ) -> None:
        self._run = run
        self._approver = approver
        self.decisions = dict(decisions)
        self._journal = journal
        self._on_decision = on_decision
        self._on_unattended = on_unattended
        self._pending: dict[TaskCall, asyncio.Task[Any]] = {}
        self.unattended: list[tuple[ApprovalRequest, str]] = []

    @property
    def is_stuck(self) -> bool:
        """True if some requests are left, and nobody is being asked about any of them."""
        return bool(self.unattended) and not self._pending

    def ask(self, call: TaskCall, index: Index, tool: str, arguments: dict[str, Any]) -> None:
        """Ask about a call; ``on_decision`` is called when somebody has decided."""
        self._journal.emit(ApprovalAsked, task=call.task, index=index, arguments=arguments)
        # The approver may change its copy; the recorded arguments stay as they are.
        request = ApprovalRequest(self._run, call.task, index, tool, copy.deepcopy(arguments))
        if self._approver is None:
            self.unattended.append((request, "there is nobody to ask"))
            return

        def on_answer(answer: asyncio.Task[Any]) -> None:
            if self._pending.pop(call, None) is None:
                return  # withdrawn
            if answer.cancelled():
                reason = "the approver was cancelled"
            elif (error := answer.exception()) is not None:
                reason = _approver_failure(error)
            else:
                self._record(call, index, read_decision(answer.result()))
                return
            self.unattended.append((request, reason))
            self._on_unattended()

        answer = self._pending[call] = asyncio.get_running_loop().create_task(
            _answer(self._approver, request)
        )
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

    def withdraw(self, task: int | None = None) -> list[asyncio.Task[Any]]:
        """Stop asking about the calls of a task, or about all calls.

        Returns:
            Futures to wait for: once they are done, nobody is being asked any more.
        """
        calls = [call for call in self._pending if task is None or call.task == task]
        answers = [self._pending.pop(call) for call in calls]
        for answer in answers:
            answer.cancel()
        if task is not None:
            self.unattended = [entry for entry in self.unattended if entry[0].task != task]
        return answers


async def _answer(approver: Callable[[ApprovalRequest], Any], request: ApprovalRequest) -> Any:
    """What the approver answers: an async one on the event loop, a plain function in a thread."""
    try:
        if inspect.iscoroutinefunction(approver) or inspect.iscoroutinefunction(
            getattr(approver, "__call__", None)  # noqa: B004
        ):
            return await approver(request)
        import anyio.to_thread

        answer = await anyio.to_thread.run_sync(approver, request, abandon_on_cancel=True)
        return await answer if inspect.isawaitable(answer) else answer
    except SystemExit as error:  # it must not end the whole program
        raise LimitReached(
            f"the approver called sys.exit({error.code!r})", limit="approval"
        ) from error


def read_decision(answer: Any) -> ApprovalDecision:
    """The decision that an approver's answer is.

    Returns:
        The answer itself if it is an ``Approve`` or a ``Deny`` that the log can hold. Anything else
        denies the call, and the reason says what was answered.
    """
    if isinstance(answer, Deny):
        return Deny(str(answer.reason or ""))
    if not isinstance(answer, Approve):
        return Deny(f"the approver returned {answer!r:.80}, and only Approve() approves")
    arguments: Any = answer.arguments
    if arguments is None:
        return Approve()
    if not isinstance(arguments, Mapping):
        return Deny(f"Approve(arguments=...) takes a dict, not {arguments!r:.80}")
    try:
        arguments = json.loads(json.dumps(dict(arguments), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        return Deny(f"the arguments of Approve(arguments=...) cannot be JSON: {error}")
    return Approve(arguments)


def denial(tool: str, reason: str) -> Failure:
    """The failure of a call that somebody denied."""
    because = f": {reason}" if reason else ""
    return Failure("tool", "Denied", f"the call of {tool} was not approved{because}")


def _approver_failure(error: BaseException) -> str:
    if isinstance(error, LLMCompilerError):
        return error.message
    return f"the approver raised {type(error).__name__}: {error_text(error)}"


def nobody_to_ask(requests: Sequence[tuple[ApprovalRequest, str]]) -> LimitReached:
    """The error of a run in which nothing can go on without an approval.

    Args:
        requests: what nobody decided about, each with the reason.
    """
    calls = [f"{request.tool} (task {request.task})" for request, _ in requests]
    more = f" and {len(calls) - 3} more" if len(calls) > 3 else ""
    request, reason = requests[0]
    return LimitReached(
        f"approval is needed for {', '.join(calls[:3])}{more}, and {reason}",
        limit="approval",
        hint=f"resume run {request.run} where somebody can approve",
    )
