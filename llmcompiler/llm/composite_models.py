"""Models made of other models: one that stands in where another fails, one that hedges slow calls.

``HedgedModel`` follows Dean and Barroso, "The Tail at Scale" (2013).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import cast

from llmcompiler.errors import ModelError
from llmcompiler.llm.base import ChatModel, Completion, Pieces, Request


class FallbackModel:
    """Asks the next model where the one before failed without having answered anything.

    A failure after the first piece goes to the caller, because halves of two different answers
    make no answer. The ``Completion`` names the model that answered.

    Args:
        models: in the order in which they are asked; at least one. This model closes them.
    """

    def __init__(self, models: Sequence[ChatModel]) -> None:
        self._models = tuple(models)
        self.name = " or ".join(model.name for model in self._models)

    async def stream(self, request: Request) -> AsyncIterator[str | Completion]:
        """As ``ChatModel.stream``; raises what the last model raised."""
        for number, model in enumerate(self._models, 1):
            has_answered = False
            try:
                async with aclosing(cast(Pieces, model.stream(request))) as pieces:
                    async for piece in pieces:
                        has_answered = True
                        yield piece
                return
            except ModelError:
                if has_answered or number == len(self._models):
                    raise

    async def aclose(self) -> None:
        """Close all of the models."""
        for model in self._models:
            await model.aclose()


class HedgedModel:
    """Sends a second request where the first piece of an answer does not come in time.

    The request that sends its first piece first is read to its end, and the other is cancelled.
    The tokens of a cancelled request are not counted, because no endpoint reports them. Choose
    ``after`` near the 95th percentile of the time to a first piece, so that few requests are sent
    twice.

    Args:
        model: gets the first request.
        after: seconds without a piece after which the second request is sent.
        other: gets the second request; ``None`` for ``model`` itself. This model closes both.
    """

    def __init__(self, model: ChatModel, after: float, other: ChatModel | None = None) -> None:
        self._model = model
        self._after = after
        self._second_model = other or model
        self.name = model.name

    async def stream(self, request: Request) -> AsyncIterator[str | Completion]:
        """As ``ChatModel.stream``; raises what the first request raised if both fail."""
        streams: dict[asyncio.Task[str | Completion], Pieces] = {}

        def send(model: ChatModel) -> None:
            pieces = cast(Pieces, model.stream(request))
            streams[asyncio.ensure_future(_first_piece(pieces))] = pieces

        send(self._model)
        try:
            done, _ = await asyncio.wait(streams, timeout=self._after)
            if not done:
                send(self._second_model)
            winner = await _first_to_answer(list(streams))
            for first_piece in streams:
                if first_piece is not winner:
                    await _abandon(first_piece, streams[first_piece])
            yield winner.result()
            async for piece in streams[winner]:
                yield piece
        finally:
            for first_piece, pieces in streams.items():
                await _abandon(first_piece, pieces)

    async def aclose(self) -> None:
        """Close both models."""
        await self._model.aclose()
        await self._second_model.aclose()


async def _first_piece(pieces: Pieces) -> str | Completion:
    return await anext(pieces)


async def _first_to_answer(
    first_pieces: list[asyncio.Task[str | Completion]],
) -> asyncio.Task[str | Completion]:
    pending = set(first_pieces)
    while pending:
        _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for first_piece in first_pieces:
            if first_piece.done() and first_piece.exception() is None:
                return first_piece
    error = first_pieces[0].exception()
    assert error is not None
    raise error


async def _abandon(first_piece: asyncio.Task[str | Completion], pieces: Pieces) -> None:
    first_piece.cancel()
    await asyncio.wait([first_piece])
    if not first_piece.cancelled():
        # Without this look, asyncio logs an exception that nobody needs any more.
        first_piece.exception()
    await pieces.aclose()
