"""The compiler: a question goes in, is planned, executed, joined, perhaps planned again, answered.

``LLMCompiler`` is what an application holds: tools, models, limits and a store of runs. Each run is
a ``_Run`` of its own, with its own journal, budget and engine, so any number of runs share one
compiler and one event loop without knowing of each other.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

from llmcompiler.binding import evaluate, render
from llmcompiler.calls import ModelCalls, Source
from llmcompiler.engine import Engine, OnError, Retry
from llmcompiler.errors import LimitReached, LLMCompilerError, PlanError, ToolError, UsageError
from llmcompiler.events import (
    Event,
    Failure,
    Joined,
    LimitHit,
    PlanDiagnosed,
    PlanFinished,
    PlanStarted,
    RunFinished,
    RunStarted,
    Status,
)
from llmcompiler.executors.base import Executor
from llmcompiler.executors.local import LocalExecutor
from llmcompiler.expressions import Literal as LiteralExpr
from llmcompiler.failures import failure_of
from llmcompiler.inputs import bind_inputs
from llmcompiler.joiner import JoinContext, Joiner, ModelJoiner
from llmcompiler.journal import Journal, Listener
from llmcompiler.language.diagnostics import Diagnostic
from llmcompiler.limits import Budget, Limits
from llmcompiler.llm.base import ChatModel, Usage
from llmcompiler.log import Durability, RunStore
from llmcompiler.observation import Observation
from llmcompiler.passes.check import check_plan
from llmcompiler.plan import Join, Plan, Task
from llmcompiler.planners.base import Planner, PlanningContext, Round
from llmcompiler.planners.text import TextPlanner
from llmcompiler.prompts import Prompts
from llmcompiler.tools.base import Tool
from llmcompiler.tools.loading import ToolSpec, load_tools

ModelSpec: TypeAlias = str | ChatModel


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
    plans: tuple[Plan, ...]
    observations: dict[int, Observation]
    usage: Usage
    seconds: float
    failure: Failure | None

    @property
    def plan(self) -> Plan | None:
        """The last plan; ``None`` if the run ended before there was one."""
        return self.plans[-1] if self.plans else None


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a run is made of; a replay makes one of recorded parts."""

    tools: Mapping[str, Tool]
    executor: Executor
    planner: Planner
    joiner: Joiner
    model: Callable[[Literal["planner", "joiner"]], ChatModel]
    limits: Limits
    on_error: OnError = "observe"
    retry: Retry = field(default_factory=Retry)
    recorded: Source | None = None


class LLMCompiler:
    """Plans questions, runs plans, keeps what happened.

    Args:
        tools: what plans may call: names of built-in sets, ``module:NAME``, files, functions, tools.
        model: asked for plans and answers: ``local``, ``openai:NAME``, or any ``ChatModel``. Opened
            at the first call that needs one, so a plan without a question needs none.
        planner: ``text``, or a planner of your own.
        planner_model: asked for plans instead of ``model``.
        joiner_model: asked for answers instead of ``model``.
        joiner: a joiner of your own.
        limits: bounds of each run.
        on_error: ``observe`` lets siblings of a failed task go on, ``fail`` stops the run.
        retry: how calls that failed in passing are repeated.
        store: a file for runs, or a store; ``None`` for the user's own, ``":memory:"`` for none.
        durability: what a recorded event survives: ``process`` (a kill) or ``power`` (an fsync).
        prompts: texts for planner and joiner.
        executor: where tool calls run.
        base_url: endpoint of ``openai:`` models; default ``OPENAI_BASE_URL``.
        api_key: its key; default ``OPENAI_API_KEY``. It is never logged.

    Raises:
        UsageError: a tool or planner that does not exist.
        LogError: the store cannot be opened.

    The design is LLMCompiler's (Kim et al., "An LLM Compiler for Parallel Function Calling",
    arXiv 2312.04511).
    """

    def __init__(
        self,
        tools: ToolSpec | Sequence[ToolSpec] = ("calc", "geo"),
        model: ModelSpec = "local",
        *,
        planner: str | Planner = "text",
        planner_model: ModelSpec | None = None,
        joiner_model: ModelSpec | None = None,
        joiner: Joiner | None = None,
        limits: Limits | None = None,
        on_error: OnError = "observe",
        retry: Retry | None = None,
        store: RunStore | str | os.PathLike[str] | None = None,
        durability: Durability = "process",
        prompts: Prompts | None = None,
        executor: Executor | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
    ) -> None:
        self.tools = load_tools(tools)
        prompts = prompts or Prompts()
        self._store = (
            store if isinstance(store, RunStore) else RunStore(store, durability=durability)
        )
        self._endpoint = (base_url, api_key)
        self._specs = {"planner": planner_model or model, "joiner": joiner_model or model}
        self._models: dict[str, ChatModel] = {}
        self._parts = _Parts(
            tools=self.tools,
            executor=executor or LocalExecutor(),
            planner=_planner(planner, prompts),
            joiner=joiner or ModelJoiner(prompts),
            model=self._model,
            limits=limits or Limits(),
            on_error=on_error,
            retry=retry or Retry(),
        )

    @property
    def store(self) -> RunStore:
        """Where the runs are kept."""
        return self._store

    def _model(self, role: Literal["planner", "joiner"]) -> ChatModel:
        spec = self._specs[role]
        if not isinstance(spec, str):
            return spec
        if spec not in self._models:
            from llmcompiler.llm.models import open_model

            base_url, api_key = self._endpoint
            self._models[spec] = open_model(spec, base_url=base_url, api_key=api_key)
        return self._models[spec]

    async def run(self, question: str, *, on_event: Listener | None = None) -> RunResult:
        """Answer a question.

        Args:
            question: in the user's words.
            on_event: called with each event once it is recorded.

        Returns:
            The result, also of a run that failed: its ``failure`` says why.

        Raises:
            UsageError: the question is empty, or a model cannot be opened.
            LogError: the log cannot be written.
        """
        return await self._start(_asked(question), (on_event,)).answer_question()

    def run_sync(self, question: str, *, on_event: Listener | None = None) -> RunResult:
        """``run`` for programs without an event loop.

        Models that this call opened are closed at its end, as they belong to its event loop.

        Raises:
            UsageError: an event loop runs in this thread; await ``run`` instead.
        """
        return _run_in_loop(self._run_and_close(question, on_event))

    async def _run_and_close(self, question: str, on_event: Listener | None) -> RunResult:
        try:
            return await self.run(question, on_event=on_event)
        finally:
            await self._close_models()

    async def stream(self, question: str) -> AsyncIterator[Event]:
        """Answer a question, and yield each event once it is recorded; ``RunFinished`` is the last.

        Leaving the loop early cancels the run.
        """
        queue: asyncio.Queue[Event] = asyncio.Queue()
        task = asyncio.ensure_future(self.run(question, on_event=queue.put_nowait))
        try:
            while not (task.done() and queue.empty()):
                getter = asyncio.ensure_future(queue.get())
                await asyncio.wait((getter, task), return_when=asyncio.FIRST_COMPLETED)
                if getter.done():
                    yield getter.result()
                else:
                    getter.cancel()
            task.result()
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def plan(self, question: str) -> Plan:
        """Plan a question and execute nothing.

        Raises:
            PlanError: the planner wrote nothing that can be used.
            ModelError: the model failed.
        """
        run = self._start(_asked(question), (), log=False)
        await run.write_plan(1, dispatch=False)
        if run.error is not None:
            raise run.error
        return run.plans[-1].model_copy(update={"question": LiteralExpr(value=question)})

    async def execute(
        self,
        plan: Plan,
        inputs: Mapping[str, Any] | None = None,
        *,
        on_event: Listener | None = None,
    ) -> RunResult:
        """Run a saved plan.

        A plan with a question ends with the joiner's answer; one without ends with the value of
        what its ``join`` names, and needs no model.

        Raises:
            PlanError: the plan does not fit the tools.
            UsageError: an input is missing, unknown or of another type.
        """
        plan, diagnostics = check_plan(plan, self.tools)
        if errors := [found for found in diagnostics if found.severity == "error"]:
            raise PlanError("the plan does not fit the tools", diagnostics=tuple(errors))
        values = bind_inputs(plan, inputs or {})
        question = None
        if plan.question is not None:
            question = render(evaluate(plan.question, {}.__getitem__, values))
        return await self._start(question, (on_event,), inputs=values).execute_plan(plan)

    def execute_sync(self, plan: Plan, inputs: Mapping[str, Any] | None = None) -> RunResult:
        """``execute`` for programs without an event loop; see ``run_sync``."""

        async def run() -> RunResult:
            try:
                return await self.execute(plan, inputs)
            finally:
                await self._close_models()

        return _run_in_loop(run())

    def _start(
        self,
        question: str | None,
        listeners: Sequence[Listener | None],
        *,
        inputs: dict[str, Any] | None = None,
        log: bool = True,
    ) -> _Run:
        return _Run(
            secrets.token_hex(5),
            self._parts,
            question,
            inputs or {},
            store=self._store if log else None,
            listeners=tuple(listener for listener in listeners if listener is not None),
            wall=time.time(),
        )

    async def _close_models(self) -> None:
        models, self._models = list(self._models.values()), {}
        for model in models:
            await model.aclose()

    async def aclose(self) -> None:
        """Free models, executor and store. May be called twice."""
        await self._close_models()
        await self._parts.executor.aclose()
        self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


class _Run:
    """One run, from its first event to its last."""

    def __init__(
        self,
        run: str,
        parts: _Parts,
        question: str | None,
        inputs: dict[str, Any],
        *,
        store: RunStore | None,
        listeners: tuple[Listener, ...],
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
        clock = asyncio.get_running_loop().time
        log = store.begin(run, wall) if store is not None else None
        self.journal = Journal(clock, log, listeners)
        self.budget = Budget(parts.limits)
        self.calls = ModelCalls(self.journal, self.budget, parts.recorded)
        self.engine = Engine(
            run,
            tools=parts.tools,
            executor=parts.executor,
            journal=self.journal,
            budget=self.budget,
            inputs=inputs,
            on_error=parts.on_error,
            retry=parts.retry,
        )

    # The two ways through.

    async def answer_question(self) -> RunResult:
        """Plan, execute and join until there is an answer."""
        models = {role: self.parts.model(role).name for role in ("planner", "joiner")}
        self._begin(None, models)
        return await self._to_the_end(self._answer)

    async def _answer(self) -> tuple[str, Any]:
        for number in range(1, self.parts.limits.replans + 2):
            await self.write_plan(number)
            await self.engine.settled()
            if self.error is not None and not self.engine.observations:
                raise self.error
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
            self.plans.append(plan)
            self.engine.add(1, plan.tasks)
            self._finish_plan(1, plan)
            await self.engine.settled()
            if asked:
                answer = await self._join(1, final=True)
                assert answer is not None
                return answer, None
            value = _joined_value(plan, self.engine.observations)
            return render(value), value

        return await self._to_the_end(execute)

    # Their parts.

    def _begin(self, plan: Plan | None, models: dict[str, str]) -> None:
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
        )
        self.journal.flush()

    async def write_plan(self, number: int, *, dispatch: bool = True) -> None:
        """Have the planner write a plan; its tasks start while it writes, if they are to.

        A planner that fails leaves its valid prefix as the plan, and its error in ``error``.
        """
        self.error = None
        assert self.question is not None
        earlier = tuple(task.id for plan in self.plans for task in plan.tasks)
        tasks: list[Task] = []
        join: Join | None = None
        self.journal.emit(PlanStarted, plan=number)
        context = PlanningContext(
            question=self.question,
            tools=self.parts.tools,
            rounds=tuple(self.rounds),
            next_id=max(earlier, default=0) + 1,
            ask=self.calls.ask(self.parts.model("planner"), "planner", f"plan/{number}"),
            repairs=self.parts.limits.repairs,
        )
        try:
            async for item in self.parts.planner.plan(context):
                match item:
                    case Task():
                        tasks.append(item)
                        if dispatch:
                            self.engine.add(number, [item])
                    case Join():
                        join = item
                    case Diagnostic():
                        self._diagnose(number, item)
        except LLMCompilerError as error:
            self.error = error
        plan = Plan(tasks=tuple(tasks), join=join, earlier=earlier)
        self.plans.append(plan)
        self._finish_plan(number, plan)
        if isinstance(self.error, LimitReached):
            raise self.error

    def _diagnose(self, number: int, found: Diagnostic) -> None:
        self.journal.emit(
            PlanDiagnosed,
            plan=number,
            code=found.code,
            severity=found.severity,
            message=found.message,
            rendered=found.render(),
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
        )
        decision = await self.parts.joiner.join(context)
        self.journal.emit(Joined, plan=number, decision=decision.kind, text=decision.text)
        self.journal.flush()
        if decision.kind == "answer":
            return decision.text
        self.rounds.append(Round(plan, observations, decision.text))
        return None

    # The end, whatever it is.

    async def _to_the_end(self, work: Callable[[], Awaitable[tuple[str, Any]]]) -> RunResult:
        """Do the run's work under its deadline, and record how it ended."""
        answer: str | None = None
        value: Any = None
        try:
            async with asyncio.timeout(self.parts.limits.deadline) as timeout:
                answer, value = await work()
            status: Status = "answered"
            failure = None
        except TimeoutError:
            if not timeout.expired():
                raise
            message = f"the run reached its limit deadline={self.parts.limits.deadline:g} s"
            self.journal.emit(LimitHit, limit="deadline", message=message)
            await self.engine.stop(message)
            hint = "raise it with --limit deadline=…"
            status, failure = "failed", Failure("limit", "LimitReached", message, hint)
        except LLMCompilerError as error:
            await self.engine.stop(str(error.message))
            status, failure = "failed", failure_of(error)
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError | KeyboardInterrupt)
            why = Failure("usage", "Interrupted", "the run was interrupted")
            await self.engine.stop("the run was interrupted" if cancelled else "a bug")
            if cancelled:
                self._end("interrupted", None, None, why)
            else:
                self._end("failed", None, None, failure_of(error))
            raise
        return self._end(status, answer, value, failure)

    def _end(
        self, status: Status, answer: str | None, value: Any, failure: Failure | None
    ) -> RunResult:
        self.journal.emit(
            RunFinished, status=status, answer=answer, value=value, failure=failure
        )
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


def _planner(planner: str | Planner, prompts: Prompts) -> Planner:
    if not isinstance(planner, str):
        return planner
    if planner == "text":
        return TextPlanner(prompts)
    raise UsageError(f'there is no planner "{planner}"', hint="one of: text")


def _asked(question: str) -> str:
    if not question.strip():
        raise UsageError("the question is empty", hint='for example: "How dense is Japan?"')
    return question


def _joined_value(plan: Plan, observations: Mapping[int, Observation]) -> Any:
    """What a plan without a question amounts to: what its join names, else its last tasks."""
    wanted = (plan.join.on if plan.join is not None else ()) or plan.sinks()
    for task_id in wanted:
        seen = observations[task_id]
        if seen.status != "done":
            reason = seen.failure.message if seen.failure else seen.status
            raise ToolError(
                f"task {task_id} ({seen.task.tool}) did not succeed: {reason}",
                hint=seen.failure.hint if seen.failure else "",
            )
    values = {task_id: observations[task_id].value for task_id in wanted}
    if len(values) == 1:
        return next(iter(values.values()))
    return {str(task_id): value for task_id, value in values.items()}


def _run_in_loop(work: Coroutine[Any, Any, RunResult]) -> RunResult:
    """Run a coroutine in an event loop of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    work.close()
    raise UsageError(
        "an event loop runs in this thread already", hint="await the method without _sync instead"
    )
