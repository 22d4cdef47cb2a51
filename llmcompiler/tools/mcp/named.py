"""From ``mcp:SPEC`` to a server: a URL, a command, or a name in ``llmcompiler.toml``.

The file is looked for in the working directory, then in the user's configuration directory. What
stands in the nearer one counts. A server is started only when somebody names it.

    [mcp.issues]
    command = ["npx", "-y", "some-mcp-server", "--read-only"]
    env = { TRACKER_TOKEN = "${TRACKER_TOKEN}" }
    prefix = "issues."

    [mcp.search]
    url = "https://search.example/mcp"
    headers = { Authorization = "Bearer ${SEARCH_TOKEN}" }

The module must not know how servers are talked to.
"""

from __future__ import annotations

import atexit
import os
import threading
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from llmcompiler.errors import UsageError
from llmcompiler.tools.mcp.server import CONNECT_TIMEOUT, TIMEOUT, McpServer

FILE = "llmcompiler.toml"

_SHARED: dict[tuple[str, Path], McpServer] = {}
_LOCK = threading.Lock()


class ServerConfig(BaseModel):
    """What the file says of a server; ``${NAME}`` in ``env`` and ``headers`` is a variable."""

    model_config = ConfigDict(extra="forbid")

    command: str | list[str] | None = None
    url: str | None = None
    env: dict[str, str] = {}
    headers: dict[str, str] = {}
    directory: Path | None = None
    prefix: str = ""
    timeout: float = TIMEOUT
    connect_timeout: float = CONNECT_TIMEOUT


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
    for path, servers in _configured():
        if spec in servers:
            return _from_config(path, spec, servers[spec])
    return McpServer(spec)


def _configured() -> Iterator[tuple[Path, Mapping[str, Any]]]:
    import platformdirs

    for directory in (Path.cwd(), Path(platformdirs.user_config_dir("llmcompiler"))):
        path = directory / FILE
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} cannot be read: {error}") from error
        try:
            servers = tomllib.loads(text).get("mcp", {})
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{path} is not TOML: {error}") from error
        if not isinstance(servers, Mapping):
            raise UsageError(f"{path}: mcp is no table", hint="servers are tables: [mcp.NAME]")
        yield path, servers


def _from_config(path: Path, name: str, said: Any) -> McpServer:
    try:
        config = ServerConfig.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, ("mcp", name, *first["loc"])))
        raise UsageError(f"{path}: {where}: {first['msg']}") from error
    target = config.url or config.command
    if target is None or (config.url and config.command):
        raise UsageError(f"{path}: mcp.{name} needs a command or a url, and not both")
    return McpServer(
        target,
        env=_filled(config.env, path, name),
        headers=_filled(config.headers, path, name),
        directory=config.directory,
        prefix=config.prefix,
        name=name,
        timeout=config.timeout,
        connect_timeout=config.connect_timeout,
    )


def _filled(values: Mapping[str, str], path: Path, name: str) -> dict[str, str]:
    try:
        return {key: Template(value).substitute(os.environ) for key, value in values.items()}
    except KeyError as error:
        raise UsageError(
            f"{path}: mcp.{name} uses the variable {error.args[0]}, which is not set",
            hint=f"export {error.args[0]}=…",
        ) from error
    except ValueError as error:
        raise UsageError(f"{path}: mcp.{name}: {error}", hint="a dollar sign is $$") from error
