"""``native:``, a model whose weights are in this process, with attention shared between calls.

A model is loaded on first use, and shared by all that name the same weights. The module must not
know runs or strategies.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from llmcompiler.llm.base import Completion, Request, complete
from llmcompiler.llm.embedded import physical_cores
from llmcompiler.llm.emulated_functions import completion_from_json, request_as_json
from llmcompiler.llm.native.source import Source, check_installed

if TYPE_CHECKING:
    from llmcompiler.llm.native.engine import Engine


class NativeModel:
    """A model of transformers in this process (a ``ChatModel``).

    Args:
        source: where it is.
        name: how it is called in logs.

    Raises:
        UsageError: torch or transformers is not installed; on first use, the model is of a kind
            that is refused.
        ModelError: the weights cannot be loaded (on first use).
    """

    def __init__(self, source: Source, *, name: str) -> None:
        check_installed()
        self.name = name
        self._source = source
        self._lock = threading.Lock()
        self._engine: _SharedEngine | None = None

    async def stream(self, request: Request) -> AsyncGenerator[str | Completion, None]:
        """Yield the answer's pieces, then one ``Completion`` (see ``ChatModel.stream``)."""
        if request.functions:
            answer = completion_from_json(await complete(self, request_as_json(request)))
            if answer.text:
                yield answer.text
            yield answer
            return
        from llmcompiler.llm.native.engine import Job

        engine = (await self._started()).engine
        loop = asyncio.get_running_loop()
        came: asyncio.Queue[str | Completion | BaseException] = asyncio.Queue()

        def deliver(item: str | Completion | BaseException) -> None:
            # A loop that has been closed has no reader left.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(came.put_nowait, item)

        job = Job(request, deliver, request.seat)
        engine.submit(job)
        try:
            while True:
                if came.empty():
                    engine.feed(job)
                item = await came.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
                if isinstance(item, Completion):
                    return
        finally:
            engine.leave(job)

    async def capabilities(self) -> frozenset[str]:
        """What the engine can do; see ``reasoning.Capability``."""
        found = {"continuation", "grammar", "logprobs", "shared_attention"}
        if (await self._started()).thoughts:
            found.add("thought_tokens")
        return frozenset(found)

    async def start(self) -> None:
        """Load the weights now instead of with the first request."""
        await self._started()

    async def aclose(self) -> None:
        """Free the weights unless another model of this process uses them."""
        with self._lock:
            engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(_release, engine)

    async def _started(self) -> _SharedEngine:
        if self._engine is None:
            await asyncio.to_thread(self._start)
        assert self._engine is not None
        return self._engine

    def _start(self) -> None:
        with self._lock:
            if self._engine is None:
                self._engine = _acquire(self._source, self.name)


class _SharedEngine:
    """A loaded model, its thread, and the number of models that use it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.users = 0
        self.thoughts = False
        self._starting = threading.Lock()
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """Its thread, which has been started."""
        assert self._engine is not None
        return self._engine

    def start(self, name: str) -> None:
        with self._starting:
            if self._engine is None:
                from llmcompiler.llm.native.chat import Chat
                from llmcompiler.llm.native.engine import Engine
                from llmcompiler.llm.native.loading import load

                # Whoever sets the variable has decided already; torch itself counts hyperthreads.
                threads = None if "OMP_NUM_THREADS" in os.environ else physical_cores()
                loaded = load(self.source)
                self.thoughts = loaded.thoughts
                self._engine = Engine(Chat(loaded), name, threads)

    def stop(self) -> None:
        with self._starting:
            if self._engine is not None:
                self._engine.stop()
                self._engine = None


_engines: dict[Source, _SharedEngine] = {}
_engines_lock = threading.Lock()


def _acquire(source: Source, name: str) -> _SharedEngine:
    with _engines_lock:
        engine = _engines.setdefault(source, _SharedEngine(source))
        engine.users += 1
    try:
        engine.start(name)
    except BaseException:
        _release(engine)
        raise
    return engine


def _release(engine: _SharedEngine) -> None:
    with _engines_lock:
        engine.users -= 1
        if engine.users:
            return
        _engines.pop(engine.source, None)
    engine.stop()
