"""Prompts that begin alike: one call reads what they share, and the others find it in the cache.

For endpoints that keep prefixes. The module must not know strategies, nor what is logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import cast

from llmcompiler.llm.base import ChatModel, Completion, Pieces, Request
from llmcompiler.reasoning.branch_call import LiveCall

SHARED = 400
"""Characters of a common beginning from which on it pays to let one call read it first."""


class HeldModel:
    """A model that is asked once another call has been read, and its prompt is in the cache."""

    def __init__(self, model: ChatModel, until: asyncio.Event) -> None:
        self.name = model.name
        self._model = model
        self._until = until

    async def stream(self, request: Request) -> AsyncIterator[str | Completion]:
        """See ``ChatModel``."""
        await self._until.wait()
        async with aclosing(cast(Pieces, self._model.stream(request))) as pieces:
            async for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        """The model is its owner's."""


def reader_of(prompt: str, others: Iterable[LiveCall]) -> LiveCall | None:
    """The call that is about to read much of this prompt that none has read yet.

    Args:
        prompt: of a call that is to be made.
        others: the calls of the same model so far.
    """
    others = list(others)
    begun = (_common(prompt, one.prompt) for one in others if one.begun.is_set())
    least = max(begun, default=0) + SHARED
    reading = (one for one in others if not one.begun.is_set())
    return next((one for one in reading if _common(prompt, one.prompt) >= least), None)


def _common(one: str, other: str) -> int:
    """Characters that both begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
