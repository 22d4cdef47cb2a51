"""Replay: a finished run happens again from its log, and every decision is compared.

Nothing is called: no model, no tool, no network. The recorded text of the planner is parsed and
checked again, arguments are bound again from the recorded results, fan-outs opened and closed,
failures spread, prompts built and the joiner's text read again. What comes out must be what is in
the log; the first thing that is not is named. Only results of tools and texts of models, which come
from outside, are taken from the log as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from llmcompiler.errors import LogError
from llmcompiler.events import Event, Joined, ModelStarted, TaskPlanned
from llmcompiler.executors.local import LocalExecutor
from llmcompiler.fork import edits_of
from llmcompiler.joiner import Decision, JoinContext, ModelJoiner
from llmcompiler.journal import Journal
from llmcompiler.limits import Limits
from llmcompiler.llm.base import ChatModel, Completion, Request
from llmcompiler.log import RunStore
from llmcompiler.plan import Plan
from llmcompiler.planners.base import Planner
from llmcompiler.planners.registry import PLANNERS
from llmcompiler.planners.text import TextPlanner
from llmcompiler.prompts import Prompts
from llmcompiler.recording import DivergenceError, Recording, facts
from llmcompiler.run import Parts, Run
from llmcompiler.tools.base import TRIM, Tool


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
    """

    run: str
    tasks: int
    model_calls: int
    status: str
    answer: str | None
    seconds: float


async def replay(store: RunStore, run: str) -> ReplayReport:
    """Derive a finished run again from its log and compare everything.

    Args:
        store: where the run is.
        run: its id, a unique prefix of it, or ``last``.

    Raises:
        DivergenceError: something came out differently; it names where and what.
        LogError: there is no such run, it did not finish, or the log is damaged.
    """
    run = store.find(run)
    recording = Recording(run, list(store.events(run)))
    if recording.finished is None or recording.stopped:
        # What was cancelled depended on the clock, which a replay does not have.
        raise LogError(
            f"run {run} {recording.stopped or 'did not finish'}",
            hint="only a run that came to its end can be replayed",
        )
    started = recording.started
    derived: list[Event] = []
    clock = asyncio.get_running_loop().time
    journal = Journal(clock, None, (derived.append,))
    again = Run(
        run,
        _parts(recording),
        started.question,
        started.inputs,
        journal=journal,
        wall=started.wall,
    )
    if started.plan is None:
        await again.answer_question()
    else:
        await again.execute_plan(Plan.model_validate(started.plan))
    _compare(recording, derived)
    return ReplayReport(
        run,
        sum(isinstance(event, TaskPlanned) for event in derived),
        sum(isinstance(event, ModelStarted) for event in derived),
        recording.finished.status,
        recording.finished.answer,
        journal.now(),
    )


def _compare(recording: Recording, derived: Sequence[Event]) -> None:
    recorded_facts, derived_facts = facts(recording.events), facts(derived)
    # A tool whose rule for shortening was a function cannot show its results as it did then.
    if all(said["trim"] != "custom" for said in recording.started.catalogue.values()):
        recorded_facts |= _requests(recording.events)
        derived_facts |= _requests(derived)
    for where, field in recorded_facts | derived_facts:
        was, came = recorded_facts.get((where, field)), derived_facts.get((where, field))
        if was != came:
            raise DivergenceError(where, field, was, came)


def _requests(events: Sequence[Event]) -> dict[tuple[str, str], Any]:
    return {
        (f"call {event.call}", "request"): event.request
        for event in events
        if isinstance(event, ModelStarted)
    }


def _parts(recording: Recording) -> Parts:
    started = recording.started
    try:
        prompts = Prompts.model_validate(started.prompts)
    except ValidationError as error:
        raise LogError(
            f"run {recording.run} was asked with texts that this release does not know",
            hint="replay it with the release that made it",
        ) from error
    models = {role: _RecordedModel(name) for role, name in started.models.items()}
    calls = recording.calls()
    asked_joiner = any(call.startswith("join/") for call in calls)
    return Parts(
        tools={name: _RecordedTool.of(name, said) for name, said in started.catalogue.items()},
        executor=LocalExecutor(),
        planner=_planner(started.planner, prompts),
        joiner=ModelJoiner(prompts) if asked_joiner else _RecordedJoiner(recording.joins),
        model=lambda role: cast(ChatModel, models[role]),
        limits=Limits.model_validate({**recording.limits, "deadline": None}),
        prompts=prompts,
        answers=calls,
        live=False,
        outcomes=recording.outcomes,
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


class _RecordedTool(Tool):
    """A tool as the log knows it: it validates nothing and calls nothing."""

    @classmethod
    def of(cls, name: str, said: Mapping[str, Any]) -> _RecordedTool:
        """The tool that said this of itself (``Tool.describe``)."""
        trim = TRIM if said["trim"] == "custom" else said["trim"]
        fields = {**said, "trim": trim}
        return cls(name=name, function=_never_called, parameters=BaseModel, is_async=True, **fields)

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        raise LogError(
            f"the log holds no result of a call of {self.name}", hint="the log was changed"
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
