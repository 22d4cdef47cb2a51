"""Which calls a run's length hung on: the critical path, and the slack of everything else.

The classic computation of the critical path method (Kelley and Walker, 1959) over what was
measured: a task's earliest start follows from the durations of those it needs, its latest from the
end of the run. The module must not know how results are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmcompiler.history.state import RunState
from llmcompiler.runtime.observation import Observation


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """What a run's length hung on.

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
    """The critical path of a run from how its tasks ended; those that never started do not count.

    Args:
        observations: by task id, as in ``RunResult.observations``.
    """
    ran = {
        task_id: seen for task_id, seen in sorted(observations.items()) if seen.started is not None
    }
    finish: dict[int, float] = {}
    before: dict[int, int] = {}
    users: dict[int, list[int]] = {task_id: [] for task_id in ran}
    for task_id, seen in ran.items():
        start = 0.0
        for dep in seen.task.dependencies:
            if dep in ran:
                users[dep].append(task_id)
                if task_id not in before or finish[dep] > start:
                    before[task_id], start = dep, finish[dep]
        finish[task_id] = start + seen.seconds
    whole = max(finish.values(), default=0.0)
    latest: dict[int, float] = {}
    for task_id in reversed(ran):
        latest[task_id] = min(
            (latest[user] - ran[user].seconds for user in users[task_id]), default=whole
        )
    path: list[int] = []
    last = max(finish, key=finish.__getitem__, default=None)
    while last is not None:
        path.append(last)
        last = before.get(last)
    slack = {task_id: max(0.0, latest[task_id] - finish[task_id]) for task_id in ran}
    return CriticalPath(tuple(reversed(path)), whole, slack)


def critical_path_of(state: RunState) -> CriticalPath:
    """The critical path of a run as far as it has come; what goes on counts until now."""
    return critical_path(
        {
            task.id: Observation(
                task.task, "done", started=task.started, seconds=task.seconds(state.now) or 0.0
            )
            for task in state.tasks.values()
        }
    )
