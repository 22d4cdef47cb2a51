"""A server that speaks the Model Context Protocol, as a source of tools.

One connection serves all calls at the same time, from any event loop. It is opened at the first
need, and again after it broke. A task of its own on the ``PORTAL``'s loop opens and closes it,
because the SDK wants both from one task. A call fails if the server describes the tool otherwise
than when the tool was loaded.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import math
import os
import shlex
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Self, TextIO
from urllib.parse import urlsplit

from pydantic import ValidationError

from llmcompiler.errors import LLMCompilerError, ToolError, UsageError
from llmcompiler.tools.base import Tool
from llmcompiler.tools.context import CallContext, current_call
from llmcompiler.tools.mcp.listing import may_repeat, result_value, tool_from_description
from llmcompiler.tools.mcp.portal import PORTAL
from llmcompiler.tools.mcp.screen import ListingScreen

if TYPE_CHECKING:
    import mcp

TIMEOUT = 60.0
"""Default number of seconds that a call may take."""

CONNECT_TIMEOUT = 60.0
"""Seconds that a server may take to start: its launcher may download it first."""

_MAX_PAGES = 100
_MAX_STDERR_LINES = 20


@dataclass
class _Session:
    """An open connection.

    Attributes:
        client: the SDK's client.
        closing: set to close the connection.
        stale: True if the server said that its tools changed.
        versions: hashes of the server's present descriptions, by the name of the tool.
    """

    client: mcp.Client
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    stale: bool = False
    versions: dict[str, str] = field(default_factory=dict)


class McpServer:
    """A server of tools: a program that this process starts, or a server at a URL.

    Give it to ``LLMCompiler(tools=[...])`` or ``load_tools`` like any other source of tools. Close
    it at the end, or use it in a ``with`` block.

    Args:
        where: a command line as a text or as a list of words, or an ``https://`` URL.
        env: variables for the program, besides a few harmless ones of this process.
        headers: headers of each request to a URL.
        directory: working directory of the program.
        prefix: text before the names of its tools that tells servers apart.
        name: the server's name in messages and in the log. By default the program's or the host's
            name with a hash, because arguments may be secret.
        timeout: seconds that one attempt at a call may take.
        connect_timeout: seconds until the server must answer after its start.

    Raises:
        UsageError: the command is empty or cannot be split.
    """

    def __init__(
        self,
        where: str | Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        directory: str | os.PathLike[str] | None = None,
        prefix: str = "",
        name: str | None = None,
        timeout: float | None = TIMEOUT,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        self.url = where if isinstance(where, str) and _is_url(where) else None
        self.command = [] if self.url else _split_command(where)
        self.name = name or _name(self.url, self.command)
        self._env = dict(env or {})
        self._headers = dict(headers or {})
        self._directory = directory
        self._prefix = prefix
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._open_lock = threading.Lock()
        self._is_open = False
        self._session: _Session | None = None
        self._connection_task: asyncio.Task[None] | None = None
        self._connect_lock: asyncio.Lock | None = None
        self._tools: list[Tool] | None = None
        self._stderr_lines: deque[str] = deque(maxlen=_MAX_STDERR_LINES)
        self._screen = ListingScreen(self.name)

    # The interface.

    def tools(self) -> list[Tool]:
        """The server's tools, by its descriptions at the first call of this method.

        Raises:
            UsageError: the server cannot be started or reached, or does not answer.
        """
        with self._open_lock:
            if self._tools is None:
                self._open()
                try:
                    self._tools = PORTAL.submit(self._load()).result()
                except ToolError as error:
                    self._close()
                    raise UsageError(error.message, hint=error.hint) from error
                except BaseException:
                    self._close()
                    raise
            return self._tools

    def close(self) -> None:
        """Close the connection, and end the program if there is one. A second call does nothing."""
        with self._open_lock:
            self._tools = None
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        if not self._is_open:
            PORTAL.acquire()
            self._is_open = True
            self._connect_lock = asyncio.Lock()

    def _close(self) -> None:
        if self._is_open:
            PORTAL.submit(self._disconnect()).result()
            self._is_open = False
            PORTAL.release()

    # Coroutines of the portal's loop.

    async def _load(self) -> list[Tool]:
        session = await self._connect()
        return [
            tool_from_description(
                description,
                functools.partial(self._call, description),
                prefix=self._prefix,
                origin=f"mcp:{self.name}",
                timeout=self._timeout,
            )
            for description in await self._list(session)
        ]

    async def _connect(self) -> _Session:
        """The connection; a new one if there is none."""
        assert self._connect_lock is not None
        async with self._connect_lock:
            session = self._session
            if session is None:
                opened: asyncio.Future[_Session] = asyncio.get_running_loop().create_future()
                self._connection_task = asyncio.create_task(self._run_connection(opened))
                session = await asyncio.shield(opened)
                self._session = session
            if session.stale:
                await self._list(session)
            return session

    async def _run_connection(self, opened: asyncio.Future[_Session]) -> None:
        """Open a connection, hand it over in ``opened``, and close it when that is asked for."""
        import anyio

        session: _Session | None = None
        try:
            with anyio.fail_after(self._connect_timeout) as scope:
                async with self._client() as client:
                    session = _Session(client)
                    await self._list(session)
                    scope.deadline = math.inf
                    opened.set_result(session)
                    async with self._watch_tools(session):
                        await session.closing.wait()
        except Exception as error:  # noqa: BLE001 - after any error, the server cannot be used
            # If an open connection breaks, the next call reports it.
            if not opened.done():
                opened.set_exception(self._unreachable(error))
        finally:
            if session is not None:
                self._drop(session)

    def _drop(self, session: _Session) -> None:
        """Stop using a connection that broke or is to be closed."""
        session.closing.set()
        if self._session is session:
            self._session = None

    async def _disconnect(self) -> None:
        if self._session is not None:
            self._drop(self._session)
        if self._connection_task is not None:
            await asyncio.wait((self._connection_task,))
            self._connection_task = None

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[mcp.Client]:
        mcp = _sdk()
        from mcp.client.stdio import stdio_client
        from mcp.client.streamable_http import streamable_http_client
        from mcp.shared._httpx_utils import create_mcp_http_client

        async def on_message(message: Any) -> None:
            if isinstance(message, mcp.types.ToolListChangedNotification) and self._session:
                self._session.stale = True

        if self.url is not None:
            async with create_mcp_http_client(headers=self._headers) as http:
                transport = self._screen.screen(streamable_http_client(self.url, http_client=http))
                async with mcp.Client(transport, message_handler=on_message) as client:
                    yield client
            return
        program, *args = self.command
        parameters = mcp.StdioServerParameters(
            command=program, args=args, env=self._env, cwd=self._directory
        )
        self._stderr_lines.clear()
        with _collect_lines(self._stderr_lines) as stderr:
            transport = self._screen.screen(stdio_client(parameters, errlog=stderr))
            async with mcp.Client(transport, message_handler=on_message) as client:
                yield client

    @asynccontextmanager
    async def _watch_tools(self, session: _Session) -> AsyncIterator[None]:
        """Subscribe to changes of tools, for servers that report them only to subscribers."""
        from mcp_types.version import MODERN_PROTOCOL_VERSIONS

        tools = session.client.server_capabilities.tools
        has_subscriptions = session.client.protocol_version in MODERN_PROTOCOL_VERSIONS
        if not has_subscriptions or tools is None or not tools.list_changed:
            yield
            return

        async def listen() -> None:
            async with session.client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    session.stale = True

        subscription = asyncio.create_task(listen())
        try:
            yield
        finally:
            subscription.cancel()
            await asyncio.wait((subscription,))
            if not subscription.cancelled():
                subscription.exception()  # the lost connection is reported at the next call

    async def _list(self, session: _Session) -> list[mcp.Tool]:
        """The server's descriptions of its tools; sets the session's ``versions``."""
        session.stale = False
        descriptions: list[mcp.Tool] = []
        cursor: str | None = None
        cursors: set[str] = set()
        for _ in range(_MAX_PAGES):
            page = await session.client.list_tools(cursor=cursor, cache_mode="refresh")
            descriptions += page.tools
            cursor = page.next_cursor
            if cursor is None or cursor in cursors:
                break
            cursors.add(cursor)
        # A server that repeats a page names its tools twice.
        by_name: dict[str, mcp.Tool] = {}
        for description in descriptions:
            by_name.setdefault(description.name, description)
        session.versions = {name: _version(tool) for name, tool in by_name.items()}
        return list(by_name.values())

    def _unreachable(self, error: Exception) -> LLMCompilerError:
        cause: BaseException = error
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        if isinstance(cause, LLMCompilerError):
            return cause
        if isinstance(cause, FileNotFoundError):
            return ToolError(
                f"the MCP server {self.name} cannot be started: there is no {self.command[0]!r}",
                hint="check the spelling, and whether the program is installed",
            )
        if isinstance(cause, TimeoutError):
            reason = f"it did not answer within {self._connect_timeout:g} s"
        else:
            reason = f"{cause}" or type(cause).__name__
        stderr = "".join(f"\n  {line}" for line in self._stderr_lines)
        verb = "reached" if self.url else "started"
        return ToolError(
            f"the MCP server {self.name} cannot be {verb}: {reason}{stderr}",
            hint="try the address by hand" if self.url else "try the command by hand",
            retryable=True,
        )

    # Calls.

    async def _call(self, description: mcp.Tool, /, **arguments: Any) -> Any:
        """Call a tool, from the user's event loop."""
        if not self._is_open:
            raise ToolError(f"the MCP server {self.name} was closed")
        try:
            context = current_call()
        except UsageError:
            context = None
        work = self._call_on_portal(description, arguments, context)
        return await asyncio.wrap_future(PORTAL.submit(work))

    async def _call_on_portal(
        self, description: mcp.Tool, arguments: dict[str, Any], context: CallContext | None
    ) -> Any:
        mcp = _sdk()
        from mcp_types import CONNECTION_CLOSED

        session = await self._connect()
        if session.versions.get(description.name) != _version(description):
            is_gone = description.name not in session.versions
            raise ToolError(
                f"the MCP server {self.name} "
                + ("has no tool" if is_gone else "describes another tool")
                + f" {description.name!r} "
                + ("any more" if is_gone else "than when it was loaded"),
                hint="run again with the tools as they are now",
            )

        async def on_progress(
            progress: float, total: float | None = None, message: str | None = None
        ) -> None:
            if context is not None:
                context.report(progress, total, message or "")

        # A server that reads the key can tell a repeated call from a new one.
        meta = None if context is None else {"llmcompiler/idempotency-key": context.key}
        try:
            result = await session.client.call_tool(
                description.name,
                arguments,
                progress_callback=on_progress,
                meta=meta,  # type: ignore[arg-type]
            )
        except mcp.MCPError as error:
            if error.code != CONNECTION_CLOSED and "terminated" not in error.message:
                raise ToolError(f"{description.name}: {error.message}") from error
            raise self._connection_error(session, description, error) from error
        except asyncio.CancelledError:
            raise
        except ValidationError as error:
            # The connection is sound: the SDK read the whole answer and does not know its form.
            raise ToolError(
                f"{description.name}: the server's answer is not a result of MCP "
                f"({_first_fault(error)})",
                hint="the server is at fault: its author can mend it",
            ) from error
        except RuntimeError as error:
            # The SDK raises this for a result that does not fit the server's schema.
            raise ToolError(f"{description.name}: {error}") from error
        except Exception as error:
            raise self._connection_error(session, description, error) from error
        return result_value(description.name, result)

    def _connection_error(
        self, session: _Session, description: mcp.Tool, error: Exception
    ) -> ToolError:
        self._drop(session)
        reason = str(error) or type(error).__name__
        retryable = may_repeat(description)
        return ToolError(
            f"the connection to the MCP server {self.name} broke during {description.name}: "
            f"{reason}",
            hint="" if retryable else "it may have been done or not; it is not repeated by itself",
            retryable=retryable,
        )


def _version(description: mcp.Tool) -> str:
    """A hash of a server's description of a tool."""
    return hashlib.sha256(description.model_dump_json(by_alias=True).encode()).hexdigest()[:16]


def _first_fault(error: ValidationError) -> str:
    """The first fault that the SDK saw in an answer, in a few words."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:300]


def _sdk() -> Any:
    try:
        import mcp
    except ImportError as error:
        raise UsageError(
            "this installation cannot talk to MCP servers",
            hint="install it with the extra: pip install 'llmcompiler-dag[mcp]'",
        ) from error
    # Without a handler, Python prints the SDK's tracebacks about noise of a server to the terminal.
    logger = logging.getLogger("mcp")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return mcp


def _is_url(where: str) -> bool:
    return where.startswith(("http://", "https://"))


def _split_command(where: str | Sequence[str]) -> list[str]:
    try:
        words = shlex.split(where) if isinstance(where, str) else list(where)
    except ValueError as error:
        raise UsageError(f"the command {where!r} cannot be read: {error}") from error
    if not words:
        raise UsageError("an MCP server needs a command or a URL", hint="mcp:COMMAND")
    return words


def _name(url: str | None, command: Sequence[str]) -> str:
    """A name that tells servers apart, without arguments, which may be secret."""
    digest = hashlib.sha256((url or "\0".join(command)).encode()).hexdigest()[:8]
    if url is not None:
        return f"{urlsplit(url).hostname}-{digest}"
    return f"{PurePath(command[0]).name}-{digest}"


@contextmanager
def _collect_lines(lines: deque[str]) -> Iterator[TextIO]:
    """A file for a program's messages, which would disturb a view; its lines go to ``lines``."""
    reading, writing = os.pipe()

    def collect() -> None:
        with os.fdopen(reading, errors="replace") as source:
            for line in source:
                lines.append(line.rstrip())

    thread = threading.Thread(target=collect, name="llmcompiler-mcp-stderr", daemon=True)
    thread.start()
    with os.fdopen(writing, "w") as target:
        yield target
