"""Drift: how the tools of a saved plan changed since it was saved.

A saved plan records the schemas of the tools that it was made for. A change may be harmless:
whether the plan still fits its tools is decided by the checker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from llmcompiler.plan.model import Plan
from llmcompiler.plan.types import SchemaType, expected_text

_ANNOTATIONS = {"title", "description", "default", "examples"}
"""Keywords for people, which constrain nothing."""


class VersionedTool(Protocol):
    """The attributes of a tool that are compared."""

    @property
    def parameters_schema(self) -> dict[str, Any]:
        """JSON schema of the arguments, properties in positional order."""
        ...

    @property
    def return_schema(self) -> dict[str, Any] | None:
        """JSON schema of the result; ``None`` if it is not known."""
        ...

    @property
    def version(self) -> str:
        """A text that changes when the tool may return other results than before."""
        ...


def description_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """How a tool's description of itself (``Tool.describe``) changed, one line per change."""
    old, new = _DescribedTool(before), _DescribedTool(after)
    changes = [*_argument_changes(old, new), *_result_changes(old, new)]
    if before["description"] != after["description"]:
        changes.append(
            f"it said {before['description']!r} of itself, and says {after['description']!r}"
        )
    if before["effect"] != after["effect"]:
        changes.append(
            f"its calls were said to {before['effect']}, and are said to {after['effect']}"
        )
    if not changes and old.version != new.version:
        changes.append("words about its arguments or its result changed")
    return changes


class _DescribedTool:
    """The schemas in a tool's description of itself."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        self.parameters_schema: dict[str, Any] = description["parameters_schema"]
        self.return_schema: dict[str, Any] | None = description["return_schema"]
        self.version: str = description["version"]


def schema_drift(plan: Plan, tools: Mapping[str, VersionedTool]) -> list[str]:
    """How the tools of a plan differ from what the plan recorded of them.

    Args:
        plan: a saved plan; a plan that records no tools has no drift.
        tools: the tools of today, by name.

    Returns:
        One line per change, which begins with the tool's name.
    """
    drift: list[str] = []
    for name, pin in plan.tools.items():
        if name not in tools:
            drift.append(f"{name}: there is no such tool any more")
            continue
        tool = tools[name]
        changes = [*_argument_changes(pin, tool), *_result_changes(pin, tool)]
        if not changes and pin.version != tool.version:
            changes = [f"its version was {pin.version!r} and is {tool.version!r}"]
        drift += (f"{name}: {change}" for change in changes)
    return drift


def _argument_changes(old: VersionedTool, new: VersionedTool) -> Iterator[str]:
    old_root, new_root = old.parameters_schema, new.parameters_schema
    before, after = _properties(old_root), _properties(new_root)
    required_before, required_after = _required(old_root), _required(new_root)
    for name in before:
        if name not in after:
            yield f"the argument {name!r} is gone"
            continue
        if change := _type_change(before[name], old_root, after[name], new_root):
            yield f"the argument {name!r} {change}"
        if name in required_after and name not in required_before:
            yield f"the argument {name!r} is required now"
        elif name in required_before and name not in required_after:
            yield f"the argument {name!r} is optional now"
    for name in after:
        if name not in before:
            kind = "required" if name in required_after else "optional"
            yield f"there is a new {kind} argument {name!r}"
    old_order = [name for name in before if name in after]
    new_order = [name for name in after if name in before]
    if old_order != new_order:
        yield (
            f"its arguments were in the order {', '.join(old_order)} and are in "
            f"{', '.join(new_order)}"
        )


def _result_changes(old: VersionedTool, new: VersionedTool) -> Iterator[str]:
    before, after = old.return_schema, new.return_schema
    if before is None or after is None:
        if before is not None:
            yield "its result is no longer described"
        return
    fields = SchemaType(after, after).fields()
    missing = [name for name in SchemaType(before, before).fields() if name not in fields]
    for name in missing:
        yield f"the field {name!r} of its result is gone"
    if not missing and (change := _type_change(before, before, after, after)):
        yield f"its result {change}"


def _properties(schema: Mapping[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = schema.get("properties", {})
    return properties


def _required(schema: Mapping[str, Any]) -> set[str]:
    return set(schema.get("required", ()))


def _type_change(
    before: Any, old_root: Mapping[str, Any], after: Any, new_root: Mapping[str, Any]
) -> str | None:
    if _constraints(before, old_root) == _constraints(after, new_root):
        return None
    old = expected_text(SchemaType(before, old_root))
    new = expected_text(SchemaType(after, new_root))
    return f"was {old} and is {new}" if old != new else f"is still {old}, with other bounds"


def _constraints(schema: Any, root: Mapping[str, Any], outer_refs: tuple[str, ...] = ()) -> Any:
    """A schema without annotations, with the target in place of each ``$ref``."""
    if isinstance(schema, list):
        return [_constraints(item, root, outer_refs) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(target := schema.get("$ref"), str):
        if target in outer_refs:
            return target
        outer_refs = (*outer_refs, target)
    schema = SchemaType(schema, root).resolve().schema
    constraints: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties" and isinstance(value, dict):
            # Names of fields may look like keywords.
            constraints[key] = {
                name: _constraints(field, root, outer_refs) for name, field in value.items()
            }
        elif key not in _ANNOTATIONS and key != "$defs":
            constraints[key] = _constraints(value, root, outer_refs)
    return constraints
