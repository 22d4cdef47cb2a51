"""Models made of other models: one that stands in for another, one that hedges slow calls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmcompiler.errors import ModelError
from llmcompiler.llm.base import ChatModel, Completion, Request, complete
from llmcompiler.llm.composite_models import FallbackModel, HedgedModel
from llmcompiler.llm.messages import Message
from llmcompiler.testing.doubles import Answer, ScriptedModel, run_virtual

ASK = Request((Message("user", "hello"),))


def ask(model: ChatModel) -> tuple[Completion, float]:
    async def main() -> Any:
        answer = await complete(model, ASK)
        return answer, asyncio.get_running_loop().time()

    answer_and_time: tuple[Completion, float] = run_virtual(main())
    return answer_and_time


def scripted(*script: Any, name: str = "a") -> ScriptedModel:
    return ScriptedModel(list(script), name=name)


def test_the_next_model_answers_where_the_first_fails_and_is_named() -> None:
    first, second = scripted(ModelError("down")), scripted("yes", name="b")
    answer, _ = ask(FallbackModel([first, second]))
    assert (answer.text, answer.model) == ("yes", "b")


def test_half_an_answer_is_not_completed_by_another_model() -> None:
    first = scripted(Answer("half", error=ModelError("broke off")))
    second = scripted(name="b")
    with pytest.raises(ModelError, match="broke off"):
        ask(FallbackModel([first, second]))
    assert second.requests == []


def test_the_last_models_error_is_the_callers() -> None:
    with pytest.raises(ModelError, match="also down"):
        ask(FallbackModel([scripted(ModelError("down")), scripted(ModelError("also down"))]))


def test_a_model_in_time_is_asked_once() -> None:
    model = scripted(Answer("one two", chunk=4, delay=1))
    answer, now = ask(HedgedModel(model, after=2))
    assert (answer.text, now, len(model.requests)) == ("one two", 2, 1)


def test_a_slow_model_is_asked_again_and_the_slower_request_is_cancelled() -> None:
    slow, second = scripted(Answer("slow", delay=60)), scripted(Answer("quick", delay=1), name="b")
    answer, now = ask(HedgedModel(slow, 2, second))
    assert (answer.text, now) == ("quick", 3)
    assert slow.cancelled == 1


def test_the_first_request_may_still_win() -> None:
    slow, second = scripted(Answer("slow", delay=3)), scripted(Answer("late", delay=60), name="b")
    assert ask(HedgedModel(slow, 2, second)) == (
        Completion("slow", "stop", ask(scripted("slow"))[0].usage, "a"),
        3,
    )
    assert second.cancelled == 1


def test_one_failure_leaves_it_to_the_other_request_and_two_are_the_callers() -> None:
    assert ask(HedgedModel(scripted(Answer("x", delay=9)), 1, scripted(ModelError("no"))))[1] == 9
    with pytest.raises(ModelError, match="first"):
        ask(HedgedModel(scripted(ModelError("first")), 1, scripted("unused")))


def test_leaving_early_cancels_both() -> None:
    slow, second = scripted(Answer("slow", delay=60)), scripted(Answer("slow", delay=60))

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await complete(HedgedModel(slow, 1, second), ASK)

    run_virtual(main())
    assert slow.cancelled == second.cancelled == 1
