"""Which reasoning strategy helps the embedded 1.5B model on arithmetic word problems.

    python benchmarks/reasoning.py --results results.jsonl --minutes 9    # resumes where it stopped
    python benchmarks/reasoning.py --results results.jsonl --table

Sixty problems of `word_problems.py` (seed 1, twenty of each grade), an example of a solution as the
context, at most 96 tokens a call, temperature 0 for the single call and 0.7 for all others. Each
result is appended to the file at once, so a run may be stopped and resumed. All strategies solve a
problem before the next problem starts, so they have had the same problems wherever a run stops.
B_total counts the tokens of all calls, B_seq those of the accepted path; the prompt tokens of calls
that were cut are estimated. Seconds are measured with `--at-once` problems in flight.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from word_problems import GRADES, Problem, make_problems

from llmcompiler import LLMCompiler
from llmcompiler.reasoning.answers import same_answer

SEED = 1
PER_GRADE = 20
MAX_TOKENS = 96
CONTEXT = """\
Solve in a few short lines, one step a line.

Problem: Tom has 20 pens. Tom buys 3 packs of 4 pens each. Then a quarter of the pens get lost. \
How many pens does Tom have in the end?
Bought: 3 * 4 = 12, so 20 + 12 = 32 pens.
Lost: 32 / 4 = 8, so 32 - 8 = 24 pens.
Answer: 24

Problem:"""

STRATEGIES: dict[str, tuple[str, dict[str, Any]]] = {
    "single": ("vote", {"width": 1}),
    "refine": ("refine", {"rounds": 1}),
    "vote@4": ("vote", {"width": 4}),
    "pdr [4]": ("pdr", {"width": 4, "kappa": 64}),
    "parathinker 4": ("parathinker", {"width": 4}),
    "hogwild 2": ("hogwild", {"width": 2, "chunk": 48, "rounds": 2}),
}


async def solve(compiler: LLMCompiler, label: str, problem: Problem) -> dict[str, Any]:
    """Solve one problem with one strategy, and return the row of the results."""
    name, options = STRATEGIES[label]
    result = await compiler.think(
        problem.text,
        context=CONTEXT,
        strategy=name,
        seed=SEED,
        max_tokens=MAX_TOKENS,
        temperature=0.0 if label == "single" else 0.7,
        **options,
    )
    if result.cost is None or result.failure is not None:
        raise SystemExit(f"{label} on {problem.id}: {result.failure}")
    return {
        "problem": problem.id,
        "grade": problem.grade,
        "strategy": label,
        "right": result.answer is not None and same_answer(result.answer, str(problem.answer)),
        "answer": result.answer,
        "expected": problem.answer,
        "calls": result.cost.calls,
        "decoded": result.cost.decoded,
        "cached": result.cost.cached,
        "B_total": result.cost.b_total,
        "B_seq": result.cost.b_seq,
        "cut": result.cost.unknown,
        "seconds": round(result.cost.seconds, 2),
        "why": result.why,
    }


async def solve_missing(file: Path, minutes: float, at_once: int) -> None:
    """Solve the problems that the file lacks, until the time is up."""
    finished = {(row["problem"], row["strategy"]) for row in read_rows(file)}
    # Grades alternate, so that a stopped run has seen all of them.
    problems = sorted(
        make_problems(SEED, PER_GRADE),
        key=lambda problem: (int(problem.id.split("-")[1]), problem.grade),
    )
    todo = [
        (problem, label)
        for problem in problems
        for label in STRATEGIES
        if (problem.id, label) not in finished
    ]
    deadline = time.monotonic() + 60 * minutes
    queue = iter(todo)

    async def work() -> None:
        for problem, label in queue:
            if time.monotonic() > deadline:
                return
            row = await solve(compiler, label, problem)
            with file.open("a") as out:
                out.write(json.dumps(row) + "\n")

    async with LLMCompiler((), "local", store=":memory:") as compiler:
        await asyncio.gather(*(work() for _ in range(at_once)))
    print(f"{len(read_rows(file))} of {len(problems) * len(STRATEGIES)} lines", file=sys.stderr)


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of the results file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table of the problems that every strategy has tried."""
    rows_by_strategy: dict[str, dict[str, dict[str, Any]]] = {label: {} for label in STRATEGIES}
    for row in rows:
        rows_by_strategy[row["strategy"]][row["problem"]] = row
    common = set.intersection(
        *(set(rows_by_problem) for rows_by_problem in rows_by_strategy.values())
    )
    grades = " | ".join(f"grade {grade}" for grade in GRADES)
    lines = [
        f"{len(common)} problems",
        "",
        f"| strategy | right | {grades} | calls | decoded | B_total | B_seq | seconds |",
        f"|---|{'---|' * (len(GRADES) + 6)}",
    ]
    for label, rows_by_problem in rows_by_strategy.items():
        common_rows = [row for id_, row in rows_by_problem.items() if id_ in common]
        cells = [f"{sum(row['right'] for row in common_rows)} ({share(common_rows)})"]
        cells += [share([row for row in common_rows if row["grade"] == grade]) for grade in GRADES]
        cells += [f"{statistics.mean(row['calls'] for row in common_rows):.1f}"]
        cells += [
            f"{statistics.mean(row[field] for row in common_rows):.0f}"
            for field in ("decoded", "B_total", "B_seq")
        ]
        cells += [f"{statistics.mean(row['seconds'] for row in common_rows):.1f}"]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def share(rows: list[dict[str, Any]]) -> str:
    """The share of rows that are right."""
    return f"{100 * sum(row['right'] for row in rows) / len(rows):.0f} %" if rows else "-"


def main() -> None:
    """Solve missing problems unless only the table is wanted, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if not options.table:
        asyncio.run(solve_missing(options.results, options.minutes, options.at_once))
    print(table(read_rows(options.results)))


if __name__ == "__main__":
    main()
