"""The public testing module: virtual time, scripted answers, broken tools."""

from __future__ import annotations

import asyncio
import inspect
import threading

import pytest
from hypothesis import given, settings, strategies as st

from llmcompiler.errors import ModelError
from llmcompiler.llm.base import ChatModel, Completion, Request, complete
from llmcompiler.llm.messages import Message
from llmcompiler.testing.doubles import (
    Answer,
    Deadlock,
    ScriptedModel,
    flaky,
    hanging,
    run_virtual,
    slow,
)

ASK = Request((Message("user", "how many?"),))


def now() -> float:
    return asyncio.get_running_loop().time()


def test_an_hour_passes_at_once() -> None:
    async def main() -> float:
        await asyncio.sleep(3600)
        return now()

    assert run_virtual(main()) == 3600


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=8))
def test_sleepers_wake_in_the_order_of_their_times(delays: list[float]) -> None:
    async def sleep(delay: float, woken: list[float]) -> None:
        await asyncio.sleep(delay)
        woken.append(delay)

    async def main() -> tuple[list[float], float]:
        woken: list[float] = []
        await asyncio.gather(*(sleep(delay, woken) for delay in delays))
        return woken, now()

    woken, end = run_virtual(main())
    assert woken == sorted(delays)
    assert end == pytest.approx(max(delays))


def test_timeouts_fire_at_their_virtual_time() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(90):
                await asyncio.sleep(1e9)
        return now()

    assert run_virtual(main()) == 90


def test_the_clock_stands_still_while_an_executor_thread_works() -> None:
    released = threading.Event()

    def work() -> str:
        assert released.wait(10)
        return "done"

    async def main() -> tuple[str, float]:
        timer = asyncio.create_task(asyncio.sleep(5))
        call = asyncio.create_task(asyncio.to_thread(work))
        threading.Timer(0.02, released.set).start()
        result = await call
        at = now()
        await timer
        return result, at

    assert run_virtual(main()) == ("done", 0.0)


def test_two_ends_of_a_connection_in_one_loop_talk_without_time_passing() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    async def main() -> tuple[bytes, float]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        async with asyncio.timeout(1):
            writer.write(b"hello\n")
            answer = await reader.readline()
        writer.close()
        server.close()
        return answer, now()

    assert run_virtual(main()) == (b"HELLO\n", 0.0)


@pytest.mark.leaves_tasks
def test_a_deadlock_is_an_error_that_says_who_waits_where() -> None:
    async def forgotten() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(forgotten(), name="the forgotten one")

    with pytest.raises(Deadlock) as caught:
        # Threads that earlier tests have left in the process might wake the loop, so it waits.
        run_virtual(main(), patience=0.5)
    assert "the forgotten one waits at" in str(caught.value)


@pytest.mark.leaves_tasks
def test_a_silent_thread_is_not_waited_for_for_ever() -> None:
    stop = threading.Event()

    async def main() -> None:
        try:
            await asyncio.to_thread(stop.wait)
        finally:
            stop.set()

    with pytest.raises(Deadlock, match="no thread or socket"):
        run_virtual(main(), patience=0.01)


def test_exceptions_of_the_program_come_through() -> None:
    async def main() -> None:
        await asyncio.sleep(1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run_virtual(main())


def test_a_scripted_model_is_a_chat_model_that_answers_in_order_and_records() -> None:
    model = ScriptedModel(["one", Answer("two", finish="length")])
    assert isinstance(model, ChatModel)

    async def main() -> list[Completion]:
        return [await complete(model, ASK), await complete(model, ASK)]

    first, second = run_virtual(main())
    assert (first.text, first.finish) == ("one", "stop")
    assert (second.text, second.finish) == ("two", "length")
    assert model.requests == [ASK, ASK]


def test_a_scripted_model_streams_in_pieces_on_virtual_time() -> None:
    model = ScriptedModel([Answer("abcdef", chunk=4, delay=2.5)])

    async def main() -> list[tuple[float, object]]:
        return [(now(), piece) async for piece in model.stream(ASK)]

    (t1, p1), (t2, p2), (t3, last) = run_virtual(main())
    assert [(t1, p1), (t2, p2)] == [(2.5, "abcd"), (5.0, "ef")]
    assert t3 == 5.0
    assert isinstance(last, Completion)
    assert last.text == "abcdef"


def test_a_scripted_model_can_die_mid_stream() -> None:
    model = ScriptedModel([Answer("half an", error=ModelError("gone", retryable=True))])
    pieces: list[object] = []

    async def main() -> None:
        async for piece in model.stream(ASK):
            pieces.append(piece)

    with pytest.raises(ModelError, match="gone"):
        run_virtual(main())
    assert pieces == ["half an"]


def test_a_script_may_be_a_function_of_the_request() -> None:
    model = ScriptedModel(lambda request: request.messages[-1].content.upper())
    assert run_virtual(complete(model, ASK)).text == "HOW MANY?"


def test_asking_beyond_the_script_says_what_was_asked() -> None:
    with pytest.raises(AssertionError, match=r"0 answers and was asked 1 times.*how many"):
        run_virtual(complete(ScriptedModel([]), ASK))


def test_leaving_an_answer_early_is_recorded() -> None:
    model = ScriptedModel([Answer("abcdef", chunk=1)])

    async def main() -> None:
        stream = model.stream(ASK)
        await anext(stream)
        await stream.aclose()

    run_virtual(main())
    assert model.cancelled == 1


def test_flaky_fails_as_often_as_told_and_keeps_the_signature() -> None:
    def area(width: int, height: int) -> int:
        """Width times height."""
        return width * height

    broken = flaky(area, failures=2)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            broken(2, 3)
    assert broken(2, height=3) == 6
    assert inspect.signature(broken) == inspect.signature(area)
    assert broken.__doc__ == area.__doc__


def test_flaky_keeps_async_functions_async() -> None:
    async def answer() -> int:
        return 42

    broken = flaky(answer, failures=1, error=lambda: ValueError("once"))
    assert inspect.iscoroutinefunction(broken)

    async def main() -> int:
        with pytest.raises(ValueError, match="once"):
            await broken()
        return await broken()

    assert run_virtual(main()) == 42


@pytest.mark.parametrize("is_async", [True, False])
def test_slow_takes_virtual_time(is_async: bool) -> None:
    def plain(x: int) -> int:
        return x + 1

    async def coroutine(x: int) -> int:
        return x + 1

    async def main() -> tuple[int, float]:
        return await slow(coroutine if is_async else plain, 7)(1), now()

    assert run_virtual(main()) == (2, 7)


def test_hanging_never_returns_but_can_be_cancelled() -> None:
    def search(query: str) -> str:
        return query

    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await hanging(search)("x")
        return now()

    assert run_virtual(main()) == 60
