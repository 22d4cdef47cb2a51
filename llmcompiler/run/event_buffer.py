"""A bounded queue of events for one consumer: a slow consumer does not hold up the run.

Waiting text of one model call is joined to one piece. At most ``CHARACTERS`` of text wait. Beyond
that, the oldest text is dropped, and a mark stands in its place. Other events are never dropped.
The log has everything.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque

from llmcompiler.events import Event, ModelFailed, ModelFinished, ModelText

CHARACTERS = 1_000_000
"""The most characters of text that wait."""

GAP = " [...] "
"""The mark in place of text that was dropped."""


class EventBuffer:
    """Takes events without ever waiting, and gives them in order.

    Args:
        characters: the most characters of text that wait.
    """

    def __init__(self, characters: int = CHARACTERS) -> None:
        self._max_characters = characters
        self._waiting: deque[Event] = deque()
        # Of each call the number of its waiting text, counted from the first event ever.
        self._texts: dict[str, int] = {}
        self._first = 0
        """Number of the first waiting event."""
        self._size = 0
        """Characters of all waiting text."""
        self._arrived = asyncio.Event()

    def put(self, event: Event) -> None:
        """Take an event in."""
        if isinstance(event, ModelText):
            self._put_text(event)
        else:
            if isinstance(event, ModelFinished | ModelFailed):
                self._texts.pop(event.call, None)
            self._waiting.append(event)
        self._arrived.set()

    def take(self) -> Event | None:
        """The next event; ``None`` if none waits."""
        if not self._waiting:
            self._arrived.clear()
            return None
        event = self._waiting.popleft()
        self._first += 1
        if isinstance(event, ModelText):
            self._size -= len(event.text)
            if self._texts.get(event.call, -1) < self._first:
                self._texts.pop(event.call, None)
        return event

    async def arrived(self) -> None:
        """Wait until there is an event to take."""
        await self._arrived.wait()

    def _put_text(self, event: ModelText) -> None:
        number = self._texts.get(event.call)
        self._size += len(event.text)
        if number is None:
            self._texts[event.call] = self._first + len(self._waiting)
            self._waiting.append(event)
        else:
            earlier = self._waiting[number - self._first]
            assert isinstance(earlier, ModelText)
            joined = dataclasses.replace(earlier, text=earlier.text + event.text)
            self._waiting[number - self._first] = joined
        if self._size > self._max_characters:
            self._drop_text()

    def _drop_text(self) -> None:
        """Drop text, the oldest first, until half of what may wait is left."""
        for position, event in enumerate(self._waiting):
            if self._size <= self._max_characters // 2:
                return
            if isinstance(event, ModelText) and len(event.text) > len(GAP):
                self._waiting[position] = dataclasses.replace(event, text=GAP)
                self._size -= len(event.text) - len(GAP)
