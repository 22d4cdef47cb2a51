"""Tool calls as tasks of a Ray cluster (Moritz et al., "Ray: A Distributed Framework for Emerging
AI Applications", OSDI 2018).

Planner, scheduler, log and limits stay in this process, the driver. A call is one Ray task, with
the CPUs, GPUs and other resources that its tool asks for. Values come back to the driver, which
writes them to the log. With a directory for large values, those stay on the cluster: they go from
task to task by reference, and the log holds a handle of each (``ValueHandle``).

Ray itself repeats no call (``max_retries=0``), since it would not report the repetition. The loss
of a worker or a node is a transient failure, so the run's policy makes the call again under the
same idempotency key.

Tools of MCP servers and other frameworks run in the driver, as their connections and objects cannot
travel; so do reasoning branches, which are the run's own.
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
from llmcompiler.executors.ray_worker import Mailbox, Work, WorkerResult, call_in_worker
from llmcompiler.executors.value_handles import handles_in
from llmcompiler.executors.value_store import ValueStore
from llmcompiler.tools.base import Tool

ABOVE = 1_000_000
"""Bytes of JSON above which a value stays on the cluster, if there is a directory for it."""

_GRACE_S = 2.0
"""Seconds between the cancellation of a call and the killing of its worker."""

_CONNECT_S = 5.0
"""Seconds that a cluster's address has to accept a connection."""

_MAX_REFERENCES = 1000
"""How many values are kept in the cluster's memory; older ones are read from their files."""

_References: TypeAlias = tuple[dict[str, Any], dict[str, Any]]
"""References by hash: to values that a call takes whole, and to values of which it takes parts.

Ray brings whole values to the worker before the call starts, and prefers workers that have them.
"""

_ProgressCallbacks: TypeAlias = dict[tuple[str, int], Callable[[float, float | None, str], None]]
"""The progress callback of each call, by the call's key and attempt."""

_log = logging.getLogger(__name__)


class RayExecutor:
    """Runs tool calls on a Ray cluster.

    Args:
        address: of a running cluster, as ``ray.init`` takes it: ``auto``, ``HOST:PORT``,
            ``ray://HOST:PORT``. ``None`` for a cluster on this machine, which starts and ends with
            the executor. If the program is connected to a cluster already, that one is used.
        values: a directory for large values that all machines of the cluster see under this path;
            ``None`` to pass all values through the driver into the log.
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
        self._last_report = 0
        self._remotes: dict[int, tuple[Tool, Any]] = {}
        self._references: OrderedDict[str, Any] = OrderedDict()
        self._progress: _ProgressCallbacks = {}
        self._pumps: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]] = (
            weakref.WeakKeyDictionary()
        )
        self._arrivals: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Arrivals] = (
            weakref.WeakKeyDictionary()
        )

    def start(self) -> None:
        """Connect to the cluster or start one, which takes seconds. The first call does it too.

        Raises:
            UsageError: there is no cluster at the address.
        """
        import ray

        with self._lock:
            if self._ray is not None:
                return
            if not ray.is_initialized():
                # Ray sends no usage statistics about a cluster that this process starts.
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
                options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
                if self._address is None:
                    options["include_dashboard"] = False
                try:
                    _check_address(self._address)
                    # Without an address Ray would use the one in RAY_ADDRESS.
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
        flight = _Flight(call, self._progress)
        if self._ray is None:
            flight.pending = flight.get_loop().create_task(self._start_and_launch(flight))
            flight.pending.add_done_callback(flight.on_cluster_started)
        else:
            self._launch(flight)
        return flight

    async def _start_and_launch(self, flight: _Flight) -> None:
        try:
            await asyncio.to_thread(self.start)
        except Exception as error:  # noqa: BLE001 - whatever it is, the call fails with it
            flight.end(error=error)
        else:
            self._launch(flight)

    def _launch(self, flight: _Flight) -> None:
        """Submit the call to Ray, with references to values that are in the cluster's memory."""
        call, context, loop = flight.call, flight.call.context, flight.get_loop()
        reports_progress = context.on_progress is not None
        identity = [context.run, context.task, list(context.index), context.key, context.attempt]
        digests, values = None, []
        if reports_progress and loop not in self._pumps:
            self._pumps[loop] = loop.create_task(self._pump())
        try:
            if call.has_handles:
                flight.whole_values, parts = self._find_references(call)
                digests = list(flight.whole_values)
                values = [parts, *flight.whole_values.values()]
            work = Work(identity, call.arguments, digests, _trace_headers(), reports_progress)
            # Ray passes bytes several times as fast as other objects.
            packed = self._ray.cloudpickle.dumps(tuple(work))
            flight.reference = self._remote(call.tool).remote(packed, *values)
        except Exception as error:  # noqa: BLE001 - whatever it is, the call fails with it
            flight.end(error=_call_error(call.tool, error))
            return
        if loop not in self._arrivals:
            self._arrivals[loop] = _Arrivals(self._on_answer)
        # Ray's own ``future()`` uses this callback too, but takes locks that are not needed here.
        flight.reference._on_completed(partial(self._arrivals[loop].add, flight))

    def _on_answer(self, flight: _Flight, answer: Any) -> None:
        """Ray's task has ended, with the worker's answer or an exception of Ray's."""
        exceptions = self._ray.exceptions
        if isinstance(answer, exceptions.RayTaskError):
            answer = answer.as_instanceof_cause()
        loss = exceptions.ObjectLostError, exceptions.ObjectFetchTimedOutError
        if isinstance(answer, loss) and flight.whole_values and not flight.cancelling:
            # The tool was not called, as a value was lost with its node. Its file is still there.
            for digest in flight.whole_values:
                self._references.pop(digest, None)
            self._launch(flight)
            return
        if isinstance(answer, BaseException):
            flight.end(error=_call_error(flight.call.tool, answer))
            return
        packed, reference = (answer, None) if isinstance(answer, bytes) else answer
        try:
            result = WorkerResult(*pickle.loads(packed))
        except Exception as unknown:  # noqa: BLE001 - the type of an exception may be missing here
            result = WorkerResult(error=unknown)
        if reference is not None:
            self._references[result.value.digest] = reference
            if len(self._references) > _MAX_REFERENCES:
                self._references.popitem(last=False)
        if result.has_reports:
            flight.pending = flight.get_loop().create_task(self._end_after_reports(flight, result))
        else:
            flight.end(result.value, result.error)

    async def _end_after_reports(self, flight: _Flight, result: WorkerResult) -> None:
        """Deliver a call's progress reports, then its end."""
        error: BaseException | None = result.error
        try:
            self._deliver(await self._mailbox.take.remote(self._last_report))
        except Exception as lost:  # noqa: BLE001 - whatever it is, the call fails with it
            error = _call_error(flight.call.tool, lost)
        flight.end(result.value, error)

    def _find_references(self, call: ToolCall) -> _References:
        """References to the values in the arguments that are in the cluster's memory."""
        whole_values: dict[str, Any] = {}
        parts: dict[str, Any] = {}
        for handle in handles_in(call.arguments):
            if (digest := handle.digest) in self._references:
                self._references.move_to_end(digest)
                (parts if handle.path else whole_values)[digest] = self._references[digest]
        return whole_values, parts

    def _remote(self, tool: Tool) -> Any:
        """The tool as a remote function of Ray, which is sent to the cluster once."""
        if (entry := self._remotes.get(id(tool))) is not None:
            return entry[1]
        resources = dict(tool.resources if tool.resources is not None else {"CPU": 1.0})
        self._check_resources(tool, resources)
        options: dict[str, Any] = {"max_retries": 0, "num_cpus": resources.pop("CPU", 0.0)}
        if gpus := resources.pop("GPU", 0.0):
            options["num_gpus"] = gpus
        if memory := resources.pop("memory", 0.0):
            options["memory"] = memory
        _ship_by_value(tool, self._ray.cloudpickle)
        # Only the driver uses these attributes, so they need not be picklable.
        portable_tool = dataclasses.replace(tool, trim=None, lint=None, retry=None)
        serve = partial(call_in_worker, portable_tool, self._values, self._mailbox)

        def call(packed: bytes, *values: Any) -> Any:
            return serve(packed, *values)

        call.__name__ = call.__qualname__ = tool.name
        remote = self._ray.remote(**options, resources=resources)(call)
        self._remotes[id(tool)] = (tool, remote)
        return remote

    def _check_resources(self, tool: Tool, resources: dict[str, float]) -> None:
        """Refuse a tool that this machine cannot run; warn about one that no node can run yet.

        A cluster may still grow; on a single machine, the call would wait for ever.
        """
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(all(node.get(k, 0) >= v for k, v in resources.items()) for node in nodes):
            return
        text = ", ".join(f"{name}={amount:g}" for name, amount in resources.items())
        if self._is_ours and self._address is None:
            raise ToolError(
                f"{tool.name} asks for {text}, which this machine does not have",
                hint="give the address of a cluster that has it",
            )
        _log.warning("%s asks for %s, which no node has yet; its calls wait", tool.name, text)

    async def _pump(self) -> None:
        """Deliver progress reports as they arrive."""
        while True:
            self._deliver(await self._mailbox.wait.remote(self._last_report))

    def _deliver(self, reports: list[tuple[int, Any]]) -> None:
        for number, (key, attempt, *report) in reports:
            if number > self._last_report:
                self._last_report = number
                if (on_progress := self._progress.get((key, attempt))) is not None:
                    on_progress(*report)

    async def aclose(self) -> None:
        """Leave the cluster; end it if the executor started it."""
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
    """A call on the cluster, as a future of the tool's result.

    After a cancellation it ends when the worker has stopped or was killed. An asyncio task would do
    the same, but would take several more turns of the event loop.

    Args:
        call: the call.
        progress: the callbacks of all calls; the call adds and removes its own.

    Attributes:
        reference: Ray's reference to the result, once the call was submitted to Ray.
        whole_values: references to the values that were sent along whole, by hash.
        pending: the task that the call waits for, if any: the start of the cluster, or the delivery
            of reports. It is stored here because an event loop does not keep its tasks alive.
    """

    def __init__(self, call: ToolCall, progress: _ProgressCallbacks) -> None:
        super().__init__()
        self.call = call
        self.reference: Any = None
        self.whole_values: dict[str, Any] = {}
        self.pending: asyncio.Task[None] | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._progress = progress
        self._key = call.context.key, call.context.attempt
        if call.context.on_progress is not None:
            progress[self._key] = call.context.on_progress

    @property
    def cancelling(self) -> bool:
        """True if the worker was asked to stop."""
        return self._grace is not None

    def cancel(self, msg: Any = None) -> bool:
        """Ask the worker to stop."""
        if self.done():
            return False
        if self.reference is None:
            assert self.pending is not None  # the cluster is starting
            self.pending.cancel()
        elif self._grace is None:
            import ray

            ray.cancel(self.reference)
            self._grace = self.get_loop().call_later(_GRACE_S, self._kill)
        return True

    def on_cluster_started(self, starting: asyncio.Task[None]) -> None:
        """The start of the cluster has ended; if it was cancelled, so is the call."""
        if starting.cancelled():
            self._cancel_now()

    def _kill(self) -> None:
        import ray

        ray.cancel(self.reference, force=True)
        self._cancel_now()

    def end(self, value: Any = None, error: BaseException | None = None) -> None:
        """The call has ended."""
        if self.done():
            return
        if self._grace is not None:
            self._grace.cancel()
            self._cancel_now()
            return
        self._progress.pop(self._key, None)
        if error is not None:
            self.set_exception(error)
        else:
            self.set_result(value)

    def _cancel_now(self) -> None:
        self._progress.pop(self._key, None)
        if self.pending is not None:
            self.pending.cancel()
        super().cancel()


class _Arrivals:
    """Passes answers from Ray's thread to an event loop, with one wake-up for all that wait.

    ``asyncio.wrap_future`` would wake the loop for each answer.

    Args:
        on_answer: called in the event loop with each call and its answer.
    """

    def __init__(self, on_answer: Callable[[_Flight, Any], None]) -> None:
        self._on_answer = on_answer
        self._answers: deque[tuple[_Flight, Any]] = deque()
        self._is_scheduled = False

    def add(self, flight: _Flight, answer: Any) -> None:
        """Add the answer of a Ray task that has ended; called in a thread of Ray's."""
        self._answers.append((flight, answer))
        if not self._is_scheduled:
            self._is_scheduled = True
            # The loop may be closed already, and then nobody waits for the answer.
            with contextlib.suppress(RuntimeError):
                flight.get_loop().call_soon_threadsafe(self._pass_on)

    def _pass_on(self) -> None:
        # Reset first: an answer that is added during the loop below may need a new wake-up.
        self._is_scheduled = False
        while self._answers:
            flight, answer = self._answers.popleft()
            if not flight.done():
                self._on_answer(flight, answer)


def _check_address(address: str | None) -> None:
    """Try to connect: Ray itself would try for minutes, and then end the process.

    Raises:
        OSError: nothing accepts connections at the address.
    """
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()


def _call_error(tool: Tool, error: BaseException) -> BaseException:
    """The error that a call fails with: a ``ToolError`` in place of Ray's own."""
    from ray import exceptions

    if not isinstance(error, exceptions.RayError):
        return error
    transient = (
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.OutOfMemoryError,
        exceptions.LocalRayletDiedError,
        exceptions.ObjectLostError,
    )
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    loss = ToolError(
        f"the worker that called {tool.name} was lost ({type(error).__name__}: {first[:200]})",
        retryable=isinstance(error, transient),
    )
    loss.__cause__ = error
    return loss


def _trace_headers() -> dict[str, str]:
    """The current span in W3C headers; empty if the program does not use OpenTelemetry."""
    if "opentelemetry" not in sys.modules:
        return {}
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


def _ship_by_value(tool: Tool, cloudpickle: Any) -> None:
    """Make Ray send the code of a tool from the user's files, which workers may not have."""
    module = sys.modules.get(getattr(tool.function, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    if module is None or file is None or module.__name__ == "__main__":
        return
    installed = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
    installed.append(Path(__file__).parents[1])
    if not any(Path(file).is_relative_to(folder) for folder in installed):
        cloudpickle.register_pickle_by_value(module)
