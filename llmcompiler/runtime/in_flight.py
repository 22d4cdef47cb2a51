"""Calls in flight: each at an executor, with its timer, its reports of progress, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import math
from collections.abc import Callable
from typing import Any

from llmcompiler.events import TaskProgress
from llmcompiler.executors.base import Executor, ToolCall
from llmcompiler.log.journal import Journal
from llmcompiler.runtime.schedule import TaskCall
from llmcompiler.tools.base import Tool
from llmcompiler.tools.context import CallContext

NOT_RETURNED = object()
"""Sentinel: the call has no value yet."""

_REPORT_INTERVAL = 0.1
"""Seconds between two recorded reports of a call's progress; reports in between are dropped."""


class CallInFlight(ToolCall):
    """A call that holds a slot: what the executor gets, and what the engine needs besides.

    Attributes:
        call: the task, and the element of a fan-out.
        planned_arguments: the arguments as planned, for the cache: the tool may change the bound
            ones. ``None`` for a tool whose results are not cached.
        started_at: seconds since the run began.
        future: ends with the call.
        value: what the tool returned, once it did.
        timer: stops the call when it takes too long.
        timed_out: True if the timer stopped the call.
        last_report_at: when its progress was last recorded, in seconds since the run began.
    """

    __slots__ = (
        "_owner",
        "call",
        "future",
        "last_report_at",
        "planned_arguments",
        "started_at",
        "timed_out",
        "timer",
        "value",
    )

    def __init__(
        self,
        owner: CallsInFlight,
        call: TaskCall,
        tool: Tool,
        planned_arguments: dict[str, Any] | None,
        bound_arguments: dict[str, Any],
        context: CallContext,
        has_handles: bool,
    ) -> None:
        self.tool = tool
        self.arguments = bound_arguments
        self.context = context
        self.has_handles = has_handles
        self._owner = owner
        self.call = call
        self.planned_arguments = planned_arguments
        self.started_at = 0.0
        self.future: asyncio.Future[Any] | None = None
        self.value: Any = NOT_RETURNED
        self.timer: asyncio.TimerHandle | None = None
        self.timed_out = False
        self.last_report_at = -math.inf

    def returned(self, value: Any) -> None:
        """See ``ToolCall.returned``."""
        if (task := self._current_task) is not None:
            if not task.cancelling():  # else the call may still end as cancelled
                self.value = value
            self._complete(task)

    def raised(self) -> None:
        """See ``ToolCall.raised``."""
        if (task := self._current_task) is not None:
            self._complete(task)

    def future_result(self) -> tuple[Any, BaseException | None]:
        """What the future ended with: a value, or an exception."""
        future = self.future
        assert future is not None
        if future.cancelled():
            return None, asyncio.CancelledError()
        error = future.exception()
        return (future.result(), None) if error is None else (None, error)

    @property
    def _current_task(self) -> asyncio.Task[Any] | None:
        """The current asyncio task, if it is the one that the engine waits for.

        An executor may make the call in another task, and change what comes of it.
        """
        task = asyncio.current_task(self._owner.loop)
        return task if task is self.future else None

    def _complete(self, task: asyncio.Task[Any]) -> None:
        owner = self._owner
        task.remove_done_callback(owner.done_callback)
        # Other calls start from here: they must not inherit this call's context.
        owner.context.run(owner.done_callback, task)


class CallsInFlight:
    """The calls of one run that hold slots.

    Args:
        executor: where calls run.
        journal: receives reports of progress.
        finish_turn: called when no other call can end in this turn of the loop.
        schedule_turn: called when the first call of a turn has ended, or progress was reported.

    Attributes:
        by_future: the calls that have not ended.
        completed: calls that have ended and that nobody has taken yet, in the order of their ends.
    """

    def __init__(
        self,
        executor: Executor,
        journal: Journal,
        *,
        finish_turn: Callable[[], None],
        schedule_turn: Callable[[], None],
    ) -> None:
        self._executor = executor
        self._journal = journal
        self._finish_turn = finish_turn
        self._schedule_turn = schedule_turn
        self.by_future: dict[asyncio.Future[Any], CallInFlight] = {}
        self.completed: list[CallInFlight] = []
        self.loop = asyncio.get_running_loop()
        # Bound methods, made once for all calls.
        self.done_callback, self._progress_callback = self._on_done, self._on_progress
        # One context for all done callbacks: asyncio would copy one for each.
        self.context = contextvars.copy_context()
        self._all_cancelled = False

    def start(self, flight: CallInFlight, now: float) -> None:
        """Hand a call to the executor.

        Args:
            flight: the call.
            now: seconds since the run began.
        """
        if self._journal.enabled:
            flight.context.on_progress = functools.partial(self._progress_callback, flight)
        future = flight.future = self._executor.submit(flight)
        self.by_future[future] = flight
        flight.started_at = now
        timeout = flight.tool.timeout
        if timeout is not None:
            flight.timer = self.loop.call_later(timeout, _time_out, flight)
        future.add_done_callback(self.done_callback, context=self.context)

    def cancel(self, task: int | None = None) -> list[asyncio.Future[Any]]:
        """Stop the calls of a task, or all calls.

        Returns:
            Futures to wait for: once they are done, the calls have stopped.
        """
        if task is None:
            self._all_cancelled = True
        stopping = []
        for future, flight in self.by_future.items():
            if task is None or flight.call.task == task:
                flight.context.cancelled.set()
                future.cancel()
                stopping.append(future)
        return stopping

    def _on_done(self, future: asyncio.Future[Any]) -> None:
        flight = self.by_future.pop(future)
        flight.context.on_progress = None  # ends reports, and a reference cycle
        self.completed.append(flight)
        if not self.by_future and (future.done() or flight.value is not NOT_RETURNED):
            self._finish_turn()
        elif len(self.completed) == 1:  # any further one ends in a turn that is scheduled already
            self._schedule_turn()

    def _on_progress(
        self, flight: CallInFlight, done: float, total: float | None, message: str
    ) -> None:
        """A tool reports progress, from any thread."""
        # An abandoned thread may outlive the loop.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._emit_progress, flight, done, total, message)

    def _emit_progress(
        self, flight: CallInFlight, done: float, total: float | None, message: str
    ) -> None:
        now = self._journal.now()
        is_over = flight.context.on_progress is None
        if is_over or self._all_cancelled or now - flight.last_report_at < _REPORT_INTERVAL:
            return
        flight.last_report_at = now
        self._journal.emit(
            TaskProgress,
            task=flight.call.task,
            index=flight.context.index,
            done=done,
            total=total,
            message=message,
        )
        self._schedule_turn()


def _time_out(flight: CallInFlight) -> None:
    flight.timed_out = True
    assert flight.future is not None
    flight.future.cancel()
