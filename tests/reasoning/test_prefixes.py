"""With an endpoint that caches prefixes, calls wait for the call that reads a shared prefix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from llmcompiler.compiler import LLMCompiler
from llmcompiler.llm.endpoint import EndpointModel
from llmcompiler.testing.doubles import run_virtual
from tests.support.fake_openai import ReceivedRequest, Reply, fake_openai

PROBLEM = "How much is 3 + 4? " + "Consider every box of nails that there is. " * 40


def common_length(first: str, second: str) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(first), len(second)))


@dataclass
class CachingServer:
    """Counts a character as a token; its cache holds prompts read at least half a second ago."""

    caches: bool = True
    prompts_read: list[tuple[float, str]] = field(default_factory=list)

    def __call__(self, request: ReceivedRequest) -> Reply:
        prompt = "".join(message["content"] for message in request.body["messages"])
        ready = [text for at, text in self.prompts_read if self.caches and at + 0.5 <= request.at]
        cached = max((common_length(prompt, text) for text in ready), default=0)
        self.prompts_read.append((request.at, prompt))
        usage = {
            "prompt_tokens": len(prompt),
            "completion_tokens": 2,
            "total_tokens": len(prompt) + 2,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        return Reply(["Answer: ", "7"], delay=0.5, usage=usage)


def run_strategy(
    caches: bool, strategy: str, options: Mapping[str, Any]
) -> tuple[Any, CachingServer]:
    async def main() -> tuple[Any, CachingServer]:
        server = CachingServer(caches)
        async with fake_openai(server) as endpoint:
            abilities = frozenset({"prefix_cache"} if caches else ())
            model = EndpointModel(
                "m", base_url=endpoint.url, trust_env=False, abilities=abilities, constraint="none"
            )
            async with LLMCompiler((), model, store=":memory:") as agent:
                result = await agent.think(PROBLEM, strategy=strategy, **options)
            await model.aclose()
        return result.cost, server

    return run_virtual(main())


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("vote", {"width": 4}),
        ("parathinker", {"width": 4, "termination": "last"}),
        ("hogwild", {"width": 4, "rounds": 1}),
    ],
)
def test_the_problem_is_read_once(strategy: str, options: dict[str, Any]) -> None:
    cost, _ = run_strategy(True, strategy, options)
    assert cost.prefill < 1.5 * len(PROBLEM)
    assert cost.cached >= 3 * len(PROBLEM)


def test_an_endpoint_that_keeps_nothing_is_asked_everything_at_once() -> None:
    cost, server = run_strategy(False, "parathinker", {"width": 4})
    assert cost.cached == 0
    assert len({at for at, _ in server.prompts_read[:4]}) == 1
