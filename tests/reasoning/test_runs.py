"""The strategies in real runs: recorded, replayed to the same outcome, resumed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmcompiler.compiler import LLMCompiler
from llmcompiler.events import Event, ModelStarted
from llmcompiler.history.replay import replay
from llmcompiler.llm.base import Request
from llmcompiler.testing.doubles import Answer, ScriptedModel, run_virtual

STRATEGIES: dict[str, dict[str, Any]] = {
    "pdr": {"width": 3, "rounds": 2},
    "parathinker": {"width": 3},
    "hogwild": {"rounds": 2},
    "multiverse": {},
    "parallel_r1": {},
    "moa": {},
    "rsa": {"width": 4, "k": 2},
}


def numbered(delay: float = 0.1) -> Callable[[Request], Answer]:
    """A script in which every call has its own answer, and later calls are slower."""
    count = iter(range(10**6))

    def answer(_: Request) -> Answer:
        number = next(count)
        text = f"Thinking of {number}.\nAnswer: {number}"
        return Answer(text, chunk=8, delay=delay + number / 1000)

    return answer


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_replay_comes_to_the_same_without_a_call(name: str, tmp_path: Path) -> None:
    async def main() -> None:
        model = ScriptedModel(numbered())
        agent = LLMCompiler(["calc"], model, store=tmp_path / "runs")
        result = await agent.think("6 * 7?", strategy=name, seed=3, **STRATEGIES[name])
        request_count = len(model.requests)
        assert result.answer is not None
        assert result.cost is not None
        report = await replay(agent.store, result.run)
        assert report.answer == result.answer
        assert len(model.requests) == request_count

    run_virtual(main())


def test_pdr_stopped_in_round_2_does_not_repeat_round_1(tmp_path: Path) -> None:
    async def main() -> None:
        answer = numbered()

        def slow_in_round_2(request: Request) -> Answer:
            first_time = 4 < len(model.requests) <= 7
            return replace(answer(request), delay=60.0) if first_time else answer(request)

        model = ScriptedModel(slow_in_round_2)
        agent = LLMCompiler(["calc"], model, store=tmp_path / "runs")
        running = asyncio.ensure_future(agent.think("6 * 7?", strategy="pdr", width=3, rounds=2))
        await asyncio.sleep(30.0)
        assert len(model.requests) == 7  # three drafts, their distillate, and three of round 2
        running.cancel()
        await asyncio.wait((running,))
        request_count = len(model.requests)
        events: list[Event] = []
        await agent.resume("last", on_event=events.append)
        started = [event.call for event in events if isinstance(event, ModelStarted)]
        assert {"1/0", "1/1", "1/2", "1/3"} <= set(started)
        repeated_requests = model.requests[request_count:]
        assert not any(
            "attempts by others" in request.messages[-1].content
            for request in repeated_requests[:3]
        )
        assert len(repeated_requests) == 3 + 1 + 1  # round 2, its distillate, the final call

    run_virtual(main())
