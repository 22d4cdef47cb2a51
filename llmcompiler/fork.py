"""Fork: a new run that shares another run's past up to a change, and goes its own way from there.

What does not depend on the change is taken from the parent's log, by content; what does is planned,
called and joined anew. The module must not know how a run works inside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmcompiler.errors import UsageError
from llmcompiler.events import TaskFinished, TaskPlanned
from llmcompiler.plan import Task
from llmcompiler.recording import Recording, read_task
from llmcompiler.run import Parts


@dataclass(frozen=True, slots=True)
class Changes:
    """What a fork does differently.

    Attributes:
        start: the first task that is done anew, with all that depends on it; ``None`` where
            ``values`` and ``calls`` say enough.
        values: results to be taken instead of what the tasks returned, by task id.
        calls: calls to be made instead, by the id of the task that they replace.
    """

    start: int | None = None
    values: Mapping[int, Any] = field(default_factory=dict)
    calls: Mapping[int, Task] = field(default_factory=dict)

    @property
    def tasks(self) -> tuple[int, ...]:
        """Every task that is named."""
        start = (self.start,) if self.start is not None else ()
        return tuple(sorted({*start, *self.values, *self.calls}))


def forked(recording: Recording, parts: Parts, changes: Changes) -> Parts:
    """The parts of a run that starts where ``changes`` depart from the recorded one.

    Raises:
        UsageError: nothing is changed, or a task that the run does not have.
    """
    planned = {event.id: event for event in recording.events if isinstance(event, TaskPlanned)}
    for task in changes.tasks:
        if task not in planned:
            known = ", ".join(map(str, planned)) or "none"
            raise UsageError(
                f"run {recording.run} has no task {task}", hint=f"its tasks are: {known}"
            )
    if not changes.tasks:
        raise UsageError(
            "a fork needs a place to start from", hint="give --from TASK or --set TASK=JSON"
        )
    anew = _downstream(planned, changes)
    # A value that is given needs no call, so its task is not made anew; all that follows is.
    outcomes = {
        place: outcome
        for place, outcome in recording.outcomes.items()
        if place[0] not in anew and place[0] not in changes.values
    }
    for task, value in changes.values.items():
        outcomes[task, ()] = TaskFinished(at=0.0, task=task, index=(), value=value, seconds=0.0)
    first = min(planned[task].plan for task in changes.tasks)
    return dataclasses.replace(
        parts,
        answers={
            call: answer for call, answer in recording.calls().items() if _is_before(call, first)
        },
        outcomes=outcomes,
        approvals={
            place: decision
            for place, decision in recording.approvals.items()
            if place in recording.outcomes and place[0] not in anew
        },
        edits={**edits_of(recording.started.origin), **changes.calls},
        origin={
            "run": recording.run,
            "tasks": list(changes.tasks),
            "values": {str(task): value for task, value in changes.values.items()},
            "calls": {str(t): call.model_dump(mode="json") for t, call in changes.calls.items()},
        },
    )


def _downstream(planned: Mapping[int, TaskPlanned], changes: Changes) -> set[int]:
    """The tasks that are done anew: those that are changed, and all that needs them."""
    anew = {task for task in changes.tasks if task not in changes.values}
    touched = set(changes.tasks)
    for task, event in planned.items():  # in the order planned, so producers come first
        if touched.intersection(event.dependencies):
            touched.add(task)
            if task not in changes.values:
                anew.add(task)
    return anew


def _is_before(call: str, plan: int) -> bool:
    """Whether a model call was made before anything of plan number ``plan`` was executed."""
    role, number = call.split("/")[:2]
    return int(number) <= plan if role == "plan" else int(number) < plan


def edits_of(origin: Mapping[str, Any] | None) -> dict[int, Task]:
    """The calls that a fork replaced, from what its log says of its origin."""
    calls: Mapping[str, Any] = (origin or {}).get("calls", {})
    return {int(number): read_task(call) for number, call in calls.items()}
