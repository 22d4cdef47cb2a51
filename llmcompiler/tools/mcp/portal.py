"""An event loop in a thread of its own, for connections to servers.

A connection outlives the event loops of its users: tools are loaded before any event loop runs, and
each ``run_sync`` has a loop of its own. The thread runs while it has users.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Portal:
    """An event loop that starts with its first user and ends with its last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Start the loop, unless it runs. It goes on until each user has called ``release``."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._loop = asyncio.new_event_loop()
                # A daemon: the program can end although a connection was not closed.
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="llmcompiler-mcp", daemon=True
                )
                self._thread.start()

    def release(self) -> None:
        """Stop the loop, if this was its last user."""
        with self._lock:
            self._users -= 1
            if self._users or self._loop is None or self._thread is None:
                return
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run ``work`` on the loop, in a copy of the caller's context.

        To cancel the future cancels ``work``.
        """
        assert self._loop is not None, "the loop has no users"
        return asyncio.run_coroutine_threadsafe(work, self._loop)


PORTAL = Portal()
"""One thread is enough for all servers, because they nearly always wait for answers."""
