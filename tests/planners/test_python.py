"""The program planner: statements start at once, mistakes are mended, answers count."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from llmcompiler.compiler import LLMCompiler
from llmcompiler.history.replay import replay
from llmcompiler.llm.base import Completion, Request, Usage
from llmcompiler.log.store import RunStore
from llmcompiler.planners.program_examples import select_programs
from llmcompiler.planners.python import PythonPlanner
from llmcompiler.planners.stubs import stubs
from llmcompiler.programs.program import CompiledStatement
from llmcompiler.prompting.prompts import Prompts
from llmcompiler.testing.doubles import Answer, ScriptedModel
from llmcompiler.tools.base import tool
from llmcompiler.tools.loading import load_tools
from tests.planners.test_text import context

GOOD = 'c = country("Chad")\nanswer = c.capital\n'
JOINED = '{"text": "joined", "action": "answer"}'


async def ask(*texts: str, chunk: int = 0) -> tuple[Any, ScriptedModel]:
    model = ScriptedModel([Answer(text, chunk=chunk) for text in texts])
    async with LLMCompiler(model=model, planner="python", tools=["geo"], store=":memory:") as agent:
        return await agent.run("What is it?"), model


@pytest.mark.parametrize("chunk", [0, 1, 7])
async def test_a_program_that_assigns_its_answer_needs_no_joiner(chunk: int) -> None:
    result, model = await ask(GOOD, chunk=chunk)
    assert (result.answer, result.value, len(model.requests)) == ("N'Djamena", "N'Djamena", 1)


async def test_an_answer_from_both_blocks_of_a_condition_counts() -> None:
    text = (
        'if country("Chad").population > 1:\n    answer = country("Chad").iso2\n'
        'else:\n    answer = country("Mali").iso2'
    )
    result, _ = await ask(text)
    assert result.answer == "TD"


async def test_the_joiner_is_asked_where_the_answer_is_open() -> None:
    result, model = await ask('c = country("Chad")\n', JOINED)
    assert (result.answer, len(model.requests)) == ("joined", 2)


async def test_fences_and_prose_are_left_out() -> None:
    result, _ = await ask(f"Here is it:\n```python\n{GOOD}```\nThat is all.")
    assert result.answer == "N'Djamena"


async def test_the_rest_is_asked_for_from_the_valid_prefix() -> None:
    bad = 'c = country("Chad")\nanswer = c.capitol\n'
    result, model = await ask(bad, "answer = c.capital\n")
    assert result.answer == "N'Djamena"
    shown = model.requests[-1].messages[-1].content
    assert 'c = country("Chad")' in shown
    assert 'did you mean "capital"?' in shown
    assert len(result.plan.tasks) == 1


async def test_a_program_that_begins_anew_calls_nothing_twice() -> None:
    result, _ = await ask('c = country("Chad")\nanswer = c.capitol\n', GOOD)
    assert (result.answer, len(result.plan.tasks)) == ("N'Djamena", 1)


async def test_a_program_that_failed_is_followed_by_another() -> None:
    result, model = await ask('answer = country("Atlantis").capital\n', GOOD)
    assert result.answer == "N'Djamena"
    shown = model.requests[-1].messages[-1].content
    assert "Atlantis" in shown and "no country" in shown


async def test_a_valid_prefix_is_joined_where_no_repair_is_left() -> None:
    bad = "answer = c.capitol\n"
    result, _ = await ask('c = country("Chad")\n' + bad, bad, bad, JOINED)
    assert result.answer == "joined"


async def test_a_call_starts_while_the_model_writes_the_next_line() -> None:
    received: list[object] = []

    async def write(request: Request) -> AsyncIterator[str | Completion]:
        yield 'c = country("Chad")\n'
        assert [type(item) for item in received] == [CompiledStatement]
        yield "answer = c.capital"
        yield Completion(text="", finish="stop", usage=Usage(), model="scripted")

    async for item in PythonPlanner().plan(context(ScriptedModel([]), ask=write)):
        received.append(item)
    assert len(received) == 2


async def test_a_run_replays_without_a_call(tmp_path: Path) -> None:
    store = tmp_path / "runs.sqlite"
    bad = 'c = country("Chad")\nanswer = c.capitol\n'
    model = ScriptedModel([Answer(bad), Answer("answer = c.capital\n")])
    async with LLMCompiler(model=model, planner="python", tools=["geo"], store=str(store)) as agent:
        result = await agent.run("What is it?")
    report = await replay(RunStore(store), result.run)
    assert report.answer == "N'Djamena"


def test_stubs_show_records_as_classes() -> None:
    text = stubs(load_tools(("geo",)))
    assert "class Country:" in text and "    neighbours: list[str]" in text
    assert "def country(name: str) -> Country:" in text


def test_no_example_calls_a_tool_that_writes() -> None:
    @tool(effect="write")
    def country(name: str) -> str:
        """Found a country."""
        return name

    @tool
    def size(name: str) -> int:
        """How large it is."""
        return len(name)

    examples = select_programs(Prompts(), {"country": country, "size": size})
    called = {name for example in examples for name in example.calls()}
    assert "country" not in called and "size" in called


@pytest.mark.parametrize("chunk", [0, 1, 7])
@pytest.mark.parametrize(
    "text",
    [
        "<think>\npay(1)\n</think>\nanswer = pay(2)\n",
        "pay(1)\npay(3)\n</think>\nanswer = pay(2)\n",
        "paid = 1\npay(paid)\n</think>\n```python\nanswer = pay(2)\n```",
    ],
)
async def test_a_write_in_a_thought_is_not_made(text: str, chunk: int) -> None:
    paid: list[int] = []

    @tool(effect="write")
    async def pay(amount: int) -> int:
        """Pay an amount."""
        paid.append(amount)
        return amount

    model = ScriptedModel([Answer(text, chunk=chunk)])
    async with LLMCompiler([pay], model, planner="python", store=":memory:") as agent:
        result = await agent.run("Pay 2.")
    assert (result.answer, paid) == ("2", [2])


async def test_writes_behind_a_mistake_are_made_once() -> None:
    paid: list[int] = []

    @tool(effect="write")
    async def pay(amount: int) -> int:
        """Pay an amount."""
        paid.append(amount)
        return amount

    texts = ["pay(1)\nx = nothing(2)\n", "pay(1)\nanswer = pay(2)\n"]
    model = ScriptedModel([Answer(text) for text in texts])
    async with LLMCompiler([pay], model, planner="python", store=":memory:") as agent:
        result = await agent.run("Pay 1, then 2.")
    assert (result.answer, paid) == ("2", [1, 2])
