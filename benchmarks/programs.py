"""What a program costs beside the numbered plan that does the same.

    python benchmarks/programs.py
    python benchmarks/programs.py --calls 5000 --rounds 7

Both make the same calls of a tool that does nothing, and keep their log in memory. Each figure is
the best of ``--rounds`` runs, in microseconds of the process's time for each call; the two
alternate. Reading the plan's text and compiling the program are counted apart.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable

from llmcompiler import LLMCompiler, Plan, parse_plan, tool
from llmcompiler.programs.program import ProgramCompiler


@tool
async def increment(x: int) -> int:
    """Add one."""
    return x + 1


def program_text(calls: int) -> str:
    """A straight-line program: chains of three calls, all from the first result."""
    lines = ["a0 = increment(0)"]
    lines += [f"a{n} = increment(a{n - 1 if n % 3 else 0})" for n in range(1, calls)]
    return "\n".join([*lines, f"answer = a{calls - 1}"])


def plan_text(calls: int) -> str:
    """The same calls as a numbered plan."""
    lines = ["1. increment(0)"]
    lines += [f"{n + 1}. increment(${n if n % 3 else 1})" for n in range(1, calls)]
    return "\n".join([*lines, f"{calls + 1}. join(${calls})"])


async def run(plan: Plan) -> float:
    """Seconds of the process's time for one run."""
    async with LLMCompiler(tools=[increment], store=":memory:") as compiler:
        start = time.process_time()
        result = await compiler.execute(plan)
        seconds = time.process_time() - start
    assert result.status == "answered", result.failure
    return seconds


def timed(work: Callable[[], object]) -> float:
    """Seconds of the process's time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def compile_program(text: str) -> None:
    """Compile a program and throw it away."""
    compiler = ProgramCompiler({"increment": increment})
    for _ in (*compiler.feed(text), *compiler.finish()):
        pass


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    text, numbered = program_text(options.calls), plan_text(options.calls)
    plan, program = parse_plan(numbered), Plan(program=text)
    best = {"plan": float("inf"), "program": float("inf")}
    for _ in range(options.rounds + 1):  # the first round compiles the program
        best["plan"] = min(best["plan"], asyncio.run(run(plan)))
        best["program"] = min(best["program"], asyncio.run(run(program)))
    reading = min(timed(lambda: parse_plan(numbered)) for _ in range(options.rounds))
    compiling = min(timed(lambda: compile_program(text)) for _ in range(options.rounds))
    scale = 1e6 / options.calls
    print(
        f"run      plan {best['plan'] * scale:7.1f} us   program {best['program'] * scale:7.1f} us"
        f"   {best['program'] / best['plan']:.2f} x"
    )
    print(
        f"prepare  plan {reading * scale:7.1f} us   program {compiling * scale:7.1f} us"
        f"   {compiling / reading:.2f} x"
    )


if __name__ == "__main__":
    main()
