"""The state of a run as a fold over its events: live, streamed, or read back from the log.

Views read this state. So a view shows a finished run exactly as it showed the run while it went on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from llmcompiler.errors import Failure
from llmcompiler.events import (
    BlockChosen,
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
    ModelText,
    PlanDiagnosed,
    PlanFinished,
    PlanStarted,
    RunFinished,
    RunResumed,
    RunStarted,
    Status,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskPlanned,
    TaskProgress,
    TaskRetried,
    TaskSkipped,
    TaskStarted,
)
from llmcompiler.llm.base import Usage
from llmcompiler.plan.expressions import CodeExpr
from llmcompiler.plan.model import Join, Plan, Task
from llmcompiler.reasoning.request import branch_name

TaskStatus: TypeAlias = Literal[
    "planned", "running", "waiting", "done", "failed", "skipped", "cancelled"
]
"""``waiting``: an attempt failed with a transient error, and the call will be made again."""


@dataclass(slots=True)
class CallState:
    """One model call.

    Attributes:
        call: its id.
        role: ``planner``, ``joiner`` or ``branch``.
        model: the model's name.
        started: seconds since the run began.
        label: what a branch's strategy calls it.
        prompt_length: characters of its prompt.
        text: what the model has written so far.
        first: when its first piece came, in seconds since the run began.
        finish: how it ended, in a word; empty while it goes on.
        pieces: number of pieces of its text; while a call goes on, close to its tokens.
        usage: its tokens; ``None`` before its end.
        seconds: how long it took; ``None`` while it goes on.
        failure: why it failed, if it did.
    """

    call: str
    role: str
    model: str
    started: float
    label: str = ""
    prompt_length: int = 0
    text: str = ""
    first: float | None = None
    finish: str = ""
    pieces: int = 0
    usage: Usage | None = None
    seconds: float | None = None
    failure: Failure | None = None


@dataclass(slots=True)
class BranchState:
    """One reasoning branch.

    Attributes:
        name: ``4``, or ``4[2]`` for an element of a fan-out; its calls are ``4/0``, ``4/1``, ...
        strategy: how it reasons.
        spec: its request; see ``BranchStarted``.
        started: when it began, in seconds since the run began.
        ended: when it ended, in seconds since the run began; ``None`` while it goes on.
        stopped: the bound of its budget that it reached; empty for none.
        outcome: its result; see ``BranchFinished``.
    """

    name: str
    strategy: str
    spec: dict[str, Any]
    started: float
    ended: float | None = None
    stopped: str = ""
    outcome: dict[str, Any] | None = None


@dataclass(slots=True)
class PlanState:
    """One plan of the run.

    Attributes:
        number: 1, then 2 for the first replan.
        tasks: ids, in the order planned.
        text: what the planner has written so far, repairs included; empty for a saved plan.
        diagnostics: what was wrong with the plan.
        finished: True once it is complete.
        join: the tasks that the joiner sees; empty for all, ``None`` for no join.
        program: the text of a plan that is a program; ``None`` before it is complete.
        conditions: of a program, by line: how often each block was chosen, the first block first.
    """

    number: int
    tasks: list[int] = field(default_factory=list)
    text: str = ""
    diagnostics: list[PlanDiagnosed] = field(default_factory=list)
    finished: bool = False
    join: tuple[int, ...] | None = None
    program: str | None = None
    conditions: dict[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(slots=True)
class TaskState:
    """One task of the run.

    Attributes:
        id: its id.
        plan: the number of its plan.
        task: the call as planned, references unresolved.
        dependencies: ids of the tasks whose results it needs.
        status: how far it has come.
        started: when it started, in seconds since the run began; for a fan-out, when its extent
            became known.
        ended: when it ended, in seconds since the run began.
        attempts: calls made, including retries; for a fan-out, those of all elements.
        arguments: what the tool was called with; ``None`` for a fan-out.
        value: the result, once it is done.
        failure: why it failed, or why it was called again.
        because: the task whose missing result made this one be skipped; 0 for a call of a program
            whose block was not taken.
        reason: why it was cancelled.
        extent: number of elements of a fan-out; ``None`` for an ordinary task, and before the
            number is known.
        done: number of elements that have succeeded.
        failed: number of elements that have failed or were skipped.
        progress: the tool's latest report of its progress.
    """

    id: int
    plan: int
    task: Task
    dependencies: tuple[int, ...]
    status: TaskStatus = "planned"
    started: float | None = None
    ended: float | None = None
    attempts: int = 0
    arguments: dict[str, Any] | None = None
    value: Any = None
    failure: Failure | None = None
    because: int | None = None
    reason: str = ""
    extent: int | None = None
    done: int = 0
    failed: int = 0
    progress: TaskProgress | None = None

    @property
    def is_growing(self) -> bool:
        """True for a call of a program: its arguments are code, and it may stand in a loop."""
        return any(isinstance(expr, CodeExpr) for expr in self.task.expressions())

    @property
    def is_not_taken(self) -> bool:
        """True for a call of a program whose block was not taken, which is no failure."""
        return self.status == "skipped" and self.because == 0

    def seconds(self, now: float) -> float | None:
        """How long it took; if it goes on, until ``now``; ``None`` if it never started."""
        if self.started is None:
            return None
        return (now if self.ended is None else self.ended) - self.started


@dataclass(slots=True)
class RunState:
    """Everything known about a run after some of its events.

    Attributes:
        run: its id; empty before the first event.
        wall: when it began, in seconds since the epoch.
        question: what is asked; ``None`` for a saved plan without a question.
        inputs: values of the plan's inputs.
        planner: the planner's name; ``None`` for a saved plan.
        models: model names by role.
        tools: names of the tools at hand.
        limits: the limits that are set.
        plans: its plans, in order.
        tasks: its tasks by id, in the order planned.
        calls: model calls by id, in the order made.
        branches: reasoning branches by name, in the order in which they began.
        usage: tokens of all calls that have ended.
        joins: the joiner's decisions, in order.
        limits_hit: limits that were reached.
        status: ``running`` until the last event says how the run ended.
        answer: the answer's text.
        value: the answer as data, for a saved plan without a question.
        failure: why there is no answer.
        now: seconds since the run began, at the last event.
    """

    run: str = ""
    wall: float = 0.0
    question: str | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    planner: str | None = None
    models: dict[str, str] = field(default_factory=dict)
    tools: tuple[str, ...] = ()
    limits: dict[str, Any] = field(default_factory=dict)
    plans: list[PlanState] = field(default_factory=list)
    tasks: dict[int, TaskState] = field(default_factory=dict)
    calls: dict[str, CallState] = field(default_factory=dict)
    branches: dict[str, BranchState] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    joins: list[Joined] = field(default_factory=list)
    limits_hit: list[LimitHit] = field(default_factory=list)
    status: Status | Literal["running"] = "running"
    answer: str | None = None
    value: Any = None
    failure: Failure | None = None
    now: float = 0.0

    def apply(self, event: Event) -> None:
        """Take in the next event."""
        self.now = event.at
        match event:
            case RunStarted():
                self._apply_started(event)
            case RunResumed():
                self._apply_resumed(event)
            case ModelStarted() | ModelText() | ModelFinished() | ModelFailed():
                self._apply_to_call(event)
            case BranchStarted() | BranchStopped() | BranchFinished():
                self._apply_to_branch(event)
            case PlanStarted():
                self.plans.append(PlanState(event.plan))
            case PlanDiagnosed():
                self._plan(event.plan).diagnostics.append(event)
            case PlanFinished():
                plan = self._plan(event.plan)
                plan.finished, plan.join = True, event.join
                plan.program = event.program
            case BlockChosen():
                plan = self._plan(event.plan)
                first, other = plan.conditions.get(event.line, (0, 0))
                plan.conditions[event.line] = (first + event.taken, other + (not event.taken))
            case TaskPlanned():
                self._add_task(event)
            case Joined():
                self.joins.append(event)
            case LimitHit():
                self.limits_hit.append(event)
            case RunFinished():
                self.status, self.answer = event.status, event.answer
                self.value, self.failure = event.value, event.failure
            case _:
                self._apply_to_task(event)

    def plan(self, number: int | None = None) -> Plan:
        """One of the run's plans as it stands, by default the last.

        Raises:
            LookupError: there is no such plan (yet).
        """
        if not self.plans:
            raise LookupError("the run has no plan")
        plan = self.plans[-1] if number is None else self._plan(number)
        tasks = [self.tasks[task_id] for task_id in plan.tasks]
        needed_tasks = {dependency for task in tasks for dependency in task.dependencies}
        needed_tasks |= set(plan.join or ())
        join = None
        if plan.join is not None:
            last = max(plan.tasks, default=max(self.tasks, default=0))
            join = Join(id=last + 1, on=plan.join)
        return Plan.of(
            (task.task for task in tasks),
            join=join,
            inputs=self._declared_inputs(),
            earlier=tuple(sorted(needed_tasks - set(plan.tasks))),
            program=plan.program,
        )

    def _apply_started(self, event: RunStarted) -> None:
        self.run, self.wall, self.question = event.run, event.wall, event.question
        self.inputs, self.planner, self.models = event.inputs, event.planner, event.models
        self.tools, self.limits = event.tools, event.limits

    def _apply_resumed(self, event: RunResumed) -> None:
        self.status, self.failure, self.limits = "running", None, event.limits
        for task in self.tasks.values():
            if task.status in ("running", "waiting", "cancelled"):
                task.status, task.started, task.ended = "planned", None, None

    def _plan(self, number: int) -> PlanState:
        for plan in self.plans:
            if plan.number == number:
                return plan
        raise LookupError(f"the run has no plan {number}")

    def _declared_inputs(self) -> tuple[dict[str, Any], ...]:
        return tuple({"name": name} for name in self.inputs)

    def _add_task(self, event: TaskPlanned) -> None:
        # Reading the task as part of a plan tells references from other dollar signs.
        task = Plan.model_validate(
            {
                "tasks": [event.task],
                "inputs": self._declared_inputs(),
                "earlier": event.dependencies,
            }
        ).tasks[0]
        self.tasks[event.id] = TaskState(event.id, event.plan, task, event.dependencies)
        self._plan(event.plan).tasks.append(event.id)

    def _apply_to_branch(self, event: BranchStarted | BranchStopped | BranchFinished) -> None:
        name = branch_name(event.task, event.index)
        match event:
            case BranchStarted():
                self.branches[name] = BranchState(name, event.strategy, event.spec, event.at)
            case BranchStopped():
                self.branches[name].stopped = event.limit
            case BranchFinished():
                self.branches[name].ended = event.at
                self.branches[name].outcome = event.outcome

    def calls_of(self, branch: str) -> list[CallState]:
        """The model calls of a branch, in the order made."""
        return [call for name, call in self.calls.items() if name.startswith(f"{branch}/")]

    def _apply_to_call(self, event: Event) -> None:
        match event:
            case ModelStarted():
                messages = event.request.get("messages", ())
                prompt_length = sum(len(message["content"]) for message in messages)
                self.calls[event.call] = CallState(
                    event.call, event.role, event.model, event.at, event.label, prompt_length
                )
                if event.role == "planner" and self.plans and self.plans[-1].text:
                    # A repair continues after the last good task, on a line of its own.
                    self.plans[-1].text = self.plans[-1].text.rstrip("\n") + "\n"
            case ModelText():
                call = self.calls[event.call]
                call.text += event.text
                call.pieces += 1
                call.first = event.at if call.first is None else call.first
                if call.role == "planner" and self.plans:
                    self.plans[-1].text += event.text
            case ModelFinished():
                call = self.calls[event.call]
                call.seconds, call.finish = event.seconds, event.finish
                call.usage = Usage(
                    event.prompt_tokens,
                    event.cached_tokens,
                    event.completion_tokens,
                    1,
                    event.reasoning_tokens,
                )
                self.usage += call.usage
            case ModelFailed():
                call = self.calls[event.call]
                call.seconds, call.failure = event.at - call.started, event.failure
                call.finish = "failed"

    def _apply_to_task(self, event: Event) -> None:
        match event:
            case MapOpened():
                task = self.tasks[event.task]
                task.status, task.started, task.extent = "running", event.at, event.extent
            case TaskStarted():
                task = self.tasks[event.task]
                task.attempts += 1
                if event.index and task.is_growing and event.attempt == 1:
                    # A call of a program in a loop: how many there will be is not known before.
                    task.extent = (task.extent or 0) + 1
                    if task.started is None:
                        task.status, task.started = "running", event.at
                if not event.index:
                    task.status, task.arguments = "running", event.arguments
                    task.started = event.at if task.started is None else task.started
            case TaskProgress():
                self.tasks[event.task].progress = event
            case TaskRetried():
                task = self.tasks[event.task]
                task.failure = event.failure
                if not event.index:
                    task.status = "waiting"
            case TaskFinished():
                self._apply_finished(event)
            case TaskFailed() | TaskSkipped() | TaskCancelled():
                self._apply_unsuccessful(event)

    def _apply_finished(self, event: TaskFinished) -> None:
        task = self.tasks[event.task]
        if event.index:
            task.done += 1
            self._count_element(task)
        else:
            task.status, task.value, task.ended, task.failure = "done", event.value, event.at, None

    def _count_element(self, task: TaskState) -> None:
        """A call of a program may end without a start, if its result is known already."""
        if task.is_growing:
            task.extent = max(task.extent or 0, task.done + task.failed)

    def _apply_unsuccessful(self, event: TaskFailed | TaskSkipped | TaskCancelled) -> None:
        task = self.tasks[event.task]
        if event.index:
            task.failed += 1
            self._count_element(task)
            return
        task.ended = event.at
        match event:
            case TaskFailed():
                task.status, task.failure = "failed", event.failure
            case TaskSkipped():
                task.status, task.because = "skipped", event.because
            case TaskCancelled():
                task.status, task.reason = "cancelled", event.reason


def fold(events: Iterable[Event]) -> RunState:
    """The state after all of ``events``."""
    state = RunState()
    for event in events:
        state.apply(event)
    return state
