"""Many runs at once for minutes, with failures, timeouts and cancellations: does anything leak?

    python benchmarks/soak.py [--seconds 180] [--runs 1000]

When a run ends another one starts, so ``--runs`` runs are always active, all with one store in a
file. Their tools fail, ask to be repeated, time out or block a thread. Some plans come from an
endpoint, a server in its own process that sometimes disconnects or refuses. Some runs have a
deadline, and some are cancelled from outside. Every run must end with a status in the log. At the
end the line ``left behind`` must show zeros, and memory must not grow with the number of ended
runs. Threads of blocking tools are reused and end with the event loop, so they are counted after
it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from llmcompiler import Limits, LLMCompiler, RunStore, ToolError, parse_plan, tool
from llmcompiler.llm.models import open_model
from llmcompiler.plan.model import Plan

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.support.fake_openai import ReceivedRequest, Reply, fake_openai

PROCESS = psutil.Process()


@tool
async def fetch(seed: int, after: int = 0) -> list[int]:
    """Take some milliseconds, and fail now and then."""
    draw = random.Random(seed)
    await asyncio.sleep(draw.random() / 20)
    if draw.random() < 0.05:
        raise ToolError("busy", retryable=draw.random() < 0.8, retry_after=0.01)
    return [seed + i for i in range(draw.randrange(6))]


@tool(timeout=3.0)
async def patience(seed: int) -> int:
    """Take longer than it may, now and then."""
    await asyncio.sleep(9 if seed % 20 == 0 else 0.001)
    return seed


@tool
def blocking(numbers: list[int]) -> int:
    """Block a thread for a millisecond."""
    time.sleep(0.001)
    return sum(numbers)


def plan_text(seed: int) -> str:
    """A plan of two branches with a fan-out each, and the tasks that join them."""
    return (
        f"1. fetch({seed})\n2. fetch({seed + 1})\n3. patience($1[*])\n4. patience($2[*])\n"
        f"5. blocking($3)\n6. fetch($5, after={seed})\n7. join()"
    )


def plan(seed: int) -> Plan:
    """The parsed plan of ``plan_text``."""
    return parse_plan(plan_text(seed))


def serve(report: Connection) -> None:
    """Serve plans and answers like an endpoint; refuse or disconnect some requests."""

    def reply(request: ReceivedRequest) -> Reply:
        messages = [message["content"] for message in request.body["messages"]]
        draw = random.Random(messages[-1])
        if draw.random() < 0.05:
            return Reply(status=draw.choice((400, 500)))
        planning = "Tools:" in messages[0]
        text = (
            plan_text(draw.randrange(10**6)) if planning else '{"text": "So.", "action": "answer"}'
        )
        pieces = [text[at : at + 40] for at in range(0, len(text), 40)]
        return Reply(pieces, delay=0.005, disconnect=draw.random() < 0.05)

    async def work() -> None:
        async with fake_openai(reply) as server:
            report.send(server.url)
            await asyncio.get_running_loop().create_future()

    asyncio.run(work())


async def start_run(compilers: list[LLMCompiler], seed: int, ends: Counter[str]) -> None:
    """Start a run, cancel some, and count how it ended."""
    planning, *executing = compilers
    if seed % 5 == 0:
        run = asyncio.ensure_future(planning.run(f"What comes of {seed}?"))
    else:
        run = asyncio.ensure_future(executing[seed % len(executing)].execute(plan(seed)))
    if seed % 10 == 0:
        await asyncio.sleep(random.Random(seed).random() * 5)
        run.cancel()
    try:
        ends[(await run).status] += 1
    except asyncio.CancelledError:
        ends["interrupted"] += 1


def resources() -> dict[str, float]:
    """The resources that the process holds now."""
    gc.collect()
    return {
        "MiB": round(PROCESS.memory_info().rss / 2**20, 1),
        "files": PROCESS.num_fds(),
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()) - 1,
        "connections": len(PROCESS.net_connections()),
    }


async def soak(url: str, seconds: float, runs: int) -> None:
    """Keep ``runs`` runs active for ``seconds``; print held resources during and at the end."""
    ends: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(Path(folder) / "runs.sqlite")
        tools = [fetch, patience, blocking]
        endpoint = open_model("openai:planner", base_url=url, api_key="")
        compilers = [
            LLMCompiler(tools, endpoint, store=store),
            LLMCompiler(tools, store=store),
            LLMCompiler(tools, store=store, limits=Limits(deadline=4.0)),
            LLMCompiler(tools, store=store, on_error="fail", limits=Limits(concurrency=2)),
        ]
        at_start = resources()
        started_at = time.monotonic()
        under_way: set[asyncio.Task[None]] = set()
        seed, reported_at = 0, started_at
        while time.monotonic() < started_at + seconds:
            while len(under_way) < runs:
                seed += 1
                under_way.add(asyncio.ensure_future(start_run(compilers, seed, ends)))
            _, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            if time.monotonic() > reported_at + seconds / 6:
                reported_at = time.monotonic()
                print(
                    f"{reported_at - started_at:5.0f} s  {sum(ends.values()):7,} ended  "
                    f"{resources()}",
                    flush=True,
                )
        await asyncio.gather(*under_way)
        await asyncio.sleep(1)  # abandoned threads end
        await endpoint.aclose()
        at_end = resources()
        unfinished = sum(run.status == "unfinished" for run in store.runs())
        store.close()
    print(f"{seed:,} runs: {dict(ends)}, {unfinished} without an end in the log")
    kinds = ("files", "tasks", "connections")
    print("left behind:", {kind: at_end[kind] - at_start[kind] for kind in kinds})
    print(f"memory {at_start['MiB']} -> {at_end['MiB']} MiB")


def main() -> None:
    """Read the options, and soak."""
    parser = argparse.ArgumentParser(description="many runs at once, with failures")
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--runs", type=int, default=1000)
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=serve, args=(theirs,), daemon=True
    )
    process.start()
    threads_before = threading.active_count()
    asyncio.run(soak(ours.recv(), options.seconds, options.runs))
    for thread in set(threading.enumerate()) - {threading.current_thread()}:
        thread.join(5)  # a thread may still run a blocking tool whose call was abandoned
    print(f"threads {threads_before} -> {threading.active_count()}")
    process.terminate()


if __name__ == "__main__":
    main()
