"""Tools as the JSON that OpenAI-compatible endpoints take, and back.

The module must not know endpoints: it only translates descriptions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llmcompiler.errors import UsageError
from llmcompiler.tools.base import Tool
from llmcompiler.tools.foreign import foreign_tool


def openai_tool(tool: Tool) -> dict[str, Any]:
    """What the ``tools`` of a chat completion request hold for a tool."""
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": {"type": "object", **tool.parameters_schema},
        },
    }


def tools_from_openai(
    described: Iterable[Mapping[str, Any]], call: Callable[[str, dict[str, Any]], Any]
) -> list[Tool]:
    """Tools from such JSON, that of chat completions or the flatter one of responses.

    Args:
        described: what such a request's ``tools`` hold.
        call: makes a call, given the tool's name and its arguments; sync or async.

    Raises:
        UsageError: one is no function, or has no name.
    """
    return [_from_openai(one, call) for one in described]


def _from_openai(described: Mapping[str, Any], call: Callable[..., Any]) -> Tool:
    function = described.get("function", described)
    name = function.get("name") if isinstance(function, Mapping) else None
    if described.get("type", "function") != "function" or not isinstance(name, str):
        raise UsageError(
            f"{str(described)[:80]} describes no function with a name",
            hint='{"type": "function", "function": {"name": …, "parameters": …}}',
        )
    is_async = inspect.iscoroutinefunction(call)

    async def called(**arguments: Any) -> Any:
        return await call(name, arguments)

    def called_in_thread(**arguments: Any) -> Any:
        return call(name, arguments)

    return foreign_tool(
        name,
        called if is_async else called_in_thread,
        description=function.get("description") or "",
        parameters_schema=function.get("parameters") or {"type": "object"},
        is_async=is_async,
    )
