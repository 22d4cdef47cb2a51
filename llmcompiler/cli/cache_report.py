"""``--cache-explain``: one line about what the cache did for each call of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from llmcompiler.events import CacheMissed, Event, TaskFinished, TaskStarted
from llmcompiler.history.decisions import call_text


class CacheReport:
    """Collects the outcomes of cache look-ups."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._started = 0

    def observe(self, view: Callable[[Event], None]) -> Callable[[Event], None]:
        """A listener that passes every event to ``view`` and records those of the cache."""

        def listener(event: Event) -> None:
            view(event)
            self._record(event)

        return listener

    def _record(self, event: Event) -> None:
        match event:
            case TaskStarted():
                self._started += 1
            case CacheMissed():
                self._lines.append(f"{call_text(event.task, event.index)} was called: {event.why}")
            case TaskFinished(cached=True):
                self._lines.append(f"{call_text(event.task, event.index)} was served")

    def lines(self) -> Iterator[str]:
        """One line per call, or one line that says why there are none."""
        yield from self._lines
        if self._started and not self._lines:
            yield "no tool that was called is made with @tool(cache=SECONDS)"
