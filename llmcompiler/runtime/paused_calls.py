"""Calls that gave their slot back without having ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llmcompiler.runtime.schedule import TaskCall, TaskFetchingUnit


class PausedCalls:
    """Calls that wait for their next attempt, which have a timer, or for an approval.

    Args:
        unit: the scheduler of the calls.
        schedule_turn: called when a call is ready again.
    """

    def __init__(self, unit: TaskFetchingUnit, schedule_turn: Callable[[], None]) -> None:
        self._unit = unit
        self._schedule_turn = schedule_turn
        self._loop = asyncio.get_running_loop()
        self._timers: dict[TaskCall, asyncio.TimerHandle | None] = {}

    @property
    def any_timers(self) -> bool:
        """True if a call waits for its next attempt."""
        return any(self._timers.values())

    def pause(self, call: TaskCall, delay: float | None = None) -> None:
        """Take a call's slot away.

        Args:
            call: a call that has started, or is about to.
            delay: seconds until the call is ready again; ``None`` to wait for ``resume``.
        """
        self._unit.pause(call)
        timer = None if delay is None else self._loop.call_later(delay, self.resume, call)
        self._timers[call] = timer

    def resume(self, call: TaskCall) -> None:
        """Make a paused call ready again."""
        del self._timers[call]
        self._unit.requeue(call)
        self._schedule_turn()

    def withdraw(self, task: int) -> None:
        """Give the paused calls of a task back to the scheduler, so that it can end the task."""
        for call in [call for call in self._timers if call.task == task]:
            if (timer := self._timers.pop(call)) is not None:
                timer.cancel()
            self._unit.requeue(call)

    def clear(self) -> None:
        """Drop all paused calls, because the run stops."""
        for timer in self._timers.values():
            if timer is not None:
                timer.cancel()
        self._timers.clear()
