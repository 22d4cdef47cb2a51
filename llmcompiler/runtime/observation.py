"""What became of a task, as the joiner, the replanner and the caller see it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

from llmcompiler.errors import Failure
from llmcompiler.plan.model import Task

TaskEnd: TypeAlias = Literal["done", "failed", "skipped", "cancelled"]


class Observation(NamedTuple):
    """The end of one task.

    Attributes:
        task: the call as planned, references unresolved.
        status: how it ended.
        value: the result as JSON; in a fan-out, ``None`` stands in the place of failed elements.
        failure: why it failed; for a skipped task, what it was waiting for.
        started: seconds since the run began, ``None`` if it never started.
        seconds: how long it took.
    """

    task: Task
    status: TaskEnd
    value: Any = None
    failure: Failure | None = None
    started: float | None = None
    seconds: float = 0.0
