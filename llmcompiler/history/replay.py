"""Replay: a finished run happens again from its log, and every decision is compared.

Nothing is called: no model, no tool, no network. The recorded text of the planner is parsed and
checked again, arguments are bound again from the recorded results, fan-outs opened and closed,
failures spread, prompts built and the joiner's text read again. What comes out must be what is in
the log; the first thing that is not is named. Only results of tools and texts of models, which come
from outside, are taken from the log as they are.

What models were shown is compared where the run is of this release: another may word the list of
tools or of results otherwise, and what was decided then still holds.
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
    TaskPlanned,
    TaskSkipped,
)
from llmcompiler.executors.local import LocalExecutor
from llmcompiler.history.fork import check_task_of, edits_of, given_by
from llmcompiler.history.recording import DivergenceError, Fact, Recording, facts
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
from llmcompiler.run.run import Parts, Run
from llmcompiler.tools.base import TRIM, Tool
from llmcompiler.version import VERSION


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay compared.

    Attributes:
        run: the run's id.
        tasks: tasks derived again.
        model_calls: model answers read again.
        status: how the run had ended.
        answer: its answer.
        seconds: how long the replay took.
        state: the run as it was derived.
        until: the task after which it was left; ``None`` for the whole run.
        other_release: the release that made the run (``unknown`` where it was not noted), if it is
            another one, so that what models were shown was not compared; else ``None``.
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
        until: a task after whose end nothing more is derived. Then the run itself need not have
            come to its end, and of one that has not, only what its log holds is compared.

    Raises:
        DivergenceError: something came out differently; it names where and what.
        UsageError: the run has no task ``until``.
        LogError: there is no such run, it (or that task) did not finish, or the log is damaged.
    """
    run = store.find(run)
    recording = Recording(run, list(store.events(run)))
    whole = recording.finished is not None and not recording.stopped
    if until is not None:
        _check_ended(recording, until)
    elif not whole:
        # What was cancelled depended on the clock, which a replay does not have.
        raise LogError(
            f"run {run} {recording.stopped or 'did not finish'}",
            hint="only a run that came to its end can be replayed whole; --until TASK goes so far",
        )
    clock = asyncio.get_running_loop().time
    begun = clock()
    derived = await derive(recording, run, recorded_parts(recording), until)
    same_release = recording.started.release == VERSION
    _compare(
        recording,
        derived,
        requests=same_release,
        partly=until is not None,
        leniently=not whole,
    )
    state = fold(derived)
    recorded = recording.finished
    return ReplayReport(
        run,
        sum(isinstance(event, TaskPlanned) for event in derived),
        sum(isinstance(event, ModelStarted) for event in derived),
        "unfinished" if recorded is None else recorded.status,
        None if recorded is None else recorded.answer,
        clock() - begun,
        state,
        until,
        None if same_release else recording.started.release or "unknown",
    )


async def derive(
    recording: Recording,
    run: str,
    parts: Parts,
    until: int | None,
    on_event: Listener | None = None,
) -> list[Event]:
    """Derive a run from its beginning, and keep nothing.

    Args:
        recording: what the run was asked.
        run: the id that it goes by.
        parts: what stands for tools, models and the world.
        until: the task with whose end it is left; ``None`` for the whole of it.
        on_event: told of each event.

    Returns:
        Its events.

    Raises:
        LogError: the run ended before that task.
    """
    derived: list[Event] = []
    is_reached = False

    def note(event: Event) -> None:
        nonlocal is_reached
        if is_reached:
            return
        derived.append(event)
        if on_event is not None:
            on_event(event)
        if until is not None and _ends(event) == until:
            is_reached = True
            raise _Reached  # so that nothing starts any more

    started = recording.started
    journal = Journal(asyncio.get_running_loop().time, None, (note,))
    again = Run(run, parts, started.question, started.inputs, journal=journal, wall=started.wall)
    try:
        await again.to_the_end(recording.saved_plan())
    except _Reached:
        return derived
    if until is not None:
        raise LogError(
            f"derived again, run {run} ended before task {until} did",
            hint="the log was changed, or the plan comes out differently",
        )
    return derived


class _Reached(BaseException):
    """Leaves a run in which nothing more is wanted."""


def _ends(event: Event) -> int | None:
    """The task, no mere element of one, that ends with the event."""
    if isinstance(event, TaskFinished | TaskFailed | TaskSkipped) and not event.index:
        return event.task
    return None


def _check_ended(recording: Recording, task: int) -> None:
    check_task_of(recording, task)
    if not any(_ends(event) == task for event in recording.events):
        raise LogError(
            f"task {task} of run {recording.run} did not end",
            hint="a run can be replayed up to a task that did",
        )


def _compare(
    recording: Recording,
    derived: Sequence[Event],
    *,
    requests: bool,
    partly: bool,
    leniently: bool,
) -> None:
    """Compare what was decided.

    Args:
        requests: whether what models were shown has to be the same.
        partly: whether the log may hold more, as the run was not derived to its end.
        leniently: whether more may be derived than the log holds, as the run did not end.
    """
    recorded_facts, derived_facts = facts(recording.events), facts(derived)
    # A tool whose rule for shortening was a function cannot show its results as it did then.
    if requests and all(said["trim"] != "custom" for said in recording.started.catalogue.values()):
        # Of a branch first, as what was asked in it is what made its outcome another.
        recorded_facts = _requests(recording.events, branch=True) | recorded_facts
        derived_facts = _requests(derived, branch=True) | derived_facts
        recorded_facts |= _requests(recording.events, branch=False)
        derived_facts |= _requests(derived, branch=False)
    for fact in derived_facts if partly else recorded_facts | derived_facts:
        was, came = recorded_facts.get(fact), derived_facts.get(fact)
        if was != came and not (leniently and fact not in recorded_facts):
            raise DivergenceError(*fact, was, came)


def _requests(events: Sequence[Event], *, branch: bool) -> dict[Fact, Any]:
    return {
        (f"call {event.call}", "request"): event.request
        for event in events
        if isinstance(event, ModelStarted) and (event.role == "branch") is branch
    }


def recorded_parts(recording: Recording) -> Parts:
    """The parts of a run that calls nothing: all that they know is in the log."""
    started = recording.started
    prompts = recording.prompts()
    models = {role: _RecordedModel(name) for role, name in started.models.items()}
    calls = recording.calls()
    # A branch is derived again from its calls; one that a fork took over has none in its log.
    derived = {(each.started.task, each.started.index) for each in recording.branches.values()}
    asked_joiner = any(call.startswith("join/") for call in calls)
    return Parts(
        tools={
            name: dataclasses.replace(_tool(name, said), lint=recording.lint(name))
            for name, said in started.catalogue.items()
        },
        executor=LocalExecutor(),
        planner=_planner(started.planner, prompts),
        joiner=ModelJoiner(prompts) if asked_joiner else _RecordedJoiner(recording.joins),
        model=lambda role: cast(ChatModel, models[role]),
        limits=Limits.model_validate({**recording.limits, "deadline": None}),
        prompts=prompts,
        join_reducer=recording.join_reducer() if asked_joiner else None,
        answers=calls,
        live=False,
        outcomes={
            place: outcome for place, outcome in recording.outcomes.items() if place not in derived
        },
        branches=recording.branches,
        reasoning=tuple(
            role.removeprefix("branch:") for role in models if role.startswith("branch")
        ),
        given=given_by(started.origin),
        approvals=recording.approvals,
        edits=edits_of(started.origin),
        origin=started.origin,
    )


def _planner(name: str | None, prompts: Prompts) -> Planner:
    if name is None:
        return TextPlanner(prompts)
    if name not in PLANNERS:
        raise LogError(
            f'the run\'s planner "{name}" is not one of this package', hint="it cannot be replayed"
        )
    return PLANNERS[name](prompts)


def _tool(name: str, said: Mapping[str, Any]) -> Tool:
    if not said.get("reasons"):
        return RecordedTool.of(name, said)
    recorded = RecordedTool.of(name, said)
    fields = {field: getattr(recorded, field) for field in said}
    return dataclasses.replace(think_tool(), name=name, **fields)


class RecordedTool(Tool):
    """A tool as the log knows it: it validates nothing and calls nothing."""

    @classmethod
    def of(cls, name: str, said: Mapping[str, Any]) -> RecordedTool:
        """The tool that said this of itself (``Tool.describe``)."""
        trim = TRIM if said["trim"] == "custom" else said["trim"]
        fields = {**said, "trim": trim}
        return cls(name=name, function=_never_called, parameters=BaseModel, is_async=True, **fields)

    def validate(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse: the call is not recorded."""
        raise ToolError(
            f"the log holds no result of this call of {self.name}",
            hint="it did not end, or the log was changed",
        )


def _never_called() -> None:
    raise AssertionError("a replay calls no tool")


@dataclass(frozen=True, slots=True)
class _RecordedModel:
    """Stands where a model stood; answers come from the log before it is asked."""

    name: str

    def stream(self, request: Request) -> AsyncIterator[str | Completion]:
        raise AssertionError("a replay asks no model")

    async def aclose(self) -> None:
        """Nothing is held."""


class _RecordedJoiner:
    """Decides as recorded, for a joiner of the user's own that asked no model."""

    def __init__(self, decisions: Mapping[int, Joined]) -> None:
        self._decisions = decisions

    async def join(self, context: JoinContext) -> Decision:
        number = len(context.rounds)
        if number not in self._decisions:
            raise DivergenceError(f"join {number}", "decision", "none", "one")
        recorded = self._decisions[number]
        return Decision(recorded.decision, recorded.text)
