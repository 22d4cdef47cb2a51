"""Everything that can happen in a run, as frozen types.

One schema is the durable log, the live view, the API's stream and the traces. Whoever wants to
know the state of a run folds over its events; nothing about a run is kept anywhere else. A field
that holds a value of the run (a result, a prompt) is named in the type's ``VALUES``: the log stores
those by content, once.

Times (``at``) are seconds since the run began, on the event loop's clock. The module must not know
who emits an event or where it goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from llmcompiler.errors import Failure
from llmcompiler.speed import use_slot_constructor

Index: TypeAlias = tuple[int, ...]
"""Position of an instance of a fan-out: one number a dimension; empty for an ordinary task."""

CallId: TypeAlias = tuple[int, Index]
"""Names a call of a run: the task's id, and the index of the element in a fan-out."""

Status: TypeAlias = Literal["answered", "failed", "interrupted"]


@dataclass(frozen=True, slots=True)
class Event:
    """What all events share.

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
        wall: seconds since the epoch, for people; nothing is computed from it.
        question: what is asked; ``None`` for a saved plan without a question.
        inputs: the values given for the plan's inputs.
        plan: the saved plan's JSON, where there is one.
        planner: the planner's name; ``None`` for a saved plan.
        models: role -> model name.
        tools: names of the tools at hand.
        catalogue: what each tool said of itself, so that a replay needs none of them.
        limits: the run's limits, those that are set.
        prompts: the texts that planner and joiner put their questions in.
        origin: of a fork: its parent's id under ``run``, where it ``start``s and the ``tasks`` that
            it changes, the ``values`` and ``calls`` that it puts in, also those of its parent, and
            the ``answers`` of models that it takes over; ``None`` for a run of its own.
        join_reducer: how drafts of the joiner become one, as ``vote:3``; ``None`` if it makes one.
        release: the version of this package that ran it; empty in logs from before it was noted.
    """

    VALUES: ClassVar[tuple[str, ...]] = ("inputs", "plan", "catalogue", "prompts", "origin")

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


@dataclass(frozen=True, slots=True)
class RunResumed(Event):
    """A run that a crash, a limit or a user stopped goes on. What was cancelled then runs now.

    Attributes:
        holder: the process that holds the run, as ``host:pid``.
        limits: the limits from here on, those that are set.
        asked_again: failed model calls that are made again under their next name.
    """

    holder: str
    limits: dict[str, Any]
    asked_again: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelStarted(Event):
    """A model was asked.

    Attributes:
        call: the call's id in the run: ``plan/1``, ``join/1``, or ``4/0`` for a branch of task 4.
        role: ``planner``, ``joiner`` or ``branch``.
        model: the model's name.
        request: the whole request, as JSON.
        label: what a branch's strategy calls it.
    """

    VALUES: ClassVar[tuple[str, ...]] = ("request",)

    call: str
    role: str
    model: str
    request: dict[str, Any]
    label: str = ""


@dataclass(frozen=True, slots=True)
class ModelText(Event):
    """A model wrote a piece of text; the pieces of a call add up to its answer."""

    call: str
    text: str


@dataclass(frozen=True, slots=True)
class ModelFinished(Event):
    """A model call ended well.

    Attributes:
        finish: ``stop``, ``length``, ``cut`` (we stopped reading), ``interrupted`` (a branch was
            stopped meanwhile, and asks anew if it goes on), or the endpoint's word.
        prompt_tokens: tokens of the prompt, cached ones included.
        cached_tokens: those of them that came from the endpoint's prefix cache.
        completion_tokens: decoded tokens.
        seconds: from the request to the last token.
        calls: the function calls that it asked for, each with ``id``, ``name`` and ``arguments``
            (the text that it wrote); ``None`` where there are none.
        logprobs: of the tokens, where they were asked for: ``chosen``, and ``top`` of each.
        model: the model that says it answered, which need not be the one that was asked.
    """

    VALUES: ClassVar[tuple[str, ...]] = ("calls", "logprobs")

    call: str
    finish: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    seconds: float
    calls: list[dict[str, str]] | None = None
    logprobs: dict[str, Any] | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class ModelFailed(Event):
    """A model call failed; the text that came before stays in the log."""

    call: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class PlanStarted(Event):
    """A planner set out to write the run's plan number ``plan``: 1, then 2 for a replan."""

    plan: int


@dataclass(frozen=True, slots=True)
class TaskPlanned(Event):
    """The front end accepted a task; it may start at once.

    Attributes:
        plan: the number of the plan that it belongs to.
        task: its JSON form.
        dependencies: ids of the tasks whose results it needs.
    """

    plan: int
    id: int
    task: dict[str, Any]
    dependencies: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PlanDiagnosed(Event):
    """The front end has something to say about the plan.

    Attributes:
        code: the diagnostic's code, for example ``E203``.
        severity: ``error`` or ``warning``.
        message: one sentence.
        rendered: the whole of it with place, caret and hint.
        linted: where a tool's own check found it, what a replay, which has none of the tool's
            code, needs to find it again: the tool, the parameter, what was said, and then the
            pieces of text that were judged.
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
        tasks: how many tasks it has.
        join: ids that the joiner is shown; empty means all; ``None`` for a plan with no join.
    """

    plan: int
    tasks: int
    join: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class MapOpened(Event):
    """A fan-out learnt its extent: so many instances will run."""

    task: int
    extent: int


@dataclass(frozen=True, slots=True)
class ApprovalAsked(Event):
    """A call waits for somebody to agree to it.

    Attributes:
        arguments: what the tool would be called with, by parameter name.
    """

    VALUES: ClassVar[tuple[str, ...]] = ("arguments",)

    task: int
    index: Index
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ApprovalGiven(Event):
    """Somebody decided about a call that waited.

    Attributes:
        verdict: ``approved`` or ``denied``.
        arguments: what to call the tool with instead of what was planned; ``None`` for that.
        reason: why it was denied; may be empty.
    """

    VALUES: ClassVar[tuple[str, ...]] = ("arguments",)

    task: int
    index: Index
    verdict: Literal["approved", "denied"]
    arguments: dict[str, Any] | None
    reason: str


@dataclass(frozen=True, slots=True)
class CacheMissed(Event):
    """A tool whose results are kept between runs is called nevertheless.

    Attributes:
        why: no kept result serves, in a sentence.
    """

    task: int
    index: Index
    why: str


@dataclass(frozen=True, slots=True)
class TaskStarted(Event):
    """A call was dispatched; all its inputs are in the log.

    Attributes:
        key: the idempotency key, ``run/task`` or ``run/task/index``, the same at every attempt.
        attempt: 1 for the first.
        arguments: what the tool is called with, by parameter name.
    """

    VALUES: ClassVar[tuple[str, ...]] = ("arguments",)

    task: int
    index: Index
    attempt: int
    key: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TaskProgress(Event):
    """A tool said how far a call has come; of many such words only some are kept.

    Attributes:
        done: how much is done.
        total: how much there is to do, in the same unit; ``None`` where that is not known.
        message: what is being done; may be empty.
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
        strategy: its name.
        spec: what is asked and how: problem, context, options, budget, the texts that are used.
        models: the strategy's names for models -> the models' names.
        capabilities: what the endpoint of each can do.
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
    """A branch reached a bound of its own budget; its result is the best that it had."""

    task: int
    index: Index
    limit: str
    message: str


@dataclass(frozen=True, slots=True)
class BranchFinished(Event):
    """A branch came to an outcome.

    Attributes:
        outcome: ``answer``, ``text``, ``why``, ``notes``, ``stopped``, ``candidates`` (call,
            answer, finish), ``accepted`` (the calls whose tokens are B_seq), ``data``.
    """

    VALUES: ClassVar[tuple[str, ...]] = ("outcome",)

    task: int
    index: Index
    outcome: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TaskFinished(Event):
    """A call returned; for a fan-out as a whole (empty ``index``), the list in order.

    Attributes:
        value: the result, as JSON.
        seconds: how long the call took; for a fan-out, from its opening.
        cached: whether the result is that of a call in an earlier run.
    """

    VALUES: ClassVar[tuple[str, ...]] = ("value",)

    task: int
    index: Index
    value: Any
    seconds: float
    cached: bool = False


@dataclass(frozen=True, slots=True)
class TaskRetried(Event):
    """An attempt failed and the call will be made again after ``delay`` seconds."""

    task: int
    index: Index
    attempt: int
    failure: Failure
    delay: float


@dataclass(frozen=True, slots=True)
class TaskFailed(Event):
    """A call failed for good."""

    task: int
    index: Index
    failure: Failure
    seconds: float


Outcome: TypeAlias = TaskFinished | TaskFailed
"""How a call ended."""


@dataclass(frozen=True, slots=True)
class TaskSkipped(Event):
    """A task can never start, because task ``because`` did not succeed."""

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
        plan: the plan whose results it was shown.
        decision: ``answer`` or ``replan``.
        text: the answer, or the reason for another plan.
        why: how it was come to, where several drafts were made.
    """

    plan: int
    decision: Literal["answer", "replan"]
    text: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class LimitHit(Event):
    """A limit of the run was reached; what is in flight is being stopped."""

    limit: str
    message: str


@dataclass(frozen=True, slots=True)
class RunFinished(Event):
    """The run ended.

    Attributes:
        status: how.
        answer: the answer's text, where there is one.
        value: the answer as data, for a saved plan without a question.
        failure: why there is no answer.
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
