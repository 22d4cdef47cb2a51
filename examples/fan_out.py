"""A fan-out: ``$1[*]`` calls a tool once for each element of a list, up to five at a time.

python examples/fan_out.py
"""

from __future__ import annotations

import asyncio
import random
import time

from llmcompiler import Limits, LLMCompiler, events, parse_plan, tool


@tool
def stations() -> list[str]:
    """Names of all weather stations."""
    return [f"station {number}" for number in range(1, 21)]


@tool
async def temperature(station: str) -> float:
    """Temperature at a station, in degrees Celsius."""
    await asyncio.sleep(0.2)  # a slow service somewhere
    return round(random.Random(station).gauss(12, 4), 1)


PLAN = """
1. stations()
2. temperature($1[*])
3. calc("mean($2)")
4. join($3)
"""


def tell(event: events.Event) -> None:
    """Follow the run as it happens."""
    if isinstance(event, events.MapOpened):
        print(f"task {event.task} fans out over {event.extent} elements")


async def main() -> None:
    """Ask twenty stations, five at a time."""
    tools = [stations, temperature, "calc"]
    started_at = time.perf_counter()
    async with LLMCompiler(tools, limits=Limits(concurrency=5), store=":memory:") as compiler:
        result = await compiler.execute(parse_plan(PLAN), on_event=tell)
    print(f"mean temperature: {result.value:.2f} °C")
    print(f"20 calls of 0.2 s, 5 at a time, took {time.perf_counter() - started_at:.1f} s")


if __name__ == "__main__":
    asyncio.run(main())
