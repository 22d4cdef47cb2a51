"""The recorded order of a branch's calls, and its replay.

A strategy decides by what came first: which of several calls ended, and what the others had
written by then. So a branch that is replayed gets each recorded piece and end only after everything
that stands before it in the log has happened again, including calls that the strategy starts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from llmcompiler.errors import LogError

StepKind: TypeAlias = Literal["start", "text", "end", "stop"]

PATIENCE_S = 300.0
"""Seconds that a replayed branch may take between two recorded steps: it may run tests."""

_TURNS_AFTER_END = 20
"""Turns of the event loop that a strategy gets to act on the end of a call before the next step."""


class BranchStep(NamedTuple):
    """One thing that happened in a branch.

    Attributes:
        kind: a call was started, wrote a piece, or ended; or the budget stopped the branch.
        name: the call's id; of a stop, the limit's name.
    """

    kind: StepKind
    name: str


class BranchReplay:
    """Hands out the recorded steps of a branch in their order.

    Args:
        steps: in the order of the log; none for a branch that runs for the first time.

    Attributes:
        on_stop: called with the limit's name when the replay comes to a stop.
    """

    def __init__(self, steps: Sequence[BranchStep]) -> None:
        self.on_stop: Callable[[str], Any] = lambda _: None
        self._steps = list(steps)
        self._unclaimed_counts = Counter(steps)
        self._position = 0
        self._waiting_steps: dict[BranchStep, asyncio.Future[None]] = {}
        self._waiting_for_end: list[asyncio.Future[None]] = []
        self._dropped_calls: set[str] = set()
        self._is_settling = False

    @property
    def is_over(self) -> bool:
        """True if every recorded step has happened again."""
        return self._position >= len(self._steps)

    def note_start(self, call: str) -> None:
        """A call was started again."""
        step = BranchStep("start", call)
        if self._unclaimed_counts[step]:
            # Calls that are started together may come in another order than the recorded one.
            self._unclaimed_counts[step] -= 1
            del self._steps[self._steps.index(step, self._position)]
        self._advance()

    async def wait_turn(self, kind: StepKind, call: str) -> None:
        """Wait until this call's next piece or end is the next step; not if none is recorded.

        Raises:
            LogError: the step never comes: the strategy does something else than was recorded.
        """
        step = BranchStep(kind, call)
        if not self._unclaimed_counts[step]:
            return
        self._unclaimed_counts[step] -= 1
        waiter = self._waiting_steps[step] = asyncio.get_running_loop().create_future()
        self._advance()
        await _wait_patiently(waiter)

    async def wait_end(self) -> None:
        """Wait until every recorded step has happened again.

        Raises:
            LogError: that never comes.
        """
        if not self.is_over:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting_for_end.append(waiter)
            await _wait_patiently(waiter)

    async def wait_forever(self) -> None:
        """Wait to be cancelled: the recorded call was cut here, so the strategy cuts it again.

        Raises:
            LogError: the strategy does not cut the call.
        """
        await _wait_patiently(asyncio.get_running_loop().create_future())

    def drop(self, call: str) -> None:
        """Pass over the recorded pieces and end of a call: the strategy has cut it."""
        self._dropped_calls.add(call)
        self._advance()

    def run_next_stop(self) -> None:
        """Stop the branch now if a stop is the next step; called when a step was processed."""
        while not self.is_over and self._steps[self._position].kind == "stop":
            limit = self._steps[self._position].name
            self._position += 1
            self.on_stop(limit)

    def _advance(self) -> None:
        if self._is_settling:
            return
        while not self.is_over:
            step = self._steps[self._position]
            if step.kind == "stop":
                self._position += 1
                self.on_stop(step.name)
            elif step.kind != "start" and step.name in self._dropped_calls:
                self._position += 1
            elif (waiter := self._waiting_steps.pop(step, None)) is not None:
                self._position += 1
                if not waiter.done():
                    waiter.set_result(None)
                self._settle(_TURNS_AFTER_END if step.kind == "end" else 1)
                return
            else:
                return
        for waiter in self._waiting_for_end:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting_for_end.clear()

    def _settle(self, turns: int) -> None:
        """Let the strategy act for some turns of the loop, then go on to the next step."""
        self._is_settling = turns > 0
        if turns > 0:
            asyncio.get_running_loop().call_soon(self._settle, turns - 1)
        else:
            self._advance()


async def _wait_patiently(waiter: asyncio.Future[None]) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            await waiter
    except TimeoutError:
        raise LogError(
            "a reasoning branch, derived again, does something else than the log holds",
            hint="the strategy is not what it was, or it decides by a clock or chance of its own",
        ) from None
