"""The call that a tool serves, for tools that need to know it.

A tool that charges a card or sends a mail needs the idempotency key of its call. A long sync tool
needs to learn that its call was cancelled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from llmcompiler.errors import UsageError


class Cancellation:
    """A flag that threads can wait for, like ``threading.Event``, but cheaper to make.

    Few tools wait for the flag, so the event is made at the first wait.
    """

    __slots__ = ("_event", "_set")

    def __init__(self) -> None:
        self._set = False
        self._event: threading.Event | None = None

    def is_set(self) -> bool:
        """True once the flag was set; it is never cleared."""
        return self._set

    def set(self) -> None:
        """Set the flag and wake the threads that wait for it."""
        self._set = True
        if self._event is not None:
            self._event.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the flag is set, at most ``timeout`` seconds; returns whether it is set."""
        with _FIRST_USE:
            if self._event is None:
                self._event = threading.Event()
        # Read after the event was made, so that a ``set`` in between is not missed.
        return self._set or self._event.wait(timeout)


_FIRST_USE = threading.Lock()


@dataclass(slots=True)
class CallContext:
    """One call of a tool in a run.

    Attributes:
        run: the run's id.
        task: the task's id.
        index: position in a fan-out; empty for an ordinary call.
        key: idempotency key ``run/task/map-index``: the same in every attempt at this call, also
            after a crash, and different for any other call.
        attempt: 1 for the first try.
        on_progress: called with the arguments of ``report``; ``None`` if nobody listens.
    """

    run: str
    task: int
    index: tuple[int, ...]
    key: str
    attempt: int = 1
    on_progress: Callable[[float, float | None, str], None] | None = field(
        default=None, compare=False
    )
    _cancelled: Cancellation | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def cancelled(self) -> Cancellation:
        """The flag that is set once nobody waits for the result.

        A long sync tool checks the flag now and then, because a thread cannot be stopped from
        outside.
        """
        if self._cancelled is None:
            with _FIRST_USE:  # a thread may read the flag while the event loop sets it
                if self._cancelled is None:
                    self._cancelled = Cancellation()
        return self._cancelled

    def report(self, done: float, total: float | None = None, message: str = "") -> None:
        """Report progress, which views show. Any thread may call it, as often as it likes.

        Args:
            done: the amount of work done; it grows.
            total: the amount of work in all, in the same unit; ``None`` if it is not known.
            message: the present activity, for people.
        """
        on_progress = self.on_progress  # the event loop may remove it while a thread runs
        if on_progress is not None:
            on_progress(done, total, message)


_CURRENT: ContextVar[CallContext] = ContextVar("llmcompiler_call")


def current_call() -> CallContext:
    """The call that the running tool serves.

    Raises:
        UsageError: the tool's function was called outside a run.
    """
    try:
        return _CURRENT.get()
    except LookupError:
        raise UsageError(
            "current_call() was asked outside a run",
            hint="call it inside a tool, or set a call with `with call_context(...)` in a test",
        ) from None


def set_current_call(call: CallContext) -> None:
    """Make ``current_call`` return ``call`` from now on.

    For an asyncio task or a thread that serves this one call: its context ends with the call.
    """
    _CURRENT.set(call)


@contextmanager
def call_context(call: CallContext) -> Iterator[CallContext]:
    """Make ``current_call`` return ``call`` inside the block."""
    token = _CURRENT.set(call)
    try:
        yield call
    finally:
        _CURRENT.reset(token)
