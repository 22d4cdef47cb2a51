"""An event loop in a thread of its own, on which connections to servers live.

A connection outlives the event loops of its users: tools are loaded before there is any, and each
``run_sync`` has one of its own. The thread is there while somebody holds it. The module must not
know what runs on the loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Portal:
    """A loop that starts when the first one holds it, and ends when the last lets go."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def hold(self) -> None:
        """See that the loop runs until ``release``."""
        with self._lock:
            self._holders += 1
            if self._holders == 1:
                self._loop = asyncio.new_event_loop()
                # A daemon, so that what nobody closed cannot keep the program from ending.
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="llmcompiler-mcp", daemon=True
                )
                self._thread.start()

    def release(self) -> None:
        """Let go of the loop."""
        with self._lock:
            self._holders -= 1
            if self._holders or self._loop is None or self._thread is None:
                return
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run ``work`` on the loop, in a copy of the caller's context; cancelling reaches it."""
        assert self._loop is not None, "nobody holds the loop"
        return asyncio.run_coroutine_threadsafe(work, self._loop)


PORTAL = Portal()
"""One thread serves all servers: they wait for others nearly all of the time."""
