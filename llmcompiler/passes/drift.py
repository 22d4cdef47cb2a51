"""Drift: what changed of the tools since a plan was saved.

A saved plan records the schemas of the tools that it was made for. What changed since may be
harmless; whether the plan still fits is for the checker to say. The module must not know how plans
are saved or run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from llmcompiler.plan.model import Plan
from llmcompiler.plan.types import SchemaType, expected_text

_SAID = {"title", "description", "default", "examples"}
"""Keywords that tell people something and constrain nothing."""


class Versioned(Protocol):
    """What is compared of a tool."""

    @property
    def parameters_schema(self) -> dict[str, Any]:
        """JSON schema of the arguments, properties in positional order."""
        ...

    @property
    def return_schema(self) -> dict[str, Any] | None:
        """JSON schema of the result; ``None`` where it is not known."""
        ...

    @property
    def version(self) -> str:
        """Changes when the tool may give other results than before."""
        ...


def said_drift(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is different in what a tool says of itself (``Tool.describe``), a line each."""
    before, after = _Said(was), _Said(now)
    found = [*_of_arguments(before, after), *_of_result(before, after)]
    if was["description"] != now["description"]:
        found.append(f"it said {was['description']!r} of itself, and says {now['description']!r}")
    if was["effect"] != now["effect"]:
        found.append(f"its calls were said to {was['effect']}, and are said to {now['effect']}")
    if not found and was["version"] != now["version"]:
        found.append("words about its arguments or its result changed")
    return found


class _Said:
    """The schemas in a tool's description of itself."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self.parameters_schema: dict[str, Any] = said["parameters_schema"]
        self.return_schema: dict[str, Any] | None = said["return_schema"]
        self.version: str = said["version"]


def schema_drift(plan: Plan, tools: Mapping[str, Versioned]) -> list[str]:
    """What is different now from what the plan recorded of its tools.

    Args:
        plan: a saved plan; one that records no tools has no drift.
        tools: those at hand, by name.

    Returns:
        One line a change, each beginning with the tool's name; empty where nothing changed.
    """
    found: list[str] = []
    for name, pin in plan.tools.items():
        if name not in tools:
            found.append(f"{name}: there is no such tool any more")
            continue
        tool = tools[name]
        changes = [*_of_arguments(pin, tool), *_of_result(pin, tool)]
        if not changes and pin.version != tool.version:
            changes = [f"its version was {pin.version!r} and is {tool.version!r}"]
        found += (f"{name}: {change}" for change in changes)
    return found


def _of_arguments(pin: Versioned, tool: Versioned) -> Iterator[str]:
    was, now = pin.parameters_schema, tool.parameters_schema
    before, after = _properties(was), _properties(now)
    needed_before, needed_after = _required(was), _required(now)
    for name in before:
        if name not in after:
            yield f"the argument {name!r} is gone"
            continue
        if change := _type_change(before[name], was, after[name], now):
            yield f"the argument {name!r} {change}"
        if name in needed_after and name not in needed_before:
            yield f"the argument {name!r} is required now"
        elif name in needed_before and name not in needed_after:
            yield f"the argument {name!r} is optional now"
    for name in after:
        if name not in before:
            kind = "required" if name in needed_after else "optional"
            yield f"there is a new {kind} argument {name!r}"
    kept = [name for name in before if name in after]
    order = [name for name in after if name in before]
    if kept != order:
        yield f"its arguments were in the order {', '.join(kept)} and are in {', '.join(order)}"


def _of_result(pin: Versioned, tool: Versioned) -> Iterator[str]:
    was, now = pin.return_schema, tool.return_schema
    if was is None or now is None:
        if was is not None:
            yield "its result is no longer described"
        return
    before, after = SchemaType(was, was), SchemaType(now, now)
    fields = after.fields()
    lost = [name for name in before.fields() if name not in fields]
    for name in lost:
        yield f"the field {name!r} of its result is gone"
    if not lost and (change := _type_change(was, was, now, now)):
        yield f"its result {change}"


def _properties(schema: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema.get("properties", {})
    return found


def _required(schema: Mapping[str, Any]) -> set[str]:
    return set(schema.get("required", ()))


def _type_change(
    before: Any, was: Mapping[str, Any], after: Any, now: Mapping[str, Any]
) -> str | None:
    if _bare(before, was) == _bare(after, now):
        return None
    old, new = expected_text(SchemaType(before, was)), expected_text(SchemaType(after, now))
    return f"was {old} and is {new}" if old != new else f"is still {old}, with other bounds"


def _bare(schema: Any, root: Mapping[str, Any], above: tuple[str, ...] = ()) -> Any:
    """A schema without words for people, its ``$ref`` followed, for comparison."""
    if isinstance(schema, list):
        return [_bare(item, root, above) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(target := schema.get("$ref"), str):
        if target in above:
            return target
        above = (*above, target)
    schema = SchemaType(schema, root).resolve().schema
    bare: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties" and isinstance(value, dict):
            # Names of fields may look like keywords.
            bare[key] = {name: _bare(field, root, above) for name, field in value.items()}
        elif key not in _SAID and key != "$defs":
            bare[key] = _bare(value, root, above)
    return bare
