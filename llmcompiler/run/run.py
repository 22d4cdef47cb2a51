"""One run from its first event to its last: plan, execute, join, perhaps plan again.

``RunConfig`` says what the run is made of, ``RecordedInputs`` what is on record before it starts.
New runs, replays, resumed runs and forks differ only in these two.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import date
from typing import Any

from llmcompiler.errors import (
    Failure,
    LimitReached,
    LLMCompilerError,
    PlanError,
    failure_of,
)
from llmcompiler.events import (
    Joined,
    LimitHit,
    PlanDiagnosed,
    PlanFinished,
    PlanStarted,
    RunFinished,
    RunStarted,
    Status,
)
from llmcompiler.joiners.model import Decision, JoinContext
from llmcompiler.joiners.reduced import ReducedJoiner
from llmcompiler.llm.base import ChatModel, StreamFunction
from llmcompiler.llm.prices import Prices
from llmcompiler.log.journal import Journal
from llmcompiler.passes.deduplicate import Deduplicator, repeated_call
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.model import Join, Plan, Task
from llmcompiler.planners.base import PlannerAnswer, PlanningContext, PlanRound
from llmcompiler.programs.program import CompiledStatement, ProgramCompiler
from llmcompiler.programs.saved import compile_saved
from llmcompiler.prompting.formatting import describe_day
from llmcompiler.prompting.profile import Profile
from llmcompiler.reasoning.executor import BranchExecutor
from llmcompiler.run.config import RecordedInputs, RunConfig, role_of
from llmcompiler.run.program_stage import ProgramOutcome, ProgramStage
from llmcompiler.run.result import RunResult
from llmcompiler.run.reuse import reusable_tasks
from llmcompiler.runtime.binding import render_value
from llmcompiler.runtime.budget import RunBudget
from llmcompiler.runtime.engine import Engine
from llmcompiler.runtime.model_calls import ModelCalls
from llmcompiler.runtime.results import Observation, joined_value
from llmcompiler.version import VERSION

INTERRUPTED = Failure("usage", "Interrupted", "the run was interrupted")


def new_run_id() -> str:
    """A fresh random id for a run."""
    return secrets.token_hex(5)


class Run:
    """One run from its first event to its last.

    Args:
        run: its id.
        config: what it is made of.
        question: what is asked; ``None`` for a saved plan without a question.
        inputs: values of the saved plan's inputs.
        journal: takes in the run's events.
        wall: when the run began, in seconds since the epoch.
        recorded: what is on record before the run starts.

    Attributes:
        engine: executes the tasks.
        program: executes the program, if the planner writes one.
        plans: the plans so far.
        rounds: the finished plans whose joiner asked for another one.
        error: why the last plan is incomplete; ``None`` for a complete plan.
    """

    def __init__(
        self,
        run: str,
        config: RunConfig,
        question: str | None,
        inputs: dict[str, Any],
        *,
        journal: Journal,
        wall: float,
        record: RecordedInputs | None = None,
    ) -> None:
        self.run = run
        self.config = config
        self.record = record = record or RecordedInputs()
        self.question = question
        self.inputs = inputs
        self.wall = wall
        self.plans: list[Plan] = []
        self.rounds: list[PlanRound] = []
        self.error: LLMCompilerError | None = None
        self.journal = journal
        self.budget = RunBudget(config.limits, config.prices)
        self.calls = ModelCalls(
            self.journal,
            self.budget,
            record.recorded_completions,
            config.may_ask_models,
            record.lookup_completion,
        )
        self.engine = Engine(
            run,
            tools=config.tools,
            executor=BranchExecutor(
                config.executor,
                calls=self.calls,
                journal=self.journal,
                models=self._branch_models,
                prompts=config.prompts.reasoning,
                prices=config.prices or Prices(),
                recorded=record.branches,
            ),
            journal=self.journal,
            budget=self.budget,
            inputs=inputs,
            on_error=config.on_error,
            retry=config.retry,
            recorded=record.outcomes,
            overridden_results=record.overridden_results,
            lookup_tool_result=record.lookup_tool_result,
            attempts=record.attempts,
            retry_at=record.retry_at,
            approver=config.approver,
            approvals=record.approvals,
            cache=config.cache,
            weights=config.weights,
        )
        today = config.today() if callable(config.today) else config.today
        self._today = str(today or date.fromtimestamp(wall))
        self._direct_answer: str | None = None
        self.program = ProgramStage(self.engine, journal, config, inputs)
        self._changed_tasks: set[int] = set()

    # The two ways through.

    async def complete(self, saved_plan: Plan | None) -> RunResult:
        """Execute the saved plan, or answer the question if there is none."""
        if saved_plan is None:
            return await self.answer_question()
        return await self.execute_plan(saved_plan)

    async def answer_question(self) -> RunResult:
        """Plan, execute and join until there is an answer."""
        models = {role: self.config.model_for(role).name for role in ("planner", "joiner")}
        self._emit_started(None, models)
        return await self._finish(self._answer)

    async def _answer(self) -> tuple[str, Any]:
        last_plan = self.config.limits.replans + 1
        for number in range(1, last_plan + 1):
            await self.write_plan(number)
            if self.program.has_started:
                outcome = await self.program.outcome()
                # The joiner judges a program that the planner did not end, or left open.
                if self.error is None and not outcome.is_open:
                    answer = self._answer_of_program(number, outcome)
                    if answer is not None:
                        return answer, outcome.value
                    continue
            await self.engine.wait_idle()
            if self.error is not None and not self.engine.observations:
                raise self.error
            if self._direct_answer is not None:
                self._emit_joined(number, Decision("answer", self._direct_answer))
                return self._direct_answer, None
            joined = await self._join(number, final=number == last_plan)
            if joined is not None:
                return joined, None
        raise AssertionError("the last join must answer")

    def _answer_of_program(self, number: int, outcome: ProgramOutcome) -> str | None:
        """The answer of a program that answered; ``None`` if another plan is to do better.

        Raises:
            PlanError, ToolError: the program of the last plan failed.
        """
        if outcome.failure is None:
            self._emit_joined(number, Decision("answer", outcome.text))
            return outcome.text
        if number == self.config.limits.replans + 1:
            raise outcome.failure
        plan, why = self.plans[-1], outcome.failure.message
        observations = {task.id: self.engine.observations[task.id] for task in plan.tasks}
        self.rounds.append(PlanRound(plan, observations, why))
        self._emit_joined(number, Decision("replan", why))
        return None

    async def execute_plan(self, plan: Plan) -> RunResult:
        """Execute a checked plan, and join it if it has a question."""
        has_question = self.question is not None
        models = {"joiner": self.config.model_for("joiner").name} if has_question else {}
        self._emit_started(plan, models)

        async def execute() -> tuple[str, Any]:
            if plan.program is not None:
                return await self._execute_program(plan)
            self.journal.emit(PlanStarted, plan=1)
            replaced_calls = self.record.replaced_calls
            tasks = tuple(replaced_calls.get(task.id, task) for task in plan.tasks)
            self.plans.append(plan.model_copy(update={"tasks": tasks}))
            self.engine.add(1, tasks)
            self._emit_plan_finished(1, plan)
            await self.engine.wait_idle()
            if has_question:
                answer = await self._join(1, final=True)
                assert answer is not None
                return answer, None
            value = joined_value(plan, self.engine.observations)
            return render_value(value), value

        return await self._finish(execute)

    async def _execute_program(self, plan: Plan) -> tuple[str, Any]:
        """Execute a plan that is a program."""
        assert plan.program is not None
        self.journal.emit(PlanStarted, plan=1)
        _, items = compile_saved(plan.program, self.config.tools, tuple(self.inputs))
        tasks: list[Task] = []
        self.program.begin(1)
        for item in items:
            if isinstance(item, Diagnostic):
                self._emit_diagnostic(1, item)
                if item.severity == "error":
                    raise PlanError("the program cannot run", diagnostics=(item,))
            else:
                tasks.extend(item.tasks)
                self.program.add(item)
        self.plans.append(plan.model_copy(update={"tasks": tuple(tasks)}))
        self._emit_plan_finished(1, self.plans[-1])
        if not self.program.has_started:
            return "null", None
        self.program.close()
        outcome = await self.program.outcome()
        if outcome.failure is not None:
            raise outcome.failure
        if outcome.is_open and self.question is not None:
            answer = await self._join(1, final=True)
            assert answer is not None
            return answer, None
        return outcome.text, outcome.value

    # The stages of a run.

    def _today_text(self, profile: Profile) -> str:
        return describe_day(self._today) if profile.states_date else ""

    def _branch_models(self) -> dict[str, ChatModel]:
        return {name: self.config.model_for(role_of(name)) for name in self.config.branch_models}

    def _emit_started(self, plan: Plan | None, models: dict[str, str]) -> None:
        config = self.config
        tools = config.tools if plan is None else {task.tool for task in plan.tasks}
        if any(config.tools[name].reasons for name in tools):
            branch_models = self._branch_models()
            models |= {role_of(name): model.name for name, model in branch_models.items()}
        self.journal.emit(
            RunStarted,
            run=self.run,
            wall=self.wall,
            question=self.question,
            inputs=self.inputs,
            plan=plan.model_dump(mode="json") if plan is not None else None,
            planner=config.planner.name if plan is None else None,
            models=models,
            tools=tuple(config.tools),
            catalogue={name: tool.describe() for name, tool in config.tools.items()},
            limits=config.limits.model_dump(exclude_none=True),
            prompts=config.prompts.model_dump(mode="json"),
            profiles=config.profiles.model_dump(mode="json"),
            today=self._today,
            origin=self.record.origin,
            join_reducer=None if config.join_reducer is None else str(config.join_reducer),
            release=VERSION,
        )
        self.journal.flush()

    async def write_plan(self, number: int, *, dispatch: bool = True) -> None:
        """Have the planner write plan ``number``.

        If the planner fails, its valid prefix becomes the plan, and ``error`` holds its error.

        Args:
            number: 1 for the first plan.
            dispatch: True to start tasks while the planner writes.

        Raises:
            LimitReached: a limit of the run stopped the planner.
        """
        self.error = None
        self._direct_answer = None
        earlier = tuple(task.id for plan in self.plans for task in plan.tasks)
        tasks: list[Task] = []
        join: Join | None = None
        program: ProgramCompiler | None = None
        self.program.begin(number)
        self.journal.emit(PlanStarted, plan=number)
        # Each repeated task by its id, with the id of the task that it repeats.
        repeats: dict[int, int] = {}
        context = self._planning_context(number, max(earlier, default=0) + 1)
        if dispatch:
            context = dataclasses.replace(context, observe=lambda: self._observe_all(repeats))
        deduplicator = Deduplicator(
            self.config.tools, reusable_tasks(self.rounds, self.config.tools)
        )
        try:
            async for item in self.config.planner.plan(context):
                match item:
                    case Task():
                        task = deduplicator.accept(self.record.replaced_calls.get(item.id, item))
                        if isinstance(task, int):
                            self._emit_diagnostic(number, repeated_call(item, task))
                            repeats[item.id] = task
                            continue
                        tasks.append(task)
                        if dispatch:
                            self._discard_if_changed(task)
                            self.engine.add(number, [task])
                    case Join():
                        join = deduplicator.redirect_join(item)
                    case CompiledStatement():
                        tasks.extend(item.tasks)
                        program = item.program
                        if dispatch:
                            self.program.add(item)
                    case PlannerAnswer():
                        self._direct_answer = item.text
                    case Diagnostic():
                        self._emit_diagnostic(number, item)
        except LLMCompilerError as error:
            self.error = error
        source = program.source if program is not None else None
        plan = Plan(tasks=tuple(tasks), join=join, earlier=earlier, program=source)
        self.plans.append(plan)
        if not isinstance(self.error, LimitReached):
            self.program.close()
        if isinstance(self.error, LimitReached):
            # The plan was cut short, not finished: a resumed run may go on with it.
            raise self.error
        self._emit_plan_finished(number, plan)

    def _planning_context(self, number: int, next_id: int) -> PlanningContext:
        model = self.config.model_for("planner")

        def ask_as(name: str) -> StreamFunction:
            return self.calls.ask(model, "planner", name, continues=True)

        assert self.question is not None
        return PlanningContext(
            question=self.question,
            tools=self.config.tools,
            rounds=tuple(self.rounds),
            next_id=next_id,
            ask=ask_as(f"plan/{number}"),
            ask_as=lambda name: ask_as(f"plan/{number}/{name}"),
            repairs=self.config.limits.repairs,
            profile=self.config.profiles.planner,
            today=self._today_text(self.config.profiles.planner),
        )

    async def _observe_all(self, repeats: Mapping[int, int]) -> dict[int, Observation]:
        """Wait until all tasks have ended; the observations of these and of repeated tasks.

        Args:
            repeats: the id of a repeated task -> the id of the task that it repeats.
        """
        await self.engine.wait_idle()
        observations = self.engine.observations
        copies = {repeat: observations[first] for repeat, first in repeats.items()}
        return {**observations, **copies}

    def _discard_if_changed(self, task: Task) -> None:
        """Discard a recorded outcome if the task's call has changed.

        A fork takes outcomes over by task number. In a plan that is written again, the number may
        belong to another call, or the call may read from one that has changed.
        """
        parent_call = self.record.parent_calls.get(task.id)
        if parent_call is None:
            return
        if parent_call != task.to_json() or not self._changed_tasks.isdisjoint(task.dependencies):
            self._changed_tasks.add(task.id)
            self.engine.discard_recorded(task.id)

    def _emit_diagnostic(self, number: int, diagnostic: Diagnostic) -> None:
        self.journal.emit(
            PlanDiagnosed,
            plan=number,
            code=diagnostic.code,
            severity=diagnostic.severity,
            message=diagnostic.message,
            rendered=diagnostic.render(),
            linted=diagnostic.linted,
        )
        self.journal.flush()

    def _emit_plan_finished(self, number: int, plan: Plan) -> None:
        join = plan.join.on if plan.join is not None else None
        self.journal.emit(
            PlanFinished, plan=number, tasks=len(plan.tasks), join=join, program=plan.program
        )
        self.journal.flush()

    async def _join(self, number: int, final: bool) -> str | None:
        """The answer, or ``None`` if the joiner asks for another plan.

        Args:
            number: the plan's.
            final: True if there is no further plan, so that the joiner has to answer.
        """
        plan = self.plans[-1]
        observations = {task.id: self.engine.observations[task.id] for task in plan.tasks}
        model = self.config.model_for("joiner")
        context = JoinContext(
            question=self.question or "",
            tools=self.config.tools,
            rounds=(*self.rounds, PlanRound(plan, observations, "")),
            final=final,
            ask=self.calls.ask(model, "joiner", f"join/{number}"),
            ask_as=lambda name: self.calls.ask(model, "joiner", f"join/{number}/{name}"),
            profile=self.config.profiles.joiner,
            today=self._today_text(self.config.profiles.joiner),
        )
        joiner = self.config.joiner
        if self.config.join_reducer is not None:
            joiner = ReducedJoiner(joiner, self.config.join_reducer)
        decision = await joiner.join(context)
        self._emit_joined(number, decision)
        if decision.kind == "answer":
            return decision.text
        self.rounds.append(PlanRound(plan, observations, decision.text))
        return None

    def _emit_joined(self, number: int, decision: Decision) -> None:
        self.journal.emit(
            Joined, plan=number, decision=decision.kind, text=decision.text, why=decision.why
        )
        self.journal.flush()

    # The end.

    async def _finish(self, work: Callable[[], Awaitable[tuple[str, Any]]]) -> RunResult:
        """Do the run's work under its deadline, and record how it ended."""
        answer: str | None = None
        value: Any = None
        timeout = asyncio.timeout(self.config.limits.deadline)
        try:
            async with timeout:
                answer, value = await work()
            status: Status = "answered"
            failure = None
        except TimeoutError:
            if not timeout.expired():
                raise
            message = f"the run reached its limit deadline={self.config.limits.deadline:g} s"
            self.journal.emit(LimitHit, limit="deadline", message=message)
            await self._stop_engine(message)
            hint = "raise it with --limit deadline=…"
            status, failure = "failed", Failure("limit", "LimitReached", message, hint)
        except LLMCompilerError as error:
            await self._stop_engine(error.message)
            status, failure = "failed", failure_of(error)
        except BaseException as error:
            is_interrupted = isinstance(error, asyncio.CancelledError | KeyboardInterrupt)
            await self._stop_engine("the run was interrupted" if is_interrupted else "a bug")
            if is_interrupted:
                self._emit_finished("interrupted", None, None, INTERRUPTED)
            else:
                self._emit_finished("failed", None, None, failure_of(error))
            raise
        return self._emit_finished(status, answer, value, failure)

    async def _stop_engine(self, reason: str) -> None:
        """Stop the engine; a run that is cancelled meanwhile still gets an end in the log."""
        try:
            await self.engine.stop(reason)
        except asyncio.CancelledError:
            self._emit_finished("interrupted", None, None, INTERRUPTED)
            raise

    def _emit_finished(
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
