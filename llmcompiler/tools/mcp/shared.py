"""One server for each spec: ``mcp:SPEC`` means the same connection wherever a program names it."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from llmcompiler.tools.mcp.server import McpServer

ServerFactory: TypeAlias = Callable[[str], McpServer]
"""Makes the server that a spec names; a spec is what stands after ``mcp:``."""

_SERVERS: dict[tuple[ServerFactory, str, Path], McpServer] = {}
_LOCK = threading.Lock()


def shared_server(spec: str, make_server: ServerFactory = McpServer) -> McpServer:
    """Return the server for ``spec``, and make it at the first request.

    The server is closed when the program ends.

    Args:
        spec: a command, a URL, or a name that ``make_server`` knows. A relative path in it means
            another program in another directory, so each working directory has servers of its own.
        make_server: by default a spec is a command or a URL.

    Raises:
        UsageError: the spec is empty, or ``make_server`` refuses it.
    """
    key = make_server, spec.strip(), Path.cwd()
    with _LOCK:
        if key not in _SERVERS:
            if not _SERVERS:
                atexit.register(close_all)
            _SERVERS[key] = make_server(spec.strip())
        return _SERVERS[key]


def close_all() -> None:
    """Close every shared server."""
    with _LOCK:
        while _SERVERS:
            _SERVERS.popitem()[1].close()
