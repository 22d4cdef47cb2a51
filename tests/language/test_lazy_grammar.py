"""Grammars are built once for the same tools, and only where somebody reads their text."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llmcompiler import LLMCompiler, tool
from llmcompiler.language import lazy_grammar
from llmcompiler.language.grammar import action_grammar, plan_grammar
from llmcompiler.language.lazy_grammar import (
    grammar_key,
    lazy_action_grammar,
    lazy_plan_grammar,
    shared_plan_schema,
)
from llmcompiler.language.plan_schema import plan_schema
from llmcompiler.llm.endpoint import EndpointModel
from llmcompiler.testing.doubles import run_virtual
from llmcompiler.tools.base import Tool
from tests.support.fake_openai import ReceivedRequest, Reply, fake_openai


@tool
def price(item: str) -> float:
    """The price of an item."""
    return 731.0


@tool
def weight(item: str) -> float:
    """The weight of an item."""
    return 1.0


TOOLS: dict[str, Tool] = {"price": price, "weight": weight}


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The grammars and schemas that were built."""
    built: list[str] = []

    def count(name: str, build: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            built.append(name)
            return build(*arguments, **options)

        return counted

    monkeypatch.setattr(lazy_grammar, "plan_grammar", count("plan", plan_grammar))
    monkeypatch.setattr(lazy_grammar, "plan_schema", count("schema", plan_schema))
    for memory in ("_grammars", "_schemas", "_digests"):
        monkeypatch.setattr(lazy_grammar, memory, lazy_grammar._Memory(8))
    return built


def test_the_text_is_that_of_the_grammar() -> None:
    lazy = lazy_plan_grammar(TOOLS, first_id=3, earlier_ids=(1, 2))
    assert lazy.text() == plan_grammar(TOOLS, first_id=3, earlier_ids=(1, 2))
    assert lazy_action_grammar(TOOLS).text() == action_grammar(TOOLS)
    assert shared_plan_schema(TOOLS) == plan_schema(TOOLS)


def test_a_key_says_which_grammar_it_is() -> None:
    keys = {
        lazy_plan_grammar(TOOLS).key,
        lazy_plan_grammar({"price": price}).key,
        lazy_plan_grammar(TOOLS, first_id=2).key,
        lazy_plan_grammar(TOOLS, first_id=2, earlier_ids=(1,)).key,
        lazy_action_grammar(TOOLS).key,
        grammar_key(plan_grammar(TOOLS)),
    }
    assert len(keys) == 6
    assert lazy_plan_grammar(dict(TOOLS)).key == lazy_plan_grammar(TOOLS).key


def run_questions(constraint: Any, planner: str = "text", count: int = 20) -> None:
    def answer(request: ReceivedRequest) -> Reply:
        if "731" in json.dumps(request.body["messages"]):
            return Reply(['{"text": "It costs 731.", "action": "answer"}'])
        if planner == "structured":
            task = {"id": 1, "tool": "price", "args": {"item": "lamp"}}
            return Reply([json.dumps({"tasks": [task]})])
        return Reply(['1. price("lamp")\n2. join()'])

    async def main() -> None:
        async with fake_openai(answer) as server:
            model = EndpointModel("m", base_url=server.url, constraint=constraint)
            agent = LLMCompiler(
                tools=[price, weight], model=model, planner=planner, store=":memory:"
            )
            async with agent:
                asked = (agent.run(f"What does lamp {number} cost?") for number in range(count))
                for result in await asyncio.gather(*asked):
                    assert result.answer == "It costs 731."

    run_virtual(main())


def test_one_catalogue_is_built_once_for_many_questions(builds: list[str]) -> None:
    run_questions("grammar")
    assert builds == ["plan"]


def test_an_endpoint_that_takes_no_grammar_costs_none(builds: list[str]) -> None:
    run_questions("none")
    run_questions("json_schema")
    assert builds == []


def test_a_schema_is_built_once_for_many_questions(builds: list[str]) -> None:
    run_questions("json_schema", "structured")
    assert builds == ["schema"]


def test_only_the_grammars_used_last_are_remembered(builds: list[str]) -> None:
    for first_id in range(1, 10):
        lazy_plan_grammar(TOOLS, first_id=first_id).text()
    assert not lazy_plan_grammar(TOOLS, first_id=1).is_built
    assert lazy_plan_grammar(TOOLS, first_id=9).is_built
