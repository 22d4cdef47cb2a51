"""Random plans, faults, kills, resumes and forks in any order, and what holds after each of them.

Of every log, after every step: a task has one end; what starts has its inputs in the log; the state
that was followed live is the fold over what is recorded. And however often a run was killed, it
ends as its calm twin does, and replays.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from llmcompiler.compiler import LLMCompiler
from llmcompiler.events import (
    ApprovalAsked,
    Event,
    RunFinished,
    RunResumed,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskPlanned,
    TaskSkipped,
    TaskStarted,
)
from llmcompiler.history.replay import replay
from llmcompiler.history.state import RunState, fold
from llmcompiler.log.store import RunStore
from llmcompiler.run.result import RunResult
from llmcompiler.testing.doubles import run_virtual
from tests.history.test_resume import Crash, CrashingLog, values
from tests.history.test_resume_properties import plans
from tests.support.world import World


class Follower:
    """Somebody who watches a run."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.state = RunState()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.state.apply(event)


@dataclass
class Life:
    """A run, and what became of it so far.

    Attributes:
        world: in which it runs, and whose effects it counts.
        live: who watched it last.
        calm: how the same ends undisturbed.
        forced: results that were given, not made.
    """

    run: str
    world: World
    calm: RunResult
    live: Follower
    forced: dict[int, Any] = field(default_factory=dict)
    result: RunResult | None = None


class RunMachine(RuleBasedStateMachine):
    """Runs in one store; any of them may be killed, resumed and forked at any time."""

    lives = Bundle("lives")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "runs.sqlite"
        self._all: list[Life] = []

    def teardown(self) -> None:
        self._folder.cleanup()

    # Steps.

    @rule(target=lives, plan=plans(), chunk=st.integers(1, 12), last=st.integers(1, 80))
    def begin(self, plan: str, chunk: int, last: int) -> Life:
        """A question, whose process is killed after event number ``last``, if it comes so far."""
        calm = self._carried_out(World([plan], chunk), ":memory:", 10**9, Follower())
        assert calm is not None
        world, live = World([plan], chunk), Follower()
        result = self._carried_out(world, self._path, last, live)
        return self._born(Life(self._newest(), world, calm, live, result=result))

    @rule(life=lives, more=st.integers(1, 40))
    def resume(self, life: Life, more: int) -> None:
        """The run goes on, for some more events or to its end."""
        events = self._events(life)
        if any(isinstance(event, RunFinished) for event in events):
            return  # its process may have been killed after that
        recorded_count = len(events)
        life.live = Follower()
        life.result = self._carried_out(
            life.world, self._path, recorded_count + more, life.live, resume=life.run
        )

    @rule(target=lives, life=lives, data=st.data(), last=st.integers(1, 80))
    def fork(self, life: Life, data: st.DataObject, last: int) -> Life:
        """Another result of a task, and what follows from it, killed at some time as well."""
        planned = [e.id for e in self._events(life) if isinstance(e, TaskPlanned)]
        if not planned or life.result is None:
            return life
        task = data.draw(st.sampled_from(planned))
        changes = {task: data.draw(st.sampled_from([0, "x", [2, 1]]))}
        world = World(life.world.plans, life.world.chunk)
        calm = self._forked(World(world.plans, world.chunk), life, changes, 10**9, Follower())
        assert calm is not None
        twin = self._newest()
        live = Follower()
        result = self._forked(world, life, changes, last, live)
        if self._newest() == twin:
            return life  # it was killed before anything of it was recorded
        forced = {**life.forced, **changes}
        return self._born(Life(self._newest(), world, calm, live, forced, result))

    # What holds after each.

    @invariant()
    def every_log_is_sound(self) -> None:
        for life in self._all:
            events = self._events(life)
            self._check_ends(events)
            self._check_inputs(events, life.forced)
            followed = life.live.events
            assert followed == events[: len(followed)], "what was told is what is recorded"
            assert fold(followed) == life.live.state
            if life.result is not None:
                assert len(followed) == len(events), "nothing is left to tell"

    @invariant()
    def nothing_recorded_ran_again(self) -> None:
        for life in self._all:
            events = self._events(life)
            resumes = sum(isinstance(event, RunResumed) for event in events)
            starts = Counter(e.key.partition("/")[2] for e in events if isinstance(e, TaskStarted))
            questions = (e for e in events if isinstance(e, ApprovalAsked))
            # Asked again without another record: the question is in the log already.
            starts.update({f"ask/{e.task}": 1 + resumes for e in questions})
            for key, count in life.world.effects.items():
                assert count <= starts[key] <= 1 + resumes, key

    @invariant()
    def what_ended_ended_as_if_undisturbed(self) -> None:
        for life in self._all:
            if life.result is not None:
                assert life.result.answer == life.calm.answer
                assert values(life.result) == values(life.calm)

    @rule(life=lives)
    def derive_again(self, life: Life) -> None:
        """What ended replays."""
        if life.result is not None:
            store = RunStore(self._path)
            run_virtual(replay(store, life.run))
            store.close()

    # How.

    def _born(self, life: Life) -> Life:
        self._all.append(life)
        return life

    def _events(self, life: Life) -> list[Event]:
        store = RunStore(self._path)
        try:
            return list(store.events(life.run))
        finally:
            store.close()

    def _newest(self) -> str:
        store = RunStore(self._path)
        try:
            return store.find("last")
        finally:
            store.close()

    @staticmethod
    def _check_ends(events: list[Event]) -> None:
        ends = Counter(
            (event.task, event.index)
            for event in events
            if isinstance(event, TaskFinished | TaskFailed | TaskSkipped | TaskCancelled)
        )
        assert all(count == 1 for count in ends.values()), ends

    @staticmethod
    def _check_inputs(events: list[Event], forced: dict[int, Any]) -> None:
        needs: dict[int, tuple[int, ...]] = {}
        elementwise: set[int] = set()
        done: set[int] = set()
        for event in events:
            match event:
                case TaskPlanned():
                    needs[event.id] = event.dependencies
                    if "[*]" in str(event.task):
                        elementwise.add(event.id)
                case TaskStarted() if event.task not in elementwise:
                    assert set(needs[event.task]) <= done, f"{event} before its inputs"
                case TaskFinished(index=()):
                    done.add(event.task)

    def _carried_out(
        self, world: World, path: Path | str, last: int, live: Follower, resume: str | None = None
    ) -> RunResult | None:
        def work(agent: LLMCompiler) -> Any:
            if resume is None:
                return agent.run("what?", on_event=live)
            return agent.resume(resume, on_event=live)

        return self._until_killed(world, path, last, work)

    def _forked(
        self, world: World, life: Life, changes: dict[int, Any], last: int, live: Follower
    ) -> RunResult | None:
        return self._until_killed(
            world,
            self._path,
            last,
            lambda agent: agent.fork(life.run, values=changes, on_event=live),
        )

    @staticmethod
    def _until_killed(world: World, path: Path | str, last: int, work: Any) -> RunResult | None:
        """Do the work in a process that dies after event number ``last`` of its run."""

        async def main() -> RunResult:
            agent = LLMCompiler(world.tools(), world.model(), store=path, approver=world.approve)
            begin, claim = agent.store.begin, agent.store.claim

            def crashing(log: Any) -> Any:
                log.__class__ = CrashingLog
                return log

            agent.store.begin = lambda *a: crashing(begin(*a))  # type: ignore[method-assign]
            agent.store.claim = lambda *a, **k: crashing(claim(*a, **k))  # type: ignore[method-assign]
            try:
                result: RunResult = await work(agent)
                return result
            finally:
                agent.store.close()

        CrashingLog.last = last
        try:
            return run_virtual(main())
        except Crash:
            return None


quick = settings(
    max_examples=6,
    stateful_step_count=8,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_runs_that_are_killed_resumed_and_forked_at_random() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(RunMachine, settings=quick)


@pytest.mark.slow
def test_many_runs_that_are_killed_resumed_and_forked_at_random() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    many = settings(quick, max_examples=50, stateful_step_count=12)
    run_state_machine_as_test(RunMachine, settings=many)
