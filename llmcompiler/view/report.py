"""A run as a page of text, for ``show``. It must not know where the run is kept."""

from __future__ import annotations

import time
from collections.abc import Iterator

from llmcompiler.history.cost import branch_cost
from llmcompiler.history.state import RunState, TaskState
from llmcompiler.language import print_plan
from llmcompiler.view.gantt import gantt_lines
from llmcompiler.view.text import (
    branch_text,
    call_text,
    cost_text,
    one_line,
    outcome_text,
    progress_text,
    seconds_text,
    summary_text,
    tokens_text,
    value_text,
)

_VALUE = 240


def report_lines(state: RunState, width: int = 80) -> Iterator[str]:
    """The run from question to answer, long values cut; its timeline in ``width`` columns."""
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.wall))
    yield f"run {state.run}, {began}"
    if state.question is not None:
        yield f"question: {state.question}"
    for name, value in state.inputs.items():
        yield f"input {name} = {value_text(value, _VALUE)}"
    for plan in state.plans:
        yield ""
        yield f"plan {plan.number}" + ("" if plan.finished else " (unfinished)")
        yield from (f"  {line}" for line in print_plan(state.plan(plan.number)).splitlines())
        for found in plan.diagnostics:
            yield from (f"  {line}" for line in found.rendered.splitlines())
        for join in state.joins:
            if join.plan == plan.number and join.decision == "replan":
                yield f"  the joiner asked for another plan: {one_line(join.text)}"
            if join.plan == plan.number and join.why:
                yield f"  joined: {join.why}"
    if state.tasks:
        yield ""
        yield "tasks"
        for task in state.tasks.values():
            yield from task_lines(task, state.now)
    if bars := list(gantt_lines(state, width - 2)):
        yield ""
        yield "timeline (# is the critical path)"
        yield from (f"  {bar}" for bar in bars)
    if state.calls:
        yield ""
        yield "model calls"
        for call in state.calls.values():
            took = "unfinished" if call.seconds is None else seconds_text(call.seconds)
            tokens = f", {tokens_text(call.usage).partition(', ')[2]}" if call.usage else ""
            failed = f", failed: {one_line(call.failure.message)}" if call.failure else ""
            label = f" {call.label}" if call.label else ""
            yield f"  {call.call:8} {call.model}{label}  {took}{tokens}{failed}"
    if state.branches:
        yield ""
        yield "reasoning branches"
        for branch in state.branches.values():
            yield f"  {branch.name}. {branch_text(branch)}"
            cost = branch_cost(branch, state.calls_of(branch.name), state.now)
            yield f"       {cost_text(cost)}"
            for note in (branch.outcome or {}).get("notes", ()):
                yield f"       note: {one_line(note)}"
    yield ""
    yield summary_text(state)
    if state.answer is not None:
        yield f"answer: {state.answer}"
    if state.failure is not None:
        yield f"failure: {state.failure.message}"
        if state.failure.hint:
            yield f"  hint: {state.failure.hint}"


def task_lines(task: TaskState, now: float) -> Iterator[str]:
    """A task: the call, what it got and what it gave."""
    seconds = task.seconds(now)
    took = f"  {seconds_text(seconds)}" if seconds is not None else ""
    extent = f"  {progress_text(task)}" if task.extent is not None else ""
    tries = f"  {task.attempts} attempts" if task.extent is None and task.attempts > 1 else ""
    yield f"  {task.id}. {call_text(task.task)}  {task.status}{took}{extent}{tries}"
    if task.arguments and task.dependencies:
        given = ", ".join(f"{key}={value_text(v, 80)}" for key, v in task.arguments.items())
        yield f"       with {one_line(given, _VALUE)}"
    if outcome := outcome_text(task, _VALUE):
        yield f"     {'=' if task.status == 'done' else ':'} {outcome}"
