"""Translates an MCP server's descriptions of tools, and results of calls.

A server is not trusted: its texts are data, and its annotations are hints, from which only the
permission to repeat a call is taken.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmcompiler.errors import ToolError
from llmcompiler.tools.base import Effect, Tool
from llmcompiler.tools.foreign import foreign_tool

if TYPE_CHECKING:
    import mcp


def tool_from_description(
    description: mcp.Tool,
    call: Callable[..., Any],
    *,
    prefix: str,
    origin: str,
    timeout: float | None,
) -> Tool:
    """The ``Tool`` for a server's description.

    Args:
        description: the description.
        call: makes a call, given the arguments by name.
        prefix: text before the tool's name that tells servers apart.
        origin: the server, as ``mcp:NAME``.
        timeout: seconds that one attempt may take.
    """
    return foreign_tool(
        prefix + description.name,
        call,
        description=description.description or description.title or "",
        parameters_schema=description.input_schema,
        return_schema=description.output_schema,
        effect=effect_of(description),
        origin=origin,
        timeout=timeout,
    )


def effect_of(description: mcp.Tool) -> Effect:
    """``read`` if the server says so; a tool without that hint may write."""
    hints = description.annotations
    return "read" if hints is not None and hints.read_only_hint is True else "write"


def may_repeat(description: mcp.Tool) -> bool:
    """True if a call may be repeated when it is not known whether it was done."""
    hints = description.annotations
    return effect_of(description) == "read" or (hints is not None and hints.idempotent_hint is True)


def result_value(name: str, result: mcp.types.CallToolResult) -> Any:
    """The value of a call's result.

    It is the structured output, else the text, and JSON is read from a text that is an object or a
    list. Several blocks are a list.

    Raises:
        ToolError: the server reports that the call failed.
    """
    if result.is_error:
        texts = [block.text for block in result.content if block.type == "text"]
        details = result.structured_content
        if details and not any(_holds_details(text, details) for text in texts):
            texts.append(json.dumps(details, ensure_ascii=False))
        raise ToolError("\n".join(texts).strip() or f"{name} failed and does not say why")
    if result.structured_content is not None:
        return result.structured_content
    blocks = [
        block.text
        if block.type == "text"
        else block.model_dump(mode="json", by_alias=True, exclude_none=True)
        for block in result.content
    ]
    if len(blocks) != 1:
        return blocks or None
    return _read_json(blocks[0]) if isinstance(blocks[0], str) else blocks[0]


def _holds_details(text: str, details: dict[str, Any]) -> bool:
    """True if a text is the structured output, which servers repeat for clients without it."""
    return bool(_read_json(text) == details)


def _read_json(text: str) -> Any:
    """The JSON object or list in a text; any other text unchanged."""
    if text.lstrip().startswith(("{", "[")):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
