"""What runs in the workers of a Ray cluster: one call of a tool, and the mailbox for progress.

A worker returns a value or an exception as data, so a run has the same events as with calls in the
driver's process. Only the loss of a worker reaches the driver as an error of Ray's.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import pickle
import signal
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, NamedTuple

from llmcompiler.errors import ToolError
from llmcompiler.executors.value_store import ValueStore, resolve_handles
from llmcompiler.tools.base import Tool
from llmcompiler.tools.context import CallContext, call_context, current_call
from llmcompiler.tools.returned import is_unread, read_async, read_iterator

_MAX_REPORTS = 10_000

_MAX_SHARED_VALUES = 2
"""How many values that calls take parts of stay in a worker's memory."""

_SHARED_VALUES: OrderedDict[str, Any] = OrderedDict()

_NO_REFERENCES: Mapping[str, Any] = {}


class Work(NamedTuple):
    """One call, as it is sent to a worker.

    Attributes:
        identity: ``run``, ``task``, ``index``, ``key`` and ``attempt`` of the call's context.
        arguments: by parameter name; validated, unless there are value handles in them.
        digests: hashes of the values that are sent with the call whole, in order; ``None`` if
            there are no value handles in the arguments.
        trace: the caller's trace context in W3C headers; empty without one.
        reports_progress: True if progress reports are wanted.
    """

    identity: list[Any]
    arguments: dict[str, Any]
    digests: list[str] | None
    trace: dict[str, str]
    reports_progress: bool


class WorkerResult(NamedTuple):
    """How a call ended in a worker.

    Attributes:
        value: the tool's result as JSON, or a ``ValueHandle`` in its place.
        error: the exception that the tool raised.
        has_reports: True if the call's progress reports are in the mailbox.
    """

    value: Any = None
    error: BaseException | None = None
    has_reports: bool = False


def call_in_worker(
    tool: Tool,
    values: ValueStore | None,
    mailbox: Any,
    packed: bytes,
    parts: Mapping[str, Any] = _NO_REFERENCES,
    *whole_values: Any,
) -> bytes | tuple[bytes, Any]:
    """Make a call. The arguments up to ``mailbox`` are the same for every call of a tool.

    Args:
        tool: the tool to call.
        values: the store of large values; ``None`` if there is none.
        mailbox: an actor that receives progress reports.
        packed: the pickled ``Work``.
        parts: references to values of which the call takes a part, by hash.
        whole_values: the values whose hashes are in ``Work.digests``.

    Returns:
        The pickled ``WorkerResult``; if its value is a handle, also a reference to the value in the
        cluster's memory.
    """
    work = Work(*pickle.loads(packed))
    run, task, index, key, attempt = work.identity
    context = CallContext(run, task, tuple(index), key, attempt)
    last_report: list[Any] = []
    if work.reports_progress:
        context.on_progress = functools.partial(
            _report, last_report, mailbox, context.key, context.attempt
        )
    with call_context(context):
        result, reference = _run(tool, values, work, parts, whole_values)
    if last_report:
        import ray

        ray.get(last_report[0])  # reports arrive in order, so all of them are there now
        result = result._replace(has_reports=True)
    answer = pickle.dumps(tuple(result))
    return answer if reference is None else (answer, reference)


def _run(
    tool: Tool,
    values: ValueStore | None,
    work: Work,
    parts: Mapping[str, Any],
    whole_values: tuple[Any, ...],
) -> tuple[WorkerResult, Any]:
    with _trace(work.trace):
        try:
            value = tool.encode(_call_tool(tool, values, work, parts, whole_values))
            handle = values.store_if_large(value) if values is not None else None
        except SystemExit as error:
            exit_error = ToolError(f"{tool.name} called sys.exit({error.code!r})")
            return WorkerResult(error=exit_error), None
        except Exception as error:  # noqa: BLE001 - whatever it is, the driver gets it
            return WorkerResult(error=_portable(error)), None
    if handle is None:
        return WorkerResult(value), None
    import ray

    return WorkerResult(handle), ray.put(value)


def _call_tool(
    tool: Tool,
    values: ValueStore | None,
    work: Work,
    parts: Mapping[str, Any],
    whole_values: tuple[Any, ...],
) -> Any:
    arguments = work.arguments
    if work.digests is not None:
        by_digest = dict(zip(work.digests, whole_values, strict=True))

        def load(digest: str) -> Any:
            if values is None:
                raise ToolError(
                    f"{tool.name} needs a value that is kept elsewhere ({digest})",
                    hint="say where large values are kept, as when the run began",
                )
            return values.load(digest)

        def load_whole(digest: str) -> Any:
            return by_digest[digest] if digest in by_digest else load(digest)

        def load_shared(digest: str) -> Any:
            return _load_shared(digest, parts.get(digest), load)

        arguments = tool.validate(resolve_handles(arguments, load_whole, load_shared))
    value = tool.function(**arguments)
    while is_unread(value):
        value = read_iterator(value, current_call())
        if is_unread(value):
            value = asyncio.run(_stoppable(read_async(value)))
    return value


def _load_shared(digest: str, reference: Any, load: Callable[[str], Any]) -> Any:
    """A value of which a call takes a part, as each element of a fan-out does.

    To read the value anew for each element would take longest, so the process keeps the last ones.
    """
    if digest not in _SHARED_VALUES:
        _SHARED_VALUES[digest] = _fetch(digest, reference, load)
        while len(_SHARED_VALUES) > _MAX_SHARED_VALUES:
            _SHARED_VALUES.popitem(last=False)
    _SHARED_VALUES.move_to_end(digest)
    return _SHARED_VALUES[digest]


def _fetch(digest: str, reference: Any, load: Callable[[str], Any]) -> Any:
    if reference is not None:
        import ray

        loss = ray.exceptions.ObjectLostError, ray.exceptions.ObjectFetchTimedOutError
        with contextlib.suppress(*loss):  # the value was lost with its node; its file is there
            return ray.get(reference)
    return load(digest)


async def _stoppable(work: Awaitable[Any]) -> Any:
    """Await a call so that Ray's interrupt stops it; an interrupt alone does not wake a loop."""
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(NotImplementedError):  # not on Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
    return await work


def _portable(error: Exception) -> Exception:
    """The exception if it can be pickled, else a ``ToolError`` with the same message."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - exceptions may have pickling code of their own
        return ToolError(f"{type(error).__name__}: {error}")
    if isinstance(error, StopIteration):  # no future accepts it
        return RuntimeError("coroutine raised StopIteration")
    return error.with_traceback(None)


def _report(
    last_report: list[Any],
    mailbox: Any,
    key: str,
    attempt: int,
    done: float,
    total: float | None,
    message: str,
) -> None:
    last_report[:] = [mailbox.add.remote(key, attempt, done, total, message)]


@contextlib.contextmanager
def _trace(trace: Mapping[str, str]) -> Iterator[None]:
    """Make the caller's span the current one."""
    if not trace:
        yield
        return
    from opentelemetry import context, propagate

    token = context.attach(propagate.extract(trace))
    try:
        yield
    finally:
        context.detach(token)


class Mailbox:
    """An actor that keeps progress reports until the driver fetches them."""

    def __init__(self) -> None:
        self._reports: deque[tuple[int, Any]] = deque(maxlen=_MAX_REPORTS)
        self._count = 0
        self._arrived = asyncio.Condition()

    async def add(self, *report: Any) -> None:
        """Add a report; called by workers."""
        async with self._arrived:
            self._count += 1
            self._reports.append((self._count, report))
            self._arrived.notify_all()

    async def wait(self, after: int) -> list[tuple[int, Any]]:
        """Wait for reports with numbers above ``after``; returns them with their numbers."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: self._count > after)
        return await self.take(after)

    async def take(self, after: int) -> list[tuple[int, Any]]:
        """The reports with numbers above ``after`` that are there, with their numbers."""
        return [(number, report) for number, report in self._reports if number > after]
