"""The order in which a branch's calls went on, as recorded: what a replay of a branch keeps to.

A strategy decides by what came first: which of several calls ended, what the others had written by
then. So a branch that is derived again is given the recorded pieces and ends one by one, each after
everything that the log has before it has happened, calls that the strategy started included. The
module must not know strategies, nor where the record comes from.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from llmcompiler.errors import LogError

Happening: TypeAlias = Literal["start", "text", "end", "stop"]

PATIENCE_S = 300.0
"""Seconds that a derived branch may take between two recorded steps: it may run tests meanwhile."""

_SETTLED = 20
"""Turns of the event loop that a strategy is given to act on an end before the next step."""


class Step(NamedTuple):
    """One thing that happened in a branch.

    Attributes:
        what: a call was started, wrote a piece, came to its end; or the budget stopped the branch.
        name: the call's id; of a stop, the limit's name.
    """

    what: Happening
    name: str


class Tape:
    """Hands out recorded steps in their order.

    Args:
        steps: as they were recorded.

    Attributes:
        on_stop: called with the limit's name when the tape comes to a stop.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.on_stop: Callable[[str], Any] = lambda _: None
        self._steps = list(steps)
        self._left = Counter(steps)
        self._at = 0
        self._waiting: dict[Step, asyncio.Future[None]] = {}
        self._over: list[asyncio.Future[None]] = []
        self._dropped: set[str] = set()
        self._settling = False

    @property
    def over(self) -> bool:
        """Whether everything recorded has happened again."""
        return self._at >= len(self._steps)

    def started(self, call: str) -> None:
        """A call was started again."""
        step = Step("start", call)
        if self._left[step]:
            # Calls that are started together may come in another order than they were recorded in.
            self._left[step] -= 1
            del self._steps[self._steps.index(step, self._at)]
        self._go_on()

    async def turn(self, what: Happening, call: str) -> None:
        """Wait until this call's next piece or end is what happens next, if it is recorded.

        Raises:
            LogError: it never comes, as the strategy did something else than was recorded.
        """
        step = Step(what, call)
        if not self._left[step]:
            return
        self._left[step] -= 1
        waiting = self._waiting[step] = asyncio.get_running_loop().create_future()
        self._go_on()
        await self._patiently(waiting)

    async def end(self) -> None:
        """Wait until everything recorded has happened again."""
        if not self.over:
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._over.append(waiting)
            await self._patiently(waiting)

    async def never(self) -> None:
        """Wait for a cut that was recorded and is still to come.

        Raises:
            LogError: it does not come.
        """
        await self._patiently(asyncio.get_running_loop().create_future())

    def drop(self, call: str) -> None:
        """What is recorded of this call will not be waited for: the strategy has cut it."""
        self._dropped.add(call)
        self._go_on()

    async def _patiently(self, waiting: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await waiting
        except TimeoutError:
            raise LogError(
                "a reasoning branch, derived again, does something else than the log holds",
                hint="the strategy is not what it was, or it decides by a clock or chance of its "
                "own",
            ) from None

    def _go_on(self) -> None:
        if self._settling:
            return
        while not self.over:
            step = self._steps[self._at]
            if step.what == "stop":
                self._at += 1
                self.on_stop(step.name)
            elif step.what != "start" and step.name in self._dropped:
                self._at += 1
            elif (waiting := self._waiting.pop(step, None)) is not None:
                self._at += 1
                if not waiting.done():
                    waiting.set_result(None)
                self._settle(_SETTLED if step.what == "end" else 1)
                return
            else:
                return
        for one in self._over:
            if not one.done():
                one.set_result(None)
        self._over.clear()

    def _settle(self, turns: int) -> None:
        """Give the strategy time to act before the next step, but none to a stop that belongs."""
        self._settling = turns > 0
        if turns > 0:
            asyncio.get_running_loop().call_soon(self._settle, turns - 1)
        else:
            self._go_on()

    def consumed(self) -> None:
        """A step was taken in; a stop recorded right behind it happens before anything else."""
        while not self.over and self._steps[self._at].what == "stop":
            name = self._steps[self._at].name
            self._at += 1
            self.on_stop(name)
