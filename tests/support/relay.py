"""An engine that is stopped after every record, while another one goes on from what is recorded.

It stands in for ``Engine``, so that whatever holds of an engine is held of one that never lives
longer than one commit. An engine that is stopped tidies nothing up. Calls and questions that were
in flight are handed to the next one, as an executor on other machines would do: that they are made
again where their process has died is what the kill matrix is about, and would change what the tests
of the engine count.
"""

from __future__ import annotations

import asyncio
import functools
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
    """The engine's process is gone."""


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
            settled = asyncio.ensure_future(engine.wait_idle())
            waiting = asyncio.ensure_future(changed.wait())
            try:
                await asyncio.wait({settled, waiting}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in (settled, waiting):
                    each.cancel()
                await asyncio.wait({settled, waiting})
            if engine is self._engine:
                settled.result()
                return
            if not settled.cancelled():
                settled.exception()

    async def stop(self, reason: str) -> None:
        self._is_over = True
        await self._engine.stop(reason)

    # What it lives on.

    def append(self, events: Sequence[Event]) -> None:
        """Keep what the engine of today noted, and put another one in its place."""
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
        given = self._options
        engine = Engine(
            self._run,
            **{
                **given,
                "journal": Journal(
                    clock,
                    _Log(self, number),  # type: ignore[arg-type]
                    elapsed=self._journal.now(),
                    is_recorded=history.is_recorded,
                ),
                "executor": _Handing(self, number),
                "budget": _Budget(given["budget"], len(_in_flight(self._events))),
                "approver": None if self._approver is None else _asker(self, number),
                "recorded": {**(given.get("recorded") or {}), **history.outcomes},
                "attempts": {**(given.get("attempts") or {}), **_over(self._events)},
                "retry_at": {**(given.get("retry_at") or {}), **history.retry_at},
                "approvals": {**(given.get("approvals") or {}), **history.approvals},
            },
        )
        for plan, tasks in self._added:
            engine.add(plan, tasks)
        return engine

    def handed(
        self, key: Hashable, number: int, start: Callable[[], asyncio.Future[Any]]
    ) -> Coroutine[Any, Any, Any]:
        """What comes of a call, whichever engine started it; only today's may cancel it."""
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


def _over(events: Sequence[Event]) -> dict[CallId, int]:
    """Attempts that have ended; one that is in flight is handed on, and not another one."""
    found: dict[CallId, int] = {}
    for event in events:
        match event:
            case TaskStarted():
                found[event.task, event.index] = event.attempt - 1
            case TaskRetried():
                found[event.task, event.index] = event.attempt
            case TaskFinished() | TaskFailed():
                found.pop((event.task, event.index), None)
    return found


def _in_flight(events: Sequence[Event]) -> set[CallId]:
    found: set[CallId] = set()
    for event in events:
        match event:
            case TaskStarted():
                found.add((event.task, event.index))
            case TaskRetried() | TaskFinished() | TaskFailed():
                found.discard((event.task, event.index))
    return found


class _Budget:
    """A budget that has counted so many calls already."""

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
    """Where one engine's journal writes; one that was stopped writes nothing."""

    def __init__(self, relay: Relay, number: int) -> None:
        self._relay = relay
        self._number = number

    def append(self, events: Sequence[Event]) -> None:
        if self._number == self._relay._number:
            self._relay.append(events)


class _Handing:
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
    def ask(request: ApprovalRequest) -> Coroutine[Any, Any, ApprovalDecision]:
        def start() -> asyncio.Future[ApprovalDecision]:
            assert relay._approver is not None
            return asyncio.ensure_future(relay._approver(request))

        return relay.handed(("asked", request.task, request.index), number, start)

    return ask
