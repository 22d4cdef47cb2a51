"""Replay: a finished run happens again from its log, and every decision is compared.

Nothing is called: no model, no tool, no network. The recorded text of the planner is parsed and
checked again, arguments are bound again from the recorded results, fan-outs opened and closed,
failures spread, the joiner's text read again. What comes out must be what is in the log, value by
value; the first thing that is not is named. Only results of tools and texts of models, which come
from outside, are taken from the log as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import BaseModel

from llmcompiler.calls import request_to_json
from llmcompiler.errors import LogError
from llmcompiler.events import (
    Event,
    Index,
    Joined,
    LimitHit,
    MapOpened,
    ModelFailed,
    ModelFinished,
    ModelStarted,
    ModelText,
    PlanDiagnosed,
    PlanFinished,
    RunFinished,
    RunStarted,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskPlanned,
    TaskSkipped,
    TaskStarted,
)
from llmcompiler.executors.base import ToolCall
from llmcompiler.failures import RecordedError
from llmcompiler.joiner import Decision, JoinContext, ModelJoiner
from llmcompiler.journal import Journal
from llmcompiler.limits import Limits
from llmcompiler.llm.base import ChatModel, Completion, Request, Usage
from llmcompiler.log import RunStore
from llmcompiler.plan import Plan
from llmcompiler.planners.base import Planner
from llmcompiler.planners.text import TextPlanner
from llmcompiler.prompts import Prompts
from llmcompiler.run import Parts, Run
from llmcompiler.tools.base import TRIM, Tool

Place: TypeAlias = tuple[int, Index]


class DivergenceError(LogError):
    """A replay came to something else than the log holds.

    Attributes:
        where: the task, plan, join or run at fault.
        field: what of it differs.
    """

    def __init__(self, where: str, field: str, recorded: Any, derived: Any) -> None:
        super().__init__(
            f"{where}: {field} is {derived!r}, but the log holds {recorded!r}",
            hint="the log was changed, or this release reads plans differently from the one that "
            "made it",
        )
        self.where = where
        self.field = field


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


class _RecordedTool(Tool):
    """A tool as the log knows it: it validates nothing and calls nothing."""

    @classmethod
    def of(cls, name: str, said: Mapping[str, Any]) -> _RecordedTool:
        """The tool that said this of itself (``Tool.describe``)."""
        trim = TRIM if said["trim"] == "custom" else said["trim"]
        fields = {**said, "trim": trim}
        return cls(
            name=name, function=_never_called, parameters=BaseModel, is_async=True, **fields
        )

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return dict(zip(self.parameters_schema["properties"], args, strict=False)) | dict(kwargs)

    def encode(self, value: Any) -> Any:
        return value


def _never_called() -> None:
    raise AssertionError("a replay calls no tool")


class _RecordedModel:
    """Stands where a model stood; answers come from the log before it is asked."""

    def __init__(self, name: str) -> None:
        self.name = name

    def stream(self, request: Request) -> AsyncIterator[str | Completion]:
        raise AssertionError("a replay asks no model")

    async def aclose(self) -> None:
        pass


class _RecordedExecutor:
    """Hands out recorded results and failures."""

    def __init__(self, outcomes: Mapping[Place, TaskFinished | TaskFailed]) -> None:
        self._outcomes = outcomes

    def submit(self, call: ToolCall) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        place = call.context.task, call.context.index
        match self._outcomes.get(place):
            case TaskFinished() as finished:
                future.set_result(finished.value)
            case TaskFailed() as failed:
                future.set_exception(RecordedError(failed.failure))
            case None:
                future.set_exception(
                    DivergenceError(_task(*place), "state", "no call", "a call with no result")
                )
        return future

    async def aclose(self) -> None:
        pass


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


class _Recording:
    """A run's log, by what was decided where."""

    def __init__(self, run: str, events: Sequence[Event]) -> None:
        started, finished = None, None
        self.outcomes: dict[Place, TaskFinished | TaskFailed] = {}
        self.joins: dict[int, Joined] = {}
        self._answers: dict[str, list[Event]] = {}
        stopped = ""
        for event in events:
            match event:
                case RunStarted():
                    started = event
                case RunFinished():
                    finished = event
                case TaskFinished() | TaskFailed():
                    self.outcomes[event.task, event.index] = event
                case ModelStarted() | ModelText() | ModelFinished() | ModelFailed():
                    self._answers.setdefault(event.call, []).append(event)
                case Joined():
                    self.joins[event.plan] = event
                case LimitHit():
                    stopped = f"was stopped: {event.message}"
                case TaskCancelled():
                    stopped = stopped or f"was stopped: {event.reason}"
        if started is None or finished is None:
            stopped = "did not finish"
        if stopped:
            # What was cancelled depended on the clock, which a replay does not have.
            raise LogError(
                f"run {run} {stopped}", hint="only a run that came to its end can be replayed"
            )
        assert started is not None and finished is not None
        self.started, self.finished = started, finished
        # A tool whose rule for shortening was a function cannot show its results as it did then.
        self._compare_requests = all(
            said["trim"] != "custom" for said in started.catalogue.values()
        )

    @property
    def asked_joiner(self) -> bool:
        """Whether the joiner was the one of this package, which asks a model."""
        return any(call.startswith("join/") for call in self._answers)

    @property
    def model_calls(self) -> int:
        return len(self._answers)

    async def answer(self, call: str, request: Request) -> AsyncIterator[str | Completion]:
        """The recorded answer to a model call; see ``calls.Source``."""
        pieces: list[str] = []
        for event in self._answers.get(call, ()):
            match event:
                case ModelStarted():
                    derived = request_to_json(request)
                    if self._compare_requests and derived != event.request:
                        raise DivergenceError(f"call {call}", "request", event.request, derived)
                case ModelText():
                    pieces.append(event.text)
                    yield event.text
                case ModelFailed():
                    raise RecordedError(event.failure)
                case ModelFinished():
                    usage = Usage(
                        event.prompt_tokens, event.cached_tokens, event.completion_tokens, 1
                    )
                    yield Completion("".join(pieces), event.finish, usage, "")
                    return
        raise DivergenceError(f"call {call}", "answer", "none", "a call")


Fact: TypeAlias = tuple[str, str]


def _facts(events: Sequence[Event]) -> dict[Fact, Any]:
    """What was decided, by place and field; times and attempts are no decisions."""
    return {(where, field): value for event in events for where, field, value in _decided(event)}


def _decided(event: Event) -> Iterator[tuple[str, str, Any]]:
    match event:
        case TaskPlanned():
            yield f"task {event.id}", "call", event.task
            yield f"task {event.id}", "plan", event.plan
        case MapOpened():
            yield f"task {event.task}", "extent", event.extent
        case TaskStarted():
            yield _task(event.task, event.index), "arguments", event.arguments
        case TaskFinished():
            yield _task(event.task, event.index), "value", event.value
        case TaskFailed():
            yield _task(event.task, event.index), "failure", event.failure
        case TaskSkipped():
            yield _task(event.task, event.index), "skipped because of task", event.because
        case PlanDiagnosed():
            yield f"plan {event.plan}", f"diagnostic {event.code}", event.rendered
        case PlanFinished():
            yield f"plan {event.plan}", "number of tasks", event.tasks
            yield f"plan {event.plan}", "join", event.join
        case Joined():
            yield f"join {event.plan}", "decision", event.decision
            yield f"join {event.plan}", "text", event.text
        case RunFinished():
            yield "run", "status", event.status
            yield "run", "answer", event.answer
            yield "run", "value", event.value
            yield "run", "failure", event.failure


def _task(task: int, index: Index) -> str:
    return f"task {task}" + "".join(f"[{number}]" for number in index)


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
    events = list(store.events(run))
    recording = _Recording(run, events)
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
    recorded_facts, derived_facts = _facts(events), _facts(derived)
    # A call whose arguments the tool itself refused never started; the replay has no tool to ask.
    for place, outcome in recording.outcomes.items():
        key = (_task(*place), "arguments")
        if isinstance(outcome, TaskFailed) and key not in recorded_facts:
            derived_facts.pop(key, None)
    for where, field in recorded_facts | derived_facts:
        was, came = recorded_facts.get((where, field)), derived_facts.get((where, field))
        if was != came:
            raise DivergenceError(where, field, was, came)
    return ReplayReport(
        run,
        sum(isinstance(event, TaskPlanned) for event in derived),
        recording.model_calls,
        recording.finished.status,
        recording.finished.answer,
        journal.now(),
    )


def _parts(recording: _Recording) -> Parts:
    started = recording.started
    prompts = Prompts.model_validate(started.prompts)
    models: dict[str, ChatModel] = {
        role: _RecordedModel(name) for role, name in started.models.items()
    }
    return Parts(
        tools={name: _RecordedTool.of(name, said) for name, said in started.catalogue.items()},
        executor=_RecordedExecutor(recording.outcomes),
        planner=_planner(started.planner, prompts),
        joiner=ModelJoiner(prompts) if recording.asked_joiner else _RecordedJoiner(recording.joins),
        model=lambda role: models[role],
        limits=Limits.model_validate({**started.limits, "deadline": None}),
        prompts=prompts,
        recorded=recording.answer,
    )


def _planner(name: str | None, prompts: Prompts) -> Planner:
    if name not in (None, TextPlanner.name):
        raise LogError(
            f'the run\'s planner "{name}" is not one of this package', hint="it cannot be replayed"
        )
    return TextPlanner(prompts)
