"""Which tasks a run's length depended on: the critical path, and the slack of every other task.

This is the computation of the critical path method (Kelley and Walker, 1959) over measured
durations. A task's earliest start follows from the durations of the tasks that it needs, its latest
start from the end of the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmcompiler.history.state import RunState
from llmcompiler.runtime.results import Observation


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """What a run's length depended on.

    Attributes:
        tasks: the ids along the longest path of data dependencies, first to last.
        seconds: how long that path takes; no number of slots makes the run shorter.
        slack: for each task that ran, by how many seconds it could have taken longer without
            making the run longer, had there been enough slots.
    """

    tasks: tuple[int, ...]
    seconds: float
    slack: dict[int, float]


def critical_path(observations: Mapping[int, Observation]) -> CriticalPath:
    """The critical path of a run. Tasks that never started do not count.

    Args:
        observations: by task id, as in ``RunResult.observations``.
    """
    started_tasks = {
        task_id: observation
        for task_id, observation in sorted(observations.items())
        if observation.started is not None
    }
    # Of each task the earliest end, the dependency that its start waits for, and the dependents.
    earliest_ends: dict[int, float] = {}
    predecessor: dict[int, int] = {}
    dependents: dict[int, list[int]] = {task_id: [] for task_id in started_tasks}
    for task_id, observation in started_tasks.items():
        start = 0.0
        for dependency in observation.task.dependencies:
            if dependency in started_tasks:
                dependents[dependency].append(task_id)
                if task_id not in predecessor or earliest_ends[dependency] > start:
                    predecessor[task_id], start = dependency, earliest_ends[dependency]
        earliest_ends[task_id] = start + observation.seconds
    end = max(earliest_ends.values(), default=0.0)
    latest_ends: dict[int, float] = {}
    for task_id in reversed(started_tasks):
        latest_ends[task_id] = min(
            (latest_ends[user] - started_tasks[user].seconds for user in dependents[task_id]),
            default=end,
        )
    path: list[int] = []
    last = max(earliest_ends, key=earliest_ends.__getitem__, default=None)
    while last is not None:
        path.append(last)
        last = predecessor.get(last)
    slack = {
        task_id: max(0.0, latest_ends[task_id] - earliest_ends[task_id])
        for task_id in started_tasks
    }
    return CriticalPath(tuple(reversed(path)), end, slack)


def critical_path_of(state: RunState) -> CriticalPath:
    """The critical path of a run so far; a task that goes on counts until now."""
    return critical_path(
        {
            task.id: Observation(
                task.task,
                "done",
                started=task.started,
                seconds=task.seconds(state.now) or 0.0,
            )
            for task in state.tasks.values()
        }
    )
