"""Servers that break the protocol lose the tool or the call at fault, and nothing beside it."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from llmcompiler import LLMCompiler, McpServer, parse_plan
from llmcompiler.run.result import RunResult

PROGRAM = Path(__file__).parent.parent / "support" / "raw_mcp_server.py"
SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}}


def description(name: str, schema: Any = SCHEMA, **more: Any) -> dict[str, Any]:
    return {"name": name, "description": name, "inputSchema": schema, **more}


def odd_server(*tools: Any, **more: Any) -> McpServer:
    return McpServer(
        [sys.executable, str(PROGRAM), json.dumps({"tools": tools, **more})], name="odd"
    )


def execute(server: McpServer, plan: str) -> RunResult:
    async def main() -> RunResult:
        async with LLMCompiler([server], store=":memory:") as compiler:
            return await compiler.execute(parse_plan(plan))

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (description("bad", {"properties": {}}), "type"),
        (description("bad", {"type": "array"}), "type"),
        (description("bad", {"type": "object", "properties": []}), "properties"),
        (description("bad", SCHEMA, outputSchema={"description": "no type"}), "outputSchema"),
        (description("bad", None), "inputSchema"),
        ({"name": "bad"}, "inputSchema"),
        ({"description": "no name", "inputSchema": SCHEMA}, "name"),
        (description("bad", SCHEMA, description=7), "description"),
        ("bad", ""),
        (None, ""),
    ],
)
def test_a_description_that_the_sdk_refuses_costs_that_tool_only(
    bad: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING),
        odd_server(description("first"), bad, description("last")) as server,
    ):
        assert [tool.name for tool in server.tools()] == ["first", "last"]
        assert execute(server, '1. last("a")\n2. join($1)').value == "last:a"
    warnings = [record.message for record in caplog.records if "is left out" in record.message]
    assert len(warnings) == 1, "said once, however often the tools are listed"
    label = "'bad'" if isinstance(bad, dict) and bad.get("name") == "bad" else "number 2"
    assert warnings[0].startswith(f"the MCP server odd: its tool {label} is left out")
    assert reason in warnings[0]


@pytest.mark.parametrize(
    "result",
    [
        {"content": [{"type": "video", "data": "AAAA"}]},
        {"content": None},
        {"content": "text"},
        {"content": [], "structuredContent": [1, 2]},
        {"content": [{"type": "text"}]},
        {"isError": "perhaps", "content": []},
    ],
)
def test_a_result_that_the_sdk_cannot_model_is_that_calls_failure(result: Any) -> None:
    with odd_server(description("echo"), results={"odd": result}) as server:
        run = execute(server, '1. echo("odd")\n2. echo("fine")\n3. echo("too")\n4. join($2, $3)')
    assert run.value == {"2": "echo:fine", "3": "echo:too"}
    failure = run.observations[1].failure
    assert failure is not None
    assert failure.message.startswith("echo: the server's answer is not a result of MCP (")
    assert "connection" not in failure.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], '{"error": "rate limited", "code": 429}'),
        (["try later"], 'try later\n{"error": "rate limited", "code": 429}'),
        (['{"code": 429, "error": "rate limited"}'], '{"code": 429, "error": "rate limited"}'),
    ],
)
def test_the_data_of_an_error_is_in_its_message_once(content: list[str], message: str) -> None:
    result = {
        "content": [{"type": "text", "text": text} for text in content],
        "structuredContent": {"error": "rate limited", "code": 429},
        "isError": True,
    }
    with odd_server(description("echo"), results={"odd": result}) as server:
        failure = execute(server, '1. echo("odd")\n2. join($1)').observations[1].failure
    assert failure is not None
    assert failure.message.endswith(message)
    assert failure.message.count("429") == 1


def test_pages_end_where_a_cursor_comes_again() -> None:
    with odd_server(description("first"), description("last"), cursor="again") as server:
        assert [tool.name for tool in server.tools()] == ["first", "last"]


def test_a_line_of_noise_on_standard_output_is_not_shown(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with odd_server(description("echo"), noise="Starting my server v1.2") as server:
        assert execute(server, '1. echo("a")\n2. join($1)').value == "echo:a"
    assert "Traceback" not in capfd.readouterr().err
