"""A run while it goes on: its events, its result, and ways to cancel a task or the whole run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self, TypeAlias

from llmcompiler.events import Event
from llmcompiler.log.journal import Listener
from llmcompiler.run.event_buffer import EventBuffer
from llmcompiler.run.result import RunResult
from llmcompiler.run.run import Run
from llmcompiler.runtime.engine import CALLED_OFF, Engine

OnRunCreated: TypeAlias = Callable[[Run], None]
"""Called with a new run before its first event."""


class LiveRun:
    """A run that ``LLMCompiler.start`` began; an async context manager.

    Leaving the block early cancels the run, and waits until it has stopped. No call outlives it,
    and its log says that it was interrupted, so it can be resumed.

    Args:
        work: carries the run out. Its arguments are called with each event, and with the run.
    """

    def __init__(self, work: Callable[[Listener, OnRunCreated], Awaitable[RunResult]]) -> None:
        self._buffer = EventBuffer()
        self._run: Run | None = None
        self._task = asyncio.ensure_future(work(self._buffer.put, self._set_run))

    def _set_run(self, run: Run) -> None:
        self._run = run

    async def events(self) -> AsyncIterator[Event]:
        """Yield each event once it is recorded; ``RunFinished`` is the last. For one reader.

        A slow reader does not hold up the run. Pieces of a model's text that wait for the reader
        are joined, and the oldest text is left out if too much waits; see ``EventBuffer``.

        Raises:
            LLMCompilerError: as ``LLMCompiler.run``.
        """
        while True:
            while (event := self._buffer.take()) is not None:
                yield event
            if self._task.done():
                break
            arrived = asyncio.ensure_future(self._buffer.arrived())
            await asyncio.wait((arrived, self._task), return_when=asyncio.FIRST_COMPLETED)
            arrived.cancel()
        self._task.result()

    async def result(self) -> RunResult:
        """Wait for the end.

        Raises:
            LLMCompilerError: as ``LLMCompiler.run``.
            asyncio.CancelledError: the run was cancelled.
        """
        return await asyncio.shield(self._task)

    async def cancel(self, task: int, reason: str = CALLED_OFF) -> bool:
        """Cancel one task, with all elements of a fan-out, and wait until its calls have stopped.

        Tasks that need its result are skipped, everything else goes on, and the joiner sees the
        reason.

        Args:
            task: its id, as in the plan and in events.
            reason: what joiner, log and views say about it.

        Returns:
            False if the task has ended or is not planned yet; then it stays as it is.
        """
        if self._run is None:
            return False
        engine: Engine = self._run.engine
        return await engine.cancel(task, reason)

    async def stop(self) -> None:
        """Cancel the whole run, and wait until it has stopped. May be called twice."""
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()
        if not self._task.cancelled():
            self._task.exception()  # marks it as seen, so that asyncio does not report it
