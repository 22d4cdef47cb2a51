"""Calls that share a prompt's beginning let one of them read it first, where endpoints cache."""

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


def common(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


@dataclass
class CachingServer:
    """Counts a token a character; has in its cache what it had read half a second ago."""

    caches: bool = True
    read: list[tuple[float, str]] = field(default_factory=list)

    def __call__(self, request: ReceivedRequest) -> Reply:
        prompt = "".join(message["content"] for message in request.body["messages"])
        ready = [text for at, text in self.read if self.caches and at + 0.5 <= request.at]
        cached = max((common(prompt, text) for text in ready), default=0)
        self.read.append((request.at, prompt))
        usage = {
            "prompt_tokens": len(prompt),
            "completion_tokens": 2,
            "total_tokens": len(prompt) + 2,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        return Reply(["Answer: ", "7"], delay=0.5, usage=usage)


def spent(caches: bool, strategy: str, options: Mapping[str, Any]) -> tuple[Any, CachingServer]:
    async def main() -> tuple[Any, CachingServer]:
        server = CachingServer(caches)
        async with fake_openai(server) as place:
            can = frozenset({"prefix_cache"} if caches else ())
            model = EndpointModel(
                "m", base_url=place.url, trust_env=False, abilities=can, constraint="none"
            )
            async with LLMCompiler((), model, store=":memory:") as made:
                thought = await made.think(PROBLEM, strategy=strategy, **options)
            await model.aclose()
        return thought.cost, server

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
    cost, _ = spent(True, strategy, options)
    assert cost.prefill < 1.5 * len(PROBLEM)
    assert cost.cached >= 3 * len(PROBLEM)


def test_an_endpoint_that_keeps_nothing_is_asked_everything_at_once() -> None:
    cost, server = spent(False, "parathinker", {"width": 4})
    assert cost.cached == 0
    assert len({at for at, _ in server.read[:4]}) == 1
