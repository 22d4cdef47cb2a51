"""Takes tools out of a server's listing that the SDK cannot model.

The SDK refuses a whole page of a listing for one bad description, so that a server with nineteen
good tools has none. The screen stands between the transport and the SDK's client, and judges each
description of a page alone.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

if TYPE_CHECKING:
    from mcp.client import Transport
    from mcp.client._transport import ReadStream, TransportStreams
    from mcp.shared.message import SessionMessage

_log = logging.getLogger(__name__)
_FIRST_VERSION = "2025-11-25"


class ListingScreen:
    """Judges a server's descriptions of tools.

    Args:
        server: the server's name, for messages.

    Attributes:
        refused: why a tool was left out, by its name.
    """

    def __init__(self, server: str) -> None:
        self.refused: dict[str, str] = {}
        self._server = server
        self._version = _FIRST_VERSION

    @asynccontextmanager
    async def screen(self, transport: Transport) -> AsyncIterator[TransportStreams]:
        """A transport whose listings hold good descriptions only."""
        async with transport as (reading, writing):
            yield _ScreenedStream(reading, self), writing

    def examine(self, message: SessionMessage | Exception) -> None:
        """Take bad descriptions out of a message, if it is a page of a listing."""
        result = getattr(getattr(message, "message", None), "result", None)
        if not isinstance(result, dict):
            return
        if isinstance(version := result.get("protocolVersion"), str):
            self._version = version
        tools = result.get("tools")
        if not isinstance(tools, list):
            return
        good: list[Any] = []
        for position, description in enumerate(tools, start=1):
            reason = self._fault(description)
            if reason is None:
                good.append(description)
            else:
                self._refuse(description, position, reason)
        if len(good) < len(tools):
            result["tools"] = good

    def _fault(self, description: Any) -> str | None:
        """Why the SDK would refuse a description; ``None`` if it would not."""
        from mcp_types import Tool
        from mcp_types.methods import validate_server_result

        try:
            # The later protocol demands fields of a page; their absence is no tool's fault.
            page = {"tools": [description], "ttlMs": 0, "cacheScope": "private"}
            page["resultType"] = "complete"
            validate_server_result("tools/list", self._version, page)
            Tool.model_validate(description, by_name=False)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            places = [str(part) for part in first["loc"] if part != "tools" and part != 0]
            return f"{'.'.join(places)}: {first['msg']}" if places else first["msg"]
        except (KeyError, ValueError):
            return None  # the SDK knows no such version, and says so itself
        return None

    def _refuse(self, description: Any, position: int, reason: str) -> None:
        name = description.get("name") if isinstance(description, dict) else None
        label = repr(name) if isinstance(name, str) else f"number {position}"
        if self.refused.get(label) != reason:
            self.refused[label] = reason
            _log.warning(
                "the MCP server %s: its tool %s is left out, because its description is wrong: %s",
                self._server,
                label[:100],
                reason[:300],
            )


class _ScreenedStream:
    """A stream of messages, each examined before the SDK sees it."""

    def __init__(
        self, stream: ReadStream[SessionMessage | Exception], screen: ListingScreen
    ) -> None:
        self._stream = stream
        self._screen = screen

    @property
    def last_context(self) -> Any:
        """The sender's context, which the SDK looks for."""
        return getattr(self._stream, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        message = await self._stream.receive()
        self._screen.examine(message)
        return message

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        message = await self._stream.__anext__()
        self._screen.examine(message)
        return message

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return await self._stream.__aexit__(kind, error, trace)
