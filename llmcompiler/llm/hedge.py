"""Two requests where one is slow, and the first answer counts.

After Dean and Barroso, "The Tail at Scale" (2013). The module must not know any endpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

from llmcompiler.llm.base import ChatModel, Completion, Pieces, Request


class HedgedModel:
    """Asks once more where the first piece of an answer does not come in time.

    Whichever request sends its first piece first is read to its end, and the other is cancelled.
    The tokens of a cancelled request are not counted, as no endpoint tells them: choose ``after``
    so that few requests are made twice, near the 95th percentile of what a first piece takes.

    Args:
        model: asked first.
        after: seconds without a piece after which the second request is made.
        other: asked the second time; ``None`` for ``model`` itself. Both belong to this one now.
    """

    def __init__(self, model: ChatModel, after: float, other: ChatModel | None = None) -> None:
        self._model = model
        self._after = after
        self._other = other or model
        self.name = model.name

    async def stream(self, request: Request) -> AsyncIterator[str | Completion]:
        """As ``ChatModel.stream``; raises what the first request raised if both fail."""
        streams: dict[asyncio.Task[str | Completion], Pieces] = {}

        def ask(model: ChatModel) -> None:
            pieces = cast(Pieces, model.stream(request))
            streams[asyncio.ensure_future(_first(pieces))] = pieces

        ask(self._model)
        try:
            done, _ = await asyncio.wait(streams, timeout=self._after)
            if not done:
                ask(self._other)
            winner = await _first_to_answer(list(streams))
            for first in streams:
                if first is not winner:
                    await _abandon(first, streams[first])
            yield winner.result()
            async for piece in streams[winner]:
                yield piece
        finally:
            for first, pieces in streams.items():
                await _abandon(first, pieces)

    async def aclose(self) -> None:
        """Close both."""
        await self._model.aclose()
        await self._other.aclose()


async def _first(pieces: Pieces) -> str | Completion:
    return await anext(pieces)


async def _first_to_answer(
    asked: list[asyncio.Task[str | Completion]],
) -> asyncio.Task[str | Completion]:
    waiting = set(asked)
    while waiting:
        _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for first in asked:
            if first.done() and first.exception() is None:
                return first
    error = asked[0].exception()
    assert error is not None
    raise error


async def _abandon(first: asyncio.Task[str | Completion], pieces: Pieces) -> None:
    first.cancel()
    await asyncio.wait([first])
    if not first.cancelled():
        first.exception()  # its failure was looked at, or no longer matters
    await pieces.aclose()
