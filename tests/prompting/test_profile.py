"""The profile follows from the model's name, and decides what planner and joiner read."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from llmcompiler import LLMCompiler, UsageError
from llmcompiler.limits import Limits
from llmcompiler.llm.base import Request
from llmcompiler.prompting.profile import Profile, profile_for
from llmcompiler.prompting.prompts import Example, Prompts
from llmcompiler.run.result import RunResult
from llmcompiler.testing.doubles import ScriptedModel, run_virtual
from llmcompiler.tools.base import tool


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("local", "small"),
        ("local:qwen2.5-coder-1.5b", "small"),
        ("local:/models/qwen2.5-32b-instruct-q4_k_m.gguf", "strong"),
        ("native:smollm2-135m", "small"),
        ("openai:gpt-5", "strong"),
        ("openai:gpt-4.1-mini", "strong"),
        ("openai:qwen2.5-0.5b-instruct", "small"),
        ("openai:Qwen/Qwen3-4B", "small"),
        ("openai:Qwen/Qwen3-30B-A3B", "strong"),
        ("openai:mixtral-8x7b", "strong"),
        ("openai:gemma-3n-e2b-it", "small"),
        ("openai:llama3.2:3b", "small"),
        ("anthropic:claude-sonnet-4-5", "strong"),
        ("my own model", "strong"),
    ],
)
def test_a_model_is_small_if_its_name_says_so_or_it_is_embedded(model: str, name: str) -> None:
    assert profile_for(model).name == name


def test_the_budget_follows_the_context() -> None:
    assert profile_for("openai:m").result_tokens == 32_000
    assert profile_for("openai:gpt-4").result_tokens == 2_000
    assert profile_for("openai:gpt-4.1").result_tokens == 64_000
    assert profile_for("openai:m", context_tokens=8_000).result_tokens == 2_000


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no profile"):
        LLMCompiler([], profile="large", store=":memory:")
    with pytest.raises(UsageError, match="context_tokens"):
        LLMCompiler([], context_tokens=0, store=":memory:")


@tool
def page(number: int) -> dict[str, Any]:
    """A page of 5 kB."""
    return {"title": f"Page {number}", "text": "word " * 1000}


@tool
def broken(number: int) -> str:
    """Fails."""
    raise ValueError(f"<html>{'x' * 5_000_000}")


@tool(effect="write")
def send(address: str) -> str:
    """Sends a letter."""
    return "sent"


def ask(*texts: str, question: str = "q", **options: Any) -> tuple[RunResult, list[Request]]:
    model = ScriptedModel(list(texts), name=options.pop("name", "openai:m"))

    async def work() -> RunResult:
        tools = [page, broken, send]
        return await LLMCompiler(tools, model, store=":memory:", **options).run(question)

    return run_virtual(work()), model.requests


def answer(text: str, action: str = "answer") -> str:
    return json.dumps({"text": text, "action": action})


def last_prompt(requests: list[Request]) -> str:
    return requests[-1].messages[-1].content


@pytest.mark.parametrize("profile", ["small", "strong"])
@pytest.mark.parametrize("call", ["page", "broken"])
def test_three_hundred_large_results_fit_into_a_prompt(profile: str, call: str) -> None:
    plan = "".join(f"{number}. {call}({number})\n" for number in range(1, 301)) + "301. join()\n"
    limits = Limits(replans=0)
    _, requests = ask(plan, answer("done"), profile=profile, limits=limits)
    prompt = last_prompt(requests)
    assert len(prompt) < 100_000
    assert "left out)" in prompt


def test_results_that_the_join_names_are_shortened_last() -> None:
    plan = "".join(f"{number}. page({number})\n" for number in range(1, 61)) + "61. join($60)\n"
    _, requests = ask(plan, answer("done"))
    prompt = last_prompt(requests)
    assert f'"title": "Page 60", "text": "{"word " * 1000}"' in prompt
    assert '"title": "Page 1"' in prompt


def test_a_strong_model_is_asked_once_for_a_plan_and_once_for_an_answer() -> None:
    # Neither does a number of the question stand in a call, nor one of the answer in a result.
    result, requests = ask(
        "1. page(1)\n2. join()\n", answer("It is 77,777."), question="What is 31 times 2509?"
    )
    assert result.answer == "It is 77,777."
    assert len(requests) == 2


def test_a_strong_model_decides_itself_what_a_failed_plan_means() -> None:
    result, requests = ask("1. broken(1)\n2. join()\n", answer("The page cannot be read."))
    assert result.answer == "The page cannot be read."
    assert len(requests) == 2


def test_a_small_model_is_shown_what_it_was_shown_before() -> None:
    plan = "1. page(1)\n2. join()\n"
    _, requests = ask(plan, answer("done"), name="local:tiny-1b")
    system = requests[0].messages[0].content
    assert "page(number: int) -> dict  # A page of 5 kB." in system
    assert "Today" not in system
    assert [message.role for message in requests[0].messages].count("assistant") == 2


def test_no_example_is_invented_for_a_strong_model_and_none_that_writes_for_a_small_one() -> None:
    plan = "1. join()\n"
    _, requests = ask(plan, answer("done"))
    assert [message.role for message in requests[0].messages] == ["system", "user"]
    _, requests = ask(plan, answer("done"), profile="small")
    examples = [message.content for message in requests[0].messages if message.role == "assistant"]
    assert not any("send(" in example for example in examples)


def test_the_users_own_texts_and_examples_stay() -> None:
    own = Example(question="Read page 3.", plan="1. page(3)\n2. join()")
    prompts = Prompts(examples=(own,), joiner="Be brief. {guidelines}")
    _, requests = ask("1. join()\n", answer("done"), prompts=prompts)
    assert [message.content for message in requests[0].messages[1:3]] == [
        "Question: Read page 3.",
        own.plan,
    ]
    assert requests[1].messages[0].content == "Be brief. "


def test_planner_and_joiner_have_profiles_of_their_own() -> None:
    planner = ScriptedModel(["1. page(1)\n2. join()\n"], name="local:tiny-1b")
    joiner = ScriptedModel([answer("done")], name="openai:m")

    async def work() -> RunResult:
        agent = LLMCompiler([page], planner_model=planner, joiner_model=joiner, store=":memory:")
        return await agent.run("q")

    run_virtual(work())
    assert "def page" not in planner.requests[0].messages[0].content
    assert '"text": "word word' in joiner.requests[0].messages[-1].content


def test_the_day_of_a_run_is_recorded() -> None:
    model = ScriptedModel(["1. page(1)\n2. join()\n", answer("done")], name="openai:m")

    async def work() -> tuple[str, Any]:
        agent = LLMCompiler(
            [page], model, store=":memory:", today=lambda: datetime.date(2030, 4, 20)
        )
        result = await agent.run("q")
        return result.run, next(iter(agent.store.events(result.run)))

    _, started = run_virtual(work())
    assert started.today == "2030-04-20"
    assert started.profiles["planner"] == Profile.strong().model_dump()
    for request in model.requests:
        assert "Today is Saturday, 2030-04-20." in request.messages[0].content


@pytest.mark.parametrize("planner", ["react", "function-calling", "structured", "drafts"])
def test_every_planner_shows_what_the_author_wrote(planner: str) -> None:
    texts = {
        "react": ["Answer: done"],
        "function-calling": ["done"],
        "structured": ['{"tasks": []}', answer("done")],
        "drafts": ["1. join()\n", "done", answer("done")],
    }
    result, requests = ask(*texts[planner], planner=planner)
    assert result.answer == "done"
    first = requests[0]
    shown = first.messages[0].content + "".join(map(str, first.functions))
    assert "Writes: a call changes something outside." in shown
    assert "Today is" in first.messages[0].content
