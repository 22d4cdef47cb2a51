"""Replay: a finished run is derived again from its log, and every decision is compared.

A replay calls no model, no tool and no network. Results of tools and texts of models are taken from
the log. Everything else is done again: the planner's text is parsed and checked, arguments are
bound, fan-outs opened and closed, failures passed on, prompts built, and the joiner's text is read.
The first decision that differs from the log is an error.

What models were shown is compared only if this release made the run. Another release may word the
list of tools or of results otherwise, and its decisions still hold.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel

from llmcompiler.errors import LogError, ToolError
from llmcompiler.events import (
    Event,
    Joined,
    ModelStarted,
    TaskFailed,
    TaskFinished,
    TaskSkipped,
)
from llmcompiler.executors.local import LocalExecutor
from llmcompiler.history.decisions import DivergenceError, Fact, facts
from llmcompiler.history.run_history import RunHistory
from llmcompiler.history.state import RunState, fold
from llmcompiler.joiners.model import Decision, JoinContext, ModelJoiner
from llmcompiler.limits import Limits
from llmcompiler.llm.base import ChatModel, Completion, Request
from llmcompiler.log.journal import Journal, Listener
from llmcompiler.log.store import RunStore
from llmcompiler.planners.base import Planner
from llmcompiler.planners.registry import PLANNERS
from llmcompiler.planners.text import TextPlanner
from llmcompiler.prompting.prompts import Prompts
from llmcompiler.reasoning.tool import think_tool
from llmcompiler.run.config import RecordedInputs, RunConfig
from llmcompiler.run.run import Run
from llmcompiler.tools.base import TRIM, Tool
from llmcompiler.version import VERSION


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay compared.

    Attributes:
        run: the run's id.
        tasks: number of tasks that were derived.
        model_calls: number of model calls that were derived.
        status: how the recorded run ended; ``unfinished`` if it did not.
        answer: the recorded answer.
        seconds: how long the replay took.
        state: the derived run.
        until: the task that ended the replay; ``None`` for the whole run.
        other_release: the release that made the run, if it is another one (``unknown`` if the log
            does not name it). Then what models were shown was not compared. ``None`` for this one.
    """

    run: str
    tasks: int
    model_calls: int
    status: str
    answer: str | None
    seconds: float
    state: RunState
    until: int | None = None
    other_release: str | None = None


async def replay(store: RunStore, run: str, *, until: int | None = None) -> ReplayReport:
    """Derive a run again from its log and compare everything.

    Args:
        store: where the run is.
        run: its id, a unique prefix of it, or ``last``.
        until: the task whose end ends the replay; ``None`` for the whole run. A run that did not
            come to its end can be replayed only up to a task; then only what its log holds is
            compared.

    Raises:
        DivergenceError: something came out differently; it names where and what.
        UsageError: the run has no task ``until``.
        LogError: there is no such run, it (or that task) did not finish, or the log is damaged.
    """
    history = RunHistory.load(store, run)
    is_complete = history.end is not None and not history.stop_reason
    if until is not None:
        _check_ended(history, until)
    elif not is_complete:
        # Which tasks were cancelled depended on the clock, and a replay has no such clock.
        raise LogError(
            f"run {history.run} {history.stop_reason or 'did not finish'}",
            hint="only a run that came to its end can be replayed whole; --until TASK goes so far",
        )
    clock = asyncio.get_running_loop().time
    started_at = clock()
    config, record = recorded_config(history), replay_inputs(history)
    derived_events = await derive(history, history.run, config, record, until)
    is_same_release = history.start.release == VERSION
    _compare_facts(
        history,
        derived_events,
        with_requests=is_same_release,
        only_derived=until is not None,
        may_add=not is_complete,
    )
    state = fold(derived_events)
    end = history.end
    return ReplayReport(
        history.run,
        len(state.tasks),
        len(state.calls),
        "unfinished" if end is None else end.status,
        None if end is None else end.answer,
        clock() - started_at,
        state,
        until,
        None if is_same_release else history.start.release or "unknown",
    )


async def derive(
    history: RunHistory,
    run: str,
    config: RunConfig,
    record: RecordedInputs,
    until: int | None,
    on_event: Listener | None = None,
) -> list[Event]:
    """Derive a run from its beginning, and keep nothing.

    Args:
        history: gives question, inputs and saved plan.
        run: the id for the derived run.
        config: tools and models of the derived run.
        record: what is on record before it starts.
        until: the task whose end ends the derived run; ``None`` for the whole run.
        on_event: called with each event.

    Returns:
        The derived events.

    Raises:
        LogError: the run ended before that task.
    """
    derived_events: list[Event] = []
    is_reached = False

    def collect(event: Event) -> None:
        nonlocal is_reached
        if is_reached:
            return
        derived_events.append(event)
        if on_event is not None:
            on_event(event)
        if until is not None and _ended_task(event) == until:
            is_reached = True
            raise _UntilReached  # at once, so that no further call starts

    start = history.start
    derived_run = Run(
        run,
        config,
        start.question,
        start.inputs,
        journal=Journal(asyncio.get_running_loop().time, None, (collect,)),
        wall=start.wall,
        record=record,
    )
    try:
        await derived_run.complete(history.saved_plan())
    except _UntilReached:
        return derived_events
    if until is not None:
        raise LogError(
            f"derived again, run {run} ended before task {until} did",
            hint="the log was changed, or the plan comes out differently",
        )
    return derived_events


class _UntilReached(BaseException):
    """Leaves a derived run at the end of the task ``until``."""


def _ended_task(event: Event) -> int | None:
    """The task that ends with the event; ``None`` for an element of a fan-out and other events."""
    if isinstance(event, TaskFinished | TaskFailed | TaskSkipped) and not event.index:
        return event.task
    return None


def _check_ended(history: RunHistory, task: int) -> None:
    history.check_task(task)
    if not any(_ended_task(event) == task for event in history.events):
        raise LogError(
            f"task {task} of run {history.run} did not end",
            hint="a run can be replayed up to a task that did",
        )


def _compare_facts(
    history: RunHistory,
    derived_events: Sequence[Event],
    *,
    with_requests: bool,
    only_derived: bool,
    may_add: bool,
) -> None:
    """Compare what was decided.

    Args:
        history: the recorded run.
        derived_events: the events of the derived run.
        with_requests: True to compare what models were shown, too.
        only_derived: True to leave out facts that were not derived, because the derived run was
            left before its end.
        may_add: True to allow facts that the log does not hold, because the recorded run did not
            come to its end.

    Raises:
        DivergenceError: names the first fact that differs.
    """
    recorded_facts, derived_facts = facts(history.events), facts(derived_events)
    # A tool with a shortening function of its own cannot show its results as it did then.
    catalogue = history.start.catalogue.values()
    if with_requests and all(description["trim"] != "custom" for description in catalogue):
        # Requests of a branch come first, because they explain why its outcome differs.
        recorded_facts = _requests(history.events, branch=True) | recorded_facts
        derived_facts = _requests(derived_events, branch=True) | derived_facts
        recorded_facts |= _requests(history.events, branch=False)
        derived_facts |= _requests(derived_events, branch=False)
    for fact in derived_facts if only_derived else recorded_facts | derived_facts:
        recorded_value, derived_value = recorded_facts.get(fact), derived_facts.get(fact)
        if recorded_value != derived_value and not (may_add and fact not in recorded_facts):
            raise DivergenceError(*fact, recorded_value, derived_value)


def _requests(events: Sequence[Event], *, branch: bool) -> dict[Fact, Any]:
    """The requests of the model calls, either those of branches or all others."""
    return {
        (f"call {event.call}", "request"): _shown_part(event.request)
        for event in events
        if isinstance(event, ModelStarted) and (event.role == "branch") is branch
    }


def _shown_part(request: Mapping[str, Any]) -> dict[str, Any]:
    """A request without its bound, which is the model's own, and its grammar, which tools imply."""
    return {name: value for name, value in request.items() if name not in ("max_tokens", "grammar")}


def recorded_config(history: RunHistory) -> RunConfig:
    """The configuration of a run that calls nothing: tools and models as the log knows them."""
    start = history.start
    prompts = history.prompts()
    models = {role: _RecordedModel(name) for role, name in start.models.items()}
    has_joiner_calls = any(call.startswith("join/") for call in history.model_calls)
    return RunConfig(
        tools={
            name: dataclasses.replace(_recorded_tool(name, description), lint=history.lint(name))
            for name, description in start.catalogue.items()
        },
        executor=LocalExecutor(),
        planner=_recorded_planner(start.planner, prompts),
        joiner=ModelJoiner(prompts) if has_joiner_calls else _RecordedJoiner(history.joins),
        model_for=lambda role: cast(ChatModel, models[role]),
        limits=Limits.model_validate({**history.limits, "deadline": None}),
        prompts=prompts,
        profiles=history.profiles(),
        today=start.today,
        join_reducer=history.join_reducer() if has_joiner_calls else None,
        branch_models=tuple(
            role.removeprefix("branch:") for role in models if role.startswith("branch")
        ),
        may_ask_models=False,
    )


def replay_inputs(history: RunHistory) -> RecordedInputs:
    """All that is on record of the run, except outcomes of branches, which are derived again.

    A branch that a fork took over has no calls in the fork's log, so its outcome stays.
    """
    derived = {(branch.started.task, branch.started.index) for branch in history.branches.values()}
    return dataclasses.replace(
        history.recorded_inputs(),
        outcomes={
            call_id: outcome
            for call_id, outcome in history.outcomes.items()
            if call_id not in derived
        },
    )


def _recorded_planner(name: str | None, prompts: Prompts) -> Planner:
    if name is None:
        return TextPlanner(prompts)
    if name not in PLANNERS:
        raise LogError(
            f'the run\'s planner "{name}" is not one of this package', hint="it cannot be replayed"
        )
    return PLANNERS[name](prompts)


def _recorded_tool(name: str, description: Mapping[str, Any]) -> Tool:
    recorded_tool = RecordedTool.of(name, description)
    if not description.get("reasons"):
        return recorded_tool
    fields = {field: getattr(recorded_tool, field) for field in description}
    return dataclasses.replace(think_tool(), name=name, **fields)


class RecordedTool(Tool):
    """A tool as the log knows it: it calls nothing, and refuses a call that is not recorded."""

    @classmethod
    def of(cls, name: str, description: Mapping[str, Any]) -> RecordedTool:
        """The tool with this description (``Tool.describe``)."""
        trim = TRIM if description["trim"] == "custom" else description["trim"]
        fields = {**description, "trim": trim}
        return cls(name=name, function=_never_called, parameters=BaseModel, is_async=True, **fields)

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse the call: it is not recorded."""
        raise ToolError(
            f"the log holds no result of this call of {self.name}",
            hint="it did not end, or the log was changed",
        )


def _never_called() -> None:
    raise AssertionError("a replay calls no tool")


@dataclass(frozen=True, slots=True)
class _RecordedModel:
    """Has the name of a model that was asked. Its completions come from the log."""

    name: str

    def stream(self, request: Request) -> AsyncIterator[str | Completion]:
        raise AssertionError("a replay asks no model")

    async def aclose(self) -> None:
        """Do nothing: there is nothing to free."""


class _RecordedJoiner:
    """Gives the recorded decisions, in place of a user's own joiner that asked no model."""

    def __init__(self, decisions: Mapping[int, Joined]) -> None:
        self._decisions = decisions

    async def join(self, context: JoinContext) -> Decision:
        number = len(context.rounds)
        if number not in self._decisions:
            raise DivergenceError(f"join {number}", "decision", "none", "one")
        recorded_join = self._decisions[number]
        return Decision(recorded_join.decision, recorded_join.text)
