"""A run's log, by what was decided where: what replay, resume and fork start from.

The package derives a run again instead of restoring its state: planner, scheduler and joiner run
from the beginning, and what came from outside (results of tools, texts of models) is taken from the
log. So there is one way through a run, whether it is new, replayed, resumed or forked. The module
must not know who derives it again, or why.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from pydantic import ValidationError

from llmcompiler.errors import LogError
from llmcompiler.events import (
    ApprovalAsked,
    ApprovalGiven,
    BranchFinished,
    BranchStarted,
    BranchStopped,
    CacheMissed,
    CallId,
    Event,
    Index,
    Joined,
    LimitHit,
    MapOpened,
    ModelFailed,
    ModelFinished,
    ModelStarted,
    ModelText,
    Outcome,
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
from llmcompiler.joiners.reduced import JoinReducer
from llmcompiler.plan.expressions import expr_from_json
from llmcompiler.plan.model import Plan, Task
from llmcompiler.prompting.prompts import Prompts
from llmcompiler.reasoning.request import BranchRecord, branch_name
from llmcompiler.runtime.approval import ApprovalDecision, Approve, Deny
from llmcompiler.runtime.branch_order import Happening, Step
from llmcompiler.runtime.model_calls import RecordedCall
from llmcompiler.tools.base import Lint

Fact: TypeAlias = tuple[str, str]
"""A place in a run and what of it: ``("task 3[1]", "value")``."""


_SHOWN = 200
"""Characters of a value in a message."""


class DivergenceError(LogError):
    """A run that is derived again came to something else than its log holds.

    Attributes:
        where: the task, plan, call, join or run at fault.
        field: what of it differs.
    """

    def __init__(self, where: str, field: str, recorded: Any, derived: Any) -> None:
        now, then = _shown_apart(derived, recorded)
        super().__init__(
            f"{where}: {field} is {now}, but the log holds {then}",
            hint="the log was changed, or tools or texts are no longer those of the run",
        )
        self.where = where
        self.field = field


class Recording:
    """What the log of one run holds.

    Attributes:
        events: all of them.
        started: the first; ``finished`` the last, where the run came to an end.
        stopped: why the run's end depended on the clock or a user; empty where it did not.
        outcomes: how calls of tools ended; those that were cancelled are not among them.
        attempts: how often the calls without an outcome were started.
        due: when those of them that were to be repeated were to be, in seconds of the run.
        approvals: what was decided about calls that waited for somebody to agree.
        joins: decisions by the number of their plan.
        branches: reasoning branches by name.

    Raises:
        LogError: the log is empty: the process ended before anything was recorded.
    """

    def __init__(self, run: str, events: Sequence[Event]) -> None:
        if not events or not isinstance(events[0], RunStarted):
            raise LogError(f"run {run} ended before anything was recorded", hint="ask again")
        self.run = run
        self.events = events
        self.started: RunStarted = events[0]
        self.finished: RunFinished | None = None
        self.stopped = ""
        self.outcomes: dict[CallId, Outcome] = {}
        self.attempts: dict[CallId, int] = {}
        self.due: dict[CallId, float] = {}
        self.approvals: dict[CallId, ApprovalDecision] = {}
        self.joins: dict[int, Joined] = {}
        self._linted: dict[tuple[str, ...], str] = {}
        self.limits: dict[str, Any] = self.started.limits
        self.branches: dict[str, BranchRecord] = {}
        self._asked: dict[str, ModelStarted] = {}
        self._texts: dict[str, list[str]] = {}
        self._ends: dict[str, ModelFinished | ModelFailed] = {}
        self._asked_again: set[str] = set()
        self._seen = Counter(map(_identity, events))
        for event in events:
            self._take(event)

    def _take(self, event: Event) -> None:
        match event:
            case RunFinished():
                self.finished = event
            case RunResumed():
                self.finished, self.stopped = None, ""
                self.limits = event.limits
                self._asked_again.update(event.asked_again)
            case LimitHit():
                self.stopped = f"was stopped: {event.message}"
            case TaskCancelled():
                self.stopped = self.stopped or f"was stopped: {event.reason}"
            case ApprovalGiven():
                self.approvals[event.task, event.index] = (
                    Approve(event.arguments) if event.verdict == "approved" else Deny(event.reason)
                )
            case TaskStarted():
                self.attempts[event.task, event.index] = event.attempt
                self.due.pop((event.task, event.index), None)
            case TaskRetried():
                self.due[event.task, event.index] = event.at + event.delay
            case TaskFinished() | TaskFailed():
                self.outcomes[event.task, event.index] = event
                self.attempts.pop((event.task, event.index), None)
            case BranchStarted():
                name = branch_name(event.task, event.index)
                self.branches[name] = BranchRecord(event, [])
            case BranchStopped():
                name = branch_name(event.task, event.index)
                self.branches[name].steps.append(Step("stop", event.limit))
            case ModelStarted():
                self._texts[event.call] = []
                self._asked[event.call] = event
                self._step("start", event.call)
            case ModelText():
                self._texts[event.call].append(event.text)
                self._step("text", event.call)
            case ModelFinished() | ModelFailed():
                self._ends[event.call] = event
                self._step("end", event.call)
            case Joined():
                self.joins[event.plan] = event
            case PlanDiagnosed(linted=(tool, parameter, problem, *pieces)):
                self._linted[tool, parameter, *pieces] = problem

    def _step(self, what: Happening, call: str) -> None:
        if (branch := self.branches.get(call.partition("/")[0])) is not None:
            branch.steps.append(Step(what, call))

    def calls(self) -> dict[str, RecordedCall]:
        """The model calls by id."""
        return {
            call: RecordedCall(
                tuple(pieces),
                self._ends.get(call),
                call in self._asked_again,
                request=self._asked[call].request,
                label=self._asked[call].label,
            )
            for call, pieces in self._texts.items()
        }

    def messages(self, call: str) -> Any:
        """What was asked in a model call, as the log has it."""
        return self._asked[call].request["messages"]

    def calls_to_resume(self) -> dict[str, RecordedCall]:
        """The same, with the call that ended the run marked as one to make again."""
        calls = self.calls()
        for call in self.fatal_call():
            calls[call] = dataclasses.replace(calls[call], asked_again=True)
        return calls

    @property
    def is_open(self) -> bool:
        """Whether the run can go on: it has no answer."""
        return self.finished is None or self.finished.status != "answered"

    def saved_plan(self) -> Plan | None:
        """The plan that was executed; ``None`` for a question that was planned."""
        return None if self.started.plan is None else Plan.model_validate(self.started.plan)

    def prompts(self) -> Prompts:
        """The texts that planner and joiner used.

        Raises:
            LogError: they are of another release, with texts that this one does not know.
        """
        if not self.started.models:
            return Prompts()  # nobody was asked
        try:
            # Before there was the text, plans were not looked at again.
            return Prompts.model_validate({"unused": "", **self.started.prompts})
        except ValidationError as error:
            raise LogError(
                f"run {self.run} was asked with texts that this release does not know",
                hint="use the release that made it",
            ) from error

    def join_reducer(self) -> JoinReducer | None:
        """How the run's joiner made one decision of several drafts; ``None`` if it made one."""
        said = self.started.join_reducer
        return None if said is None else JoinReducer.parse(said)

    def lint(self, tool: str) -> Lint:
        """What the tool's own check said of texts while the run was planned."""
        return lambda parameter, pieces: self._linted.get((tool, parameter, *pieces))

    def planned_before(self, number: int) -> list[Task]:
        """The tasks that were planned before task ``number``."""
        found: list[Task] = []
        for event in self.events:
            if isinstance(event, TaskPlanned):
                if event.id == number:
                    break
                found.append(read_task(event.task))
        return found

    def tools_used(self) -> list[str]:
        """Names of the tools that the run's tasks call, each once."""
        names = (event.task["tool"] for event in self.events if isinstance(event, TaskPlanned))
        return list(dict.fromkeys(names))

    def fatal_call(self) -> tuple[str, ...]:
        """The model call whose failure ended the run, where one did."""
        ended = self.finished is not None and self.finished.failure is not None
        calls = list(self._texts)
        if ended and calls and isinstance(end := self._ends.get(calls[-1]), ModelFailed):
            assert self.finished is not None
            if self.finished.failure == end.failure:
                return (calls[-1],)
        return ()

    def is_recorded(self, event: Event) -> bool:
        """Whether the log holds the event; each of its events is found once.

        Raises:
            DivergenceError: the log holds an event of that place that says something else.
        """
        key = _identity(event)
        if key is None or not self._seen[key]:
            return False
        self._seen[key] -= 1
        for where, field, derived in decisions(event):
            recorded = self._facts.get((where, field), derived)
            if recorded != derived:
                raise DivergenceError(where, field, recorded, derived)
        return True

    @functools.cached_property
    def _facts(self) -> dict[Fact, Any]:
        return facts(self.events)


def _identity(event: Event) -> tuple[Any, ...] | None:
    """What makes an event the same one when it is derived again; ``None`` if it never is."""
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
    """What was decided, by place and field; times and attempts are no decisions."""
    return {(where, field): value for event in events for where, field, value in decisions(event)}


def decisions(event: Event) -> Iterator[tuple[str, str, Any]]:
    """What an event decided: place, field, value."""
    match event:
        case TaskPlanned():
            yield f"task {event.id}", "call", event.task
            yield f"task {event.id}", "plan", event.plan
        case MapOpened():
            yield f"task {event.task}", "extent", event.extent
        case TaskStarted():
            yield place_text(event.task, event.index), "arguments", event.arguments
        case BranchStarted():
            yield place_text(event.task, event.index), "branch", event.spec
        case BranchStopped():
            yield place_text(event.task, event.index), "stopped by", event.limit
        case BranchFinished():
            yield place_text(event.task, event.index), "outcome", event.outcome
        case TaskFinished():
            yield place_text(event.task, event.index), "value", event.value
        case TaskFailed():
            yield place_text(event.task, event.index), "failure", event.failure
        case TaskSkipped():
            # Which of several missing results was missed first is timing, not a decision.
            yield place_text(event.task, event.index), "skipped", True
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


def read_task(data: Mapping[str, Any]) -> Task:
    """A task from its JSON form, whatever tasks and inputs it refers to."""

    def read(value: Any) -> Any:
        return expr_from_json(value, lambda _: True, lambda _: True)

    return Task(
        id=data["id"],
        tool=data["tool"],
        args=tuple(map(read, data.get("args", ()))),
        kwargs={name: read(value) for name, value in data.get("kwargs", {}).items()},
        thought=data.get("thought"),
    )


def place_text(task: int, index: Index) -> str:
    """How a call is named in messages: ``task 3``, or ``task 3[1]`` for an element."""
    return f"task {task}" + "".join(f"[{number}]" for number in index)


def _shown_apart(one: Any, other: Any) -> tuple[str, str]:
    """Two values as text; of long ones the part in which they begin to differ."""
    texts = repr(one), repr(other)
    if max(map(len, texts)) <= _SHOWN:
        return texts
    pairs = zip(*texts, strict=False)
    same = next((at for at, (a, b) in enumerate(pairs) if a != b), min(map(len, texts)))
    start = max(0, same - _SHOWN // 4)
    first, second = (
        f"{'…' if start else ''}{text[start : start + _SHOWN]}"
        f"{'…' if len(text) > start + _SHOWN else ''}"
        for text in texts
    )
    return first, second
