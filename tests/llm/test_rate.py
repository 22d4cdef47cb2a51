"""The rate at which an endpoint is asked adapts to what it bears."""

from __future__ import annotations

import asyncio
from typing import Any

from llmcompiler.llm.base import Request, complete
from llmcompiler.llm.endpoint import EndpointModel
from llmcompiler.llm.limits import AdaptiveRate
from llmcompiler.llm.messages import Message
from llmcompiler.testing.doubles import run_virtual
from tests.support.fake_openai import FakeOpenAI, Reply, fake_openai

ASK = Request((Message("user", "hello"),))


def in_loop(work: Any) -> Any:
    return run_virtual(work())


def now() -> float:
    return asyncio.get_running_loop().time()


def test_nothing_waits_before_the_first_refusal() -> None:
    async def work() -> float:
        rate = AdaptiveRate(60)
        for _ in range(1000):
            await rate.acquire()
        return now()

    assert in_loop(work) == 0


def test_a_refusal_halves_the_rate_once_for_all_that_were_on_their_way() -> None:
    async def work() -> list[float]:
        rate = AdaptiveRate(60)
        for _ in range(600):
            await rate.acquire()
        for _ in range(50):
            rate.slow_down(None)
        assert rate.per_minute == 300
        starts = []
        for _ in range(3):
            await rate.acquire()
            starts.append(round(now(), 6))
        return starts

    assert in_loop(work) == [0, 0.2, 0.4]


def test_everybody_keeps_still_for_as_long_as_the_endpoint_asked() -> None:
    async def work() -> float:
        rate = AdaptiveRate(60)
        rate.slow_down(20.0)
        await asyncio.gather(*(rate.acquire() for _ in range(3)))
        return now()

    assert in_loop(work) == 22


def test_answers_raise_the_rate_until_nothing_waits_again() -> None:
    async def work() -> None:
        rate = AdaptiveRate(60)
        rate.slow_down(None)
        assert rate.per_minute == 60
        rate.speed_up()
        assert rate.per_minute == 61
        for _ in range(60):
            rate.speed_up()
        assert rate.per_minute is None

    in_loop(work)


def test_tokens_count_by_what_a_request_takes() -> None:
    async def work() -> list[float]:
        rate = AdaptiveRate(100)
        for _ in range(4):
            await rate.acquire(1000)
        rate.slow_down(None)
        assert rate.per_minute == 2000
        starts = []
        for tokens in (1000, 500, 1):
            await rate.acquire(tokens)
            starts.append(now())
        rate.speed_up(700)
        assert rate.per_minute == 2700
        return starts

    assert in_loop(work) == [0, 30, 45]


def test_what_a_request_did_not_take_after_all_is_the_next_ones() -> None:
    async def work() -> float:
        rate = AdaptiveRate(100)
        await rate.acquire(1200)
        rate.slow_down(None)
        booking = await rate.acquire(600)
        rate.settle(booking, 60)
        await rate.acquire()
        return now()

    assert in_loop(work) == 6


def test_an_endpoint_that_counts_tokens_is_kept_below_what_it_bears() -> None:
    """The server takes 20,000 tokens in any minute; a request costs 1,000, and is taken for 1,512.

    Of 40 requests that are sent together 20 are refused at once, and hardly any later.
    """

    async def work() -> tuple[int, int, float]:
        served: list[float] = []
        refusals = 0

        def reply(_: Any) -> Reply:
            nonlocal refusals
            served[:] = [at for at in served if at > now() - 60]
            if len(served) >= 20:
                refusals += 1
                return Reply(status=429)
            served.append(now())
            return Reply(usage={"prompt_tokens": 990, "completion_tokens": 10})

        server: FakeOpenAI
        async with fake_openai(reply) as server:
            model = EndpointModel("m1", base_url=server.url, retries=8)
            big = Request((Message("user", "word " * 800),))
            answers = await asyncio.gather(*(complete(model, big) for _ in range(40)))
            await model.aclose()
        return len(answers), refusals, now()

    answers, refusals, seconds = in_loop(work)
    assert answers == 40
    assert refusals < 40, (refusals, seconds)
    assert seconds < 240


def test_an_endpoint_that_bears_few_requests_answers_all_in_the_end() -> None:
    """The server takes five requests in any second and refuses the others."""

    async def work() -> tuple[int, int]:
        served: list[float] = []
        refusals = 0

        def reply(_: Any) -> Reply:
            nonlocal refusals
            served[:] = [at for at in served if at > now() - 1]
            if len(served) >= 5:
                refusals += 1
                return Reply(status=429)
            served.append(now())
            return Reply()

        server: FakeOpenAI
        async with fake_openai(reply) as server:
            model = EndpointModel("m1", base_url=server.url, retries=8)
            answers = await asyncio.gather(*(complete(model, ASK) for _ in range(20)))
            await model.aclose()
        return len(answers), refusals

    answers, refusals = in_loop(work)
    assert answers == 20
    assert refusals < 40
