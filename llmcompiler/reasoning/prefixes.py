"""Prompts with a common beginning: one call fills the endpoint's cache, and the others wait for it.

Used only for endpoints with the capability ``prefix_cache``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import cast

from llmcompiler.llm.base import ChatModel, Completion, Pieces, Request
from llmcompiler.reasoning.branch_call import LiveCall

MIN_SHARED_CHARS = 400
"""Shortest common beginning, in characters, for which waiting pays."""


class DeferredModel:
    """A model that sends its request only after another call's prompt is in the cache.

    Args:
        model: the model that is asked.
        until: set once the other call's prompt is in the cache.
    """

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
        """Do nothing; the model belongs to whoever opened it."""


def find_prefix_reader(prompt: str, earlier_calls: Iterable[LiveCall]) -> LiveCall | None:
    """Find a call whose prompt is not yet in the cache and shares a long beginning with ``prompt``.

    Args:
        prompt: the prompt of the next call.
        earlier_calls: the calls of the same model so far.

    Returns:
        The call to wait for; ``None`` if waiting saves fewer than ``MIN_SHARED_CHARS``.
    """
    earlier_calls = list(earlier_calls)
    read_lengths = (
        _common_prefix_length(prompt, call.prompt)
        for call in earlier_calls
        if call.prompt_read.is_set()
    )
    min_shared = max(read_lengths, default=0) + MIN_SHARED_CHARS
    unread_calls = (call for call in earlier_calls if not call.prompt_read.is_set())
    return next(
        (call for call in unread_calls if _common_prefix_length(prompt, call.prompt) >= min_shared),
        None,
    )


def _common_prefix_length(first: str, second: str) -> int:
    """Length of the common beginning of two texts, in characters."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[:middle] == second[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
