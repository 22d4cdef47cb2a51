"""Diff: what two runs have in common and where they part: plans, values, answers, time, money.

Tasks of the two runs are matched before anything is compared, so that a task which only got another
number is no difference.
"""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from llmcompiler.errors import UsageError
from llmcompiler.events import Index, Outcome, TaskFinished
from llmcompiler.history.run_history import RunHistory
from llmcompiler.history.state import TaskState
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

SHOWN_CHARACTERS = 200
"""Characters of a value in a diff."""


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
    """A call that ended differently, or with another value.

    Attributes:
        index: the element of a fan-out; empty for an ordinary task.
        path: where in the value the first difference is; empty for the value as a whole.
        before: the value there in the first run, or how the call ended; shortened.
        after: the same in the second run.
    """

    index: Index
    path: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class TaskDiff:
    """A task of one run, or a task that both runs have.

    Attributes:
        before: its id in the first run; ``None`` if it was added.
        after: its id in the second run; ``None`` if it was removed.
        change: what became of the call.
        tool: the tool that it calls; the second run's if both runs have the task.
        arguments: what differs in the call.
        outcomes: its calls that ended differently.
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
        parent: id of the run that it was forked from; ``None`` if it is no fork.
        question: what was asked.
        inputs: values of the plan's inputs.
        status: how it ended; ``unfinished`` if it did not.
        answer: its answer, or why there is none.
        plans: how many plans it took.
        seconds: how long it took.
        usage: tokens of its model calls.
        cost: US dollars for them; ``None`` if a model's price is not known.
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
        anew: US dollars for the model calls that the second run did not take over from the first;
            ``None`` if a model's price is not known.
        prompts: names of the texts that differ.
    """

    before: Side
    after: Side
    tasks: tuple[TaskDiff, ...]
    anew: float | None
    prompts: tuple[str, ...]

    @property
    def same_plan(self) -> bool:
        """True if both runs made the same calls."""
        return all(task.change == "same" for task in self.tasks)

    @property
    def same_values(self) -> bool:
        """True if the calls of both runs ended alike."""
        return not any(task.outcomes for task in self.tasks)

    @property
    def same_answer(self) -> bool:
        """True if both runs ended alike, with the same answer."""
        return (self.before.status, self.before.answer) == (self.after.status, self.after.answer)

    def to_json(self) -> dict[str, Any]:
        """The diff as JSON-ready data."""
        return {
            "same": {
                "plan": self.same_plan,
                "values": self.same_values,
                "answer": self.same_answer,
            },
            **dataclasses.asdict(self),
        }


def diff_runs(store: RunStore, before: str, after: str, *, prices: Prices | None = None) -> RunDiff:
    """Compare two runs of one store, whether they ended or not.

    Args:
        store: where they are.
        before: the first run: an id, a unique prefix of one, or ``last``.
        after: the second.
        prices: of models, used before those of ``genai-prices``.

    Raises:
        LogError: there is no such run, or its log is damaged.
    """
    return diff_histories(RunHistory.load(store, before), RunHistory.load(store, after), prices)


def diff_histories(before: RunHistory, after: RunHistory, prices: Prices | None = None) -> RunDiff:
    """Compare two runs by their logs, which may lie in two stores."""
    prices = prices or Prices()
    first, second = _ComparedRun(before, prices), _ComparedRun(after, prices)
    partners = _match_tasks(first, second)
    first_ids = {partner: task for task, partner in partners.items()}
    tasks = [
        _compare_tasks(first, second, task, partners.get(task), first_ids)
        for task in first.state.tasks
    ]
    tasks += [
        _compare_tasks(first, second, None, task, first_ids)
        for task in second.state.tasks
        if task not in first_ids
    ]
    calls_anew = [call for call in second.state.calls if not _is_taken_over(call, before, after)]
    texts = before.start.prompts, after.start.prompts
    prompts = tuple(
        name
        for name in dict.fromkeys((*texts[0], *texts[1]))
        if len({json.dumps(side.get(name), sort_keys=True) for side in texts}) > 1
    )
    return RunDiff(first.side(), second.side(), tuple(tasks), second.cost(calls_anew), prompts)


def _is_taken_over(call: str, before: RunHistory, after: RunHistory) -> bool:
    """True if the second run took the model call over from the first, so that it cost nothing."""
    origin = after.start.origin or {}
    return origin.get("run") == before.run and call in origin.get("answers", ())


class _ComparedRun:
    """One of the two runs, with what is compared of it."""

    def __init__(self, history: RunHistory, prices: Prices) -> None:
        self.history = history
        self.state = history.state
        self._prices = prices
        self._parameters = {
            name: tuple(description.get("parameters_schema", {}).get("properties", {}))
            for name, description in history.start.catalogue.items()
        }

    def side(self) -> Side:
        """The run as a whole."""
        state = self.state
        failure = state.failure.message if state.failure is not None else None
        return Side(
            run=state.run,
            parent=(self.history.start.origin or {}).get("run"),
            question=state.question,
            inputs=state.inputs,
            status="unfinished" if state.status == "running" else state.status,
            answer=state.answer if state.answer is not None else failure,
            plans=len(state.plans),
            seconds=state.now,
            usage=state.usage,
            cost=self.cost(state.calls),
            models=state.models,
        )

    def cost(self, calls: Iterable[str]) -> float | None:
        """US dollars for these model calls; ``None`` if a price is not known."""
        total = 0.0
        for name in calls:
            call = self.state.calls[name]
            if call.usage is not None:
                try:
                    total += self._prices.cost(call.model, call.usage)
                except UsageError:
                    return None
        return total

    def seconds(self, task: TaskState | None) -> float | None:
        """How long the task took; ``None`` if it never started, or the run does not have it."""
        return task.seconds(self.state.now) if task is not None else None

    def arguments(self, task: Task, numbers: Mapping[int, int] | None = None) -> dict[str, str]:
        """A task's arguments by name, as text.

        Args:
            task: of this run.
            numbers: ids to show in place of the tasks that it refers to; ``None`` for their own.
        """
        names = self._parameters.get(task.tool, ())
        texts: dict[str, str] = {}
        for position, expr in enumerate(task.args):
            name = names[position] if position < len(names) else f"[{position}]"
            texts[name] = _expression_text(expr, numbers)
        return texts | {name: _expression_text(expr, numbers) for name, expr in task.kwargs.items()}

    def call_text(self, task: Task, numbers: Mapping[int, int] | None) -> str:
        """Tool and arguments as text, equal for equal calls."""
        return json.dumps([task.tool, self.arguments(task, numbers)], sort_keys=True)


def _expression_text(expr: Expr, numbers: Mapping[int, int] | None) -> str:
    if numbers is not None:

        def renumber(ref: Reference | Input) -> Reference | Input:
            if isinstance(ref, Input):
                return ref
            # A negative number marks a task that the first run does not have.
            return dataclasses.replace(ref, task=numbers.get(ref.task, -ref.task))

        expr = map_references(expr, renumber)
    return json.dumps(expr_to_json(expr), ensure_ascii=False)


def _match_tasks(first: _ComparedRun, second: _ComparedRun) -> dict[int, int]:
    """Match tasks by equal calls, then by number.

    Calls are equal if their references lead to matched tasks. So tasks are visited in the order
    planned, producers first. They are visited twice, because a task may equal one that depends on a
    task which was matched by its number alone.

    Returns:
        Ids of the first run's tasks to ids of the second run's.
    """
    partners: dict[int, int] = {}
    second_calls: dict[str, list[int]] = defaultdict(list)
    for number, state in second.state.tasks.items():
        second_calls[second.call_text(state.task, None)].append(number)
    used_partners: set[int] = set()
    for by_number in (False, True):
        for number, state in first.state.tasks.items():
            if number in partners:
                continue
            call = first.call_text(state.task, partners)
            equal = [
                candidate for candidate in second_calls[call] if candidate not in used_partners
            ]
            if number in equal:
                partner = number
            elif equal:
                partner = equal[0]
            elif by_number and number in second.state.tasks and number not in used_partners:
                partner = number
            else:
                continue
            partners[number] = partner
            used_partners.add(partner)
    return partners


def _compare_tasks(
    first: _ComparedRun,
    second: _ComparedRun,
    before_id: int | None,
    after_id: int | None,
    first_ids: Mapping[int, int],
) -> TaskDiff:
    """Compare a task of the first run with its partner in the second; either may be missing."""
    before = first.state.tasks[before_id] if before_id is not None else None
    after = second.state.tasks[after_id] if after_id is not None else None
    arguments: tuple[ArgumentDiff, ...] = ()
    outcomes: tuple[OutcomeDiff, ...] = ()
    elements = 0
    change: Change = "removed" if after is None else "added"
    if before is not None and after is not None:
        arguments = tuple(_argument_diffs(first, second, before.task, after.task, first_ids))
        change = "changed" if arguments else "same"
        indexes = _compared_indexes(first, before, second, after)
        elements = len(indexes)
        diffs = (_outcome_diff(first, before, second, after, index) for index in indexes)
        outcomes = tuple(diff for diff in diffs if diff is not None)
    latest = after or before
    assert latest is not None
    return TaskDiff(
        before_id,
        after_id,
        change,
        latest.task.tool,
        arguments,
        outcomes,
        elements,
        (first.seconds(before), second.seconds(after)),
    )


def _argument_diffs(
    first: _ComparedRun,
    second: _ComparedRun,
    before: Task,
    after: Task,
    first_ids: Mapping[int, int],
) -> Iterator[ArgumentDiff]:
    if before.tool != after.tool:
        yield ArgumentDiff("tool", before.tool, after.tool)
    before_texts, after_texts = first.arguments(before), second.arguments(after, first_ids)
    for name in dict.fromkeys((*before_texts, *after_texts)):
        if before_texts.get(name) != after_texts.get(name):
            yield ArgumentDiff(name, before_texts.get(name), after_texts.get(name))


def _compared_indexes(
    first: _ComparedRun, before: TaskState, second: _ComparedRun, after: TaskState
) -> list[Index]:
    """The elements that either run called; ``()`` alone for an ordinary task."""
    indexes = {*first.history.outcomes_of(before.id), *second.history.outcomes_of(after.id)}
    elements = sorted(index for index in indexes if index)
    return elements or [()]


def _outcome_diff(
    first: _ComparedRun, before: TaskState, second: _ComparedRun, after: TaskState, index: Index
) -> OutcomeDiff | None:
    before_outcome = first.history.outcomes_of(before.id).get(index)
    after_outcome = second.history.outcomes_of(after.id).get(index)
    if isinstance(before_outcome, TaskFinished) and isinstance(after_outcome, TaskFinished):
        difference = _first_difference(before_outcome.value, after_outcome.value)
        if difference is None:
            return None
        path, before_value, after_value = difference
        return OutcomeDiff(
            index, path_text(path), _value_text(before_value), _value_text(after_value)
        )
    before_text = _outcome_text(before, before_outcome, index)
    after_text = _outcome_text(after, after_outcome, index)
    if before_text == after_text:
        return None
    return OutcomeDiff(index, "", before_text, after_text)


def _outcome_text(task: TaskState, outcome: Outcome | None, index: Index) -> str:
    if isinstance(outcome, TaskFinished):
        return _value_text(outcome.value)
    if outcome is not None:
        return _shorten(f"failed: {outcome.failure.message}")
    if index:
        return "no such element" if task.status == "done" else "not called"
    return task.status if task.status in ("skipped", "cancelled", "done") else "not ended"


_MISSING = object()
"""Sentinel: a value that one of the runs does not have."""


def _first_difference(before: Any, after: Any, path: Path = ()) -> tuple[Path, Any, Any] | None:
    """Where two JSON values first differ, and both values there; ``None`` if they are equal."""
    if type(before) is not type(after):
        return path, before, after
    pairs: Iterator[tuple[str | int, Any, Any]]
    if isinstance(before, dict):
        names = dict.fromkeys((*before, *after))
        pairs = ((n, before.get(n, _MISSING), after.get(n, _MISSING)) for n in names)
    elif isinstance(before, list):
        if len(before) != len(after):
            return path, before, after
        pairs = ((n, *items) for n, items in enumerate(zip(before, after, strict=True)))
    else:
        return None if before == after else (path, before, after)
    for segment, before_item, after_item in pairs:
        difference = _first_difference(before_item, after_item, (*path, segment))
        if difference is not None:
            return difference
    return None


def _value_text(value: Any) -> str:
    return "nothing" if value is _MISSING else _shorten(json.dumps(value, ensure_ascii=False))


def _shorten(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
