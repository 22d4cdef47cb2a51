"""A run as a page of text, for ``show``."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from llmcompiler.history.cost import branch_cost
from llmcompiler.history.state import BranchState, CallState, PlanState, RunState, TaskState
from llmcompiler.language import print_plan
from llmcompiler.view.gantt import gantt_lines
from llmcompiler.view.text import (
    branch_text,
    cost_text,
    one_line,
    outcome_text,
    program_lines,
    progress_text,
    seconds_text,
    status_text,
    summary_text,
    task_call_text,
    tokens_text,
    value_text,
)

_VALUE_WIDTH = 240


def report_lines(state: RunState, width: int = 80) -> Iterator[str]:
    """The run from question to answer, with long values cut.

    Args:
        state: the run, complete or not.
        width: columns of the timeline.
    """
    yield from _head_lines(state)
    for plan in state.plans:
        yield ""
        yield from _plan_lines(state, plan)
    tasks = [line for task in state.tasks.values() for line in task_lines(task, state.now)]
    yield from _section("tasks", tasks)
    bars = [f"  {bar}" for bar in gantt_lines(state, width - 2)]
    yield from _section("timeline (# is the critical path)", bars)
    yield from _section("model calls", map(_call_line, state.calls.values()))
    branches = [line for item in state.branches.values() for line in _branch_lines(state, item)]
    yield from _section("reasoning branches", branches)
    yield ""
    yield summary_text(state)
    if state.answer is not None:
        yield f"answer: {state.answer}"
    if state.failure is not None:
        yield f"failure: {state.failure.message}"
        if state.failure.hint:
            yield f"  hint: {state.failure.hint}"


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    """An empty line, the title and the lines; nothing if there are no lines."""
    for number, line in enumerate(lines):
        if number == 0:
            yield ""
            yield title
        yield line


def _head_lines(state: RunState) -> Iterator[str]:
    start = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.wall))
    yield f"run {state.run}, {start}"
    if state.question is not None:
        yield f"question: {state.question}"
    for name, value in state.inputs.items():
        yield f"input {name} = {value_text(value, _VALUE_WIDTH)}"


def _plan_lines(state: RunState, plan: PlanState) -> Iterator[str]:
    yield f"plan {plan.number}" + ("" if plan.finished else " (unfinished)")
    if plan.program is not None:
        lines = program_lines(plan)
    else:
        lines = print_plan(state.plan(plan.number)).splitlines()
    yield from (f"  {line}" for line in lines)
    for diagnostic in plan.diagnostics:
        yield from (f"  {line}" for line in diagnostic.rendered.splitlines())
    for join in state.joins:
        if join.plan == plan.number and join.decision == "replan":
            yield f"  the joiner asked for another plan: {one_line(join.text)}"
        if join.plan == plan.number and join.why:
            yield f"  joined: {join.why}"


def _call_line(call: CallState) -> str:
    duration = "unfinished" if call.seconds is None else seconds_text(call.seconds)
    tokens = f", {tokens_text(call.usage).partition(', ')[2]}" if call.usage else ""
    failed = f", failed: {one_line(call.failure.message)}" if call.failure else ""
    label = f" {call.label}" if call.label else ""
    return f"  {call.call:8} {call.model}{label}  {duration}{tokens}{failed}"


def _branch_lines(state: RunState, branch: BranchState) -> Iterator[str]:
    yield f"  {branch.name}. {branch_text(branch)}"
    cost = branch_cost(branch, state.calls_of(branch.name), state.now)
    yield f"       {cost_text(cost)}"
    for note in (branch.outcome or {}).get("notes", ()):
        yield f"       note: {one_line(note)}"


def task_lines(task: TaskState, now: float) -> Iterator[str]:
    """A task: its call, arguments and outcome."""
    seconds = task.seconds(now)
    duration = f"  {seconds_text(seconds)}" if seconds is not None else ""
    extent = f"  {progress_text(task)}" if task.extent is not None else ""
    tries = f"  {task.attempts} attempts" if task.extent is None and task.attempts > 1 else ""
    yield f"  {task.id}. {task_call_text(task.task)}  {status_text(task)}{duration}{extent}{tries}"
    if task.arguments and task.dependencies:
        arguments = ", ".join(f"{key}={value_text(v, 80)}" for key, v in task.arguments.items())
        yield f"       with {one_line(arguments, _VALUE_WIDTH)}"
    if outcome := outcome_text(task, _VALUE_WIDTH):
        yield f"     {'=' if task.status == 'done' else ':'} {outcome}"
