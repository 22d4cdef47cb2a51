"""A run as the data of a page: plans, tasks with their attempts, model calls, times, costs.

Everything that a user, a model or a tool said becomes text here, cut where it is long and with
nothing in it that a page would obey. The module must not know how a page looks or how it is kept.
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
from llmcompiler.view.branches import branch_stories
from llmcompiler.view.text import LONGEST, call_text, shown

Json: TypeAlias = dict[str, Any]

_BUDGET = 6_000_000
"""Characters that the values of a page may have in all, about."""

_SHORTEST = 400
_LOOKED_AT = 500
_FORKS = 6
_ELEMENTS = 300
_TICKS = 240
_PASSES = "W4"
"""Codes with which passes say what they did. What a run's passes did is in its log and is not
worked out again: they run while a plan is written, and a later release may have others."""

_IDLE = 0.001
"""Gaps shorter than this, in seconds, are the engine's own time."""


@dataclasses.dataclass(slots=True)
class _Trace:
    """What a page tells of a run beyond its state: when each thing happened."""

    origin: Json | None = None
    catalogue: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    plan_started: dict[int, float] = dataclasses.field(default_factory=dict)
    planned: dict[int, float] = dataclasses.field(default_factory=dict)
    attempts: dict[int, list[Json]] = dataclasses.field(default_factory=dict)
    elements: dict[int, dict[Index, Json]] = dataclasses.field(default_factory=dict)
    cached: set[int] = dataclasses.field(default_factory=set)
    asked: dict[str, Json] = dataclasses.field(default_factory=dict)
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
                self.asked[event.call] = event.request
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
        self.notes.append({"at": event.at, "text": shown(text, 2000), "task": task})

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


def related(store: RunStore, run: str) -> list[str]:
    """The run that this one was forked from, and the latest that were forked from it."""
    latest = store.runs(_LOOKED_AT)
    parents = [one.parent for one in latest if one.run == run and one.parent]
    forks = [one.run for one in latest if one.parent == run]
    return [*filter(store.has, parents), *forks[:_FORKS]]


def run_story(events: Iterable[Event], prices: Prices | None = None) -> Json:
    """A run as plain data for a page, complete or not.

    Args:
        events: those of the run so far, in order.
        prices: what models cost; the known ones by default.
    """
    state, trace = RunState(), _Trace()
    for event in events:
        state.apply(event)
        trace.apply(event)
    return _Teller(state, trace, prices or Prices()).story()


class _Teller:
    def __init__(self, state: RunState, trace: _Trace, prices: Prices) -> None:
        self.state, self.trace, self.prices = state, trace, prices
        values = len(state.tasks) * 2 + len(state.calls) * 2
        values += sum(min(len(one), _ELEMENTS) for one in trace.elements.values())
        self.limit = max(_SHORTEST, min(LONGEST, _BUDGET // max(values, 1)))

    def story(self) -> Json:
        state = self.state
        path = critical_path_of(state)
        slack = {task: round(seconds, 6) for task, seconds in path.slack.items()}
        return {
            "run": state.run,
            "wall": state.wall,
            "status": "unfinished" if state.status == "running" else state.status,
            "question": self._maybe(state.question),
            "answer": self._maybe(state.answer),
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
            "branches": branch_stories(state, self._text),
            "costs": self._costs(),
            "notes": self.trace.notes,
            "waiting": [
                {
                    "task": task,
                    "index": list(index),
                    "arguments": shown(arguments),
                    # What was cut or spelt out would not be what was planned.
                    "editable": shown(arguments)
                    == json.dumps(arguments, ensure_ascii=False, indent=1),
                }
                for (task, index), arguments in self.trace.waiting.items()
            ],
        }

    def _text(self, value: Any) -> str:
        return shown(value, self.limit)

    def _maybe(self, value: str | None) -> str | None:
        return None if value is None else shown(value)

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
        return {shown(name, 200): self._text(value) for name, value in arguments.items()}

    def _origin(self) -> Json | None:
        origin = self.trace.origin
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
            "started": self.trace.plan_started.get(plan.number),
            "tasks": plan.tasks,
            "text": self._text(plan.text),
            "finished": plan.finished,
            "join": None if plan.join is None else list(plan.join),
            "diagnostics": [
                {
                    "code": found.code,
                    "severity": found.severity,
                    "at": found.at,
                    "text": self._text(found.rendered),
                }
                for found in plan.diagnostics
                if not found.code.startswith(_PASSES)
            ],
            "passes": [
                self._text(found.message)
                for found in plan.diagnostics
                if found.code.startswith(_PASSES)
            ],
            "joins": [{"decision": join.decision, "text": self._text(join.text)} for join in joins],
        }

    def _task(self, task: TaskState, slack: Mapping[int, float]) -> Json:
        tasks, trace = self.state.tasks, self.trace
        planned = trace.planned[task.id]
        ends = [tasks[dep].ended for dep in task.dependencies if dep in tasks]
        ready = max([planned, *(end for end in ends if end is not None)])
        elements = trace.elements.get(task.id, {})
        return {
            "id": task.id,
            "plan": task.plan,
            "tool": task.task.tool,
            "call": shown(call_text(task.task), 4000),
            "thought": self._maybe(task.task.thought),
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
            "cached": task.id in trace.cached,
            "attempts": [
                {**one, "failure": one["failure"] and self._text(one["failure"])}
                for one in trace.attempts.get(task.id, ())[:_ELEMENTS]
            ],
            "extent": task.extent,
            "elements": [
                {
                    "index": list(index),
                    "status": one.get("status", "running"),
                    "arguments": self._arguments(one.get("arguments")),
                    "value": self._text(one["value"]) if one.get("status") == "done" else None,
                    "failure": one.get("failure") and self._text(one["failure"]),
                }
                for index, one in sorted(elements.items())[:_ELEMENTS]
            ],
        }

    def _call(self, call: CallState) -> Json:
        pieces = self.trace.pieces.get(call.call, [])
        step = -(-len(pieces) // _TICKS) or 1
        return {
            "id": call.call,
            "role": call.role,
            "label": shown(call.label, 200),
            "model": call.model,
            "started": call.started,
            "first": pieces[0] if pieces else None,
            "seconds": call.seconds,
            "ticks": pieces[::step],
            "prompt": [
                {"role": str(one.get("role", "")), "text": self._text(one.get("content") or "")}
                for one in self.trace.asked.get(call.call, {}).get("messages", ())
            ],
            "text": self._text(call.text),
            "usage": dataclasses.asdict(call.usage) if call.usage else None,
            "failure": self._failure(call.failure),
        }

    def _idle(self) -> list[tuple[float, float]]:
        """Spans in which neither a model nor a tool was at work."""
        now = self.state.now
        busy = [
            (call.started, now if call.seconds is None else call.started + call.seconds)
            for call in self.state.calls.values()
        ]
        for attempts in self.trace.attempts.values():
            busy += [(one["started"], one["ended"] or now) for one in attempts]
        gaps, reached = [], 0.0
        for start, end in sorted(busy):
            if start - reached > _IDLE:
                gaps.append((reached, start))
            reached = max(reached, end)
        if now - reached > _IDLE:
            gaps.append((reached, now))
        return gaps

    def _costs(self) -> list[Json]:
        """A row for each model and role."""
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
