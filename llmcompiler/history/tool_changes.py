"""What changed about tools of MCP servers since a run last began with them.

A tool's description is part of every prompt. So whoever can change the description can tell the
model what to do, and a server that was harmless when somebody chose it may say something else
tomorrow. A run's start therefore records what each tool says of itself, with a hash. The first use
of a server is trusted. After that, a run begins only if the server's tools say what they said at
the latest run, or if somebody has accepted the changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llmcompiler.errors import UsageError
from llmcompiler.passes.drift import description_changes
from llmcompiler.tools.base import Tool


def tool_changes(
    tools: Mapping[str, Tool], catalogues: Iterable[Mapping[str, Mapping[str, Any]]]
) -> list[str]:
    """What changed about tools that others describe since a run last began with them.

    Args:
        tools: the tools at hand, by name.
        catalogues: descriptions by tool name (``Tool.describe``), one catalogue for each run's
            start, newest first.

    Returns:
        One line a change, each beginning with the server and the tool's name. A tool that is gone
        is left out: a plan that needs it does not pass the checks.
    """
    recorded = _latest_descriptions({tool.origin for tool in tools.values()} - {""}, catalogues)
    changes: list[str] = []
    for name, tool in tools.items():
        if tool.origin not in recorded:
            continue
        description = recorded[tool.origin].get(name)
        if description is None:
            changes.append(f"{tool.origin}: {name}: this tool is new")
        elif description["version"] != tool.version:
            lines = description_changes(description, tool.describe())
            changes += (f"{tool.origin}: {name}: {line}" for line in lines)
    return changes


def _latest_descriptions(
    origins: set[str], catalogues: Iterable[Mapping[str, Mapping[str, Any]]]
) -> dict[str, dict[str, Mapping[str, Any]]]:
    """By origin, its tools' descriptions by name, from the newest catalogue that has the origin."""
    latest: dict[str, dict[str, Mapping[str, Any]]] = {}
    if not origins:
        return latest
    for catalogue in catalogues:
        by_origin: dict[str, dict[str, Mapping[str, Any]]] = {}
        for name, description in catalogue.items():
            by_origin.setdefault(description.get("origin", ""), {})[name] = description
        for origin in origins & by_origin.keys() - latest.keys():
            latest[origin] = by_origin[origin]
        if latest.keys() == origins:
            break
    return latest


def refuse_tool_changes(changes: list[str]) -> None:
    """Refuse to begin a run while there are changes that nobody has accepted.

    Raises:
        UsageError: names the changes.
    """
    if changes:
        raise UsageError(
            "tools say something else of themselves than when they were last used:\n  "
            + "\n  ".join(changes),
            hint="a description can mislead a model; if these are fine, go on with "
            "--accept-tool-changes, or accept_tool_changes()",
        )
