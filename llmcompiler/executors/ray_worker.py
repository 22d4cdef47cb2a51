"""What runs in the workers of a Ray cluster: one call of a tool, and the way back for progress.

A worker gives an outcome as data, value or exception, so that a run's events are those of a call in
the driver's own process; only the loss of a worker reaches the driver as an error of Ray's. The
module must not know who asked for the call, or what comes of it.
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
from llmcompiler.tools.context import CallContext, set_current_call

_REMEMBERED = 10_000

_MOST_KEPT = 2
"""Values of which calls took parts that a worker keeps in its memory."""

_KEPT: OrderedDict[str, Any] = OrderedDict()

_NONE: Mapping[str, Any] = {}


class Work(NamedTuple):
    """One call, as it travels.

    Attributes:
        place: ``run``, ``task``, ``index``, ``key`` and ``attempt`` of its context.
        arguments: by parameter name; validated, unless there are value handles in them.
        held: hashes of the values that come with the call whole, in order; ``None`` if there are
            no value handles in the arguments.
        trace: the caller's trace context, in the headers of W3C; empty without one.
        heard: whether somebody listens to its progress.
    """

    place: list[Any]
    arguments: dict[str, Any]
    held: list[str] | None
    trace: dict[str, str]
    heard: bool


class Outcome(NamedTuple):
    """How a call ended.

    Attributes:
        value: what the tool gave, as JSON, or a ``ValueHandle`` in its place.
        error: what it raised instead.
        reported: whether it told of its progress; the reports are in the mailbox.
    """

    value: Any = None
    error: BaseException | None = None
    reported: bool = False


def call_in_worker(
    tool: Tool,
    values: ValueStore | None,
    mailbox: Any,
    packed: bytes,
    parts: Mapping[str, Any] = _NONE,
    *given: Any,
) -> bytes | tuple[bytes, Any]:
    """Make the call. Up to ``mailbox``, all is the same for every call of a tool.

    Args:
        tool: what to call.
        values: where large values are kept; ``None`` for nowhere.
        mailbox: an actor that takes progress.
        packed: the call, as pickled ``Work``.
        parts: references to the values of which the arguments take a part, by hash.
        given: values of the hashes in ``Work.held``.

    Returns:
        The ``Outcome``, pickled; with it, where its value is a handle, a reference to the value in
        the cluster's memory.
    """
    work = Work(*pickle.loads(packed))
    run, task, index, key, attempt = work.place
    context = CallContext(run, task, tuple(index), key, attempt)
    told: list[Any] = []
    if work.heard:
        context.on_progress = functools.partial(_tell, told, mailbox, context.key, context.attempt)
    set_current_call(context)
    outcome, reference = _outcome(tool, values, work, parts, given)
    if told:
        import ray

        ray.get(told[-1])  # reports arrive in order: now all of them are there
        outcome = outcome._replace(reported=True)
    answer = pickle.dumps(tuple(outcome))
    return answer if reference is None else (answer, reference)


def _outcome(
    tool: Tool,
    values: ValueStore | None,
    work: Work,
    parts: Mapping[str, Any],
    given: tuple[Any, ...],
) -> tuple[Outcome, Any]:
    with _traced(work.trace):
        try:
            value = tool.encode(_called(tool, values, work, parts, given))
            handle = values.store_if_large(value) if values is not None else None
        except SystemExit as error:
            return Outcome(error=ToolError(f"{tool.name} called sys.exit({error.code!r})")), None
        except Exception as error:  # noqa: BLE001 - whatever it is, the driver is to see it
            return Outcome(error=_portable(error)), None
    if handle is None:
        return Outcome(value), None
    import ray

    return Outcome(handle), ray.put(value)


def _called(
    tool: Tool,
    values: ValueStore | None,
    work: Work,
    parts: Mapping[str, Any],
    given: tuple[Any, ...],
) -> Any:
    arguments = work.arguments
    if work.held is not None:
        at_hand = dict(zip(work.held, given, strict=True))

        def load(digest: str) -> Any:
            if values is None:
                raise ToolError(
                    f"{tool.name} needs a value that is kept elsewhere ({digest})",
                    hint="say where large values are kept, as when the run began",
                )
            return values.load(digest)

        def whole(digest: str) -> Any:
            return at_hand[digest] if digest in at_hand else load(digest)

        def shared(digest: str) -> Any:
            return _shared(digest, parts.get(digest), load)

        arguments = tool.validate(resolve_handles(arguments, whole, shared))
    if tool.is_async:
        return asyncio.run(_stoppable(tool.function(**arguments)))
    return tool.function(**arguments)


def _shared(digest: str, reference: Any, load: Callable[[str], Any]) -> Any:
    """A value of which a call takes a part, as each element of a fan-out does.

    To read it anew for each would take longer than all else, so this process keeps the last ones.
    """
    if digest not in _KEPT:
        _KEPT[digest] = _fetched(digest, reference, load)
        while len(_KEPT) > _MOST_KEPT:
            _KEPT.popitem(last=False)
    _KEPT.move_to_end(digest)
    return _KEPT[digest]


def _fetched(digest: str, reference: Any, load: Callable[[str], Any]) -> Any:
    if reference is not None:
        import ray

        lost = ray.exceptions.ObjectLostError, ray.exceptions.ObjectFetchTimedOutError
        with contextlib.suppress(*lost):  # with its node; there is the file
            return ray.get(reference)
    return load(digest)


async def _stoppable(work: Awaitable[Any]) -> Any:
    """Ray stops a task by an interrupt, which does not wake a loop that waits; its handler does."""
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(NotImplementedError):  # not on Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
    return await work


def _portable(error: Exception) -> Exception:
    """The exception, if it survives the way to another process, else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - a stranger's exception, whose pickling is its own code
        return ToolError(f"{type(error).__name__}: {error}")
    if isinstance(error, StopIteration):  # which no future takes
        return RuntimeError("coroutine raised StopIteration")
    return error.with_traceback(None)


def _tell(
    sent: list[Any],
    mailbox: Any,
    key: str,
    attempt: int,
    done: float,
    total: float | None,
    message: str,
) -> None:
    sent[:] = [mailbox.tell.remote(key, attempt, done, total, message)]


@contextlib.contextmanager
def _traced(trace: Mapping[str, str]) -> Iterator[None]:
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
    """An actor that keeps reports of progress until the driver takes them."""

    def __init__(self) -> None:
        self._reports: deque[tuple[int, Any]] = deque(maxlen=_REMEMBERED)
        self._count = 0
        self._arrived = asyncio.Condition()

    async def tell(self, *report: Any) -> None:
        """A worker reports."""
        async with self._arrived:
            self._count += 1
            self._reports.append((self._count, report))
            self._arrived.notify_all()

    async def wait(self, after: int) -> list[tuple[int, Any]]:
        """Wait for reports behind number ``after``, and give them with their numbers."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: self._count > after)
        return await self.take(after)

    async def take(self, after: int) -> list[tuple[int, Any]]:
        """The reports behind number ``after`` that are there."""
        return [one for one in self._reports if one[0] > after]
