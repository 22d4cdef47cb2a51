"""Tool calls as tasks of a Ray cluster (Moritz et al., "Ray: A Distributed Framework for Emerging
AI Applications", OSDI 2018).

Planner, scheduler, log and limits stay in this process, the driver; a call is one Ray task, with
the CPUs, GPUs and other resources that its tool asks for. Values come back to the driver, where the
log takes them. Where a directory for large values is given, those stay on the cluster: they go from
task to task by reference, and the log holds a handle of each (``ValueHandle``).

Ray itself repeats nothing (``max_retries=0``): it would not tell, and a repetition is the run's to
decide. A worker or node that is lost fails the call in passing, so that the run's policy makes it
again under the same idempotency key.

What lives in the driver stays there: tools of MCP servers and other frameworks hold connections and
objects that cannot travel, and reasoning branches are the run's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import pickle
import socket
import sys
import sysconfig
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from llmcompiler.errors import ToolError, UsageError
from llmcompiler.executors.base import ToolCall
from llmcompiler.executors.local import LocalExecutor
from llmcompiler.executors.ray_worker import Mailbox, Outcome, Work, call_in_worker
from llmcompiler.executors.value_handles import handles_in
from llmcompiler.executors.value_store import ValueStore
from llmcompiler.tools.base import Tool

ABOVE = 1_000_000
"""Bytes above which a value stays on the cluster, where there is a directory for it."""

_GRACE_S = 2.0
"""Seconds that a cancelled call has until its worker is killed."""

_KNOCK_S = 5.0
"""Seconds that a cluster's address has to take a connection."""

_REFERENCES = 1000
"""Most values that are held in the cluster's memory; older ones are read from their files."""

_Known: TypeAlias = tuple[dict[str, Any], dict[str, Any]]
"""References to values by hash: those that a call takes whole, and those of which it takes parts.

Ray brings the first to the worker before it begins, and prefers workers that have them.
"""

_Told: TypeAlias = dict[tuple[str, int], Callable[[float, float | None, str], None]]
"""Who is told of a call's progress, by its key and attempt."""

_log = logging.getLogger(__name__)


class RayExecutor:
    """Runs tool calls on a Ray cluster.

    Args:
        address: of a running cluster, as ``ray.init`` takes it: ``auto``, ``HOST:PORT``,
            ``ray://HOST:PORT``. ``None`` for a cluster of this machine's, which starts with the
            executor and ends with it. A cluster that the program is connected to already is used
            as it is.
        values: a directory for large values that all machines of the cluster see under this path;
            ``None`` to let all values pass through the driver into the log.
        above: bytes of JSON above which a value is large.

    Raises:
        UsageError: Ray is not installed.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        values: str | os.PathLike[str] | None = None,
        above: int = ABOVE,
    ) -> None:
        try:
            import ray  # noqa: F401
        except ImportError:
            raise UsageError(
                "this installation has no Ray",
                hint="install it with the extra: pip install 'llmcompiler-dag[ray]'",
            ) from None
        self._address = address
        self._values = ValueStore(values, above) if values is not None else None
        self._local = LocalExecutor()
        self._lock = threading.Lock()
        self._ray: Any = None
        self._is_ours = False
        self._mailbox: Any = None
        self._taken = 0
        self._remotes: dict[int, tuple[Tool, Any]] = {}
        self._references: OrderedDict[str, Any] = OrderedDict()
        self._told: _Told = {}
        self._pumps: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]] = (
            weakref.WeakKeyDictionary()
        )
        self._arrivals: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Arrivals] = (
            weakref.WeakKeyDictionary()
        )

    def start(self) -> None:
        """Connect to the cluster, or start one, which takes seconds; the first call does it else.

        Raises:
            UsageError: there is no cluster at the address.
        """
        import ray

        with self._lock:
            if self._ray is not None:
                return
            if not ray.is_initialized():
                # A cluster of this process's own is nobody else's business.
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
                options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
                if self._address is None:
                    options["include_dashboard"] = False
                try:
                    _knock(self._address)
                    # An address in RAY_ADDRESS would be taken instead of none.
                    ray.init(self._address or "local", **options)
                except (OSError, ValueError) as error:
                    raise UsageError(
                        f"there is no Ray cluster at {self._address}: {error}",
                        hint="start one with: ray start --head, or leave the address out",
                    ) from error
                self._is_ours = True
            self._mailbox = ray.remote(num_cpus=0)(Mailbox).remote()
            self._ray = ray

    def submit(self, call: ToolCall) -> asyncio.Future[Any]:
        """Start the call; see ``Executor.submit``."""
        if call.tool.origin or call.tool.reasons:
            return self._local.submit(call)
        flight = _Flight(call, self._told)
        if self._ray is None:
            flight.errand = flight.get_loop().create_task(self._start_first(flight))
            flight.errand.add_done_callback(flight.started)
        else:
            self._launch(flight)
        return flight

    async def _start_first(self, flight: _Flight) -> None:
        try:
            await asyncio.to_thread(self.start)
        except Exception as error:  # noqa: BLE001 - the call's, whatever it is
            flight.end(error=error)
        else:
            self._launch(flight)

    def _launch(self, flight: _Flight) -> None:
        """Give the call to Ray, with the values that are known to be in the cluster's memory."""
        call, context, loop = flight.call, flight.call.context, flight.get_loop()
        heard = context.on_progress is not None
        place = [context.run, context.task, list(context.index), context.key, context.attempt]
        held, given = None, []
        if heard and loop not in self._pumps:
            self._pumps[loop] = loop.create_task(self._pump())
        try:
            if call.has_handles:
                flight.whole, parts = self._references_of(call)
                held, given = list(flight.whole), [parts, *flight.whole.values()]
            work = Work(place, call.arguments, held, _trace(), heard)
            # What is no bytes costs Ray several times as much, here and in the worker.
            packed = self._ray.cloudpickle.dumps(tuple(work))
            flight.reference = self._remote(call.tool).remote(packed, *given)
        except Exception as error:  # noqa: BLE001 - the call's, whatever it is
            flight.end(error=_blamed(call.tool, error))
            return
        if loop not in self._arrivals:
            self._arrivals[loop] = _Arrivals(self._arrived)
        # What ``future()`` is made of: nobody waits for a future of Ray's, so its locks are spared.
        flight.reference._on_completed(partial(self._arrivals[loop].add, flight))

    def _arrived(self, flight: _Flight, answer: Any) -> None:
        """Ray's task has ended: with the worker's answer, or an exception of Ray's."""
        exceptions = self._ray.exceptions
        if isinstance(answer, exceptions.RayTaskError):
            answer = answer.as_instanceof_cause()
        lost = exceptions.ObjectLostError, exceptions.ObjectFetchTimedOutError
        if isinstance(answer, lost) and flight.whole and not flight.cancelling:
            # Nothing was called: a value was lost with its node. There are the files.
            for digest in flight.whole:
                self._references.pop(digest, None)
            self._launch(flight)
            return
        if isinstance(answer, BaseException):
            flight.end(error=_blamed(flight.call.tool, answer))
            return
        packed, reference = (answer, None) if isinstance(answer, bytes) else answer
        try:
            outcome = Outcome(*pickle.loads(packed))
        except Exception as unknown:  # noqa: BLE001 - an exception of a type that is not here
            outcome = Outcome(error=unknown)
        if reference is not None:
            self._references[outcome.value.digest] = reference
            if len(self._references) > _REFERENCES:
                self._references.popitem(last=False)
        if outcome.reported:
            flight.errand = flight.get_loop().create_task(self._hear_out(flight, outcome))
        else:
            flight.end(outcome.value, outcome.error)

    async def _hear_out(self, flight: _Flight, outcome: Outcome) -> None:
        """What a call says of its progress comes before its end."""
        error: BaseException | None = outcome.error
        try:
            self._hand_on(await self._mailbox.take.remote(self._taken))
        except Exception as lost:  # noqa: BLE001 - the call's, whatever it is
            error = _blamed(flight.call.tool, lost)
        flight.end(outcome.value, error)

    def _references_of(self, call: ToolCall) -> _Known:
        """Values among the arguments that are in the cluster's memory: wholes, and of parts."""
        whole: dict[str, Any] = {}
        parts: dict[str, Any] = {}
        for handle in handles_in(call.arguments):
            if (digest := handle.digest) in self._references:
                self._references.move_to_end(digest)
                (parts if handle.path else whole)[digest] = self._references[digest]
        return whole, parts

    def _remote(self, tool: Tool) -> Any:
        """The tool as a function of Ray's: sent to the cluster once, and then named."""
        if (known := self._remotes.get(id(tool))) is not None:
            return known[1]
        asked = dict(tool.resources if tool.resources is not None else {"CPU": 1.0})
        self._check_room(tool, asked)
        options: dict[str, Any] = {"max_retries": 0, "num_cpus": asked.pop("CPU", 0.0)}
        if gpus := asked.pop("GPU", 0.0):
            options["num_gpus"] = gpus
        if memory := asked.pop("memory", 0.0):
            options["memory"] = memory
        _ship_by_value(tool, self._ray.cloudpickle)
        # What only the driver asks of a tool need not be able to travel.
        bare = dataclasses.replace(tool, trim=None, lint=None, retry=None)
        serve = partial(call_in_worker, bare, self._values, self._mailbox)

        def call(packed: bytes, *given: Any) -> Any:
            return serve(packed, *given)

        call.__name__ = call.__qualname__ = tool.name
        remote = self._ray.remote(**options, resources=asked)(call)
        self._remotes[id(tool)] = (tool, remote)
        return remote

    def _check_room(self, tool: Tool, asked: dict[str, float]) -> None:
        """A task that no node can take would wait for ever; a cluster may still grow, though."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(all(node.get(k, 0) >= v for k, v in asked.items()) for node in nodes):
            return
        wanted = ", ".join(f"{name}={amount:g}" for name, amount in asked.items())
        if self._is_ours and self._address is None:
            raise ToolError(
                f"{tool.name} asks for {wanted}, which this machine does not have",
                hint="give the address of a cluster that has it",
            )
        _log.warning("%s asks for %s, which no node has yet; its calls wait", tool.name, wanted)

    async def _pump(self) -> None:
        """Hand on what workers report, when they do."""
        while True:
            self._hand_on(await self._mailbox.wait.remote(self._taken))

    def _hand_on(self, reports: list[tuple[int, Any]]) -> None:
        for number, (key, attempt, *said) in reports:
            if number > self._taken:
                self._taken = number
                if (told := self._told.get((key, attempt))) is not None:
                    told(*said)

    async def aclose(self) -> None:
        """Leave the cluster; one that the executor started ends."""
        if (pump := self._pumps.pop(asyncio.get_running_loop(), None)) is not None:
            pump.cancel()
            await asyncio.wait((pump,))
        with self._lock:
            ray, self._ray, self._mailbox = self._ray, None, None
            self._remotes.clear()
            self._references.clear()
        if ray is not None and self._is_ours:
            await asyncio.to_thread(ray.shutdown)


class _Flight(asyncio.Future[Any]):
    """A call on the cluster: the future of what its tool gives.

    Cancelled, it ends when the worker has stopped, or was killed. An asyncio task would do the
    same, in several turns of the loop more.

    Args:
        call: what is called.
        told: where the call is found by those who bring reports of its progress.

    Attributes:
        reference: Ray's to the task's result, once the task was given to it.
        whole: references to the values that went along whole, by hash.
        errand: what has to be waited for on the way; held, as a loop does not hold its tasks.
    """

    def __init__(self, call: ToolCall, told: _Told) -> None:
        super().__init__()
        self.call = call
        self.reference: Any = None
        self.whole: dict[str, Any] = {}
        self.errand: asyncio.Task[None] | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._told = told
        self._key = call.context.key, call.context.attempt
        if call.context.on_progress is not None:
            told[self._key] = call.context.on_progress

    @property
    def cancelling(self) -> bool:
        """Whether the worker was asked to stop."""
        return self._grace is not None

    def cancel(self, msg: Any = None) -> bool:
        """Ask the worker to stop."""
        if self.done():
            return False
        if self.reference is None:
            assert self.errand is not None  # the cluster starts
            self.errand.cancel()
        elif self._grace is None:
            import ray

            ray.cancel(self.reference)
            self._grace = self.get_loop().call_later(_GRACE_S, self._kill)
        return True

    def started(self, starting: asyncio.Task[None]) -> None:
        """The cluster has started, or nobody waits for it any more."""
        if starting.cancelled():
            self._called_off()

    def _kill(self) -> None:
        import ray

        ray.cancel(self.reference, force=True)
        self._called_off()

    def end(self, value: Any = None, error: BaseException | None = None) -> None:
        """The call has ended."""
        if self.done():
            return
        if self._grace is not None:
            self._grace.cancel()
            self._called_off()
            return
        self._told.pop(self._key, None)
        if error is not None:
            self.set_exception(error)
        else:
            self.set_result(value)

    def _called_off(self) -> None:
        self._told.pop(self._key, None)
        if self.errand is not None:
            self.errand.cancel()
        super().cancel()


class _Arrivals:
    """Results on their way from Ray's thread to an event loop, one wake-up for all that wait.

    ``asyncio.wrap_future`` would wake the loop for each.

    Args:
        arrived: called in the loop, with each.
    """

    def __init__(self, arrived: Callable[[_Flight, Any], None]) -> None:
        self._arrived = arrived
        self._come: deque[tuple[_Flight, Any]] = deque()
        self._called = False

    def add(self, flight: _Flight, answer: Any) -> None:
        """A task has ended; called in a thread of Ray's."""
        self._come.append((flight, answer))
        if not self._called:
            self._called = True
            # A loop that is closed waits for nothing any more.
            with contextlib.suppress(RuntimeError):
                flight.get_loop().call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        # Put down before the last is taken: who comes later calls again.
        self._called = False
        while self._come:
            flight, answer = self._come.popleft()
            if not flight.done():
                self._arrived(flight, answer)


def _knock(address: str | None) -> None:
    """Ray itself tries for minutes to reach a cluster, and then ends the process."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()


def _blamed(tool: Tool, error: BaseException) -> BaseException:
    """Why a call has no outcome."""
    from ray import exceptions

    if not isinstance(error, exceptions.RayError):
        return error
    passing = (
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.OutOfMemoryError,
        exceptions.LocalRayletDiedError,
        exceptions.ObjectLostError,
    )
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    lost = ToolError(
        f"the worker that called {tool.name} was lost ({type(error).__name__}: {first[:200]})",
        retryable=isinstance(error, passing),
    )
    lost.__cause__ = error
    return lost


def _trace() -> dict[str, str]:
    """The current span for a worker, where the program uses OpenTelemetry at all."""
    if "opentelemetry" not in sys.modules:
        return {}
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


def _ship_by_value(tool: Tool, cloudpickle: Any) -> None:
    """Send the code of a tool from the user's own files along: workers may not find those."""
    module = sys.modules.get(getattr(tool.function, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    if module is None or file is None or module.__name__ == "__main__":
        return
    installed = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
    installed.append(Path(__file__).parents[1])
    if not any(Path(file).is_relative_to(place) for place in installed):
        cloudpickle.register_pickle_by_value(module)
