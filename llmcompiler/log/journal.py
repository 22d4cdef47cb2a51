"""The journal of a run: it stores each event in the log, and then calls the listeners.

A listener sees only events that a crash cannot take back. The events of one turn of the event loop
are one commit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from llmcompiler.events import Event
from llmcompiler.log.store import RunLog

Listener: TypeAlias = Callable[[Event], None]


class Journal:
    """Collects events, stores them, and passes them on.

    Args:
        clock: seconds on the event loop's clock.
        log: where events are stored; ``None`` to store none.
        listeners: called with each event, in order, after it was stored. An exception in a listener
            is a bug and ends the run: to ignore it would lose events.
        elapsed: seconds for which a resumed run has run before.
        is_recorded: returns True for an event that the log has already, so that a run which is
            derived again records only new events.

    Attributes:
        enabled: True if the journal has a log or listeners; otherwise events need not be made.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        log: RunLog | None,
        listeners: tuple[Listener, ...] = (),
        *,
        elapsed: float = 0.0,
        is_recorded: Callable[[Event], bool] | None = None,
    ) -> None:
        self._clock = clock
        self._start = clock() - elapsed
        self._is_recorded = is_recorded
        self._log = log
        self._listeners = listeners
        self.enabled = log is not None or bool(listeners) or is_recorded is not None
        self._pending: list[Event] = []

    def now(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._start

    def emit(self, kind: Callable[..., Event], /, *values: Any, **fields: Any) -> None:
        """Make an event and collect it; the next ``flush`` stores it."""
        if not self.enabled:
            return
        event = kind(self._clock() - self._start, *values, **fields)
        if self._is_recorded is None or not self._is_recorded(event):
            self._pending.append(event)

    def flush(self) -> None:
        """Store the collected events, then pass them to the listeners.

        Raises:
            LogError: the log could not be written.
        """
        while self._pending:
            batch, self._pending = self._pending, []
            if self._log is not None:
                self._log.append(batch)
            for listener in self._listeners:
                for event in batch:
                    listener(event)
