"""Ctrl-C: the first cancels what runs and lets it drain, for a moment; the second ends at once.

The drain has a bound, because a call in a library's thread can be cancelled but not stopped. What
was recorded by then is in the log, whatever ends the process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

INTERRUPTED = 130
DRAIN_SECONDS = 0.7


def run_interruptible(work: Coroutine[Any, Any, T], goodbye: Callable[[], None]) -> T:
    """Run ``work`` in an event loop.

    Args:
        work: cancelled by the first Ctrl-C.
        goodbye: called once if the process ends by Ctrl-C: gives the terminal back and says what
            became of the run. It may be called from another thread.

    Raises:
        KeyboardInterrupt: after ``goodbye``, once ``work`` has drained.
    """
    said = threading.Lock()

    def say_goodbye() -> None:
        if said.acquire(blocking=False):
            goodbye()

    def end() -> None:
        say_goodbye()
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
            # Not stopped again: after the drain it also bounds whatever the interpreter waits for.
            watchdog = threading.Timer(DRAIN_SECONDS, end)
            watchdog.daemon = True
            watchdog.start()

        previous = signal.signal(signal.SIGINT, interrupt)
        try:
            return await task
        except asyncio.CancelledError:
            if interrupts:
                say_goodbye()
                raise KeyboardInterrupt from None
            raise
        finally:
            if not interrupts:
                signal.signal(signal.SIGINT, previous)

    return asyncio.run(main())
