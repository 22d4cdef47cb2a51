"""What tests of agents need: a scripted model, a clock that nobody waits for, and broken tools.

The module is public: applications that use this package test themselves with it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import selectors
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeAlias, TypeVar

from llmcompiler.errors import ModelError
from llmcompiler.llm.base import Completion, Request, Usage
from llmcompiler.llm.messages import FunctionCall

__all__ = [
    "Answer",
    "Deadlock",
    "ScriptedModel",
    "VirtualClockLoop",
    "flaky",
    "hanging",
    "run_virtual",
    "slow",
]

T = TypeVar("T")
P = ParamSpec("P")


# --- the model ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of a ``ScriptedModel``.

    Attributes:
        text: its text.
        chunk: characters of a piece; 0 for the whole text in one piece.
        delay: seconds before every piece.
        error: raised after the text, in place of the ``Completion``.
        finish: as in ``Completion``.
        usage: as in ``Completion``; ``None`` counts four characters as a token.
        calls: as in ``Completion``.
    """

    text: str
    chunk: int = 0
    delay: float = 0.0
    error: ModelError | None = None
    finish: str = "stop"
    usage: Usage | None = None
    calls: tuple[FunctionCall, ...] = ()


Scripted: TypeAlias = str | Answer | ModelError
Script: TypeAlias = Sequence[Scripted] | Callable[[Request], Scripted]


class ScriptedModel:
    """A ``ChatModel`` that gives scripted answers.

    Args:
        script: the answers in order, or a function from the request to its answer. A string
            stands for ``Answer(string)``, and a ``ModelError`` is raised.
        name: as in ``ChatModel``.

    Attributes:
        requests: the requests, in order.
        cancelled: how many answers their reader left before the end.
        closed: True once ``aclose`` was called.

    Raises:
        AssertionError: (from ``stream``) there are more requests than answers.
    """

    def __init__(self, script: Script, *, name: str = "scripted") -> None:
        self.name = name
        self.requests: list[Request] = []
        self.cancelled = 0
        self.closed = False
        self._script = script

    async def stream(self, request: Request) -> AsyncGenerator[str | Completion, None]:
        """Yield the scripted pieces, then the ``Completion`` or the error."""
        self.requests.append(request)
        answer = self._next(request)
        size = answer.chunk or len(answer.text) or 1
        is_complete = False
        try:
            for start in range(0, len(answer.text), size):
                await asyncio.sleep(answer.delay)
                yield answer.text[start : start + size]
            is_complete = True
        finally:
            if not is_complete:
                self.cancelled += 1
        if answer.error is not None:
            raise answer.error
        usage = answer.usage
        if usage is None:
            prompt_length = sum(len(message.content) for message in request.messages)
            usage = Usage(prompt_length // 4, 0, len(answer.text) // 4, 1)
        yield Completion(answer.text, answer.finish, usage, self.name, calls=answer.calls)

    async def aclose(self) -> None:
        """Set ``closed``."""
        self.closed = True

    def _next(self, request: Request) -> Answer:
        if callable(self._script):
            scripted = self._script(request)
        else:
            number = len(self.requests)
            if number > len(self._script):
                raise AssertionError(
                    f"model {self.name!r} has {len(self._script)} answers and was asked "
                    f"{number} times; the last request ends with: "
                    f"{request.messages[-1].content[-200:]!r}"
                )
            scripted = self._script[number - 1]
        if isinstance(scripted, ModelError):
            raise scripted
        return Answer(scripted) if isinstance(scripted, str) else scripted


# --- the clock ------------------------------------------------------------------------------------


class Deadlock(AssertionError):
    """Every task waits, and nothing is left that could wake one."""


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer as soon as nothing else is ready.

    ``loop.time()`` starts at 0 and moves only by timers. So an hour's sleep takes no time, and two
    runs of a program see the same times.

    Work outside the loop takes real time, in which the clock stands still. The loop always waits
    for calls in executor threads (``asyncio.to_thread``, ``run_in_executor``). For sockets and
    other threads it waits only ``GRACE_S`` before each jump, which is enough for two ends of a
    connection in the same loop. The idea is that of trio's ``MockClock`` with
    ``autojump_threshold``.

    Args:
        patience: real seconds to wait for a thread or socket when the loop has nothing else to do.
    """

    GRACE_S = 0.005
    """Real seconds to wait for sockets and threads before each jump."""

    def __init__(self, patience: float = 30.0) -> None:
        self._now = 0.0
        self._calls_in_threads = 0
        super().__init__(_JumpingSelector(self, patience))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock forward. Timers that come due run in the loop's next round."""
        self._now += seconds

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """As in the standard loop, but the clock stands still until the call ends."""
        future = super().run_in_executor(executor, func, *args)
        self._calls_in_threads += 1
        future.add_done_callback(self._on_call_done)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Join the executor's threads without a timeout, because the clock would jump to it."""
        await super().shutdown_default_executor()

    def _on_call_done(self, _: object) -> None:
        self._calls_in_threads -= 1


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualClockLoop, patience: float) -> None:
        super().__init__()
        self._loop = loop
        self._patience = patience

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self._loop._calls_in_threads or (timeout is None and self._may_be_woken_from_outside()):
            ready = super().select(self._patience)
            if not ready:
                raise Deadlock(f"no thread or socket did anything for {self._patience} s")
            return ready
        if timeout is None:
            # A thread may have woken the loop and ended since the first look.
            if ready := super().select(0):
                return ready
            raise Deadlock("every task waits, and no timer is set")
        if self._may_be_woken_from_outside():
            ready = super().select(self._loop.GRACE_S)
        if not ready:
            self._loop.advance(timeout)
        return ready

    def _may_be_woken_from_outside(self) -> bool:
        """True if there is a socket or thread that the loop does not count."""
        # The default executor's threads outlive their calls, and the loop counts those calls.
        counted = (threading.current_thread().name, "asyncio_")
        threads = (t for t in threading.enumerate() if not t.name.startswith(counted))
        # One entry of the map is the loop's own wake-up pipe.
        return len(self.get_map()) > 1 or any(threads)


def run_virtual(main: Coroutine[Any, Any, T], *, patience: float = 30.0) -> T:
    """Run a coroutine on a ``VirtualClockLoop``: ``asyncio.run`` for tests.

    Args:
        main: what to run.
        patience: see ``VirtualClockLoop``.

    Raises:
        Deadlock: nothing can wake the waiting tasks; the message says where each waits.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualClockLoop(patience)) as runner:
        try:
            return runner.run(main)
        except Deadlock as deadlock:
            waiting = "".join(sorted(map(_wait_text, asyncio.all_tasks(runner.get_loop()))))
            raise Deadlock(f"{deadlock}{waiting}") from None


def _wait_text(task: asyncio.Task[Any]) -> str:
    """A line that says where a task waits."""
    awaited: Any = task.get_coro()
    place = "?"
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
        if frame is not None:
            place = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)
    return f"\n  {task.get_name()} waits at {place}"


# --- broken tools ---------------------------------------------------------------------------------


def flaky(
    function: Callable[P, T], failures: int, error: Callable[[], Exception] | None = None
) -> Callable[P, T]:
    """The function, changed so that its first calls fail.

    Args:
        function: sync or async; the result is of the same kind.
        failures: how many calls fail before the first that works.
        error: makes the exception; ``None`` for a ``ConnectionError``.
    """
    name = getattr(function, "__name__", repr(function))
    make_error = error or (lambda: ConnectionError(f"{name} was told to fail"))
    calls = 0
    lock = threading.Lock()

    def fail_first() -> None:
        nonlocal calls
        with lock:
            calls += 1
            number = calls
        if number <= failures:
            raise make_error()

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def broken_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            fail_first()
            return await function(*args, **kwargs)

        return broken_async  # type: ignore[return-value]

    @functools.wraps(function)
    def broken(*args: P.args, **kwargs: P.kwargs) -> T:
        fail_first()
        return function(*args, **kwargs)

    return broken


def slow(function: Callable[P, T | Awaitable[T]], delay: float) -> Callable[P, Awaitable[T]]:
    """The function as an async one that first sleeps ``delay`` seconds of the loop's time."""

    @functools.wraps(function)
    async def delayed(*args: P.args, **kwargs: P.kwargs) -> T:
        await asyncio.sleep(delay)
        result = function(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    return delayed


def hanging(function: Callable[P, Any]) -> Callable[P, Awaitable[Any]]:
    """A function of the same signature that never returns and can be cancelled."""

    @functools.wraps(function)
    async def hang(*args: P.args, **kwargs: P.kwargs) -> Any:
        await asyncio.get_running_loop().create_future()

    return hang
