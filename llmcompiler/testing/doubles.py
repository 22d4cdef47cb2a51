"""What tests of agents need: a scripted model, a clock that nobody waits for, and broken tools.

The module is public: an app that uses this package tests itself with it. It must not know any
planner, engine or test framework.
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
        text: what is answered.
        chunk: characters of a piece; 0 gives the whole text in one.
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
    """A ``ChatModel`` that answers what it was told to.

    Args:
        script: the answers in order, or a function from the request to its answer. A string
            stands for ``Answer(string)``, and a ``ModelError`` is raised.
        name: as in ``ChatModel``.

    Attributes:
        requests: what was asked, in order.
        cancelled: how many answers the asker left before their end.
        closed: whether ``aclose`` was called.

    Raises:
        AssertionError: (from ``stream``) it is asked more often than there are answers.
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
        ended = False
        try:
            for start in range(0, len(answer.text), size):
                await asyncio.sleep(answer.delay)
                yield answer.text[start : start + size]
            ended = True
        finally:
            if not ended:
                self.cancelled += 1
        if answer.error is not None:
            raise answer.error
        usage = answer.usage
        if usage is None:
            asked = sum(len(message.content) for message in request.messages)
            usage = Usage(asked // 4, 0, len(answer.text) // 4, 1)
        yield Completion(answer.text, answer.finish, usage, self.name, calls=answer.calls)

    async def aclose(self) -> None:
        """Note that it was called."""
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
    """Everything waits and nothing is left that could wake it."""


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer as soon as nothing else is ready.

    ``loop.time()`` starts at 0 and moves only by timers, so an hour's sleep takes no time and two
    runs of a program see the same times. What happens outside the loop takes real time in which the
    clock stands still: calls in executor threads (``asyncio.to_thread``, ``run_in_executor``)
    always; sockets and threads of other makers only for ``GRACE_S`` before each jump, which is
    enough for two ends of a connection that live in the same loop. The idea is trio's
    ``MockClock`` with ``autojump_threshold``.

    Args:
        patience: real seconds that the world outside may be silent while the loop can do nothing
            but wait for it.
    """

    GRACE_S = 0.005

    def __init__(self, patience: float = 30.0) -> None:
        self._now = 0.0
        self._calls_in_threads = 0
        super().__init__(_JumpingSelector(self, patience))

    def time(self) -> float:
        """Seconds since the loop was made, as far as its timers have come."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass at once; timers that come due run in the loop's next round."""
        self._now += seconds

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """As the standard loop's; the clock stands still until the call ends."""
        future = super().run_in_executor(executor, func, *args)
        self._calls_in_threads += 1
        future.add_done_callback(self._call_ended)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Join the executor's threads without a time limit, which would be jumped to."""
        await super().shutdown_default_executor()

    def _call_ended(self, _: object) -> None:
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
        if self._loop._calls_in_threads or (timeout is None and self._outside()):
            ready = super().select(self._patience)
            if not ready:
                raise Deadlock(f"no thread or socket did anything for {self._patience} s")
            return ready
        if timeout is None:
            # What was outside may have woken the loop, and ended, since the first look.
            if ready := super().select(0):
                return ready
            raise Deadlock("every task waits, and no timer is set")
        if self._outside():
            ready = super().select(self._loop.GRACE_S)
        if not ready:
            self._loop.advance(timeout)
        return ready

    def _outside(self) -> bool:
        """Whether something that is not the loop's to count may wake it."""
        # The default executor's threads outlive their calls, and those are counted.
        ours = (threading.current_thread().name, "asyncio_")
        strangers = (t for t in threading.enumerate() if not t.name.startswith(ours))
        # One entry is the loop's own wake-up pipe.
        return len(self.get_map()) > 1 or any(strangers)


def run_virtual(main: Coroutine[Any, Any, T], *, patience: float = 30.0) -> T:
    """Run a coroutine on a ``VirtualClockLoop``: ``asyncio.run`` for tests.

    Args:
        main: what to run.
        patience: see ``VirtualClockLoop``.

    Raises:
        Deadlock: nothing could ever wake the waiting tasks; the message says where each waits.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualClockLoop(patience)) as runner:
        try:
            return runner.run(main)
        except Deadlock as deadlock:
            waiting = "".join(sorted(map(_where, asyncio.all_tasks(runner.get_loop()))))
            raise Deadlock(f"{deadlock}{waiting}") from None


def _where(task: asyncio.Task[Any]) -> str:
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
    """The function, whose first calls fail; async if it is.

    Args:
        function: what a tool is made of.
        failures: how many calls fail before the first that works.
        error: makes the exception; default ``ConnectionError``.
    """
    name = getattr(function, "__name__", repr(function))
    make = error or (lambda: ConnectionError(f"{name} was told to fail"))
    calls = 0
    lock = threading.Lock()

    def fail_first() -> None:
        nonlocal calls
        with lock:
            calls += 1
            number = calls
        if number <= failures:
            raise make()

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
