"""Several samples of one prompt are one request where the endpoint takes ``n``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given, strategies as st

from llmcompiler.compiler import LLMCompiler
from llmcompiler.events import Event, ModelFinished, ModelStarted
from llmcompiler.history.replay import replay
from llmcompiler.limits import Limits
from llmcompiler.llm.base import Usage
from llmcompiler.llm.endpoint import EndpointModel
from llmcompiler.llm.samples import split_usage
from llmcompiler.reasoning.base import BranchBudget
from llmcompiler.testing.doubles import run_virtual
from tests.support.fake_openai import FakeOpenAI, ReceivedRequest, Reply, fake_openai


def counted(prompt: int, decoded: int, cached: int = 0) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": decoded,
        "total_tokens": prompt + decoded,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def compiler(server: FakeOpenAI, *abilities: str, **options: Any) -> LLMCompiler:
    model = EndpointModel(
        "m",
        base_url=server.url,
        trust_env=False,
        constraint="none",
        abilities=frozenset(abilities),
        retries=0,
    )
    options.setdefault("store", ":memory:")
    return LLMCompiler((), model, **options)


SEVEN, EIGHT = ["Answer:", " 7"], ["So", " the", " Answer:", " 8"]


def three(request: ReceivedRequest) -> Reply:
    """Three samples for a request with ``n``, ten decoded tokens in all; else a single sample."""
    if request.body.get("n", 1) == 1:
        return Reply(SEVEN, usage=counted(20, 2))
    return Reply(SEVEN, more=[EIGHT, SEVEN], usage=counted(20, 10, 5), delay=1)


def test_samples_of_one_prompt_are_one_request_and_three_calls() -> None:
    async def main() -> None:
        async with fake_openai(three) as server:
            events: list[Event] = []
            agent = compiler(server, "n")
            result = await agent.think(
                "3 + 4?", strategy="vote", width=3, seed=1, on_event=events.append
            )
            assert (result.answer, result.why) == ("7", "2 of 3 agree")
            assert [request.body["n"] for request in server.requests] == [3]
            assert [e.call for e in events if isinstance(e, ModelStarted)] == ["1/0", "1/1", "1/2"]
            ends = [e for e in events if isinstance(e, ModelFinished)]
            tokens = {e.call: (e.prompt_tokens, e.cached_tokens, e.completion_tokens) for e in ends}
            assert tokens == {"1/0": (20, 5, 2), "1/1": (0, 0, 6), "1/2": (0, 0, 2)}
            assert result.cost is not None
            assert (result.cost.b_total, result.cost.decoded) == (30, 10), "as the endpoint said"
            assert (await replay(agent.store, "last")).status == "answered"
            await agent.aclose()

    run_virtual(main())


def test_a_sample_that_is_taken_up_counts_the_prompt_that_it_would_have_needed() -> None:
    def reply(request: ReceivedRequest) -> Reply:
        return Reply(EIGHT, more=[SEVEN, SEVEN], usage=counted(20, 8))

    async def main() -> None:
        async with fake_openai(reply) as server:
            agent = compiler(server, "n")
            result = await agent.think("3 + 4?", strategy="vote", width=3)
            assert result.cost is not None
            assert (result.answer, result.cost.b_seq) == ("7", 20 + 2)
            await agent.aclose()

    run_virtual(main())


def test_an_endpoint_without_n_is_asked_as_often() -> None:
    async def main() -> None:
        async with fake_openai(three) as server:
            agent = compiler(server)
            await agent.think("3 + 4?", strategy="vote", width=3)
            assert ["n" in request.body for request in server.requests] == [False] * 3
            await agent.aclose()

    run_virtual(main())


def test_samples_that_do_not_come_are_left_out() -> None:
    async def main() -> None:
        async with fake_openai([Reply(SEVEN, more=[SEVEN], usage=counted(20, 4))]) as server:
            agent = compiler(server, "n")
            result = await agent.think("3 + 4?", strategy="vote", width=3)
            assert (result.answer, result.why) == ("7", "2 of 2 agree")
            await agent.aclose()

    run_virtual(main())


def test_a_budget_asks_for_no_more_samples_than_it_allows() -> None:
    async def main() -> None:
        async with fake_openai([Reply(SEVEN, more=[SEVEN], usage=counted(20, 4))]) as server:
            agent = compiler(server, "n")
            result = await agent.think(
                "3 + 4?", strategy="vote", width=5, budget=BranchBudget(calls=2)
            )
            assert [request.body["n"] for request in server.requests] == [2]
            assert result.answer == "7"
            await agent.aclose()

    run_virtual(main())


def test_a_stopped_branch_leaves_the_request_and_goes_on_with_single_calls(tmp_path: Path) -> None:
    """One piece a second: after 2.5 s two samples are complete, but their ends are not reported."""

    async def main() -> None:
        async with fake_openai(three) as server:
            first_agent = compiler(
                server, "n", store=tmp_path / "runs", limits=Limits(deadline=2.5)
            )
            stopped = await first_agent.think("3 + 4?", strategy="vote", width=3, seed=1)
            assert stopped.failure is not None
            assert server.left_early == 1
            await first_agent.aclose()
            second_agent = compiler(server, store=tmp_path / "runs")
            result = await second_agent.resume(stopped.run, limits=Limits())
            assert result.value == "7"
            later_requests = server.requests[1:]
            assert ["n" in request.body for request in later_requests] == [False] * 3
            assert len({request.body["seed"] for request in later_requests}) == 3, (
                "else they were one sample"
            )
            assert (await replay(second_agent.store, stopped.run)).status == "answered"
            await second_agent.aclose()

    run_virtual(main())


@given(st.integers(0, 10**6), st.lists(st.integers(0, 10**4), min_size=1, max_size=20))
def test_what_samples_are_said_to_have_used_is_what_the_request_used(
    tokens: int, decoded: list[int]
) -> None:
    usage = Usage(100, 40, tokens, 1)
    shares = split_usage(usage, decoded)
    together = sum(shares, Usage())
    assert (together.prompt_tokens, together.cached_tokens) == (100, 40)
    assert together.completion_tokens == (tokens if sum(decoded) else 0)
    assert all(share.completion_tokens >= 0 for share in shares)
