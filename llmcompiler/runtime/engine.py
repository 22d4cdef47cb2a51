"""The engine: drives the task fetching unit with real calls on asyncio.

One engine serves one run. Planners add tasks while they still write. A call starts in the turn of
the event loop in which its last input arrives. The journal receives everything that happens, and no
call starts before the results it uses are in the log.

Theory of operation: a finished call goes into a list. One callback per turn of the loop takes the
list, reports it to the unit, collects the calls that may start, commits all events of the turn at
once, and only then starts the calls. At most a thousand calls start per turn, so that other work on
the loop gets its turns. There is no polling, and the engine has no asyncio task of its own.

What becomes of a call (made, reused, retried, asked about) is decided in ``admission.py``; the
engine carries the verdicts out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmcompiler.errors import Failure, LimitReached, LLMCompilerError, ToolError, failure_of
from llmcompiler.events import (
    CacheMissed,
    CallId,
    Index,
    LimitHit,
    Outcome,
    TaskFinished,
    TaskPlanned,
    TaskRetried,
    TaskStarted,
)
from llmcompiler.executors.base import Executor
from llmcompiler.executors.value_handles import ValueHandle, contains_handles
from llmcompiler.log.journal import Journal
from llmcompiler.plan.model import Task
from llmcompiler.runtime.admission import (
    AS_PLANNED,
    Admission,
    AskApproval,
    DelayCall,
    FailCall,
    MakeCall,
    RetryCall,
    ReuseOutcome,
    ServeCached,
    ToolResultLookup,
    Verdict,
    judge_failure,
)
from llmcompiler.runtime.approval import ApprovalDecision, Approvals, Approver, nobody_to_ask
from llmcompiler.runtime.binding import SiteNode, TaskNode
from llmcompiler.runtime.budget import RunBudget
from llmcompiler.runtime.in_flight import NOT_RETURNED, CallInFlight, CallsInFlight
from llmcompiler.runtime.paused_calls import PausedCalls
from llmcompiler.runtime.result_cache import ResultCache
from llmcompiler.runtime.results import CANCELLED, Observation, Results
from llmcompiler.runtime.schedule import MapEnded, OpenMap, Skip, TaskCall, TaskFetchingUnit
from llmcompiler.tools.base import Tool
from llmcompiler.tools.context import CallContext
from llmcompiler.tools.policy import OnError, Retry

CALLED_OFF = "cancelled by the caller"
"""The default reason for cancelling a task."""

_MOST_STARTS_PER_TURN = 1000
"""Calls that start in one turn of the loop, some 20 ms. The rest of a wider level starts in the
next turns, so that other work on the loop goes on and calls that return are noticed."""


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
        self._journal = journal
        self._budget = budget
        self._inputs = inputs
        self._on_error = on_error
        self._retry = retry or Retry()
        self._loop = asyncio.get_running_loop()
        groups = {t.name: t.concurrency for t in tools.values() if t.concurrency is not None}
        self._unit = TaskFetchingUnit(budget.limits.concurrency, groups)
        self._paused_calls = PausedCalls(self._unit, self._schedule_turn)
        self._nodes: dict[int, TaskNode] = {}
        self._results = Results(self._nodes, inputs, journal)
        self._value_of = self._results.values.__getitem__
        self._approvals = Approvals(
            run,
            approver,
            approvals or {},
            journal,
            on_decision=self._paused_calls.resume,
            on_unattended=self._schedule_turn,
        )
        self._overridden_results = overridden_results or {}
        self._admission = Admission(
            journal.now,
            dict(recorded or {}),
            lookup_tool_result,
            self._approvals.decisions,
            dict(retry_at or {}),
            cache,
        )
        self._cache = cache
        self._attempt_counts: dict[CallId, int] = dict(attempts or {})
        self._weights = weights or {}
        seconds = self._weights.values()
        self._average_weight = sum(seconds) / len(seconds) if seconds else 1.0
        self._in_flight = CallsInFlight(
            executor, journal, finish_turn=self._finish_turn, schedule_turn=self._schedule_turn
        )
        # Tasks that the caller has cancelled, and how their calls fail.
        self._cancellations: dict[int, Failure] = {}
        self._turn: asyncio.Handle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        # True once any result was stored out of line.
        self._any_handles = False
        self._stop_error: LLMCompilerError | None = None
        self._internal_error: BaseException | None = None
        self._is_stopping = False
        self.on_site_call_ended: Callable[[int, Index, Any, Failure | None], None] | None = None
        """Called when a call of a program ends: task, index, value, failure."""
        self._draining: set[asyncio.Future[Any]] = set()

    @property
    def observations(self) -> dict[int, Observation]:
        """How the tasks ended that have ended, by id."""
        return self._results.observations

    # What the compiler calls.

    def add(self, plan: int, tasks: Sequence[Task]) -> None:
        """Add checked tasks, each after those it refers to. Those without missing inputs start.

        Raises:
            ToolError, LimitReached: a failed task or a limit has stopped the run.
        """
        self._raise_if_stopped()
        journal = self._journal
        nodes = []
        for task in tasks:
            task_id, tool_name = task.id, task.tool
            weight = self._weights.get(tool_name, self._average_weight)
            is_overridden = task_id in self._overridden_results
            node = TaskNode(task, self._tools[tool_name], self._nodes, is_overridden, weight)
            self._nodes[task_id] = node
            nodes.append(node)
            if journal.enabled:
                journal.emit(TaskPlanned, plan, task_id, task.to_json(), node.dependencies)
        self._idle.clear()
        self._unit.add(nodes)
        self._schedule_turn()

    # What a program calls.

    def add_site(self, plan: int, task: Task, depth: int) -> None:
        """Add a place of a program that calls a tool. ``call_site`` makes its calls.

        Args:
            plan: the number of the plan.
            task: the call as written.
            depth: how many loops it stands in.
        """
        self._raise_if_stopped()
        weight = self._weights.get(task.tool, self._average_weight)
        node = SiteNode(task, self._tools[task.tool], depth, weight)
        self._nodes[task.id] = node
        if self._journal.enabled:
            self._journal.emit(TaskPlanned, plan, task.id, task.to_json(), node.dependencies)
        if depth:
            self._idle.clear()
            self._unit.add([node])
            self._unit.open_growing(task.id)
            self._results.open_growing(task.id)
        self._schedule_turn()

    def call_site(self, task: int, index: Index, arguments: dict[str, Any]) -> None:
        """Make a call of a program.

        Args:
            task: the site's task.
            index: the iterations that the call stands under; empty outside of loops.
            arguments: by parameter name.
        """
        node = self._nodes[task]
        assert isinstance(node, SiteNode)
        node.call_arguments[index] = arguments
        self._idle.clear()
        if not node.depth:
            self._unit.add([node])
        else:
            self._results.offer(task, index)
            self._unit.offer(task)
        self._schedule_turn()

    def close_site(self, task: int) -> None:
        """A place of a program makes no further calls."""
        node = self._nodes[task]
        assert isinstance(node, SiteNode)
        if self._is_stopping:
            return
        if node.depth:
            self._unit.close(task)
        elif task not in self._unit:
            self._results.not_taken(task)
        self._schedule_turn()

    def discard_recorded(self, task: int) -> None:
        """Forget the recorded outcomes of a task, so that its calls are made again."""
        self._admission.discard_recorded(task)

    async def wait_idle(self) -> None:
        """Wait until every added task has ended.

        Raises:
            ToolError: a task failed, and ``on_error`` is ``fail``.
            LimitReached: a limit stopped the run, or calls wait for an approval that nobody is
                there to give.
        """
        await self._idle.wait()
        if self._approvals.is_stuck and not self._is_stopping:
            self._stop_at_limit(nobody_to_ask(self._approvals.unattended))
        self._raise_if_stopped()

    async def cancel(self, task: int, reason: str = CALLED_OFF) -> bool:
        """Cancel one task, with all elements of a fan-out, and wait until its calls have stopped.

        The task ends with a failure of type ``Cancelled``. Whatever depends on it is skipped, and
        everything else goes on, whatever ``on_error`` says.

        Returns:
            True if the task was cancelled; false if it had ended or does not exist.
        """
        if task not in self._nodes or self._is_stopping or self._unit.state(task).is_final:
            return False
        failure = self._cancellations[task] = Failure("usage", CANCELLED, reason)
        draining: list[asyncio.Future[Any]] = []
        draining += self._approvals.withdraw(task)
        self._paused_calls.withdraw(task)
        if self._unit.is_open(task):
            for call in self._unit.withdraw(task):
                self._fail(call, self._results.index(call), failure)
        else:
            self._results.failed(TaskCall(task), (), failure, started_at=None, seconds=0.0)
            self._unit.give_up(task)
        draining += self._in_flight.cancel(task)
        self._schedule_turn()
        if draining:
            await asyncio.wait(draining)
        return True

    async def stop(self, reason: str) -> None:
        """Cancel every task that has not ended, and wait until its calls have stopped.

        May be called at any time.
        """
        self._cancel_all(reason)
        if draining := [*self._in_flight.by_future, *self._draining]:
            await asyncio.wait(draining)
        self._finish_turn()

    def _raise_if_stopped(self) -> None:
        if self._internal_error is not None:
            raise self._internal_error
        if self._stop_error is not None:
            raise self._stop_error

    # A turn: what ended, what follows from it, one commit, what starts.

    def _schedule_turn(self) -> None:
        if self._turn is None:
            self._turn = self._loop.call_soon(self._finish_turn)

    def _finish_turn(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        starting: list[CallInFlight] = []
        unit, journal, in_flight = self._unit, self._journal, self._in_flight
        now = journal.now()
        try:
            if in_flight.completed:
                completed, in_flight.completed = in_flight.completed, []
                for flight in completed:
                    self._handle_completion(flight, now)
            room = _MOST_STARTS_PER_TURN
            while unit.needs_take and room > 0:
                for command in unit.take(room):
                    if type(command) is TaskCall:
                        room -= 1
                        self._prepare(command, starting)
                    else:
                        self._apply(command)
            if journal.enabled:
                journal.flush()
                now = journal.now()  # writing the events may take a while
        except LimitReached as reached:
            self._stop_at_limit(reached)
        except BaseException as error:  # noqa: BLE001
            # A log that cannot be written, or a bug: nothing may start that relies on it.
            self._abort(error)
        if starting and not self._is_stopping:
            for flight in starting:
                in_flight.start(flight, now)
        if unit.needs_take and not self._is_stopping:
            self._schedule_turn()
        if not in_flight.by_future and (unit.is_idle or self._is_stuck):
            self._idle.set()

    @property
    def _is_stuck(self) -> bool:
        """True if every call that is left waits for an approval that nobody is there to give."""
        return self._approvals.is_stuck and not self._paused_calls.any_timers

    def _stop_at_limit(self, reached: LimitReached) -> None:
        self._stop_error = reached
        self._journal.emit(LimitHit, limit=reached.limit, message=reached.message)
        self._cancel_all(reached.message)
        self._journal.flush()

    def _abort(self, error: BaseException) -> None:
        self._internal_error = error
        self._cancel_all(str(error))

    def _apply(self, command: TaskCall | OpenMap | Skip | MapEnded) -> None:
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

    # Before an attempt.

    def _prepare(self, call: TaskCall, starting: list[CallInFlight]) -> None:
        """Bind a call's arguments and get a verdict; add the call to ``starting`` if it is made.

        A call whose arguments cannot be bound fails without having started.
        """
        task_id, element = call
        if task_id in self._overridden_results:
            value = self._overridden_results[task_id]
            self._finish(call, (), value, started_at=self._journal.now(), seconds=0.0)
            return
        node = self._nodes[task_id]
        tool = node.tool
        index: Index = () if element is None else self._results.index(call)
        try:
            arguments = node.arguments(self._value_of, self._inputs, index)
        except LLMCompilerError as error:
            self._fail(call, index, failure_of(error))
            return
        verdict = self._admission.judge(task_id, index, tool, arguments)
        if verdict is not AS_PLANNED:
            if not isinstance(verdict, MakeCall):
                self._settle(call, index, tool, arguments, verdict)
                return
            if verdict.arguments is not None:
                arguments = verdict.arguments
            if verdict.cache_miss:
                self._journal.emit(CacheMissed, task=task_id, index=index, why=verdict.cache_miss)
        self._budget.start_tool_call()
        context = self._emit_started(call, index, arguments)
        has_handles = self._any_handles and contains_handles(arguments)
        try:
            bound_arguments = arguments if has_handles else tool.validate(arguments)
        except ToolError as error:
            self._fail(call, index, failure_of(error))
            return
        planned_arguments = arguments if tool.cache is not None else None
        starting.append(
            CallInFlight(
                self._in_flight,
                call,
                tool,
                planned_arguments,
                bound_arguments,
                context,
                has_handles,
            )
        )

    def _settle(
        self, call: TaskCall, index: Index, tool: Tool, arguments: dict[str, Any], verdict: Verdict
    ) -> None:
        """Carry out a verdict by which the call is not made now."""
        match verdict:
            case AskApproval():
                self._paused_calls.pause(call)
                self._approvals.ask(call, index, tool.name, arguments)
            case DelayCall(seconds):
                self._admission.retry_at.pop((call.task, index))
                self._paused_calls.pause(call, seconds)
            case FailCall(failure):
                self._fail(call, index, failure)
            case ServeCached():
                self._emit_started(call, index, verdict.arguments)
                started_at = self._journal.now()
                self._finish(
                    call, index, verdict.value, started_at=started_at, seconds=0.0, cached=True
                )
            case ReuseOutcome(_, outcome):
                self._emit_started(call, index, verdict.arguments)
                seconds = outcome.seconds
                started_at = self._journal.now() - seconds
                if isinstance(outcome, TaskFinished):
                    value = outcome.value
                    self._finish(call, index, value, started_at=started_at, seconds=seconds)
                else:
                    failure = outcome.failure
                    self._fail(call, index, failure, started_at=started_at, seconds=seconds)

    def _emit_started(self, call: TaskCall, index: Index, arguments: dict[str, Any]) -> CallContext:
        task_id, _ = call
        attempt = self._attempt_counts.get((task_id, index), 0) + 1 if self._attempt_counts else 1
        key = f"{self._run}/{task_id}"
        if index:
            key = "/".join((key, *map(str, index)))
        if self._journal.enabled:
            self._journal.emit(TaskStarted, task_id, index, attempt, key, arguments)
        return CallContext(self._run, task_id, index, key, attempt)

    # After an attempt.

    def _handle_completion(self, flight: CallInFlight, now: float) -> None:
        if flight.timer is not None:
            flight.timer.cancel()
        value, error = flight.value, None
        if value is NOT_RETURNED:
            value, error = flight.future_result()
        if self._is_stopping:
            return  # the run's stop has recorded the task's end
        call, tool, context = flight.call, flight.tool, flight.context
        started_at = flight.started_at
        seconds = now - started_at
        if error is None:
            try:
                if type(value) is not ValueHandle:  # whose worker has encoded the value
                    value = tool.encode(value)
            except ToolError as encoding_error:
                error = encoding_error
            else:
                if self._cache is not None and flight.planned_arguments is not None:
                    self._cache.keep(tool, flight.planned_arguments, value)
                self._finish(call, context.index, value, started_at=started_at, seconds=seconds)
                return
        if isinstance(error, LimitReached):
            raise error  # a limit of the run, reached inside a reasoning branch
        verdict = judge_failure(
            None if isinstance(error, asyncio.CancelledError) else error,
            tool,
            context,
            retry=self._retry,
            cancellation=self._cancellations.get(call.task),
            timed_out=flight.timed_out,
        )
        if isinstance(verdict, RetryCall):
            self._retry_after(call, context, verdict.failure, verdict.delay)
            return
        self._fail(call, context.index, verdict.failure, started_at=started_at, seconds=seconds)

    def _retry_after(
        self, call: TaskCall, context: CallContext, failure: Failure, delay: float
    ) -> None:
        """Record a failed attempt, and make the call again after ``delay`` seconds."""
        self._journal.emit(
            TaskRetried,
            task=call.task,
            index=context.index,
            attempt=context.attempt,
            failure=failure,
            delay=delay,
        )
        self._attempt_counts[call.task, context.index] = context.attempt
        self._paused_calls.pause(call, delay)

    # The end of a call.

    def _finish(
        self,
        call: TaskCall,
        index: Index,
        value: Any,
        *,
        started_at: float,
        seconds: float,
        cached: bool = False,
    ) -> None:
        if type(value) is ValueHandle:
            self._any_handles = True
        self._results.finished(
            call, index, value, started_at=started_at, seconds=seconds, cached=cached
        )
        if self._attempt_counts:
            self._attempt_counts.pop((call.task, index), None)
        self._unit.done(call)
        if self.on_site_call_ended is not None:
            self._end_site_call(call.task, index, value, None)

    def _fail(
        self,
        call: TaskCall,
        index: Index,
        failure: Failure,
        *,
        started_at: float | None = None,
        seconds: float = 0.0,
    ) -> None:
        self._results.failed(call, index, failure, started_at=started_at, seconds=seconds)
        self._attempt_counts.pop((call.task, index), None)
        self._unit.fail(call)
        if self.on_site_call_ended is not None:
            self._end_site_call(call.task, index, None, failure)
        tool = self._nodes[call.task].tool
        is_fatal = (tool.on_error or self._on_error) == "fail" and failure.type != CANCELLED
        if is_fatal and self._stop_error is None:
            self._stop_error = ToolError(
                f"task {call.task} ({tool.name}) failed: {failure.message}",
                hint=failure.hint,
            )
            self._cancel_all(f"task {call.task} failed")

    def _end_site_call(self, task: int, index: Index, value: Any, failure: Failure | None) -> None:
        node = self._nodes[task]
        if type(node) is SiteNode and self.on_site_call_ended is not None:
            node.call_arguments.pop(index, None)
            self.on_site_call_ended(task, index, value, failure)

    def _cancel_all(self, reason: str) -> None:
        if self._is_stopping:
            return
        self._is_stopping = True
        for task_id in self._unit.cancel():
            self._results.stopped(task_id, reason)
        self._in_flight.cancel()
        self._paused_calls.clear()
        self._draining.update(self._approvals.withdraw())
