"""What a run decided, event by event: the facts that a replay compares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from llmcompiler.errors import LogError
from llmcompiler.events import (
    ApprovalAsked,
    ApprovalGiven,
    BlockChosen,
    BranchFinished,
    BranchStarted,
    BranchStopped,
    CacheMissed,
    Event,
    Index,
    Joined,
    LimitHit,
    MapOpened,
    ModelFailed,
    ModelFinished,
    ModelStarted,
    ModelText,
    PlanDiagnosed,
    PlanFinished,
    PlanStarted,
    RunFinished,
    RunResumed,
    RunStarted,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskPlanned,
    TaskProgress,
    TaskRetried,
    TaskSkipped,
    TaskStarted,
)

Fact: TypeAlias = tuple[str, str]
"""A place in a run and a field of it: ``("task 3[1]", "value")``."""

_SHOWN_CHARACTERS = 200
"""Characters of a value in a message."""


class DivergenceError(LogError):
    """A run that is derived again differs from its log.

    Attributes:
        where: the task, plan, call, join or run that differs.
        field: what of it differs.
    """

    def __init__(self, where: str, field: str, recorded: Any, derived: Any) -> None:
        derived_text, recorded_text = _texts_around_difference(derived, recorded)
        super().__init__(
            f"{where}: {field} is {derived_text}, but the log holds {recorded_text}",
            hint="the log was changed, or tools or texts are no longer those of the run",
        )
        self.where = where
        self.field = field


def call_text(task: int, index: Index) -> str:
    """How messages name a call: ``task 3``, or ``task 3[1]`` for an element of a fan-out."""
    return f"task {task}" + "".join(f"[{number}]" for number in index)


def event_identity(event: Event) -> tuple[Any, ...] | None:
    """A key that an event keeps when its run is derived again.

    Returns:
        The key; ``None`` for an event that is never matched, such as the end of the run.
    """
    match event:
        case TaskStarted():
            return "start", event.task, event.index, event.attempt
        case TaskFinished() | TaskFailed() | TaskSkipped():
            return "end", event.task, event.index
        case BranchStarted() | BranchStopped() | BranchFinished():
            return type(event).__name__, event.task, event.index
        case TaskPlanned():
            return "task", event.id
        case MapOpened():
            return "map", event.task
        case BlockChosen():
            return "block", event.plan, event.number, event.index
        case ModelStarted() | ModelText() | ModelFinished() | ModelFailed():
            kind = "end" if isinstance(event, ModelFinished | ModelFailed) else type(event).__name__
            return "call", kind, event.call
        case PlanDiagnosed():
            return "diagnostic", event.plan, event.rendered
        case RunStarted():
            return ("run",)
        case PlanStarted() | PlanFinished() | Joined():
            return type(event).__name__, event.plan
        case TaskRetried():
            return "retry", event.task, event.index, event.attempt
        case RunFinished() | RunResumed() | LimitHit() | TaskCancelled():
            return None
        case ApprovalAsked() | ApprovalGiven() | CacheMissed():
            return type(event).__name__, event.task, event.index
        case TaskProgress():
            return None
    raise AssertionError(f"{type(event).__name__} has no identity")


def facts(events: Sequence[Event]) -> dict[Fact, Any]:
    """What was decided, by place and field. Times and attempts are not decisions."""
    return {(where, field): value for event in events for where, field, value in decisions(event)}


def decisions(event: Event) -> Iterator[tuple[str, str, Any]]:
    """Yield what an event decided: place, field, value."""
    match event:
        case TaskPlanned():
            yield f"task {event.id}", "call", event.task
            yield f"task {event.id}", "plan", event.plan
        case MapOpened():
            yield f"task {event.task}", "extent", event.extent
        case BlockChosen():
            place = f"condition {event.number} of plan {event.plan}"
            yield place + "".join(f"[{n}]" for n in event.index), "taken", event.taken
        case TaskStarted():
            yield call_text(event.task, event.index), "arguments", event.arguments
        case BranchStarted():
            yield call_text(event.task, event.index), "branch", event.spec
        case BranchStopped():
            yield call_text(event.task, event.index), "stopped by", event.limit
        case BranchFinished():
            yield call_text(event.task, event.index), "outcome", event.outcome
        case TaskFinished():
            yield call_text(event.task, event.index), "value", event.value
        case TaskFailed():
            yield call_text(event.task, event.index), "failure", event.failure
        case TaskSkipped():
            # Which of several missing results was noticed first is timing, not a decision.
            yield call_text(event.task, event.index), "skipped", True
        case PlanDiagnosed():
            yield f"plan {event.plan}", f"diagnostic {event.code}", event.rendered
        case PlanFinished():
            yield f"plan {event.plan}", "number of tasks", event.tasks
            yield f"plan {event.plan}", "join", event.join
        case Joined():
            yield f"join {event.plan}", "decision", event.decision
            yield f"join {event.plan}", "text", event.text
        case RunFinished():
            yield "run", "status", event.status
            yield "run", "answer", event.answer
            yield "run", "value", event.value
            yield "run", "failure", event.failure


def _texts_around_difference(first: Any, second: Any) -> tuple[str, str]:
    """Two values as text; of long values the part around their first difference."""
    texts = repr(first), repr(second)
    if max(map(len, texts)) <= _SHOWN_CHARACTERS:
        return texts
    pairs = enumerate(zip(*texts, strict=False))
    difference = next((at for at, (a, b) in pairs if a != b), min(map(len, texts)))
    start = max(0, difference - _SHOWN_CHARACTERS // 4)
    end = start + _SHOWN_CHARACTERS
    first_text, second_text = (
        f"{'…' if start else ''}{text[start:end]}{'…' if len(text) > end else ''}" for text in texts
    )
    return first_text, second_text
