"""Constraints of endpoints: found out once, remembered, and never in the way of an answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llmcompiler.errors import ModelError
from llmcompiler.llm import capabilities
from llmcompiler.llm.base import Completion, Request, Usage, complete
from llmcompiler.llm.capabilities import Constraint, EndpointCapabilities
from llmcompiler.llm.endpoint import EndpointModel
from llmcompiler.llm.messages import Message
from llmcompiler.testing.doubles import run_virtual
from tests.support.fake_openai import FakeOpenAI, ReceivedRequest, Reply, fake_openai

FAR = "http://models.example/v1"
ASK = Request((Message("user", "plan"),), grammar='root ::= "1. join()"')


@pytest.fixture(autouse=True)
def nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMCOMPILER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(capabilities, "_memory", {})


def server_with(field: str) -> Callable[[ReceivedRequest], Reply]:
    """A server that heeds one field, refuses ``guided_grammar``, and ignores others."""

    def answer(request: ReceivedRequest) -> Reply:
        text = str(request.body.get(field, ""))
        if "zyzzyva" in text:
            return Reply(["zyz", "zyva"])
        if "guided_grammar" in request.body:
            return Reply(status=400, error={"message": "unknown field guided_grammar"})
        return Reply(["1. join()"])

    return answer


@pytest.mark.parametrize(
    ("field", "constraint", "trials"),
    [
        ("grammar", "grammar", 1),
        ("structured_outputs", "structured_outputs", 2),
        ("response_format", "json_schema", 4),
        ("nothing", "none", 4),
    ],
)
def test_the_endpoint_is_tried_once_and_then_asked_in_its_own_way(
    field: str, constraint: Constraint, trials: int
) -> None:
    async def main() -> FakeOpenAI:
        async with fake_openai(server_with(field)) as server:
            for _ in range(2):
                model = EndpointModel("m", base_url=server.url)
                assert (await complete(model, ASK)).text == "1. join()"
                await model.aclose()
            assert list(capabilities._memory.values()) == [constraint]
            return server

    server = run_virtual(main())
    assert len(server.requests) == trials + 2
    sent = [
        name
        for name in ("grammar", "structured_outputs", "guided_grammar")
        if name in server.requests[-1].body
    ]
    assert sent == ([field] if constraint in ("grammar", "structured_outputs") else [])
    assert "1. join()" in str(server.requests[-1].body) or not sent


def test_a_request_without_a_grammar_tries_nothing() -> None:
    async def main() -> int:
        async with fake_openai([Reply()]) as server:
            model = EndpointModel("m", base_url=server.url)
            await complete(model, Request((Message("user", "hello"),)))
            await model.aclose()
            return len(server.requests)

    assert run_virtual(main()) == 1


class Endpoint:
    """Answers every request in one way, and counts the requests."""

    def __init__(self, answer: str | ModelError) -> None:
        self.answer = answer
        self.requests = 0

    async def __call__(self, request: Request, needed: object = ()) -> list[Completion]:
        self.requests += 1
        if isinstance(self.answer, ModelError):
            raise self.answer
        return [Completion(self.answer, "stop", Usage(), "m")]


async def constraint_of(endpoint: Endpoint, model: str = "m", base_url: str = FAR) -> Constraint:
    return await EndpointCapabilities(base_url, model, endpoint).constraint()


async def test_what_was_found_is_known_to_the_next_process(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = Endpoint("zyzzyva")
    assert await constraint_of(endpoint) == "grammar"
    monkeypatch.setattr(capabilities, "_memory", {})
    assert await constraint_of(endpoint) == "grammar"
    assert endpoint.requests == 1
    await constraint_of(endpoint, "another")
    assert endpoint.requests == 2


async def test_an_endpoint_that_is_down_now_is_asked_again_later() -> None:
    down = Endpoint(ModelError("overloaded", retryable=True))
    assert await constraint_of(down) == "none"
    assert await constraint_of(Endpoint("zyzzyva")) == "grammar"


async def test_one_that_refuses_every_field_has_none() -> None:
    assert await constraint_of(Endpoint(ModelError("400: no such field"))) == "none"


async def test_a_damaged_cache_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "constraints.json").write_text("{oops")
    assert await constraint_of(Endpoint("zyzzyva")) == "grammar"


async def test_passwords_in_addresses_are_not_kept(tmp_path: Path) -> None:
    url = "https://me:secret@models.example/v1"
    assert await constraint_of(Endpoint("zyzzyva"), base_url=url) == "grammar"
    assert "secret" not in (tmp_path / "cache" / "constraints.json").read_text()
