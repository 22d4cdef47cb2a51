"""``native:``, a model whose weights are in this process, with attention shared between calls.

The first use loads the weights, which all models of the process with the same location share.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import threading
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from llmcompiler.language.lazy_grammar import grammar_text
from llmcompiler.llm.base import Completion, Request, complete
from llmcompiler.llm.embedded import physical_cores
from llmcompiler.llm.emulated_functions import completion_from_json, request_as_json
from llmcompiler.llm.native.location import ModelLocation, require_native
from llmcompiler.model_options import SMALL_MODEL_OPTIONS, ModelOptions

if TYPE_CHECKING:
    from llmcompiler.llm.native.engine import NativeEngine


class NativeModel:
    """A model of transformers in this process (a ``ChatModel``).

    Args:
        location: where the weights are.
        name: the model's name in logs.
        options: the bounds of answers and the temperature; the other options are for endpoints.

    Raises:
        UsageError: torch or transformers is not installed; on first use, the model is of a kind
            that is not supported.
        ModelError: the weights cannot be loaded (on first use).
    """

    def __init__(
        self,
        location: ModelLocation,
        *,
        name: str,
        options: ModelOptions = SMALL_MODEL_OPTIONS,
    ) -> None:
        require_native()
        self.name = name
        self.options = options
        self._location = location
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
        from llmcompiler.llm.native.engine import NativeCall

        temperature = request.temperature or self.options.temperature or 0.0
        bound = request.max_tokens or self.options.bound(request.purpose)
        grammar = request.grammar
        if grammar is not None:
            grammar = await asyncio.to_thread(grammar_text, grammar)
        request = dataclasses.replace(
            request, max_tokens=bound, temperature=temperature, grammar=grammar
        )
        engine = (await self._ensure_started()).engine
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[str | Completion | BaseException] = asyncio.Queue()

        def deliver(item: str | Completion | BaseException) -> None:
            # A closed loop raises RuntimeError, and has no reader any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(items.put_nowait, item)

        call = NativeCall(request, deliver, request.seat)
        engine.submit(call)
        try:
            while True:
                if items.empty():
                    engine.set_reader_ready(call)
                item = await items.get()
                if isinstance(item, BaseException):
                    raise item
                if isinstance(item, Completion):
                    item = dataclasses.replace(item, bound=bound)
                yield item
                if isinstance(item, Completion):
                    return
        finally:
            engine.leave(call)

    async def capabilities(self) -> frozenset[str]:
        """What the engine can do; see ``reasoning.Capability``."""
        abilities = {"continuation", "grammar", "logprobs", "shared_attention"}
        if (await self._ensure_started()).has_thoughts:
            abilities.add("thought_tokens")
        return frozenset(abilities)

    async def start(self) -> None:
        """Load the weights now instead of with the first request."""
        await self._ensure_started()

    async def aclose(self) -> None:
        """Free the weights unless another model of this process uses them."""
        with self._lock:
            engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(_release, engine)

    async def _ensure_started(self) -> _SharedEngine:
        if self._engine is None:
            await asyncio.to_thread(self._start)
        assert self._engine is not None
        return self._engine

    def _start(self) -> None:
        with self._lock:
            if self._engine is None:
                self._engine = _acquire(self._location, self.name)


class _SharedEngine:
    """A loaded model, its thread, and the number of models that use it."""

    def __init__(self, location: ModelLocation) -> None:
        self.location = location
        self.users = 0
        self.has_thoughts = False
        self._starting = threading.Lock()
        self._engine: NativeEngine | None = None

    @property
    def engine(self) -> NativeEngine:
        """The engine; ``start`` must have been called."""
        assert self._engine is not None
        return self._engine

    def start(self, name: str) -> None:
        with self._starting:
            if self._engine is None:
                from llmcompiler.llm.native.chat import ChatTokenizer
                from llmcompiler.llm.native.engine import NativeEngine
                from llmcompiler.llm.native.loading import load

                # torch by itself would count hyperthreads too; the user's variable comes first.
                threads = None if "OMP_NUM_THREADS" in os.environ else physical_cores()
                loaded = load(self.location)
                self.has_thoughts = loaded.has_thoughts
                self._engine = NativeEngine(ChatTokenizer(loaded), name, threads)

    def stop(self) -> None:
        with self._starting:
            if self._engine is not None:
                self._engine.stop()
                self._engine = None


_engines: dict[ModelLocation, _SharedEngine] = {}
_engines_lock = threading.Lock()


def _acquire(location: ModelLocation, name: str) -> _SharedEngine:
    with _engines_lock:
        engine = _engines.setdefault(location, _SharedEngine(location))
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
        _engines.pop(engine.location, None)
    engine.stop()
