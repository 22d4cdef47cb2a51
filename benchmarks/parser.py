"""Speed of the parser: megabytes per second, and whether time grows linearly with length.

    python benchmarks/parser.py                     # 1,000, 10,000 and 100,000 tasks
    python benchmarks/parser.py --tasks 100000 --chunk 12

Three kinds of plans: look-ups with one string, calls that refer to two earlier results, and calls
with nested arguments. Times are processor times, the best of ``--repeat``, so other load on the
machine counts little. ``--chunk`` feeds the text in pieces of that many characters, like a model's
stream.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from llmcompiler.language import Parser


def _lookup(n: int) -> str:
    return f'{n}. country("Japan")\n'


def _references(n: int) -> str:
    return f'{n}. calc("${n - 1}.population / ${n - 2}.area_km2", ${n - 2}.population)\n'


def _nested(n: int) -> str:
    return (
        f'{n}. search("what is {n}?", limit=[1, 2, {{"a": ${n - 1}, "b": [true, null]}}], page=3)\n'
    )


KINDS: dict[str, Callable[[int], str]] = {
    "look-ups": _lookup,
    "references": _references,
    "nested": _nested,
}


def plan_text(kind: str, tasks: int) -> str:
    """A plan of that many tasks."""
    lookups = "".join(map(_lookup, range(1, 3)))
    calls = "".join(map(KINDS[kind], range(3, tasks + 1)))
    return f"{lookups}{calls}{tasks + 1}. join()\n"


def seconds(text: str, chunk: int) -> float:
    """Processor time of parsing the text, in seconds."""
    parser = Parser()
    started_at = time.process_time()
    for start in range(0, len(text), chunk or len(text)):
        parser.feed(text[start : start + (chunk or len(text))])
    parser.close()
    elapsed = time.process_time() - started_at
    assert not parser.diagnostics
    return elapsed


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--chunk", type=int, default=0, help="characters; 0 for the whole text")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    print("| arguments | tasks | MB | s | MB/s | us/task |\n|---|---|---|---|---|---|")
    for kind in KINDS:
        for tasks in args.tasks:
            text = plan_text(kind, tasks)
            shortest = min(seconds(text, args.chunk) for _ in range(args.repeat))
            size = len(text.encode()) / 1e6
            print(
                f"| {kind} | {tasks:,} | {size:.2f} | {shortest:.2f} | {size / shortest:.2f} "
                f"| {shortest / tasks * 1e6:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
