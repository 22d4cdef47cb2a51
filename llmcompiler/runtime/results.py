"""The results of a run: the values of tasks, fan-outs put together, and how each task ended.

This module writes the end of every call and task to the journal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from llmcompiler.errors import Failure, LLMCompilerError, ToolError, failure_of
from llmcompiler.events import (
    Index,
    MapOpened,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskSkipped,
)
from llmcompiler.log.journal import Journal
from llmcompiler.plan.model import Plan, Task
from llmcompiler.runtime.binding import FanOutShape, GrowingShape, TaskNode, fan_out
from llmcompiler.runtime.schedule import MapEnded, Skip, TaskCall

CANCELLED = "Cancelled"
"""The type of the failure of a task that somebody cancelled."""

TaskEnd: TypeAlias = Literal["done", "failed", "skipped", "cancelled"]


class Observation(NamedTuple):
    """The end of one task, as the joiner, the replanner and the caller see it.

    Attributes:
        task: the call as planned, references unresolved.
        status: how the task ended.
        value: the result as JSON; a fan-out has ``None`` in place of failed elements.
        failure: why the task failed; for a skipped task, what it was waiting for.
        started: seconds since the run began; ``None`` if the task never started.
        seconds: how long the task took.
    """

    task: Task
    status: TaskEnd
    value: Any = None
    failure: Failure | None = None
    started: float | None = None
    seconds: float = 0.0


class Results:
    """Values and ends of tasks.

    Args:
        nodes: the run's tasks by id; the engine adds to them.
        inputs: values of the plan's inputs.
        journal: receives an event for every end.

    Attributes:
        values: by task id; while a fan-out runs, a list with ``None`` for each element that has
            not ended.
        observations: how tasks ended, by id.
    """

    def __init__(
        self, nodes: Mapping[int, TaskNode], inputs: Mapping[str, Any], journal: Journal
    ) -> None:
        self._nodes = nodes
        self._inputs = inputs
        self._journal = journal
        self._shapes: dict[int, FanOutShape | GrowingShape] = {}
        self._opened_at: dict[int, float] = {}
        self._errors: dict[int, dict[int, Failure]] = {}
        self.values: dict[int, Any] = {}
        self.observations: dict[int, Observation] = {}

    def index(self, call: TaskCall) -> Index:
        """The position of a call in its fan-out; empty for an ordinary call."""
        return () if call.element is None else self._shapes[call.task].index(call.element)

    # Calls.

    def finished(
        self,
        call: TaskCall,
        index: Index,
        value: Any,
        *,
        started_at: float,
        seconds: float,
        cached: bool = False,
    ) -> None:
        """A call returned ``value``."""
        task_id, element = call
        journal = self._journal
        if journal.enabled:
            journal.emit(TaskFinished, task_id, index, value, seconds, cached)
        if element is None:
            self.values[task_id] = value
            self.observations[task_id] = Observation(
                self._nodes[task_id].task, "done", value, None, started_at, seconds
            )
        else:
            self.values[task_id][element] = value

    def failed(
        self,
        call: TaskCall,
        index: Index,
        failure: Failure,
        *,
        started_at: float | None,
        seconds: float,
    ) -> None:
        """A call failed for good; ``started_at`` is ``None`` if it never started."""
        self._journal.emit(
            TaskFailed, task=call.task, index=index, failure=failure, seconds=seconds
        )
        if call.element is not None:
            self._errors.setdefault(call.task, {})[call.element] = failure
            return
        status: TaskEnd = "cancelled" if failure.type == CANCELLED else "failed"
        self._observe(call.task, status, None, failure, started_at=started_at, seconds=seconds)

    # Fan-outs.

    def open(self, task_id: int) -> int | None:
        """Open a fan-out.

        Returns:
            How many elements it has; ``None`` if that cannot be told, and then the task has failed.
        """
        opened_at = self._opened_at[task_id] = self._journal.now()
        try:
            shape = fan_out(self._nodes[task_id].task, self.values.__getitem__, self._inputs)
        except LLMCompilerError as error:
            failure = failure_of(error)
            self.failed(TaskCall(task_id), (), failure, started_at=opened_at, seconds=0.0)
            return None
        self._shapes[task_id] = shape
        self.values[task_id] = [None] * shape.extent
        self._journal.emit(MapOpened, task=task_id, extent=shape.extent)
        return shape.extent

    def open_growing(self, task_id: int) -> None:
        """Open a map whose elements come one by one."""
        self._opened_at[task_id] = self._journal.now()
        self._shapes[task_id] = GrowingShape()
        self.values[task_id] = []

    def offer(self, task_id: int, index: Index) -> None:
        """Make room for the next element of a growing map."""
        shape = self._shapes[task_id]
        assert isinstance(shape, GrowingShape)
        shape.add(index)
        self.values[task_id].append(None)

    def not_taken(self, task_id: int) -> None:
        """A program has ended without making this call: its block was not taken."""
        self._journal.emit(TaskSkipped, task=task_id, index=(), because=0)
        failure = Failure("tool", "Skipped", "not run: its block was not taken")
        self._observe(task_id, "skipped", None, failure, started_at=None, seconds=0.0)

    def close(self, ended: MapEnded) -> None:
        """Put a fan-out's elements together."""
        task_id, shape = ended.task, self._shapes[ended.task]
        opened_at = self._opened_at[task_id]
        seconds = self._journal.now() - opened_at
        value = self.values[task_id] = shape.nest(self.values[task_id])
        if not ended.failed or (self._nodes[task_id].partial and len(ended.failed) < shape.extent):
            self._journal.emit(TaskFinished, task=task_id, index=(), value=value, seconds=seconds)
            self._observe(task_id, "done", value, None, started_at=opened_at, seconds=seconds)
            return
        failure = self._map_failure(task_id, ended.failed)
        self._journal.emit(TaskFailed, task=task_id, index=(), failure=failure, seconds=seconds)
        self._observe(task_id, "failed", value, failure, started_at=opened_at, seconds=seconds)

    def _map_failure(self, task_id: int, failed_elements: Iterable[int]) -> Failure:
        errors = self._errors.get(task_id, {})
        lines = [
            f"[{element}] {errors[element].message if element in errors else 'skipped'}"
            for element in failed_elements
        ]
        more = f"; and {len(lines) - 3} more" if len(lines) > 3 else ""
        extent = self._shapes[task_id].extent
        first = next(iter(errors.values()), None)
        return Failure(
            first.blame if first else "tool",
            "PartialResult",
            f"{len(lines)} of {extent} elements failed: {'; '.join(lines[:3])}{more}",
        )

    # Tasks that something else ends.

    def skipped(self, skip: Skip) -> None:
        """A task, or an element of a fan-out, will never start."""
        index = self.index(TaskCall(skip.task, skip.element))
        self._journal.emit(TaskSkipped, task=skip.task, index=index, because=skip.because)
        if skip.element is None:
            # The message does not name the missing result. If two are missing, the event names the
            # one that went missing first, which may be the other one when the run is replayed.
            failure = Failure("tool", "Skipped", "not run: a result that it needs is missing")
            self._observe(skip.task, "skipped", None, failure, started_at=None, seconds=0.0)

    def stopped(self, task_id: int, reason: str) -> None:
        """The run ends before the task does."""
        self._journal.emit(TaskCancelled, task=task_id, index=(), reason=reason)
        failure = Failure("limit", CANCELLED, f"stopped: {reason}")
        value = self.values.get(task_id)
        self._observe(task_id, "cancelled", value, failure, started_at=None, seconds=0.0)

    def _observe(
        self,
        task_id: int,
        status: TaskEnd,
        value: Any,
        failure: Failure | None,
        *,
        started_at: float | None,
        seconds: float,
    ) -> None:
        self.observations[task_id] = Observation(
            self._nodes[task_id].task, status, value, failure, started_at, seconds
        )


def _root_cause(task_id: int, observations: Mapping[int, Observation]) -> Observation:
    """How the task ended; for a skipped one, how the failed task ended that it waited for."""
    observation = observations[task_id]
    while observation.status == "skipped":
        dependencies = (
            observations[dependency]
            for dependency in observation.task.dependencies
            if dependency in observations
        )
        failed = next((end for end in dependencies if end.status != "done"), None)
        if failed is None:
            break
        observation = failed
    return observation


def joined_value(plan: Plan, observations: Mapping[int, Observation]) -> Any:
    """The value of a plan without a question: what its join names, else its sinks.

    Raises:
        ToolError: one of these tasks did not succeed.
    """
    task_ids = (plan.join.on if plan.join is not None else ()) or plan.sinks()
    for task_id in task_ids:
        cause = _root_cause(task_id, observations)
        if cause.status != "done":
            reason = cause.failure.message if cause.failure else cause.status
            raise ToolError(
                f"task {cause.task.id} ({cause.task.tool}) did not succeed: {reason}",
                hint=cause.failure.hint if cause.failure else "",
            )
    values = {task_id: observations[task_id].value for task_id in task_ids}
    if len(values) == 1:
        return next(iter(values.values()))
    return {str(task_id): value for task_id, value in values.items()}
