"""Translates tools into the JSON that OpenAI-compatible endpoints take, and back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llmcompiler.errors import UsageError
from llmcompiler.tools.base import Tool
from llmcompiler.tools.foreign import foreign_tool


def openai_tool(tool: Tool) -> dict[str, Any]:
    """The entry of a tool in the ``tools`` of a chat completion request."""
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": {"type": "object", **tool.parameters_schema},
        },
    }


def tools_from_openai(
    descriptions: Iterable[Mapping[str, Any]], call: Callable[[str, dict[str, Any]], Any]
) -> list[Tool]:
    """Tools from the ``tools`` of a request, in the form of chat completions or of responses.

    Args:
        descriptions: the entries of ``tools``.
        call: makes a call, given the tool's name and its arguments; sync or async.

    Raises:
        UsageError: an entry is no function, or has no name.
    """
    return [_from_openai(description, call) for description in descriptions]


def _from_openai(description: Mapping[str, Any], call: Callable[..., Any]) -> Tool:
    function = description.get("function", description)
    name = function.get("name") if isinstance(function, Mapping) else None
    if description.get("type", "function") != "function" or not isinstance(name, str):
        raise UsageError(
            f"{str(description)[:80]} describes no function with a name",
            hint='{"type": "function", "function": {"name": …, "parameters": …}}',
        )
    is_async = inspect.iscoroutinefunction(call)

    async def call_async(**arguments: Any) -> Any:
        return await call(name, arguments)

    def call_sync(**arguments: Any) -> Any:
        return call(name, arguments)

    return foreign_tool(
        name,
        call_async if is_async else call_sync,
        description=function.get("description") or "",
        parameters_schema=function.get("parameters") or {"type": "object"},
        is_async=is_async,
    )
