"""Fork: a new run that shares another run's past up to a change, and goes its own way from there.

What does not depend on the change is taken from the parent's log, by content; what does is planned,
called and joined anew. The module must not know how a run works inside.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmcompiler.errors import UsageError
from llmcompiler.events import PlanStarted, TaskPlanned
from llmcompiler.history.recording import Recording, read_task
from llmcompiler.plan.model import Task
from llmcompiler.reasoning.request import task_of_branch
from llmcompiler.run.run import Parts
from llmcompiler.runtime.model_calls import RecordedCall

_POINT = re.compile(r"(plan|join)(?:/(\d+))?")


@dataclass(frozen=True, slots=True)
class Changes:
    """What a fork does differently.

    Attributes:
        start: what is done anew first, with all that depends on it: a task by its number, ``plan``
            or ``plan/2`` for a plan that is written anew, ``join`` or ``join/1`` for a decision
            that is made anew; a join without a number is the last. ``None`` where ``values`` and
            ``calls`` say enough.
        values: results to be taken instead of what the tasks returned, by task id.
        calls: calls to be made instead, by the id of the task that they replace.
    """

    start: int | str | None = None
    values: Mapping[int, Any] = field(default_factory=dict)
    calls: Mapping[int, Task] = field(default_factory=dict)

    @property
    def tasks(self) -> tuple[int, ...]:
        """Every task that is named."""
        start = (self.start,) if isinstance(self.start, int) else ()
        return tuple(sorted({*start, *self.values, *self.calls}))


class _Kept(NamedTuple):
    """How much of the parent's plans and decisions stays: so many, from the first."""

    plans: int
    joins: int


def forked(recording: Recording, parts: Parts, changes: Changes) -> Parts:
    """The parts of a run that starts where ``changes`` depart from the recorded one.

    Raises:
        UsageError: nothing is changed, or something that the run does not have.
    """
    planned = {event.id: event for event in recording.events if isinstance(event, TaskPlanned)}
    for task in changes.tasks:
        check_task_of(recording, task)
    kept = _kept(recording, planned, changes)
    anew = _downstream(planned, changes, kept)
    before = recording.started.origin
    given = {task: v for task, v in given_by(before).items() if task in planned}
    given = {task: v for task, v in given.items() if task not in anew} | dict(changes.values)
    edits = {
        task: call
        for task, call in edits_of(before).items()
        if task in planned and planned[task].plan <= kept.plans
    } | dict(changes.calls)
    outcomes = {
        place: outcome
        for place, outcome in recording.outcomes.items()
        if place[0] not in anew and place[0] not in given
    }
    answers = {
        call: _answer_to(recording, call, answer, kept)
        for call, answer in recording.calls().items()
        if _is_kept(call, kept, anew)
    }
    return dataclasses.replace(
        parts,
        answers=answers,
        outcomes=outcomes,
        planned={task: event.task for task, event in planned.items() if task not in anew},
        branches={
            name: branch
            for name, branch in recording.branches.items()
            if task_of_branch(name) not in anew
        },
        given=given,
        approvals={
            place: decision
            for place, decision in recording.approvals.items()
            if place in outcomes and place[0] not in anew
        },
        edits=edits,
        origin={
            "run": recording.run,
            "start": changes.start,
            "tasks": list(changes.tasks),
            "answers": list(answers),
            "values": {str(task): value for task, value in given.items()},
            "calls": {str(task): call.model_dump(mode="json") for task, call in edits.items()},
        },
    )


def check_task_of(recording: Recording, task: int) -> None:
    """Refuse a task that the run does not have.

    Raises:
        UsageError: names those that it has.
    """
    known = [event.id for event in recording.events if isinstance(event, TaskPlanned)]
    if task not in known:
        raise UsageError(
            f"run {recording.run} has no task {task}",
            hint=f"its tasks are: {', '.join(map(str, known)) or 'none'}",
        )


def _kept(recording: Recording, planned: Mapping[int, TaskPlanned], changes: Changes) -> _Kept:
    """Up to where the parent's texts serve, as far as the changes let them."""
    if not changes.tasks and changes.start is None:
        raise UsageError(
            "a fork needs a place to start from",
            hint="give --from TASK, --from plan, --from join, --set TASK=JSON or --call TASK=CALL",
        )
    plans, joins = [], []
    if isinstance(changes.start, str):
        kind, number = _point(recording, changes.start)
        plans.append(number if kind == "join" else number - 1)
        joins.append(number - 1)
    for task in changes.tasks:
        plans.append(planned[task].plan)
        joins.append(planned[task].plan - 1)
    kept = _Kept(min(plans), min(joins))
    for task in changes.tasks:
        if planned[task].plan > kept.plans:
            raise UsageError(
                f"task {task} belongs to plan {planned[task].plan}, which is written anew",
                hint=f"change no more than what plan {kept.plans} has, or fork twice",
            )
    return kept


def _point(recording: Recording, start: str) -> tuple[str, int]:
    found = _POINT.fullmatch(start)
    if found is None:
        raise UsageError(
            f"{start!r} is no place in a run",
            hint="a task's number, plan, plan/2, join or join/1",
        )
    kind, number = found.group(1), found.group(2)
    if kind == "plan" and recording.started.plan is not None:
        raise UsageError(
            f"run {recording.run} executed a saved plan, which nobody wrote",
            hint="change a task of it, or run another plan",
        )
    if kind == "join" and recording.started.question is None:
        raise UsageError(
            f"run {recording.run} has no question, so nobody joined its results",
            hint="give a task's number",
        )
    last = sum(isinstance(event, PlanStarted) for event in recording.events)
    wanted = int(number) if number else (last if kind == "join" else 1)
    if not 1 <= wanted <= last:
        raise UsageError(
            f"run {recording.run} has no {kind}/{wanted}", hint=f"it has {last} of them"
        )
    return kind, wanted


def _downstream(planned: Mapping[int, TaskPlanned], changes: Changes, kept: _Kept) -> set[int]:
    """The tasks that are done anew: those that are changed, all that needs them, later plans'."""
    # A value that is given needs no call, so its task is not done anew; all that follows is.
    anew = {task for task in changes.tasks if task not in changes.values}
    touched = set(changes.tasks)
    for task, event in planned.items():  # in the order planned, so producers come first
        if touched.intersection(event.dependencies) or event.plan > kept.plans:
            touched.add(task)
            if task not in changes.values:
                anew.add(task)
    return anew


def _is_kept(call: str, kept: _Kept, anew: set[int]) -> bool:
    """Whether a model call was made before what is changed."""
    role, number = call.split("/")[:2]
    if (task := task_of_branch(role)) is not None:
        return task not in anew
    return int(number) <= (kept.plans if role == "plan" else kept.joins)


def _answer_to(recording: Recording, call: str, answer: RecordedCall, kept: _Kept) -> RecordedCall:
    """The answer, which may count only where the same is asked again.

    A planner may ask for more while its first tasks run, and show what these came to.
    """
    role, number, *more = call.split("/")
    if role == "plan" and more and int(number) == kept.plans:
        return dataclasses.replace(answer, only_for=recording.messages(call))
    return answer


def edits_of(origin: Mapping[str, Any] | None) -> dict[int, Task]:
    """The calls that a fork replaced, from what its log says of its origin."""
    calls: Mapping[str, Any] = (origin or {}).get("calls", {})
    return {int(number): read_task(call) for number, call in calls.items()}


def given_by(origin: Mapping[str, Any] | None) -> dict[int, Any]:
    """The values that a fork was given in place of results, from what its log says."""
    values: Mapping[str, Any] = (origin or {}).get("values", {})
    return {int(number): value for number, value in values.items()}
