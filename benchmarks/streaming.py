"""What it is worth that calls start while the plan is still being written.

    python benchmarks/streaming.py

A model writes a plan piece by piece at a fixed pace, and the tools take a fixed time. ``streamed``
is the measured time from the question to the last result. ``plan, then run`` is the time of the
whole plan's text plus the longest chain of calls. ``ideal`` starts each call the moment the last
character of its line is out and its inputs exist, and costs nothing itself; the target is to stay
within 1.02 of it. Times are real.
"""

from __future__ import annotations

import asyncio
import time

from llmcompiler import LLMCompiler, Tool, parse_plan, tool
from llmcompiler.events import Event, ModelText, TaskFinished
from llmcompiler.testing import Answer, ScriptedModel

CHUNK = 4
PIECE_S = 0.02
END = "\n99. join()"

PLANS = {
    "wide": "\n".join(f"{i}. work({i})" for i in range(1, 17)),
    "chain": "1. work(1)\n" + "\n".join(f"{i}. work(${i - 1})" for i in range(2, 9)),
    "diamonds": "\n".join(
        f"{i}. work({i})\n{i + 1}. work(${i})\n{i + 2}. work(${i})\n"
        f"{i + 3}. work([${i + 1}, ${i + 2}])"
        for i in range(1, 17, 4)
    ),
}


def make_tool(seconds: float) -> Tool:
    """A tool of that latency."""

    @tool
    async def work(value: object) -> int:
        """Work for a while."""
        await asyncio.sleep(seconds)
        return 1

    return work


def bounds(text: str, seconds: float, pieces: list[float]) -> tuple[float, float]:
    """Seconds of the ideal overlap, and of planning first and running then.

    Args:
        text: of the plan.
        seconds: that a call takes.
        pieces: when each piece of the text came, from the question on.
    """
    ideal: dict[int, float] = {}
    depth: dict[int, int] = {}
    ends = [i for i, char in enumerate(text + "\n") if char == "\n"]
    for task, end in zip(parse_plan(text).tasks, ends, strict=True):
        written = pieces[(end - 1) // CHUNK]
        ready = max([written, *(ideal[dep] for dep in task.dependencies)])
        ideal[task.id] = ready + seconds
        depth[task.id] = 1 + max((depth[dep] for dep in task.dependencies), default=0)
    return max(ideal.values()), pieces[-1] + max(depth.values()) * seconds


async def streamed(text: str, seconds: float) -> tuple[float, list[float]]:
    """Measured seconds from the question to the last result, and to each piece of the plan."""
    model = ScriptedModel([Answer(text + END, chunk=CHUNK, delay=PIECE_S), "Action: Finish(done)"])
    ended = 0.0
    pieces: list[float] = []

    def note(event: Event) -> None:
        nonlocal ended
        if isinstance(event, TaskFinished):
            ended = time.perf_counter()
        elif isinstance(event, ModelText) and event.call == "plan/1":
            pieces.append(time.perf_counter() - begun)

    compiler = LLMCompiler([make_tool(seconds)], model, store=":memory:")
    begun = time.perf_counter()
    await compiler.run("Do the work.", on_event=note)
    return ended - begun, pieces


def main() -> None:
    """Print a line a plan and latency."""
    asyncio.run(streamed("1. work(1)", 0.01))  # imports and caches
    for name, text in PLANS.items():
        for seconds in (0.1, 0.5):
            took, pieces = asyncio.run(streamed(text, seconds))
            ideal, apart = bounds(text, seconds, pieces)
            print(
                f"{name:9} tools of {seconds} s: streamed {took:.2f} s; plan, then run "
                f"{apart:.2f} s ({apart / took:.2f} x); ideal {ideal:.2f} s "
                f"(ratio {took / ideal:.3f})"
            )


if __name__ == "__main__":
    main()
