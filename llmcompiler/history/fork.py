"""Fork: a new run that shares another run's past up to a change, and goes its own way from there.

Whatever does not depend on the change comes from the parent's log. Whatever depends on it is
planned, called and joined again.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmcompiler.errors import PlanError, UsageError
from llmcompiler.events import PlanStarted
from llmcompiler.history.run_history import RunHistory, read_task
from llmcompiler.language import parse_plan
from llmcompiler.passes.check import check_task
from llmcompiler.plan.model import Task
from llmcompiler.reasoning.request import task_of_branch
from llmcompiler.run.config import RecordedInputs
from llmcompiler.runtime.model_calls import RecordedCall
from llmcompiler.tools.base import Tool

_START = re.compile(r"(plan|join)(?:/(\d+))?")


@dataclass(frozen=True, slots=True)
class Changes:
    """What a fork does differently.

    Attributes:
        start: what is done again first, with all that depends on it: a task by its number, ``plan``
            or ``plan/2`` to have a plan written again, ``join`` or ``join/1`` to have a decision
            made again. A join without a number is the last one. ``None`` if ``values`` and
            ``calls`` say enough.
        values: overridden results by task id.
        calls: calls to make, by the id of the task that they replace.
    """

    start: int | str | None = None
    values: Mapping[int, Any] = field(default_factory=dict)
    calls: Mapping[int, Task] = field(default_factory=dict)

    @property
    def tasks(self) -> tuple[int, ...]:
        """Every task that is named."""
        start = (self.start,) if isinstance(self.start, int) else ()
        return tuple(sorted({*start, *self.values, *self.calls}))


class _SharedPast(NamedTuple):
    """How many of the parent's plans and decisions the fork takes over, counted from the first."""

    plans: int
    joins: int


def fork_inputs(history: RunHistory, changes: Changes) -> RecordedInputs:
    """What a fork of the recorded run has on record before it starts.

    Raises:
        UsageError: nothing is changed, or the run does not have a task or place that is named.
    """
    planned_tasks = history.planned_tasks
    for task in changes.tasks:
        history.check_task(task)
    for task in changes.values:
        state = history.state.tasks[task]
        if state.is_growing and state.extent is not None:
            raise UsageError(
                f"task {task} is a call in a loop of a program, so it has no single result",
                hint=f"give --from {task} to make its calls again, or change what they read",
            )
    shared_past = _shared_past(history, changes)
    repeated_tasks = _repeated_tasks(history, changes, shared_past)
    overridden_results = {
        task: value
        for task, value in history.overridden_results.items()
        if task in planned_tasks and task not in repeated_tasks
    } | dict(changes.values)
    replaced_calls = {
        task: call
        for task, call in history.replaced_calls.items()
        if task in planned_tasks and planned_tasks[task].plan <= shared_past.plans
    } | dict(changes.calls)
    outcomes = {
        call_id: outcome
        for call_id, outcome in history.outcomes.items()
        if call_id[0] not in repeated_tasks and call_id[0] not in overridden_results
    }
    completions = {
        call: _bound_to_request(call, completion, shared_past)
        for call, completion in history.completions.items()
        if _is_shared(call, shared_past, repeated_tasks)
    }
    return RecordedInputs(
        recorded_completions=completions,
        outcomes=outcomes,
        approvals={
            call_id: decision
            for call_id, decision in history.approvals.items()
            if call_id in outcomes
        },
        branches={
            name: branch
            for name, branch in history.branches.items()
            if task_of_branch(name) not in repeated_tasks
        },
        overridden_results=overridden_results,
        replaced_calls=replaced_calls,
        parent_calls={
            task: event.task for task, event in planned_tasks.items() if task not in repeated_tasks
        },
        origin={
            "run": history.run,
            "start": changes.start,
            "tasks": list(changes.tasks),
            "answers": list(completions),
            "values": {str(task): value for task, value in overridden_results.items()},
            "calls": {
                str(task): call.model_dump(mode="json") for task, call in replaced_calls.items()
            },
        },
    )


def read_call(history: RunHistory, number: int, text: str, tools: Mapping[str, Tool]) -> Task:
    """Read and check a call that replaces the call of task ``number``.

    Args:
        history: what the log of the forked run holds.
        number: the task's id.
        text: the call as plan text without a number: ``country("Spain")``.
        tools: by name.

    Raises:
        PlanError: the text cannot be read, or does not fit the tools.
    """
    earlier_tasks: list[Task] = []
    for task_id, event in history.planned_tasks.items():
        if task_id == number:
            break
        earlier_tasks.append(read_task(event.task))
    parsed = parse_plan(f"{number}. {text}", earlier_ids=[task.id for task in earlier_tasks])
    produced: dict[int, Any] = {}
    for task in earlier_tasks:
        check_task(task, tools=tools, result_types=produced)
    checked, diagnostics = check_task(parsed.tasks[0], tools=tools, result_types=produced)
    errors = tuple(diagnostic for diagnostic in diagnostics if diagnostic.severity == "error")
    if errors:
        raise PlanError("the call does not fit the tools", diagnostics=errors)
    return checked


def _shared_past(history: RunHistory, changes: Changes) -> _SharedPast:
    """How far the fork takes over the parent's plans and decisions.

    Raises:
        UsageError: nothing is changed, or a changed task belongs to a plan that is written again.
    """
    if not changes.tasks and changes.start is None:
        raise UsageError(
            "a fork needs a place to start from",
            hint="give --from TASK, --from plan, --from join, --set TASK=JSON or --call TASK=CALL",
        )
    plans, joins = [], []
    if isinstance(changes.start, str):
        kind, number = _read_start(history, changes.start)
        plans.append(number if kind == "join" else number - 1)
        joins.append(number - 1)
    for task in changes.tasks:
        plans.append(history.planned_tasks[task].plan)
        joins.append(history.planned_tasks[task].plan - 1)
    shared_past = _SharedPast(min(plans), min(joins))
    for task in changes.tasks:
        plan = history.planned_tasks[task].plan
        if plan > shared_past.plans:
            raise UsageError(
                f"task {task} belongs to plan {plan}, which is written anew",
                hint=f"change no more than what plan {shared_past.plans} has, or fork twice",
            )
    return shared_past


def _read_start(history: RunHistory, start: str) -> tuple[str, int]:
    """``plan`` or ``join``, and its number."""
    match = _START.fullmatch(start)
    if match is None:
        raise UsageError(
            f"{start!r} is no place in a run",
            hint="a task's number, plan, plan/2, join or join/1",
        )
    kind, digits = match.group(1), match.group(2)
    if kind == "plan" and history.start.plan is not None:
        raise UsageError(
            f"run {history.run} executed a saved plan, which nobody wrote",
            hint="change a task of it, or run another plan",
        )
    if kind == "join" and history.start.question is None:
        raise UsageError(
            f"run {history.run} has no question, so nobody joined its results",
            hint="give a task's number",
        )
    last = sum(isinstance(event, PlanStarted) for event in history.events)
    number = int(digits) if digits else (last if kind == "join" else 1)
    if not 1 <= number <= last:
        raise UsageError(f"run {history.run} has no {kind}/{number}", hint=f"it has {last} of them")
    return kind, number


def _repeated_tasks(history: RunHistory, changes: Changes, shared_past: _SharedPast) -> set[int]:
    """The changed tasks, their dependents, and every task of later plans.

    A task whose result is overridden is left out, because it makes no call.
    """
    affected_tasks = set(changes.tasks)
    for task, event in history.planned_tasks.items():  # producers come before their dependents
        if affected_tasks.intersection(event.dependencies) or event.plan > shared_past.plans:
            affected_tasks.add(task)
    return affected_tasks - changes.values.keys()


def _is_shared(call: str, shared_past: _SharedPast, repeated_tasks: set[int]) -> bool:
    """True if a model call was made before the change, so that the fork takes it over."""
    role, number = call.split("/")[:2]
    if (task := task_of_branch(role)) is not None:
        return task not in repeated_tasks
    return int(number) <= (shared_past.plans if role == "plan" else shared_past.joins)


def _bound_to_request(
    call: str, completion: RecordedCall, shared_past: _SharedPast
) -> RecordedCall:
    """The completion, valid only for its own messages if these may differ in the fork.

    A planner may go on asking while its first tasks run, and show their results to the model.
    """
    role, number, *further_calls = call.split("/")
    if role == "plan" and further_calls and int(number) == shared_past.plans:
        assert completion.request is not None
        return dataclasses.replace(completion, required_messages=completion.request["messages"])
    return completion
