"""Random plans, random failures, random stops: what must hold of every log and every resume."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings, strategies as st

from llmcompiler.events import (
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
from llmcompiler.testing.doubles import run_virtual
from tests.history.test_resume import attempt, values
from tests.support.world import World


@st.composite
def plans(draw: st.DrawFn) -> str:
    """A plan of calls that work, that fail or that somebody must agree to, and fan-outs."""
    lines = []
    for task in range(1, draw(st.integers(1, 7)) + 1):
        earlier = draw(st.sets(st.integers(1, task - 1), max_size=2)) if task > 1 else set()
        items = ", ".join([str(task), *(f"${dep}" for dep in sorted(earlier))])
        seconds = draw(st.integers(0, 3))
        kind = draw(st.sampled_from(["work", "work", "work", "spoil", "sign"]))
        if kind != "work":
            lines.append(f"{task}. {kind}([{items}])")
        else:
            lines.append(f"{task}. work([{items}], seconds={seconds})")
    if draw(st.booleans()):
        over = len(lines) + 1
        lines.append(f"{over}. work([4, 0, 2])")
        lines.append(f"{over + 1}. work(${over}[*], seconds=${over}[*])")
    # Where all failed, the joiner plans again, and this world's planner does not write the same
    # second plan when it was interrupted in it.
    lines.append(f"{len(lines) + 1}. work('at least this')")
    lines.append(f"{len(lines) + 1}. join()")
    return "\n".join(lines)


def check_log(events: list[Event]) -> None:
    """One end a call; nothing starts before what it needs has ended; nothing twice at once."""
    needs = {e.id: e.dependencies for e in events if isinstance(e, TaskPlanned)}
    aligned = {e.id: "[*]" in str(e.task) for e in events if isinstance(e, TaskPlanned)}
    ended: Counter[tuple[int, tuple[int, ...]]] = Counter()
    done: set[int] = set()
    for event in events:
        match event:
            case TaskStarted():
                if not aligned[event.task]:
                    assert set(needs[event.task]) <= done, f"{event} before its inputs"
                assert not ended[event.task, event.index], f"{event} after its end"
            case TaskFinished() | TaskFailed() | TaskSkipped():
                ended[event.task, event.index] += 1
                if isinstance(event, TaskFinished) and not event.index:
                    done.add(event.task)
            case _:
                assert not isinstance(event, TaskCancelled)
    assert all(count == 1 for count in ended.values()), ended


def has_ended(path: Path) -> bool:
    """Whether the log holds the end of the run."""
    store = RunStore(path)
    last = list(store.events(store.find("last")))[-1]
    store.close()
    return isinstance(last, RunFinished)


@settings(max_examples=12, deadline=None)
@given(plans(), st.lists(st.integers(1, 60), max_size=3), st.integers(1, 12))
def test_whatever_is_planned_and_wherever_it_stops(plan: str, stops: list[int], chunk: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        calm = attempt(World([plan], chunk), Path(folder) / "calm.sqlite", 10**9)
        assert calm is not None
        world, path = World([plan], chunk), Path(folder) / "stopped.sqlite"
        result, run, last = None, None, 0
        for more in stops:
            last += more
            if result is None:
                result = attempt(world, path, last, run)
                run = "last"
                if result is None and has_ended(path):
                    return  # the process died behind the run's end: nothing is left to go on with
        if result is None:
            result = attempt(world, path, 10**9, run)
        assert result is not None
        assert (result.status, result.answer) == (calm.status, calm.answer)
        assert values(result) == values(calm)
        store = RunStore(path)
        events = list(store.events(result.run))
        check_log(events)
        live = RunState()
        for event in events:
            live.apply(event)
        assert {i: task.status for i, task in live.tasks.items()} == {
            i: observation.status for i, observation in result.observations.items()
        }
        assert fold(events).answer == result.answer
        starts = Counter(e.key for e in events if isinstance(e, TaskStarted))
        resumes = sum(isinstance(event, RunResumed) for event in events)
        assert all(count <= 1 + resumes for count in starts.values())
        run_virtual(replay(store, result.run))
        store.close()
