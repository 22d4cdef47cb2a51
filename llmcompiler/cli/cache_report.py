"""``--cache-explain``: what the cache did for each call of a run, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from llmcompiler.events import CacheMissed, Event, TaskFinished, TaskStarted
from llmcompiler.history.decisions import call_text


class CacheReport:
    """Collects what became of the calls that could have been served."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._started = 0

    def beside(self, view: Callable[[Event], None]) -> Callable[[Event], None]:
        """A listener that tells ``view`` everything, and takes note of the cache."""

        def listener(event: Event) -> None:
            view(event)
            self._note(event)

        return listener

    def _note(self, event: Event) -> None:
        match event:
            case TaskStarted():
                self._started += 1
            case CacheMissed():
                self._said.append(f"{call_text(event.task, event.index)} was called: {event.why}")
            case TaskFinished(cached=True):
                self._said.append(f"{call_text(event.task, event.index)} was served")

    def lines(self) -> Iterator[str]:
        """A line a call; one about why there is none, where there is none."""
        yield from self._said
        if self._started and not self._said:
            yield "no tool that was called is made with @tool(cache=SECONDS)"
