"""What came of a run's tasks: values by task, fan-outs put together, and how each ended.

Every end is told to the journal here, and nowhere else. The module must not know what may start
next, or how calls are made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llmcompiler.errors import Failure, LLMCompilerError, failure_of
from llmcompiler.events import (
    Index,
    MapOpened,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskSkipped,
)
from llmcompiler.log.journal import Journal
from llmcompiler.runtime.binding import Shape, fan_out
from llmcompiler.runtime.jobs import Job
from llmcompiler.runtime.observation import Observation, TaskEnd
from llmcompiler.runtime.schedule import MapEnded, Skip, TaskCall

CANCELLED = "Cancelled"
"""The type of a failure that is somebody's wish."""


class Results:
    """Values and ends of tasks.

    Args:
        jobs: the tasks by id; the engine adds to them.
        inputs: values of the plan's inputs.
        journal: told of every end.

    Attributes:
        values: by task id; of a fan-out that goes on, the elements so far.
        observations: how tasks ended.
    """

    def __init__(
        self, jobs: Mapping[int, Job], inputs: Mapping[str, Any], journal: Journal
    ) -> None:
        self._jobs = jobs
        self._inputs = inputs
        self._journal = journal
        self._shapes: dict[int, Shape] = {}
        self._opened: dict[int, float] = {}
        self._errors: dict[int, dict[int, Failure]] = {}
        self.values: dict[int, Any] = {}
        self.observations: dict[int, Observation] = {}

    def index(self, call: TaskCall) -> Index:
        """The position of a call in its fan-out; empty for an ordinary one."""
        return () if call.element is None else self._shapes[call.task].index(call.element)

    # Calls.

    def finished(
        self,
        call: TaskCall,
        index: Index,
        value: Any,
        begun: float,
        seconds: float,
        *,
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
                self._jobs[task_id].task, "done", value, None, begun, seconds
            )
        else:
            self.values[task_id][element] = value

    def failed(
        self, call: TaskCall, index: Index, failure: Failure, begun: float | None, seconds: float
    ) -> None:
        """A call failed for good; ``begun`` is ``None`` if it never started."""
        self._journal.emit(
            TaskFailed, task=call.task, index=index, failure=failure, seconds=seconds
        )
        if call.element is not None:
            self._errors.setdefault(call.task, {})[call.element] = failure
            return
        status: TaskEnd = "cancelled" if failure.type == CANCELLED else "failed"
        self._observe(call.task, status, None, failure, begun, seconds)

    # Fan-outs.

    def open(self, task_id: int) -> int | None:
        """Work out a fan-out's extent; ``None`` if it has none and so has failed."""
        begun = self._opened[task_id] = self._journal.now()
        try:
            shape = fan_out(self._jobs[task_id].task, self.values.__getitem__, self._inputs)
        except LLMCompilerError as error:
            self.failed(TaskCall(task_id), (), failure_of(error), begun, 0.0)
            return None
        self._shapes[task_id] = shape
        self.values[task_id] = [None] * shape.extent
        self._journal.emit(MapOpened, task=task_id, extent=shape.extent)
        return shape.extent

    def close(self, ended: MapEnded) -> None:
        """Put a fan-out's elements together."""
        task_id, shape = ended.task, self._shapes[ended.task]
        begun = self._opened[task_id]
        seconds = self._journal.now() - begun
        value = self.values[task_id] = shape.nest(self.values[task_id])
        if not ended.failed or (
            self._jobs[task_id].tool.partial and len(ended.failed) < shape.extent
        ):
            self._journal.emit(TaskFinished, task=task_id, index=(), value=value, seconds=seconds)
            self._observe(task_id, "done", value, None, begun, seconds)
            return
        failure = self._map_failure(task_id, ended.failed)
        self._journal.emit(TaskFailed, task=task_id, index=(), failure=failure, seconds=seconds)
        self._observe(task_id, "failed", value, failure, begun, seconds)

    def _map_failure(self, task_id: int, failed: Iterable[int]) -> Failure:
        errors = self._errors.get(task_id, {})
        lines = [
            f"[{element}] {errors[element].message if element in errors else 'skipped'}"
            for element in failed
        ]
        shown = "; ".join(lines[:3]) + (f"; and {len(lines) - 3} more" if len(lines) > 3 else "")
        extent = self._shapes[task_id].extent
        first = next(iter(errors.values()), None)
        return Failure(
            first.blame if first else "tool",
            "PartialResult",
            f"{len(lines)} of {extent} elements failed: {shown}",
        )

    # Tasks that never come to an end of their own.

    def skipped(self, skip: Skip) -> None:
        """A task, or an element of a fan-out, will never start."""
        index = self.index(TaskCall(skip.task, skip.element))
        self._journal.emit(TaskSkipped, task=skip.task, index=index, because=skip.because)
        if skip.element is None:
            # Not which result: of two that are missing, the one that went missing first is told
            # in the event, and that is not the same one each time a run is derived again.
            failure = Failure("tool", "Skipped", "not run: a result that it needs is missing")
            self._observe(skip.task, "skipped", None, failure, None, 0.0)

    def stopped(self, task_id: int, reason: str) -> None:
        """The run ends before the task does."""
        self._journal.emit(TaskCancelled, task=task_id, index=(), reason=reason)
        failure = Failure("limit", CANCELLED, f"stopped: {reason}")
        self._observe(task_id, "cancelled", self.values.get(task_id), failure, None, 0.0)

    def _observe(
        self,
        task_id: int,
        status: TaskEnd,
        value: Any,
        failure: Failure | None,
        begun: float | None,
        seconds: float,
    ) -> None:
        self.observations[task_id] = Observation(
            self._jobs[task_id].task, status, value, failure, begun, seconds
        )
