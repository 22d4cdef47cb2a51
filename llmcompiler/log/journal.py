"""Where a run's events pass through: first into the log, then to whoever listens.

A listener sees nothing that a crash could still take back. Events of one turn of the event loop go
into one commit. The module must not know what the events mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from llmcompiler.events import Event
from llmcompiler.log.store import RunLog

Listener: TypeAlias = Callable[[Event], None]


class Journal:
    """Collects events, keeps them, hands them on.

    Args:
        clock: seconds on the event loop's clock.
        log: where the events are kept; ``None`` to keep none.
        listeners: called with each event, in order, after it was kept. One that raises ends the
            run: it is our own view or the caller's bug, and hiding it would lose events.
        elapsed: seconds of the run that lie behind it, for one that is resumed.
        is_recorded: says of an event whether the log holds it already, so that a run which is
            derived again notes only what is new.

    Attributes:
        enabled: whether there is anyone to tell; events for nobody need not be made.
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
        self._begun = clock() - elapsed
        self._is_recorded = is_recorded
        self._log = log
        self._listeners = listeners
        self.enabled = log is not None or bool(listeners) or is_recorded is not None
        self._pending: list[Event] = []

    def now(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._begun

    def emit(self, kind: Callable[..., Event], /, *values: Any, **fields: Any) -> None:
        """Note an event; it is kept at the next ``flush``."""
        if not self.enabled:
            return
        event = kind(self._clock() - self._begun, *values, **fields)
        if self._is_recorded is None or not self._is_recorded(event):
            self._pending.append(event)

    def flush(self) -> None:
        """Keep what was noted, then tell the listeners.

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
