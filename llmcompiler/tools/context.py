"""What a tool may know about the call that it serves.

A tool that charges a card or sends a mail needs the idempotency key of its call, and a long sync
tool needs to hear that nobody waits for it any more. The module must not know how calls are run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from llmcompiler.errors import UsageError


class Cancellation:
    """A flag that threads can wait for, as ``threading.Event``; cheap where nobody does.

    Few tools wait for it, so the event is made by the first who does.
    """

    __slots__ = ("_event", "_set")

    def __init__(self) -> None:
        self._set = False
        self._event: threading.Event | None = None

    def is_set(self) -> bool:
        """Whether the flag is up; it never comes down again."""
        return self._set

    def set(self) -> None:
        """Put the flag up and wake who waits."""
        self._set = True
        if self._event is not None:
            self._event.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the flag is up, at most ``timeout`` seconds; says whether it is."""
        with _FIRST_USE:
            if self._event is None:
                self._event = threading.Event()
        # Looked at after the event is there, so that a ``set`` in between is not missed.
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
        told: what ``report`` hands its arguments to; ``None`` where nobody listens.
    """

    run: str
    task: int
    index: tuple[int, ...]
    key: str
    attempt: int = 1
    told: Callable[[float, float | None, str], None] | None = field(default=None, compare=False)
    _cancelled: Cancellation | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def cancelled(self) -> Cancellation:
        """Set once nobody waits for the result.

        A sync tool that takes long looks at it now and then, since a thread cannot be stopped from
        outside.
        """
        if self._cancelled is None:
            with _FIRST_USE:  # a thread asks while the event loop sets it
                if self._cancelled is None:
                    self._cancelled = Cancellation()
        return self._cancelled

    def report(self, done: float, total: float | None = None, message: str = "") -> None:
        """Say how far the call has come; views show it. From any thread, as often as one likes.

        Args:
            done: how much is done; it grows.
            total: how much there is to do, in the same unit; ``None`` where that is not known.
            message: what is being done, for people.
        """
        told = self.told  # which may be taken away meanwhile, if this is a thread
        if told is not None:
            told(done, total, message)


_CURRENT: ContextVar[CallContext] = ContextVar("llmcompiler_call")


def current_call() -> CallContext:
    """The call that is being served here.

    Raises:
        UsageError: the tool's function was called by hand, outside any run.
    """
    try:
        return _CURRENT.get()
    except LookupError:
        raise UsageError(
            "current_call() was asked outside a run",
            hint="call it inside a tool, or set a call with `with call_context(...)` in a test",
        ) from None


def serve(call: CallContext) -> None:
    """Make ``call`` the one that ``current_call`` gives from here on.

    For an asyncio task or thread that serves this one call: its context ends with it.
    """
    _CURRENT.set(call)


@contextmanager
def call_context(call: CallContext) -> Iterator[CallContext]:
    """Make ``call`` the one that ``current_call`` gives inside the block."""
    token = _CURRENT.set(call)
    try:
        yield call
    finally:
        _CURRENT.reset(token)
