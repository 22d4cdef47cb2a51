"""Resume and fork: stopped after any record, a run ends as if nothing had happened."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmcompiler.compiler import LLMCompiler
from llmcompiler.errors import LogError, ModelError, PlanError, UsageError
from llmcompiler.events import Event, ModelStarted, RunResumed, TaskStarted
from llmcompiler.history.replay import replay
from llmcompiler.history.state import fold
from llmcompiler.language import parse_plan
from llmcompiler.limits import Limits
from llmcompiler.log.store import RunLog, RunStore
from llmcompiler.prompting.prompts import Prompts
from llmcompiler.run.result import RunResult
from llmcompiler.testing.doubles import ScriptedModel, run_virtual
from llmcompiler.tools.base import Tool, tool
from tests.support.world import SHAPES, World


class Crash(BaseException):
    """Stands for a kill: nothing may be written after it."""


class CrashingLog(RunLog):
    """A log whose process dies right after the append that keeps event number ``last``."""

    last = 10**9

    def append(self, events: Sequence[Event]) -> None:
        for event in events:
            if self._seq > type(self).last:
                raise Crash
            super().append([event])
            if self._seq > type(self).last:
                raise Crash


def attempt(
    world: World, path: Path, last: int, run: str | None = None, **options: Any
) -> RunResult | None:
    """Run, or resume, until the end or a crash after event number ``last``."""
    CrashingLog.last = last

    async def work() -> RunResult:
        options.setdefault("approver", world.approve)
        agent = LLMCompiler(world.tools(), world.model(), store=path, **options)
        begin, claim = agent.store.begin, agent.store.claim
        agent.store.begin = lambda *a, **k: crashing(begin(*a, **k))  # type: ignore[method-assign]
        agent.store.claim = lambda *a, **k: crashing(claim(*a, **k))  # type: ignore[method-assign]
        try:
            return await (agent.run("what?") if run is None else agent.resume(run))
        finally:
            agent.store.close()

    def crashing(log: RunLog) -> RunLog:
        log.__class__ = CrashingLog
        return log

    try:
        result: RunResult = run_virtual(work())
    except Crash:
        return None
    return result


def values(result: RunResult) -> dict[int, Any]:
    return {
        i: (observation.status, observation.value) for i, observation in result.observations.items()
    }


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", SHAPES)
def test_stopped_after_any_record_a_run_ends_as_if_nothing_had_happened(
    shape: str, every: int, tmp_path: Path
) -> None:
    calm = World(SHAPES[shape])
    expected = attempt(calm, tmp_path / "calm.sqlite", 10**9)
    assert expected is not None and expected.status == "answered"
    events = list(RunStore(tmp_path / "calm.sqlite").events(expected.run))
    for last in range(0, len(events) - 1, every):
        path = tmp_path / f"{last}.sqlite"
        world = World(SHAPES[shape])
        assert attempt(world, path, last) is None
        store = RunStore(path)
        started = {
            (event.task, event.index)
            for event in store.events(store.find("last"))
            if isinstance(event, TaskStarted)
        }
        recorded = fold(store.events(store.find("last")))
        before = Counter(world.effects)
        result = attempt(world, path, 10**9, "last")
        assert result is not None, f"crashed again after event {last}"
        assert (result.answer, values(result)) == (expected.answer, values(expected)), last
        done = {str(i) for i, task in recorded.tasks.items() if task.status in ("done", "failed")}
        for key, count in world.effects.items():
            most = 2 if started else 1
            assert count <= most, f"{key} ran {count} times, stopped after event {last}"
            if key in done:
                assert count == before[key], f"{key} was recorded and ran again ({last})"
        run_virtual(replay(store, "last"))
        store.close()


def test_stopped_again_and_again_a_run_still_comes_to_its_end(tmp_path: Path) -> None:
    """The worst day: no process lives for more than a few events."""
    for shape, plans in SHAPES.items():
        world, path = World(plans), tmp_path / f"{shape}.sqlite"
        attempt(world, path, 0)
        while (store := RunStore(path)).runs()[0].status != "answered":
            recorded_count = len(list(store.events(store.find("last"))))
            store.close()
            assert recorded_count < 800
            # Enough to ask again, and to get one line of a plan.
            attempt(world, path, recorded_count + 14, "last")
        run_virtual(replay(store, "last"))


def test_the_key_of_a_call_that_was_in_flight_stays_the_same(tmp_path: Path) -> None:
    path, world = tmp_path / "r.sqlite", World(SHAPES["chain"])
    attempt(world, path, 10**9)
    events = list(RunStore(path).events(RunStore(path).find("last")))
    first = next(i for i, event in enumerate(events) if isinstance(event, TaskStarted))
    path = tmp_path / "s.sqlite"
    attempt(world, path, first)
    attempt(world, path, 10**9, "last")
    store = RunStore(path)
    started = [e for e in store.events(store.find("last")) if isinstance(e, TaskStarted)]
    assert [(e.key.partition("/")[2], e.attempt) for e in started[:2]] == [("1", 1), ("1", 2)]


def test_recorded_tokens_are_not_asked_for_again(tmp_path: Path) -> None:
    path, world = tmp_path / "r.sqlite", World(SHAPES["wide"])
    calm = attempt(world, path, 10**9)
    assert calm is not None
    events = list(RunStore(path).events(calm.run))
    joining = [i for i, e in enumerate(events) if isinstance(e, ModelStarted)][1]
    path = tmp_path / "s.sqlite"
    world = World(SHAPES["wide"])
    attempt(world, path, joining - 1)
    requests_before = len(world.requests)
    attempt(world, path, 10**9, "last")
    assert len(world.requests) == requests_before + 1, "only the joiner was asked"


def run_all(work: Callable[[LLMCompiler], Any], world: World, path: Path, **options: Any) -> Any:
    async def main() -> Any:
        agent = LLMCompiler(
            world.tools(),
            options.pop("model", world.model()),
            store=path,
            approver=world.approve,
            **options,
        )
        try:
            return await work(agent)
        finally:
            agent.store.close()

    return run_virtual(main())


def test_an_endpoint_that_failed_is_asked_again(tmp_path: Path) -> None:
    path, world = tmp_path / "r.sqlite", World(SHAPES["chain"])
    down = ScriptedModel([SHAPES["chain"][0], ModelError("down")])
    failed = run_all(lambda agent: agent.run("what?"), world, path, model=down)
    assert failed.status == "failed"
    resumed = run_all(lambda agent: agent.resume("last"), world, path)
    assert resumed.answer == "the answer"
    assert set(world.effects.values()) == {1}
    run_virtual(replay(RunStore(path), "last"))


def test_a_run_that_met_a_limit_goes_on_with_a_higher_one(tmp_path: Path) -> None:
    path, world = tmp_path / "r.sqlite", World(SHAPES["chain"])
    tight = Limits(tool_calls=2)
    stopped = run_all(lambda agent: agent.run("what?"), world, path, limits=tight)
    assert stopped.status == "failed" and stopped.observations[2].status == "done"
    resumed = run_all(lambda agent: agent.resume("last", limits=Limits()), world, path)
    assert resumed.answer == "the answer" and set(world.effects.values()) == {1}


def test_an_answered_run_is_not_resumed(tmp_path: Path) -> None:
    path, world = tmp_path / "r.sqlite", World(SHAPES["chain"])
    run_all(lambda agent: agent.run("what?"), world, path)
    with pytest.raises(UsageError, match="answered already"):
        run_all(lambda agent: agent.resume("last"), world, path)


def test_a_run_that_a_recorded_failure_ended_is_not_resumed_but_forked(tmp_path: Path) -> None:
    path, world = tmp_path / "r.sqlite", World(SHAPES["chain"])
    plan = parse_plan("1. spoil(1)\n2. join($1)")
    failed = run_all(lambda agent: agent.execute(plan), world, path)
    assert failed.status == "failed"
    with pytest.raises(UsageError, match="what is recorded stays") as caught:
        run_all(lambda agent: agent.resume("last"), world, path)
    assert "fork" in caught.value.hint and world.effects == {"1": 1}


def test_a_run_that_lives_is_held_by_its_process(tmp_path: Path) -> None:
    path, world = tmp_path / "r.sqlite", World(SHAPES["chain"])

    async def resume_while_running(agent: LLMCompiler) -> None:
        running = asyncio.ensure_future(agent.run("what?"))
        await asyncio.sleep(2)
        with pytest.raises(LogError, match="is held by this process"):
            await agent.resume("last")
        await running

    run_all(resume_while_running, world, path)


def test_missing_and_changed_tools_are_named(tmp_path: Path) -> None:
    path, world = tmp_path / "r.sqlite", World(SHAPES["chain"])
    attempt(world, path, 15)

    @tool
    async def work(number: int) -> int:
        return number

    async def resume(tools: list[Tool]) -> None:
        await LLMCompiler(tools, world.model(), store=path).resume("last")

    with pytest.raises(UsageError, match='calls the tool "work", which is not at hand'):
        run_virtual(resume([]))
    with pytest.raises(UsageError, match='"work" takes other arguments'):
        run_virtual(resume([work]))


def test_listeners_of_a_resumed_run_see_all_of_it(tmp_path: Path) -> None:
    path, world = tmp_path / "r.sqlite", World(SHAPES["chain"])
    attempt(world, path, 15)
    events: list[Event] = []
    result = run_all(lambda agent: agent.resume("last", on_event=events.append), world, path)
    assert events == list(RunStore(path).events(result.run))
    assert sum(isinstance(event, RunResumed) for event in events) == 1


class TestFork:
    PLANS = SHAPES["diamond"]

    def parent(self, tmp_path: Path, plans: Sequence[str] | None = None) -> tuple[Path, World]:
        path, world = tmp_path / "r.sqlite", World(plans or self.PLANS)
        run_all(lambda agent: agent.run("what?"), world, path)
        world.effects.clear()
        return path, world

    def test_a_changed_value_is_passed_on_and_only_what_follows_runs(self, tmp_path: Path) -> None:
        path, world = self.parent(tmp_path)
        result = run_all(lambda agent: agent.fork("last", values={2: "new"}), world, path)
        assert result.observations[4].value == ["new", {"a": 1}]
        assert world.effects == {"4": 1}
        run_virtual(replay(RunStore(path), "last"))

    def test_a_changed_call_runs_in_the_place_of_the_old_one(self, tmp_path: Path) -> None:
        path, world = self.parent(tmp_path)
        result = run_all(lambda agent: agent.fork("last", calls={3: "work([$1, 7])"}), world, path)
        assert result.observations[4].value == [[1], [1, 7]]
        assert world.effects == {"3": 1, "4": 1}
        run_virtual(replay(RunStore(path), "last"))

    def test_a_start_repeats_a_task_and_what_needs_it(self, tmp_path: Path) -> None:
        path, world = self.parent(tmp_path)
        run_all(lambda agent: agent.fork("last", start=2), world, path)
        assert world.effects == {"2": 1, "4": 1}

    def test_a_change_in_the_first_plan_is_replanned(self, tmp_path: Path) -> None:
        path, world = self.parent(tmp_path, SHAPES["replan"])
        world.requests.clear()
        result = run_all(lambda agent: agent.fork("last", values={1: "FINAL b"}), world, path)
        assert result.answer == "the answer" and len(result.plans) == 1
        assert len(world.requests) == 1, "only the joiner was asked"

    def test_a_fork_of_a_fork_keeps_both_changes(self, tmp_path: Path) -> None:
        path, world = self.parent(tmp_path)
        run_all(lambda agent: agent.fork("last", calls={3: "work(7)"}), world, path)
        result = run_all(lambda agent: agent.fork("last", values={2: "new"}), world, path)
        assert result.observations[4].value == ["new", 7]
        run_virtual(replay(RunStore(path), "last"))
        second_fork = run_all(lambda agent: agent.fork("last", start=4), world, path)
        assert second_fork.observations[4].value == ["new", 7]
        run_virtual(replay(RunStore(path), "last"))

    def test_a_value_given_for_a_whole_fan_out_is_its_list(self, tmp_path: Path) -> None:
        path, world = self.parent(tmp_path, SHAPES["fan-out"])
        result = run_all(lambda agent: agent.fork("last", values={2: [7]}), world, path)
        assert result.observations[2].value == [7] == result.observations[3].value
        assert world.effects == {"3/0": 1}
        run_virtual(replay(RunStore(path), "last"))

    def test_a_value_given_for_a_task_that_was_skipped_lets_the_rest_run(
        self, tmp_path: Path
    ) -> None:
        path, world = self.parent(tmp_path, SHAPES["failure"])
        result = run_all(lambda agent: agent.fork("last", values={3: "mended"}), world, path)
        assert values(result)[3] == ("done", "mended") and values(result)[1][0] == "failed"
        run_virtual(replay(RunStore(path), "last"))

    def test_what_a_plan_that_is_written_anew_calls_is_not_mistaken_for_the_old_calls(
        self, tmp_path: Path
    ) -> None:
        """Task 3 of the second plan has its number in common with the old one, and no more."""
        path, world = self.parent(tmp_path, SHAPES["replan"])
        world.plans = [world.plans[0], "3. work(['FINAL', 'another'])\n4. join()"]
        result = run_all(lambda agent: agent.fork("last", start="join/1"), world, path)
        assert result.observations[1].value == "a" and "1" not in world.effects
        assert result.observations[3].value == ["FINAL", "another"]
        assert world.effects == {"3": 1}
        run_virtual(replay(RunStore(path), "last"))

    def test_only_the_answer_or_everything_may_be_asked_anew(self, tmp_path: Path) -> None:
        path, world = self.parent(tmp_path, SHAPES["replan"])
        world.requests.clear()
        run_all(lambda agent: agent.fork("last", start="join"), world, path)
        assert len(world.requests) == 1 and not world.effects, "the last join"
        world.requests.clear()
        run_all(lambda agent: agent.fork("last", start="plan/2"), world, path)
        assert len(world.requests) == 2 and set(world.effects) == {"3", "4"}
        world.requests.clear()
        world.effects.clear()
        run_all(lambda agent: agent.fork("last", start="plan"), world, path)
        assert len(world.requests) == 4 and set(world.effects) == {"1", "3", "4"}
        run_virtual(replay(RunStore(path), "last"))

    def test_a_change_further_down_than_what_is_written_anew_is_refused(
        self, tmp_path: Path
    ) -> None:
        path, world = self.parent(tmp_path, SHAPES["replan"])
        with pytest.raises(UsageError, match="task 3 belongs to plan 2, which is written anew"):
            run_all(lambda agent: agent.fork("last", values={1: "b", 3: "c"}), world, path)

    def test_a_run_goes_on_with_its_own_prompts_and_a_fork_takes_others(
        self, tmp_path: Path
    ) -> None:
        path, world = tmp_path / "r.sqlite", World(SHAPES["chain"])
        prompts = Prompts(guidelines=("Mine.",))
        events = run_all(lambda agent: agent.run("what?"), world, path, prompts=prompts)
        first = RunStore(path)
        planned = next(
            n for n, e in enumerate(first.events(events.run)) if isinstance(e, TaskStarted)
        )
        stopped_path = tmp_path / "s.sqlite"
        world = World(SHAPES["chain"])
        attempt(world, stopped_path, planned, prompts=prompts)
        world.requests.clear()
        attempt(world, stopped_path, 10**9, "last")
        assert "Mine." in world.requests[0].messages[0].content
        run_virtual(replay(RunStore(stopped_path), "last"))
        run_all(lambda agent: agent.fork("last", start="plan"), world, stopped_path)
        assert "Mine." not in world.requests[-2].messages[0].content
        run_virtual(replay(RunStore(stopped_path), "last"))

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({}, UsageError, "needs a place to start"),
            ({"start": 9}, UsageError, "has no task 9"),
            ({"start": "join/2"}, UsageError, "has no join/2"),
            ({"start": "jion"}, UsageError, "is no place in a run"),
            ({"calls": {3: "wrok(1)"}}, PlanError, 'unknown tool "wrok"'),
            ({"calls": {3: "work($4)"}}, PlanError, "4"),
            ({"calls": {3: "work("}}, PlanError, "work"),
        ],
    )
    def test_wrong_changes_are_named(
        self, tmp_path: Path, changes: Any, error: type[Exception], message: str
    ) -> None:
        path, world = self.parent(tmp_path)
        with pytest.raises(error, match=message):
            run_all(lambda agent: agent.fork("last", **changes), world, path)
        assert len(RunStore(path).runs()) == 1, "no trace of the fork that never was"
