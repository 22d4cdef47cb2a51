"""Limits of one process: the scheduler alone with up to a million tasks, and its memory.

    python benchmarks/scale.py --tasks 1000000

The task fetching unit is driven like in the engine, with calls that end at once. No call is made
and nothing is logged, so the result bounds every run, whatever executes its calls. There are two
shapes: layers in which each task needs two tasks of the layer before, and one fan-out. Each shape
is measured in its own process, as memory is that of the process. ``--engine TASKS`` sets the size
of a whole run with a log on disk.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llmcompiler.compiler import LLMCompiler
from llmcompiler.language import parse_plan
from llmcompiler.runtime.schedule import MapEnded, OpenMap, TaskCall, TaskFetchingUnit
from llmcompiler.runtime.states import ScheduleNode
from llmcompiler.tools.base import tool

WIDTH = 1000


def peak_mb() -> float:
    """The peak memory of this process, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def layers(tasks: int) -> list[ScheduleNode]:
    """Layers of ``WIDTH`` tasks; each task needs two tasks of the layer before."""
    nodes = []
    for number in range(1, tasks + 1):
        previous = number - WIDTH
        dependencies = (previous, previous - 1) if previous > 1 else ()
        nodes.append(ScheduleNode(number, dependencies, False, (), 1.0, "step", False))
    return nodes


def drive(unit: TaskFetchingUnit, extent: int) -> int:
    """Take the calls that may start and end them at once; return the number of calls."""
    calls = 0
    while unit.needs_take:
        for command in unit.take():
            match command:
                case TaskCall():
                    calls += 1
                    unit.done(command)
                case OpenMap():
                    unit.open(command.task, extent)
                case MapEnded():
                    pass
    assert unit.is_idle
    return calls


def simulate(shape: str, tasks: int) -> None:
    """Drive the unit through one shape, and print time and memory per task."""
    start = peak_mb()
    started_at = time.perf_counter()
    unit = TaskFetchingUnit(64, {})
    unit.add(
        layers(tasks) if shape == "layers" else [ScheduleNode(1, (), True, (), 1.0, "step", False)]
    )
    add_seconds = time.perf_counter() - started_at
    assert drive(unit, tasks) == tasks
    seconds = time.perf_counter() - started_at
    memory = (peak_mb() - start) * 1e6 / tasks
    print(
        f"{shape:7} {tasks:>9,} tasks: {seconds / tasks * 1e6:5.1f} µs a task "
        f"({add_seconds:.1f} s to add, {seconds:.1f} s in all), {memory:,.0f} bytes a task",
        flush=True,
    )


def size_of(folder: Path) -> int:
    """Size of a folder's files in bytes."""
    return sum(path.stat().st_size for path in folder.iterdir())


@tool
async def step(number: int) -> int:
    """The next number."""
    return number + 1


@tool
def numbers(count: int) -> list[int]:
    """The first numbers."""
    return list(range(count))


async def engine(tasks: int) -> None:
    """A whole run in this process: one fan-out, every event in a log on disk."""
    with tempfile.TemporaryDirectory() as folder:
        async with LLMCompiler([step, numbers], store=Path(folder) / "runs.sqlite") as compiler:
            start, started_at = peak_mb(), time.perf_counter()
            plan = parse_plan(f"1. numbers({tasks})\n2. step($1[*])\n3. join($2[0])")
            result = await compiler.execute(plan)
            seconds = time.perf_counter() - started_at
            assert result.status == "answered", result.failure
            log = size_of(Path(folder))
    print(
        f"engine  {tasks:>9,} tasks: {tasks / seconds:,.0f} tasks/s, "
        f"{(peak_mb() - start) * 1e6 / tasks:,.0f} bytes of memory and "
        f"{log / tasks:,.0f} bytes of log a task",
        flush=True,
    )


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--engine", type=int, default=20_000)
    parser.add_argument("--only", choices=["layers", "map", "engine"])
    options = parser.parse_args()
    if options.only == "engine":
        asyncio.run(engine(options.engine))
    elif options.only:
        simulate(options.only, options.tasks)
    else:
        for shape in ("layers", "map", "engine"):
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--only", shape], check=True)


if __name__ == "__main__":
    main()
