"""The digest: the results of a run as text for a prompt, each call with its references resolved.

A small model that reads ``calc("$1.population / $1.area_km2") = 338.5`` has to guess whose density
that is, and often guesses wrongly. So the digest writes a field under the name of its owner
(``Japan.population``), a plain result as its value, and a list as the call that made it. A small
model compares numbers badly, so the digest can put numbers of similar calls side by side. It also
gets lost among many numbers, so of a result that later calls used, the digest shows only the fields
that the question or these calls mention.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from llmcompiler.plan.expressions import (
    STAR,
    CodeExpr,
    DictExpr,
    Expr,
    Input,
    ListExpr,
    Literal,
    Path,
    Reference,
    Template,
    path_text,
)
from llmcompiler.plan.model import Task
from llmcompiler.prompting.formatting import format_value, trim_text
from llmcompiler.prompting.size import shorten_message
from llmcompiler.runtime.results import Observation
from llmcompiler.tools.base import TRIM, Tool

_MAX_LABEL = 32
"""Most characters of a string argument that can be the name of the record it looked up."""

_MAX_NESTED_CALL = 160
"""Most characters of a call inside another one; a longer call goes by its number."""

_MAX_USED_LIST = 120
"""Most characters of a list that a later call used; of a longer list only the length is shown."""


class Digest:
    """The results of a run's plans as text.

    Args:
        observations: the results of all plans so far, by task id.
        tools: the run's tools, whose rules trim long results.
        question: with it, results that later calls used are cut to the fields that the question or
            these calls mention.
    """

    def __init__(
        self,
        observations: Mapping[int, Observation],
        tools: Mapping[str, Tool],
        question: str | None = None,
    ) -> None:
        self._observations = observations
        self._tools = tools
        self._question = question
        self._used_words: dict[int, set[str]] = {}
        for observation in observations.values():
            if observation.status == "done":
                self._note_use(observation.task)
        self._combined_fields: dict[int, set[str]] = {}
        for observation in observations.values():
            self._note_combined(observation.task)
        self._labels: dict[int, str] = {}
        self._record_ids: set[int] = set()
        self._numbered_ids: set[int] = set()
        self._name_records()

    def lines(self, ids: Iterable[int]) -> list[str]:
        """One line per task: the call, and its result or failure.

        A line starts with a number if other calls refer to its call by that number.
        """
        texts = {task_id: self._line(task_id) for task_id in ids}
        return [
            f"${task_id}: {text}" if task_id in self._numbered_ids else text
            for task_id, text in texts.items()
        ]

    def numbered(self) -> list[str]:
        """One line per task, under the number by which a later plan can refer to it."""
        return [f"${task_id}: {self._line(task_id)}" for task_id in self._observations]

    def side_by_side(self, ids: Sequence[int]) -> list[str]:
        """Like ``lines``, with the numbers of similar calls side by side in further lines.

        A call has no line of its own if all its numbers stand in a comparison. A field that some
        call combined with another field of its record is not compared: once the densities of two
        countries are computed, their populations say nothing.
        """
        comparisons = _compare(
            number for task_id in ids for number in self._comparable_numbers(task_id)
        )
        compared_ids = {task_id for task_id in ids if self._is_compared(task_id, comparisons)}
        lines = self.lines(task_id for task_id in ids if task_id not in compared_ids)
        return [*lines, *(comparison.text for comparison in comparisons)]

    def _is_compared(self, task_id: int, comparisons: Sequence[_Comparison]) -> bool:
        value = self._observations[task_id].value
        names = {comparison.name for comparison in comparisons if task_id in comparison.tasks}
        if not isinstance(value, dict):
            return bool(names)
        return names >= self._mentioned_fields(value, self._used_words.get(task_id)).keys()

    def _comparable_numbers(self, task_id: int) -> Iterator[_ResultNumber]:
        observation = self._observations[task_id]
        if observation.status != "done":
            return
        form = _call_form(observation)
        if _is_number(observation.value):
            owner = self._sole_owner(observation.task)
            if owner is not None:
                formula = self._formula(observation.task).replace(f"{self._labels[owner]}.", "")
                yield _ResultNumber(
                    form, formula, self._full_name(owner), observation.value, task_id
                )
        elif isinstance(observation.value, dict) and task_id in self._labels:
            combined = self._combined_fields.get(task_id, set())
            record = self._mentioned_fields(observation.value, self._used_words.get(task_id))
            numbers = {key: item for key, item in record.items() if _is_number(item)}
            if task_id in self._used_words:
                numbers = {k: item for k, item in numbers.items() if k in self._used_words[task_id]}
            else:
                words = _stems(self._question or "")
                numbers = {k: item for k, item in numbers.items() if _stems(k) & words} or numbers
            for field, value in numbers.items():
                if field not in combined:
                    yield _ResultNumber(form, field, self._full_name(task_id), value, task_id)

    def _sole_owner(self, task: Task) -> int | None:
        """The record that a call took all its numbers from; ``None`` if there are several."""
        owners = {ref.task for ref in task.references() if isinstance(ref, Reference)}
        is_starred = any(STAR in ref.path for ref in task.references())
        owner = owners.pop() if len(owners) == 1 and not is_starred else None
        return owner if owner in self._labels and owner in self._record_ids else None

    def _formula(self, task: Task) -> str:
        """The call; for a pure tool that takes one text, such as a calculator, only the text."""
        tool = self._tools.get(task.tool)
        match [*task.expressions()]:
            case [Template() as template] if tool is not None and tool.pure:
                return self._argument_text(template)[1:-1]
        return self.call(task.id)

    def _line(self, task_id: int) -> str:
        observation = self._observations[task_id]
        call = self.call(task_id)
        if observation.status == "done":
            chosen_ids = (
                self._chosen_task(observation.value, expr)
                for expr in observation.task.expressions()
            )
            names = [
                f"{self._full_name(task_id)}: " for task_id in chosen_ids if task_id is not None
            ]
            return f"{call} = {''.join(names[:1])}{self._result(observation)}"
        reason = shorten_message(observation.failure.message) if observation.failure else ""
        if observation.failure and observation.failure.hint:
            reason += f" ({observation.failure.hint})"
        status = {"failed": "failed", "skipped": "was not called"}.get(
            observation.status, observation.status
        )
        partial = (
            f"; the rest = {self._result(observation)}" if observation.value is not None else ""
        )
        return f"{call} {status}: {reason}{partial}" if reason else f"{call} {status}{partial}"

    def _result(self, observation: Observation) -> str:
        value, used_words = observation.value, self._used_words.get(observation.task.id)
        tool = self._tools.get(observation.task.tool)
        if isinstance(value, dict):
            value = self._mentioned_fields(value, used_words)
        text = format_value(value)
        if used_words is not None and isinstance(value, list) and len(text) > _MAX_USED_LIST:
            return f"{len(value)} items"
        if tool is None or (callable(tool.trim) and used_words is not None):
            return trim_text(value, text, TRIM)
        return (
            tool.observe(observation.value)
            if callable(tool.trim)
            else trim_text(value, text, tool.trim)
        )

    def _note_use(self, task: Task) -> None:
        """Note for each result the words in the calls that use it."""
        text = " ".join(_literal_texts(task.expressions()))
        for ref in task.references():
            if isinstance(ref, Reference):
                words = _stems(text) | {segment for segment in ref.path if isinstance(segment, str)}
                self._used_words.setdefault(ref.task, set()).update(words)

    def _note_combined(self, task: Task) -> None:
        """Note the fields that a call used together with other fields of the same record."""
        fields: dict[int, set[str]] = {}
        for ref in task.references():
            if isinstance(ref, Reference) and ref.path and isinstance(ref.path[0], str):
                fields.setdefault(ref.task, set()).add(ref.path[0])
        for task_id, names in fields.items():
            if len(names) > 1:
                self._combined_fields.setdefault(task_id, set()).update(names)

    def _mentioned_fields(
        self, record: dict[str, Any], used_words: set[str] | None
    ) -> dict[str, Any]:
        """The record, or, if calls used it, its fields that they or the question mention."""
        if used_words is None or self._question is None:
            return record
        words = used_words | _stems(self._question)
        mentioned = {
            key: item for key, item in record.items() if key in used_words or _stems(key) & words
        }
        return mentioned or record

    def call(self, task_id: int) -> str:
        """The call of a task, its references resolved."""
        observation = self._observations[task_id]
        task = observation.task

        def argument(expr: Expr) -> str:
            # If the call chose one of several records, the others are not named: a small model
            # would ascribe the result's numbers to them.
            if (
                isinstance(expr, ListExpr)
                and self._chosen_task(observation.value, expr) is not None
            ):
                return f"{len(expr.items)} records"
            return self._argument_text(expr)

        arguments = [argument(expr) for expr in task.args]
        arguments += [f"{key}={argument(expr)}" for key, expr in task.kwargs.items()]
        return f"{task.tool}({', '.join(arguments)})"

    def _chosen_task(self, value: Any, among: Expr) -> int | None:
        """The task of the record in ``among`` that the call returned; ``None`` if there is none."""
        if not isinstance(among, ListExpr) or len(among.items) < 2:
            return None
        task_ids = [
            item.task
            for item in among.items
            if isinstance(item, Reference) and not item.path and item.task in self._record_ids
        ]
        if len(task_ids) < len(among.items):
            return None
        return next((id_ for id_ in task_ids if self._observations[id_].value == value), None)

    def _argument_text(self, expr: Expr) -> str:
        match expr:
            case Literal():
                return json.dumps(expr.value, ensure_ascii=False)
            case Reference():
                return self._reference_text(expr, quote=True)
            case CodeExpr():
                return expr.source
            case Input():
                return str(expr)
            case Template():
                inside = "".join(
                    part
                    if isinstance(part, str)
                    else self._reference_text(part, quote=False)
                    if isinstance(part, Reference)
                    else str(part)
                    for part in expr.parts
                )
                return f'"{inside}"'
            case ListExpr():
                return f"[{', '.join(map(self._argument_text, expr.items))}]"
            case DictExpr():
                inner = ", ".join(
                    f"{key}: {self._argument_text(item)}" for key, item in expr.entries
                )
                return f"{{{inner}}}"

    def _reference_text(self, ref: Reference, *, quote: bool) -> str:
        if STAR in ref.path:
            star = ref.path.index(STAR)
            suffix = path_text(ref.path[star + 1 :])
            return f"each of {self._owner_text(ref.task)}{path_text(ref.path[:star])}{suffix}"
        observation = self._observations.get(ref.task)
        exists, value = (
            _resolve_path(observation.value, ref.path) if observation is not None else (False, None)
        )
        if exists and isinstance(value, str) and len(value) <= _MAX_LABEL:
            return json.dumps(value, ensure_ascii=False) if quote else value
        if exists and not ref.path and isinstance(value, bool | int | float):
            return format_value(value)
        if not ref.path and ref.task in self._record_ids:
            return self._full_name(ref.task)
        return f"{self._owner_text(ref.task)}{path_text(ref.path)}"

    def _owner_text(self, task_id: int) -> str:
        """The name of a task's result in calls that use it."""
        if task_id in self._labels:
            return self._labels[task_id]
        if task_id not in self._observations:
            return f"${task_id}"
        # The label is stored, so that a deep plan is not written out again at each level.
        call = self.call(task_id)
        if len(call) > _MAX_NESTED_CALL:
            self._numbered_ids.add(task_id)
            call = f"${task_id}"
        self._labels[task_id] = call
        return call

    def _name_records(self) -> None:
        """Name each record by the short string that looked it up, unless two look-ups share it."""
        names: dict[int, str] = {}
        for task_id, observation in self._observations.items():
            if not isinstance(observation.value, dict):
                continue
            strings = [
                name for name in self._lookup_strings(observation) if len(name) <= _MAX_LABEL
            ]
            if len(strings) == 1 and len(list(observation.task.expressions())) == 1:
                names[task_id] = strings[0]
        all_names = list(names.values())
        for task_id, name in names.items():
            if all_names.count(name) == 1:
                self._labels[task_id] = name
                self._record_ids.add(task_id)

    def _full_name(self, task_id: int) -> str:
        """A record's name, with the field that it came from if any: Oslo (Norway.capital)."""
        name = self._labels[task_id]
        (expr,) = self._observations[task_id].task.expressions()
        if isinstance(expr, Reference) and expr.task in self._record_ids:
            return f"{name} ({self._labels[expr.task]}{path_text(expr.path)})"
        return name

    def _lookup_strings(self, observation: Observation) -> Iterator[str]:
        for expr in observation.task.expressions():
            if isinstance(expr, Literal) and isinstance(expr.value, str):
                yield expr.value
            elif isinstance(expr, Reference) and STAR not in expr.path:
                source = self._observations.get(expr.task)
                exists, value = _resolve_path(source.value, expr.path) if source else (False, None)
                if exists and isinstance(value, str):
                    yield value


def _call_form(observation: Observation) -> tuple[str, ...]:
    """The form that similar calls share: tool and arguments, without the names of records."""

    def form(expr: Expr) -> str:
        match expr:
            case Reference():
                return f"${path_text(expr.path)}"
            case Template():
                return "".join(part if isinstance(part, str) else form(part) for part in expr.parts)
            case ListExpr():
                return f"[{','.join(map(form, expr.items))}]"
            case Literal(value=str()):
                return "text"
        return str(expr)

    keywords = (f"{name}={form(expr)}" for name, expr in observation.task.kwargs.items())
    return (observation.task.tool, *map(form, observation.task.args), *keywords)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _literal_texts(expressions: Iterable[Expr]) -> Iterator[str]:
    """The texts in arguments, without their references."""
    for expr in expressions:
        match expr:
            case Literal(value=str(text)):
                yield text
            case Template():
                yield from (part for part in expr.parts if isinstance(part, str))


_STEM = 6
"""Number of letters by which words are compared: "neighbouring" mentions "neighbours"."""


def _stems(text: str) -> set[str]:
    return {word[:_STEM].rstrip("s") for word in re.findall(r"[^\W_]+", text.casefold())}


def _resolve_path(value: Any, path: Path) -> tuple[bool, Any]:
    for segment in path:
        try:
            value = value[segment]
        except (LookupError, TypeError):
            return False, None
    return True, value


# Comparisons. A small model that reads the densities of two countries in two lines, and the
# populations beside them, often names the wrong country as the denser one. It does not confuse
# densities that stand in one line, by owner and in order.


class _ResultNumber(NamedTuple):
    """A number in a result that can be compared with others.

    Attributes:
        form: the form of its call: tool and arguments, without the names of records.
        name: the name of the quantity: a field, or a formula without its owner.
        owner: the record that the number belongs to.
        value: the number.
        task: id of the task that returned it.
    """

    form: tuple[str, ...]
    name: str
    owner: str
    value: int | float
    task: int


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Numbers of the same quantity, of two owners or more, in one line.

    Attributes:
        text: the line.
        tasks: ids of the tasks whose numbers it holds.
        name: the name of the quantity.
    """

    text: str
    tasks: frozenset[int]
    name: str


def _compare(quantities: Iterable[_ResultNumber]) -> list[_Comparison]:
    """Group numbers by quantity, leaving out groups of one and groups that repeat an owner."""
    groups: dict[tuple[tuple[str, ...], str], dict[str, _ResultNumber]] = {}
    ambiguous = set()
    for number in quantities:
        key = (number.form, number.name)
        if number.owner in groups.setdefault(key, {}):
            ambiguous.add(key)
        groups[key][number.owner] = number
    return [
        _Comparison(
            _comparison_line(key[1], group),
            frozenset(number.task for number in group.values()),
            key[1],
        )
        for key, group in groups.items()
        if len(group) > 1 and key not in ambiguous
    ]


def _comparison_line(name: str, group: Mapping[str, _ResultNumber]) -> str:
    ranked = sorted(group.values(), key=lambda number: -number.value)
    most, least = ranked[0].value, ranked[-1].value

    def mark(value: Any) -> str:
        if most == least:
            return ""
        return " (highest)" if value == most else " (lowest)" if value == least else ""

    entries = "; ".join(
        f"{number.owner} = {format_value(number.value)}{mark(number.value)}" for number in ranked
    )
    return f"{name}: {entries}"
