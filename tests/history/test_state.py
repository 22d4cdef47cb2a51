"""What is known of a run after some of its events."""

from __future__ import annotations

import dataclasses

import pytest

from llmcompiler.events import (
    ModelStarted,
    ModelText,
    PlanFinished,
    PlanStarted,
    RunFinished,
    RunResumed,
    TaskPlanned,
    event_from_json,
)
from llmcompiler.history.state import RunState, fold
from llmcompiler.llm.base import Usage
from llmcompiler.plan.expressions import Input, Reference, Template
from tests.support.stories import NO_COUNTRY, RUN, dense_japan, run_started, task_planned, troubled


def test_a_run_that_has_not_begun_is_running_and_empty() -> None:
    state = RunState()
    assert (state.status, state.tasks, state.plans, state.run) == ("running", {}, [], "")


def test_an_answered_run() -> None:
    state = fold(dense_japan())
    assert (state.run, state.status, state.answer) == (RUN, "answered", "332 people per km²")
    assert state.question == "How dense is Japan?"
    assert state.now == 2.6
    assert [decision.decision for decision in state.joins] == ["answer"]


def test_a_task_keeps_what_it_was_called_with_and_what_came_of_it() -> None:
    task = fold(dense_japan()).tasks[2]
    assert task.status == "done"
    assert task.arguments == {"expression": "125000000 / 377000"}
    assert task.value == pytest.approx(331.56, abs=0.01)
    assert (task.started, task.ended, task.attempts) == (2.0, 2.1, 1)
    assert task.seconds(99.0) == pytest.approx(0.1)


def test_a_running_task_ages_and_a_waiting_one_does_not() -> None:
    state = fold(dense_japan()[:8])
    assert state.tasks[1].status == "running"
    assert state.tasks[1].seconds(3.0) == 2.5
    assert state.tasks[2].status == "planned"
    assert state.tasks[2].seconds(3.0) is None


def test_references_of_a_task_are_read_and_escaped_dollars_are_not() -> None:
    events = [
        run_started(inputs={"city": "Oslo"}),
        PlanStarted(0.0, 1),
        task_planned(0.0, 1, "price", "$$1 in $city"),
        task_planned(0.0, 2, "say", "$1 costs $$3", {"$ref": "$1.name"}, deps=(1,)),
    ]
    first, second = (fold(events).tasks[n].task for n in (1, 2))
    assert first.args == (Template(parts=("$1 in ", Input(name="city"))),)
    assert second.args[0] == Template(parts=(Reference(task=1), " costs $3"))
    assert second.args[1] == Reference(task=1, path=("name",))


def test_model_calls_add_up() -> None:
    state = fold(dense_japan())
    assert state.usage == Usage(160, 40, 39, 2)
    assert state.calls["join/1"].text == '{"answer": "332 people per km²"}'
    assert (state.calls["plan/1"].seconds, state.calls["plan/1"].pieces) == (1.2, 2)


def test_the_plan_is_there_as_text_while_it_is_written_and_as_a_plan() -> None:
    state = fold(dense_japan()[:6])
    assert state.plans[0].text == '1. country("Japan")\n'
    assert not state.plans[0].finished
    assert [task.id for task in state.plan().tasks] == [1]
    state = fold(dense_japan())
    plan = state.plan(1)
    assert [task.id for task in plan.tasks] == [1, 2]
    assert plan.join is not None and (plan.join.id, plan.join.on) == (3, ())


def test_a_replan_refers_to_tasks_of_the_plan_before_it() -> None:
    events = [
        *dense_japan()[:-1],
        PlanStarted(3.0, 2),
        TaskPlanned(3.0, 2, 4, {"id": 4, "tool": "calc", "args": ["$2 * 2"]}, (2,)),
        PlanFinished(3.0, 2, 1, (2, 4)),
    ]
    plan = fold(events).plan()
    assert plan.earlier == (2,)
    assert plan.join is not None and plan.join.id == 5


def test_a_run_without_a_plan_has_none() -> None:
    with pytest.raises(LookupError):
        fold([run_started()]).plan()
    with pytest.raises(LookupError):
        fold(dense_japan()).plan(2)


def test_a_repair_starts_on_a_line_of_its_own() -> None:
    events = [
        run_started(),
        PlanStarted(0.0, 1),
        ModelStarted(0.0, "plan/1", "planner", "m", {}),
        ModelText(0.0, "plan/1", '1. country("Japan'),
        ModelStarted(0.0, "plan/1/2", "planner", "m", {}),
        ModelText(0.0, "plan/1/2", '1. country("Japan")'),
    ]
    assert fold(events).plans[0].text.splitlines() == ['1. country("Japan', '1. country("Japan")']


def test_trouble_is_told_apart() -> None:
    tasks = fold(troubled()).tasks
    assert {n: task.status for n, task in tasks.items()} == {
        1: "failed",
        2: "skipped",
        3: "done",
        4: "cancelled",
        5: "cancelled",
    }
    assert (tasks[1].failure, tasks[1].attempts) == (NO_COUNTRY, 2)
    assert tasks[2].because == 1
    assert tasks[4].reason == "the run was interrupted"
    assert (tasks[4].extent, tasks[4].done, tasks[4].failed) == (3, 1, 1)


def test_a_call_that_will_be_made_again_waits() -> None:
    state = fold(troubled()[:6])
    task = state.tasks[1]
    assert task.status == "waiting"
    assert task.failure is not None and task.failure.message == "busy"
    assert state.tasks[1].started == 0.3


def test_an_interrupted_run() -> None:
    state = fold(troubled())
    assert state.status == "interrupted"
    assert state.failure is not None and state.failure.type == "Interrupted"
    assert state.plans[0].diagnostics[0].code == "E203"


def test_a_resumed_run_goes_on_with_what_had_not_ended() -> None:
    state = fold([*troubled(), RunResumed(2.0, "host:1", {"tokens": 9}, ())])
    assert (state.status, state.failure, state.limits) == ("running", None, {"tokens": 9})
    assert [task.status for task in state.tasks.values()] == [
        "failed",
        "skipped",
        "done",
        "planned",
        "planned",
    ]


def test_a_saved_plan_without_a_question_ends_with_a_value() -> None:
    state = fold([run_started(None), RunFinished(1.0, "answered", "[1]", [1], None)])
    assert (state.question, state.value) == (None, [1])


@pytest.mark.parametrize("story", [dense_japan, troubled])
def test_a_trip_through_json_changes_nothing(story: object) -> None:
    events = story()  # type: ignore[operator]
    assert fold(
        event_from_json(type(event).__name__, dataclasses.asdict(event)) for event in events
    ) == fold(events)
