"""Diff: what two runs have in common and where they part: plans, values, answers, time, money.

Tasks of the two runs are matched before anything is compared, so that a task which only got another
number is no difference. The module must not know how a difference is shown.
"""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from llmcompiler.errors import UsageError
from llmcompiler.events import Index, Outcome, RunStarted, TaskFinished
from llmcompiler.history.recording import Recording
from llmcompiler.history.state import RunState, TaskState, fold
from llmcompiler.llm.base import Usage
from llmcompiler.llm.prices import Prices
from llmcompiler.log.store import RunStore
from llmcompiler.plan.expressions import (
    Expr,
    Input,
    Path,
    Reference,
    expr_to_json,
    map_references,
    path_text,
)
from llmcompiler.plan.model import Task

Change: TypeAlias = Literal["same", "changed", "added", "removed"]

SHOWN = 200
"""Characters of a value that a diff keeps."""


@dataclass(frozen=True, slots=True)
class ArgumentDiff:
    """What differs between two calls: an argument by name, or ``tool``.

    Attributes:
        name: the argument's name, or its position where the tool's parameters are not known.
        before: its JSON form in the first run as text; ``None`` where it has none there.
        after: the same in the second run, with the first run's numbers for tasks of both.
    """

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class OutcomeDiff:
    """A call that ended otherwise, or with another value.

    Attributes:
        index: the element of a fan-out; empty for an ordinary task.
        path: where in the value the first difference is; empty for the value as a whole.
        before: the value there in the first run, or what became of the call; shortened.
        after: the same in the second run.
    """

    index: Index
    path: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class TaskDiff:
    """A task of either run, or one of both.

    Attributes:
        before: its id in the first run; ``None`` if it was added.
        after: its id in the second run; ``None`` if it was removed.
        change: what became of the call.
        tool: the tool that it calls, in the second run where both have it.
        arguments: what differs of the call.
        outcomes: calls of it that ended otherwise.
        elements: how many calls were compared.
        seconds: how long it took in the first run and in the second; ``None`` if it never started.
    """

    before: int | None
    after: int | None
    change: Change
    tool: str
    arguments: tuple[ArgumentDiff, ...]
    outcomes: tuple[OutcomeDiff, ...]
    elements: int
    seconds: tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs.

    Attributes:
        run: its id.
        parent: id of the run that it was forked from; ``None`` for a run of its own.
        question: what was asked.
        inputs: values of the plan's inputs.
        status: how it ended; ``unfinished`` if it did not.
        answer: its answer, or why there is none.
        plans: how many plans it took.
        seconds: how long it took.
        usage: tokens of its model calls.
        cost: US dollars for them; ``None`` where a model's price is not known.
        models: role -> model.
    """

    run: str
    parent: str | None
    question: str | None
    inputs: Mapping[str, Any]
    status: str
    answer: str | None
    plans: int
    seconds: float
    usage: Usage
    cost: float | None
    models: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RunDiff:
    """Two runs beside each other.

    Attributes:
        before: the first run.
        after: the second.
        tasks: every task of both, in the order of the first; those added last.
        anew: US dollars for those model calls of the second that it did not take over from the
            first, as a fork does; ``None`` where a model's price is not known.
        prompts: names of the texts that differ.
    """

    before: Side
    after: Side
    tasks: tuple[TaskDiff, ...]
    anew: float | None
    prompts: tuple[str, ...]

    @property
    def same_plan(self) -> bool:
        """Whether both made the same calls."""
        return all(task.change == "same" for task in self.tasks)

    @property
    def same_values(self) -> bool:
        """Whether all that both called ended alike."""
        return not any(task.outcomes for task in self.tasks)

    @property
    def same_answer(self) -> bool:
        """Whether both ended alike, with the same answer."""
        return (self.before.status, self.before.answer) == (self.after.status, self.after.answer)

    def to_json(self) -> dict[str, Any]:
        """The whole of it as JSON-ready data."""
        return {
            "same": {
                "plan": self.same_plan,
                "values": self.same_values,
                "answer": self.same_answer,
            },
            **dataclasses.asdict(self),
        }


def diff_runs(store: RunStore, before: str, after: str, *, prices: Prices | None = None) -> RunDiff:
    """Compare two runs of one store, finished or not.

    Args:
        store: where they are.
        before: the first run: an id, a unique prefix of one, or ``last``.
        after: the second.
        prices: of models, before those of the list.

    Raises:
        LogError: there is no such run, or its log is damaged.
    """
    return diff_recordings(_recording(store, before), _recording(store, after), prices)


def _recording(store: RunStore, text: str) -> Recording:
    run = store.find(text)
    return Recording(run, list(store.events(run)))


def diff_recordings(before: Recording, after: Recording, prices: Prices | None = None) -> RunDiff:
    """Compare two runs by their logs; they may lie in two stores."""
    prices = prices or Prices()
    one, other = _Run(before, prices), _Run(after, prices)
    matched = _match(one, other)
    of_before = {number: matched_to for matched_to, number in matched.items()}
    tasks = [_compare(one, other, task, matched.get(task), of_before) for task in one.state.tasks]
    tasks += [
        _compare(one, other, None, task, of_before)
        for task in other.state.tasks
        if task not in of_before
    ]
    anew = [name for name in other.state.calls if not _is_shared(name, before, after)]
    texts = before.started.prompts, after.started.prompts
    prompts = tuple(
        name
        for name in dict.fromkeys((*texts[0], *texts[1]))
        if len({json.dumps(side.get(name), sort_keys=True) for side in texts}) > 1
    )
    return RunDiff(one.side(), other.side(), tuple(tasks), other.cost(anew), prompts)


def _is_shared(call: str, before: Recording, after: Recording) -> bool:
    """Whether the second run took a model call over from the first: it cost nothing again."""
    origin = after.started.origin or {}
    return origin.get("run") == before.run and call in origin.get("answers", ())


class _Run:
    """What is compared of a run."""

    def __init__(self, recording: Recording, prices: Prices) -> None:
        self.recording = recording
        self._prices = prices
        self.state: RunState = fold(recording.events)
        self._names = _parameters(recording.started)
        self.outcomes: dict[int, dict[Index, Outcome]] = defaultdict(dict)
        for (task, index), outcome in recording.outcomes.items():
            self.outcomes[task][index] = outcome

    def side(self) -> Side:
        state = self.state
        failed = state.failure.message if state.failure is not None else None
        return Side(
            run=state.run,
            parent=(self.recording.started.origin or {}).get("run"),
            question=state.question,
            inputs=state.inputs,
            status="unfinished" if state.status == "running" else state.status,
            answer=state.answer if state.answer is not None else failed,
            plans=len(state.plans),
            seconds=state.now,
            usage=state.usage,
            cost=self.cost(state.calls),
            models=state.models,
        )

    def cost(self, calls: Iterable[str]) -> float | None:
        """US dollars for these of its model calls; ``None`` where a price is not known."""
        total = 0.0
        for name in calls:
            call = self.state.calls[name]
            if call.usage is not None:
                try:
                    total += self._prices.cost(call.model, call.usage)
                except UsageError:
                    return None
        return total

    def arguments(self, task: Task, numbers: Mapping[int, int] | None = None) -> dict[str, str]:
        """Arguments by name, as text; ``numbers`` says how tasks are called that it refers to."""
        names = self._names.get(task.tool, ())
        found: dict[str, str] = {}
        for position, expr in enumerate(task.args):
            name = names[position] if position < len(names) else f"[{position}]"
            found[name] = _text(expr, numbers)
        found |= {name: _text(expr, numbers) for name, expr in task.kwargs.items()}
        return found


def _parameters(started: RunStarted) -> dict[str, tuple[str, ...]]:
    return {
        name: tuple(said.get("parameters_schema", {}).get("properties", {}))
        for name, said in started.catalogue.items()
    }


def _text(expr: Expr, numbers: Mapping[int, int] | None) -> str:
    if numbers is not None:

        def renumber(ref: Reference | Input) -> Reference | Input:
            if isinstance(ref, Input):
                return ref
            # A task that the first run does not have is told apart by its sign.
            return dataclasses.replace(ref, task=numbers.get(ref.task, -ref.task))

        expr = map_references(expr, renumber)
    return json.dumps(expr_to_json(expr), ensure_ascii=False)


def _match(one: _Run, other: _Run) -> dict[int, int]:
    """Ids of the first run to ids of the second: by equal calls, then by number.

    Calls are equal if their references lead to tasks that are matched, so tasks are walked through
    in the order planned, in which producers come first; and twice, because a task may be equal to
    one that was matched by its number alone.
    """
    matched: dict[int, int] = {}
    calls: dict[str, list[int]] = defaultdict(list)
    for number, state in other.state.tasks.items():
        calls[_call(other, state.task, None)].append(number)
    taken: set[int] = set()
    for by_number in (False, True):
        for number, state in one.state.tasks.items():
            if number in matched:
                continue
            equal = [
                found for found in calls[_call(one, state.task, matched)] if found not in taken
            ]
            if number in equal:
                partner = number
            elif equal:
                partner = equal[0]
            elif by_number and number in other.state.tasks and number not in taken:
                partner = number
            else:
                continue
            matched[number] = partner
            taken.add(partner)
    return matched


def _call(run: _Run, task: Task, numbers: Mapping[int, int] | None) -> str:
    return json.dumps([task.tool, run.arguments(task, numbers)], sort_keys=True)


def _compare(
    one: _Run,
    other: _Run,
    before: int | None,
    after: int | None,
    of_before: Mapping[int, int],
) -> TaskDiff:
    was = one.state.tasks[before] if before is not None else None
    came = other.state.tasks[after] if after is not None else None
    arguments: tuple[ArgumentDiff, ...] = ()
    outcomes: tuple[OutcomeDiff, ...] = ()
    elements = 0
    change: Change = "removed" if came is None else "added"
    if was is not None and came is not None:
        arguments = tuple(_argument_diffs(one, other, was.task, came.task, of_before))
        change = "changed" if arguments else "same"
        places = _places(one, was, other, came)
        elements = len(places)
        outcomes = tuple(
            found
            for index in places
            if (found := _outcome_diff(one, was, other, came, index)) is not None
        )
    shown = came or was
    assert shown is not None
    return TaskDiff(
        before,
        after,
        change,
        shown.task.tool,
        arguments,
        outcomes,
        elements,
        (_seconds(one, was), _seconds(other, came)),
    )


def _seconds(run: _Run, task: TaskState | None) -> float | None:
    return task.seconds(run.state.now) if task is not None else None


def _argument_diffs(
    one: _Run, other: _Run, was: Task, came: Task, of_before: Mapping[int, int]
) -> Iterator[ArgumentDiff]:
    if was.tool != came.tool:
        yield ArgumentDiff("tool", was.tool, came.tool)
    before, after = one.arguments(was), other.arguments(came, of_before)
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield ArgumentDiff(name, before.get(name), after.get(name))


def _places(one: _Run, was: TaskState, other: _Run, came: TaskState) -> list[Index]:
    """Where calls of either were made; of a fan-out, its elements."""
    indexes = {*one.outcomes[was.id], *other.outcomes[came.id]}
    elements = sorted(index for index in indexes if index)
    return elements or [()]


def _outcome_diff(
    one: _Run, was: TaskState, other: _Run, came: TaskState, index: Index
) -> OutcomeDiff | None:
    before, after = one.outcomes[was.id].get(index), other.outcomes[came.id].get(index)
    if isinstance(before, TaskFinished) and isinstance(after, TaskFinished):
        found = _first_difference(before.value, after.value)
        if found is None:
            return None
        path, left, right = found
        return OutcomeDiff(index, path_text(path), _shown(left), _shown(right))
    left_text, right_text = _end(was, before, index), _end(came, after, index)
    if left_text == right_text:
        return None
    return OutcomeDiff(index, "", left_text, right_text)


def _end(task: TaskState, outcome: Outcome | None, index: Index) -> str:
    if isinstance(outcome, TaskFinished):
        return _shown(outcome.value)
    if outcome is not None:
        return _cut(f"failed: {outcome.failure.message}")
    if index:
        return "no such element" if task.status == "done" else "not called"
    return {"skipped": "skipped", "cancelled": "cancelled", "done": "done"}.get(
        task.status, "not ended"
    )


_MISSING = object()


def _first_difference(left: Any, right: Any, path: Path = ()) -> tuple[Path, Any, Any] | None:
    """Where two JSON values first differ, and what stands there."""
    if type(left) is type(right):
        pairs: Iterator[tuple[str | int, Any, Any]]
        if isinstance(left, dict):
            names = dict.fromkeys((*left, *right))
            pairs = ((n, left.get(n, _MISSING), right.get(n, _MISSING)) for n in names)
        elif isinstance(left, list):
            if len(left) != len(right):
                return path, left, right
            pairs = ((n, *both) for n, both in enumerate(zip(left, right, strict=True)))
        else:
            return None if left == right else (path, left, right)
        for segment, one, other in pairs:
            if (found := _first_difference(one, other, (*path, segment))) is not None:
                return found
        return None
    return path, left, right


def _shown(value: Any) -> str:
    return "nothing" if value is _MISSING else _cut(json.dumps(value, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
