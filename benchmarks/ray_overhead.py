"""Microseconds per task on Ray: the engine compared with direct calls of Ray.

    python benchmarks/ray_overhead.py --tasks 300 --rounds 5
    python benchmarks/ray_overhead.py --megabytes 100

Both run the same tasks on the same cluster and alternate round by round, so that other load on the
machine affects both. ``direct`` gives Ray all tasks at once, with references for dependencies.
``engine`` schedules, checks arguments and keeps every event in a log on disk, like a real run.
There are two shapes: one level of independent tasks, and parallel chains.

With ``--megabytes``, a value of that size goes through a chain of tasks, and the peak memory of
this process shows whether the value passed through it.

Ray gives its workers a low priority; on a machine with other load, set ``RAY_worker_niceness=0``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ray

from llmcompiler.compiler import LLMCompiler
from llmcompiler.executors.ray import RayExecutor
from llmcompiler.language import parse_plan
from llmcompiler.tools.base import tool


@tool
def step(number: int) -> int:
    """The next number."""
    return number + 1


@tool
def make(megabytes: int) -> str:
    """A text of that size."""
    return "x" * (megabytes * 10**6)


@tool
def turn(text: str) -> str:
    """Another text of the same size."""
    return text[1:] + "y"


@tool
def measure(text: str) -> int:
    """Its length."""
    return len(text)


def plan_of(width: int, depth: int) -> str:
    """``width`` chains of ``depth`` tasks."""
    lines = []
    for chain in range(width):
        for place in range(depth):
            number = chain * depth + place + 1
            lines.append(f"{number}. step({f'${number - 1}' if place else chain})")
    ends = ", ".join(f"${(chain + 1) * depth}" for chain in range(width))
    return "\n".join([*lines, f"{width * depth + 1}. join({ends})"])


def direct(remote: Any, width: int, depth: int) -> None:
    """Run the same tasks by direct calls of Ray."""
    ends = []
    for chain in range(width):
        value: Any = chain
        for _ in range(depth):
            value = remote.remote(value)
        ends.append(value)
    assert ray.get(ends) == [chain + depth for chain in range(width)]


def measure_seconds(work: Callable[[], Any]) -> float:
    """Seconds that ``work`` takes."""
    started_at = time.perf_counter()
    work()
    return time.perf_counter() - started_at


def overhead(tasks: int, rounds: int) -> None:
    """Compare both, and print microseconds per task."""

    @ray.remote(num_cpus=1, max_retries=0)
    def remote(number: int) -> int:
        return number + 1

    for name, width, depth in (("level", tasks, 1), ("chains", 10, tasks // 10)):
        plan = parse_plan(plan_of(width, depth))
        with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
            compiler = LLMCompiler([step], executor=RayExecutor(), store=Path(folder) / "runs")

            def engine(
                compiler: LLMCompiler = compiler, runner: Any = runner, plan: Any = plan
            ) -> None:
                result = runner.run(compiler.execute(plan))
                assert result.status == "answered", result.failure

            by_hand = partial(direct, remote, width, depth)
            by_hand()
            engine()
            times = [(measure_seconds(by_hand), measure_seconds(engine)) for _ in range(rounds)]
            runner.run(compiler.aclose())
        direct_seconds, engine_seconds = (
            statistics.median(column) for column in zip(*times, strict=True)
        )
        ratio = statistics.median(b / a for a, b in times)
        print(
            f"{name:7} {width * depth} tasks: "
            f"direct {direct_seconds / width / depth * 1e6:6.0f} µs, "
            f"engine {engine_seconds / width / depth * 1e6:6.0f} µs a task, ratio {ratio:.2f}",
            flush=True,
        )


def large(megabytes: int) -> None:
    """Send values of that size through a chain, and print how the driver's memory grew."""
    plan = parse_plan(
        f"1. make({megabytes})\n2. turn($1)\n3. turn($2)\n4. measure($3)\n5. join($4)"
    )
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        values = Path(folder) / "values"
        compiler = LLMCompiler(
            [make, turn, measure], executor=RayExecutor(values=values), store=Path(folder) / "runs"
        )
        runner.run(compiler.execute(parse_plan("1. make(1)\n2. measure($1)\n3. join($2)")))
        memory_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started_at = time.perf_counter()
        result = runner.run(compiler.execute(plan))
        seconds = time.perf_counter() - started_at
        memory_after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert result.value == megabytes * 10**6, result.failure
        values_size = sum(path.stat().st_size for path in values.rglob("*.json"))
        log_size = sum(path.stat().st_size for path in Path(folder).glob("runs*"))
        runner.run(compiler.aclose())
    print(
        f"3 values of {megabytes} MB in {seconds:.1f} s: the driver's peak memory grew by "
        f"{(memory_after - memory_before) / 1000:.1f} MB; "
        f"log {log_size / 1e6:.2f} MB, directory {values_size / 1e6:.0f} MB"
    )


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int)
    parser.add_argument("--cpus", type=int, default=2)
    options = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        "local", num_cpus=options.cpus, include_dashboard=False, log_to_driver=False,
        logging_level="ERROR",
    )  # fmt: skip
    if options.megabytes:
        large(options.megabytes)
    else:
        overhead(options.tasks, options.rounds)
    ray.shutdown()


if __name__ == "__main__":
    main()
