"""One run, from its first event to its last: plan, execute, join, perhaps plan again.

A run is made of ``Parts``: tools, executor, planner, joiner, models. Live, they are the user's; in
a replay they are recorded ones, and the run cannot tell. It must not know where they come from.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from llmcompiler.errors import Failure, LimitReached, LLMCompilerError, ToolError, failure_of
from llmcompiler.events import (
    CallId,
    Joined,
    LimitHit,
    Outcome,
    PlanDiagnosed,
    PlanFinished,
    PlanStarted,
    RunFinished,
    RunStarted,
    Status,
)
from llmcompiler.executors.base import Executor
from llmcompiler.joiners.model import Decision, JoinContext, Joiner
from llmcompiler.joiners.reduced import JoinReducer, ReducedJoiner
from llmcompiler.limits import Limits
from llmcompiler.llm.base import ChatModel, StreamFunction, Usage
from llmcompiler.llm.prices import Prices
from llmcompiler.log.journal import Journal
from llmcompiler.passes.deduplicate import StreamingPasses, repeated
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.model import Join, Plan, Task
from llmcompiler.planners.base import Planner, PlannerAnswer, PlanningContext, Round
from llmcompiler.prompting.prompts import Prompts
from llmcompiler.reasoning.executor import BranchExecutor
from llmcompiler.reasoning.request import BranchRecord
from llmcompiler.runtime.approval import ApprovalDecision, Approver
from llmcompiler.runtime.binding import render
from llmcompiler.runtime.budget import RunBudget
from llmcompiler.runtime.engine import Engine, OnError, Retry, ToolResultLookup
from llmcompiler.runtime.model_calls import CompletionLookup, ModelCalls, RecordedCall
from llmcompiler.runtime.observation import Observation
from llmcompiler.runtime.result_cache import ResultCache
from llmcompiler.tools.base import Tool
from llmcompiler.version import VERSION

INTERRUPTED = Failure("usage", "Interrupted", "the run was interrupted")

Role: TypeAlias = str
"""``planner``, ``joiner``, ``branch``, or ``branch:NAME`` for further models of strategies."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What became of a run.

    Attributes:
        run: its id, with which ``show`` and ``replay`` find it.
        status: ``answered``, ``failed`` or ``interrupted``.
        answer: the answer as text; ``None`` unless answered.
        value: the answer as data, for a plan without a question.
        plans: every plan of the run, the last one last.
        observations: how each task ended, by id.
        usage: tokens of all model calls.
        seconds: from start to end.
        failure: why there is no answer.
    """

    run: str
    status: Status
    answer: str | None
    value: Any
    # Not in ``repr``, which people read, and which asyncio makes of what ``asyncio.run`` returns.
    plans: tuple[Plan, ...] = field(repr=False)
    observations: dict[int, Observation] = field(repr=False)
    usage: Usage
    seconds: float
    failure: Failure | None

    @property
    def plan(self) -> Plan | None:
        """The last plan; ``None`` if the run ended before there was one."""
        return self.plans[-1] if self.plans else None

    def _repr_html_(self) -> str:
        import llmcompiler

        return llmcompiler.result_html(self)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is made of.

    Attributes:
        join_reducer: how several drafts of the joiner become one; ``None`` for a single one.
        answers: model calls that are recorded already, by id.
        live: whether calls that are not recorded may be made.
        outcomes: tool calls that are recorded already, by task and index.
        branches: reasoning branches that are recorded already, in whole or in part, by name.
        reasoning: names of the models that strategies may use.
        given: values that stand for what tasks would have returned, by id.
        recall: knows calls of another run by their arguments.
        recall_answer: knows model calls of another run by their requests.
        planned: the calls that these outcomes are of, as JSON by task id, where they may turn out
            to be others this time.
        attempts: how often tool calls without an outcome were started before.
        due: when those that failed in passing are to be repeated, in seconds of the run.
        approver: asks somebody about calls of tools that need approval.
        approvals: what was decided about such calls already.
        cache: results of earlier runs, for tools that allow it.
        weights: seconds that a tool's calls are expected to take, for priorities.
        prices: what models cost, for a limit on cost.
        edits: calls that are made instead of those planned, by task id.
        origin: where a fork comes from; see ``RunStarted``.
    """

    tools: Mapping[str, Tool]
    executor: Executor
    planner: Planner
    joiner: Joiner
    model: Callable[[Role], ChatModel]
    limits: Limits
    prompts: Prompts
    on_error: OnError = "observe"
    retry: Retry = field(default_factory=Retry)
    join_reducer: JoinReducer | None = None
    answers: Mapping[str, RecordedCall] = field(default_factory=dict)
    live: bool = True
    outcomes: Mapping[CallId, Outcome] = field(default_factory=dict)
    branches: Mapping[str, BranchRecord] = field(default_factory=dict)
    reasoning: tuple[str, ...] = ("branch",)
    given: Mapping[int, Any] = field(default_factory=dict)
    recall: ToolResultLookup | None = None
    recall_answer: CompletionLookup | None = None
    planned: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    attempts: Mapping[CallId, int] = field(default_factory=dict)
    due: Mapping[CallId, float] = field(default_factory=dict)
    approver: Approver | None = None
    approvals: Mapping[CallId, ApprovalDecision] = field(default_factory=dict)
    cache: ResultCache | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    prices: Prices | None = None
    edits: Mapping[int, Task] = field(default_factory=dict)
    origin: dict[str, Any] | None = None


class Run:
    """One run, from its first event to its last."""

    def __init__(
        self,
        run: str,
        parts: Parts,
        question: str | None,
        inputs: dict[str, Any],
        *,
        journal: Journal,
        wall: float,
    ) -> None:
        self.run = run
        self.parts = parts
        self.question = question
        self.inputs = inputs
        self.wall = wall
        self.plans: list[Plan] = []
        self.rounds: list[Round] = []
        self.error: LLMCompilerError | None = None
        self.answered: str | None = None
        self._other: set[int] = set()
        self.journal = journal
        self.budget = RunBudget(parts.limits, parts.prices)
        self.calls = ModelCalls(
            self.journal, self.budget, parts.answers, parts.live, parts.recall_answer
        )
        self.engine = Engine(
            run,
            tools=parts.tools,
            executor=BranchExecutor(
                parts.executor,
                calls=self.calls,
                journal=self.journal,
                models=self._reasoning_models,
                prompts=parts.prompts.reasoning,
                prices=parts.prices or Prices(),
                recorded=parts.branches,
            ),
            journal=self.journal,
            budget=self.budget,
            inputs=inputs,
            on_error=parts.on_error,
            retry=parts.retry,
            recorded=parts.outcomes,
            overridden_results=parts.given,
            lookup_tool_result=parts.recall,
            attempts=parts.attempts,
            retry_at=parts.due,
            approver=parts.approver,
            approvals=parts.approvals,
            cache=parts.cache,
            weights=parts.weights,
        )

    # The two ways through.

    async def to_the_end(self, saved: Plan | None) -> RunResult:
        """Answer the question, or execute the saved plan."""
        if saved is None:
            return await self.answer_question()
        return await self.execute_plan(saved)

    async def answer_question(self) -> RunResult:
        """Plan, execute and join until there is an answer."""
        models = {role: self.parts.model(role).name for role in ("planner", "joiner")}
        self._begin(None, models)
        return await self._to_the_end(self._answer)

    async def _answer(self) -> tuple[str, Any]:
        for number in range(1, self.parts.limits.replans + 2):
            await self.write_plan(number)
            await self.engine.wait_idle()
            if self.error is not None and not self.engine.observations:
                raise self.error
            if self.answered is not None:
                self._joined(number, Decision("answer", self.answered))
                return self.answered, None
            final = number == self.parts.limits.replans + 1
            answer = await self._join(number, final)
            if answer is not None:
                return answer, None
        raise AssertionError("the last join must answer")

    async def execute_plan(self, plan: Plan) -> RunResult:
        """Execute a checked plan, and join it if it has a question."""
        asked = self.question is not None
        self._begin(plan, {"joiner": self.parts.model("joiner").name} if asked else {})

        async def execute() -> tuple[str, Any]:
            self.journal.emit(PlanStarted, plan=1)
            edited = tuple(self.parts.edits.get(task.id, task) for task in plan.tasks)
            self.plans.append(plan.model_copy(update={"tasks": edited}))
            self.engine.add(1, edited)
            self._finish_plan(1, plan)
            await self.engine.wait_idle()
            if asked:
                answer = await self._join(1, final=True)
                assert answer is not None
                return answer, None
            value = _joined_value(plan, self.engine.observations)
            return render(value), value

        return await self._to_the_end(execute)

    # Their parts.

    def _reasoning_models(self) -> dict[str, ChatModel]:
        return {name: self.parts.model(role_of(name)) for name in self.parts.reasoning}

    def _begin(self, plan: Plan | None, models: dict[str, str]) -> None:
        called = self.parts.tools if plan is None else {task.tool for task in plan.tasks}
        if any(self.parts.tools[name].reasons for name in called):
            opened = self._reasoning_models()
            models |= {role_of(name): model.name for name, model in opened.items()}
        self.journal.emit(
            RunStarted,
            run=self.run,
            wall=self.wall,
            question=self.question,
            inputs=self.inputs,
            plan=plan.model_dump(mode="json") if plan is not None else None,
            planner=self.parts.planner.name if plan is None else None,
            models=models,
            tools=tuple(self.parts.tools),
            catalogue={name: tool.describe() for name, tool in self.parts.tools.items()},
            limits=self.parts.limits.model_dump(exclude_none=True),
            prompts=self.parts.prompts.model_dump(mode="json"),
            origin=self.parts.origin,
            join_reducer=None if self.parts.join_reducer is None else str(self.parts.join_reducer),
            release=VERSION,
        )
        self.journal.flush()

    async def write_plan(self, number: int, *, dispatch: bool = True) -> None:
        """Have the planner write a plan; its tasks start while it writes, if they are to.

        A planner that fails leaves its valid prefix as the plan, and its error in ``error``.
        """
        self.error = None
        self.answered = None
        assert self.question is not None
        earlier = tuple(task.id for plan in self.plans for task in plan.tasks)
        tasks: list[Task] = []
        join: Join | None = None
        self.journal.emit(PlanStarted, plan=number)
        repeats: dict[int, int] = {}

        async def observe() -> dict[int, Observation]:
            await self.engine.wait_idle()
            seen = self.engine.observations
            return {**seen, **{again: seen[first] for again, first in repeats.items()}}

        model = self.parts.model("planner")

        def ask_as(name: str) -> StreamFunction:
            return self.calls.ask(model, "planner", name, continues=True)

        context = PlanningContext(
            question=self.question,
            tools=self.parts.tools,
            rounds=tuple(self.rounds),
            next_id=max(earlier, default=0) + 1,
            ask=ask_as(f"plan/{number}"),
            ask_as=lambda name: ask_as(f"plan/{number}/{name}"),
            repairs=self.parts.limits.repairs,
        )
        if dispatch:
            context = dataclasses.replace(context, observe=observe)
        passes = StreamingPasses(self.parts.tools, self._still_true())
        try:
            async for item in self.parts.planner.plan(context):
                match item:
                    case Task():
                        task = passes.accept(self.parts.edits.get(item.id, item))
                        if isinstance(task, int):
                            self._diagnose(number, repeated(item, task))
                            repeats[item.id] = task
                            continue
                        tasks.append(task)
                        if dispatch:
                            self._forget_other_call(task)
                            self.engine.add(number, [task])
                    case Join():
                        join = passes.join(item)
                    case PlannerAnswer():
                        self.answered = item.text
                    case Diagnostic():
                        self._diagnose(number, item)
        except LLMCompilerError as error:
            self.error = error
        plan = Plan(tasks=tuple(tasks), join=join, earlier=earlier)
        self.plans.append(plan)
        if isinstance(self.error, LimitReached):
            # The plan was cut short, not ended: resumed, it may go on.
            raise self.error
        self._finish_plan(number, plan)

    def _forget_other_call(self, task: Task) -> None:
        """Outcomes are taken over by task; one of another call than this is none of it."""
        known = self.parts.planned.get(task.id)
        if known is None:
            return
        if known != task.to_json() or not self._other.isdisjoint(task.dependencies):
            self._other.add(task.id)
            self.engine.discard_recorded(task.id)

    def _still_true(self) -> Iterator[Task]:
        """Tasks of the earlier plans whose result may stand for another call of the same kind.

        What failed may be tried again. In a plan that writes, or tried to, nothing says whether its
        other calls read before that or after, so they and all before them are read anew.
        """
        for each in self.rounds[self._rounds_until_write() :]:
            for task in each.plan.tasks:
                if each.observations[task.id].status == "done":
                    yield task

    def _rounds_until_write(self) -> int:
        """The number of rounds up to the last one in which a call may have written."""
        for number in range(len(self.rounds), 0, -1):
            each = self.rounds[number - 1]
            for task in each.plan.tasks:
                tool = self.parts.tools.get(task.tool)
                wrote = tool is None or tool.effect == "write"
                if wrote and each.observations[task.id].status != "skipped":
                    return number
        return 0

    def _diagnose(self, number: int, found: Diagnostic) -> None:
        self.journal.emit(
            PlanDiagnosed,
            plan=number,
            code=found.code,
            severity=found.severity,
            message=found.message,
            rendered=found.render(),
            linted=found.linted,
        )
        self.journal.flush()

    def _finish_plan(self, number: int, plan: Plan) -> None:
        join = plan.join.on if plan.join is not None else None
        self.journal.emit(PlanFinished, plan=number, tasks=len(plan.tasks), join=join)
        self.journal.flush()

    async def _join(self, number: int, final: bool) -> str | None:
        """The answer, or ``None`` if the joiner asks for another plan."""
        plan = self.plans[-1]
        observations = {task.id: self.engine.observations[task.id] for task in plan.tasks}
        now = Round(plan, observations, "")
        context = JoinContext(
            question=self.question or "",
            tools=self.parts.tools,
            rounds=(*self.rounds, now),
            final=final,
            ask=self.calls.ask(self.parts.model("joiner"), "joiner", f"join/{number}"),
            ask_as=lambda name: self.calls.ask(
                self.parts.model("joiner"), "joiner", f"join/{number}/{name}"
            ),
        )
        joiner = self.parts.joiner
        if self.parts.join_reducer is not None:
            joiner = ReducedJoiner(joiner, self.parts.join_reducer)
        decision = await joiner.join(context)
        self._joined(number, decision)
        if decision.kind == "answer":
            return decision.text
        self.rounds.append(Round(plan, observations, decision.text))
        return None

    def _joined(self, number: int, decision: Decision) -> None:
        self.journal.emit(
            Joined, plan=number, decision=decision.kind, text=decision.text, why=decision.why
        )
        self.journal.flush()

    # The end, whatever it is.

    async def _to_the_end(self, work: Callable[[], Awaitable[tuple[str, Any]]]) -> RunResult:
        """Do the run's work under its deadline, and record how it ended."""
        answer: str | None = None
        value: Any = None
        timeout = asyncio.timeout(self.parts.limits.deadline)
        try:
            async with timeout:
                answer, value = await work()
            status: Status = "answered"
            failure = None
        except TimeoutError:
            if not timeout.expired():
                raise
            message = f"the run reached its limit deadline={self.parts.limits.deadline:g} s"
            self.journal.emit(LimitHit, limit="deadline", message=message)
            await self._stop(message)
            hint = "raise it with --limit deadline=…"
            status, failure = "failed", Failure("limit", "LimitReached", message, hint)
        except LLMCompilerError as error:
            await self._stop(error.message)
            status, failure = "failed", failure_of(error)
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError | KeyboardInterrupt)
            await self._stop("the run was interrupted" if cancelled else "a bug")
            if cancelled:
                self._end("interrupted", None, None, INTERRUPTED)
            else:
                self._end("failed", None, None, failure_of(error))
            raise
        return self._end(status, answer, value, failure)

    async def _stop(self, reason: str) -> None:
        """Stop the engine; who is cancelled meanwhile still leaves an end in the log."""
        try:
            await self.engine.stop(reason)
        except asyncio.CancelledError:
            self._end("interrupted", None, None, INTERRUPTED)
            raise

    def _end(
        self, status: Status, answer: str | None, value: Any, failure: Failure | None
    ) -> RunResult:
        self.journal.emit(RunFinished, status=status, answer=answer, value=value, failure=failure)
        seconds = self.journal.now()
        self.journal.flush()
        return RunResult(
            self.run,
            status,
            answer,
            value,
            tuple(self.plans),
            dict(sorted(self.engine.observations.items())),
            self.budget.usage,
            seconds,
            failure,
        )


def role_of(name: str) -> Role:
    """The role of a model that strategies call ``name``."""
    return name if name == "branch" else f"branch:{name}"


def _culprit(task_id: int, observations: Mapping[int, Observation]) -> Observation:
    """The task itself, or for one that was skipped, the failed one that it waited for."""
    seen = observations[task_id]
    while seen.status == "skipped":
        needed = (observations[each] for each in seen.task.dependencies if each in observations)
        culprit = next((each for each in needed if each.status != "done"), None)
        if culprit is None:
            break
        seen = culprit
    return seen


def _joined_value(plan: Plan, observations: Mapping[int, Observation]) -> Any:
    """What a plan without a question amounts to: what its join names, else its last tasks."""
    wanted = (plan.join.on if plan.join is not None else ()) or plan.sinks()
    for task_id in wanted:
        seen = _culprit(task_id, observations)
        if seen.status != "done":
            reason = seen.failure.message if seen.failure else seen.status
            raise ToolError(
                f"task {seen.task.id} ({seen.task.tool}) did not succeed: {reason}",
                hint=seen.failure.hint if seen.failure else "",
            )
    values = {task_id: observations[task_id].value for task_id in wanted}
    if len(values) == 1:
        return next(iter(values.values()))
    return {str(task_id): value for task_id, value in values.items()}
