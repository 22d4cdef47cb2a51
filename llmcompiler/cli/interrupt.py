"""Ctrl-C: the first cancels what runs and lets it drain, for a moment; the second ends at once.

The drain has a bound, because a call in a library's thread can be cancelled but not stopped. What
was recorded by then is in the log, whatever ends the process. Nothing is tidied up behind the
drain: llama.cpp holds the interpreter's lock while it loads and while it stops, for seconds.
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
def dies_of_interrupt() -> Iterator[None]:
    """Leave Ctrl-C to the operating system, for calls that keep Python from hearing of it."""
    previous = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def run_interruptible(work: Coroutine[Any, Any, T], goodbye: Callable[[], None]) -> T:
    """Run ``work`` in an event loop.

    Args:
        work: cancelled by the first Ctrl-C.
        goodbye: called once if the process ends by Ctrl-C: gives the terminal back and says what
            became of the run. It may be called from another thread.

    Returns:
        What ``work`` returns. After a Ctrl-C it does not: the process ends with exit code 130.
    """
    ending = threading.Lock()

    def end() -> None:
        if ending.acquire(blocking=False):
            goodbye()
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
