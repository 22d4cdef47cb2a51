"""When each task of a run worked, as bars of text. It must not know where the run is kept."""

from __future__ import annotations

from collections.abc import Iterator

from llmcompiler.history.critical_path import critical_path_of
from llmcompiler.history.state import RunState, TaskState
from llmcompiler.view.text import one_line, seconds_text

_MOST = 40
_NAME = 18
_LEAST = 12


def gantt_lines(state: RunState, width: int = 80) -> Iterator[str]:
    """A line for each task that started, in the order of starts; of many, the longest.

    ``=`` is a call at work, ``#`` one on the critical path. ASCII, so that it is the same in a
    terminal, a pipe and a log.

    Args:
        state: the run, complete or not.
        width: columns that a line may take.
    """
    ran = [task for task in state.tasks.values() if task.started is not None]
    if not ran or not state.now:
        return
    critical = set(critical_path_of(state).tasks)
    ran.sort(key=lambda task: -(task.seconds(state.now) or 0.0))
    kept = sorted(ran[:_MOST], key=lambda task: (task.started or 0.0, task.id))
    names = {task.id: one_line(f"{task.id} {task.task.tool}", _NAME) for task in kept}
    margin = max(map(len, names.values()))
    room = max(width - margin - 14, _LEAST)
    for task in kept:
        bar = _bar(task, state.now, room, "#" if task.id in critical else "=")
        took = seconds_text(task.seconds(state.now) or 0.0)
        yield f"{names[task.id]:{margin}} |{bar:{room}}| {took}"
    if len(ran) > _MOST:
        yield f"(the {_MOST} longest of {len(ran)})"


def _bar(task: TaskState, now: float, room: int, mark: str) -> str:
    assert task.started is not None
    end = now if task.ended is None else task.ended
    first = min(int(task.started / now * room), room - 1)
    last = max(round(end / now * room), first + 1)
    return " " * first + mark * (last - first)
