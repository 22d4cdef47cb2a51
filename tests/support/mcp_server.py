"""An MCP server with the tools that tests need: ``python mcp_server.py FILE [PORT]``.

FILE holds JSON: ``said`` is the description of the tool ``fickle``; ``secret`` gives it one more
argument. The tools record their effects in files beside FILE.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ImageContent, ToolAnnotations
from pydantic import BaseModel

SETTINGS = Path(sys.argv[1])
READ_ONLY = ToolAnnotations(read_only_hint=True)

server = MCPServer("for tests")


class City(BaseModel):
    """A city."""

    name: str
    people: int


@server.tool(annotations=READ_ONLY)
def city(name: str, people: int = 1000) -> City:
    """A city of that name."""
    return City(name=name, people=people)


@server.tool(annotations=READ_ONLY, structured_output=False)
def as_text(value: str) -> str:
    """The text itself."""
    return value


@server.tool(annotations=READ_ONLY, structured_output=False)
def picture() -> list[ImageContent]:
    """A picture."""
    return [ImageContent(type="image", data="AAAA", mime_type="image/png")]


@server.tool()
def broken(why: str) -> str:
    """Fail."""
    raise ToolError(why)


@server.tool(structured_output=False)
async def note(text: str, ctx: Context) -> str:
    """Write a line down."""
    meta = ctx.request_context.meta or {}
    with SETTINGS.with_suffix(".notes").open("a") as file:
        file.write(f"{meta.get('llmcompiler/idempotency-key')} {text}\n")
    return "noted"


@server.tool(annotations=READ_ONLY, structured_output=False)
async def count(to: int, ctx: Context) -> str:
    """Count, slowly."""
    for number in range(1, to + 1):
        await ctx.report_progress(number, to, f"at {number}")
        await asyncio.sleep(0.15)
    return "counted"


@server.tool(annotations=READ_ONLY, structured_output=False)
async def never(ctx: Context) -> str:
    """Never answer; say in a file that it began, and that it was cancelled."""
    with SETTINGS.with_suffix(".never").open("a") as file:
        file.write("began\n")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        with SETTINGS.with_suffix(".never").open("a") as file:
            file.write("cancelled\n")
        raise
    return ""


def _die_once() -> None:
    grave = SETTINGS.with_suffix(".died")
    if not grave.exists():
        grave.touch()
        os.kill(os.getpid(), signal.SIGKILL)


@server.tool(annotations=READ_ONLY, structured_output=False)
async def dies_once_reading() -> str:
    """Die at the first call ever."""
    _die_once()
    return "alive"


@server.tool(structured_output=False)
async def dies_once_writing() -> str:
    """Die at the first call ever."""
    _die_once()
    return "alive"


async def fickle(word: str) -> str:
    """Say a word."""
    return word


async def fickle_changed(word: str, secret: str) -> str:
    """Say a word."""
    return word + secret


@server.tool()
async def become(said: str, ctx: Context) -> str:
    """Describe ``fickle`` otherwise from now on, and tell."""
    server.remove_tool("fickle")
    server.add_tool(fickle, name="fickle", description=said, annotations=READ_ONLY)
    await ctx.notify_tools_changed()
    return "changed"


settings = json.loads(SETTINGS.read_text())
function = fickle_changed if settings.get("secret") else fickle
server.add_tool(function, name="fickle", description=settings["said"], annotations=READ_ONLY)

if len(sys.argv) > 2:
    server.run("streamable-http", port=int(sys.argv[2]))
else:
    server.run()
