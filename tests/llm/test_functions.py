"""Function calls through an endpoint: sent, received, and refused where the endpoint has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmcompiler.errors import ModelError
from llmcompiler.llm import capabilities
from llmcompiler.llm.base import Completion, Request, complete
from llmcompiler.llm.capabilities import EndpointCapabilities
from llmcompiler.llm.endpoint import EndpointModel
from llmcompiler.llm.messages import Function, FunctionCall, Message
from llmcompiler.testing.doubles import run_virtual
from tests.support.fake_openai import FakeOpenAI, ReceivedRequest, Reply, fake_openai

SIZE = Function("size", "How large.", {"type": "object", "properties": {"name": {}}})
FAR = "http://models.example/v1"


@pytest.fixture(autouse=True)
def nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMCOMPILER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(capabilities, "_memory", {})


def events(*deltas: dict[str, Any], finish: str = "tool_calls") -> Reply:
    """A stream of these deltas."""

    def event(delta: dict[str, Any], end: str | None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": end}
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        return f"data: {json.dumps({**chunk, 'choices': [choice]})}\n\n"

    body = "".join([*(event(delta, None) for delta in deltas), event({}, finish)])
    return Reply((), raw=f"{body}data: [DONE]\n\n")


def piece(index: int, arguments: str, **begins: str) -> dict[str, Any]:
    """A piece of a call; the first has its id and its function's name."""
    name = {"name": begins["name"]} if "name" in begins else {}
    call = {"index": index, "type": "function", "function": {**name, "arguments": arguments}}
    return {"tool_calls": [call | ({"id": begins["id"]} if "id" in begins else {})]}


CALLS = events(
    {"content": "Both."},
    piece(0, "", id="a", name="size"),
    piece(0, '{"name":'),
    piece(1, '{"name": "y"}', name="size"),
    piece(0, ' "x"}'),
)


async def answered(reply: Reply, request: Request, **options: Any) -> tuple[Completion, FakeOpenAI]:
    async with fake_openai([reply]) as server:
        model = EndpointModel("m", base_url=server.url, **options)
        try:
            return await complete(model, request), server
        finally:
            await model.aclose()


def test_calls_come_in_pieces_and_are_put_together() -> None:
    request = Request((Message("user", "?"),), functions=(SIZE,))
    answer, server = run_virtual(answered(CALLS, request, functions=True))
    assert answer.text == "Both." and answer.finish == "tool_calls"
    assert answer.calls == (
        FunctionCall("a", "size", '{"name": "x"}'),
        FunctionCall("call-2", "size", '{"name": "y"}'),
    )
    sent = server.requests[-1].body
    assert sent["tools"][0]["function"]["name"] == "size" and sent["parallel_tool_calls"] is True


def test_results_go_back_under_the_ids_of_their_calls() -> None:
    call = FunctionCall("a", "size", "{}")
    messages = (
        Message("user", "?"),
        Message("assistant", "", calls=(call,)),
        Message("tool", "3", call="a"),
    )
    _, server = run_virtual(answered(Reply(), Request(messages)))
    sent = server.requests[-1].body["messages"]
    assert sent[1]["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "size", "arguments": "{}"}}
    ]
    assert sent[2] == {"role": "tool", "content": "3", "tool_call_id": "a"}
    assert "tools" not in server.requests[-1].body


def test_an_endpoint_without_function_calling_is_named_and_asked_once_only() -> None:
    async def main() -> list[ReceivedRequest]:
        async with fake_openai([Reply(["Hello, Ann!"])]) as server:
            request = Request((Message("user", "?"),), functions=(SIZE,))
            for _ in range(2):
                model = EndpointModel("m", base_url=server.url)
                with pytest.raises(
                    ModelError, match=r"'m' at http.* has no function calling"
                ) as no:
                    await complete(model, request)
                assert "text, structured or react" in no.value.hint and not no.value.retryable
                await model.aclose()
            return server.requests

    (trial,) = run_virtual(main())
    assert trial.body["tool_choice"] == "required"


def test_one_that_has_it_is_tried_once() -> None:
    async def main() -> int:
        async with fake_openai([CALLS]) as server:
            for _ in range(2):
                model = EndpointModel("m", base_url=server.url)
                await complete(model, Request((Message("user", "?"),), functions=(SIZE,)))
                await model.aclose()
            return len(server.requests)

    assert run_virtual(main()) == 3


async def test_what_was_found_is_known_to_the_next_process(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0

    async def refuse(request: Request, needed: object) -> list[Completion]:
        nonlocal tries
        tries += 1
        raise ModelError("400: tools are not supported")

    assert await EndpointCapabilities(FAR, "m", refuse).functions() is False
    monkeypatch.setattr(capabilities, "_memory", {})
    assert await EndpointCapabilities(FAR, "m", refuse).functions() is False
    assert tries == 1


async def test_an_endpoint_that_is_down_is_not_judged() -> None:
    async def fail(request: Request, needed: object) -> list[Completion]:
        raise ModelError("overloaded", retryable=True)

    assert await EndpointCapabilities(FAR, "m", fail).functions() is None
