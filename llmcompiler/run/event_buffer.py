"""Events on their way to one consumer: bounded, so that who is slow stalls nobody.

Runs do not wait for those who watch them. What a consumer has not taken yet is kept here: text of
one model call that waits anyway is joined to one piece, and of all text that waits no more than
``CHARACTERS`` are kept, the oldest being dropped first and the gap told. Events other than text are
never dropped, and the log has everything. The module must not know who consumes.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque

from llmcompiler.events import Event, ModelFailed, ModelFinished, ModelText

CHARACTERS = 1_000_000
"""Characters of text that wait at most."""

GAP = " [...] "
"""Stands where text was dropped, because its reader was too slow; the log has it."""


class EventBuffer:
    """Takes events without ever waiting, and gives them in order.

    Args:
        characters: of text that waits at most.
    """

    def __init__(self, characters: int = CHARACTERS) -> None:
        self._most = characters
        self._waiting: deque[Event | None] = deque()
        # Of each call the text that waits: its place, counted from the first event ever.
        self._texts: dict[str, int] = {}
        self._first = 0
        self._size = 0
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
        while self._waiting:
            event = self._waiting.popleft()
            self._first += 1
            if isinstance(event, ModelText):
                self._size -= len(event.text)
                if self._texts.get(event.call, -1) < self._first:
                    self._texts.pop(event.call, None)
            if event is not None:
                return event
        self._arrived.clear()
        return None

    async def arrived(self) -> None:
        """Wait until an event waits."""
        await self._arrived.wait()

    def _put_text(self, event: ModelText) -> None:
        place = self._texts.get(event.call)
        self._size += len(event.text)
        if place is None:
            self._texts[event.call] = self._first + len(self._waiting)
            self._waiting.append(event)
        else:
            known = self._waiting[place - self._first]
            assert isinstance(known, ModelText)
            joined = dataclasses.replace(known, text=known.text + event.text)
            self._waiting[place - self._first] = joined
        if self._size > self._most:
            self._drop()

    def _drop(self) -> None:
        """Drop text, the oldest first, until half of what may wait is left."""
        for place, event in enumerate(self._waiting):
            if self._size <= self._most // 2:
                return
            if isinstance(event, ModelText) and len(event.text) > len(GAP):
                kept = dataclasses.replace(event, text=GAP)
                self._size -= len(event.text) - len(GAP)
                self._waiting[place] = kept
