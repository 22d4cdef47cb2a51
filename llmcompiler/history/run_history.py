"""An index over a run's events: its calls by id, by request and by arguments.

Replay, resume, fork, what-if, cassettes, diff and save all read a run through ``RunHistory``. The
package derives a run again instead of restoring its state: planner, scheduler and joiner start from
the beginning, and results of tools and texts of models come from the log. So a new, a replayed, a
resumed and a forked run go through the same code.
"""

from __future__ import annotations

import functools
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from llmcompiler.errors import LogError, UsageError
from llmcompiler.events import (
    ApprovalGiven,
    BranchStarted,
    BranchStopped,
    CallId,
    Event,
    Index,
    Joined,
    LimitHit,
    ModelFailed,
    ModelFinished,
    ModelStarted,
    ModelText,
    Outcome,
    PlanDiagnosed,
    RunFinished,
    RunResumed,
    RunStarted,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskPlanned,
    TaskRetried,
    TaskStarted,
)
from llmcompiler.history.decisions import (
    DivergenceError,
    Fact,
    decisions,
    event_identity,
    facts,
)
from llmcompiler.history.state import RunState, fold
from llmcompiler.joiners.reduced import JoinReducer
from llmcompiler.log.store import RunStore
from llmcompiler.plan.expressions import expr_from_json
from llmcompiler.plan.model import Plan, Task
from llmcompiler.prompting.profile import Profiles
from llmcompiler.prompting.prompts import Prompts
from llmcompiler.reasoning.request import BranchRecord, branch_name
from llmcompiler.run.config import RecordedInputs
from llmcompiler.runtime.approval import ApprovalDecision, Approve, Deny
from llmcompiler.runtime.branch_order import BranchStep, StepKind
from llmcompiler.runtime.model_calls import RecordedCall
from llmcompiler.tools.base import Lint


class ToolResult(NamedTuple):
    """A tool call that ended."""

    tool: str
    arguments: dict[str, Any]
    outcome: Outcome


class RunHistory:
    """What the log of one run holds.

    Args:
        run: the run's id.
        events: its events, in order.

    Attributes:
        start: the first event.
        end: the last event; ``None`` if the run did not end.
        stop_reason: why the run's end depended on the clock or a user; empty if it did not.
        limits: the limits that the run had last.
        planned_tasks: the tasks by id, in the order planned.
        outcomes: how tool calls ended, in the order in which they ended. Cancelled calls are left
            out.
        attempts: how often the calls without an outcome were started.
        retry_at: when to retry each call that failed with a transient error, in seconds since the
            run started.
        approvals: decisions about calls that need approval.
        joins: the joiner's decisions by the number of their plan.
        branches: reasoning branches by name.
        model_calls: the start of each model call by id, in the order asked.

    Raises:
        LogError: the log is empty, because the process ended before the first event.
    """

    def __init__(self, run: str, events: Sequence[Event]) -> None:
        if not events or not isinstance(events[0], RunStarted):
            raise LogError(f"run {run} ended before anything was recorded", hint="ask again")
        self.run = run
        self.events = events
        self.start: RunStarted = events[0]
        self.end: RunFinished | None = None
        self.stop_reason = ""
        self.limits: dict[str, Any] = self.start.limits
        self.planned_tasks: dict[int, TaskPlanned] = {}
        self.outcomes: dict[CallId, Outcome] = {}
        self.attempts: dict[CallId, int] = {}
        self.retry_at: dict[CallId, float] = {}
        self.approvals: dict[CallId, ApprovalDecision] = {}
        self.joins: dict[int, Joined] = {}
        self.branches: dict[str, BranchRecord] = {}
        self.model_calls: dict[str, ModelStarted] = {}
        self._arguments: dict[CallId, dict[str, Any]] = {}
        self._texts: dict[str, list[str]] = {}
        self._ends: dict[str, ModelFinished | ModelFailed] = {}
        self._asked_again: set[str] = set()
        self._lint_results: dict[tuple[str, ...], str] = {}
        self._unmatched_events = Counter(map(event_identity, events))
        for event in events:
            self._add(event)

    @classmethod
    def load(cls, store: RunStore, run: str) -> Self:
        """Read a run from a store.

        Args:
            store: where the run is.
            run: its id, a unique prefix of it, or ``last``.

        Raises:
            LogError: there is no such run, or its log is empty or damaged.
        """
        run = store.find(run)
        return cls(run, list(store.events(run)))

    def _add(self, event: Event) -> None:
        match event:
            case ModelText() | ModelStarted() | ModelFinished() | ModelFailed():
                self._add_model_event(event)
            case TaskStarted() | TaskFinished() | TaskFailed() | TaskPlanned() | TaskRetried():
                self._add_task_event(event)
            case _:
                self._add_other_event(event)

    def _add_other_event(self, event: Event) -> None:
        match event:
            case RunFinished():
                self.end = event
            case RunResumed():
                self.end, self.stop_reason = None, ""
                self.limits = event.limits
                self._asked_again.update(event.asked_again)
            case LimitHit():
                self.stop_reason = f"was stopped: {event.message}"
            case TaskCancelled():
                self.stop_reason = self.stop_reason or f"was stopped: {event.reason}"
            case Joined():
                self.joins[event.plan] = event
            case PlanDiagnosed(linted=(tool, parameter, problem, *pieces)):
                self._lint_results[tool, parameter, *pieces] = problem
            case ApprovalGiven():
                self.approvals[event.task, event.index] = (
                    Approve(event.arguments) if event.verdict == "approved" else Deny(event.reason)
                )
            case BranchStarted():
                name = branch_name(event.task, event.index)
                self.branches[name] = BranchRecord(event, [])
            case BranchStopped():
                name = branch_name(event.task, event.index)
                self.branches[name].steps.append(BranchStep("stop", event.limit))

    def _add_task_event(self, event: Event) -> None:
        match event:
            case TaskPlanned():
                self.planned_tasks[event.id] = event
            case TaskStarted():
                self._arguments[event.task, event.index] = event.arguments
                self.attempts[event.task, event.index] = event.attempt
                self.retry_at.pop((event.task, event.index), None)
            case TaskRetried():
                self.retry_at[event.task, event.index] = event.at + event.delay
            case TaskFinished() | TaskFailed():
                self.outcomes[event.task, event.index] = event
                self.attempts.pop((event.task, event.index), None)

    def _add_model_event(self, event: Event) -> None:
        match event:
            case ModelStarted():
                self._texts[event.call] = []
                self.model_calls[event.call] = event
                self._add_branch_step("start", event.call)
            case ModelText():
                self._texts[event.call].append(event.text)
                self._add_branch_step("text", event.call)
            case ModelFinished() | ModelFailed():
                self._ends[event.call] = event
                self._add_branch_step("end", event.call)

    def _add_branch_step(self, kind: StepKind, call: str) -> None:
        if (branch := self.branches.get(call.partition("/")[0])) is not None:
            branch.steps.append(BranchStep(kind, call))

    # What the run was.

    @functools.cached_property
    def state(self) -> RunState:
        """The run's state after its last event."""
        return fold(self.events)

    @property
    def is_open(self) -> bool:
        """True if the run can go on, because it has no answer."""
        return self.end is None or self.end.status != "answered"

    def saved_plan(self) -> Plan | None:
        """The plan that was executed; ``None`` for a question that was planned."""
        return None if self.start.plan is None else Plan.model_validate(self.start.plan)

    def prompts(self) -> Prompts:
        """The texts that planner and joiner used.

        Raises:
            LogError: another release made the run, with texts that this release does not know.
        """
        if not self.start.models:
            return Prompts()  # no model was asked
        try:
            # Older releases do not have the text ``unused`` and never ask with it.
            return Prompts.model_validate({"unused": "", **self.start.prompts})
        except ValidationError as error:
            raise LogError(
                f"run {self.run} was asked with texts that this release does not know",
                hint="use the release that made it",
            ) from error

    def profiles(self) -> Profiles:
        """What the models of planner and joiner were shown.

        Raises:
            LogError: another release made the run, with a profile that this release does not know.
        """
        if self.start.profiles is None:
            return Profiles()  # early versions knew small models only
        try:
            return Profiles.model_validate(self.start.profiles)
        except ValidationError as error:
            raise LogError(
                f"run {self.run} was asked by a profile that this release does not know",
                hint="use the release that made it",
            ) from error

    def join_reducer(self) -> JoinReducer | None:
        """How the joiner's drafts became one decision; ``None`` for a joiner without drafts."""
        name = self.start.join_reducer
        return None if name is None else JoinReducer.parse(name)

    def lint(self, tool: str) -> Lint:
        """A check that repeats what the tool's own check said while the run was planned."""
        return lambda parameter, pieces: self._lint_results.get((tool, parameter, *pieces))

    def tools_used(self) -> list[str]:
        """Names of the tools that the run's tasks call, each once."""
        return list(dict.fromkeys(event.task["tool"] for event in self.planned_tasks.values()))

    def check_task(self, task: int) -> None:
        """Refuse a task that the run does not have.

        Raises:
            UsageError: names the tasks that it has.
        """
        if task not in self.planned_tasks:
            raise UsageError(
                f"run {self.run} has no task {task}",
                hint=f"its tasks are: {', '.join(map(str, self.planned_tasks)) or 'none'}",
            )

    # Tool calls.

    def outcomes_of(self, task: int) -> dict[Index, Outcome]:
        """How the calls of a task ended, by index."""
        return self._outcomes_by_task.get(task, {})

    @functools.cached_property
    def _outcomes_by_task(self) -> dict[int, dict[Index, Outcome]]:
        by_task: dict[int, dict[Index, Outcome]] = defaultdict(dict)
        for (task, index), outcome in self.outcomes.items():
            by_task[task][index] = outcome
        return by_task

    def tool_results(self) -> list[ToolResult]:
        """The tool calls that were made and ended, in the order in which they ended."""
        return [
            ToolResult(
                self.planned_tasks[call_id[0]].task["tool"], self._arguments[call_id], outcome
            )
            for call_id, outcome in self.outcomes.items()
            if call_id in self._arguments  # a fan-out as a whole is no call
        ]

    def find_tool_result(self, tool: str, arguments: Mapping[str, Any]) -> Outcome | None:
        """How a call of this tool with these arguments ended; ``None`` if there was none."""
        return self._outcomes_by_arguments.get(json_key([tool, arguments]))

    @functools.cached_property
    def _outcomes_by_arguments(self) -> dict[str, Outcome]:
        return {
            json_key([self.planned_tasks[call_id[0]].task["tool"], arguments]): self.outcomes[
                call_id
            ]
            for call_id, arguments in self._arguments.items()
            if call_id in self.outcomes
        }

    # Model calls.

    @functools.cached_property
    def completions(self) -> dict[str, RecordedCall]:
        """The model calls by id, in the order asked."""
        return {
            call: RecordedCall(
                tuple(self._texts[call]),
                self._ends.get(call),
                call in self._asked_again,
                request=start.request,
                label=start.label,
            )
            for call, start in self.model_calls.items()
        }

    @functools.cached_property
    def calls_by_request(self) -> dict[str, list[str]]:
        """Ids of the model calls by ``json_key`` of their request, in the order asked."""
        by_request: dict[str, list[str]] = defaultdict(list)
        for call, start in self.model_calls.items():
            by_request[json_key(start.request)].append(call)
        return by_request

    def find_completion(self, role: str, request: Mapping[str, Any]) -> RecordedCall | None:
        """The last complete call of the role's model with this request; ``None`` if there was none.

        Args:
            role: of the model.
            request: as ``request_to_json`` gives it.
        """
        for call in reversed(self.calls_by_request.get(json_key(request), ())):
            completion = self.completions[call]
            if self.model_calls[call].role == role and completion.end is not None:
                return completion
        return None

    def fatal_call(self) -> tuple[str, ...]:
        """The model call whose failure ended the run; empty if the run ended otherwise."""
        if self.end is None or self.end.failure is None or not self.model_calls:
            return ()
        last = next(reversed(self.model_calls))
        end = self._ends.get(last)
        is_fatal = isinstance(end, ModelFailed) and end.failure == self.end.failure
        return (last,) if is_fatal else ()

    # What the run needs in order to be derived again.

    @property
    def overridden_results(self) -> dict[int, Any]:
        """Values that this run, a fork, set in place of results, by task id."""
        values: Mapping[str, Any] = (self.start.origin or {}).get("values", {})
        return {int(number): value for number, value in values.items()}

    @property
    def replaced_calls(self) -> dict[int, Task]:
        """Calls that this run, a fork, made in place of its parent's, by task id."""
        calls: Mapping[str, Any] = (self.start.origin or {}).get("calls", {})
        return {int(number): read_task(call) for number, call in calls.items()}

    def recorded_inputs(self) -> RecordedInputs:
        """What a run that is derived again takes from its own log, however it ended."""
        return RecordedInputs(
            recorded_completions=self.completions,
            outcomes=self.outcomes,
            approvals=self.approvals,
            branches=self.branches,
            overridden_results=self.overridden_results,
            replaced_calls=self.replaced_calls,
            origin=self.start.origin,
        )

    def is_recorded(self, event: Event) -> bool:
        """True if the log holds the event. Each event of the log is matched once.

        Raises:
            DivergenceError: the log holds an event of the same place with another content.
        """
        identity = event_identity(event)
        if identity is None or not self._unmatched_events[identity]:
            return False
        self._unmatched_events[identity] -= 1
        for where, field, derived in decisions(event):
            recorded = self._facts.get((where, field), derived)
            if recorded != derived:
                raise DivergenceError(where, field, recorded, derived)
        return True

    @functools.cached_property
    def _facts(self) -> dict[Fact, Any]:
        return facts(self.events)


def json_key(data: Any) -> str:
    """Data as text, equal for equal data: the key of the indexes by request and by arguments."""
    return json.dumps(to_jsonable_python(data), sort_keys=True, ensure_ascii=False)


def read_task(data: Mapping[str, Any]) -> Task:
    """A task from its JSON form, with references to any task and input."""

    def read(value: Any) -> Any:
        return expr_from_json(value, lambda _: True, lambda _: True)

    return Task(
        id=data["id"],
        tool=data["tool"],
        args=tuple(map(read, data.get("args", ()))),
        kwargs={name: read(value) for name, value in data.get("kwargs", {}).items()},
        thought=data.get("thought"),
    )
