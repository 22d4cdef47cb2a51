"""``tools``: lists the tools that plans may call."""

from __future__ import annotations

import typer

from llmcompiler.cli.options import JsonOption, ToolsOption, load_named_tools


def list_tools(tools: ToolsOption = None, as_json: JsonOption = False) -> None:
    """List tools with their parameters and results.

    Example: llmcompiler tools --tools geo --tools my_tools.py
    """
    from llmcompiler.cli.output import print_json

    tools_by_name = load_named_tools(tools)
    if as_json:
        print_json({"tools": {name: tool.describe() for name, tool in tools_by_name.items()}})
        return
    for tool in tools_by_name.values():
        effect = "  (changes the world outside)" if tool.effect == "write" else ""
        typer.echo(f"{tool.signature()}{effect}\n    {tool.description}")
