"""``tools``: what plans may call."""

from __future__ import annotations

import typer

from llmcompiler.cli.options import JsonOption, ToolsOption, tools_of


def list_tools(tools: ToolsOption = None, as_json: JsonOption = False) -> None:
    """List tools with what they take and give.

    Example: llmcompiler tools --tools geo --tools my_tools.py
    """
    from llmcompiler.cli.output import print_json

    found = tools_of(tools)
    if as_json:
        print_json({"tools": {name: tool.describe() for name, tool in found.items()}})
        return
    for tool in found.values():
        effect = "  (changes the world outside)" if tool.effect == "write" else ""
        typer.echo(f"{tool.signature()}{effect}\n    {tool.description}")
