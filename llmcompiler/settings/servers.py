"""Tools of the servers that the settings describe (``[mcp.NAME]``).

    [mcp.issues]
    command = ["npx", "-y", "some-mcp-server", "--read-only"]
    env = { TRACKER_TOKEN = "${TRACKER_TOKEN}" }
    prefix = "issues."

    [mcp.search]
    url = "https://search.example/mcp"
    headers = { Authorization = "Bearer ${SEARCH_TOKEN}" }

A server starts when a program names it, and never because it is described.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from llmcompiler.errors import UsageError
from llmcompiler.tools import loading
from llmcompiler.tools.mcp.server import McpServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmcompiler.settings.reading import Configuration
    from llmcompiler.tools.base import Tool


def load_tools(
    sources: loading.ToolSource
    | Iterable[loading.ToolSource]
    | Mapping[str, Tool | Callable[..., Any]],
) -> dict[str, Tool]:
    """Tools by name, in the order given.

    Args:
        sources: one spec, tool, function or module, several of them, or a mapping whose keys are
            the names that the tools get. ``mcp:NAME`` is looked up in the settings.

    Raises:
        UsageError: a source is missing or broken, or two different tools have one name.
    """
    return loading.load_tools(sources, server_for)


def server_for(spec: str) -> McpServer:
    """The server that ``spec`` names in the settings, else the one at that command or URL.

    Raises:
        UsageError: the spec is empty, or a file of settings is wrong.
    """
    from llmcompiler.settings.reading import read_settings

    configuration = read_settings()
    if spec not in configuration.settings.mcp:
        return McpServer(spec)
    return configured_server(spec, configuration)


def configured_server(name: str, configuration: Configuration) -> McpServer:
    """The server that the settings call ``name``; it is not started yet.

    Raises:
        UsageError: it has neither a command nor a url, or uses a variable that is not set.
    """
    from llmcompiler.settings.reading import substitute_variables

    server = configuration.settings.mcp[name]
    place = str(configuration.origin("mcp", name))
    target = server.url or server.command
    if target is None or (server.url and server.command):
        raise UsageError(f"{place}: mcp.{name} needs a command or a url, and not both")
    return McpServer(
        target,
        env=substitute_variables(server.env, place, f"mcp.{name}"),
        headers=substitute_variables(server.headers, place, f"mcp.{name}"),
        directory=server.directory,
        prefix=server.prefix,
        name=name,
        timeout=server.timeout,
        connect_timeout=server.connect_timeout,
    )
