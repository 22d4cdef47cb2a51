"""Keeps what a real server sent, and sends it again.

A cassette is a JSON file: for each request, in order, its path and body, and the status, type and
text of the answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import httpx


@dataclass(frozen=True)
class Exchange:
    """A request and what the server sent."""

    path: str
    request: dict[str, Any]
    status: int
    kind: str
    text: str


Answer: TypeAlias = Callable[[str, dict[str, Any]], Awaitable[Exchange]]


@asynccontextmanager
async def serve(answer: Answer) -> AsyncIterator[str]:
    """A server on this machine that answers by ``answer``; the value is its address."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = {name.lower(): value for name, _, value in (x.partition(":") for x in head)}
            body = await reader.readexactly(int(fields.get("content-length", 0)))
            exchange = await answer(head[0].split()[1], json.loads(body or b"{}"))
            data = exchange.text.encode()
            writer.write(
                f"HTTP/1.1 {exchange.status} Recorded\r\nContent-Type: {exchange.kind}\r\n"
                f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode()
                + data
            )
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@asynccontextmanager
async def record(target: str, exchanges: list[Exchange]) -> AsyncIterator[str]:
    """A server that passes requests on to ``target``, and adds what came back to ``exchanges``."""
    # Some servers close a connection after an error without saying so.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=600, trust_env=False, limits=limits) as client:

        async def forward(path: str, body: dict[str, Any]) -> Exchange:
            try:
                answer = await client.post(target + path, json=body)
            except httpx.HTTPError as error:
                raise ConnectionError(str(error)) from error
            kind = answer.headers.get("content-type", "")
            exchanges.append(Exchange(path, body, answer.status_code, kind, answer.text))
            return exchanges[-1]

        async with serve(forward) as address:
            yield address


@asynccontextmanager
async def replay(exchanges: list[dict[str, Any]]) -> AsyncIterator[str]:
    """A server that sends recorded answers, each for a request of the same path and body."""
    left = [Exchange(**exchange) for exchange in exchanges]

    async def find(path: str, body: dict[str, Any]) -> Exchange:
        for number, exchange in enumerate(left):
            if (exchange.path, exchange.request) == (path, body):
                return left.pop(number)
        sample = json.dumps({"error": {"message": f"not recorded: {json.dumps(body)[:300]}"}})
        return Exchange(path, body, 404, "application/json", sample)

    async with serve(find) as address:
        yield address


def to_json(exchanges: list[Exchange]) -> list[dict[str, Any]]:
    """The exchanges as a cassette holds them."""
    return [asdict(exchange) for exchange in exchanges]
