"""A server that speaks the Model Context Protocol, as a source of tools.

One connection serves all calls at once, from any event loop. It is made when it is first needed and
again when it broke, by a task of its own on the ``PORTAL``'s loop, since the SDK wants a connection
to be closed by whoever opened it. A tool is called only while the server describes it as it did
when the tool was loaded: one that changed meanwhile fails, and says so.

The module must not know plans, runs or the log.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
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

from llmcompiler.errors import LLMCompilerError, ToolError, UsageError
from llmcompiler.tools.base import Tool
from llmcompiler.tools.context import CallContext, current_call
from llmcompiler.tools.mcp.listing import described_tool, may_repeat, value_of
from llmcompiler.tools.mcp.portal import PORTAL

if TYPE_CHECKING:
    import mcp

TIMEOUT = 60.0
"""Seconds that a call may take unless said otherwise."""

CONNECT_TIMEOUT = 60.0
"""Seconds that a server may take to start: a launcher may fetch it from a package index first."""

_PAGES = 100
_KEPT_LINES = 20


@dataclass
class _Session:
    """A connection that stands.

    Attributes:
        client: the SDK's.
        closing: set to end it.
        stale: whether the server said that its tools changed.
        versions: of its tools as it describes them now, by name.
    """

    client: mcp.Client
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    stale: bool = False
    versions: dict[str, str] = field(default_factory=dict)


class McpServer:
    """A server of tools: a program that is started, or one that is reached over HTTP.

    Give it to ``LLMCompiler(tools=[...])`` or ``load_tools`` like any other source of tools, and
    close it at the end, or use it in a ``with`` block.

    Args:
        where: a command line, one that is split already, or an ``https://`` URL.
        env: variables for the program, besides a few harmless ones of this process.
        headers: sent with each request to a URL.
        directory: where the program starts.
        prefix: put before the names of its tools, to tell servers apart.
        name: what it is called in messages and in the log; by default, something like the
            program's name, without arguments, which may be secret.
        timeout: seconds that one attempt at a call may take.
        connect_timeout: seconds that starting or reaching it may take.

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
        self.command = [] if self.url else _words(where)
        self.name = name or _name(self.url, self.command)
        self._env = dict(env or {})
        self._headers = dict(headers or {})
        self._directory = directory
        self._prefix = prefix
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._opening = threading.Lock()
        self._held = False
        self._session: _Session | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._connecting: asyncio.Lock | None = None
        self._tools: list[Tool] | None = None
        self._last_words: deque[str] = deque(maxlen=_KEPT_LINES)

    # What users call.

    def tools(self) -> list[Tool]:
        """The server's tools, as it described them when it was first asked.

        Raises:
            UsageError: the server cannot be started or reached, or does not answer.
        """
        with self._opening:
            if self._tools is None:
                self._hold()
                try:
                    self._tools = PORTAL.submit(self._load()).result()
                except ToolError as error:
                    self._let_go()
                    raise UsageError(error.message, hint=error.hint) from error
                except BaseException:
                    self._let_go()
                    raise
            return self._tools

    def close(self) -> None:
        """End the connection, and the program if there is one. May be called twice."""
        with self._opening:
            self._tools = None
            self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hold(self) -> None:
        if not self._held:
            PORTAL.hold()
            self._held = True
            self._connecting = asyncio.Lock()

    def _let_go(self) -> None:
        if self._held:
            PORTAL.submit(self._disconnect()).result()
            self._held = False
            PORTAL.release()

    # On the portal's loop.

    async def _load(self) -> list[Tool]:
        session = await self._connected()
        return [
            described_tool(
                said,
                functools.partial(self._call, said),
                prefix=self._prefix,
                origin=f"mcp:{self.name}",
                timeout=self._timeout,
            )
            for said in await self._list(session)
        ]

    async def _connected(self) -> _Session:
        """The connection, made if there is none."""
        assert self._connecting is not None
        async with self._connecting:
            session = self._session
            if session is None:
                opened: asyncio.Future[_Session] = asyncio.get_running_loop().create_future()
                self._keeper = asyncio.create_task(self._keep(opened))
                session = await asyncio.shield(opened)
                self._session = session
            if session.stale:
                await self._list(session)
            return session

    async def _keep(self, opened: asyncio.Future[_Session]) -> None:
        """Hold a connection open, from its beginning to its end."""
        import anyio

        session: _Session | None = None
        try:
            with anyio.fail_after(self._connect_timeout) as patience:
                async with self._client() as client:
                    session = _Session(client)
                    await self._list(session)
                    patience.deadline = math.inf
                    opened.set_result(session)
                    async with self._watched(session):
                        await session.closing.wait()
        except Exception as error:  # noqa: BLE001 - whatever it is, the server cannot be used
            # Of a connection that stood, whoever makes the next call hears.
            if not opened.done():
                opened.set_exception(self._unreachable(error))
        finally:
            if session is not None:
                self._drop(session)

    def _drop(self, session: _Session) -> None:
        """Make no more calls over a connection that broke."""
        session.closing.set()
        if self._session is session:
            self._session = None

    async def _disconnect(self) -> None:
        if self._session is not None:
            self._drop(self._session)
        if self._keeper is not None:
            await asyncio.wait((self._keeper,))
            self._keeper = None

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[mcp.Client]:
        mcp = _sdk()
        from mcp.client.stdio import stdio_client
        from mcp.client.streamable_http import streamable_http_client
        from mcp.shared._httpx_utils import create_mcp_http_client

        async def heard(message: Any) -> None:
            if isinstance(message, mcp.types.ToolListChangedNotification) and self._session:
                self._session.stale = True

        if self.url is not None:
            async with create_mcp_http_client(headers=self._headers) as http:
                transport = streamable_http_client(self.url, http_client=http)
                async with mcp.Client(transport, message_handler=heard) as client:
                    yield client
            return
        program, *args = self.command
        parameters = mcp.StdioServerParameters(
            command=program, args=args, env=self._env, cwd=self._directory
        )
        self._last_words.clear()
        with _collected(self._last_words) as errors:
            transport = stdio_client(parameters, errlog=errors)
            async with mcp.Client(transport, message_handler=heard) as client:
                yield client

    @asynccontextmanager
    async def _watched(self, session: _Session) -> AsyncIterator[None]:
        """Hear of changed tools also from servers that tell only subscribers."""
        from mcp_types.version import MODERN_PROTOCOL_VERSIONS

        tools = session.client.server_capabilities.tools
        modern = session.client.protocol_version in MODERN_PROTOCOL_VERSIONS
        if not modern or tools is None or not tools.list_changed:
            yield
            return

        async def listen() -> None:
            async with session.client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    session.stale = True

        listening = asyncio.create_task(listen())
        try:
            yield
        finally:
            listening.cancel()
            await asyncio.wait((listening,))
            if not listening.cancelled():
                listening.exception()  # a lost subscription is a lost connection, which shows

    async def _list(self, session: _Session) -> list[mcp.Tool]:
        """The server's tools; their versions are noted."""
        session.stale = False
        found: list[mcp.Tool] = []
        cursor: str | None = None
        for _ in range(_PAGES):
            page = await session.client.list_tools(cursor=cursor, cache_mode="refresh")
            found += page.tools
            cursor = page.next_cursor
            if cursor is None:
                break
        session.versions = {said.name: _version(said) for said in found}
        return found

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
            why = f"it did not answer within {self._connect_timeout:g} s"
        else:
            why = f"{cause}" or type(cause).__name__
        said = "".join(f"\n  {line}" for line in self._last_words)
        doing = "reached" if self.url else "started"
        return ToolError(
            f"the MCP server {self.name} cannot be {doing}: {why}{said}",
            hint="try the address by hand" if self.url else "try the command by hand",
            retryable=True,
        )

    # Calls.

    async def _call(self, said: mcp.Tool, /, **arguments: Any) -> Any:
        """Call a tool, from the user's event loop."""
        if not self._held:
            raise ToolError(f"the MCP server {self.name} was closed")
        try:
            context = current_call()
        except UsageError:
            context = None
        work = self._call_on_portal(said, arguments, context)
        return await asyncio.wrap_future(PORTAL.submit(work))

    async def _call_on_portal(
        self, said: mcp.Tool, arguments: dict[str, Any], context: CallContext | None
    ) -> Any:
        mcp = _sdk()
        from mcp_types import CONNECTION_CLOSED

        session = await self._connected()
        if session.versions.get(said.name) != _version(said):
            gone = said.name not in session.versions
            raise ToolError(
                f"the MCP server {self.name} "
                + ("has no tool" if gone else "describes another tool")
                + f" {said.name!r} "
                + ("any more" if gone else "than when it was loaded"),
                hint="run again with the tools as they are now",
            )

        async def heard(
            progress: float, total: float | None = None, message: str | None = None
        ) -> None:
            if context is not None:
                context.report(progress, total, message or "")

        # Servers that know the key can tell a repetition from a second call.
        meta = None if context is None else {"llmcompiler/idempotency-key": context.key}
        try:
            result = await session.client.call_tool(
                said.name,
                arguments,
                progress_callback=heard,
                meta=meta,  # type: ignore[arg-type]
            )
        except mcp.MCPError as error:
            if error.code != CONNECTION_CLOSED and "terminated" not in error.message:
                raise ToolError(f"{said.name}: {error.message}") from error
            raise self._broken(session, said, error) from error
        except asyncio.CancelledError:
            raise
        except RuntimeError as error:
            # The SDK's word for a result that does not fit the schema which the server gave.
            raise ToolError(f"{said.name}: {error}") from error
        except Exception as error:
            raise self._broken(session, said, error) from error
        return value_of(said.name, result)

    def _broken(self, session: _Session, said: mcp.Tool, error: Exception) -> ToolError:
        self._drop(session)
        why = str(error) or type(error).__name__
        again = may_repeat(said)
        return ToolError(
            f"the connection to the MCP server {self.name} broke during {said.name}: {why}",
            hint="" if again else "it may have been done or not; it is not repeated by itself",
            retryable=again,
        )


def _version(said: mcp.Tool) -> str:
    """A hash of all that the server says of a tool."""
    return hashlib.sha256(said.model_dump_json(by_alias=True).encode()).hexdigest()[:16]


def _sdk() -> Any:
    try:
        import mcp
    except ImportError as error:
        raise UsageError(
            "this installation cannot talk to MCP servers",
            hint="install it with the extra: pip install 'llmcompiler-dag[mcp]'",
        ) from error
    return mcp


def _is_url(where: str) -> bool:
    return where.startswith(("http://", "https://"))


def _words(where: str | Sequence[str]) -> list[str]:
    try:
        words = shlex.split(where) if isinstance(where, str) else list(where)
    except ValueError as error:
        raise UsageError(f"the command {where!r} cannot be read: {error}") from error
    if not words:
        raise UsageError("an MCP server needs a command or a URL", hint="mcp:COMMAND")
    return words


def _name(url: str | None, command: Sequence[str]) -> str:
    """A name that tells servers apart and says nothing that may be secret."""
    digest = hashlib.sha256((url or "\0".join(command)).encode()).hexdigest()[:8]
    if url is not None:
        return f"{urlsplit(url).hostname}-{digest}"
    return f"{PurePath(command[0]).name}-{digest}"


@contextmanager
def _collected(lines: deque[str]) -> Iterator[TextIO]:
    """A file for a program's messages, whose last lines are kept; they would disturb a view."""
    reading, writing = os.pipe()

    def collect() -> None:
        with os.fdopen(reading, errors="replace") as source:
            for line in source:
                lines.append(line.rstrip())

    thread = threading.Thread(target=collect, name="llmcompiler-mcp-stderr", daemon=True)
    thread.start()
    with os.fdopen(writing, "w") as target:
        yield target
