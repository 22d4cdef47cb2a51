"""Pins: what tools that others describe said of themselves when they were last used.

A description is part of every prompt, so whoever can change it can tell the model what to do, and
a server that was harmless when somebody chose it may say something else tomorrow. So the log pins
it: a run's start holds what each tool said, with a hash. The first use of a server is trusted. From
then on a run begins only if its tools say what they said at the latest run, or somebody agreed to
what changed. The module must not know where such tools come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llmcompiler.passes.drift import said_drift
from llmcompiler.tools.base import Tool


def changes_since(
    tools: Mapping[str, Tool], catalogues: Iterable[Mapping[str, Mapping[str, Any]]]
) -> list[str]:
    """What changed about tools that others describe since a run last began with them.

    Args:
        tools: those at hand, by name.
        catalogues: what tools said at the starts of runs, newest first.

    Returns:
        One line a change, each beginning with who says it and the tool's name. A tool that is gone
        is no change: a plan that needs it does not pass the checks.
    """
    wanted = {tool.origin for tool in tools.values() if tool.origin}
    pinned: dict[str, dict[str, Mapping[str, Any]]] = {}
    if wanted:
        for catalogue in catalogues:
            said: dict[str, dict[str, Mapping[str, Any]]] = {}
            for name, words in catalogue.items():
                said.setdefault(words.get("origin", ""), {})[name] = words
            for origin in wanted & said.keys() - pinned.keys():
                pinned[origin] = said[origin]
            if pinned.keys() == wanted:
                break
    found: list[str] = []
    for name, tool in tools.items():
        if tool.origin not in pinned:
            continue
        before = pinned[tool.origin].get(name)
        if before is None:
            found.append(f"{tool.origin}: {name}: this tool is new")
        elif before["version"] != tool.version:
            lines = said_drift(before, tool.describe())
            found += (f"{tool.origin}: {name}: {line}" for line in lines)
    return found
