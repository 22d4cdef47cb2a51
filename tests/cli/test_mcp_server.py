"""``llmcompiler mcp``: another program drives it through the official client."""

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
    """Does something with a client of a server that asks a scripted model."""

    def drive(work: Callable[[mcp.Client], Awaitable[Any]], replies: Any = answers) -> Any:
        async def main() -> Any:
            async with fake_openai(replies) as model:
                words = ["--model", "openai:scripted", "--base-url", model.url]
                parameters = mcp.StdioServerParameters(
                    command=sys.executable,
                    args=["-m", "llmcompiler", "mcp", "--store", str(tmp_path / "s"), *words],
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
    said: list[tuple[float, str | None]] = []

    async def heard(
        progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        said.append((progress, message))

    async def work(client: mcp.Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"run", "plan", "check", "replay", "report"}
        reads = {name for name, one in tools.items() if one.annotations is not None}
        assert reads == set(tools) - {"run"}
        asked = {"what": "Which is larger, Japan or Peru?"}
        ran = await client.call_tool("run", asked, progress_callback=heard)
        answer = ran.structured_content
        assert (answer["status"], answer["answer"], answer["tasks"]) == ("answered", "Japan", 3)
        replayed = await client.call_tool("replay", {"run": answer["run"]})
        assert replayed.structured_content["tasks"] == 3
        reported = await client.call_tool("report", {})
        assert "Which is larger" in reported.content[0].text

    drive(work)
    numbers = [number for number, _ in said]
    assert numbers == sorted(set(numbers))
    lines = "\n".join(message or "" for _, message in said)
    for expected in ("plan 1 is complete", "done       2. country", "answered in"):
        assert expected in lines


def test_a_plan_is_run_without_a_model_and_planned_and_checked_with_diagnostics(
    drive: Callable[..., Any],
) -> None:
    async def work(client: mcp.Client) -> None:
        planned = await client.call_tool("plan", {"question": "Which is larger?"})
        assert 'country("Peru")' in planned.structured_content["result"]
        asked = {"what": '1. calc("$a + 1")\n2. join($1)', "inputs": {"a": 2}}
        ran = await client.call_tool("run", asked)
        assert ran.structured_content["value"] == 3
        checked = await client.call_tool("check", {"plan": "1. clac(1)"})
        assert checked.structured_content["ok"] is False
        assert "calc" in checked.structured_content["diagnostics"][0]
        wrong = await client.call_tool("report", {"run": "nothing"})
        assert wrong.is_error
        assert 'no run "nothing"' in wrong.content[0].text

    drive(work)


def test_who_cancels_a_call_cancels_its_run(drive: Callable[..., Any], tmp_path: Path) -> None:
    async def work(client: mcp.Client) -> None:
        asking = asyncio.Event()

        async def heard(
            progress: float, total: float | None = None, message: str | None = None
        ) -> None:
            if message and "planner asks" in message:
                asking.set()

        asked = {"what": "Which is larger?"}
        call = asyncio.create_task(client.call_tool("run", asked, progress_callback=heard))
        await asking.wait()
        call.cancel()
        await asyncio.wait((call,))
        # The server serves on, and by its next answer the run has ended.
        while (await client.call_tool("report", {})).content[0].text.count("interrupted") == 0:
            pass

    drive(work, [Reply(["1. country("], stall=True)])
    assert [run.status for run in RunStore(tmp_path / "s").runs()] == ["interrupted"]
