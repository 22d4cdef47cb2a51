"""One request for several samples of a prompt (``n``), each read as if it were a call of its own.

An endpoint that takes ``n`` reads the prompt once and bills it once. Whoever reads the samples
wants single calls: each with its pieces, its end and its tokens, each left when it is not wanted
any more. The module must not know endpoints, nor who reads.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol, cast

from llmcompiler.errors import ModelError
from llmcompiler.llm.base import ChatModel, Completion, Pieces, Request, Usage

Samples = AsyncGenerator[tuple[int, str | Completion], None]
"""Pieces of several samples, each with the sample's number from 0; last of all the completions."""


class SamplingModel(Protocol):
    """A ``ChatModel`` that takes ``n``: its capabilities say so."""

    def samples(self, request: Request) -> Samples:
        """As ``ChatModel.stream``, for a request whose ``extra`` asks for ``n`` samples."""
        ...


def count(request: Request) -> int:
    """How many samples a request is for."""
    return int(request.extra.get("n", 1))


def split_usage(usage: Usage, decoded: Sequence[int]) -> list[Usage]:
    """What each sample's part of a request's tokens is; together they are exactly that.

    Args:
        usage: of the request. Its prompt was read once, and so is the first sample's.
        decoded: by which the decoded tokens are shared out: tokens of each sample, or its pieces.
    """
    whole = sum(decoded) or 1
    shares, given, before = [], 0, 0
    for number, own in enumerate(decoded):
        before += own
        upto = round(usage.completion_tokens * before / whole)
        prompt = (usage.prompt_tokens, usage.cached_tokens) if number == 0 else (0, 0)
        shares.append(Usage(*prompt, upto - given, 1))
        given = upto
    return shares


class SharedRequest:
    """A request whose samples are read one by one.

    Args:
        model: a ``SamplingModel``.
        request: what is asked; its ``extra`` holds ``n``.

    Attributes:
        alone: whether each sample that is read is asked for by itself. So it is where some of them
            are known already: then no request for all of them is made.
    """

    def __init__(self, model: ChatModel, request: Request) -> None:
        self.alone = False
        self.model = model
        self._request = request
        self._waiting: list[asyncio.Queue[str | Completion | BaseException]] = [
            asyncio.Queue() for _ in range(count(request))
        ]
        self._readers = 0
        self._pump: asyncio.Task[None] | None = None

    def sample(self, number: int) -> ChatModel:
        """A model whose only answer is this sample."""
        return _Sample(self, number)

    async def read(self, number: int) -> Pieces:
        """One sample's pieces, then its ``Completion``; the last reader to leave ends the rest."""
        if self.alone:
            async with aclosing(cast(Pieces, self.model.stream(self._single(number)))) as pieces:
                async for piece in pieces:
                    yield piece
            return
        pump = self._pump = self._pump or asyncio.get_running_loop().create_task(self._ask())
        self._readers += 1
        try:
            while True:
                came = await self._waiting[number].get()
                if isinstance(came, BaseException):
                    raise came
                yield came
                if isinstance(came, Completion):
                    return
        finally:
            self._readers -= 1
            if not self._readers:
                pump.cancel()
                await asyncio.wait((pump,))

    def _single(self, number: int) -> Request:
        """The same for one sample, with a seed that no other of them has."""
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
                    if number < len(self._waiting):
                        self._waiting[number].put_nowait(piece)
                    if isinstance(piece, Completion):
                        ended.add(number)
        except Exception as failed:  # noqa: BLE001 - every reader is told, and raises it
            error = failed
        for number, waiting in enumerate(self._waiting):
            if number not in ended:
                given = f"gave {len(ended)} of {len(self._waiting)} samples"
                waiting.put_nowait(error or ModelError(f"{self.model.name} {given}"))


class _Sample:
    """One sample of a shared request (a ``ChatModel``)."""

    def __init__(self, shared: SharedRequest, number: int) -> None:
        self.name = shared.model.name
        self._shared = shared
        self._number = number

    def stream(self, _: Request) -> Pieces:
        """The sample; what is asked was said when the request was made."""
        return self._shared.read(self._number)

    async def aclose(self) -> None:
        """The model is its owner's."""
