"""Endpoints: what is sent, what comes back, and every way in which an endpoint fails."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from email.utils import formatdate
from itertools import pairwise
from typing import Any

import pytest

from llmcompiler.errors import ModelError, UsageError
from llmcompiler.llm.base import ChatModel, Completion, Request, Usage, complete
from llmcompiler.llm.endpoint import RETRIES, EndpointModel
from llmcompiler.llm.limits import ModelLimits
from llmcompiler.llm.messages import Message
from llmcompiler.testing.doubles import run_virtual
from tests.support.fake_openai import FakeOpenAI, Reply, fake_openai

KEY = "sk-secret-0123456789"
ASK = Request((Message("user", "how many?"),))


def now() -> float:
    return asyncio.get_running_loop().time()


def with_server(
    replies: Sequence[Reply],
    use: Callable[[EndpointModel, FakeOpenAI], Awaitable[Any]],
    **options: Any,
) -> Any:
    """Run ``use`` against a server on virtual time."""

    async def main() -> Any:
        async with fake_openai(replies) as server:
            options.setdefault("api_key", KEY)
            model = EndpointModel("m1", base_url=server.url, **options)
            try:
                return await use(model, server)
            finally:
                await model.aclose()

    return run_virtual(main())


def failure(replies: Sequence[Reply], **options: Any) -> tuple[ModelError, FakeOpenAI]:
    """The error of one request, and the server that caused it."""

    async def use(model: EndpointModel, server: FakeOpenAI) -> tuple[ModelError, FakeOpenAI]:
        with pytest.raises(ModelError) as caught:
            await complete(model, ASK)
        return caught.value, server

    result: tuple[ModelError, FakeOpenAI] = with_server(replies, use, **options)
    return result


def test_it_streams_pieces_and_then_the_completion() -> None:
    async def use(model: EndpointModel, server: FakeOpenAI) -> list[object]:
        assert isinstance(model, ChatModel)
        return [piece async for piece in model.stream(ASK)]

    usage = Usage(prompt_tokens=12, cached_tokens=8, completion_tokens=2, calls=1)
    assert with_server([Reply()], use) == ["Hel", "lo", Completion("Hello", "stop", usage, "m1")]


def test_pieces_come_when_they_are_sent() -> None:
    async def use(model: EndpointModel, server: FakeOpenAI) -> list[float]:
        return [now() async for _ in model.stream(ASK)]

    assert with_server([Reply(delay=2)], use) == pytest.approx([2, 4, 4])


def test_every_field_of_a_request_is_sent() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    request = Request(
        (Message("system", "s"), Message("user", "u"), Message("assistant", "a")),
        max_tokens=7,
        temperature=0.5,
        top_p=0.9,
        stop=("END",),
        seed=3,
        schema=schema,
        grammar='root ::= "x"',
        extra={"cache_prompt": True},
    )

    async def use(model: EndpointModel, server: FakeOpenAI) -> dict[str, Any]:
        await complete(model, request)
        assert server.requests[0].path == "/v1/chat/completions"
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
        return server.requests[0].body

    assert with_server([Reply()], use, constraint="grammar") == {
        "model": "m1",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": "a"},
        ],
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["END"],
        "seed": 3,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": False},
        },
        "grammar": 'root ::= "x"',
        "cache_prompt": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_closed_schema_is_sent_as_strict() -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }

    async def use(model: EndpointModel, server: FakeOpenAI) -> bool:
        await complete(model, Request(ASK.messages, schema=schema))
        return bool(server.requests[0].body["response_format"]["json_schema"]["strict"])

    assert with_server([Reply()], use)


def test_without_a_key_no_authorization_is_sent() -> None:
    async def use(model: EndpointModel, server: FakeOpenAI) -> bool:
        await complete(model, ASK)
        return "authorization" in server.requests[0].headers

    assert not with_server([Reply()], use, api_key=None)


def test_missing_usage_is_counted_as_one_call() -> None:
    async def use(model: EndpointModel, server: FakeOpenAI) -> Usage:
        return (await complete(model, ASK)).usage

    assert with_server([Reply(usage=None)], use) == Usage(calls=1)


def test_cached_tokens_come_from_llama_cpps_timings_where_details_are_missing() -> None:
    raw = (
        'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
        'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1},'
        ' "timings": {"cache_n": 5}}\n\ndata: [DONE]\n\n'
    )

    async def use(model: EndpointModel, server: FakeOpenAI) -> Usage:
        return (await complete(model, ASK)).usage

    assert with_server([Reply(raw=raw)], use) == Usage(9, 5, 1, 1)


def test_a_refused_optional_field_is_left_out_or_renamed_from_then_on() -> None:
    def refusal(field: str) -> Reply:
        return Reply(status=400, error={"message": f"Unsupported: {field}", "param": field})

    async def use(model: EndpointModel, server: FakeOpenAI) -> list[dict[str, Any]]:
        request = Request(ASK.messages, max_tokens=5)
        await complete(model, request)
        await complete(model, request)
        return [request.body for request in server.requests]

    bodies = with_server([refusal("max_tokens"), refusal("temperature"), Reply()], use)
    assert len(bodies) == 4
    for body in bodies[2:]:
        assert body["max_completion_tokens"] == 5
        assert not {"max_tokens", "temperature"} & body.keys()


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "says", "hint"),
    [
        (Reply(status=401), "answered 401", "the key is wrong"),
        (Reply(status=403), "answered 403", "may not use this model"),
        (Reply(status=404), "answered 404", "knows no model 'm1'"),
        (
            Reply(status=400, error={"message": "x", "code": "context_length_exceeded"}),
            "answered 400",
            "longer than the model's context",
        ),
        (
            Reply(
                status=400,
                error={"message": "request (9 tokens) exceeds the available context size (8)"},
            ),
            "exceeds the available context",
            "longer than the model's context",
        ),
        (
            Reply(status=429, error={"message": "x", "code": "insufficient_quota"}),
            "answered 429",
            "no quota left",
        ),
    ],
)
def test_what_asking_again_cannot_mend_is_asked_once(reply: Reply, says: str, hint: str) -> None:
    error, server = failure([reply])
    assert says in error.message
    assert "'m1'" in error.message
    assert server.url in error.message
    assert hint in error.hint
    assert not error.retryable
    assert len(server.requests) == 1


def test_a_missing_key_is_named() -> None:
    error, _ = failure([Reply(status=401)], api_key=None)
    assert "OPENAI_API_KEY" in error.hint


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(status=500), "answered 500"),
        (Reply(status=503), "answered 503"),
        (Reply(status=429), "answered 429"),
        (Reply(text=(), disconnect=True), "broke off its answer"),
        (Reply(text=(), raw="data: {not json\n\n"), "not a chat completion"),
        (Reply(text=(), raw="data: [1, 2]\n\n"), "not a chat completion"),
        (Reply(text=(), finish=None), "sent no choices"),
        (Reply(body="<html>welcome</html>"), "sent a document that is no chat completion"),
        (Reply(text=(), raw='data: {"error": {"message": "busy"}}\n\n'), "busy"),
    ],
)
def test_what_may_pass_is_asked_again_a_bounded_number_of_times(reply: Reply, says: str) -> None:
    error, server = failure([reply])
    assert says in error.message
    assert error.retryable
    assert len(server.requests) == 1 + RETRIES


def test_a_retry_that_works_hides_the_failure() -> None:
    async def use(model: EndpointModel, server: FakeOpenAI) -> str:
        return (await complete(model, ASK)).text

    assert with_server([Reply(status=500), Reply(status=429), Reply()], use) == "Hello"


def test_waits_grow_between_attempts() -> None:
    _, server = failure([Reply(status=500)])
    times = [request.at for request in server.requests]
    gaps = [b - a for a, b in pairwise(times)]
    assert gaps == sorted(gaps)
    for gap, full in zip(gaps, (0.5, 1, 2, 4), strict=True):
        assert full / 2 <= gap <= full + 0.01


@pytest.mark.parametrize("headers", [{"Retry-After": "20"}, {"retry-after-ms": "20000"}])
def test_retry_after_is_honoured(headers: dict[str, str]) -> None:
    async def use(model: EndpointModel, server: FakeOpenAI) -> float:
        await complete(model, ASK)
        return server.requests[1].at - server.requests[0].at

    wait = with_server([Reply(status=429, headers=headers), Reply()], use)
    assert 20 <= wait <= 20.3


def test_retry_after_may_be_a_date() -> None:
    headers = {"Retry-After": formatdate(4102444800)}
    error, server = failure([Reply(status=429, headers=headers)])
    assert error.retry_after is not None
    assert error.retry_after > 120
    assert len(server.requests) == 1, "a wait of years is the caller's to decide"


def test_nothing_is_asked_again_after_the_first_piece() -> None:
    async def use(model: EndpointModel, server: FakeOpenAI) -> tuple[list[object], str, int]:
        pieces: list[object] = []

        async def read() -> None:
            async for piece in model.stream(ASK):
                pieces.append(piece)

        with pytest.raises(ModelError) as caught:
            await read()
        return pieces, caught.value.message, len(server.requests)

    pieces, message, requests = with_server([Reply(disconnect=True), Reply()], use)
    assert pieces == ["Hel", "lo"]
    assert "broke off its answer" in message
    assert requests == 1


def test_a_stream_that_ends_without_a_reason_and_without_its_end_is_an_error() -> None:
    error, _ = failure([Reply(finish=None, done=False)])
    assert "ended its stream early" in error.message


def test_a_complete_stream_without_a_reason_is_an_answer() -> None:
    async def use(model: EndpointModel, server: FakeOpenAI) -> Completion:
        return await complete(model, ASK)

    completion = with_server([Reply(finish=None)], use)
    assert (completion.text, completion.finish) == ("Hello", "stop")


def test_a_stalled_stream_ends_after_the_read_timeout() -> None:
    async def use(model: EndpointModel, server: FakeOpenAI) -> tuple[float, str]:
        with pytest.raises(ModelError) as caught:
            await complete(model, ASK)
        return now(), caught.value.message

    at, message = with_server([Reply(stall=True)], use, read_timeout=30)
    assert at == pytest.approx(30, abs=0.1)
    assert "did not answer in time" in message


def test_an_endpoint_that_is_not_there_is_named_with_its_address() -> None:
    async def main() -> ModelError:
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        model = EndpointModel("m1", base_url=f"http://127.0.0.1:{port}/v1", retries=0)
        with pytest.raises(ModelError) as caught:
            await complete(model, ASK)
        await model.aclose()
        assert str(port) in caught.value.message
        return caught.value

    error = run_virtual(main())
    assert "cannot be reached" in error.message
    assert "OPENAI_BASE_URL" in error.hint


def test_the_key_never_shows_even_if_the_endpoint_repeats_it() -> None:
    error, _ = failure([Reply(status=401, error={"message": f"Incorrect API key: {KEY}"})])
    assert KEY not in str(error)
    assert "***" in str(error)
    assert error.__cause__ is None


def test_credentials_in_the_base_url_do_not_show() -> None:
    model = EndpointModel("m1", base_url="http://user:hunter2@127.0.0.1:1/v1", retries=0)
    with pytest.raises(ModelError) as caught:
        run_virtual(complete(model, ASK))
    assert "hunter2" not in str(caught.value)


def test_leaving_the_stream_early_closes_the_response() -> None:
    async def use(model: EndpointModel, server: FakeOpenAI) -> int:
        stream = model.stream(ASK)
        assert await anext(stream) == "Hel"
        await stream.aclose()
        await asyncio.sleep(1)
        assert server.open == 0
        return server.left_early

    assert with_server([Reply(delay=5)], use) == 1


def test_cancelling_the_asker_closes_the_response() -> None:
    async def use(model: EndpointModel, server: FakeOpenAI) -> int:
        asker = asyncio.create_task(complete(model, ASK))
        await asyncio.sleep(7)
        asker.cancel()
        await asyncio.wait([asker])
        await asyncio.sleep(1)
        assert server.open == 0
        return server.left_early

    assert with_server([Reply(delay=5)], use) == 1


def test_one_model_serves_several_loops_in_turn() -> None:
    model = EndpointModel("m1")

    async def main() -> str:
        async with fake_openai([Reply()]) as server:
            model.base_url = server.url
            return (await complete(model, ASK)).text

    assert [run_virtual(main()), run_virtual(main())] == ["Hello", "Hello"]


def test_closing_twice_is_fine() -> None:
    async def use(model: EndpointModel, server: FakeOpenAI) -> None:
        await complete(model, ASK)
        await model.aclose()
        await model.aclose()

    with_server([Reply()], use)


# --- limits ---------------------------------------------------------------------------------------


def starts(limits: ModelLimits, count: int, reply: Reply, request: Request = ASK) -> list[float]:
    async def use(model: EndpointModel, server: FakeOpenAI) -> list[float]:
        await asyncio.gather(*(complete(model, request) for _ in range(count)))
        assert limits.concurrency is None or server.most_open <= limits.concurrency
        return [request.at for request in server.requests]

    times: list[float] = with_server([reply], use, limits=limits)
    return times


def test_requests_per_minute_hold_in_any_minute() -> None:
    assert starts(ModelLimits(requests_per_minute=2), 5, Reply()) == [0, 0, 60, 60, 120]


def test_concurrency_bounds_requests_in_flight() -> None:
    assert starts(ModelLimits(concurrency=2), 4, Reply(text=["x"], delay=10)) == pytest.approx(
        [0, 0, 10, 10]
    )


# Each of these is taken for 600 tokens and turns out to cost 14.
BIG = Request((Message("user", "x" * 400),), max_tokens=500)


def test_tokens_per_minute_are_estimated_before_the_call() -> None:
    assert starts(ModelLimits(tokens_per_minute=600), 3, Reply(), BIG) == [0, 60, 120]


def test_tokens_per_minute_are_corrected_after_the_call() -> None:
    async def use(model: EndpointModel, server: FakeOpenAI) -> list[float]:
        for _ in range(3):
            await complete(model, BIG)
        return [request.at for request in server.requests]

    times = with_server([Reply()], use, limits=ModelLimits(tokens_per_minute=600))
    assert times == pytest.approx([0, 1.4, 2.8])


def test_a_failed_call_costs_no_tokens() -> None:
    async def use(model: EndpointModel, server: FakeOpenAI) -> list[float]:
        await complete(model, BIG)
        return [request.at for request in server.requests]

    limits = ModelLimits(tokens_per_minute=600)
    _, second_start = with_server([Reply(status=500), Reply()], use, limits=limits)
    assert second_start < 1


def test_a_cancelled_waiter_gives_its_turn_back() -> None:
    async def use(model: EndpointModel, server: FakeOpenAI) -> list[float]:
        await complete(model, ASK)
        waiter = asyncio.create_task(complete(model, ASK))
        await asyncio.sleep(1)
        waiter.cancel()
        await asyncio.wait([waiter])
        await complete(model, ASK)
        return [request.at for request in server.requests]

    assert with_server([Reply()], use, limits=ModelLimits(requests_per_minute=1)) == [0, 60]


@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute", "concurrency"])
def test_a_limit_below_one_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is 0"):
        ModelLimits(**{name: 0})


def test_importing_the_models_does_not_import_the_sdk() -> None:
    code = (
        "import sys, llmcompiler.llm.models;"
        "print([m for m in ('openai', 'httpx', 'httpx2', 'xllamacpp', 'platformdirs')"
        " if m in sys.modules])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "[]"
