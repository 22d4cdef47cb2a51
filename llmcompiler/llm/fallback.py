"""A model that another stands in for. The module must not know any endpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import cast

from llmcompiler.errors import ModelError
from llmcompiler.llm.base import ChatModel, Completion, Pieces, Request


class FallbackModel:
    """Asks the next model where the one before failed without having answered anything.

    A failure after the first piece goes to the caller: two halves of different answers are none.
    The ``Completion`` names the model that answered.

    Args:
        models: in the order in which they are asked; at least one. They belong to this one now.
    """

    def __init__(self, models: Sequence[ChatModel]) -> None:
        self._models = tuple(models)
        self.name = " or ".join(model.name for model in self._models)

    async def stream(self, request: Request) -> AsyncIterator[str | Completion]:
        """As ``ChatModel.stream``; raises what the last model raised."""
        for number, model in enumerate(self._models, 1):
            answered = False
            try:
                async with aclosing(cast(Pieces, model.stream(request))) as pieces:
                    async for piece in pieces:
                        answered = True
                        yield piece
                return
            except ModelError:
                if answered or number == len(self._models):
                    raise

    async def aclose(self) -> None:
        """Close all of them."""
        for model in self._models:
            await model.aclose()
