"""``llmcompiler mcp``, driven by another program through the official client."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import mcp
import pytest

from llmcompiler.log.store import RunStore
from tests.support.fake_openai import ReceivedRequest, Reply, fake_openai

PLAN = (
    '1. country("Japan")\n2. country("Peru")\n3. calc("$1.population > $2.population")\n4. join()'
)


def answers(request: ReceivedRequest) -> Reply:
    """A plan for a planner, an answer for a joiner."""
    asks_for_plan = "join()" in json.dumps(request.body["messages"])
    return Reply([PLAN] if asks_for_plan else ["Japan"])


@pytest.fixture
def drive(tmp_path: Path) -> Callable[..., Any]:
    """Run ``work`` with a client of a server whose model is scripted."""

    def drive(work: Callable[[mcp.Client], Awaitable[Any]], replies: Any = answers) -> Any:
        async def main() -> Any:
            async with fake_openai(replies) as model:
                options = ["--model", "openai:scripted", "--base-url", model.url]
                parameters = mcp.StdioServerParameters(
                    command=sys.executable,
                    args=["-m", "llmcompiler", "mcp", "--store", str(tmp_path / "s"), *options],
                    env={
                        "PYTHONPATH": str(Path(__file__).parent.parent.parent),
                        "OPENAI_API_KEY": "k",
                    },
                )
                async with mcp.Client(parameters) as client:
                    return await work(client)

        return asyncio.run(asyncio.wait_for(main(), 100))

    return drive


def test_a_question_is_run_with_progress_replayed_and_reported(drive: Callable[..., Any]) -> None:
    reports: list[tuple[float, str | None]] = []

    async def on_progress(
        progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        reports.append((progress, message))

    async def work(client: mcp.Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"run", "run_program", "plan", "check", "replay", "report"}
        read_only = {name for name, tool in tools.items() if tool.annotations is not None}
        assert read_only == set(tools) - {"run", "run_program"}
        arguments = {"what": "Which is larger, Japan or Peru?"}
        result = await client.call_tool("run", arguments, progress_callback=on_progress)
        answer = result.structured_content
        assert (answer["status"], answer["answer"], answer["tasks"]) == ("answered", "Japan", 3)
        replay = await client.call_tool("replay", {"run": answer["run"]})
        assert replay.structured_content["tasks"] == 3
        report = await client.call_tool("report", {})
        assert "Which is larger" in report.content[0].text

    drive(work)
    numbers = [number for number, _ in reports]
    assert numbers == sorted(set(numbers))
    lines = "\n".join(message or "" for _, message in reports)
    for expected in ("plan 1 is complete", "done       2. country", "answered in"):
        assert expected in lines


def test_a_plan_is_run_without_a_model_and_planned_and_checked_with_diagnostics(
    drive: Callable[..., Any],
) -> None:
    async def work(client: mcp.Client) -> None:
        planned = await client.call_tool("plan", {"question": "Which is larger?"})
        assert 'country("Peru")' in planned.structured_content["result"]
        arguments = {"what": '1. calc("$a + 1")\n2. join($1)', "inputs": {"a": 2}}
        result = await client.call_tool("run", arguments)
        assert result.structured_content["value"] == 3
        checked = await client.call_tool("check", {"plan": "1. clac(1)"})
        assert checked.structured_content["ok"] is False
        assert "calc" in checked.structured_content["diagnostics"][0]
        wrong = await client.call_tool("report", {"run": "nothing"})
        assert wrong.is_error
        assert 'no run "nothing"' in wrong.content[0].text

    drive(work)


def test_who_cancels_a_call_cancels_its_run(drive: Callable[..., Any], tmp_path: Path) -> None:
    async def work(client: mcp.Client) -> None:
        planner_called = asyncio.Event()

        async def on_progress(
            progress: float, total: float | None = None, message: str | None = None
        ) -> None:
            if message and "planner asks" in message:
                planner_called.set()

        arguments = {"what": "Which is larger?"}
        call = asyncio.create_task(
            client.call_tool("run", arguments, progress_callback=on_progress)
        )
        await planner_called.wait()
        call.cancel()
        await asyncio.wait((call,))
        # The server keeps serving; some later answer shows that the run was interrupted.
        while (await client.call_tool("report", {})).content[0].text.count("interrupted") == 0:
            pass

    drive(work, [Reply(["1. country("], stall=True)])
    assert [run.status for run in RunStore(tmp_path / "s").runs()] == ["interrupted"]


PROGRAM = """\
def main(names: list):
    found = [country(name) for name in names]
    return max(found, key=lambda each: each.population).name
"""


def test_a_program_is_checked_run_and_recorded(drive: Callable[..., Any]) -> None:
    async def work(client: mcp.Client) -> None:
        arguments: dict[str, Any] = {"code": PROGRAM, "inputs": {"names": ["Peru", "Japan"]}}
        result = (await client.call_tool("run_program", arguments)).structured_content
        assert (result["status"], result["value"], result["tasks"]) == ("answered", "Japan", 1)
        replay = await client.call_tool("replay", {"run": result["run"]})
        assert replay.structured_content["answer"] == "Japan"
        broken = await client.call_tool("run_program", {"code": "x = contry('Chad')\nimport os\n"})
        assert broken.is_error
        text = broken.content[0].text
        for expected in ('did you mean "country"', "E502", "line 2"):
            assert expected in text
        assert "contry" not in (await client.call_tool("report", {})).content[0].text

    drive(work)
