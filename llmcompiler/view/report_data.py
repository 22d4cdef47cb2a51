"""A run as the data of a page: plans, tasks with their attempts, model calls, times, costs.

Values of users, models and tools become displayable text here. Long texts are cut, and control
characters become visible escapes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from llmcompiler.errors import Failure, UsageError
from llmcompiler.events import (
    ApprovalAsked,
    ApprovalGiven,
    CacheMissed,
    Event,
    Index,
    LimitHit,
    ModelStarted,
    ModelText,
    PlanStarted,
    RunResumed,
    RunStarted,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskPlanned,
    TaskRetried,
    TaskSkipped,
    TaskStarted,
)
from llmcompiler.history.critical_path import critical_path_of
from llmcompiler.history.state import CallState, PlanState, RunState, TaskState
from llmcompiler.llm.base import Usage
from llmcompiler.llm.prices import Prices
from llmcompiler.log.store import RunStore
from llmcompiler.view.branches import branch_reports
from llmcompiler.view.text import MOST_CHARACTERS, display_text, program_lines, task_call_text

Json: TypeAlias = dict[str, Any]

_PAGE_CHARACTERS = 6_000_000
"""Characters of all values of a page together, roughly."""

_LEAST_CHARACTERS = 400
"""Characters of a value that a page shows at least, however many values there are."""

_SEARCHED_RUNS = 500
_MOST_FORKS = 6
_MOST_ELEMENTS = 300
_MOST_TICKS = 240
_PASS_CODES = "W4"
"""Beginning of the codes of diagnostics in which passes report what they did. The passes are not
run again here: they ran while the plan was written, and a later release may have other passes."""

_NOISE_SECONDS = 0.001
"""A shorter gap is the engine's own time, not idle time."""


@dataclasses.dataclass(slots=True)
class _RunDetails:
    """The facts about a run that a page shows and ``RunState`` does not hold."""

    origin: Json | None = None
    catalogue: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    plan_started: dict[int, float] = dataclasses.field(default_factory=dict)
    planned: dict[int, float] = dataclasses.field(default_factory=dict)
    attempts: dict[int, list[Json]] = dataclasses.field(default_factory=dict)
    elements: dict[int, dict[Index, Json]] = dataclasses.field(default_factory=dict)
    cached: set[int] = dataclasses.field(default_factory=set)
    requests: dict[str, Json] = dataclasses.field(default_factory=dict)
    pieces: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    notes: list[Json] = dataclasses.field(default_factory=list)
    waiting: dict[tuple[int, Index], Json] = dataclasses.field(default_factory=dict)

    def apply(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.origin, self.catalogue = event.origin, event.catalogue
            case RunResumed():
                self._note(event, f"the run was resumed by {event.holder}")
            case PlanStarted():
                self.plan_started[event.plan] = event.at
            case TaskPlanned():
                self.planned[event.id] = event.at
            case ModelStarted():
                self.requests[event.call] = event.request
            case ModelText():
                self.pieces.setdefault(event.call, []).append(event.at)
            case LimitHit():
                self._note(event, event.message)
            case CacheMissed():
                self._note(event, f"task {event.task} is called: {event.why}", event.task)
            case ApprovalAsked():
                self._note(event, f"task {event.task} waits for approval", event.task)
                self.waiting[event.task, event.index] = event.arguments
            case ApprovalGiven():
                why = f": {event.reason}" if event.reason else ""
                self._note(event, f"task {event.task} was {event.verdict}{why}", event.task)
                self.waiting.pop((event.task, event.index), None)
            case (
                TaskStarted()
                | TaskRetried()
                | TaskFinished()
                | TaskFailed()
                | TaskSkipped()
                | TaskCancelled()
            ):
                self._apply_to_task(event)

    def _note(self, event: Event, text: str, task: int | None = None) -> None:
        self.notes.append({"at": event.at, "text": display_text(text, 2000), "task": task})

    def _apply_to_task(
        self,
        event: TaskStarted | TaskRetried | TaskFinished | TaskFailed | TaskSkipped | TaskCancelled,
    ) -> None:
        attempts = self.attempts.setdefault(event.task, [])
        if isinstance(event, TaskStarted):
            attempts.append(
                {
                    "number": event.attempt,
                    "index": list(event.index),
                    "started": event.at,
                    "ended": None,
                    "outcome": "running",
                    "failure": None,
                }
            )
            if event.index:
                self.elements.setdefault(event.task, {})[event.index] = {
                    "status": "running",
                    "arguments": event.arguments,
                }
            return
        outcome, failure, value = _ending(event)
        for attempt in reversed(attempts):
            if attempt["index"] == list(event.index) and attempt["ended"] is None:
                attempt["ended"], attempt["outcome"] = event.at, outcome
                attempt["failure"] = failure.message if failure else None
                break
        if isinstance(event, TaskFinished) and event.cached and not event.index:
            self.cached.add(event.task)
        if event.index:
            element = self.elements.setdefault(event.task, {}).setdefault(event.index, {})
            element["status"], element["value"] = outcome, value
            element["failure"] = failure.message if failure else None


def _ending(event: Event) -> tuple[str, Failure | None, Any]:
    match event:
        case TaskFinished():
            return "done", None, event.value
        case TaskRetried():
            return "retried", event.failure, None
        case TaskFailed():
            return "failed", event.failure, None
        case TaskSkipped():
            return "skipped", None, None
    return "cancelled", None, None


def related_runs(store: RunStore, run: str) -> list[str]:
    """The ids of the run that this run was forked from, and of its own latest forks."""
    latest = store.runs(_SEARCHED_RUNS)
    parents = [summary.parent for summary in latest if summary.run == run and summary.parent]
    forks = [summary.run for summary in latest if summary.parent == run]
    return [*filter(store.has, parents), *forks[:_MOST_FORKS]]


def run_report(events: Iterable[Event], prices: Prices | None = None) -> Json:
    """A run as plain data for a page, complete or not.

    Args:
        events: of the run so far, in order.
        prices: of models; those of the package by default.
    """
    state, details = RunState(), _RunDetails()
    for event in events:
        state.apply(event)
        details.apply(event)
    return _ReportBuilder(state, details, prices or Prices()).build()


class _ReportBuilder:
    def __init__(self, state: RunState, details: _RunDetails, prices: Prices) -> None:
        self.state, self.details, self.prices = state, details, prices
        values = len(state.tasks) * 2 + len(state.calls) * 2
        values += sum(min(len(group), _MOST_ELEMENTS) for group in details.elements.values())
        share = _PAGE_CHARACTERS // max(values, 1)
        self.limit = max(_LEAST_CHARACTERS, min(MOST_CHARACTERS, share))

    def build(self) -> Json:
        state = self.state
        path = critical_path_of(state)
        slack = {task: round(seconds, 6) for task, seconds in path.slack.items()}
        return {
            "run": state.run,
            "wall": state.wall,
            "status": "unfinished" if state.status == "running" else state.status,
            "question": self._optional_text(state.question),
            "answer": self._optional_text(state.answer),
            "failure": self._failure(state.failure),
            "seconds": state.now,
            "planner": state.planner,
            "models": state.models,
            "inputs": {name: self._text(value) for name, value in state.inputs.items()},
            "limits": {name: self._text(value) for name, value in state.limits.items()},
            "origin": self._origin(),
            "plans": [self._plan(plan) for plan in state.plans],
            "tasks": [self._task(task, slack) for task in state.tasks.values()],
            "calls": [self._call(call) for call in state.calls.values()],
            "critical": {"tasks": list(path.tasks), "seconds": path.seconds},
            "idle": self._idle(),
            "branches": branch_reports(state, self._text),
            "costs": self._costs(),
            "notes": self.details.notes,
            "waiting": [
                {
                    "task": task,
                    "index": list(index),
                    "arguments": display_text(arguments),
                    # A text that was cut or escaped is not the planned value: no editing.
                    "editable": display_text(arguments)
                    == json.dumps(arguments, ensure_ascii=False, indent=1),
                }
                for (task, index), arguments in self.details.waiting.items()
            ],
        }

    def _text(self, value: Any) -> str:
        return display_text(value, self.limit)

    def _optional_text(self, value: str | None) -> str | None:
        return None if value is None else display_text(value)

    def _failure(self, failure: Failure | None) -> Json | None:
        if failure is None:
            return None
        return {
            "blame": failure.blame,
            "type": failure.type,
            "message": self._text(failure.message),
            "hint": self._text(failure.hint),
        }

    def _arguments(self, arguments: Mapping[str, Any] | None) -> Json | None:
        if arguments is None:
            return None
        return {display_text(name, 200): self._text(value) for name, value in arguments.items()}

    def _origin(self) -> Json | None:
        origin = self.details.origin
        return origin and {
            "run": origin.get("run"),
            "tasks": origin.get("tasks") or [],
            "changes": self._text(
                {name: origin[name] for name in ("values", "calls") if origin.get(name)}
            ),
        }

    def _plan(self, plan: PlanState) -> Json:
        joins = [join for join in self.state.joins if join.plan == plan.number]
        return {
            "number": plan.number,
            "started": self.details.plan_started.get(plan.number),
            "tasks": plan.tasks,
            "text": self._text("\n".join(program_lines(plan)) if plan.program else plan.text),
            "finished": plan.finished,
            "join": None if plan.join is None else list(plan.join),
            "diagnostics": [
                {
                    "code": diagnostic.code,
                    "severity": diagnostic.severity,
                    "at": diagnostic.at,
                    "text": self._text(diagnostic.rendered),
                }
                for diagnostic in plan.diagnostics
                if not diagnostic.code.startswith(_PASS_CODES)
            ],
            "passes": [
                self._text(diagnostic.message)
                for diagnostic in plan.diagnostics
                if diagnostic.code.startswith(_PASS_CODES)
            ],
            "joins": [{"decision": join.decision, "text": self._text(join.text)} for join in joins],
        }

    def _task(self, task: TaskState, slack: Mapping[int, float]) -> Json:
        tasks, details = self.state.tasks, self.details
        planned = details.planned[task.id]
        ends = [tasks[dep].ended for dep in task.dependencies if dep in tasks]
        ready = max([planned, *(end for end in ends if end is not None)])
        elements = details.elements.get(task.id, {})
        return {
            "id": task.id,
            "plan": task.plan,
            "tool": task.task.tool,
            "call": display_text(task_call_text(task.task), 4000),
            "thought": self._optional_text(task.task.thought),
            "needs": list(task.dependencies),
            "status": task.status,
            "planned": planned,
            "ready": ready,
            "started": task.started,
            "ended": task.ended,
            "slack": slack.get(task.id),
            "arguments": self._arguments(task.arguments),
            "value": self._text(task.value) if task.status == "done" else None,
            "failure": self._failure(task.failure),
            "because": task.because,
            "reason": self._text(task.reason),
            "cached": task.id in details.cached,
            "attempts": [
                {**attempt, "failure": attempt["failure"] and self._text(attempt["failure"])}
                for attempt in details.attempts.get(task.id, ())[:_MOST_ELEMENTS]
            ],
            "extent": task.extent,
            "elements": [
                {
                    "index": list(index),
                    "status": element.get("status", "running"),
                    "arguments": self._arguments(element.get("arguments")),
                    "value": self._text(element["value"])
                    if element.get("status") == "done"
                    else None,
                    "failure": element.get("failure") and self._text(element["failure"]),
                }
                for index, element in sorted(elements.items())[:_MOST_ELEMENTS]
            ],
        }

    def _call(self, call: CallState) -> Json:
        pieces = self.details.pieces.get(call.call, [])
        step = -(-len(pieces) // _MOST_TICKS) or 1
        return {
            "id": call.call,
            "role": call.role,
            "label": display_text(call.label, 200),
            "model": call.model,
            "started": call.started,
            "first": pieces[0] if pieces else None,
            "seconds": call.seconds,
            "ticks": pieces[::step],
            "prompt": [
                {
                    "role": str(message.get("role", "")),
                    "text": self._text(message.get("content") or ""),
                }
                for message in self.details.requests.get(call.call, {}).get("messages", ())
            ],
            "text": self._text(call.text),
            "usage": dataclasses.asdict(call.usage) if call.usage else None,
            "failure": self._failure(call.failure),
        }

    def _idle(self) -> list[tuple[float, float]]:
        """The spans, in seconds since the run began, without a running model or tool call."""
        now = self.state.now
        busy = [
            (call.started, now if call.seconds is None else call.started + call.seconds)
            for call in self.state.calls.values()
        ]
        for attempts in self.details.attempts.values():
            busy += [(attempt["started"], attempt["ended"] or now) for attempt in attempts]
        gaps, reached = [], 0.0
        for start, end in sorted(busy):
            if start - reached > _NOISE_SECONDS:
                gaps.append((reached, start))
            reached = max(reached, end)
        if now - reached > _NOISE_SECONDS:
            gaps.append((reached, now))
        return gaps

    def _costs(self) -> list[Json]:
        """One row for each pair of model and role."""
        rows: dict[tuple[str, str], list[CallState]] = {}
        for call in self.state.calls.values():
            rows.setdefault((call.role, call.model), []).append(call)
        return [
            {
                "role": role,
                "model": model,
                "calls": len(calls),
                "failed": sum(call.failure is not None for call in calls),
                "usage": dataclasses.asdict(
                    usage := sum((call.usage for call in calls if call.usage), Usage())
                ),
                "seconds": sum(call.seconds or 0.0 for call in calls),
                "dollars": self._dollars(model, usage),
            }
            for (role, model), calls in rows.items()
        ]

    def _dollars(self, model: str, usage: Usage) -> float | None:
        try:
            return self.prices.cost(model, usage)
        except UsageError:
            return None
