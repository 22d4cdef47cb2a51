"""What an application holds: tools, models, limits and a store of runs.

Any number of runs share one compiler and one event loop without knowing of each other: nothing is
global, and what belongs to a run is in its ``Run``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeAlias

from llmcompiler.errors import PlanError, UsageError
from llmcompiler.events import Event
from llmcompiler.executors.base import Executor
from llmcompiler.executors.local import LocalExecutor
from llmcompiler.history.fork import Changes, forked
from llmcompiler.history.recording import Recording
from llmcompiler.history.resume import resumed
from llmcompiler.history.state import RunState
from llmcompiler.history.think_result import ThinkResult, read_think_result
from llmcompiler.history.tool_pins import changes_since
from llmcompiler.history.whatif import WhatIf, what_if
from llmcompiler.joiners.model import Joiner, ModelJoiner
from llmcompiler.joiners.reduced import JoinReducer
from llmcompiler.language import parse_plan
from llmcompiler.limits import Limits
from llmcompiler.llm.base import ChatModel
from llmcompiler.llm.prices import Price, Prices
from llmcompiler.log.journal import Journal, Listener
from llmcompiler.log.sqlite_file import Durability
from llmcompiler.log.store import RunStore
from llmcompiler.passes.check import check_plan, check_task
from llmcompiler.plan.expressions import Literal as LiteralExpr
from llmcompiler.plan.inputs import bind_inputs
from llmcompiler.plan.model import Join, Plan, Task
from llmcompiler.planners.base import Planner
from llmcompiler.planners.registry import PLANNERS
from llmcompiler.prompting.prompts import Prompts
from llmcompiler.reasoning.base import BranchBudget
from llmcompiler.reasoning.executor import budget_to_options, parse_branch_request
from llmcompiler.reasoning.tool import DEFAULT_STRATEGY, THINK, think_tool, with_think
from llmcompiler.run.handle import LiveRun
from llmcompiler.run.run import Parts, Role, Run, RunResult, role_of
from llmcompiler.runtime.approval import Approver
from llmcompiler.runtime.binding import evaluate, render
from llmcompiler.runtime.engine import OnError, Retry
from llmcompiler.runtime.result_cache import ResultCache
from llmcompiler.settings.servers import load_tools
from llmcompiler.tools.base import DEFAULT_TOOLS
from llmcompiler.tools.loading import ToolSource

ModelSpec: TypeAlias = str | ChatModel

Begun: TypeAlias = Callable[[Run], None]
"""Told of a run before its first event."""


def _nobody(run: Run) -> None:
    """Nobody wants to be told."""


class LLMCompiler:
    """Plans questions, runs plans, keeps what happened.

    Args:
        tools: what plans may call: built-in sets by name, ``module:NAME``, files, functions, tools.
        model: asked for plans and answers: ``local``, ``openai:NAME``, or any ``ChatModel``. Opened
            at the first call that needs one, so a plan without a question needs none.
        planner: ``text``, ``structured``, or a planner of your own.
        planner_model: asked for plans instead of ``model``.
        joiner_model: asked for answers instead of ``model``.
        joiner: a joiner of your own.
        join_reducer: has the joiner draft several decisions at once, of which this reducer makes
            one: ``vote``, ``best_of``, ``tournament`` or ``synthesize``; ``vote:5`` for five
            drafts instead of three.
        branch_model: asked by reasoning branches instead of ``model``.
        branch_models: further models that strategies name, such as ``target`` or ``judge``.
        reason: a strategy: planners may use ``think``, which reasons in this way unless a call
            names another. Saved plans and ``think`` of this class need no permission.
        limits: bounds of each run.
        on_error: ``observe`` lets siblings of a failed task go on, ``fail`` stops the run.
        retry: how calls that failed in passing are repeated.
        approver: asks somebody about calls of tools made with ``@tool(approve=True)``; without
            one, a run that needs approval stops, and can be resumed where there is one.
        cache: a file for results of tools made with ``@tool(cache=SECONDS)``, or a cache; without
            one, no result serves a later run.
        prices: of models by name, for a limit on cost; before those of ``genai-prices``.
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
        executor: Executor | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
    ) -> None:
        self.tools = load_tools(tools)
        prompts = prompts or Prompts()
        if reason is not None:
            self.tools.setdefault(THINK, think_tool(reason))
        others = dict(branch_models or {})
        self._planner = planner
        self._joiner = joiner
        self._store = (
            store if isinstance(store, RunStore) else RunStore(store, durability=durability)
        )
        self._endpoint = (base_url, api_key)
        self._specs: dict[Role, ModelSpec] = {
            "planner": planner_model or model,
            "joiner": joiner_model or model,
            "branch": branch_model or model,
            **{role_of(name): spec for name, spec in others.items()},
        }
        self._models: dict[str, ChatModel] = {}
        self._agreed = False
        self._parts = Parts(
            tools=self.tools,
            executor=executor or LocalExecutor(),
            planner=_planner(planner, prompts),
            joiner=joiner or ModelJoiner(prompts),
            join_reducer=None if join_reducer is None else JoinReducer.parse(join_reducer),
            model=self._model,
            limits=limits or Limits(),
            prompts=prompts,
            on_error=on_error,
            retry=retry or Retry(),
            approver=approver,
            prices=Prices(prices),
            cache=ResultCache(cache) if isinstance(cache, str | os.PathLike) else cache,
            reasoning=("branch", *others),
        )

    @property
    def store(self) -> RunStore:
        """Where the runs are kept."""
        return self._store

    def tool_changes(self) -> list[str]:
        """What changed about tools of MCP servers since a run of this store last used them.

        While there is something, no run begins: read it, or have somebody read it, and then call
        ``accept_tool_changes``.

        Raises:
            LogError: the store cannot be read.
        """
        return [] if self._agreed else changes_since(self.tools, self._store.catalogues())

    def accept_tool_changes(self) -> None:
        """Trust the tools as they are now; the next run pins them."""
        self._agreed = True

    def _check_tool_changes(self) -> None:
        if changes := self.tool_changes():
            raise UsageError(
                "tools say something else of themselves than when they were last used:\n  "
                + "\n  ".join(changes),
                hint="a description can mislead a model; if these are fine, go on with "
                "--accept-tool-changes, or accept_tool_changes()",
            )

    def approve_with(self, approver: Approver | None) -> None:
        """Ask ``approver`` about calls that need approval, in the runs that begin from now on."""
        self._parts = dataclasses.replace(self._parts, approver=approver)

    def _model(self, role: Role) -> ChatModel:
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
        return await self._answer(question, on_event)

    async def _answer(
        self, question: str, on_event: Listener | None, begun: Begun = _nobody
    ) -> RunResult:
        _asked(question)
        self._open_models("planner", "joiner")
        async with self._begun(question, {}, on_event) as run:
            begun(run)
            return await run.answer_question()

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

        Leaving the loop early cancels the run; ``start`` gives more control.
        """
        async with self.start(question) as live:
            async for event in live.events():
                yield event

    def start(self, what: str | Plan, inputs: Mapping[str, Any] | None = None) -> LiveRun:
        """Begin a run, and go on beside it: read its events, call off a task, wait for its result.

        For example::

            async with agent.start("Which city is larger?") as live:
                async for event in live.events():
                    if isinstance(event, TaskStarted) and event.at > 30:
                        await live.cancel(event.task, "too late")
                result = await live.result()

        Args:
            what: a question, or a saved plan.
            inputs: of the plan.
        """

        def work(listener: Listener, begun: Begun) -> Awaitable[RunResult]:
            if isinstance(what, str):
                return self._answer(what, listener, begun)
            return self._execute(what, inputs, listener, begun)

        return LiveRun(work)

    async def plan(self, question: str) -> Plan:
        """Plan a question and execute nothing.

        Raises:
            PlanError: the planner wrote nothing that can be used.
            ModelError: the model failed.
        """
        self._check_tool_changes()
        clock = asyncio.get_running_loop().time
        run = Run(
            _new_id(), self._parts, _asked(question), {}, journal=Journal(clock, None), wall=0
        )
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
        return await self._execute(plan, inputs, on_event)

    async def _execute(
        self,
        plan: Plan,
        inputs: Mapping[str, Any] | None,
        on_event: Listener | None,
        begun: Begun = _nobody,
    ) -> RunResult:
        parts = dataclasses.replace(self._parts, tools=with_think(self.tools, plan))
        plan, diagnostics = check_plan(plan, parts.tools)
        if errors := [found for found in diagnostics if found.severity == "error"]:
            raise PlanError("the plan does not fit the tools", diagnostics=tuple(errors))
        values = bind_inputs(plan, inputs or {})
        question = None
        if plan.question is not None:
            question = render(evaluate(plan.question, _no_task, values))
            self._open_models("joiner")
        async with self._begun(question, values, on_event, parts) as run:
            begun(run)
            return await run.execute_plan(plan)

    def execute_sync(self, plan: Plan, inputs: Mapping[str, Any] | None = None) -> RunResult:
        """``execute`` for programs without an event loop; see ``run_sync``."""

        async def run() -> RunResult:
            try:
                return await self.execute(plan, inputs)
            finally:
                await self._close_models()

        return _run_in_loop(run())

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

        It is the run of a plan with one call of ``think``, so it is recorded, and replayed and
        resumed by its id.

        Args:
            problem: what is to be worked out.
            context: what is known: text, data, or a list of these.
            strategy: its name; see ``llmcompiler think --list``.
            answer: where in a text the answer is: ``auto``, ``boxed``, ``last_line``, ``number``,
                ``json:FIELD`` or ``regex:PATTERN``.
            budget: what the branch may use; it then gives the best that it has.
            seed: makes the strategy's choices, and sampling where the endpoint can, repeatable.
            max_tokens: most tokens of a call that the strategy does not bound itself.
            temperature: of sampling.
            on_event: called with each event once it is recorded.
            options: the strategy's own, such as ``width=4``.

        Raises:
            UsageError: the problem is empty, or there is no such strategy or option.
        """
        if not problem.strip():
            raise UsageError("the problem is empty", hint='for example: "What is 17 * 23?"')
        settings = {
            "answer": answer if answer != "auto" else None,
            "seed": seed,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "budget": budget_to_options(budget),
        }
        settings = {name: value for name, value in settings.items() if value is not None}
        arguments = {"problem": problem, "strategy": strategy, "options": {**options, **settings}}
        parse_branch_request(arguments, self._parts.prompts.reasoning)  # a mistake leaves no trace
        self._open_models(*(role_of(name) for name in self._parts.reasoning))
        if context is not None:
            arguments["context"] = context
        call = Task(
            id=1, tool=THINK, kwargs={k: LiteralExpr(value=v) for k, v in arguments.items()}
        )
        plan = Plan(tasks=(call,), join=Join(id=2, on=(1,)))
        state = RunState()

        def follow(event: Event) -> None:
            state.apply(event)
            if on_event is not None:
                on_event(event)

        result = await self.execute(plan, on_event=follow)
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

        What is recorded is not asked or called again. Calls that were in flight are made again,
        under the same idempotency keys. Models are shown the run's own prompts.

        Args:
            run: its id, a unique prefix of it, or ``last``.
            limits: those from here on; ``None`` for those it had. They count anew.
            take_over: whether to go on with a run that a process on another machine holds, of
                which this one cannot tell whether it lives. If it does, it stops at its next event.
            on_event: called with the events recorded before, then with each new one.

        Raises:
            UsageError: the run is answered already, failed by a tool's failure that is recorded, or
                the tools or the planner are not its own.
            LogError: there is no such run, another process holds it, or its log is damaged.
        """
        self._check_tool_changes()
        run = self._store.find(run)
        log = self._store.claim(run, take_over=take_over)
        try:
            recording = Recording(run, list(self._store.events(run)))
            parts = _with_think_of(recording, self._with_prompts(recording.prompts()))
            parts = dataclasses.replace(parts, join_reducer=recording.join_reducer())
            return await resumed(recording, parts, log, limits, on_event)
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
        """A new run that takes over what another found out, up to a change.

        The tasks that are named, and whatever depends on them, are done anew, with this compiler's
        tools; later plans and the answer are asked anew, of its models and with its prompts. The
        rest is shared.

        Args:
            run: the parent: its id, a unique prefix of it, or ``last``.
            start: what is done anew first: a task by its number, ``plan`` (or ``plan/2``), or
                ``join`` (or ``join/1``) for the answer alone.
            values: results to take instead of what the tasks returned, by task id.
            calls: calls to make instead, as plan text without a number (``country("Spain")``).
            on_event: called with each event once it is recorded.

        Raises:
            UsageError: nothing is changed, or something that the run does not have.
            PlanError: a call that cannot be read, or does not fit the tools.
            LogError: there is no such run, or its log is damaged.
        """
        run = self._store.find(run)
        recording = Recording(run, list(self._store.events(run)))
        edits = {task: self._call(recording, task, text) for task, text in (calls or {}).items()}
        known = _with_think_of(recording, self._parts)
        if known.join_reducer is None:
            known = dataclasses.replace(known, join_reducer=recording.join_reducer())
        parts = forked(recording, known, Changes(start, values or {}, edits))
        started = recording.started
        if started.question is not None:
            self._open_models(*(("joiner",) if started.plan else ("planner", "joiner")))
        async with self._begun(started.question, started.inputs, on_event, parts) as again:
            return await again.to_the_end(recording.saved_plan())

    async def what_if(
        self,
        run: str,
        values: Mapping[int, Any],
        *,
        until: int | None = None,
        on_event: Listener | None = None,
    ) -> WhatIf:
        """What would have come of a run, had some tasks returned other values. Nothing is kept.

        A call whose arguments the run knows is not made again, nor is a model asked again what it
        was asked. Only calls that come out differently are made, with this compiler's tools and
        models; those of tools that change the world are not, as this is only a question.

        Args:
            run: its id, a unique prefix of it, or ``last``.
            values: by task id, what the tasks return instead.
            until: a task after which nothing more is derived.
            on_event: called with each event of the hypothetical run.

        Raises:
            UsageError: no value is given, or a task that the run does not have.
            LogError: there is no such run, or its log is damaged.
        """
        parts = _with_think(self._parts) if THINK not in self.tools else self._parts
        self._check_tool_changes()
        return await what_if(self._store, run, values, parts, until, on_event)

    def _with_prompts(self, prompts: Prompts) -> Parts:
        """The parts with other texts; a planner or joiner of the user's own keeps its texts."""
        return dataclasses.replace(
            self._parts,
            prompts=prompts,
            planner=_planner(self._planner, prompts),
            joiner=self._joiner or ModelJoiner(prompts),
        )

    def _call(self, recording: Recording, number: int, text: str) -> Task:
        """The task that replaces number ``number``, read and checked in its place."""
        earlier = recording.planned_before(number)
        parsed = parse_plan(f"{number}. {text}", earlier_ids=[task.id for task in earlier])
        produced: dict[int, Any] = {}
        for task in earlier:
            check_task(task, tools=self.tools, produced=produced)
        checked, found = check_task(parsed.tasks[0], tools=self.tools, produced=produced)
        if errors := [one for one in found if one.severity == "error"]:
            raise PlanError("the call does not fit the tools", diagnostics=tuple(errors))
        return checked

    @asynccontextmanager
    async def _begun(
        self,
        question: str | None,
        inputs: dict[str, Any],
        on_event: Listener | None,
        parts: Parts | None = None,
    ) -> AsyncIterator[Run]:
        """A new run, held by this process until the block ends."""
        self._check_tool_changes()
        run, wall = _new_id(), time.time()
        log = self._store.begin(run, wall)
        try:
            clock = asyncio.get_running_loop().time
            journal = Journal(clock, log, (on_event,) if on_event is not None else ())
            parts = parts or self._parts
            if parts.limits.concurrency is not None:
                # Priorities matter only where slots are scarce.
                parts = dataclasses.replace(parts, weights=self._store.durations())
            yield Run(run, parts, question, inputs, journal=journal, wall=wall)
        finally:
            log.close()

    def _open_models(self, *roles: Role) -> None:
        """Open models before a run begins, so that one which cannot be leaves no trace."""
        for role in roles:
            self._model(role)

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


def _planner(planner: str | Planner, prompts: Prompts) -> Planner:
    if not isinstance(planner, str):
        return planner
    if planner in PLANNERS:
        return PLANNERS[planner](prompts)
    raise UsageError(f'there is no planner "{planner}"', hint=f"one of: {', '.join(PLANNERS)}")


def _with_think(parts: Parts, strategy: str = DEFAULT_STRATEGY) -> Parts:
    """The parts with ``think`` among the tools: a plan that calls it has said so itself."""
    return dataclasses.replace(parts, tools={**parts.tools, THINK: think_tool(strategy)})


def _with_think_of(recording: Recording, parts: Parts) -> Parts:
    """The parts with the recorded run's ``think``, where it had one."""
    said = recording.started.catalogue.get(THINK, {})
    if not said.get("reasons"):
        return parts
    return _with_think(parts, said["parameters_schema"]["properties"]["strategy"]["default"])


def _new_id() -> str:
    return secrets.token_hex(5)


def _asked(question: str) -> str:
    if not question.strip():
        raise UsageError("the question is empty", hint='for example: "How dense is Japan?"')
    return question


def _no_task(task: int) -> Any:
    raise AssertionError(f"a plan's question refers to task {task}")


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
