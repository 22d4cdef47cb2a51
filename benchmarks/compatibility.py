"""Which parts of the product work with a real server, cell by cell; can keep what it sent.

Start a server with a small model, then:

    python benchmarks/compatibility.py --url http://127.0.0.1:8000 --server llama-cpp-python \
        --model smollm2 --keep tests/golden/servers/llama-cpp-python.json

A cell passes if the server's answers were understood; whether a model of 135M parameters is right
is another matter. ``tests/llm/test_compatibility.py`` replays the kept answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from llmcompiler.errors import LLMCompilerError
from llmcompiler.llm.base import Completion, Request, complete
from llmcompiler.llm.endpoint import EndpointModel
from llmcompiler.llm.messages import Function, Message
from tests.support.server_cassette import Exchange, record, to_json

ADD = Function(
    "add",
    "Add two numbers.",
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
)
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def ask(text: str, **fields: Any) -> Request:
    """A short question."""
    return Request((Message("user", text),), max_tokens=fields.pop("max_tokens", 32), **fields)


def describe(answer: Completion) -> dict[str, Any]:
    """What the package read from an answer."""
    return {
        "text": answer.text,
        "finish": answer.finish,
        "calls": [[call.name, call.arguments] for call in answer.calls],
        "prompt_tokens": answer.usage.prompt_tokens,
        "completion_tokens": answer.usage.completion_tokens,
    }


async def answer_text(model: EndpointModel) -> Any:
    """A streamed answer with its usage."""
    return describe(await complete(model, ask("Say hello.")))


async def call_function(model: EndpointModel) -> Any:
    """A function call that the server is told to make."""
    request = ask("What is 1 + 2?", functions=(ADD,), extra={"tool_choice": "required"})
    return describe(await complete(model, request))


async def fit_schema(model: EndpointModel) -> Any:
    """An answer that fits a schema."""
    return describe(await complete(model, ask("Name a city, as JSON.", schema=SCHEMA)))


async def draft(model: EndpointModel) -> Any:
    """Two samples of one prompt."""
    request = ask("Name a colour.", temperature=1.0, seed=1, extra={"n": 2}, max_tokens=8)
    samples = [piece async for _, piece in model.samples(request) if isinstance(piece, Completion)]
    return [describe(sample) for sample in samples]


async def find_abilities(model: EndpointModel) -> Any:
    """What the trials find out."""
    return sorted(await model.capabilities())


CELLS: dict[str, Callable[[EndpointModel], Awaitable[Any]]] = {
    "text": answer_text,
    "functions": call_function,
    "schema": fit_schema,
    "drafts": draft,
    "abilities": find_abilities,
}


async def run_cell(name: str, url: str, model_name: str) -> dict[str, Any]:
    """The result of a cell, or the error that a user would read."""
    model = EndpointModel(model_name, base_url=f"{url}/v1", api_key="none", retries=0)
    try:
        return {"result": await CELLS[name](model)}
    except LLMCompilerError as error:
        # The port is another one the next time.
        return {"error": error.message.replace(url, "URL"), "hint": error.hint}
    finally:
        await model.aclose()


async def measure(url: str, model_name: str) -> dict[str, Any]:
    """All cells of one server."""
    cells = {}
    for name in CELLS:
        exchanges: list[Exchange] = []
        async with record(url, exchanges) as address:
            cells[name] = await run_cell(name, address, model_name)
        cells[name]["exchanges"] = to_json(exchanges)
    return cells


def main() -> None:
    """Print the table of one server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="the server, without /v1")
    parser.add_argument("--server", required=True, help="its name")
    parser.add_argument("--model", required=True, help="the model's name there")
    parser.add_argument("--keep", type=Path, help="a file for what it sent")
    arguments = parser.parse_args()
    cells = asyncio.run(measure(arguments.url, arguments.model))
    print(f"| cell | {arguments.server} |\n|---|---|")
    for name, cell in cells.items():
        print(f"| {name} | {cell.get('error') or json.dumps(cell['result'])[:100]} |")
    if arguments.keep:
        cassette = {"server": arguments.server, "model": arguments.model, "cells": cells}
        arguments.keep.write_text(json.dumps(cassette, indent=1) + "\n")


if __name__ == "__main__":
    main()
