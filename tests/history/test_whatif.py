"""Replay up to a task, and replay with other values: what is derived, and what is really called."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from llmcompiler import LLMCompiler, WhatIf, parse_plan
from llmcompiler.errors import LogError, UsageError
from llmcompiler.events import RunStarted, TaskFinished
from llmcompiler.history.replay import DivergenceError, replay
from llmcompiler.log.store import RunStore
from llmcompiler.testing.doubles import run_virtual
from llmcompiler.tools.base import tool
from tests.history.test_resume import attempt
from tests.support.forgery import forge
from tests.support.world import SHAPES, World


def record_run(tmp_path: Path, shape: str) -> tuple[Path, World]:
    path, world = tmp_path / "r.sqlite", World(SHAPES[shape])
    attempt(world, path, 10**9)
    world.effects.clear()
    world.requests.clear()
    return path, world


def ask_what_if(
    path: Path, world: World, values: dict[int, Any], until: int | None = None
) -> WhatIf:
    async def work() -> WhatIf:
        agent = LLMCompiler(world.tools(), world.model(), store=path)
        return await agent.what_if("last", values, until=until)

    before = len(RunStore(path).runs())
    result = run_virtual(work())
    assert len(RunStore(path).runs()) == before, "nothing is kept"
    return result


def test_a_run_that_asked_nobody_replays_whatever_the_texts_were() -> None:
    @tool
    async def number() -> int:
        return 3

    async def main() -> None:
        agent = LLMCompiler([number], store=":memory:")
        await agent.execute(parse_plan("1. number()\n2. join()"))
        (first, *later_events) = agent.store.events(agent.store.find("last"))
        assert isinstance(first, RunStarted)
        older_start = dataclasses.replace(first, prompts={"of another release": ""})
        log = agent.store.begin("other")
        log.append([older_start, *later_events])
        assert (await replay(agent.store, "other")).tasks == 1

    run_virtual(main())


class TestUntil:
    def test_no_more_than_the_task_is_derived(self, tmp_path: Path) -> None:
        path, _ = record_run(tmp_path, "chain")
        report = run_virtual(replay(RunStore(path), "last", until=2))
        assert report.until == 2
        assert report.state.tasks[2].value == [1]
        assert 3 not in report.state.tasks or report.state.tasks[3].status != "done"

    def test_a_task_of_a_run_that_never_ended_is_derived_too(self, tmp_path: Path) -> None:
        calm, _ = record_run(tmp_path, "chain")
        events = list(RunStore(calm).events(RunStore(calm).find("last")))
        second = [n for n, event in enumerate(events) if isinstance(event, TaskFinished)][1]
        path = tmp_path / "s.sqlite"
        attempt(World(SHAPES["chain"]), path, second)
        report = run_virtual(replay(RunStore(path), "last", until=2))
        assert report.state.tasks[2].value == [1] and report.status == "unfinished"
        with pytest.raises(LogError, match="did not finish"):
            run_virtual(replay(RunStore(path), "last"))
        with pytest.raises(LogError, match=r"task 3 of run [0-9a-f]+ did not end"):
            run_virtual(replay(RunStore(path), "last", until=3))

    def test_a_failure_and_a_skipped_task_are_ends(self, tmp_path: Path) -> None:
        path, _ = record_run(tmp_path, "failure")
        for task, status in ((1, "failed"), (3, "skipped")):
            report = run_virtual(replay(RunStore(path), "last", until=task))
            assert report.state.tasks[task].status == status

    def test_what_comes_out_differently_is_named(self, tmp_path: Path) -> None:
        path, _ = record_run(tmp_path, "chain")
        store = RunStore(path)
        forge(
            store,
            """UPDATE events SET body = replace(body, '"plan":1,"id":2', '"plan":2,"id":2')"""
            " WHERE kind = 'TaskPlanned'",
        )
        with pytest.raises(DivergenceError) as caught:
            run_virtual(replay(store, "last", until=2))
        assert caught.value.where == "task 2"

    def test_a_task_that_there_is_not_is_named(self, tmp_path: Path) -> None:
        path, _ = record_run(tmp_path, "chain")
        with pytest.raises(UsageError, match="has no task 9"):
            run_virtual(replay(RunStore(path), "last", until=9))


class TestWith:
    def test_only_calls_with_other_arguments_are_made(self, tmp_path: Path) -> None:
        path, world = record_run(tmp_path, "diamond")
        result = ask_what_if(path, world, {2: "new"})
        assert result.state.tasks[4].value == ["new", {"a": 1}]
        assert result.called == ("task 4 (work)",)
        assert result.asked == ("joiner",), "it is shown other results"
        assert [d.before for d in result.diff.tasks if d.outcomes] == [2, 4]

    def test_a_value_that_changes_nothing_calls_nothing(self, tmp_path: Path) -> None:
        path, world = record_run(tmp_path, "diamond")
        result = ask_what_if(path, world, {2: [1]})
        assert result.called == result.asked == ()
        assert result.state.answer == "the answer" and result.diff.same_values

    def test_elements_that_the_run_knows_are_not_called_again(self, tmp_path: Path) -> None:
        path, world = record_run(tmp_path, "fan-out")
        result = ask_what_if(path, world, {1: [2, 5, 3]})
        assert result.state.tasks[3].value == [2, 5, 3]
        assert result.called == ("task 2[1] (work)", "task 3[1] (work)")

    def test_a_change_that_is_levelled_out_ends_there(self) -> None:
        calls: list[int] = []

        @tool
        async def number() -> int:
            return 3

        @tool
        async def odd(n: int) -> bool:
            calls.append(n)
            return n % 2 == 1

        @tool
        async def say(odd: bool) -> str:
            calls.append(-1)
            return "odd" if odd else "even"

        async def main() -> WhatIf:
            agent = LLMCompiler([number, odd, say], store=":memory:")
            await agent.execute(parse_plan("1. number()\n2. odd($1)\n3. say($2)\n4. join()"))
            calls.clear()
            return await agent.what_if("last", {1: 5})

        result = run_virtual(main())
        assert calls == [5] and result.state.value == "odd"

    def test_it_may_be_left_after_a_task(self, tmp_path: Path) -> None:
        path, world = record_run(tmp_path, "chain")
        result = ask_what_if(path, world, {1: 7}, until=2)
        assert result.state.tasks[2].value == [7]
        assert result.called == ("task 2 (work)",) and world.effects == {"2": 1}

    def test_a_tool_that_changes_the_world_is_not_called(self) -> None:
        sent: list[str] = []

        @tool(effect="write")
        async def send(text: str) -> str:
            sent.append(text)
            return text

        @tool
        async def text() -> str:
            return "a"

        async def main(value: str) -> WhatIf:
            agent = LLMCompiler([send, text], store=":memory:")
            await agent.execute(parse_plan("1. text()\n2. send($1)\n3. join()"))
            return await agent.what_if("last", {1: value})

        result = run_virtual(main("b"))
        assert sent == ["a"]
        assert "was not called to answer a question" in str(result.state.tasks[2].failure)
        assert run_virtual(main("a")).state.value == "a", "what was sent is known"

    @pytest.mark.parametrize("is_known", [True, False])
    def test_tools_are_needed_only_for_what_is_not_known(
        self, tmp_path: Path, is_known: bool
    ) -> None:
        path, world = record_run(tmp_path, "diamond")

        async def work() -> WhatIf:
            agent = LLMCompiler([], world.model(), store=path)
            return await agent.what_if("last", {2: [1] if is_known else "new"})

        result = run_virtual(work())
        assert (result.state.tasks[4].failure is None) == is_known
        if not is_known:
            assert '"work" is not at hand' in str(result.state.tasks[4].failure)

    def test_a_model_is_opened_only_to_be_asked(self, tmp_path: Path) -> None:
        path, world = record_run(tmp_path, "diamond")

        async def work() -> WhatIf:
            agent = LLMCompiler(world.tools(), "openai:nowhere", store=path)
            return await agent.what_if("last", {2: [1]})

        assert run_virtual(work()).state.answer == "the answer"

    @pytest.mark.parametrize(
        ("values", "message"), [({}, "no value was given"), ({9: 1}, "has no task 9")]
    )
    def test_wrong_questions_are_named(
        self, tmp_path: Path, values: dict[int, Any], message: str
    ) -> None:
        path, world = record_run(tmp_path, "chain")
        with pytest.raises(UsageError, match=message):
            ask_what_if(path, world, values)
