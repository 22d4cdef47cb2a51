"""The engine: drives the task fetching unit with real calls. The only place that knows asyncio.

One engine serves one run. Planners add tasks while they still write; each call starts in the turn
of the event loop in which its last input arrived. Everything that happens is told to the journal,
and nothing is dispatched before the results it stands on are kept there.

Theory of operation: a finished call lands in a list; one callback a turn of the loop takes the
list, tells the unit, collects what may start now, commits all events of the turn at once, and only
then starts the calls; very many of them not in one turn, so that others on the loop have theirs.
There is no polling and no task of the engine's own.

The engine must not know planners, joiners or models.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from llmcompiler.errors import Failure, LimitReached, LLMCompilerError, ToolError, failure_of
from llmcompiler.events import (
    CacheMissed,
    CallId,
    Index,
    LimitHit,
    Outcome,
    TaskFinished,
    TaskPlanned,
    TaskProgress,
    TaskRetried,
    TaskStarted,
)
from llmcompiler.executors.base import Executor, ToolCall
from llmcompiler.executors.value_handles import ValueHandle, contains_handles
from llmcompiler.log.journal import Journal
from llmcompiler.plan.model import Task
from llmcompiler.runtime.approval import ApprovalDecision, Approve, Approver, Deny
from llmcompiler.runtime.binding import TaskNode
from llmcompiler.runtime.budget import RunBudget
from llmcompiler.runtime.gate import Gate, denied, nobody_to_ask
from llmcompiler.runtime.result_cache import Hit, ResultCache
from llmcompiler.runtime.results import CANCELLED, Observation, Results
from llmcompiler.runtime.schedule import MapEnded, OpenMap, Skip, TaskCall, TaskFetchingUnit
from llmcompiler.tools.base import Tool
from llmcompiler.tools.context import CallContext
from llmcompiler.tools.policy import OnError as OnError, Retry as Retry

ToolResultLookup: TypeAlias = Callable[[str, Mapping[str, Any]], Outcome | None]
"""How a call of a tool with these arguments ended before, wherever in a run that was."""

CALLED_OFF = "cancelled by the caller"
"""Why a task was cancelled, where nobody says it in other words."""

_NOTHING = object()
"""In place of the value of a call that has not said that it returned."""

_MOST_A_TURN = 1000
"""Calls that start in one turn, some 20 ms. Of a wider level the rest starts in the next ones, so
that what else is on the loop goes on meanwhile, and what has returned is seen."""

_BETWEEN_REPORTS = 0.1
"""Seconds between two reports of a call's progress that are noted; those between are dropped."""


class _Running(ToolCall):
    """A call that holds a slot: what the executor gets, and what the engine knows besides."""

    __slots__ = (
        "begun",
        "call",
        "engine",
        "future",
        "planned",
        "reported",
        "timed_out",
        "timer",
        "value",
    )

    def __init__(
        self,
        engine: Engine,
        call: TaskCall,
        tool: Tool,
        planned: dict[str, Any] | None,
        bound: dict[str, Any],
        context: CallContext,
        has_handles: bool,
    ) -> None:
        self.tool = tool
        self.arguments = bound
        self.context = context
        self.has_handles = has_handles
        self.engine = engine
        self.call = call
        self.planned = planned
        """Arguments as planned, for the cache: the bound ones are the tool's own to change."""
        self.begun = 0.0
        self.future: asyncio.Future[Any] | None = None
        self.value: Any = _NOTHING
        self.timer: asyncio.TimerHandle | None = None
        self.timed_out = False
        self.reported = -math.inf

    def returned(self, value: Any) -> None:
        """See ``ToolCall.returned``."""
        if (task := self._ending) is not None:
            if not task.cancelling():
                self.value = value  # else it may end as cancelled nevertheless
            self._land(task)

    def raised(self) -> None:
        """See ``ToolCall.raised``."""
        if (task := self._ending) is not None:
            self._land(task)

    @property
    def _ending(self) -> asyncio.Task[Any] | None:
        """The task that says how the call ended, if it is the one that the engine waits for.

        An executor may have another one make the call, and make something else of what comes.
        """
        task = asyncio.current_task(self.engine._loop)
        return task if task is self.future else None

    def _land(self, task: asyncio.Task[Any]) -> None:
        engine = self.engine
        task.remove_done_callback(engine._when_landed)
        # What follows starts other calls, which must not find this one's context.
        engine._context.run(engine._when_landed, task)


class Engine:
    """Executes tasks as they are added.

    Args:
        run: the run's id, the first part of idempotency keys.
        tools: by name; every added task's tool is among them.
        executor: where calls run.
        journal: receives every event.
        budget: the run's limits, and a count of what is used.
        inputs: values of the plan's inputs.
        on_error: ``observe`` lets everything that does not depend on a failed task go on;
            ``fail`` cancels the rest.
        retry: when failed calls are repeated, for tools without a policy of their own.
        recorded: outcomes that are known already: from this run before a crash, or from the run
            that this one is forked from. These calls are not made again.
        overridden_results: results that the caller supplies, by task id. Such a task waits for
            nothing and calls nothing.
        lookup_tool_result: finds the outcome of an equal call of another run, which is then not
            made again.
        attempts: how often each call without an outcome was started before.
        retry_at: when to make each call again that failed for a passing reason, in seconds since
            the run began.
        approver: asks somebody about calls of tools that need approval; with ``None`` the run
            stops once nothing else can go on.
        approvals: decisions about such calls that are known already.
        cache: results of earlier runs.
        weights: seconds that a call is expected to take, by tool, for priorities. A tool that is
            not named gets the average.
    """

    def __init__(
        self,
        run: str,
        *,
        tools: Mapping[str, Tool],
        executor: Executor,
        journal: Journal,
        budget: RunBudget,
        inputs: Mapping[str, Any],
        on_error: OnError = "observe",
        retry: Retry | None = None,
        recorded: Mapping[CallId, Outcome] | None = None,
        overridden_results: Mapping[int, Any] | None = None,
        lookup_tool_result: ToolResultLookup | None = None,
        attempts: Mapping[CallId, int] | None = None,
        retry_at: Mapping[CallId, float] | None = None,
        approver: Approver | None = None,
        approvals: Mapping[CallId, ApprovalDecision] | None = None,
        cache: ResultCache | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self._run = run
        self._tools = tools
        self._executor = executor
        self._journal = journal
        self._budget = budget
        self._inputs = inputs
        self._on_error = on_error
        self._retry = retry or Retry()
        self._loop = asyncio.get_running_loop()
        groups = {t.name: t.concurrency for t in tools.values() if t.concurrency is not None}
        self._unit = TaskFetchingUnit(budget.limits.concurrency, groups)
        self._jobs: dict[int, TaskNode] = {}
        self._results = Results(self._jobs, inputs, journal)
        self._value_of = self._results.values.__getitem__
        self._gate = Gate(
            run,
            approver,
            approvals or {},
            journal,
            decided=self._again,
            crashed=self._approver_failed,
        )
        self._running: dict[asyncio.Future[Any], _Running] = {}
        # Calls that gave their slot back without having ended; those to be repeated have a timer.
        self._paused: dict[TaskCall, asyncio.TimerHandle | None] = {}
        self._withdrawn: dict[int, Failure] = {}
        self._recorded = dict(recorded or {})
        self._overridden_results = overridden_results or {}
        self._lookup_tool_result = lookup_tool_result
        self._attempts: dict[CallId, int] = dict(attempts or {})
        self._retry_at: dict[CallId, float] = dict(retry_at or {})
        self._cache = cache
        self._weights = weights or {}
        known = self._weights.values()
        self._average = sum(known) / len(known) if known else 1.0
        self._landed: list[_Running] = []
        self._when_landed, self._when_told = self._note_landed, self._told
        # One for all that end: asyncio would make a copy for each.
        self._context = contextvars.copy_context()
        self._turn: asyncio.Handle | None = None
        self._quiet = asyncio.Event()
        self._quiet.set()
        # True once any result was stored out of line.
        self._any_handles = False
        self._stopped: LLMCompilerError | None = None
        self._crash: BaseException | None = None
        self._stopping = False
        self._draining: set[asyncio.Future[Any]] = set()

    @property
    def observations(self) -> dict[int, Observation]:
        """How the tasks ended that have, by id."""
        return self._results.observations

    # What the compiler calls.

    def add(self, plan: int, tasks: Sequence[Task]) -> None:
        """Take in checked tasks, each after those it refers to; those that can start do, at once.

        Raises:
            ToolError, LimitReached: the run was stopped by a failed task or a limit before.
        """
        self._raise_if_stopped()
        journal = self._journal
        new = []
        for task in tasks:
            number, name = task.id, task.tool
            weight = self._weights.get(name, self._average)
            is_given = number in self._overridden_results
            job = TaskNode(task, self._tools[name], self._jobs, is_given, weight)
            self._jobs[number] = job
            new.append(job)
            if journal.enabled:
                journal.emit(TaskPlanned, plan, number, task.to_json(), job.dependencies)
        self._quiet.clear()
        self._unit.add(new)
        self._schedule_turn()

    def discard_recorded(self, task: int) -> None:
        """Whatever outcomes are recorded of the task, its calls are made again."""
        for place in [place for place in self._recorded if place[0] == task]:
            del self._recorded[place]

    async def wait_idle(self) -> None:
        """Wait until every added task has ended.

        Raises:
            ToolError: a task failed, and ``on_error`` is ``fail``.
            LimitReached: a limit stopped the run, or calls wait for an approval that nobody is
                there to give.
        """
        await self._quiet.wait()
        if self._gate.unattended and not self._stopping:
            self._stop_at(nobody_to_ask(self._gate.unattended))
        self._raise_if_stopped()

    async def cancel(self, task: int, reason: str = CALLED_OFF) -> bool:
        """Cancel one task, all elements of a fan-out, and wait until its calls have stopped.

        It ends as failed, with a failure of type ``Cancelled``: what depends on it is skipped, and
        everything else goes on, whatever ``on_error`` says.

        Returns:
            Whether there was something to cancel: a task that has ended stays as it is.
        """
        if task not in self._jobs or self._stopping or self._unit.state(task).is_final:
            return False
        failure = self._withdrawn[task] = Failure("usage", CANCELLED, reason)
        draining: list[asyncio.Future[Any]] = []
        draining += self._gate.withdraw(task)
        for call in [call for call in self._paused if call.task == task]:
            if (timer := self._paused.pop(call)) is not None:
                timer.cancel()
            self._unit.requeue(call)
        if self._unit.is_open(task):
            for call in self._unit.withdraw(task):
                self._fail(call, self._results.index(call), failure)
        else:
            self._results.failed(TaskCall(task), (), failure, None, 0.0)
            self._unit.give_up(task)
        for future, running in self._running.items():
            if running.call.task == task:
                running.context.cancelled.set()
                future.cancel()
                draining.append(future)
        self._schedule_turn()
        if draining:
            await asyncio.wait(draining)
        return True

    async def stop(self, reason: str) -> None:
        """Cancel whatever has not ended, and wait until it has. May be called at any time."""
        self._cancel_all(reason)
        if draining := [*self._running, *self._draining]:
            await asyncio.wait(draining)
        self._finish_turn()

    def _raise_if_stopped(self) -> None:
        if self._crash is not None:
            raise self._crash
        if self._stopped is not None:
            raise self._stopped

    # A turn: what ended, what follows from it, one commit, what starts.

    def _schedule_turn(self) -> None:
        if self._turn is None:
            self._turn = self._loop.call_soon(self._finish_turn)

    def _finish_turn(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        starting: list[_Running] = []
        unit, journal = self._unit, self._journal
        now = journal.now()
        try:
            if self._landed:
                landed, self._landed = self._landed, []
                for running in landed:
                    self._land(running, now)
            room = _MOST_A_TURN
            while unit.needs_take and room > 0:
                for command in unit.take(room):
                    if type(command) is TaskCall:
                        room -= 1
                        self._prepare(command, starting)
                    else:
                        self._follow(command)
            if journal.enabled:
                journal.flush()
                now = journal.now()  # to keep the events may take a while
        except LimitReached as reached:
            self._stop_at(reached)
        except BaseException as error:  # noqa: BLE001
            # A log that cannot be written, or a bug: nothing may start that stands on it.
            self._break_off(error)
        if starting and not self._stopping:
            for running in starting:
                self._start(running, now)
        if unit.needs_take and not self._stopping:
            self._schedule_turn()
        if not self._running and (unit.is_idle or self._is_stuck):
            self._quiet.set()

    @property
    def _is_stuck(self) -> bool:
        """Whether all that is left waits for an approval that nobody is there to give."""
        return bool(self._gate.unattended) and not any(self._paused.values())

    def _stop_at(self, reached: LimitReached) -> None:
        self._stopped = reached
        self._journal.emit(LimitHit, limit=reached.limit, message=reached.message)
        self._cancel_all(reached.message)
        self._journal.flush()

    def _break_off(self, error: BaseException) -> None:
        self._crash = error
        self._cancel_all(str(error))

    def _approver_failed(self, error: BaseException) -> None:
        self._break_off(error)
        self._schedule_turn()

    def _follow(self, command: TaskCall | OpenMap | Skip | MapEnded) -> None:
        match command:
            case OpenMap():
                extent = self._results.open(command.task)
                if extent is None:
                    self._unit.give_up(command.task)
                else:
                    self._unit.open(command.task, extent)
            case Skip():
                self._results.skipped(command)
            case MapEnded():
                self._results.close(command)

    # Calls.

    def _prepare(self, call: TaskCall, starting: list[_Running]) -> None:
        """Bind a call's arguments; one that cannot be bound fails without having started."""
        task_id, element = call
        if task_id in self._overridden_results:
            self._finish(call, (), self._overridden_results[task_id], self._journal.now(), 0.0)
            return
        job = self._jobs[task_id]
        tool, journal = job.tool, self._journal
        index: Index = () if element is None else self._results.index(call)
        recorded = self._recorded.get((task_id, index)) if self._recorded else None
        try:
            arguments = job.arguments(self._value_of, self._inputs, index)
        except LLMCompilerError as error:
            self._fail(call, index, failure_of(error))
            return
        if recorded is None and self._lookup_tool_result is not None:
            recorded = self._lookup_tool_result(tool.name, arguments)
        decision = self._gate.decisions.get((task_id, index)) if self._gate.decisions else None
        if decision is None:
            if tool.approve and recorded is None and _fits(tool, arguments):
                self._paused[call] = None
                self._unit.pause(call)
                self._gate.ask(call, index, tool.name, arguments)
                return
        elif isinstance(decision, Deny):
            self._fail(call, index, denied(tool.name, decision.reason))
            return
        elif isinstance(decision, Approve) and decision.arguments is not None:
            arguments = decision.arguments
        if self._retry_at and recorded is None:
            # A crash is no reason to ask again before an endpoint wants to be asked.
            delay = self._retry_at.pop((task_id, index), 0.0) - journal.now()
            if delay > 0:
                self._repeat_later(call, delay)
                return
        cached: Hit | None = None
        if recorded is None:
            if tool.cache is not None and self._cache is not None:
                cached = self._look(call, index, tool, arguments)
            if cached is None:
                self._budget.start_tool_call()
        attempt = self._attempts.get((task_id, index), 0) + 1 if self._attempts else 1
        key = f"{self._run}/{task_id}"
        if index:
            key = "/".join((key, *map(str, index)))
        if journal.enabled:
            journal.emit(TaskStarted, task_id, index, attempt, key, arguments)
        if recorded is not None:
            begun = journal.now() - recorded.seconds
            if isinstance(recorded, TaskFinished):
                self._finish(call, index, recorded.value, begun, recorded.seconds)
            else:
                self._fail(call, index, recorded.failure, recorded.seconds, begun)
            return
        if cached is not None:
            self._finish(call, index, cached.value, journal.now(), 0.0, cached=True)
            return
        has_handles = self._any_handles and contains_handles(arguments)
        try:
            bound = arguments if has_handles else tool.validate(arguments)
        except ToolError as error:
            self._fail(call, index, failure_of(error))
            return
        context = CallContext(self._run, task_id, index, key, attempt)
        planned = arguments if tool.cache is not None else None
        running = _Running(self, call, tool, planned, bound, context, has_handles)
        if journal.enabled:
            context.on_progress = functools.partial(self._when_told, running)
        starting.append(running)

    def _look(
        self, call: TaskCall, index: Index, tool: Tool, arguments: dict[str, Any]
    ) -> Hit | None:
        assert self._cache is not None
        found = self._cache.look(tool, arguments)
        if isinstance(found, Hit):
            return found
        self._journal.emit(CacheMissed, task=call.task, index=index, why=found.why)
        return None

    def _start(self, running: _Running, begun: float) -> None:
        future = running.future = self._executor.submit(running)
        self._running[future] = running
        running.begun = begun
        timeout = running.tool.timeout
        if timeout is not None:
            running.timer = self._loop.call_later(timeout, self._time_out, running)
        future.add_done_callback(self._when_landed, context=self._context)

    def _note_landed(self, future: asyncio.Future[Any]) -> None:
        running = self._running.pop(future)
        running.context.on_progress = None  # nobody listens any more, and the two held each other
        self._landed.append(running)
        if not self._running and (future.done() or running.value is not _NOTHING):
            self._finish_turn()  # nobody else can land
        elif self._turn is None:
            self._schedule_turn()

    def _told(self, running: _Running, done: float, total: float | None, message: str) -> None:
        """A tool reports progress, from whatever thread."""
        # A thread that nobody waits for any more may outlive the loop.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._note_progress, running, done, total, message)

    def _note_progress(
        self, running: _Running, done: float, total: float | None, message: str
    ) -> None:
        now = self._journal.now()
        has_landed = running.context.on_progress is None
        if has_landed or self._stopping or now - running.reported < _BETWEEN_REPORTS:
            return
        running.reported = now
        self._journal.emit(
            TaskProgress,
            task=running.call.task,
            index=running.context.index,
            done=done,
            total=total,
            message=message,
        )
        self._schedule_turn()

    def _time_out(self, running: _Running) -> None:
        running.timed_out = True
        assert running.future is not None
        running.future.cancel()

    def _land(self, running: _Running, now: float) -> None:
        if running.timer is not None:
            running.timer.cancel()
        value, error = running.value, None
        if value is _NOTHING:
            assert running.future is not None
            value, error = _outcome(running.future)
        if self._stopping:
            return  # its end was noted when the run was stopped
        call, tool = running.call, running.tool
        context, seconds = running.context, now - running.begun
        if error is not None and isinstance(error, asyncio.CancelledError):
            if (failure := self._withdrawn.get(call.task)) is not None:
                self._fail(call, context.index, failure, seconds, running.begun)
                return
            error = ToolError(
                f"{tool.name} timed out after {tool.timeout:g} s"
                if running.timed_out
                else f"{tool.name} cancelled itself"
            )
        if error is None:
            try:
                if type(value) is not ValueHandle:  # whose worker has encoded the value
                    value = tool.encode(value)
            except ToolError as unfit:
                error = unfit
            else:
                if self._cache is not None and running.planned is not None:
                    self._cache.keep(tool, running.planned, value)
                self._finish(call, context.index, value, running.begun, seconds)
                return
        if isinstance(error, LimitReached):
            raise error  # of the run, met by a reasoning branch
        failure = failure_of(error, "tool")
        retry = tool.retry or self._retry
        if call.task not in self._withdrawn and retry.helps(error, context.attempt):
            delay = retry.delay(context.key, context.attempt, getattr(error, "retry_after", None))
            self._pause(call, context, failure, delay)
        else:
            self._fail(call, context.index, failure, seconds, running.begun)

    def _pause(self, call: TaskCall, context: CallContext, failure: Failure, delay: float) -> None:
        """Make the call again after ``delay`` seconds."""
        self._journal.emit(
            TaskRetried,
            task=call.task,
            index=context.index,
            attempt=context.attempt,
            failure=failure,
            delay=delay,
        )
        self._attempts[call.task, context.index] = context.attempt
        self._repeat_later(call, delay)

    def _repeat_later(self, call: TaskCall, delay: float) -> None:
        self._unit.pause(call)
        self._paused[call] = self._loop.call_later(delay, self._again, call)

    def _again(self, call: TaskCall) -> None:
        """A call that was paused may be made now."""
        del self._paused[call]
        self._unit.requeue(call)
        self._schedule_turn()

    def _finish(
        self,
        call: TaskCall,
        index: Index,
        value: Any,
        begun: float,
        seconds: float,
        *,
        cached: bool = False,
    ) -> None:
        if type(value) is ValueHandle:
            self._any_handles = True
        self._results.finished(call, index, value, begun, seconds, cached=cached)
        if self._attempts:
            self._attempts.pop((call.task, index), None)
        self._unit.done(call)

    def _fail(
        self,
        call: TaskCall,
        index: Index,
        failure: Failure,
        seconds: float = 0.0,
        begun: float | None = None,
    ) -> None:
        self._results.failed(call, index, failure, begun, seconds)
        self._attempts.pop((call.task, index), None)
        self._unit.fail(call)
        tool = self._jobs[call.task].tool
        fatal = (tool.on_error or self._on_error) == "fail" and failure.type != CANCELLED
        if fatal and self._stopped is None:
            self._stopped = ToolError(
                f"task {call.task} ({tool.name}) failed: {failure.message}",
                hint=failure.hint,
            )
            self._cancel_all(f"task {call.task} failed")

    def _cancel_all(self, reason: str) -> None:
        if self._stopping:
            return
        self._stopping = True
        for task_id in self._unit.cancel():
            self._results.stopped(task_id, reason)
        for future, running in self._running.items():
            running.context.cancelled.set()
            future.cancel()
        for timer in self._paused.values():
            if timer is not None:
                timer.cancel()
        self._paused.clear()
        self._draining.update(self._gate.withdraw())


def _outcome(future: asyncio.Future[Any]) -> tuple[Any, BaseException | None]:
    """What a future ended with: a value, or an exception."""
    if future.cancelled():
        return None, asyncio.CancelledError()
    error = future.exception()
    return (future.result(), None) if error is None else (None, error)


def _fits(tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Whether the tool takes these arguments: nobody is asked about a call that cannot be made."""
    if contains_handles(arguments):
        return True  # looked at where the values are
    try:
        tool.validate(arguments)
    except ToolError:
        return False
    return True
