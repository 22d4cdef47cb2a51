"""What names and fields of a program mean: functions of modules, fields of records, types."""

from __future__ import annotations

import ast
import datetime
import difflib
from typing import Any

from llmcompiler.programs import subset

UNBOUND = object()
"""Stands for the value of a variable that has none."""


def resolve_global(node: ast.expr) -> Any:
    """The function, type or constant that a dotted name of a module means; ``None`` for none."""
    if isinstance(node, ast.Name):
        if node.id.startswith("%module."):
            return subset.MODULES[node.id.removeprefix("%module.")]
        if node.id in ("str", "dict"):
            return subset.BUILTINS[node.id]
        return None
    if not isinstance(node, ast.Attribute):
        return None
    owner = resolve_global(node.value)
    if owner is None:
        return None
    if isinstance(owner, subset.Module):
        value = owner.functions.get(node.attr)
        return value if value is not None else owner.constants.get(node.attr)
    try:
        names = subset.TYPE_FUNCTIONS.get(owner, frozenset())
    except TypeError:
        return None
    return getattr(owner, node.attr) if node.attr in names else None


def field_of(value: Any, name: str) -> Any:
    """The field of a record, or an attribute of a date.

    Raises:
        AttributeError: there is none; the message says what there is.
    """
    if type(value) is dict:
        if name in value:
            return value[name]
        near = difflib.get_close_matches(name, map(str, value), n=1)
        names = ", ".join(map(str, list(value)[:12]))
        hint = f"; did you mean '{near[0]}'?" if near else f"; it has {names}" if names else ""
        raise AttributeError(f"the record has no field '{name}'{hint}")
    if name in subset.FIELDS.get(type(value), ()):
        return getattr(value, name)
    raise AttributeError(f"'{type(value).__name__}' object has no attribute '{name}'")


def no_method(owner: Any, name: str) -> str:
    """What to say of a method that a value does not have."""
    kind = type(owner).__name__
    names = subset.METHODS.get(type(owner), frozenset())
    near = difflib.get_close_matches(name, names, n=1)
    if name == "format" and kind == "str":
        return "'str' has no method 'format' here; use an f-string"
    return f"'{kind}' has no method '{name}' here" + (
        f"; did you mean '{near[0]}'?" if near else ""
    )


def builtin_types(value: Any) -> Any:
    """The types that ``isinstance`` is asked about: the builtins that stand for them."""
    if isinstance(value, tuple):
        return tuple(builtin_types(item) for item in value)
    return getattr(value, "builtin", value)


DATE_TYPES = (datetime.date, datetime.datetime, datetime.time, datetime.timedelta)
"""Types of values that are written as text where JSON is wanted."""
