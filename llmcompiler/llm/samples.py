"""One request for several samples of a prompt (``n``), each sample read as a call of its own.

An endpoint that takes ``n`` reads the prompt once and bills it once. A reader of the samples wants
single calls: each with its own pieces, end and tokens, each left when it is no longer wanted.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol, TypeAlias, cast

from llmcompiler.errors import ModelError
from llmcompiler.llm.base import ChatModel, Completion, Pieces, Request, Usage

SampleStream: TypeAlias = AsyncGenerator[tuple[int, str | Completion], None]
"""Pieces of several samples, each with the sample's number from 0; the completions at the end."""


class SamplingModel(Protocol):
    """A ``ChatModel`` with the capability ``n``."""

    def samples(self, request: Request) -> SampleStream:
        """As ``ChatModel.stream``, for a request whose ``extra`` asks for ``n`` samples."""
        ...


def sample_count(request: Request) -> int:
    """How many samples a request is for."""
    return int(request.extra.get("n", 1))


def split_usage(usage: Usage, decoded: Sequence[int]) -> list[Usage]:
    """Split a request's tokens among its samples; the parts sum up to ``usage``.

    Args:
        usage: the request's tokens. The prompt was read once, and counts for the first sample.
        decoded: how to split the decoded tokens: each sample's tokens, or its number of pieces.
    """
    total = sum(decoded) or 1
    shares, assigned, decoded_upto = [], 0, 0
    for number, sample_decoded in enumerate(decoded):
        decoded_upto += sample_decoded
        tokens_upto = round(usage.completion_tokens * decoded_upto / total)
        prompt = (usage.prompt_tokens, usage.cached_tokens) if number == 0 else (0, 0)
        shares.append(Usage(*prompt, tokens_upto - assigned, 1))
        assigned = tokens_upto
    return shares


class SharedRequest:
    """A request whose samples are read one by one.

    Args:
        model: a ``SamplingModel``.
        request: the request; its ``extra`` holds ``n``.

    Attributes:
        separate_requests: True to send one request for each sample that is read. Set where some
            samples are recorded already: a request for all samples would repeat them.
    """

    def __init__(self, model: ChatModel, request: Request) -> None:
        self.separate_requests = False
        self.model = model
        self._request = request
        self._queues: list[asyncio.Queue[str | Completion | BaseException]] = [
            asyncio.Queue() for _ in range(sample_count(request))
        ]
        self._readers = 0
        self._pump: asyncio.Task[None] | None = None

    def sample(self, number: int) -> ChatModel:
        """A model whose only answer is sample ``number``."""
        return _SampleModel(self, number)

    async def read(self, number: int) -> Pieces:
        """One sample's pieces, then its ``Completion``; the last reader to leave ends the rest."""
        if self.separate_requests:
            async with aclosing(cast(Pieces, self.model.stream(self._single(number)))) as pieces:
                async for piece in pieces:
                    yield piece
            return
        pump = self._pump = self._pump or asyncio.get_running_loop().create_task(self._ask())
        self._readers += 1
        try:
            while True:
                item = await self._queues[number].get()
                if isinstance(item, BaseException):
                    raise item
                yield item
                if isinstance(item, Completion):
                    return
        finally:
            self._readers -= 1
            if not self._readers:
                pump.cancel()
                await asyncio.wait((pump,))

    def _single(self, number: int) -> Request:
        """The request for one sample, with a seed that no other sample has."""
        seed = self._request.seed
        extra = {name: value for name, value in self._request.extra.items() if name != "n"}
        return dataclasses.replace(
            self._request, extra=extra, seed=None if seed is None else seed + number
        )

    async def _ask(self) -> None:
        ended: set[int] = set()
        error: BaseException | None = None
        try:
            async with aclosing(cast(SamplingModel, self.model).samples(self._request)) as pieces:
                async for number, piece in pieces:
                    if number < len(self._queues):
                        self._queues[number].put_nowait(piece)
                    if isinstance(piece, Completion):
                        ended.add(number)
        except Exception as failure:  # noqa: BLE001 - every reader gets the error and raises it
            error = failure
        for number, queue in enumerate(self._queues):
            if number not in ended:
                lack = f"gave {len(ended)} of {len(self._queues)} samples"
                queue.put_nowait(error or ModelError(f"{self.model.name} {lack}"))


class _SampleModel:
    """One sample of a shared request, as a ``ChatModel``."""

    def __init__(self, shared: SharedRequest, number: int) -> None:
        self.name = shared.model.name
        self._shared = shared
        self._number = number

    def stream(self, _: Request) -> Pieces:
        """The sample; its request was fixed when the shared request was made."""
        return self._shared.read(self._number)

    async def aclose(self) -> None:
        """Do nothing: the owner of the shared request's model closes the model."""
