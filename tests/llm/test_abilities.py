"""What an endpoint can do beyond answering is found out once, by trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmcompiler.llm import capabilities
from llmcompiler.llm.endpoint import EndpointModel
from llmcompiler.testing.doubles import run_virtual
from tests.support.fake_openai import ReceivedRequest, Reply, fake_openai


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(capabilities, "_memory", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def usage(cached: int) -> dict[str, Any]:
    return {
        "prompt_tokens": 900,
        "completion_tokens": 1,
        "total_tokens": 901,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def vllm_like(request: ReceivedRequest) -> Reply:
    """Continues, keeps prefixes, takes grammars in a field of its own; no log-probabilities."""
    body = request.body
    if "structured_outputs" in body:
        return Reply(["zyzzyva"])
    if "n" in body:
        return Reply(["Hello"], more=[["Hi"]])
    if body["messages"][-1]["role"] == "assistant":
        return Reply([" 7", ", 8"])
    return Reply(["Hello"], usage=usage(896))


def llama_like(request: ReceivedRequest) -> Reply:
    """Gives two samples, but counts the tokens of one."""
    if "n" in request.body:
        tokens_of_one = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
        return Reply(["Hello"], more=[["Hi"]], usage=tokens_of_one)
    return plain(request)


def plain(request: ReceivedRequest) -> Reply:
    """Has no ability, and refuses fields that it does not know."""
    if {"grammar", "structured_outputs", "guided_grammar", "logprobs"} & request.body.keys():
        return Reply(status=400, error={"message": "unknown field"})
    return Reply(["Hello! 1, 2, 3"], usage=usage(0))


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        (vllm_like, {"continuation", "prefix_cache", "grammar", "n"}),
        (llama_like, set()),
        (plain, set()),
    ],
)
def test_abilities_are_those_that_were_seen(replies: Any, expected: set[str]) -> None:
    async def main() -> None:
        async with fake_openai(replies) as server:
            model = EndpointModel("m", base_url=server.url, trust_env=False, retries=0)
            assert await model.capabilities() == expected
            trials = len(server.requests)
            assert await model.capabilities() == expected
            assert len(server.requests) == trials
            await model.aclose()

    run_virtual(main())
