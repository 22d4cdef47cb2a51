"""Values for a saved plan's inputs: checked before anything runs."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

from llmcompiler.errors import UsageError
from llmcompiler.plan.model import Plan, PlanInput

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def bind_inputs(plan: Plan, given: Mapping[str, Any]) -> dict[str, Any]:
    """The value of every input of ``plan``, defaults filled in.

    Raises:
        UsageError: a value is missing, not asked for, or of another type than declared.
    """
    names = [declared.name for declared in plan.inputs]
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"its inputs are: {', '.join(names)}" if names else "it has no inputs"
            raise UsageError(
                f'the plan has no input "{name}"',
                hint=f'did you mean "{close[0]}"? {hint}' if close else hint,
            )
    values: dict[str, Any] = {}
    for declared in plan.inputs:
        if declared.name in given:
            values[declared.name] = _checked(declared, given[declared.name])
        elif declared.required:
            raise UsageError(
                f'the plan needs a value for its input "{declared.name}"',
                hint=f"give it with --input {declared.name}=…",
            )
        else:
            values[declared.name] = declared.default
    return values


def _checked(declared: PlanInput, value: Any) -> Any:
    types = _TYPES.get(declared.type)
    if types is None:
        return value
    # JSON has no booleans among its numbers; Python has.
    fits = isinstance(value, types) and (bool in types or not isinstance(value, bool))
    if not fits:
        raise UsageError(
            f'input "{declared.name}" must be of type {declared.type}, not {json.dumps(value)}',
            hint=f"give it with --input {declared.name}=…",
        )
    return value
