"""Fuzz the parser: mutated plans, whole and in random pieces.

    python scripts/fuzz_parser.py --count 1000000             # mutants of the stored corpus
    python scripts/fuzz_parser.py --count 100000 --guided     # by coverage; pip install atheris
    python scripts/fuzz_parser.py --only 4711                 # one mutant again, and its text

``tests/support/fuzzing.py`` says which property must hold. Mutant number N of a seed is always the
same text, so ``--only N`` repeats a failure. A text that broke the property belongs in
``tests/corpus``, which the ordinary tests also read.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.fuzzing import judge, mutant, seeds


def fuzz(count: int, seed: int, start: int) -> int:
    """Judge mutants ``start`` to ``count``; return how many broke the property."""
    corpus = seeds()
    broken: Counter[str] = Counter()
    sound = characters = 0
    started_at = time.perf_counter()
    for number in range(start, count):
        rng = random.Random(f"{seed}/{number}")
        text = mutant(rng, corpus)
        characters += len(text)
        try:
            sound += judge(text, rng)
        except Exception:  # noqa: BLE001  # any exception is a finding
            last_line = traceback.format_exc().splitlines()[-1][:300]
            kind = traceback.format_exc().splitlines()[-3:][0].strip()
            broken[kind] += 1
            if broken[kind] <= 3:
                print(f"mutant {number}: {kind}\n  {last_line}", flush=True)
        if (number + 1) % 50_000 == 0:
            pace = (number + 1 - start) / (time.perf_counter() - started_at)
            print(f"{number + 1:,} texts, {broken.total()} broken, {pace:,.0f}/s", flush=True)
    seconds = time.perf_counter() - started_at
    print(
        f"{count - start:,} texts, {characters:,} characters, {seconds:,.0f} s: "
        f"{sound:,} plans without errors, {count - start - sound - broken.total():,} with, "
        f"{broken.total()} broken"
    )
    return broken.total()


def fuzz_guided(count: int) -> None:
    """Judge texts that libFuzzer chooses by the code that they reach."""
    import tempfile

    import atheris

    atheris.instrument_all()

    def judge_bytes(data: bytes) -> None:
        judge(data.decode("utf-8", "replace"), random.Random(data))

    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(seeds()):
            (Path(folder) / str(number)).write_text(text, encoding="utf-8", newline="")
        atheris.Setup([sys.argv[0], f"-atheris_runs={count}", "-max_len=2000", folder], judge_bytes)
        atheris.Fuzz()


def main() -> None:
    """Fuzz by the command line's options; exit code 1 if a text broke the property."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000, help="texts")
    parser.add_argument("--start", type=int, default=0, help="number of the first text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="judge this mutant alone, and show it")
    parser.add_argument("--guided", action="store_true", help="by coverage, with atheris")
    args = parser.parse_args()
    if args.only is not None:
        rng = random.Random(f"{args.seed}/{args.only}")
        text = mutant(rng, seeds())
        print(repr(text))
        judge(text, rng)
    elif args.guided:
        fuzz_guided(args.count)
    else:
        sys.exit(fuzz(args.count, args.seed, args.start) > 0)


if __name__ == "__main__":
    main()
