"""The engine: drives the task fetching unit with real calls. The only place that knows asyncio.

One engine serves one run. Planners add tasks while they still write; each call starts in the turn
of the event loop in which its last input arrived. Everything that happens is told to the journal,
and nothing is dispatched before the results it stands on are kept there.

Theory of operation: a finished call lands in a list; one callback a turn of the loop takes the
list, tells the unit, collects what may start now, commits all events of the turn at once, and only
then starts the calls. There is no polling and no task of the engine's own.

The engine must not know planners, joiners or models.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from llmcompiler.approval import ApprovalRequest, Approve, Approver, Decision, Deny
from llmcompiler.binding import Shape, evaluate, fan_out
from llmcompiler.cache import Hit, ResultCache
from llmcompiler.errors import LimitReached, LLMCompilerError, ToolError
from llmcompiler.events import (
    ApprovalAsked,
    ApprovalGiven,
    CacheMissed,
    Failure,
    Index,
    LimitHit,
    MapOpened,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskPlanned,
    TaskProgress,
    TaskRetried,
    TaskSkipped,
    TaskStarted,
)
from llmcompiler.executors.base import Executor, ToolCall
from llmcompiler.expressions import STAR, Reference
from llmcompiler.failures import failure_of
from llmcompiler.journal import Journal
from llmcompiler.limits import Budget
from llmcompiler.observation import Observation
from llmcompiler.plan import Task
from llmcompiler.schedule import Call, MapEnded, Node, Open, Skip, TaskFetchingUnit
from llmcompiler.tools.base import Tool
from llmcompiler.tools.context import CallContext
from llmcompiler.tools.policy import OnError as OnError, Retry as Retry

Place: TypeAlias = tuple[int, Index]
"""A call of a run: the task, and the element of a fan-out."""

Outcome: TypeAlias = TaskFinished | TaskFailed

Recall: TypeAlias = Callable[[str, Mapping[str, Any]], Outcome | None]
"""How a call of a tool with these arguments ended before, wherever in a run that was."""

_BETWEEN_REPORTS = 0.1
"""Seconds between two reports of a call's progress that are noted; those between are dropped."""


class _Job:
    """A task, and what of it every one of its calls needs.

    Attributes:
        dependencies: ids of the tasks whose results it needs.
        rank: its fan-out dimensions.
        aligned: maps that this map follows element by element: all it takes of them is ``$N[*]…``.
        names: of the tool's parameters, by position.
    """

    __slots__ = ("_is_given", "aligned", "dependencies", "names", "rank", "task", "tool")

    def __init__(self, task: Task, tool: Tool, jobs: Mapping[int, _Job], is_given: bool) -> None:
        self.task = task
        self.tool = tool
        self._is_given = is_given
        self.names: Iterable[str] = tool.parameters_schema["properties"]
        needed: dict[int, bool] = {}  # whether more of it is taken than ``$N[*]…``
        self.rank = 0
        for ref in task.references():
            path = ref.path
            if path:
                self.rank = max(self.rank, path.count(STAR))
            if type(ref) is Reference:
                whole = not path or path[0] is not STAR
                needed[ref.task] = whole or needed.get(ref.task, False)
        self.dependencies = tuple(needed)
        self.aligned: tuple[int, ...] = ()
        if is_given:
            self.rank = 0  # its value is one, whatever it would have been made of
        if self.rank == 1:
            self.aligned = tuple(
                dep
                for dep, whole in needed.items()
                if not whole and dep in jobs and jobs[dep].rank == 1
            )

    def node(self, weight: float) -> Node:
        """What the task fetching unit needs to know."""
        waits_for = () if self._is_given else self.dependencies
        if self.aligned:
            waits_for = tuple(dep for dep in waits_for if dep not in self.aligned)
        return Node(
            self.task.id,
            waits_for,
            self.rank > 0,
            self.aligned,
            weight,
            self.task.tool,
            self.tool.partial,
        )


class _Running:
    """A call that holds a slot, or waits to be repeated."""

    __slots__ = (
        "arguments",
        "begun",
        "call",
        "context",
        "future",
        "index",
        "reported",
        "timed_out",
        "timer",
        "tool_call",
    )

    def __init__(
        self,
        call: Call,
        index: Index,
        tool_call: ToolCall,
        begun: float,
        arguments: dict[str, Any] | None,
    ) -> None:
        self.call = call
        self.arguments = arguments  # as planned, where the result is to be cached
        self.index = index
        self.tool_call = tool_call
        self.context = tool_call.context
        self.begun = begun
        self.future: asyncio.Future[Any] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.timed_out = False
        self.reported = -math.inf


class Engine:
    """Executes tasks as they are added.

    Args:
        run: the run's id, the first part of idempotency keys.
        tools: by name; every added task's tool is among them.
        executor: where calls run.
        journal: told of everything.
        budget: limits, and what was used of them.
        inputs: values of the plan's inputs.
        on_error: ``observe`` lets everything that does not depend on a failed task go on;
            ``fail`` cancels the rest.
        retry: how failed calls are repeated.
        recorded: outcomes of calls by task and index that are known already, from this run before
            a crash or from the run that this one is forked from: they are not made again.
        given: values that stand for what tasks would have returned, by id: those are not called,
            and wait for nothing.
        recall: knows calls of another run by their arguments; they are not made again either.
        attempts: how often calls without an outcome were started before.
        approver: asks somebody about calls of tools that need approval; ``None`` if there is
            nobody, and the run stops once nothing else can go on.
        approvals: what was decided about such calls before.
        cache: results of earlier runs.
        weights: seconds that a call is expected to take, by tool, for priorities; tools without
            are taken for average ones.
    """

    def __init__(
        self,
        run: str,
        *,
        tools: Mapping[str, Tool],
        executor: Executor,
        journal: Journal,
        budget: Budget,
        inputs: Mapping[str, Any],
        on_error: OnError = "observe",
        retry: Retry | None = None,
        recorded: Mapping[Place, Outcome] | None = None,
        given: Mapping[int, Any] | None = None,
        recall: Recall | None = None,
        attempts: Mapping[Place, int] | None = None,
        approver: Approver | None = None,
        approvals: Mapping[Place, Decision] | None = None,
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
        self._jobs: dict[int, _Job] = {}
        self._values: dict[int, Any] = {}
        self._shapes: dict[int, Shape] = {}
        self._opened: dict[int, float] = {}
        self._errors: dict[int, dict[int, Failure]] = {}
        self._running: dict[Call, _Running] = {}
        self._recorded = dict(recorded or {})
        self._given = given or {}
        self._recall = recall
        self._attempts: dict[Place, int] = dict(attempts or {})
        self._approver = approver
        self._decisions: dict[Place, Decision] = dict(approvals or {})
        self._asking: dict[Call, asyncio.Future[Decision]] = {}
        self._unattended: list[ApprovalRequest] = []
        self._cache = cache
        self._weights = weights or {}
        known = self._weights.values()
        self._average = sum(known) / len(known) if known else 1.0
        self._waiting_to_repeat = 0
        self._landed: list[_Running] = []
        self._turn: asyncio.Handle | None = None
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._stopped: LLMCompilerError | None = None
        self._crash: BaseException | None = None
        self._stopping = False
        self.observations: dict[int, Observation] = {}

    # What the compiler calls.

    def add(self, plan: int, tasks: Sequence[Task]) -> None:
        """Take in checked tasks, each after those it refers to; those that can start do, at once.

        Raises:
            ToolError, LimitReached: the run was stopped by a failed task or a limit before.
        """
        self._raise_if_stopped()
        nodes: list[Node] = []
        for task in tasks:
            tool, is_given = self._tools[task.tool], task.id in self._given
            job = self._jobs[task.id] = _Job(task, tool, self._jobs, is_given)
            nodes.append(job.node(self._weights.get(task.tool, self._average)))
            if self._journal.heard:
                self._journal.emit(
                    TaskPlanned,
                    plan=plan,
                    id=task.id,
                    task=task.to_json(),
                    dependencies=job.dependencies,
                )
        self._quiet.clear()
        self._unit.add(nodes)
        self._schedule_turn()

    def forget(self, task: int) -> None:
        """Whatever outcomes are recorded of the task, its calls are made again."""
        for place in [place for place in self._recorded if place[0] == task]:
            del self._recorded[place]

    async def settled(self) -> None:
        """Wait until every added task has ended.

        Raises:
            ToolError: a task failed, and ``on_error`` is ``fail``.
            LimitReached: a limit stopped the run, or calls wait for an approval that nobody is
                there to give.
        """
        await self._quiet.wait()
        if self._unattended and not self._stopping:
            self._stop_at(_nobody_to_ask(self._unattended))
        self._raise_if_stopped()

    async def stop(self, reason: str) -> None:
        """Cancel whatever has not ended, and wait until it has. May be called at any time."""
        self._cancel(reason)
        futures: list[asyncio.Future[Any]] = [
            running.future for running in self._running.values() if running.future
        ]
        futures += self._asking.values()
        if futures:
            await asyncio.wait(futures)
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
        try:
            landed, self._landed = self._landed, []
            for running in landed:
                self._land(running)
            starting: list[_Running] = []
            while commands := self._unit.take():
                for command in commands:
                    self._follow(command, starting)
            self._journal.flush()
        except LimitReached as reached:
            self._stop_at(reached)
            starting = []
        except BaseException as error:  # noqa: BLE001
            # A log that cannot be written, or a bug: nothing may start that stands on it.
            self._crash = error
            self._cancel(str(error))
            starting = []
        if not self._stopping:
            for running in starting:
                self._start(running)
        if not self._running and (self._unit.idle or self._is_stuck):
            self._quiet.set()

    @property
    def _is_stuck(self) -> bool:
        """Whether all that is left waits for an approval that nobody is there to give."""
        return bool(self._unattended) and not self._waiting_to_repeat

    def _stop_at(self, reached: LimitReached) -> None:
        self._stopped = reached
        self._journal.emit(LimitHit, limit=reached.limit, message=reached.message)
        self._cancel(reached.message)
        self._journal.flush()

    def _follow(self, command: Call | Open | Skip | MapEnded, starting: list[_Running]) -> None:
        match command:
            case Call():
                if (running := self._prepare(command)) is not None:
                    starting.append(running)
            case Open():
                self._open(command.task)
            case Skip():
                self._note_skip(command)
            case MapEnded():
                self._close_map(command)

    # Calls.

    def _prepare(self, call: Call) -> _Running | None:
        """Bind a call's arguments; one that cannot be bound fails without having started."""
        if call.task in self._given:
            self._finished(call, (), self._given[call.task], 0.0)
            return None
        job = self._jobs[call.task]
        task, tool = job.task, job.tool
        index: Index = () if call.element is None else self._shapes[call.task].index(call.element)
        place = call.task, index
        attempt = self._attempts.get(place, 0) + 1
        begun = self._journal.now()
        lookup = self._values.__getitem__
        recorded = self._recorded.get(place)
        inputs = self._inputs
        try:
            args = [evaluate(expr, lookup, inputs, index) for expr in task.args]
            kwargs = {
                name: evaluate(expr, lookup, inputs, index) for name, expr in task.kwargs.items()
            }
        except LLMCompilerError as error:
            self._failed(call, index, failure_of(error), 0.0)
            return None
        if recorded is None and self._recall is not None:
            recorded = self._recall(tool.name, dict(zip(job.names, args, strict=False)) | kwargs)
        match self._decisions.get(place):
            case None if tool.approve and recorded is None and _fits(tool, args, kwargs):
                self._ask(call, index, dict(zip(job.names, args, strict=False)) | kwargs)
                return None
            case Deny(reason=reason):
                self._failed(call, index, _denied(tool, reason), 0.0)
                return None
            case Approve(arguments=dict() as edited):
                args, kwargs = [], edited
        cached: Hit | None = None
        arguments: dict[str, Any] | None = None
        if recorded is None:
            if tool.cache is not None and self._cache is not None:
                arguments = dict(zip(job.names, args, strict=False)) | kwargs
                cached = self._look(call, index, tool, arguments)
            if cached is None:
                self._budget.start_tool_call()
        key = "/".join((f"{self._run}/{call.task}", *map(str, index)))
        if self._journal.heard:
            self._journal.emit(
                TaskStarted,
                task=call.task,
                index=index,
                attempt=attempt,
                key=key,
                arguments=dict(zip(job.names, args, strict=False)) | kwargs,
            )
        match recorded:
            case TaskFinished():
                self._finished(call, index, recorded.value, recorded.seconds)
                return None
            case TaskFailed():
                self._failed(call, index, recorded.failure, recorded.seconds)
                return None
        if cached is not None:
            self._finished(call, index, cached.value, 0.0, cached=True)
            return None
        try:
            bound = tool.bind(args, kwargs)
        except ToolError as error:
            self._failed(call, index, failure_of(error), 0.0)
            return None
        told = functools.partial(self._told, call) if self._journal.heard else None
        context = CallContext(self._run, call.task, index, key, attempt, told=told)
        running = _Running(call, index, ToolCall(tool, bound, context), begun, arguments)
        self._running[call] = running
        return running

    def _look(self, call: Call, index: Index, tool: Tool, arguments: dict[str, Any]) -> Hit | None:
        assert self._cache is not None
        found = self._cache.look(tool, arguments)
        if isinstance(found, Hit):
            return found
        self._journal.emit(CacheMissed, task=call.task, index=index, why=found.why)
        return None

    # Calls that somebody must agree to.

    def _ask(self, call: Call, index: Index, arguments: dict[str, Any]) -> None:
        """Take the call off its slot until there is a decision."""
        self._unit.pause(call)
        self._journal.emit(ApprovalAsked, task=call.task, index=index, arguments=arguments)
        tool = self._jobs[call.task].task.tool
        request = ApprovalRequest(self._run, call.task, index, tool, arguments)
        if self._approver is None:
            self._unattended.append(request)
            return
        asking = self._asking[call] = asyncio.ensure_future(self._approver(request))
        asking.add_done_callback(functools.partial(self._decided, call, index))

    def _decided(self, call: Call, index: Index, asking: asyncio.Future[Decision]) -> None:
        del self._asking[call]
        if self._stopping or asking.cancelled():
            return
        if (error := asking.exception()) is not None:
            # The approver is the caller's code; without it no decision can be had.
            self._crash = error
            self._cancel(str(error))
            self._schedule_turn()
            return
        decision = self._decisions[call.task, index] = asking.result()
        approved = isinstance(decision, Approve)
        self._journal.emit(
            ApprovalGiven,
            task=call.task,
            index=index,
            verdict="approved" if approved else "denied",
            arguments=decision.arguments if isinstance(decision, Approve) else None,
            reason=decision.reason if isinstance(decision, Deny) else "",
        )
        self._unit.again(call)
        self._schedule_turn()

    def _start(self, running: _Running) -> None:
        future = running.future = self._executor.submit(running.tool_call)
        timeout = running.tool_call.tool.timeout
        if timeout is not None:
            running.timer = self._loop.call_later(timeout, self._time_out, running)

        def landed(_: asyncio.Future[Any]) -> None:
            self._landed.append(running)
            if len(self._landed) == len(self._running):
                self._finish_turn()  # nobody else can land
            else:
                self._schedule_turn()

        future.add_done_callback(landed)

    def _told(self, call: Call, done: float, total: float | None, message: str) -> None:
        """A tool reports progress, from whatever thread."""
        # A thread that nobody waits for any more may outlive the loop.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._note_progress, call, done, total, message)

    def _note_progress(self, call: Call, done: float, total: float | None, message: str) -> None:
        running = self._running.get(call)
        now = self._journal.now()
        if running is None or self._stopping or now - running.reported < _BETWEEN_REPORTS:
            return
        running.reported = now
        self._journal.emit(
            TaskProgress,
            task=call.task,
            index=running.index,
            done=done,
            total=total,
            message=message,
        )
        self._schedule_turn()

    def _time_out(self, running: _Running) -> None:
        running.timed_out = True
        if running.future is not None:
            running.future.cancel()

    def _land(self, running: _Running) -> None:
        if running.timer is not None:
            running.timer.cancel()
        call, tool, future = running.call, running.tool_call.tool, running.future
        assert future is not None
        seconds = self._journal.now() - running.begun
        self._running.pop(call, None)
        error: BaseException | None
        if future.cancelled():
            if self._stopping and not running.timed_out:
                return  # its end was noted when the run was stopped
            error = ToolError(
                f"{tool.name} timed out after {tool.timeout:g} s"
                if running.timed_out
                else f"{tool.name} cancelled itself"
            )
        else:
            error = future.exception()
        if self._stopping:
            return
        if error is None:
            try:
                value = tool.encode(future.result())
            except ToolError as unfit:
                error = unfit
            else:
                if running.arguments is not None and self._cache is not None:
                    self._cache.keep(tool, running.arguments, value)
                self._finished(call, running.index, value, seconds)
                return
        self._fail_or_repeat(running, error, seconds)

    def _finished(
        self, call: Call, index: Index, value: Any, seconds: float, *, cached: bool = False
    ) -> None:
        self._journal.emit(
            TaskFinished,
            task=call.task,
            index=index,
            value=value,
            seconds=seconds,
            cached=cached,
        )
        self._attempts.pop((call.task, index), None)
        if call.element is None:
            self._values[call.task] = value
            self._observe(call.task, "done", value, None, seconds)
        else:
            self._values[call.task][call.element] = value
        self._unit.done(call)

    def _fail_or_repeat(self, running: _Running, error: BaseException, seconds: float) -> None:
        call, attempt = running.call, running.context.attempt
        failure = failure_of(error, "tool")
        retry = running.tool_call.tool.retry or self._retry
        if retry.helps(error, attempt):
            asked = getattr(error, "retry_after", None)
            delay = retry.delay(running.context.key, attempt, asked)
            self._journal.emit(
                TaskRetried,
                task=call.task,
                index=running.index,
                attempt=attempt,
                failure=failure,
                delay=delay,
            )
            self._attempts[call.task, running.index] = attempt
            self._unit.pause(call)
            self._waiting_to_repeat += 1
            self._loop.call_later(delay, self._repeat, call)
            return
        self._failed(call, running.index, failure, seconds)

    def _repeat(self, call: Call) -> None:
        self._waiting_to_repeat -= 1
        if not self._stopping:
            self._unit.again(call)
            self._schedule_turn()

    def _failed(self, call: Call, index: Index, failure: Failure, seconds: float) -> None:
        self._journal.emit(
            TaskFailed, task=call.task, index=index, failure=failure, seconds=seconds
        )
        self._attempts.pop((call.task, index), None)
        if call.element is None:
            self._observe(call.task, "failed", None, failure, seconds)
        else:
            self._errors.setdefault(call.task, {})[call.element] = failure
        self._unit.fail(call)
        tool = self._jobs[call.task].tool
        if (tool.on_error or self._on_error) == "fail" and self._stopped is None:
            self._stopped = ToolError(
                f"task {call.task} ({tool.name}) failed: {failure.message}",
                hint=failure.hint,
            )
            self._cancel(f"task {call.task} failed")

    # Fan-outs.

    def _open(self, task_id: int) -> None:
        begun = self._opened[task_id] = self._journal.now()
        try:
            shape = fan_out(self._jobs[task_id].task, self._values.__getitem__, self._inputs)
        except LLMCompilerError as error:
            failure = failure_of(error)
            self._journal.emit(TaskFailed, task=task_id, index=(), failure=failure, seconds=0.0)
            self._observe(task_id, "failed", None, failure, self._journal.now() - begun)
            self._unit.fail_open(task_id)
            return
        self._shapes[task_id] = shape
        self._values[task_id] = [None] * shape.extent
        self._journal.emit(MapOpened, task=task_id, extent=shape.extent)
        self._unit.open(task_id, shape.extent)

    def _close_map(self, ended: MapEnded) -> None:
        task_id = ended.task
        seconds = self._journal.now() - self._opened[task_id]
        value = self._values[task_id] = self._shapes[task_id].nest(self._values[task_id])
        extent = self._shapes[task_id].extent
        enough = self._jobs[task_id].tool.partial and len(ended.failed) < extent
        if not ended.failed or enough:
            self._journal.emit(TaskFinished, task=task_id, index=(), value=value, seconds=seconds)
            self._observe(task_id, "done", value, None, seconds)
            return
        failure = self._map_failure(task_id, ended.failed)
        self._journal.emit(TaskFailed, task=task_id, index=(), failure=failure, seconds=seconds)
        self._observe(task_id, "failed", value, failure, seconds)

    def _map_failure(self, task_id: int, failed: Iterable[int]) -> Failure:
        errors = self._errors.get(task_id, {})
        lines = [
            f"[{element}] {errors[element].message if element in errors else 'skipped'}"
            for element in failed
        ]
        shown = "; ".join(lines[:3]) + (f"; and {len(lines) - 3} more" if len(lines) > 3 else "")
        extent = self._shapes[task_id].extent
        first = next(iter(errors.values()), None)
        return Failure(
            first.blame if first else "tool",
            "PartialResult",
            f"{len(lines)} of {extent} elements failed: {shown}",
        )

    # Ends.

    def _note_skip(self, skip: Skip) -> None:
        index = () if skip.element is None else self._shapes[skip.task].index(skip.element)
        self._journal.emit(TaskSkipped, task=skip.task, index=index, because=skip.because)
        if skip.element is None:
            failure = Failure(
                "tool", "Skipped", f"not run: it needs task {skip.because}, which did not succeed"
            )
            self._observe(skip.task, "skipped", None, failure, 0.0)

    def _cancel(self, reason: str) -> None:
        if self._stopping:
            return
        self._stopping = True
        for task_id in self._unit.cancel():
            self._journal.emit(TaskCancelled, task=task_id, index=(), reason=reason)
            failure = Failure("limit", "Cancelled", f"stopped: {reason}")
            self._observe(task_id, "cancelled", self._values.get(task_id), failure, 0.0)
        for call in self._running.values():
            call.context.cancelled.set()
            if call.future is not None:
                call.future.cancel()
        for asking in self._asking.values():
            asking.cancel()
        self._running = {c: r for c, r in self._running.items() if r.future is not None}

    def _observe(
        self,
        task_id: int,
        status: Literal["done", "failed", "skipped", "cancelled"],
        value: Any,
        failure: Failure | None,
        seconds: float,
    ) -> None:
        started = self._journal.now() - seconds if seconds or status == "done" else None
        self.observations[task_id] = Observation(
            self._jobs[task_id].task, status, value, failure, started, seconds
        )


def _fits(tool: Tool, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether the tool takes these arguments: nobody is asked about a call that cannot be made."""
    try:
        tool.bind(args, kwargs)
    except ToolError:
        return False
    return True


def _denied(tool: Tool, reason: str) -> Failure:
    because = f": {reason}" if reason else ""
    return Failure("tool", "Denied", f"the call of {tool.name} was not approved{because}")


def _nobody_to_ask(waiting: Sequence[ApprovalRequest]) -> LimitReached:
    calls = ", ".join(f"{one.tool} (task {one.task})" for one in waiting[:3])
    more = f" and {len(waiting) - 3} more" if len(waiting) > 3 else ""
    return LimitReached(
        f"approval is needed for {calls}{more}, and there is nobody to ask",
        limit="approval",
        hint=f"resume run {waiting[0].run} where somebody can approve",
    )
