"""The embedded model: llama.cpp's own server inside this process, on a loopback port.

``xllamacpp`` brings the server; ``EndpointModel`` talks to it, so that local and remote models
share one path. The first use starts a server, which all models of the process with the same weights
share. The server stops with the last of these models, at the latest when the interpreter exits.
"""

from __future__ import annotations

import asyncio
import atexit
import dataclasses
import os
import secrets
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

from llmcompiler.errors import ModelError, UsageError
from llmcompiler.extras import require_extra
from llmcompiler.llm.base import Completion, Request, complete
from llmcompiler.llm.emulated_functions import completion_from_json, request_as_json
from llmcompiler.llm.endpoint import EndpointModel
from llmcompiler.llm.limits import ModelLimits
from llmcompiler.llm.slot_files import SlotFiles
from llmcompiler.model_options import SMALL_MODEL_OPTIONS, ModelOptions

SLOTS = 4
CONTEXT_TOKENS = 16384
PROMPT_CACHE_MIB = 512
# Rounds of the loop in which a thread of OpenMP waits before it sleeps.
SPIN_COUNT = "2000"
WAIT_SETTINGS = frozenset({"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"})


def check_installed() -> None:
    """Check that embedded models can run here, before weights are downloaded or a run begins.

    Raises:
        UsageError: ``xllamacpp`` is not installed.
    """
    require_extra("local", "the embedded model", "name a model of an endpoint: openai:NAME")


class EmbeddedModel:
    """A model whose weights run in this process (a ``ChatModel``).

    Args:
        weights: a GGUF file.
        name: the model's name in logs; default ``local:`` and the file's stem.
        limits: as for an endpoint.
        options: bounds of answers and more; the default bounds those of a small model.

    Raises:
        UsageError: ``weights`` is no file, or ``xllamacpp`` is not installed (on first use).
        ModelError: the weights cannot be loaded (on first use).
    """

    def __init__(
        self,
        weights: Path,
        *,
        name: str | None = None,
        limits: ModelLimits | None = None,
        options: ModelOptions = SMALL_MODEL_OPTIONS,
    ) -> None:
        if not weights.is_file():
            raise UsageError(f"no weights at {weights}", hint="give the path of a .gguf file")
        self.name = name or f"local:{weights.stem}"
        self.options = options
        self._weights = weights.resolve()
        # More requests than slots would wait in the server, where waiting looks like a stall.
        limits = limits or ModelLimits()
        self._limits = dataclasses.replace(
            limits, concurrency=min(limits.concurrency or SLOTS, SLOTS)
        )
        self._lock = threading.Lock()
        self._server: _SharedServer | None = None
        self._endpoint: EndpointModel | None = None

    async def stream(self, request: Request) -> AsyncGenerator[str | Completion, None]:
        """Yield the answer's pieces, then one ``Completion`` (see ``ChatModel.stream``)."""
        endpoint = self._endpoint
        if endpoint is None:
            endpoint = await asyncio.to_thread(self._start)
        if request.functions:
            # Neither the chat templates nor the models are made for function calls.
            answer = completion_from_json(await complete(endpoint, request_as_json(request)))
            if answer.text:
                yield answer.text
            yield answer
            return
        async with aclosing(endpoint.stream(request)) as pieces:
            async for piece in pieces:
                yield piece

    async def capabilities(self) -> frozenset[str]:
        """What llama.cpp's server can do; see ``reasoning.Capability``."""
        return await (await asyncio.to_thread(self._start)).capabilities()

    async def start(self) -> None:
        """Load the weights now instead of with the first request."""
        await asyncio.to_thread(self._start)

    async def aclose(self) -> None:
        """Stop the server unless another model of this process uses it."""
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            await endpoint.aclose()
        await asyncio.to_thread(self._stop)

    def _start(self) -> EndpointModel:
        with self._lock:
            if self._server is None:
                self._server = _acquire(self._weights)
            if self._endpoint is None:
                self._endpoint = EndpointModel(
                    self._weights.stem,
                    base_url=f"{self._server.address}/v1",
                    api_key=self._server.key,
                    name=self.name,
                    limits=self._limits,
                    trust_env=False,
                    options=self.options,
                    constraint="grammar",
                    # No prefix_cache: each slot reads prompts for itself, so calls share nothing.
                    abilities=frozenset({"continuation", "grammar", "logprobs"}),
                )
            return self._endpoint

    def _stop(self) -> None:
        with self._lock:
            self._endpoint = None
            server, self._server = self._server, None
            if server is not None:
                _release(server)


class _SharedServer:
    """One llama.cpp server and the number of models that use it."""

    def __init__(self, weights: Path) -> None:
        self.weights = weights
        self.users = 0
        # Other accounts of the machine, and web pages, reach the loopback port too.
        self.key = secrets.token_urlsafe(24)
        self.address = ""
        self.starting = threading.Lock()
        self._server: Any = None
        self._slot_files: SlotFiles | None = None

    def start(self) -> None:
        with self.starting:
            if self._server is None:
                slot_files = SlotFiles(self.weights, f"{CONTEXT_TOKENS}/{SLOTS}", SLOTS)
                self._server = _serve(self.weights, self.key, slot_files.folder)
                self.address = self._server.listening_address
                slot_files.restore(self.address, self.key)
                self._slot_files = slot_files

    def stop(self) -> None:
        with self.starting:
            if self._server is not None and self._slot_files is not None:
                self._slot_files.save(self.address, self.key)
            # xllamacpp has no call to stop a server: the destructor ends the server's threads.
            self._server = None


_servers: dict[Path, _SharedServer] = {}
_servers_lock = threading.Lock()


def _acquire(weights: Path) -> _SharedServer:
    with _servers_lock:
        server = _servers.setdefault(weights, _SharedServer(weights))
        server.users += 1
    try:
        server.start()
    except BaseException:
        _release(server)
        raise
    return server


def _release(server: _SharedServer) -> None:
    with _servers_lock:
        server.users -= 1
        if server.users:
            return
        _servers.pop(server.weights, None)
    server.stop()


@atexit.register
def _stop_all() -> None:
    # The servers' threads must end before the library's own destructors run.
    while _servers:
        _servers.popitem()[1].stop()


def _serve(weights: Path, key: str, slot_files: Path) -> Any:
    check_installed()
    with short_waits():
        import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.model_alias = {weights.stem}
    params.api_keys = [key]
    params.verbosity = -1
    params.ui = False
    params.endpoint_slots = False
    params.slot_save_path = f"{slot_files}{os.sep}"
    # Slots share one store of keys and values, so that a lone long prompt may use all of it.
    params.n_parallel = SLOTS
    params.n_ctx = CONTEXT_TOKENS
    params.kv_unified = True
    params.cache_ram_mib = PROMPT_CACHE_MIB
    # Otherwise each new request drops the other slots' prompts, which are then read again.
    params.cache_idle_slots = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = physical_cores()
    try:
        return xllamacpp.Server(params)
    except Exception as error:
        raise ModelError(
            f"llama.cpp cannot load {weights} ({error})",
            hint="the file is damaged, is not GGUF, or needs more memory than there is",
        ) from error


@contextmanager
def short_waits() -> Iterator[None]:
    """OpenMP that is loaded in the block has threads that sleep after a short wait.

    The threads of GNU's OpenMP wait for each other in a loop that burns a core. On a machine with
    other work, the thread that they wait for then gets no core. OpenMP reads the bound of the loop
    from the environment when it is loaded. A setting of the user's own stays, and programs that
    this process starts do not inherit ours.
    """
    if not WAIT_SETTINGS.isdisjoint(os.environ):
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
    try:
        yield
    finally:
        os.environ.pop("GOMP_SPINCOUNT", None)


def physical_cores() -> int:
    """The number of cores that this process may use, without hyperthreads.

    Memory bounds the speed of decoding: a second thread on a core, or more threads than a
    container's quota, makes decoding slower.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text() if siblings.is_file() else str(cpu))
    quota = Path("/sys/fs/cgroup/cpu.max")
    limit, _, period = quota.read_text().partition(" ") if quota.is_file() else ("max", "", "")
    if limit != "max":
        return max(1, min(len(cores), int(limit) // int(period)))
    return len(cores)
