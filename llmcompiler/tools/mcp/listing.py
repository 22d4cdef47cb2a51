"""What an MCP server says of its tools, and what its calls give, in the package's own terms.

Everything a server says is somebody else's word: texts are data, and annotations are hints that at
most save a repetition. The module must not know how servers are reached.
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


def described_tool(
    said: mcp.Tool,
    call: Callable[..., Any],
    *,
    prefix: str,
    origin: str,
    timeout: float | None,
) -> Tool:
    """The tool that a server describes.

    Args:
        said: the server's words.
        call: makes the call; called with the arguments by name.
        prefix: put before the tool's name, to tell servers apart.
        origin: which server it is.
        timeout: seconds that one attempt may take.
    """
    return foreign_tool(
        prefix + said.name,
        call,
        description=said.description or said.title or "",
        parameters_schema=said.input_schema,
        return_schema=said.output_schema,
        effect=effect_of(said),
        origin=origin,
        timeout=timeout,
    )


def effect_of(said: mcp.Tool) -> Effect:
    """``read`` only where the server says so; one that says nothing may write."""
    hints = said.annotations
    return "read" if hints is not None and hints.read_only_hint is True else "write"


def may_repeat(said: mcp.Tool) -> bool:
    """Whether a call that broke off may be made again without being asked for."""
    hints = said.annotations
    return effect_of(said) == "read" or (hints is not None and hints.idempotent_hint is True)


def value_of(name: str, result: mcp.types.CallToolResult) -> Any:
    """What a call gave: its structured output, else its text, read as JSON where it is a record.

    Raises:
        ToolError: the server reports that the call failed.
    """
    if result.is_error:
        texts = [block.text for block in result.content if block.type == "text"]
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
    return _record(blocks[0]) if isinstance(blocks[0], str) else blocks[0]


def _record(text: str) -> Any:
    """A JSON object or list that was sent as text; any other text as it is."""
    if text.lstrip().startswith(("{", "[")):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
