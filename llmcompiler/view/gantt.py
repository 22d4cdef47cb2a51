"""A timeline of a run's tasks, as bars of text."""

from __future__ import annotations

from collections.abc import Iterator

from llmcompiler.history.critical_path import critical_path_of
from llmcompiler.history.state import RunState, TaskState
from llmcompiler.view.text import one_line, seconds_text

_MOST_TASKS = 40
_NAME_WIDTH = 18
_LEAST_BAR_WIDTH = 12


def gantt_lines(state: RunState, width: int = 80) -> Iterator[str]:
    """One line for each started task, in the order of starts; of many tasks, only the longest.

    ``=`` marks a running call, ``#`` a call on the critical path. The lines are ASCII, so they look
    the same in a terminal, a pipe and a log.

    Args:
        state: the run, complete or not.
        width: columns of a line at most.
    """
    started = [task for task in state.tasks.values() if task.started is not None]
    if not started or not state.now:
        return
    critical = set(critical_path_of(state).tasks)
    started.sort(key=lambda task: -(task.seconds(state.now) or 0.0))
    tasks = sorted(started[:_MOST_TASKS], key=lambda task: (task.started or 0.0, task.id))
    names = {task.id: one_line(f"{task.id} {task.task.tool}", _NAME_WIDTH) for task in tasks}
    margin = max(map(len, names.values()))
    room = max(width - margin - 14, _LEAST_BAR_WIDTH)
    for task in tasks:
        bar = _bar(task, state.now, room, "#" if task.id in critical else "=")
        duration = seconds_text(task.seconds(state.now) or 0.0)
        yield f"{names[task.id]:{margin}} |{bar:{room}}| {duration}"
    if len(started) > _MOST_TASKS:
        yield f"(the {_MOST_TASKS} longest of {len(started)})"


def _bar(task: TaskState, now: float, room: int, mark: str) -> str:
    assert task.started is not None
    end = now if task.ended is None else task.ended
    first = min(int(task.started / now * room), room - 1)
    last = max(round(end / now * room), first + 1)
    return " " * first + mark * (last - first)
