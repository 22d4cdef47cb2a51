"""A relay of engines: each is stopped after one commit, and the next goes on from the records.

``Relay`` replaces ``Engine`` in the engine's own tests, which then hold for engines that live no
longer than one commit. A stopped engine cleans nothing up. Calls and requests for approval that
were in flight are handed to the next engine, as an executor on other machines would do. The kill
matrix tests the other case, in which calls die with their process and are made again; here that
would change the counts of calls that the engine's tests check.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any

from llmcompiler.events import (
    CallId,
    Event,
    LimitHit,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskProgress,
    TaskRetried,
    TaskStarted,
)
from llmcompiler.executors.base import Executor, ToolCall
from llmcompiler.history.run_history import RunHistory
from llmcompiler.log.journal import Journal
from llmcompiler.plan.model import Task
from llmcompiler.runtime.approval import ApprovalDecision, ApprovalRequest, Approver
from llmcompiler.runtime.budget import RunBudget
from llmcompiler.runtime.engine import Engine
from llmcompiler.runtime.results import Observation
from tests.support.stories import run_started


class _Stopped(BaseException):
    """Ends the engine at a commit, as if its process had died."""


class Relay:
    """Engines one after the other, with the methods of one; arguments as for ``Engine``."""

    stops = 0

    def __init__(
        self,
        run: str,
        *,
        journal: Journal,
        executor: Executor,
        approver: Approver | None = None,
        **options: Any,
    ) -> None:
        self._run = run
        self._journal = journal
        self._executor = executor
        self._approver = approver
        self._options = options
        self._events: list[Event] = []
        self._added: list[tuple[int, Sequence[Task]]] = []
        self._flying: dict[Hashable, asyncio.Future[Any]] = {}
        self._number = 0
        self._is_over = False
        self._changed = asyncio.Event()
        self._engine = self._next()

    # What an engine can do.

    @property
    def observations(self) -> dict[int, Observation]:
        return self._engine.observations

    def add(self, plan: int, tasks: Sequence[Task]) -> None:
        self._engine.add(plan, tasks)
        self._added.append((plan, tasks))

    async def wait_idle(self) -> None:
        while True:
            engine, changed = self._engine, self._changed
            idle = asyncio.ensure_future(engine.wait_idle())
            replaced = asyncio.ensure_future(changed.wait())
            try:
                await asyncio.wait({idle, replaced}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for waiter in (idle, replaced):
                    waiter.cancel()
                await asyncio.wait({idle, replaced})
            if engine is self._engine:
                idle.result()
                return
            if not idle.cancelled():
                idle.exception()

    async def stop(self, reason: str) -> None:
        self._is_over = True
        await self._engine.stop(reason)

    # What it works with.

    def append(self, events: Sequence[Event]) -> None:
        """Store the events of the current engine, and replace the engine."""
        self._events += events
        self._journal._pending += events
        self._journal.flush()
        self._is_over |= any(isinstance(e, LimitHit | TaskCancelled) for e in events)
        if self._is_over or all(isinstance(e, TaskProgress) for e in events):
            return
        type(self).stops += 1
        self._engine = self._next()
        self._changed.set()
        self._changed = asyncio.Event()
        raise _Stopped

    def _next(self) -> Engine:
        self._number += 1
        number = self._number
        history = RunHistory(self._run, [run_started(), *self._events])
        clock = asyncio.get_running_loop().time
        options = self._options
        engine = Engine(
            self._run,
            **{
                **options,
                "journal": Journal(
                    clock,
                    _Log(self, number),  # type: ignore[arg-type]
                    elapsed=self._journal.now(),
                    is_recorded=history.is_recorded,
                ),
                "executor": _LastingExecutor(self, number),
                "budget": _Budget(options["budget"], len(_in_flight(self._events))),
                "approver": None if self._approver is None else _asker(self, number),
                "recorded": {**(options.get("recorded") or {}), **history.outcomes},
                "attempts": {**(options.get("attempts") or {}), **_finished_attempts(self._events)},
                "retry_at": {**(options.get("retry_at") or {}), **history.retry_at},
                "approvals": {**(options.get("approvals") or {}), **history.approvals},
            },
        )
        for plan, tasks in self._added:
            engine.add(plan, tasks)
        return engine

    def handed(
        self, key: Hashable, number: int, start: Callable[[], asyncio.Future[Any]]
    ) -> Coroutine[Any, Any, Any]:
        """Wait for a call, whichever engine started it; only the current engine may cancel it."""
        if key not in self._flying:
            self._flying[key] = start()
        call = self._flying[key]

        async def follow() -> Any:
            try:
                return await asyncio.shield(call)
            except asyncio.CancelledError:
                if number == self._number and not call.done():
                    call.cancel()
                    await asyncio.wait({call})
                raise

        return follow()


def _finished_attempts(events: Sequence[Event]) -> dict[CallId, int]:
    """How many attempts of each call have ended; one in flight is handed on, and not counted."""
    counts: dict[CallId, int] = {}
    for event in events:
        match event:
            case TaskStarted():
                counts[event.task, event.index] = event.attempt - 1
            case TaskRetried():
                counts[event.task, event.index] = event.attempt
            case TaskFinished() | TaskFailed():
                counts.pop((event.task, event.index), None)
    return counts


def _in_flight(events: Sequence[Event]) -> set[CallId]:
    call_ids: set[CallId] = set()
    for event in events:
        match event:
            case TaskStarted():
                call_ids.add((event.task, event.index))
            case TaskRetried() | TaskFinished() | TaskFailed():
                call_ids.discard((event.task, event.index))
    return call_ids


class _Budget:
    """A budget that has counted a number of calls already."""

    def __init__(self, budget: RunBudget, counted: int) -> None:
        self._budget = budget
        self._counted = counted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._budget, name)

    def start_tool_call(self) -> None:
        if self._counted:
            self._counted -= 1
        else:
            self._budget.start_tool_call()


class _Log:
    """The log of one engine; a stopped engine writes nothing."""

    def __init__(self, relay: Relay, number: int) -> None:
        self._relay = relay
        self._number = number

    def append(self, events: Sequence[Event]) -> None:
        if self._number == self._relay._number:
            self._relay.append(events)


class _LastingExecutor:
    """An executor whose calls outlive the engine that started them."""

    def __init__(self, relay: Relay, number: int) -> None:
        self._relay = relay
        self._number = number

    def submit(self, call: ToolCall) -> asyncio.Future[Any]:
        relay, key = self._relay, (call.context.key, call.context.attempt)
        start = functools.partial(relay._executor.submit, call)
        return asyncio.ensure_future(relay.handed(key, self._number, start))

    async def aclose(self) -> None:
        await self._relay._executor.aclose()


def _asker(relay: Relay, number: int) -> Approver:
    async def ask(request: ApprovalRequest) -> ApprovalDecision:
        def start() -> asyncio.Future[ApprovalDecision]:
            assert relay._approver is not None
            return asyncio.ensure_future(_decide(relay._approver, request))

        return await relay.handed(("asked", request.task, request.index), number, start)

    return ask


async def _decide(approver: Approver, request: ApprovalRequest) -> Any:
    """Ask an approver of either kind."""
    answer: Any
    if inspect.iscoroutinefunction(approver):
        answer = approver(request)
    else:
        answer = await asyncio.to_thread(approver, request)
    return await answer if inspect.isawaitable(answer) else answer
