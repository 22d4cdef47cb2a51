"""What an application holds: tools, models, limits and a store of runs.

Any number of runs share one compiler and one event loop. The compiler holds nothing of a single
run: each run's state is in its ``Run``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date
from types import TracebackType
from typing import Any, Self

from llmcompiler.errors import UsageError
from llmcompiler.events import Event
from llmcompiler.executors.base import Executor
from llmcompiler.executors.local import LocalExecutor
from llmcompiler.history.fork import Changes, fork_inputs, read_call
from llmcompiler.history.resume import resume_run
from llmcompiler.history.run_history import RunHistory
from llmcompiler.history.saved import sound_plan
from llmcompiler.history.state import RunState
from llmcompiler.history.think import (
    ThinkResult,
    add_recorded_think,
    add_think,
    read_think_result,
    think_plan,
)
from llmcompiler.history.tool_changes import refuse_tool_changes, tool_changes
from llmcompiler.history.whatif import WhatIf, what_if
from llmcompiler.joiners.model import Joiner, ModelJoiner
from llmcompiler.joiners.reduced import JoinReducer
from llmcompiler.limits import Limits
from llmcompiler.llm.pool import ModelPool, ModelSpec
from llmcompiler.llm.prices import Price, Prices
from llmcompiler.log.journal import Journal, Listener
from llmcompiler.log.sqlite_file import Durability
from llmcompiler.log.store import RunStore
from llmcompiler.model_options import ModelOptions
from llmcompiler.plan.expressions import Literal as LiteralExpr
from llmcompiler.plan.model import Plan, bind_inputs
from llmcompiler.planners.base import Planner, check_question
from llmcompiler.planners.registry import create_planner
from llmcompiler.prompting.profile import Profile, Profiles, profiles_for
from llmcompiler.prompting.prompts import Prompts
from llmcompiler.reasoning.base import BranchBudget
from llmcompiler.reasoning.executor import budget_to_options
from llmcompiler.reasoning.tool import DEFAULT_STRATEGY, THINK, think_tool, with_think
from llmcompiler.run.config import RecordedInputs, RunConfig, role_of
from llmcompiler.run.handle import LiveRun, OnRunCreated
from llmcompiler.run.result import RunResult
from llmcompiler.run.run import Run, new_run_id
from llmcompiler.runtime.approval import Approver
from llmcompiler.runtime.binding import evaluate_expression, render_value
from llmcompiler.runtime.result_cache import ResultCache
from llmcompiler.settings.servers import load_tools
from llmcompiler.tools.base import DEFAULT_TOOLS
from llmcompiler.tools.loading import ToolSource
from llmcompiler.tools.policy import OnError, Retry


class LLMCompiler:
    """Plans questions, runs plans, and keeps what happened.

    Args:
        tools: what plans may call: built-in sets by name, ``module:NAME``, files, functions, tools.
        model: asked for plans and answers: ``local``, ``openai:NAME``, or any ``ChatModel``. Opened
            at the first call that needs one, so a plan without a question needs none.
        planner: ``text``, ``structured``, or a planner of your own.
        planner_model: asked for plans instead of ``model``.
        joiner_model: asked for answers instead of ``model``.
        joiner: a joiner of your own.
        join_reducer: makes one decision of several drafts of the joiner: ``vote``, ``best_of``,
            ``tournament`` or ``synthesize``; ``vote:5`` for five drafts instead of three.
        branch_model: asked by reasoning branches instead of ``model``.
        branch_models: further models that strategies name, such as ``target`` or ``judge``.
        reason: a strategy; it lets planners use ``think``, which reasons in this way unless a call
            names another strategy. Saved plans and this class's ``think`` need no permission.
        limits: bounds of each run.
        on_error: ``observe`` lets siblings of a failed task go on, ``fail`` stops the run.
        retry: how calls that failed with a transient error are repeated.
        approver: asks somebody about calls of tools made with ``@tool(approve=True)``. Without an
            approver, a run that needs approval stops, and can be resumed by a compiler with one.
        cache: a file for results of tools made with ``@tool(cache=SECONDS)``, or a cache. Without
            a cache, no result serves a later run.
        prices: of models by name, for a limit on cost; used before those of ``genai-prices``.
        store: a file for runs, or a store; ``None`` for the user's own, ``":memory:"`` for none.
        durability: what a recorded event survives: ``process`` (a kill) or ``power`` (an fsync).
        prompts: texts for planner and joiner.
        profile: what planner and joiner are shown and how they are checked: ``small`` (up to 4
            billion parameters) or ``strong``. Without one, each model's name decides.
        context_tokens: tokens that the models can read; by default each model's name decides.
        today: returns the day that prompts of strong models name; by default the day of the run.
        executor: where tool calls run.
        base_url: endpoint of ``openai:`` models; default ``OPENAI_BASE_URL``.
        api_key: its key; default ``OPENAI_API_KEY``. It is never logged.
        model_options: bounds of answers, temperature, time-outs and more, for models that are given
            by their names.

    Raises:
        UsageError: there is no such tool or planner.
        LogError: the store cannot be opened.

    The design is LLMCompiler's (Kim et al., "An LLM Compiler for Parallel Function Calling",
    arXiv 2312.04511).
    """

    def __init__(
        self,
        tools: ToolSource | Sequence[ToolSource] = DEFAULT_TOOLS,
        model: ModelSpec = "local",
        *,
        planner: str | Planner = "text",
        planner_model: ModelSpec | None = None,
        joiner_model: ModelSpec | None = None,
        joiner: Joiner | None = None,
        join_reducer: str | None = None,
        branch_model: ModelSpec | None = None,
        branch_models: Mapping[str, ModelSpec] | None = None,
        reason: str | None = None,
        limits: Limits | None = None,
        on_error: OnError = "observe",
        retry: Retry | None = None,
        approver: Approver | None = None,
        cache: ResultCache | str | os.PathLike[str] | None = None,
        prices: Mapping[str, Price] | None = None,
        store: RunStore | str | os.PathLike[str] | None = None,
        durability: Durability = "process",
        prompts: Prompts | None = None,
        profile: str | Profile | Profiles | None = None,
        context_tokens: int | None = None,
        today: Callable[[], date] | None = None,
        executor: Executor | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        model_options: ModelOptions | None = None,
    ) -> None:
        self.tools = load_tools(tools)
        if reason is not None:
            self.tools.setdefault(THINK, think_tool(reason))
        branch_models = dict(branch_models or {})
        self._planner = planner
        self._joiner = joiner
        self._store = (
            store if isinstance(store, RunStore) else RunStore(store, durability=durability)
        )
        specs: dict[str, ModelSpec] = {
            "planner": planner_model or model,
            "joiner": joiner_model or model,
            "branch": branch_model or model,
            **{role_of(name): spec for name, spec in branch_models.items()},
        }
        self._models = ModelPool(specs, base_url=base_url, api_key=api_key, options=model_options)
        models = (planner_model or model, joiner_model or model)
        profiles = profiles_for(*models, profile, context_tokens)
        prompts = profiles.complete_prompts(prompts or Prompts())
        self._accepts_tool_changes = False
        self._config = RunConfig(
            tools=self.tools,
            executor=executor or LocalExecutor(),
            planner=create_planner(planner, prompts),
            joiner=joiner or ModelJoiner(prompts),
            join_reducer=None if join_reducer is None else JoinReducer.parse(join_reducer),
            model_for=self._models.model_for,
            limits=limits or Limits(),
            prompts=prompts,
            profiles=profiles,
            today=today or "",
            on_error=on_error,
            retry=retry or Retry(),
            approver=approver,
            prices=Prices(prices),
            cache=ResultCache(cache) if isinstance(cache, str | os.PathLike) else cache,
            branch_models=("branch", *branch_models),
        )

    @property
    def store(self) -> RunStore:
        """Where the runs are kept."""
        return self._store

    def tool_changes(self) -> list[str]:
        """What changed about tools of MCP servers since a run of this store last used them.

        While there are changes, no run begins. Read them, or have somebody read them, and then
        call ``accept_tool_changes``.

        Raises:
            LogError: the store cannot be read.
        """
        if self._accepts_tool_changes:
            return []
        return tool_changes(self.tools, self._store.catalogues())

    def accept_tool_changes(self) -> None:
        """Trust the tools as they are now; the next run records their descriptions."""
        self._accepts_tool_changes = True

    def approve_with(self, approver: Approver | None) -> None:
        """Ask ``approver`` about calls that need approval, in the runs that begin from now on."""
        self._config = dataclasses.replace(self._config, approver=approver)

    async def run(self, question: str, *, on_event: Listener | None = None) -> RunResult:
        """Answer a question.

        Args:
            question: in the user's words.
            on_event: called with each event once it is recorded.

        Returns:
            The result. A run that fails has a result, too; its ``failure`` says why.

        Raises:
            UsageError: the question is empty, or a model cannot be opened.
            LogError: the log cannot be written.
        """
        return await self._answer(question, on_event)

    async def _answer(
        self,
        question: str,
        on_event: Listener | None,
        on_run_created: OnRunCreated | None = None,
    ) -> RunResult:
        check_question(question)
        self._models.open("planner", "joiner")
        async with self._open_run(question, {}, on_event, on_run_created=on_run_created) as run:
            return await run.answer_question()

    def run_sync(self, question: str, *, on_event: Listener | None = None) -> RunResult:
        """``run`` for programs without an event loop.

        Models that this call opened are closed at its end, because they belong to its event loop.

        Raises:
            UsageError: an event loop runs in this thread; await ``run`` instead.
        """
        return self._run_in_loop(lambda: self.run(question, on_event=on_event))

    def _run_in_loop(self, work: Callable[[], Awaitable[RunResult]]) -> RunResult:
        """Do the work in an event loop of its own, and close the models that it opened."""

        async def main() -> RunResult:
            try:
                return await work()
            finally:
                await self._models.aclose()

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(main())
        raise UsageError(
            "an event loop runs in this thread already",
            hint="await the method without _sync instead",
        )

    async def stream(self, question: str) -> AsyncIterator[Event]:
        """Answer a question, and yield each event once it is recorded; ``RunFinished`` is the last.

        Leaving the loop early cancels the run; ``start`` gives more control.
        """
        async with self.start(question) as live:
            async for event in live.events():
                yield event

    def start(self, what: str | Plan, inputs: Mapping[str, Any] | None = None) -> LiveRun:
        """Begin a run in the background: read its events, cancel a task, wait for its result.

        For example::

            async with agent.start("Which city is larger?") as live:
                async for event in live.events():
                    if isinstance(event, TaskStarted) and event.at > 30:
                        await live.cancel(event.task, "too late")
                result = await live.result()

        Args:
            what: a question, or a saved plan.
            inputs: values of the plan's inputs.
        """

        def work(on_event: Listener, on_run_created: OnRunCreated) -> Awaitable[RunResult]:
            if isinstance(what, str):
                return self._answer(what, on_event, on_run_created)
            return self._execute(what, inputs, on_event, on_run_created)

        return LiveRun(work)

    async def plan(self, question: str) -> Plan:
        """Plan a question and execute nothing.

        Raises:
            UsageError: the question is empty.
            PlanError: the planner wrote no usable plan.
            ModelError: the model failed.
        """
        refuse_tool_changes(self.tool_changes())
        check_question(question)
        self._models.open("planner")
        clock = asyncio.get_running_loop().time
        journal, wall = Journal(clock, None), time.time()
        run = Run(new_run_id(), self._config, question, {}, journal=journal, wall=wall)
        await run.write_plan(1, dispatch=False)
        if run.error is not None:
            raise run.error
        return run.plans[-1].model_copy(update={"question": LiteralExpr(value=question)})

    async def execute(
        self,
        plan: Plan | str,
        inputs: Mapping[str, Any] | None = None,
        *,
        on_event: Listener | None = None,
    ) -> RunResult:
        """Run a saved plan: a ``Plan``, or its text in any form.

        A plan with a question ends with the joiner's answer. A plan without a question ends with
        the value of the tasks that its ``join`` names, and needs no model.

        Raises:
            PlanError: the plan does not fit the tools.
            UsageError: an input is missing, unknown or of another type.
        """
        return await self._execute(plan, inputs, on_event)

    async def _execute(
        self,
        saved: Plan | str,
        inputs: Mapping[str, Any] | None,
        on_event: Listener | None,
        on_run_created: OnRunCreated | None = None,
    ) -> RunResult:
        plan = sound_plan(saved, self.tools)
        config = dataclasses.replace(self._config, tools=with_think(self.tools, plan))
        values = bind_inputs(plan, inputs or {})
        question = None
        if plan.question is not None:
            question = render_value(evaluate_expression(plan.question, _refuse_task, values))
            self._models.open("joiner")
        async with self._open_run(question, values, on_event, config, None, on_run_created) as run:
            return await run.execute_plan(plan)

    def execute_sync(self, plan: Plan | str, inputs: Mapping[str, Any] | None = None) -> RunResult:
        """``execute`` for programs without an event loop; see ``run_sync``."""
        return self._run_in_loop(lambda: self.execute(plan, inputs))

    async def think(
        self,
        problem: str,
        *,
        context: Any = None,
        strategy: str = DEFAULT_STRATEGY,
        answer: str = "auto",
        budget: BranchBudget | None = None,
        seed: int | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        on_event: Listener | None = None,
        **options: Any,
    ) -> ThinkResult:
        """Reason about a problem with several calls of the branch model.

        This runs a plan with one call of ``think``. So the run is recorded, and can be replayed and
        resumed by its id.

        Args:
            problem: what is to be worked out.
            context: what is known: text, data, or a list of these.
            strategy: its name; see ``llmcompiler think --list``.
            answer: where in a text the answer is: ``auto``, ``boxed``, ``last_line``, ``number``,
                ``json:FIELD`` or ``regex:PATTERN``.
            budget: what the branch may use; at a bound it gives the best answer that it has.
            seed: makes the strategy's choices repeatable, and sampling if the endpoint allows it.
            max_tokens: the most tokens of a call that the strategy does not bound itself.
            temperature: of sampling.
            on_event: called with each event once it is recorded.
            options: options of the strategy, such as ``width=4``.

        Raises:
            UsageError: the problem is empty, or there is no such strategy or option.
        """
        settings = {
            "answer": answer if answer != "auto" else None,
            "seed": seed,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "budget": budget_to_options(budget),
        }
        options |= {name: value for name, value in settings.items() if value is not None}
        plan = think_plan(problem, context, strategy, options, self._config.prompts.reasoning)
        self._models.open(*(role_of(name) for name in self._config.branch_models))
        state = RunState()

        def apply(event: Event) -> None:
            state.apply(event)
            if on_event is not None:
                on_event(event)

        result = await self.execute(plan, on_event=apply)
        return read_think_result(state, result.failure)

    async def resume(
        self,
        run: str,
        *,
        limits: Limits | None = None,
        take_over: bool = False,
        on_event: Listener | None = None,
    ) -> RunResult:
        """Go on with a run that a crash, a limit, an endpoint or a user stopped.

        Recorded model calls and tool calls are not made again. Calls that were in flight are made
        again, under the same idempotency keys. Models are shown the run's own prompts.

        Args:
            run: its id, a unique prefix of it, or ``last``.
            limits: bounds from here on, counted from zero; ``None`` for those that the run had.
            take_over: True to go on with a run that a process on another machine owns, though this
                process cannot tell whether that one is alive. If it is, it stops at its next event.
            on_event: called with the recorded events, then with each new one.

        Raises:
            UsageError: the run is answered already, a recorded failure of a tool ended it, or the
                tools or the planner are not its own.
            LogError: there is no such run, another process owns it, or its log is damaged.
        """
        refuse_tool_changes(self.tool_changes())
        run = self._store.find(run)
        log = self._store.claim(run, take_over=take_over)
        try:
            history = RunHistory.load(self._store, run)
            prompts = history.prompts()
            config = dataclasses.replace(
                add_recorded_think(history, self._config),
                prompts=prompts,
                profiles=history.profiles(),
                today=history.start.today,
                planner=create_planner(self._planner, prompts),
                joiner=self._joiner or ModelJoiner(prompts),
                join_reducer=history.join_reducer(),
            )
            return await resume_run(history, config, log, limits, on_event)
        finally:
            log.close()

    async def fork(
        self,
        run: str,
        *,
        start: int | str | None = None,
        values: Mapping[int, Any] | None = None,
        calls: Mapping[int, str] | None = None,
        on_event: Listener | None = None,
    ) -> RunResult:
        """Start a new run that takes over the results of another, up to a change.

        The named tasks, and whatever depends on them, are done again with this compiler's tools.
        Later plans and the answer are written again by its models, with its prompts. Everything
        else is shared with the parent.

        Args:
            run: the parent: its id, a unique prefix of it, or ``last``.
            start: what is done again first: a task by its number, ``plan`` (or ``plan/2``), or
                ``join`` (or ``join/1``) for the answer alone.
            values: overridden results by task id.
            calls: calls to make in place of the planned ones, by task id, as plan text without a
                number (``country("Spain")``).
            on_event: called with each event once it is recorded.

        Raises:
            UsageError: nothing is changed, or the run does not have the task or place that is
                named.
            PlanError: a call cannot be read, or does not fit the tools.
            LogError: there is no such run, or its log is damaged.
        """
        history = RunHistory.load(self._store, run)
        replaced_calls = {
            task: read_call(history, task, text, self.tools) for task, text in (calls or {}).items()
        }
        config = add_recorded_think(history, self._config)
        if config.join_reducer is None:
            config = dataclasses.replace(config, join_reducer=history.join_reducer())
        record = fork_inputs(history, Changes(start, values or {}, replaced_calls))
        parent_start = history.start
        if parent_start.question is not None:
            self._models.open(*(("joiner",) if parent_start.plan else ("planner", "joiner")))
        async with self._open_run(
            parent_start.question, parent_start.inputs, on_event, config, record
        ) as forked_run:
            return await forked_run.complete(history.saved_plan())

    async def what_if(
        self,
        run: str,
        values: Mapping[int, Any],
        *,
        until: int | None = None,
        on_event: Listener | None = None,
    ) -> WhatIf:
        """What would have come of a run if some tasks had returned other values. Nothing is kept.

        Calls with recorded arguments and model calls with recorded requests are not made again.
        Other calls are made with this compiler's tools and models. Tools that change the world are
        not called, because this is only a question.

        Args:
            run: its id, a unique prefix of it, or ``last``.
            values: overridden results by task id.
            until: the task whose end ends the hypothetical run; ``None`` for the whole run.
            on_event: called with each event of the hypothetical run.

        Raises:
            UsageError: no value is given, or the run does not have a task that is named.
            LogError: there is no such run, or its log is damaged.
        """
        config = add_think(self._config) if THINK not in self.tools else self._config
        refuse_tool_changes(self.tool_changes())
        return await what_if(self._store, run, values, config, until, on_event)

    @asynccontextmanager
    async def _open_run(
        self,
        question: str | None,
        inputs: dict[str, Any],
        on_event: Listener | None,
        config: RunConfig | None = None,
        record: RecordedInputs | None = None,
        on_run_created: OnRunCreated | None = None,
    ) -> AsyncIterator[Run]:
        """A new run whose log this process owns until the block ends."""
        refuse_tool_changes(self.tool_changes())
        run_id, wall = new_run_id(), time.time()
        log = self._store.begin(run_id, wall)
        try:
            clock = asyncio.get_running_loop().time
            journal = Journal(clock, log, (on_event,) if on_event is not None else ())
            config = config or self._config
            if config.limits.concurrency is not None:
                # Priorities matter only if slots are scarce.
                config = dataclasses.replace(config, weights=self._store.durations())
            run = Run(run_id, config, question, inputs, journal=journal, wall=wall, record=record)
            if on_run_created is not None:
                on_run_created(run)
            yield run
        finally:
            log.close()

    async def aclose(self) -> None:
        """Free models, executor and store. May be called twice."""
        await self._models.aclose()
        await self._config.executor.aclose()
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


def _refuse_task(task: int) -> Any:
    raise AssertionError(f"a plan's question refers to task {task}")
