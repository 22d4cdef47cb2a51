"""Which reasoning strategy helps the embedded 1.5B model on arithmetic word problems.

    python benchmarks/reasoning.py --results results.jsonl --minutes 9    # go on where it stopped
    python benchmarks/reasoning.py --results results.jsonl --table

Sixty problems of `word_problems.py` (seed 1, twenty of each grade), an example of a solution as the
context, at most 96 tokens a call, temperature 0 for the single call and 0.7 for all others. A line
a (problem, strategy) is written as soon as it is known, so that a run may be stopped and go on.
Problems come first and strategies second: wherever it stops, all strategies have had the same
problems. B_total counts the tokens of all calls, B_seq those of the accepted path; of calls that
were cut the prompts' tokens are estimated. Seconds are those with `--at-once` problems in flight.
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

from word_problems import GRADES, Problem, make

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
    """One problem by one strategy, as a line of the results."""
    name, options = STRATEGIES[label]
    thought = await compiler.think(
        problem.text,
        context=CONTEXT,
        strategy=name,
        seed=SEED,
        max_tokens=MAX_TOKENS,
        temperature=0.0 if label == "single" else 0.7,
        **options,
    )
    if thought.cost is None or thought.failure is not None:
        raise SystemExit(f"{label} on {problem.id}: {thought.failure}")
    return {
        "problem": problem.id,
        "grade": problem.grade,
        "strategy": label,
        "right": thought.answer is not None and same_answer(thought.answer, str(problem.answer)),
        "answer": thought.answer,
        "expected": problem.answer,
        "calls": thought.cost.calls,
        "decoded": thought.cost.decoded,
        "cached": thought.cost.cached,
        "B_total": thought.cost.b_total,
        "B_seq": thought.cost.b_seq,
        "cut": thought.cost.unknown,
        "seconds": round(thought.cost.seconds, 2),
        "why": thought.why,
    }


async def go_on(file: Path, minutes: float, at_once: int) -> None:
    """Solve what the file does not hold yet, until the time is up."""
    done = {(row["problem"], row["strategy"]) for row in read(file)}
    # Grades in turn, so that a run that is stopped has seen all of them.
    problems = sorted(make(SEED, PER_GRADE), key=lambda one: (int(one.id.split("-")[1]), one.grade))
    todo = [(one, label) for one in problems for label in STRATEGIES if (one.id, label) not in done]
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
    print(f"{len(read(file))} of {len(problems) * len(STRATEGIES)} lines", file=sys.stderr)


def read(file: Path) -> list[dict[str, Any]]:
    """The lines so far."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, over the problems that every strategy has solved or failed."""
    by: dict[str, dict[str, dict[str, Any]]] = {label: {} for label in STRATEGIES}
    for row in rows:
        by[row["strategy"]][row["problem"]] = row
    common = set.intersection(*(set(found) for found in by.values()))
    grades = " | ".join(f"grade {one}" for one in GRADES)
    lines = [
        f"{len(common)} problems",
        "",
        f"| strategy | right | {grades} | calls | decoded | B_total | B_seq | seconds |",
        f"|---|{'---|' * (len(GRADES) + 6)}",
    ]
    for label, found in by.items():
        of = [row for id_, row in found.items() if id_ in common]
        cells = [f"{sum(row['right'] for row in of)} ({share(of)})"]
        cells += [share([row for row in of if row["grade"] == grade]) for grade in GRADES]
        cells += [f"{statistics.mean(row['calls'] for row in of):.1f}"]
        cells += [
            f"{statistics.mean(row[field] for row in of):.0f}"
            for field in ("decoded", "B_total", "B_seq")
        ]
        cells += [f"{statistics.mean(row['seconds'] for row in of):.1f}"]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def share(rows: list[dict[str, Any]]) -> str:
    """How many of the rows are right."""
    return f"{100 * sum(row['right'] for row in rows) / len(rows):.0f} %" if rows else "-"


def main() -> None:
    """Go on, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if not given.table:
        asyncio.run(go_on(given.results, given.minutes, given.at_once))
    print(table(read(given.results)))


if __name__ == "__main__":
    main()
