"""A run as plain lines, for pipes, files and terminals that cannot redraw.

Each event of interest becomes one line, which begins with the seconds since the run began.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Self, TextIO

from llmcompiler.events import (
    ApprovalAsked,
    ApprovalGiven,
    BranchFinished,
    BranchStarted,
    BranchStopped,
    Event,
    Joined,
    LimitHit,
    MapOpened,
    ModelFailed,
    ModelFinished,
    ModelStarted,
    PlanDiagnosed,
    PlanFinished,
    PlanStarted,
    RunFinished,
    RunStarted,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskPlanned,
    TaskRetried,
    TaskSkipped,
)
from llmcompiler.history.state import RunState
from llmcompiler.reasoning.request import branch_name
from llmcompiler.view.text import (
    branch_text,
    count_text,
    failure_text,
    one_line,
    outcome_text,
    seconds_text,
    summary_text,
    task_call_text,
    value_text,
)

_CALL_WIDTH = 100
_RESULT_WIDTH = 160


class PlainView:
    """Writes a line for each event of interest.

    Args:
        stream: gets the lines, each flushed; ``None`` to fold the state and write nothing.

    Attributes:
        state: the run so far.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.state = RunState()
        self._stream = stream

    def __call__(self, event: Event) -> None:
        """Process the next event."""
        self.state.apply(event)
        if self._stream is not None and (line := self._line(event)):
            self._stream.write(f"{event.at:7.1f}s  {line}\n")
            self._stream.flush()

    def close(self) -> None:
        """Do nothing: the view holds no resources."""

    def paused(self) -> AbstractContextManager[None]:
        """Keep writing: plain lines do not disturb other output."""
        return nullcontext()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _line(self, event: Event) -> str | None:
        match event:
            case RunStarted():
                question = f": {one_line(event.question)}" if event.question else ""
                return f"run {event.run}{question}"
            case ModelStarted() | ModelFailed() | ModelFinished():
                return self._model_line(event)
            case BranchStarted():
                name = branch_name(event.task, event.index)
                return f"thinks     {name} by {event.strategy}"
            case BranchStopped():
                return f"stops      {event.message}"
            case BranchFinished():
                name = branch_name(event.task, event.index)
                return f"thought    {name} by {branch_text(self.state.branches[name])}"
            case PlanStarted() if event.plan > 1:
                return f"plan {event.plan}"
            case PlanDiagnosed():
                return f"{event.severity} in the plan: {one_line(event.message)}"
            case PlanFinished() if self.state.planner is not None:
                return f"plan {event.plan} is complete: {count_text(event.tasks, 'task')}"
            case Joined(decision="replan"):
                return f"joiner asks for another plan: {one_line(event.text, _RESULT_WIDTH)}"
            case Joined() if event.why:
                return f"joined     {event.why}"
            case LimitHit():
                return f"limit reached: {one_line(event.message)}"
            case RunFinished():
                return summary_text(self.state)
            case _:
                return self._task_line(event)

    def _model_line(self, event: ModelStarted | ModelFailed | ModelFinished) -> str | None:
        match event:
            case ModelStarted() if event.role != "branch":
                return f"{event.role} asks {event.model}"
            case ModelFailed():
                return f"{event.call} failed: {one_line(failure_text(event.failure))}"
            case ModelStarted():
                return f"asks       {self._draft(event.call)}"
            case ModelFinished() if self.state.calls[event.call].role == "branch":
                text = one_line(self.state.calls[event.call].text, _RESULT_WIDTH)
                tokens = count_text(event.completion_tokens, "token")
                return f"wrote      {self._draft(event.call)}: {tokens}, {event.finish}: {text}"
            case _:
                return None

    def _task_line(self, event: Event) -> str | None:
        match event:
            case TaskPlanned():
                return f"planned    {self._call(event.id)}"
            case MapOpened():
                return f"fans out   {self._call(event.task)}: {count_text(event.extent, 'element')}"
            case ApprovalAsked():
                return f"asks       {self._call(event.task, event.index)} needs approval"
            case ApprovalGiven():
                why = f": {one_line(event.reason, _RESULT_WIDTH)}" if event.reason else ""
                return f"{event.verdict:9}  {self._call(event.task, event.index)}{why}"
            case TaskFinished(index=()):
                duration = "cached" if event.cached else seconds_text(event.seconds)
                value = value_text(event.value, _RESULT_WIDTH)
                return f"done       {self._call(event.task)} = {value}  ({duration})"
            case TaskRetried():
                why = one_line(event.failure.message, _RESULT_WIDTH)
                delay = f"again in {seconds_text(event.delay)}"
                return f"retry      {self._call(event.task, event.index)}: {why} ({delay})"
            case TaskFailed():
                why = one_line(failure_text(event.failure), _RESULT_WIDTH)
                return f"failed     {self._call(event.task, event.index)}: {why}"
            case TaskSkipped(index=()) | TaskCancelled(index=()):
                task = self.state.tasks[event.task]
                outcome = outcome_text(task, _RESULT_WIDTH)
                if task.is_not_taken:
                    return f"not taken  {self._call(event.task)}"
                return f"{task.status:9}  {self._call(event.task)}: {outcome}"
            case _:
                return None

    def _draft(self, call: str) -> str:
        return f"{call} {self.state.calls[call].label}".rstrip()

    def _call(self, task_id: int, index: tuple[int, ...] = ()) -> str:
        element = "".join(f"[{number}]" for number in index)
        return f"{task_id}{element}. {task_call_text(self.state.tasks[task_id].task, _CALL_WIDTH)}"
