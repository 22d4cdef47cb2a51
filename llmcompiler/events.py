"""Everything that can happen in a run, as frozen types.

This one schema serves the durable log, the live view, the API's stream and the traces. The state of
a run is a fold over its events, and nothing about a run is stored anywhere else. A type's
``VALUES`` names the fields that hold a value of the run (a result, a prompt); the log stores such
values by content, each once.

Times (``at``) are seconds since the run began, on the event loop's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from llmcompiler.errors import Failure
from llmcompiler.speed import use_slot_constructor

Index: TypeAlias = tuple[int, ...]
"""Position of an element in a fan-out, a number for each dimension; empty for an ordinary task."""

CallId: TypeAlias = tuple[int, Index]
"""Names a call of a run: the task's id, and the index of the element in a fan-out."""

Status: TypeAlias = Literal["answered", "failed", "interrupted"]


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events.

    Attributes:
        at: seconds since the run began.
    """

    VALUES: ClassVar[tuple[str, ...]] = ()

    at: float


@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    """A run began.

    Attributes:
        run: its id.
        wall: when the run began, in seconds since the epoch; only people read it.
        question: the question; ``None`` for a saved plan without one.
        inputs: the values of the plan's inputs.
        plan: the JSON of a saved plan; ``None`` without one.
        planner: the planner's name; ``None`` for a saved plan.
        models: role -> model name.
        tools: names of the available tools.
        catalogue: the description of each tool, from which a replay works without the tools.
        limits: the limits that are set.
        prompts: the texts of the prompts of planner and joiner.
        origin: the origin of a fork: the parent's id (``run``), where the fork ``start``s, the
            ``tasks`` that it changes, the ``values`` and ``calls`` that it puts in, its parent's
            included, and the ``answers`` of models that it takes over. ``None`` for other runs.
        join_reducer: how drafts of the joiner become one, as ``vote:3``; ``None`` if the joiner
            makes one draft.
        release: the version of this package that ran it; empty in logs of early versions.
        profiles: what the models of planner and joiner were shown, by role (``Profiles``); ``None``
            in logs of early versions, which showed all models what small ones are shown.
        today: the day that prompts of strong models name, in ISO 8601; empty in logs of early
            versions.
    """

    VALUES: ClassVar[tuple[str, ...]] = (
        *("inputs", "plan", "catalogue", "prompts", "origin", "profiles"),
    )

    run: str
    wall: float
    question: str | None
    inputs: dict[str, Any]
    plan: dict[str, Any] | None
    planner: str | None
    models: dict[str, str]
    tools: tuple[str, ...]
    catalogue: dict[str, Any]
    limits: dict[str, Any]
    prompts: dict[str, Any]
    origin: dict[str, Any] | None = None
    join_reducer: str | None = None
    release: str = ""
    profiles: dict[str, Any] | None = None
    today: str = ""


@dataclass(frozen=True, slots=True)
class RunResumed(Event):
    """A run that a crash, a limit or a user stopped goes on; its cancelled tasks run now.

    Attributes:
        holder: the process that owns the run, in the log's form of an owner.
        limits: the limits from now on that are set.
        asked_again: failed model calls that are repeated under their next id.
    """

    holder: str
    limits: dict[str, Any]
    asked_again: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelStarted(Event):
    """A model call began.

    Attributes:
        call: the call's id in the run: ``plan/1``, ``join/1``, or ``4/0`` for a branch of task 4.
        role: ``planner``, ``joiner`` or ``branch``.
        model: the model's name.
        request: the complete request, as JSON.
        label: the name that a branch's strategy gives the call.
    """

    VALUES: ClassVar[tuple[str, ...]] = ("request",)

    call: str
    role: str
    model: str
    request: dict[str, Any]
    label: str = ""


@dataclass(frozen=True, slots=True)
class ModelText(Event):
    """A model wrote a piece of text; the pieces of a call, joined, are its answer."""

    call: str
    text: str


@dataclass(frozen=True, slots=True)
class ModelFinished(Event):
    """A model call succeeded.

    Attributes:
        finish: ``stop``, ``length``, ``cut`` (the reader cancelled), ``interrupted`` (the branch
            was stopped meanwhile, and repeats the call if it goes on), or the endpoint's own word.
        prompt_tokens: tokens of the prompt, cached ones included.
        cached_tokens: tokens of the prompt that came from the endpoint's prefix cache.
        completion_tokens: decoded tokens.
        seconds: time from the request to the last token.
        calls: the function calls in the answer, each with ``id``, ``name`` and ``arguments`` (the
            text that the model wrote); ``None`` if there are none.
        logprobs: log-probabilities of the tokens, if they were requested: ``chosen``, and ``top``
            of each.
        model: the model that answered, by the endpoint's word; it may differ from the requested
            one.
        reasoning_tokens: those of the decoded tokens that the model thought with, where known.
        thinking: what the model thought; it is no part of the answer. ``None`` where none is known.
        bound: the most tokens that the answer could have; ``None`` where no bound was set.
    """

    VALUES: ClassVar[tuple[str, ...]] = ("calls", "logprobs", "thinking")

    call: str
    finish: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    seconds: float
    calls: list[dict[str, str]] | None = None
    logprobs: dict[str, Any] | None = None
    model: str = ""
    reasoning_tokens: int = 0
    thinking: str | None = None
    bound: int | None = None


@dataclass(frozen=True, slots=True)
class ModelFailed(Event):
    """A model call failed; the text before the failure stays in the log."""

    call: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class PlanStarted(Event):
    """A planner began to write the run's plan number ``plan``: 1, then 2 for a replan."""

    plan: int


@dataclass(frozen=True, slots=True)
class TaskPlanned(Event):
    """The front end accepted a task; it may start at once.

    Attributes:
        plan: number of the task's plan.
        task: the task's JSON form.
        dependencies: ids of the tasks whose results the task needs.
    """

    plan: int
    id: int
    task: dict[str, Any]
    dependencies: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PlanDiagnosed(Event):
    """The front end found an error or a possible mistake in the plan.

    Attributes:
        code: the diagnostic's code, for example ``E203``.
        severity: ``error`` or ``warning``.
        message: the diagnostic in one sentence.
        rendered: the diagnostic's full text, with place, caret and hint.
        linted: for a diagnostic of a tool's own check, what a replay needs to repeat it without
            the tool's code: the tool, the parameter, the message, and the pieces of text that were
            checked. Empty for other diagnostics.
    """

    plan: int
    code: str
    severity: str
    message: str
    rendered: str
    linted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlanFinished(Event):
    """A plan is complete.

    Attributes:
        tasks: number of its tasks.
        join: ids of the tasks that the joiner reads; empty for all; ``None`` for a plan without a
            join.
        program: the text of a plan that is a program.
    """

    plan: int
    tasks: int
    join: tuple[int, ...] | None
    program: str | None = None


@dataclass(frozen=True, slots=True)
class MapOpened(Event):
    """The number of a fan-out's elements became known."""

    task: int
    extent: int


@dataclass(frozen=True, slots=True)
class BlockChosen(Event):
    """A condition of a program chose its block.

    Attributes:
        plan: the number of the plan.
        number: the condition's number in the program, in the order written.
        index: the iterations that it stands under.
        taken: True for the first block.
        line: the condition's line in the program.
    """

    plan: int
    number: int
    index: Index
    taken: bool
    line: int = 0


@dataclass(frozen=True, slots=True)
class ApprovalAsked(Event):
    """A call waits for approval.

    Attributes:
        arguments: the planned arguments, by parameter name.
    """

    VALUES: ClassVar[tuple[str, ...]] = ("arguments",)

    task: int
    index: Index
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ApprovalGiven(Event):
    """A call that waited for approval got a decision.

    Attributes:
        verdict: ``approved`` or ``denied``.
        arguments: the arguments that replace the planned ones; ``None`` to leave them.
        reason: why the call was denied; may be empty.
    """

    VALUES: ClassVar[tuple[str, ...]] = ("arguments",)

    task: int
    index: Index
    verdict: Literal["approved", "denied"]
    arguments: dict[str, Any] | None
    reason: str


@dataclass(frozen=True, slots=True)
class CacheMissed(Event):
    """A call of a tool with cached results was not served from the cache.

    Attributes:
        why: the reason, in a sentence.
    """

    task: int
    index: Index
    why: str


@dataclass(frozen=True, slots=True)
class TaskStarted(Event):
    """A call was dispatched; all its inputs are in the log.

    Attributes:
        key: the idempotency key, ``run/task`` or ``run/task/index``, the same at every attempt.
        attempt: number of the attempt, from 1.
        arguments: the call's arguments, by parameter name.
    """

    VALUES: ClassVar[tuple[str, ...]] = ("arguments",)

    task: int
    index: Index
    attempt: int
    key: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TaskProgress(Event):
    """A tool reported progress; of many reports only some are logged.

    Attributes:
        done: the amount of work done.
        total: the amount of work in all, in the same unit; ``None`` if it is not known.
        message: the present activity; may be empty.
    """

    task: int
    index: Index
    done: float
    total: float | None
    message: str


@dataclass(frozen=True, slots=True)
class BranchStarted(Event):
    """A reasoning branch began; its model calls are ``TASK/0``, ``TASK/1``, ...

    Attributes:
        strategy: the strategy's name.
        spec: the request: problem, context, options, budget, and the texts of the prompts.
        models: the strategy's name for a model -> the model's name.
        capabilities: the strategy's name for a model -> the capabilities of its endpoint.
    """

    VALUES: ClassVar[tuple[str, ...]] = ("spec",)

    task: int
    index: Index
    strategy: str
    spec: dict[str, Any]
    models: dict[str, str]
    capabilities: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class BranchStopped(Event):
    """A branch reached a limit of its own budget; its result is the best one until then."""

    task: int
    index: Index
    limit: str
    message: str


@dataclass(frozen=True, slots=True)
class BranchFinished(Event):
    """A branch has a result.

    Attributes:
        outcome: the result: ``answer``, ``text``, ``why``, ``notes``, ``stopped``, ``candidates``
            (call, answer, finish), ``accepted`` (the calls whose tokens are B_seq), ``data``.
    """

    VALUES: ClassVar[tuple[str, ...]] = ("outcome",)

    task: int
    index: Index
    outcome: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TaskFinished(Event):
    """A call returned. A fan-out as a whole has an empty ``index`` and the list of its results.

    Attributes:
        value: the result, as JSON.
        seconds: duration of the call; of a fan-out, since it opened.
        cached: True if the result comes from a call in an earlier run.
    """

    VALUES: ClassVar[tuple[str, ...]] = ("value",)

    task: int
    index: Index
    value: Any
    seconds: float
    cached: bool = False


@dataclass(frozen=True, slots=True)
class TaskRetried(Event):
    """An attempt failed, and the call is repeated after ``delay`` seconds."""

    task: int
    index: Index
    attempt: int
    failure: Failure
    delay: float


@dataclass(frozen=True, slots=True)
class TaskFailed(Event):
    """A call failed, and is not repeated."""

    task: int
    index: Index
    failure: Failure
    seconds: float


Outcome: TypeAlias = TaskFinished | TaskFailed
"""How a call ended."""


@dataclass(frozen=True, slots=True)
class TaskSkipped(Event):
    """A task can never start, because task ``because`` did not succeed.

    ``because`` is 0 for a call of a program whose block was not taken.
    """

    task: int
    index: Index
    because: int


@dataclass(frozen=True, slots=True)
class TaskCancelled(Event):
    """A task was stopped before it ended, or will not start."""

    task: int
    index: Index
    reason: str


@dataclass(frozen=True, slots=True)
class Joined(Event):
    """The joiner decided.

    Attributes:
        plan: number of the plan whose results the joiner read.
        decision: ``answer`` or ``replan``.
        text: the answer, or the reason for another plan.
        why: how the decision came from several drafts; empty if there was one.
    """

    plan: int
    decision: Literal["answer", "replan"]
    text: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class LimitHit(Event):
    """A limit of the run was reached; running calls are being stopped."""

    limit: str
    message: str


@dataclass(frozen=True, slots=True)
class RunFinished(Event):
    """The run ended.

    Attributes:
        status: how the run ended.
        answer: the answer's text; ``None`` if there is none.
        value: the answer as data, for a saved plan without a question.
        failure: why there is no answer; ``None`` if there is one.
    """

    VALUES: ClassVar[tuple[str, ...]] = ("value",)

    status: Status
    answer: str | None
    value: Any
    failure: Failure | None


EVENTS: dict[str, type[Event]] = {
    cls.__name__: cls
    for cls in (
        RunStarted,
        RunResumed,
        ModelStarted,
        ModelText,
        ModelFinished,
        ModelFailed,
        PlanStarted,
        TaskPlanned,
        PlanDiagnosed,
        PlanFinished,
        MapOpened,
        BlockChosen,
        ApprovalAsked,
        ApprovalGiven,
        CacheMissed,
        TaskStarted,
        TaskProgress,
        BranchStarted,
        BranchStopped,
        BranchFinished,
        TaskFinished,
        TaskRetried,
        TaskFailed,
        TaskSkipped,
        TaskCancelled,
        Joined,
        LimitHit,
        RunFinished,
    )
}
"""Every concrete event type by name; the name is the ``kind`` that the log stores."""


for _kind in EVENTS.values():
    use_slot_constructor(_kind)


_TUPLES = {"asked_again", "dependencies", "index", "join", "linted", "tools"}


def event_from_json(kind: str, fields: Mapping[str, Any]) -> Event:
    """The event whose fields were read from JSON, where tuples are lists and failures are objects.

    Args:
        kind: the name of the event's type.
        fields: the event's fields; one that is missing has its default.

    Raises:
        KeyError: the kind is not one of ``EVENTS``.
        TypeError: a field is missing that has no default, or there is no such field.
    """
    values = dict(fields)
    for name, value in values.items():
        if name in _TUPLES and isinstance(value, list):
            values[name] = tuple(value)
        elif name == "failure" and isinstance(value, dict):
            values[name] = Failure(**value)
    return EVENTS[kind](**values)
