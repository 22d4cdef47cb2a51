"""Models of providers: names, keys, and the real wire formats, spoken by scripted servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import aclosing
from typing import Any

import pytest

from llmcompiler import LLMCompiler
from llmcompiler.errors import ModelError, UsageError
from llmcompiler.llm.base import Completion, Request, Usage, complete
from llmcompiler.llm.endpoint import EndpointModel
from llmcompiler.llm.messages import Function, FunctionCall, Message
from llmcompiler.llm.models import open_model
from llmcompiler.llm.provider_model import load_library
from llmcompiler.llm.providers import COMPATIBLE, LIBRARY
from llmcompiler.testing import run_virtual
from tests.support.fake_openai import FakeOpenAI, Reply, fake_openai

pytest.importorskip("any_llm", reason="needs any-llm: pip install 'llmcompiler-dag[providers]'")

KEY = "sk-a-key-of-a-test"
ADD = Function(
    "add",
    "Add two numbers.",
    {
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
)


def ask(text: str = "Hi", **fields: Any) -> Request:
    return Request((Message("system", "Be brief."), Message("user", text)), **fields)


# --- what each provider sends ---------------------------------------------------------------------


def anthropic_events(events: Iterable[dict[str, Any]]) -> str:
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)


def anthropic(*blocks: dict[str, Any], stop: str = "end_turn") -> str:
    """A stream of Anthropic's messages API, as its documentation shows one."""
    events: list[dict[str, Any]] = [
        {
            "type": "message_start",
            "message": {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "content": [],
                "model": "claude-x",
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {"input_tokens": 25, "cache_read_input_tokens": 10, "output_tokens": 1},
            },
        },
        {"type": "ping"},
    ]
    for number, block in enumerate(blocks):
        deltas = block.pop("deltas")
        events.append({"type": "content_block_start", "index": number, "content_block": block})
        events += [
            {"type": "content_block_delta", "index": number, "delta": delta} for delta in deltas
        ]
        events.append({"type": "content_block_stop", "index": number})
    events += [
        {
            "type": "message_delta",
            "delta": {"stop_reason": stop, "stop_sequence": None},
            "usage": {"output_tokens": 15},
        },
        {"type": "message_stop"},
    ]
    return anthropic_events(events)


def text_block(*pieces: str) -> dict[str, Any]:
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    return {"type": "text", "text": "", "deltas": deltas}


def call_block(*pieces: str) -> dict[str, Any]:
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {}, "deltas": deltas}


def thinking_block(*pieces: str) -> dict[str, Any]:
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
    deltas.append({"type": "signature_delta", "signature": "EqQB"})
    return {"type": "thinking", "thinking": "", "signature": "", "deltas": deltas}


def gemini(*parts: dict[str, Any], finish: str = "STOP") -> str:
    """A stream of Gemini's ``streamGenerateContent``, a chunk for each part."""
    lines = []
    for number, part in enumerate(parts):
        candidate: dict[str, Any] = {"content": {"parts": [part], "role": "model"}, "index": 0}
        usage = {"promptTokenCount": 25, "totalTokenCount": 25}
        if number == len(parts) - 1:
            candidate["finishReason"] = finish
            usage |= {"candidatesTokenCount": 15, "thoughtsTokenCount": 5, "totalTokenCount": 45}
        chunk = {
            "candidates": [candidate],
            "usageMetadata": usage,
            "modelVersion": "gemini-x",
            "responseId": "r1",
        }
        lines.append(f"data: {json.dumps(chunk)}\r\n\r\n")
    return "".join(lines)


def mistral(*deltas: dict[str, Any], finish: str = "stop") -> str:
    """A stream of Mistral's chat completions."""
    lines = []
    for number, delta in enumerate(deltas):
        last = number == len(deltas) - 1
        chunk: dict[str, Any] = {
            "id": "c1",
            "object": "chat.completion.chunk",
            "created": 1764500000,
            "model": "mistral-x",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish if last else None}],
        }
        if last:
            chunk["usage"] = {"prompt_tokens": 25, "completion_tokens": 15, "total_tokens": 40}
        lines.append(f"data: {json.dumps(chunk)}\n\n")
    return "".join([*lines, "data: [DONE]\n\n"])


TEXTS = {
    "anthropic": anthropic(text_block("Hel", "lo")),
    "gemini": gemini({"text": "Hel"}, {"text": "lo"}),
    "mistral": mistral({"role": "assistant", "content": "Hel"}, {"content": "lo"}),
}
CALLS = {
    "anthropic": anthropic(call_block('{"a": 1', ', "b": 2}'), stop="tool_use"),
    "gemini": gemini({"functionCall": {"name": "add", "args": {"a": 1, "b": 2}}}),
    "mistral": mistral(
        {"role": "assistant", "content": ""},
        {
            "content": "",
            "tool_calls": [
                {
                    "id": "abcdefghi",
                    "index": 0,
                    "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'},
                }
            ],
        },
        finish="tool_calls",
    ),
}
SPOKEN = sorted(TEXTS)
PROMPT_TOKENS = {"anthropic": 35, "gemini": 25, "mistral": 25}


def stream(text: str, **fields: Any) -> Reply:
    return Reply(text=(), raw=text, **fields)


def open_at(provider: str, server: FakeOpenAI) -> EndpointModel:
    model = open_model(f"{provider}:model-x", base_url=server.url.removesuffix("/v1"), api_key=KEY)
    assert isinstance(model, EndpointModel)
    return model


def sent_key(request_headers: dict[str, str]) -> str:
    names = ("x-api-key", "x-goog-api-key", "authorization")
    return next(request_headers[name] for name in names if name in request_headers)


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", SPOKEN)
async def test_an_answer_is_streamed_with_its_usage(provider: str) -> None:
    async with fake_openai([stream(TEXTS[provider])]) as server:
        model = open_at(provider, server)
        pieces = [piece async for piece in model.stream(ask(max_tokens=100))]
        await model.aclose()
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == "Hello"
    assert len(pieces) == 3
    answer = pieces[-1]
    assert isinstance(answer, Completion)
    assert (answer.text, answer.finish) == ("Hello", "stop")
    assert answer.usage.prompt_tokens == PROMPT_TOKENS[provider]
    assert answer.usage.completion_tokens >= 15
    assert sent_key(server.requests[0].headers).endswith(KEY)


@pytest.mark.parametrize("provider", SPOKEN)
async def test_a_function_call_arrives_whole(provider: str) -> None:
    async with fake_openai([stream(CALLS[provider])]) as server:
        model = open_at(provider, server)
        answer = await complete(model, ask("1 + 2?", functions=(ADD,)))
        await model.aclose()
    (call,) = answer.calls
    assert call.name == "add"
    assert json.loads(call.arguments) == {"a": 1, "b": 2}
    assert "add" in json.dumps(server.requests[0].body)


@pytest.mark.parametrize("provider", SPOKEN)
async def test_the_result_of_a_call_goes_back(provider: str) -> None:
    turn = (
        Message("user", "1 + 2?"),
        Message("assistant", "", calls=(FunctionCall("abcdefghi", "add", '{"a": 1, "b": 2}'),)),
        Message("tool", "3", call="abcdefghi"),
    )
    async with fake_openai([stream(TEXTS[provider])]) as server:
        model = open_at(provider, server)
        answer = await complete(model, Request(turn, functions=(ADD,)))
        await model.aclose()
    assert answer.text == "Hello"
    assert "3" in json.dumps(server.requests[0].body)


async def test_what_claude_thinks_stands_apart() -> None:
    reply = anthropic(thinking_block("1 + 2 ", "is 3"), text_block("3"))
    async with fake_openai([stream(reply)]) as server:
        model = open_at("anthropic", server)
        answer = await complete(model, ask())
        await model.aclose()
    assert (answer.text, answer.thinking) == ("3", "1 + 2 is 3")


@pytest.mark.parametrize("provider", SPOKEN)
async def test_a_schema_is_sent_in_the_providers_form(provider: str) -> None:
    schema = {
        "type": "object",
        "properties": {"zyx": {"type": "integer"}},
        "required": ["zyx"],
        "additionalProperties": False,
    }
    async with fake_openai([stream(TEXTS[provider])]) as server:
        model = open_at(provider, server)
        await complete(model, ask(schema=schema))
        await model.aclose()
    assert "zyx" in json.dumps(server.requests[0].body)


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", SPOKEN)
async def test_a_wrong_key_is_a_model_error_that_does_not_show_it(provider: str) -> None:
    error = {"type": "authentication_error", "message": f"invalid key {KEY}", "code": 401}
    async with fake_openai([Reply(status=401, error=error)]) as server:
        model = open_at(provider, server)
        with pytest.raises(ModelError) as caught:
            await complete(model, ask())
        await model.aclose()
    assert caught.value.hint == "the key is wrong"
    assert not caught.value.retryable
    assert KEY not in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("provider", ["anthropic", "mistral"])
async def test_too_many_requests_are_repeated_when_the_provider_says(provider: str) -> None:
    error = {"type": "rate_limit_error", "message": "slow down"}
    refused = Reply(status=429, error=error, headers={"Retry-After": "600"})
    async with fake_openai([refused]) as server:
        model = open_at(provider, server)
        with pytest.raises(ModelError, match="slow down") as caught:
            await complete(model, ask())
        await model.aclose()
    # Longer than any wait of ours, so the caller is told.
    assert (caught.value.retryable, caught.value.retry_after) == (True, 600.0)
    assert len(server.requests) == 1


async def test_an_overloaded_provider_is_asked_again() -> None:
    error = {"type": "overloaded_error", "message": "Overloaded"}
    replies = [Reply(status=529, error=error), stream(TEXTS["anthropic"])]
    async with fake_openai(replies) as server:
        model = open_at("anthropic", server)
        answer = await complete(model, ask())
        await model.aclose()
    assert answer.text == "Hello"
    assert len(server.requests) == 2


async def test_a_refused_field_is_left_out_and_remembered() -> None:
    error = {
        "type": "invalid_request_error",
        "message": "`temperature` is deprecated for this model.",
    }
    replies = [Reply(status=400, error=error), stream(TEXTS["anthropic"])]
    async with fake_openai(replies) as server:
        model = open_at("anthropic", server)
        for _ in range(2):
            assert (await complete(model, ask())).text == "Hello"
        await model.aclose()
    assert ["temperature" in request.body for request in server.requests] == [True, False, False]


async def test_an_unreachable_provider_is_a_model_error() -> None:
    async with fake_openai([]) as server:
        url = server.url
    model = open_model("anthropic:model-x", base_url=url.removesuffix("/v1"), api_key=KEY)
    assert isinstance(model, EndpointModel)
    model._retries = 0
    with pytest.raises(ModelError) as caught:
        await complete(model, ask())
    await model.aclose()
    assert caught.value.retryable


def test_leaving_early_cancels_the_call() -> None:
    half = TEXTS["anthropic"].partition("event: content_block_stop")[0]
    load_library("anthropic")

    async def main() -> int:
        async with fake_openai([stream(half, stall=True)]) as server:
            model = open_at("anthropic", server)
            async with aclosing(model.stream(ask())) as pieces:
                assert await anext(pieces) == "Hel"
            await asyncio.sleep(1)
            assert server.open == 0
            await model.aclose()
            return server.left_early

    assert run_virtual(main()) == 1


def test_a_provider_that_stalls_is_a_model_error() -> None:
    half = TEXTS["anthropic"].partition("event: content_block_stop")[0]
    load_library("anthropic")

    async def main() -> str:
        async with fake_openai([stream(half, stall=True)]) as server:
            model = open_at("anthropic", server)
            with pytest.raises(ModelError, match="did not answer in time") as caught:
                await complete(model, ask())
            await model.aclose()
            return str(caught.value.retryable)

    assert run_virtual(main()) == "True"


# --- whole runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", SPOKEN)
async def test_a_question_is_planned_run_and_joined(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {
        "anthropic": lambda text: anthropic(text_block(text)),
        "gemini": lambda text: gemini({"text": text}),
        "mistral": lambda text: mistral({"role": "assistant", "content": text}),
    }[provider]
    replies = [stream(texts('1. calc("6 * 7")\n2. join($1)\n')), stream(texts("Answer: 42"))]
    entry = LIBRARY[provider]
    async with fake_openai(replies) as server:
        monkeypatch.setenv(entry.key_variables[0], KEY)
        monkeypatch.setenv(entry.url_variable, server.url.removesuffix("/v1"))
        async with LLMCompiler(
            ["calc"], f"{provider}:model-x", store=":memory:", base_url="http://other.invalid/v1"
        ) as compiler:
            result = await compiler.run("What is 6 * 7?")
    assert (result.answer, result.failure) == ("42", None)
    assert result.usage.calls == 2
    assert isinstance(result.usage, Usage)


# --- names and keys -------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", [*COMPATIBLE, *LIBRARY])
def test_a_provider_without_its_key_names_the_variable(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = COMPATIBLE.get(provider) or LIBRARY[provider]
    names = getattr(entry, "key_variables", None) or (getattr(entry, "key_variable", ""),)
    for name in (*filter(None, names), entry.url_variable):
        monkeypatch.delenv(name, raising=False)
    if entry.needs_url:
        with pytest.raises(UsageError) as caught:
            open_model(f"{provider}:model-x")
        assert entry.url_variable in caught.value.hint
        monkeypatch.setenv(entry.url_variable, "https://somewhere.invalid")
    if not getattr(entry, "needs_key", any(names)):
        assert open_model(f"{provider}:model-x").name == f"{provider}:model-x"
        return
    with pytest.raises(UsageError, match=f"{provider}:model-x needs a key") as caught:
        open_model(f"{provider}:model-x")
    assert all(name in caught.value.hint for name in names)


@pytest.mark.parametrize("provider", [*COMPATIBLE, *LIBRARY])
def test_a_provider_without_a_model_gives_an_example(provider: str) -> None:
    with pytest.raises(UsageError, match="lacks a model's name") as caught:
        open_model(f"{provider}:")
    assert f"{provider}:" in caught.value.hint


def test_a_misspelt_provider_gets_a_hint() -> None:
    with pytest.raises(UsageError) as caught:
        open_model("antropic:claude-x")
    assert "anthropic:claude-x" in caught.value.hint


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("box:8080", "http://box:8080/v1"),
        ("https://box/", "https://box:11434/v1"),
        ("http://box:11434/v1", "http://box:11434/v1"),
    ],
)
def test_ollama_is_found_where_its_variable_says(
    host: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", host)
    model = open_model("ollama:qwen3")
    assert isinstance(model, EndpointModel)
    assert model.base_url == address


async def test_a_compatible_provider_needs_no_library() -> None:
    async with fake_openai([Reply()]) as server:
        model = open_model("openrouter:qwen/qwen3-32b", base_url=server.url, api_key=KEY)
        assert type(model) is EndpointModel
        assert (await complete(model, ask())).text == "Hello"
        await model.aclose()
    assert server.requests[0].body["model"] == "qwen/qwen3-32b"
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_a_part_of_the_library_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from any_llm import AnyLLM

    class Missing:
        MISSING_PACKAGES_ERROR = ImportError("No module named 'boto3'")

    monkeypatch.setattr(AnyLLM, "get_provider_class", lambda _: Missing)
    model = open_model("bedrock:amazon.nova-lite-v1:0")
    with pytest.raises(UsageError, match="boto3") as caught:
        await complete(model, ask())
    assert caught.value.hint == 'pip install "any-llm-sdk[bedrock]"'
