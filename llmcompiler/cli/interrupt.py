"""Ctrl-C: the first one cancels the run and lets it drain for a moment; the second ends at once.

The drain is bounded, because a call in a library's thread can be cancelled but not stopped. The log
holds every event recorded by then, however the process ends. The process exits without cleaning up:
llama.cpp holds the interpreter's lock for seconds while it loads and while it stops.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

INTERRUPTED = 130
DRAIN_SECONDS = 0.7


@contextmanager
def default_interrupt() -> Iterator[None]:
    """Let Ctrl-C end the process at once, during calls that block Python's own handler."""
    previous = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def run_interruptible(work: Coroutine[Any, Any, T], on_interrupt: Callable[[], None]) -> T:
    """Run ``work`` in an event loop.

    Args:
        work: cancelled by the first Ctrl-C.
        on_interrupt: called once before Ctrl-C ends the process, perhaps from another thread. It
            restores the terminal and prints the state of the run.

    Returns:
        The result of ``work``. After a Ctrl-C the process ends with exit code 130 instead.
    """
    ending = threading.Lock()

    def end() -> None:
        if ending.acquire(blocking=False):
            on_interrupt()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)

    async def main() -> T:
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        interrupts = 0

        def interrupt(_signal: int, _frame: FrameType | None) -> None:
            nonlocal interrupts
            interrupts += 1
            if interrupts > 1:
                end()
            loop.call_soon_threadsafe(task.cancel)
            watchdog = threading.Timer(DRAIN_SECONDS, end)
            watchdog.daemon = True
            watchdog.start()

        previous = signal.signal(signal.SIGINT, interrupt)
        try:
            return await task
        except asyncio.CancelledError:
            if interrupts:
                end()
            raise
        finally:
            if not interrupts:
                signal.signal(signal.SIGINT, previous)

    return asyncio.run(main())
