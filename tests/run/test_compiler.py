"""Whole runs with a scripted model: streaming, replanning, broken planners, ends, replay."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from llmcompiler import __version__
from llmcompiler.compiler import LLMCompiler
from llmcompiler.errors import LogError, ModelError, PlanError, UsageError
from llmcompiler.events import (
    Event,
    Joined,
    LimitHit,
    PlanDiagnosed,
    RunFinished,
    RunStarted,
    TaskFinished,
    TaskStarted,
)
from llmcompiler.history.replay import DivergenceError, replay
from llmcompiler.language import parse_plan
from llmcompiler.limits import Limits
from llmcompiler.log.store import RunStore
from llmcompiler.prompting.prompts import Prompts
from llmcompiler.run.result import RunResult
from llmcompiler.testing.doubles import Answer, ScriptedModel, run_virtual
from llmcompiler.tools.base import tool
from tests.support.forgery import forge


@tool
async def search(entity: str) -> dict[str, Any]:
    """Find facts about an entity."""
    await asyncio.sleep(1)
    return {"name": entity, "size": len(entity)}


@tool
def add(a: float, b: float) -> float:
    """Add two numbers."""
    return a + b


@tool
async def broken(entity: str) -> str:
    """Never works."""
    raise RuntimeError(f"no {entity} today")


@tool
async def say(value: Any) -> Any:
    """Give the value back."""
    return value


def no_bang(parameter: str, pieces: Sequence[str]) -> str | None:
    """A check of a tool's own, of which a log holds only what it said."""
    return "it shouts" if any("!" in piece for piece in pieces) else None


@tool(lint=no_bang)
def whisper(text: str, also: str = "") -> str:
    """Say it quietly."""
    return text.lower() + also.lower()


TOOLS = [search, add, broken, say, whisper]


def answer(text: str) -> str:
    return json.dumps({"action": "answer", "text": text})


def replan(reason: str) -> str:
    return json.dumps({"action": "replan", "text": reason})


def compiler(script: Any, **options: Any) -> LLMCompiler:
    options.setdefault("store", ":memory:")
    return LLMCompiler(TOOLS, ScriptedModel(script), **options)


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        before = asyncio.all_tasks()
        result = await work()
        assert asyncio.all_tasks() == before, "a task outlived its run"
        return result

    return run_virtual(main())


def run_and_replay(script: Any, **options: Any) -> tuple[RunResult, list[Event]]:
    """Run a question, replay it from its log, and give the result and its events."""

    async def work() -> tuple[RunResult, list[Event]]:
        agent = compiler(script, **options)
        events: list[Event] = []
        result = await agent.run("what?", on_event=events.append)
        assert list(agent.store.events(result.run)) == events, "what was told is what was kept"
        if not any(isinstance(event, LimitHit) for event in events):
            report = await replay(agent.store, result.run)
            assert report.answer == result.answer
        return result, events

    result_and_events: tuple[RunResult, list[Event]] = run(work)
    return result_and_events


def events_of(events: Sequence[Event], kind: type[Event]) -> list[Any]:
    return [event for event in events if type(event) is kind]


PLAN = '1. search("ab")\n2. search("abc")\n3. add($1.size, $2.size)\n4. join()'


def test_a_question_is_planned_executed_and_answered() -> None:
    result, events = run_and_replay([PLAN, answer("It is 5 (five).\nReally.")])
    assert (result.status, result.answer) == ("answered", "It is 5 (five).\nReally.")
    assert result.observations[3].value == 5
    assert result.usage.calls == 2
    assert result.plan is not None and [task.id for task in result.plan.tasks] == [1, 2, 3]
    assert isinstance(events[0], RunStarted) and isinstance(events[-1], RunFinished)


def test_a_task_starts_when_its_closing_parenthesis_arrives() -> None:
    """One character a tenth of a second: the first call starts while the planner goes on."""
    text = PLAN + "\n" + "Thought: " + "." * 20
    closing = PLAN.index(")") + 1

    async def work() -> tuple[list[Any], list[Any]]:
        agent = compiler([Answer(PLAN, chunk=1, delay=0.1), answer("5")])
        events: list[Event] = []
        await agent.run("what?", on_event=events.append)
        return events_of(events, TaskStarted), events_of(events, TaskFinished)

    started, finished = run(work)
    assert text.startswith(PLAN)
    assert started[0].task == 1
    assert started[0].at == pytest.approx(closing * 0.1)
    assert finished[0].at == pytest.approx(closing * 0.1 + 1)
    assert finished[0].at < len(PLAN) * 0.1, "it was done before the plan was"


def test_a_plan_that_needs_no_tools_is_answered_directly() -> None:
    result, _ = run_and_replay(["1. join()", answer("Hello.")])
    assert result.answer == "Hello." and result.observations == {}


def test_replanning_goes_on_counting_and_sees_earlier_results() -> None:
    result, events = run_and_replay(
        [
            '1. search("ab")\n2. join()',
            replan("the second size is missing"),
            '3. search("abcd")\n4. add($1.size, $3.size)\n5. join()',
            answer("6"),
        ]
    )
    assert result.answer == "6"
    assert result.observations[4].value == 6
    assert [join.decision for join in events_of(events, Joined)] == ["replan", "answer"]
    assert len(result.plans) == 2


def test_the_last_round_must_answer() -> None:
    result, events = run_and_replay(
        ["1. join()", replan("more"), "2. join()", replan("still more")], limits=Limits(replans=1)
    )
    assert result.status == "answered"
    assert [join.decision for join in events_of(events, Joined)] == ["replan", "answer"]


def test_a_tool_that_raises_reaches_the_joiner_and_its_sibling_goes_on() -> None:
    model = ScriptedModel(
        ['1. broken("milk")\n2. search("ab")\n3. say($1)\n4. join()', answer("partly")]
    )

    async def work() -> RunResult:
        return await LLMCompiler(TOOLS, model, store=":memory:").run("what?")

    result = run(work)
    assert result.status == "answered"
    assert {i: observation.status for i, observation in result.observations.items()} == {
        1: "failed",
        2: "done",
        3: "skipped",
    }
    assert "no milk today" in model.requests[-1].messages[-1].content


def test_an_unknown_tool_mid_stream_is_repaired_and_costs_nothing_else() -> None:
    result, events = run_and_replay(
        [
            '1. search("ab")\n2. serch("abc")\n3. join()',
            '2. search("abc")\n3. add($1.size, $2.size)\n4. join()',
            answer("5"),
        ]
    )
    assert result.observations[3].value == 5
    assert any(
        'did you mean "search"' in diagnostic.rendered
        for diagnostic in events_of(events, PlanDiagnosed)
    )
    assert len(events_of(events, TaskStarted)) == 3, "the task before the mistake ran once"


def test_all_that_is_wrong_with_a_call_is_told_and_found_again_by_a_replay() -> None:
    result, events = run_and_replay(
        [
            '1. search("ab")\n2. whisper("a $1.name b!", also="!", loud=True)\n3. join()',
            '2. whisper("a $1.name b")\n3. join()',
            answer("so"),
        ]
    )
    assert result.observations[2].value == "a ab b"
    assert sorted(diagnostic.code for diagnostic in events_of(events, PlanDiagnosed)) == [
        "E303",
        "E309",
        "E309",
    ]
    assert {
        diagnostic.linted
        for diagnostic in events_of(events, PlanDiagnosed)
        if diagnostic.code == "E309"
    } == {
        ("whisper", "text", "it shouts", "a ", " b!"),
        ("whisper", "also", "it shouts", "!"),
    }


def test_a_planner_that_dies_mid_stream_is_asked_to_go_on() -> None:
    dead = Answer('1. search("ab")\n2. sear', error=ModelError("gone", retryable=True), chunk=3)
    result, _ = run_and_replay([dead, "2. add($1.size, 1)\n3. join()", answer("3")])
    assert (result.answer, result.observations[2].value) == ("3", 3)


def test_a_planner_that_is_refused_fails_the_run_with_the_endpoints_words() -> None:
    result, _ = run_and_replay([ModelError("bad key", hint="set OPENAI_API_KEY")])
    assert result.status == "failed" and result.answer is None
    assert result.failure is not None
    assert (result.failure.blame, result.failure.message) == ("model", "bad key")


def test_a_planner_that_writes_no_plan_fails_the_run_after_its_repairs() -> None:
    result, _ = run_and_replay(["I cannot."] * 3, limits=Limits(repairs=2))
    assert result.status == "failed"
    assert result.failure is not None and result.failure.blame == "plan"


def test_a_joiner_that_dies_keeps_the_results() -> None:
    result, _ = run_and_replay([PLAN, ModelError("gone")])
    assert result.status == "failed" and result.observations[3].value == 5


def test_a_deadline_ends_the_run_in_time_with_what_it_has() -> None:
    result, events = run_and_replay(
        ['1. say(1)\n2. search("ab")\n3. join()'], limits=Limits(deadline=0.5)
    )
    assert result.status == "failed" and result.seconds == pytest.approx(0.5)
    assert result.observations[1].value == 1 and result.observations[2].status == "cancelled"
    assert [hit.limit for hit in events_of(events, LimitHit)] == ["deadline"]


@pytest.mark.parametrize("limit", ["model_calls", "tokens"])
def test_a_limit_on_the_model_stops_the_next_call(limit: str) -> None:
    result, _ = run_and_replay([PLAN], limits=Limits.parse({limit: "1"}))
    assert result.status == "failed"
    assert result.failure is not None and result.failure.message.endswith(f"{limit}=1")
    assert result.observations[3].value == 5


def test_cancelling_a_run_drains_it_and_records_the_end() -> None:
    async def work() -> RunStore:
        agent = compiler(['1. search("ab")\n2. join()'])
        task = asyncio.ensure_future(agent.run("what?"))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return agent.store

    store = run(work)
    (summary,) = store.runs()
    assert summary.status == "interrupted"


def test_stream_yields_every_event_and_ends_with_the_run() -> None:
    async def work() -> list[Event]:
        agent = compiler([PLAN, answer("5")])
        return [event async for event in agent.stream("what?")]

    events = run(work)
    assert isinstance(events[0], RunStarted) and isinstance(events[-1], RunFinished)


def test_leaving_the_stream_cancels_the_run() -> None:
    async def work() -> str:
        agent = compiler([PLAN])
        stream = agent.stream("what?")
        async for event in stream:
            if isinstance(event, TaskStarted):
                break
        await stream.aclose()  # type: ignore[attr-defined]
        return agent.store.runs()[0].status

    assert run(work) == "interrupted"


def test_many_runs_share_a_compiler_and_know_nothing_of_each_other() -> None:
    async def work() -> list[RunResult]:
        def script(request: Any) -> str:
            last = request.messages[-1].content
            number = last.split("number ")[1].split("?")[0]
            if "results" in last:
                return answer(number)
            return f"1. say({number})\n2. search($1)\n2. join()"

        agent = compiler(script)
        return list(await asyncio.gather(*(agent.run(f"number {n}?") for n in range(50))))

    results = run(work)
    assert [result.answer for result in results] == [str(n) for n in range(50)]
    assert len({result.run for result in results}) == 50


def test_planner_and_joiner_may_be_different_models() -> None:
    async def work() -> tuple[int, int]:
        planner, joiner = ScriptedModel([PLAN]), ScriptedModel([answer("5")])
        agent = LLMCompiler(TOOLS, planner_model=planner, joiner_model=joiner, store=":memory:")
        await agent.run("what?")
        return len(planner.requests), len(joiner.requests)

    assert run(work) == (1, 1)


def test_plan_executes_nothing() -> None:
    async def work() -> Any:
        agent = compiler([PLAN])
        plan = await agent.plan("what?")
        return plan, agent.store.runs()

    plan, runs = run(work)
    assert len(plan.tasks) == 3 and plan.join is not None and runs == []


class TestSavedPlans:
    def execute(self, text: str, inputs: dict[str, Any] | None = None, script: Any = ()) -> Any:
        async def work() -> RunResult:
            agent = compiler(script)
            result = await agent.execute(parse_plan(text), inputs)
            await replay(agent.store, result.run)
            return result

        return run(work)

    def test_a_plan_without_a_question_needs_no_model(self) -> None:
        result = self.execute("1. add(1, 2)\n2. add($1, 3)\n3. join()")
        assert (result.value, result.answer, result.usage.calls) == (6, "6.0", 0)

    def test_its_value_is_what_join_names(self) -> None:
        result = self.execute("1. add(1, 2)\n2. add($1, 3)\n3. join($1, $2)")
        assert result.value == {"1": 3, "2": 6}

    def test_inputs_are_bound(self) -> None:
        text = 'input name: string\ninput n: number = 1\n1. say("hi $name")\n2. join()'
        assert self.execute(text, {"name": "Ada"}).value == "hi Ada"

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ({}, 'needs a value for its input "name"'),
            ({"name": 3}, 'input "name" must be of type string, not 3'),
            ({"name": "x", "nam": 1}, 'no input "nam"'),
            ({"name": "x", "n": True}, 'input "n" must be of type number'),
        ],
    )
    def test_inputs_are_checked_before_anything_runs(
        self, inputs: dict[str, Any], message: str
    ) -> None:
        text = "input name: string\ninput n: number = 1\n1. say($name)\n2. join()"
        with pytest.raises(UsageError, match=message):
            self.execute(text, inputs)

    def test_a_question_is_joined(self) -> None:
        text = 'question "how long is $name?"\ninput name\n1. search($name)\n2. join()'
        result = self.execute(text, {"name": "Ada"}, [answer("3")])
        assert result.answer == "3"

    def test_a_plan_that_does_not_fit_the_tools_runs_nothing(self) -> None:
        with pytest.raises(PlanError, match="unknown tool"):
            self.execute("1. subtract(1, 2)\n2. join()")

    def test_a_failed_result_fails_the_run(self) -> None:
        result = self.execute('1. broken("milk")\n2. join()')
        assert result.status == "failed" and "no milk today" in result.failure.message


class TestReplay:
    def changed(self, change: str) -> str:
        """Replay a run whose log was changed by an SQL statement, and sealed again."""

        async def work() -> str:
            agent = compiler([PLAN, answer("5")])
            result = await agent.run("what?")
            forge(agent.store, change)
            with pytest.raises((DivergenceError, LogError)) as caught:
                await replay(agent.store, result.run)
            return caught.value.message

        message: str = run(work)
        return message

    def test_a_changed_answer_is_named(self) -> None:
        message = self.changed(
            'UPDATE events SET body = replace(body, \'"answer":"5"\', \'"answer":"6"\')'
            " WHERE kind = 'RunFinished'"
        )
        assert message.startswith("run: answer is '5', but the log holds '6'")

    async def test_what_another_release_showed_to_models_is_not_compared(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It may have worded it otherwise; what was decided is compared all the same."""
        agent = compiler([PLAN, answer("5")])
        result = await agent.run("what?")
        monkeypatch.setattr("llmcompiler.planners.text.describe_tools", lambda *_: "(other words)")
        with pytest.raises(DivergenceError, match="call plan/1: request"):
            await replay(agent.store, result.run)
        monkeypatch.setattr("llmcompiler.history.replay.VERSION", "99.0")
        report = await replay(agent.store, result.run)
        assert (report.answer, report.other_release) == ("5", __version__)
        changed = 'replace(body, \'"answer":"5"\', \'"answer":"6"\')'
        forge(agent.store, f"UPDATE events SET body = {changed} WHERE kind = 'RunFinished'")
        with pytest.raises(DivergenceError, match="run: answer"):
            await replay(agent.store, result.run)

    async def test_a_run_from_before_plans_were_looked_at_again_replays(self) -> None:
        agent = compiler([PLAN, answer("5")], prompts=Prompts(unused=""))
        result = await agent.run("How long are ab and case 67890?")
        (first, *later_events) = agent.store.events(result.run)
        assert isinstance(first, RunStarted)
        prompts = {name: text for name, text in first.prompts.items() if name != "unused"}
        agent.store.begin("before").append(
            [dataclasses.replace(first, prompts=prompts), *later_events]
        )
        assert (await replay(agent.store, "before")).answer == "5"

    def test_a_changed_plan_text_is_named(self) -> None:
        message = self.changed(
            "UPDATE events SET body = replace(body, 'abc', 'abcd') WHERE kind = 'ModelText'"
        )
        assert message.startswith("task 2: call is")

    def test_a_missing_result_is_named(self) -> None:
        message = self.changed(
            "DELETE FROM events WHERE kind = 'TaskFinished' AND place & 0xff < 12"
        )
        assert "task" in message

    def test_an_interrupted_run_is_refused(self) -> None:
        message = self.changed("DELETE FROM events WHERE kind = 'RunFinished'")
        assert "did not finish" in message


def test_run_sync_answers_and_refuses_to_nest() -> None:
    agent = compiler([PLAN, answer("5")])
    assert agent.run_sync("what?").answer == "5"

    async def nested() -> None:
        with pytest.raises(UsageError, match="event loop runs"):
            agent.run_sync("what?")

    asyncio.run(nested())


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question_is_refused(question: str) -> None:
    with pytest.raises(UsageError, match="question is empty"):
        run(lambda: compiler([]).run(question))
