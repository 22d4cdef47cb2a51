"""Observations as text for a prompt: every call with its references resolved.

Shown ``calc("$1.population / $1.area_km2") = 338.5``, a small model guesses whose density that is,
and often wrongly. So a field is shown under the name of its owner (``Japan.population``), a plain
result by its value, and a list by the call that made it. Nor does such a model compare numbers
well, so those of calls alike can be had side by side; and it loses its way among many, so of a
result that later calls used only what was mentioned is shown. The module must not know who reads
the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from llmcompiler.plan.expressions import (
    STAR,
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
from llmcompiler.prompting.comparison import Comparison, Quantity, compare
from llmcompiler.prompting.formatting import trimmed, value_text
from llmcompiler.runtime.results import Observation
from llmcompiler.tools.base import TRIM, Tool

_LABEL = 32
"""Most characters of a string argument that may stand for the record it looked up."""

_NESTED = 160
"""Most characters of a call inside another; a longer one is called by its number."""

_USED_LIST = 120
"""Most characters of a list that a later call has made use of; a longer one is only counted."""


class Digest:
    """The observations of a run's plans, written out.

    Args:
        observations: of all plans so far, by task id.
        tools: whose rules trim long results.
        question: if given, results that later calls used are cut to what it or they mention.
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
        self._used: dict[int, set[str]] = {}
        for seen in observations.values():
            if seen.status == "done":
                self._note_use(seen.task)
        self._combined: dict[int, set[str]] = {}
        for seen in observations.values():
            self._note_combined(seen.task)
        self._labels: dict[int, str] = {}
        self._records: set[int] = set()
        self._numbered: set[int] = set()
        self._name_records()

    def lines(self, ids: Iterable[int]) -> list[str]:
        """One line a task: the call, and its result or what went wrong.

        A call too long to be repeated inside another goes by its number, and so its line has one.
        """
        texts = {task_id: self._line(task_id) for task_id in ids}
        return [
            f"${task_id}: {text}" if task_id in self._numbered else text
            for task_id, text in texts.items()
        ]

    def numbered(self) -> list[str]:
        """A line for every task, under the number by which a later plan can refer to it."""
        return [f"${task_id}: {self._line(task_id)}" for task_id in self._observations]

    def side_by_side(self, ids: Sequence[int]) -> list[str]:
        """Like ``lines``, and then the numbers of calls alike in one line each.

        A call whose numbers all stand there has no line of its own. A field that some call combined
        with another one of its record is not compared: of two countries whose densities were worked
        out, the populations say nothing.
        """
        found = compare(one for task_id in ids for one in self._quantities(task_id))
        told = {task_id for task_id in ids if self._is_told(task_id, found)}
        rest = self.lines(task_id for task_id in ids if task_id not in told)
        return [*rest, *(one.text for one in found)]

    def _is_told(self, task_id: int, found: Sequence[Comparison]) -> bool:
        value = self._observations[task_id].value
        names = {one.name for one in found if task_id in one.tasks}
        if not isinstance(value, dict):
            return bool(names)
        return names >= self._focused(value, self._used.get(task_id)).keys()

    def _quantities(self, task_id: int) -> Iterator[Quantity]:
        seen = self._observations[task_id]
        if seen.status != "done":
            return
        form = _form(seen)
        if _is_number(seen.value):
            owner = self._sole_owner(seen.task)
            if owner is not None:
                formula = self._formula(seen.task).replace(f"{self._labels[owner]}.", "")
                yield Quantity(form, formula, self._full_name(owner), seen.value, task_id)
        elif isinstance(seen.value, dict) and task_id in self._labels:
            combined = self._combined.get(task_id, set())
            shown = self._focused(seen.value, self._used.get(task_id))
            numbers = {key: item for key, item in shown.items() if _is_number(item)}
            if task_id in self._used:
                numbers = {k: item for k, item in numbers.items() if k in self._used[task_id]}
            else:
                asked = _words(self._question or "")
                numbers = {k: item for k, item in numbers.items() if _words(k) & asked} or numbers
            for field, value in numbers.items():
                if field not in combined:
                    yield Quantity(form, field, self._full_name(task_id), value, task_id)

    def _sole_owner(self, task: Task) -> int | None:
        """The one record that a call took all its numbers from."""
        owners = {ref.task for ref in task.references() if isinstance(ref, Reference)}
        starred = any(STAR in ref.path for ref in task.references())
        owner = owners.pop() if len(owners) == 1 and not starred else None
        return owner if owner in self._labels and owner in self._records else None

    def _formula(self, task: Task) -> str:
        """The call; of a pure one that takes a text, such as a calculator, the text alone."""
        tool = self._tools.get(task.tool)
        match [*task.expressions()]:
            case [Template() as only] if tool is not None and tool.pure:
                return self._argument(only)[1:-1]
        return self.call(task.id)

    def _line(self, task_id: int) -> str:
        seen = self._observations[task_id]
        call = self.call(task_id)
        if seen.status == "done":
            chosen = (self._chosen(seen.value, expr) for expr in seen.task.expressions())
            names = [f"{self._full_name(one)}: " for one in chosen if one is not None]
            return f"{call} = {''.join(names[:1])}{self._result(seen)}"
        reason = seen.failure.message if seen.failure else ""
        if seen.failure and seen.failure.hint:
            reason += f" ({seen.failure.hint})"
        status = {"failed": "failed", "skipped": "was not called"}.get(seen.status, seen.status)
        partial = f"; the rest = {self._result(seen)}" if seen.value is not None else ""
        return f"{call} {status}: {reason}{partial}" if reason else f"{call} {status}{partial}"

    def _result(self, seen: Observation) -> str:
        value, used = seen.value, self._used.get(seen.task.id)
        tool = self._tools.get(seen.task.tool)
        if isinstance(value, dict):
            value = self._focused(value, used)
        text = value_text(value)
        if used is not None and isinstance(value, list) and len(text) > _USED_LIST:
            return f"{len(value)} items"
        if tool is None or (callable(tool.trim) and used is not None):
            return trimmed(value, text, TRIM)
        return tool.observe(seen.value) if callable(tool.trim) else trimmed(value, text, tool.trim)

    def _note_use(self, task: Task) -> None:
        """Remember for each result which words the calls that use it mention."""
        spoken = " ".join(_strings(task.expressions()))
        for ref in task.references():
            if isinstance(ref, Reference):
                words = _words(spoken) | {one for one in ref.path if isinstance(one, str)}
                self._used.setdefault(ref.task, set()).update(words)

    def _note_combined(self, task: Task) -> None:
        """Remember fields that a call took together with others of the same record."""
        fields: dict[int, set[str]] = {}
        for ref in task.references():
            if isinstance(ref, Reference) and ref.path and isinstance(ref.path[0], str):
                fields.setdefault(ref.task, set()).add(ref.path[0])
        for task_id, names in fields.items():
            if len(names) > 1:
                self._combined.setdefault(task_id, set()).update(names)

    def _focused(self, record: dict[str, Any], used: set[str] | None) -> dict[str, Any]:
        """The record; if calls used it, only what they or the question mention, if anything."""
        if used is None or self._question is None:
            return record
        words = used | _words(self._question)
        kept = {key: item for key, item in record.items() if key in used or _words(key) & words}
        return kept or record

    def call(self, task_id: int) -> str:
        """The call of a task, its references resolved."""
        seen = self._observations[task_id]
        task = seen.task

        def argument(expr: Expr) -> str:
            # Of records that were chosen from, only the chosen one matters: named beside it, the
            # others get its numbers.
            if isinstance(expr, ListExpr) and self._chosen(seen.value, expr) is not None:
                return f"{len(expr.items)} records"
            return self._argument(expr)

        arguments = [argument(expr) for expr in task.args]
        arguments += [f"{key}={argument(expr)}" for key, expr in task.kwargs.items()]
        return f"{task.tool}({', '.join(arguments)})"

    def _chosen(self, value: Any, among: Expr) -> int | None:
        """Which of the records that a call was given is its result."""
        if not isinstance(among, ListExpr) or len(among.items) < 2:
            return None
        given = [
            one.task
            for one in among.items
            if isinstance(one, Reference) and not one.path and one.task in self._records
        ]
        if len(given) < len(among.items):
            return None
        return next((one for one in given if self._observations[one].value == value), None)

    def _argument(self, expr: Expr) -> str:
        match expr:
            case Literal():
                return json.dumps(expr.value, ensure_ascii=False)
            case Reference():
                return self._reference(expr, quote=True)
            case Input():
                return str(expr)
            case Template():
                inside = "".join(
                    part
                    if isinstance(part, str)
                    else self._reference(part, quote=False)
                    if isinstance(part, Reference)
                    else str(part)
                    for part in expr.parts
                )
                return f'"{inside}"'
            case ListExpr():
                return f"[{', '.join(map(self._argument, expr.items))}]"
            case DictExpr():
                inner = ", ".join(f"{key}: {self._argument(item)}" for key, item in expr.entries)
                return f"{{{inner}}}"

    def _reference(self, ref: Reference, *, quote: bool) -> str:
        if STAR in ref.path:
            star = ref.path.index(STAR)
            rest = path_text(ref.path[star + 1 :])
            return f"each of {self._owner(ref.task)}{path_text(ref.path[:star])}{rest}"
        seen = self._observations.get(ref.task)
        found, value = _follow(seen.value, ref.path) if seen is not None else (False, None)
        if found and isinstance(value, str) and len(value) <= _LABEL:
            return json.dumps(value, ensure_ascii=False) if quote else value
        if found and not ref.path and isinstance(value, bool | int | float):
            return value_text(value)
        if not ref.path and ref.task in self._records:
            return self._full_name(ref.task)
        return f"{self._owner(ref.task)}{path_text(ref.path)}"

    def _owner(self, task_id: int) -> str:
        """What a task's result is called where other calls use it."""
        if task_id in self._labels:
            return self._labels[task_id]
        if task_id not in self._observations:
            return f"${task_id}"
        # Settled first, so that a deep plan is not written out again at each of its levels.
        call = self.call(task_id)
        if len(call) > _NESTED:
            self._numbered.add(task_id)
            call = f"${task_id}"
        self._labels[task_id] = call
        return call

    def _name_records(self) -> None:
        """A look-up by one short string is called by it, unless two look-ups share it."""
        names: dict[int, str] = {}
        for task_id, seen in self._observations.items():
            if not isinstance(seen.value, dict):
                continue
            strings = [name for name in self._strings(seen) if len(name) <= _LABEL]
            if len(strings) == 1 and len(list(seen.task.expressions())) == 1:
                names[task_id] = strings[0]
        taken = list(names.values())
        for task_id, name in names.items():
            if taken.count(name) == 1:
                self._labels[task_id] = name
                self._records.add(task_id)

    def _full_name(self, task_id: int) -> str:
        """A record's name, and whence it came if that was another record: Oslo (Norway.capital)."""
        name = self._labels[task_id]
        (expr,) = self._observations[task_id].task.expressions()
        if isinstance(expr, Reference) and expr.task in self._records:
            return f"{name} ({self._labels[expr.task]}{path_text(expr.path)})"
        return name

    def _strings(self, seen: Observation) -> Iterator[str]:
        for expr in seen.task.expressions():
            if isinstance(expr, Literal) and isinstance(expr.value, str):
                yield expr.value
            elif isinstance(expr, Reference) and STAR not in expr.path:
                source = self._observations.get(expr.task)
                found, value = _follow(source.value, expr.path) if source else (False, None)
                if found and isinstance(value, str):
                    yield value


def _form(seen: Observation) -> tuple[str, ...]:
    """What calls alike have in common: tool and arguments, but for whom they are about."""

    def form(expr: Expr) -> str:
        match expr:
            case Reference():
                return f"${path_text(expr.path)}"
            case Template():
                return "".join(one if isinstance(one, str) else form(one) for one in expr.parts)
            case ListExpr():
                return f"[{','.join(map(form, expr.items))}]"
            case Literal(value=str()):
                return "text"
        return str(expr)

    named = (f"{name}={form(expr)}" for name, expr in seen.task.kwargs.items())
    return (seen.task.tool, *map(form, seen.task.args), *named)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _strings(expressions: Iterable[Expr]) -> Iterator[str]:
    """The texts in arguments, what stands between their references."""
    for expr in expressions:
        match expr:
            case Literal(value=str(text)):
                yield text
            case Template():
                yield from (part for part in expr.parts if isinstance(part, str))


_STEM = 6
"""Letters by which words are compared: "neighbouring" mentions "neighbours"."""


def _words(text: str) -> set[str]:
    return {word[:_STEM].rstrip("s") for word in re.findall(r"[^\W_]+", text.casefold())}


def _follow(value: Any, path: Path) -> tuple[bool, Any]:
    for segment in path:
        try:
            value = value[segment]
        except (LookupError, TypeError):
            return False, None
    return True, value
