"""How long the event loop stands still while many questions are planned at once.

    python benchmarks/loop_stall.py [--tools 40] [--questions 50] [--planner text]

A scripted model answers at once, so that all that is measured is the package's own work between two
turns of the loop. A task that does nothing but yield measures the longest time between two of its
turns. The first round pays for imports and for what is built once; the second is the steady state.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time

from llmcompiler import LLMCompiler
from llmcompiler.llm.base import Request
from llmcompiler.testing import Answer, ScriptedModel
from llmcompiler.tools.base import Tool, tool

ANSWER = '{"text": "It costs 2.5.", "action": "answer"}'


def make_tools(count: int) -> list[Tool]:
    """Tools with a few arguments each, as an app has them."""

    def make(number: int) -> Tool:
        async def look_up(
            name: str, limit: int = 5, tags: list[str] | None = None
        ) -> dict[str, float]:
            """Look up the price and the weight of an item of a shop."""
            return {"price": 2.5, "weight": 1.0}

        return tool(name=f"look_up_{number}")(look_up)

    return [make(number) for number in range(count)]


def script(planner: str) -> ScriptedModel:
    """A model that plans one call, and answers."""
    plan = '1. look_up_0("lamp")\n2. join()'
    if planner == "structured":
        task = {"id": 1, "tool": "look_up_0", "args": {"name": "lamp"}}
        plan = json.dumps({"tasks": [task]})

    def answer(request: Request) -> Answer:
        return Answer(ANSWER if request.purpose == "answer" else plan)

    return ScriptedModel(answer)


async def longest_pause(agent: LLMCompiler, questions: int) -> tuple[float, float]:
    """The longest time between two turns of the loop, and the time for all questions, in s."""
    longest = 0.0
    is_over = False

    async def watch() -> None:
        nonlocal longest
        last = time.perf_counter()
        while not is_over:
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0)
    started_at = time.perf_counter()
    asked = (agent.run(f"What does lamp {number} cost?") for number in range(questions))
    results = await asyncio.gather(*asked)
    seconds = time.perf_counter() - started_at
    is_over = True
    await watcher
    failed = [result.failure for result in results if result.failure is not None]
    assert not failed, failed[0]
    return longest, seconds


async def main() -> None:
    """Measure, and print a line a round."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tools", type=int, default=40)
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--planner", default="text")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    agent = LLMCompiler(
        tools=make_tools(arguments.tools),
        model=script(arguments.planner),
        planner=arguments.planner,
        store=":memory:",
    )
    async with agent:
        for number in range(1, arguments.rounds + 1):
            longest, seconds = await longest_pause(agent, arguments.questions)
            print(
                f"round {number}: {arguments.questions} questions, {arguments.tools} tools: "
                f"longest pause {longest * 1000:.0f} ms of {seconds * 1000:.0f} ms"
            )


if __name__ == "__main__":
    asyncio.run(main())
