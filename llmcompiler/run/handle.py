"""A run while it goes on: its events, its result, and ways to call off a task or all of it.

The module must not know what a run does, nor where it is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self

from llmcompiler.events import Event
from llmcompiler.run.event_buffer import EventBuffer
from llmcompiler.run.run import Run, RunResult
from llmcompiler.runtime.engine import CALLED_OFF, Engine


class LiveRun:
    """A run that ``LLMCompiler.start`` began; an async context manager.

    Whoever leaves the block early calls the run off, and leaves once it has stopped: no call
    outlives it, and its log says that it was interrupted and can be resumed.

    Args:
        work: carries the run out; told what to call with each event, and with the run itself.
    """

    def __init__(
        self, work: Callable[[Callable[[Event], None], Callable[[Run], None]], Awaitable[RunResult]]
    ) -> None:
        self._buffer = EventBuffer()
        self._run: Run | None = None
        self._task = asyncio.ensure_future(work(self._buffer.put, self._begun))

    def _begun(self, run: Run) -> None:
        self._run = run

    async def events(self) -> AsyncIterator[Event]:
        """Each event once it is recorded; ``RunFinished`` is the last. For one reader.

        A reader who is slow holds up nothing: pieces of a model's text that wait for it are joined,
        and of very much text the oldest is left out; see ``llmcompiler.buffer``.

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
            asyncio.CancelledError: the run was called off.
        """
        return await asyncio.shield(self._task)

    async def cancel(self, task: int, reason: str = CALLED_OFF) -> bool:
        """Call off one task, all elements of a fan-out, and wait until its calls have stopped.

        What needs its result is skipped, everything else goes on, and the joiner is told.

        Args:
            task: its id, as in the plan and in events.
            reason: what joiner, log and views say about it.

        Returns:
            Whether there was something to call off: a task that has ended, or is not planned yet,
            stays as it is.
        """
        if self._run is None:
            return False
        engine: Engine = self._run.engine
        return await engine.cancel(task, reason)

    async def stop(self) -> None:
        """Call the whole run off, and wait until it has stopped. May be called twice."""
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
            self._task.exception()  # whoever wanted it has asked for it
