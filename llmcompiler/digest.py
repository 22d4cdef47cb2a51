"""Observations as text for a prompt: every call with its references resolved.

Shown ``calc("$1.population / $1.area_km2") = 338.5``, a small model guesses whose density that is,
and often wrongly. So a field is shown under the name of its owner (``Japan.population``), a plain
result by its value, and a list by the call that made it. Nor does such a model compare numbers
well, so among calls alike the highest and the lowest result are marked; and it loses its way among
many, so of a result that later calls used only what was mentioned is shown. Numbers are rounded and
grouped for reading; the log keeps what the tools returned. The module must not know who reads the
text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llmcompiler.expressions import (
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
from llmcompiler.observation import Observation
from llmcompiler.plan import Task
from llmcompiler.tools.base import TRIM, Tool

_LABEL = 32
"""Most characters of a string argument that may stand for the record it looked up."""

_NESTED = 160
"""Most characters of a call inside another; a longer one is called by its number."""

_USED_LIST = 120
"""Most characters of a list that a later call has made use of; a longer one is only counted."""

_COUNTED = 3
"""Lists longer than this are shown with their length."""

_DIGITS = 5
_GROUPED = 10_000
"""Integers below it may be years or numbers of things, and are written without separators."""


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
        self._marks = _extremes(observations)
        self._labels: dict[int, str] = {}
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

    def _line(self, task_id: int) -> str:
        seen = self._observations[task_id]
        call = self.call(task_id)
        if seen.status == "done":
            return f"{call} = {self._result(seen)}"
        reason = seen.failure.message if seen.failure else ""
        if seen.failure and seen.failure.hint:
            reason += f" ({seen.failure.hint})"
        status = {"failed": "failed", "skipped": "was not called"}.get(seen.status, seen.status)
        partial = f"; the rest = {self._result(seen)}" if seen.value is not None else ""
        return f"{call} {status}: {reason}{partial}" if reason else f"{call} {status}{partial}"

    def _result(self, seen: Observation) -> str:
        value, used = seen.value, self._used.get(seen.task.id)
        tool = self._tools.get(seen.task.tool)
        marks = self._marks.get(seen.task.id, {})
        if isinstance(value, dict):
            value = self._focused(value, used)
            text = ", ".join(
                f"{key}: {_inner(item)}{marks.get(key, '')}" for key, item in value.items()
            )
        else:
            text = value_text(value) + marks.get("", "")
        if used is not None and isinstance(value, list) and len(text) > _USED_LIST:
            return f"{len(value)} items"
        if tool is None or (callable(tool.trim) and used is not None):
            return _trimmed(value, text, TRIM)
        return tool.observe(seen.value) if callable(tool.trim) else _trimmed(value, text, tool.trim)

    def _note_use(self, task: Task) -> None:
        """Remember for each result which words the calls that use it mention."""
        spoken = " ".join(_strings(task.expressions()))
        for ref in task.references():
            if isinstance(ref, Reference):
                words = _words(spoken) | {one for one in ref.path if isinstance(one, str)}
                self._used.setdefault(ref.task, set()).update(words)

    def _focused(self, record: dict[str, Any], used: set[str] | None) -> dict[str, Any]:
        """The record; if calls used it, only what they or the question mention, if anything."""
        if used is None or self._question is None:
            return record
        words = used | _words(self._question)
        kept = {key: item for key, item in record.items() if key in used or _words(key) & words}
        return kept or record

    def call(self, task_id: int) -> str:
        """The call of a task, its references resolved."""
        task = self._observations[task_id].task
        arguments = [self._argument(expr) for expr in task.args]
        arguments += [f"{key}={self._argument(expr)}" for key, expr in task.kwargs.items()]
        return f"{task.tool}({', '.join(arguments)})"

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
        self._labels.update(
            {task_id: name for task_id, name in names.items() if taken.count(name) == 1}
        )

    def _strings(self, seen: Observation) -> Iterator[str]:
        for expr in seen.task.expressions():
            if isinstance(expr, Literal) and isinstance(expr.value, str):
                yield expr.value
            elif isinstance(expr, Reference) and STAR not in expr.path:
                source = self._observations.get(expr.task)
                found, value = _follow(source.value, expr.path) if source else (False, None)
                if found and isinstance(value, str):
                    yield value


def _extremes(observations: Mapping[int, Observation]) -> dict[int, dict[str, str]]:
    """Which number is highest and which lowest among the results of calls alike.

    Returns:
        Task id -> field (empty for a result that is a number itself) -> what to write behind it.
    """
    alike: dict[tuple[str, ...], dict[int, dict[str, Any]]] = {}
    for task_id, seen in observations.items():
        if seen.status == "done":
            value = seen.value if isinstance(seen.value, dict) else {"": seen.value}
            numbers = {name: item for name, item in value.items() if _is_number(item)}
            alike.setdefault(_form(seen), {})[task_id] = numbers
    marks: dict[int, dict[str, str]] = {}
    for group in alike.values():
        for name in set.intersection(*(set(numbers) for numbers in group.values())):
            values = {task_id: numbers[name] for task_id, numbers in group.items()}
            for choose, word in ((max, "highest"), (min, "lowest")):
                extreme = choose(values.values())
                holders = [task_id for task_id, value in values.items() if value == extreme]
                if len(holders) < len(values):
                    for task_id in holders:
                        marks.setdefault(task_id, {})[name] = f" ({word})"
    return marks


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


def value_text(value: Any) -> str:
    """A result for reading: grouped digits, no needless quotes or decimals."""
    match value:
        case bool() | None:
            return {True: "yes", False: "no", None: "none"}[value]
        case int():
            return f"{value:,}" if abs(value) >= _GROUPED else str(value)
        case float():
            return _float_text(value)
        case str():
            return value
        case dict():
            return ", ".join(f"{key}: {_inner(item)}" for key, item in value.items())
        case list():
            # Nor does a small model count well.
            size = f"{len(value)} items: " if len(value) > _COUNTED else ""
            return size + ", ".join(map(_inner, value)) if value else "none"
    return json.dumps(value, ensure_ascii=False, default=str)


def _inner(value: Any) -> str:
    text = value_text(value)
    if isinstance(value, dict):
        return f"{{{text}}}"
    return f"[{text}]" if isinstance(value, list) and value else text


def _float_text(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return value_text(int(value))
    if not 1e-4 <= abs(value) < 1e15:
        return f"{value:.{_DIGITS}g}"
    whole = len(str(int(abs(value))))
    decimals = max(0, _DIGITS - whole) if abs(value) >= 1 else _DIGITS + 1
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _trimmed(value: Any, text: str, limit: int | None) -> str:
    if limit is None or len(text) <= limit:
        return text
    kept = text[:limit].rsplit(" ", 1)[0].rstrip(",{[ ")
    size = f" ({len(value)} in all)" if isinstance(value, list) else ""
    return f"{kept} ...{size}"


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
