"""What a strong model is shown: whole results, the tools' own descriptions, nothing invented.

The golden files are for reading. After a change of a prompt, ``UPDATE_GOLDEN=1`` writes them again.
"""

from __future__ import annotations

import asyncio
import datetime
import os
from pathlib import Path
from typing import Any

import pytest

from llmcompiler import LLMCompiler
from llmcompiler.history.replay import replay
from llmcompiler.llm.base import Request
from llmcompiler.log.store import RunStore
from llmcompiler.run.result import RunResult
from llmcompiler.testing.doubles import ScriptedModel, run_virtual
from tests.support.travel_agent import STORIES, TRAVEL_TOOLS, WEATHER_CALLS, Story

GOLDEN = Path(__file__).parent.parent / "golden" / "prompts"


def tell(story: Story, store: RunStore, **options: Any) -> tuple[RunResult, list[Request]]:
    """Answer the story's question; the result, and what the model was asked."""
    WEATHER_CALLS[0] = 0
    model = ScriptedModel(list(story.texts), name="openai:strong")

    async def work() -> RunResult:
        agent = LLMCompiler(
            TRAVEL_TOOLS,
            model,
            store=store,
            today=lambda: datetime.date(2030, 4, 20),
            **options,
        )
        return await agent.run(story.question)

    return run_virtual(work()), model.requests


def written_out(requests: list[Request]) -> str:
    """The prompts as a person reads them."""
    return "\n".join(
        f"######## call {number}, {message.role} ########\n{message.content.rstrip()}\n"
        for number, request in enumerate(requests, 1)
        for message in request.messages
    )


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_the_prompts_of_eight_questions(story: Story) -> None:
    store = RunStore(":memory:")
    result, requests = tell(story, store)
    assert result.answer == story.answer
    assert len(requests) == len(story.texts)  # two calls, four with a replan
    last_prompt = requests[-1].messages[-1].content
    assert [text for text in story.seen if text not in last_prompt] == []
    text, file = written_out(requests), GOLDEN / f"{story.name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")
    assert asyncio.run(replay(store, result.run)).answer == story.answer
