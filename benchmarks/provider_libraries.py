"""Compares libraries that reach providers: size, time of import, and how they pass a stream on.

A server on this machine speaks Anthropic's messages API and sends a piece every 20 ms. So the delay
of a piece is the library's own. Each library is measured in an environment of its own:

    python -m venv a && a/bin/pip install 'any-llm-sdk[anthropic]'
    a/bin/python benchmarks/provider_libraries.py any-llm
    python -m venv b && b/bin/pip install litellm
    b/bin/python benchmarks/provider_libraries.py litellm
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

PIECES = 50
GAP_S = 0.02
MODULES = {"any-llm": "any_llm", "litellm": "litellm"}


def sse(event: dict[str, Any]) -> bytes:
    """An event as Anthropic sends it, as a chunk of HTTP."""
    data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request with thoughts, a text whose pieces carry the time, and a call."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length")
    )
    await reader.readexactly(length)
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    usage = {"input_tokens": 25, "cache_read_input_tokens": 10, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "c"}
    message |= {"stop_reason": None, "stop_sequence": None, "usage": usage}
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
        (
            {"type": "thinking", "thinking": "", "signature": ""},
            [{"type": "thinking_delta", "thinking": "hmm"}],
        ),
        ({"type": "text", "text": ""}, [{"type": "text_delta", "text": ""}] * PIECES),
        (
            {"type": "tool_use", "id": "t", "name": "add", "input": {}},
            [{"type": "input_json_delta", "partial_json": part} for part in ('{"a"', ": 1}")],
        ),
    ]
    writer.write(sse({"type": "message_start", "message": message}))
    for index, (block, deltas) in enumerate(blocks):
        writer.write(sse({"type": "content_block_start", "index": index, "content_block": block}))
        for delta in deltas:
            if delta["type"] == "text_delta":
                await asyncio.sleep(GAP_S)
                delta["text"] = f"{time.perf_counter():.6f} "
            writer.write(sse({"type": "content_block_delta", "index": index, "delta": delta}))
            await writer.drain()
        writer.write(sse({"type": "content_block_stop", "index": index}))
    end = {"stop_reason": "tool_use", "stop_sequence": None}
    writer.write(sse({"type": "message_delta", "delta": end, "usage": {"output_tokens": 15}}))
    writer.write(sse({"type": "message_stop"}) + b"0\r\n\r\n")
    await writer.drain()
    writer.close()


async def ask(library: str, url: str) -> AsyncIterator[Any]:
    """The chunks of the library's answer."""
    tool = {"type": "function", "function": {"name": "add", "description": "", "parameters": {}}}
    tool["function"]["parameters"] = {"type": "object", "properties": {}}  # type: ignore[index]
    request: dict[str, Any] = {
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [tool],
        "max_tokens": 100,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if library == "any-llm":
        from any_llm import AnyLLM

        client = AnyLLM.create("anthropic", api_key="k", api_base=url)
        return await client.acompletion("claude-x", **request)  # type: ignore[no-any-return]
    import litellm

    name = "anthropic/claude-3-5-sonnet-20241022"
    return await litellm.acompletion(name, api_key="k", api_base=url, **request)  # type: ignore[no-any-return]


async def measure_stream(library: str) -> dict[str, Any]:
    """Delays of the pieces, and what of the answer came through."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    delays, thoughts, arguments, usage, chunks = [], "", "", None, 0
    async for chunk in await ask(library, url):
        now = time.perf_counter()
        chunks += 1
        fields = chunk.model_dump()
        usage = fields.get("usage") or usage
        for choice in fields["choices"]:
            delta = choice["delta"]
            if (delta.get("content") or "").strip():
                delays.append(now - float(delta["content"]))
            thoughts += str(delta.get("reasoning") or delta.get("reasoning_content") or "")
            for call in delta.get("tool_calls") or ():
                arguments += call["function"].get("arguments") or ""
    return {
        "pieces_of_text": len(delays),
        "delay_ms_median": round(1000 * statistics.median(delays), 2),
        "delay_ms_worst": round(1000 * max(delays), 2),
        "thoughts": thoughts,
        "arguments": arguments,
        "prompt_tokens": (usage or {}).get("prompt_tokens"),
        "completion_tokens": (usage or {}).get("completion_tokens"),
    }


def import_seconds(module: str) -> float:
    """The time of an import in a fresh process, the best of three."""
    program = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter()-t)"
    runs = [
        float(
            subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
        )
        for _ in range(3)
    ]
    return round(min(runs), 2)


def installed_megabytes() -> int:
    """The size of everything that is installed in this environment."""
    folder = Path(sysconfig.get_path("purelib"))
    files = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    return round(sum(file.stat().st_size for file in files) / 1e6)


def main() -> None:
    """Measure a library and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=MODULES)
    library = parser.parse_args().library
    figures: dict[str, Any] = {"library": library, "installed_mb": installed_megabytes()}
    figures["import_s"] = import_seconds(MODULES[library])
    if library == "any-llm":
        figures["import_with_provider_s"] = import_seconds("any_llm.providers.anthropic")
    figures |= asyncio.run(measure_stream(library))
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
