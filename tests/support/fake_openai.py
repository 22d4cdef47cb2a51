"""A small HTTP server that answers as an OpenAI-compatible endpoint does, or fails as one does.

The server lives in the loop of the test, so that a virtual clock drives both ends. It speaks just
enough HTTP/1.1 for a well-behaved client.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What the server does with one request.

    Attributes:
        text: pieces of the answer, each sent as a chunk of its own.
        more: pieces of further samples, sent in turn with those of the first.
        status: other than 200 for an error with ``error`` as its body.
        headers: further headers.
        error: the ``error`` object of the body.
        delay: seconds before every piece.
        usage: the usage chunk; ``None`` sends none.
        finish: the finish reason; ``None`` ends the stream without one.
        disconnect: break the connection off after the pieces.
        stall: after the pieces, send nothing more and keep the connection.
        raw: lines sent as they are after the pieces, in place of the end of the stream.
        body: a whole body in place of a stream, or in place of ``error``.
        model: the model's name in the answer; empty for the name in the request.
        done: end the stream with ``[DONE]``.
    """

    text: Sequence[str] = ("Hel", "lo")
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    error: dict[str, Any] = field(default_factory=lambda: {"message": "no"})
    delay: float = 0.0
    usage: dict[str, Any] | None = field(
        default_factory=lambda: {
            "prompt_tokens": 12,
            "completion_tokens": 2,
            "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 8},
        }
    )
    finish: str | None = "stop"
    disconnect: bool = False
    stall: bool = False
    raw: str | None = None
    body: str | None = None
    model: str = ""
    more: Sequence[Sequence[str]] = ()
    done: bool = True


def events(*deltas: dict[str, Any], finish: str | None = "stop", **fields: Any) -> Reply:
    """A stream of these deltas, each as the server in question sends it.

    Args:
        deltas: the deltas.
        finish: the finish reason.
        fields: further fields of the last event.
    """

    def event(delta: dict[str, Any], end: str | None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": end}
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        return f"data: {json.dumps({**chunk, 'choices': [choice], **more})}\n\n"

    body = "".join([*(event(delta, None) for delta in deltas), event({}, finish, **fields)])
    return Reply((), raw=f"{body}data: [DONE]\n\n")


@dataclass
class ReceivedRequest:
    """One request: the loop's time, the path, the headers (names in lower case), the JSON body."""

    at: float
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class FakeOpenAI:
    """The server.

    Args:
        replies: in order, the last one again and again, or a function of the request.

    Attributes:
        requests: all requests so far.
        left_early: how many clients left before the end of their answer.
        open: how many requests are being answered.
        most_open: the most requests that were answered at once.
        url: the base URL for clients.
    """

    def __init__(self, replies: Sequence[Reply] | Callable[[ReceivedRequest], Reply]) -> None:
        self.replies = replies
        self.requests: list[ReceivedRequest] = []
        self.left_early = 0
        self.open = 0
        self.most_open = 0
        self.url = ""
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve_connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._connections.values():
            writer.transport.abort()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            del self._connections[task]
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:])}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
        now = asyncio.get_running_loop().time()
        request = ReceivedRequest(now, head[0].split()[1], headers, body)
        self.requests.append(request)
        if callable(self.replies):
            reply = self.replies(request)
        else:
            reply = self.replies[min(len(self.requests), len(self.replies)) - 1]
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        disconnect = asyncio.create_task(reader.read(1))
        sending = asyncio.create_task(self._send(reply, request, writer))
        try:
            await asyncio.wait({disconnect, sending}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                self.left_early += 1
                return False
            return await sending
        finally:
            self.open -= 1
            for task in (disconnect, sending):
                task.cancel()
            await asyncio.gather(disconnect, sending, return_exceptions=True)

    async def _send(
        self, reply: Reply, request: ReceivedRequest, writer: asyncio.StreamWriter
    ) -> bool:
        body = reply.body
        if reply.status != 200 and body is None:
            body = json.dumps({"error": reply.error})
        kind = "application/json" if body is not None else "text/event-stream"
        lines = [f"HTTP/1.1 {reply.status} Scripted", f"Content-Type: {kind}"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        if body is not None:
            lines += [f"Content-Length: {len(body.encode())}", "", body]
            writer.write("\r\n".join(lines).encode())
            await writer.drain()
            return True
        writer.write("\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode())
        samples = (reply.text, *reply.more)
        for pieces in itertools.zip_longest(*samples):
            await asyncio.sleep(reply.delay)
            for number, piece in enumerate(pieces):
                if piece is not None:
                    self._event(
                        writer, self._chunk(reply, request, {"content": piece}, None, number)
                    )
            await writer.drain()
        if reply.raw is not None:
            self._write(writer, reply.raw)
            await writer.drain()
        if reply.stall:
            await asyncio.get_running_loop().create_future()
        if reply.disconnect:
            writer.close()
            return False
        if reply.raw is None:
            if reply.finish is not None:
                for number in range(len(samples)):
                    self._event(writer, self._chunk(reply, request, {}, reply.finish, number))
            if reply.usage is not None:
                self._event(
                    writer,
                    {**self._chunk(reply, request, {}, None), "choices": []}
                    | {"usage": reply.usage},
                )
            if reply.done:
                self._write(writer, "data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    @staticmethod
    def _chunk(
        reply: Reply,
        request: ReceivedRequest,
        delta: dict[str, Any],
        finish: str | None,
        number: int = 0,
    ) -> dict[str, Any]:
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": reply.model or request.body.get("model", ""),
            "choices": [{"index": number, "delta": delta, "finish_reason": finish}],
        }

    def _event(self, writer: asyncio.StreamWriter, data: dict[str, Any]) -> None:
        self._write(writer, f"data: {json.dumps(data)}\n\n")

    @staticmethod
    def _write(writer: asyncio.StreamWriter, text: str) -> None:
        data = text.encode()
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


@asynccontextmanager
async def fake_openai(
    replies: Sequence[Reply] | Callable[[ReceivedRequest], Reply],
) -> AsyncIterator[FakeOpenAI]:
    """A running server; its ``url`` is the base URL to give to a client."""
    server = FakeOpenAI(replies)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
