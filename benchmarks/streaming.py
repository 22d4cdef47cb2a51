"""How much time is saved by starting calls while the plan is still being written.

    python benchmarks/streaming.py

A server in its own process speaks the protocol of OpenAI's endpoints and writes a plan piece by
piece at a fixed pace; the tools take a fixed time. ``streamed`` is the measured time from the
question to the last result. ``plan, then run`` is the time of the whole plan's text plus the
longest chain of calls. ``ideal`` starts each call as soon as the server has sent the last character
of its line and its inputs exist, without any overhead; the target is at most 1.02 times ``ideal``.
Times are wall-clock times.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from llmcompiler import LLMCompiler, Tool, parse_plan, tool
from llmcompiler.events import Event, TaskFinished
from llmcompiler.llm.models import open_model
from llmcompiler.testing.doubles import ScriptedModel

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.support.fake_openai import ReceivedRequest, Reply, fake_openai

CHUNK = 4
PIECE_S = 0.02
END = "\n99. join()"
QUESTION = "Do the work of the plan called {}."

PLANS = {
    "wide": "\n".join(f"{i}. work({i})" for i in range(1, 17)),
    "chain": "1. work(1)\n" + "\n".join(f"{i}. work(${i - 1})" for i in range(2, 9)),
    "diamonds": "\n".join(
        f"{i}. work({i})\n{i + 1}. work(${i})\n{i + 2}. work(${i})\n"
        f"{i + 3}. work([${i + 1}, ${i + 2}])"
        for i in range(1, 17, 4)
    ),
}


class TimedPieces(list[str]):
    """Pieces of a plan; after the last one, the times of sending go to a connection."""

    def __init__(self, pieces: list[str], report: Connection) -> None:
        super().__init__(pieces)
        self._report = report

    def __iter__(self) -> Iterator[str]:
        """Yield the pieces; the reader asks for a piece once it has sent the one before."""
        sent = []
        for piece in super().__iter__():
            yield piece
            sent.append(time.perf_counter())
        self._report.send(sent)


def serve(report: Connection) -> None:
    """Answer a question that names a plan with that plan, and report when its pieces were sent."""

    def reply(request: ReceivedRequest) -> Reply:
        question = request.body["messages"][-1]["content"]
        for name, plan in PLANS.items():
            if QUESTION.format(name) in question:
                text = plan + END
                pieces = [text[at : at + CHUNK] for at in range(0, len(text), CHUNK)]
                return Reply(TimedPieces(pieces, report), delay=PIECE_S)
        return Reply()

    async def work() -> None:
        async with fake_openai(reply) as server:
            report.send(server.url)
            await asyncio.get_running_loop().create_future()

    asyncio.run(work())


def make_tool(seconds: float) -> Tool:
    """Make a tool that takes that many seconds."""

    @tool
    async def work(value: object) -> int:
        """Work for a while."""
        await asyncio.sleep(seconds)
        return 1

    return work


def compute_bounds(text: str, seconds: float, pieces: list[float]) -> tuple[float, float]:
    """Seconds with ideal overlap, and seconds of planning first and running afterwards.

    Args:
        text: text of the plan.
        seconds: duration of a call.
        pieces: when each piece of the text had been sent, in seconds since the question.
    """
    ideal: dict[int, float] = {}
    depth: dict[int, int] = {}
    ends = [i for i, char in enumerate(text + "\n") if char == "\n"]
    for task, end in zip(parse_plan(text).tasks, ends, strict=True):
        sent_at = pieces[(end - 1) // CHUNK]
        ready = max([sent_at, *(ideal[dep] for dep in task.dependencies)])
        ideal[task.id] = ready + seconds
        depth[task.id] = 1 + max((depth[dep] for dep in task.dependencies), default=0)
    return max(ideal.values()), pieces[-1] + max(depth.values()) * seconds


async def measure_streamed(
    url: str, server: Connection, name: str, tool: Tool
) -> tuple[float, list[float]]:
    """Measured seconds from the question to the last result, and to each piece of the plan."""
    planner = open_model("openai:planner", base_url=url, api_key="")
    last_end = 0.0

    def note_end(event: Event) -> None:
        nonlocal last_end
        if isinstance(event, TaskFinished):
            last_end = time.perf_counter()

    async with LLMCompiler(
        [tool],
        planner_model=planner,
        joiner_model=ScriptedModel(["Action: Finish(done)"]),
        store=":memory:",
    ) as compiler:
        # The first plan opens the connection and finds out the endpoint's capabilities.
        await compiler.plan(QUESTION.format(name))
        await asyncio.to_thread(server.recv)
        started_at = time.perf_counter()
        await compiler.run(QUESTION.format(name), on_event=note_end)
    sent = await asyncio.to_thread(server.recv)
    return last_end - started_at, [at - started_at for at in sent]


def main() -> None:
    """Print a line for each plan and latency."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=serve, args=(theirs,), daemon=True
    )
    process.start()
    url = ours.recv()
    for name, text in PLANS.items():
        for seconds in (0.1, 0.5):
            measured, pieces = asyncio.run(measure_streamed(url, ours, name, make_tool(seconds)))
            ideal, sequential = compute_bounds(text, seconds, pieces)
            print(
                f"{name:9} tools of {seconds} s: streamed {measured:.2f} s; plan, then run "
                f"{sequential:.2f} s ({sequential / measured:.2f} x); ideal {ideal:.2f} s "
                f"(ratio {measured / ideal:.3f})",
                flush=True,
            )
    process.terminate()


if __name__ == "__main__":
    main()
