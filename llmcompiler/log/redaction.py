"""Redaction: events without the content that came from a user, a model or a tool.

What stays is what a bug report needs: the calls in their order, the number and types of their
arguments, durations, failures, schemas of tools, and prompts. Names of arguments and fields stay,
because references use them.

A marker takes the place of each string, number or boolean. It has the value's type, a string's
length, and a hash, so that equal values have equal markers. The hash is keyed with a secret that
is thrown away: without a key, a number or a name could be found by trials.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from llmcompiler.errors import Failure
from llmcompiler.events import Event
from llmcompiler.log.codec import text_of
from llmcompiler.plan.expressions import (
    DictExpr,
    Expr,
    ListExpr,
    Literal,
    Template,
    expr_from_json,
    expr_to_json,
    make_dict,
    make_list,
)

_PRESERVED_FIELDS = frozenset(
    """
    at run wall planner models tools catalogue limits prompts profiles today holder asked_again call
    role model finish prompt_tokens cached_tokens completion_tokens seconds id dependencies code
    severity tasks join extent index attempt key delay because decision limit status
    reasoning_tokens bound
    """.split()
)
"""Fields without content of users; the values of all other fields are replaced."""


class Redactor:
    """Replaces the values in events by markers.

    Args:
        key: a secret; with the same key, equal values have equal markers.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def redact(self, event: Event) -> Event:
        """The event with markers in place of its values."""
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(event):
            value = getattr(event, field.name)
            match field.name, value:
                case _, Failure():
                    changes[field.name] = dataclasses.replace(
                        value, message=self._tree(value.message), hint=self._tree(value.hint)
                    )
                case "task", dict():
                    changes["task"] = self._task(value)
                case "plan", dict():
                    changes["plan"] = self._plan(value)
                case "origin", dict():
                    changes["origin"] = self._origin(value)
                case (("task" | "plan"), int()):
                    pass  # a number
                case name, _ if name not in _PRESERVED_FIELDS:
                    changes[name] = self._tree(value)
        return dataclasses.replace(event, **changes)

    def _tree(self, value: Any) -> Any:
        match value:
            case None | "":
                return value
            case dict():
                return {key: self._tree(item) for key, item in value.items()}
            case list() | tuple():
                return type(value)(self._tree(item) for item in value)
            case str():
                return self._marker(f"string of {len(value)} characters", value)
            case bool():
                return self._marker("boolean", value)
            case int():
                return self._marker("integer", value)
        return self._marker("number", value)

    def _marker(self, kind: str, value: Any) -> str:
        digest = blake2b(text_of(value), key=self._key, digest_size=4).hexdigest()
        return f"<redacted {kind}, {digest}>"

    def _task(self, data: Mapping[str, Any]) -> dict[str, Any]:
        task = dict(data)
        task["args"] = [self._argument(item) for item in data.get("args", ())]
        task["kwargs"] = {name: self._argument(v) for name, v in data.get("kwargs", {}).items()}
        task["thought"] = self._tree(data.get("thought"))
        return task

    def _plan(self, data: Mapping[str, Any]) -> dict[str, Any]:
        plan = dict(data)
        plan["tasks"] = [self._task(task) for task in data.get("tasks", ())]
        if data.get("question") is not None:
            plan["question"] = self._argument(data["question"])
        plan["inputs"] = [
            {**plan_input, "type": "any", "default": self._tree(plan_input.get("default"))}
            for plan_input in data.get("inputs", ())
        ]
        return plan

    def _origin(self, data: Mapping[str, Any]) -> dict[str, Any]:
        origin = dict(data)
        if "values" in data:
            origin["values"] = self._tree(data["values"])
        if "calls" in data:
            origin["calls"] = {name: self._task(call) for name, call in data["calls"].items()}
        return origin

    def _argument(self, data: Any) -> Any:
        """An argument in its JSON form, with markers for everything but its references."""
        return expr_to_json(self._expr(expr_from_json(data, lambda _: True, lambda _: True)))

    def _expr(self, expr: Expr) -> Expr:
        match expr:
            case Literal():
                return Literal(value=self._tree(expr.value))
            case Template():
                return Template(
                    parts=tuple(
                        self._tree(part) if isinstance(part, str) else part for part in expr.parts
                    )
                )
            case ListExpr():
                return make_list([self._expr(item) for item in expr.items])
            case DictExpr():
                return make_dict({key: self._expr(item) for key, item in expr.entries})
        return expr
