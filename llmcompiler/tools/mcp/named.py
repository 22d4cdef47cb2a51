"""From ``mcp:SPEC`` to a server: a URL, a command, or a name in the settings (``[mcp.NAME]``).

    [mcp.issues]
    command = ["npx", "-y", "some-mcp-server", "--read-only"]
    env = { TRACKER_TOKEN = "${TRACKER_TOKEN}" }
    prefix = "issues."

    [mcp.search]
    url = "https://search.example/mcp"
    headers = { Authorization = "Bearer ${SEARCH_TOKEN}" }

A server is started only when somebody names it. The module must not know how servers are talked
to.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from llmcompiler.errors import UsageError
from llmcompiler.tools.mcp.server import McpServer

if TYPE_CHECKING:
    from llmcompiler.settings.reading import Configuration

_SHARED: dict[tuple[str, Path], McpServer] = {}
_LOCK = threading.Lock()


def named_server(spec: str) -> McpServer:
    """The server that ``spec`` means; the same one whenever it is asked for.

    It is closed when the program ends.

    Raises:
        UsageError: the spec is empty, or the file is not as it should be.
    """
    spec = spec.strip()
    with _LOCK:
        key = spec, Path.cwd()
        if key not in _SHARED:
            if not _SHARED:
                atexit.register(close_all)
            _SHARED[key] = _server(spec)
        return _SHARED[key]


def close_all() -> None:
    """Close every server that a spec opened."""
    with _LOCK:
        while _SHARED:
            _SHARED.popitem()[1].close()


def _server(spec: str) -> McpServer:
    from llmcompiler.settings.reading import read_settings

    read = read_settings()
    if spec not in read.settings.mcp:
        return McpServer(spec)
    return configured_server(spec, read)


def configured_server(name: str, read: Configuration) -> McpServer:
    """The server that the settings call ``name``; it is not started yet.

    Raises:
        UsageError: it has neither a command nor a url, or uses a variable that is not set.
    """
    said, place = read.settings.mcp[name], str(read.origin("mcp", name))
    target = said.url or said.command
    if target is None or (said.url and said.command):
        raise UsageError(f"{place}: mcp.{name} needs a command or a url, and not both")
    return McpServer(
        target,
        env=_filled(said.env, place, name),
        headers=_filled(said.headers, place, name),
        directory=said.directory,
        prefix=said.prefix,
        name=name,
        timeout=said.timeout,
        connect_timeout=said.connect_timeout,
    )


def _filled(values: Mapping[str, str], place: str, name: str) -> dict[str, str]:
    try:
        return {key: Template(value).substitute(os.environ) for key, value in values.items()}
    except KeyError as error:
        raise UsageError(
            f"{place}: mcp.{name} uses the variable {error.args[0]}, which is not set",
            hint=f"export {error.args[0]}=…",
        ) from error
    except ValueError as error:
        raise UsageError(f"{place}: mcp.{name}: {error}", hint="a dollar sign is $$") from error
