"""Arithmetic word problems of graded difficulty, made from a seed, with exact answers.

A problem of grade g is a story of g steps on one amount; every step is a sentence, and its result
is computed along with it. The problems are made for `reasoning.py`. They are short enough for a
small model to solve in a few lines. They are graded, because a set that a model always or never
solves compares nothing.

    python benchmarks/word_problems.py --seed 7 --per-grade 2
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import dataclass

NAMES = "Ada Bruno Chen Dalia Emre Farid Greta Hana Ivo Jonas Kiri Leon Mina Noor Otto Pia".split()
THINGS = "marbles stickers apples coins postcards pencils shells buttons walnuts tickets".split()
GRADES = (1, 2, 3)


@dataclass(frozen=True)
class Problem:
    """One question.

    Attributes:
        id: stable for a seed.
        grade: 1 to 3, the number of steps.
        text: the question.
        answer: the right number.
    """

    id: str
    grade: int
    text: str
    answer: int


def _packs(rng: random.Random, name: str, thing: str, amount: int) -> tuple[str, int]:
    packs, pack_size = rng.randint(2, 9), rng.randint(3, 12)
    return f"{name} buys {packs} packs of {pack_size} {thing} each.", amount + packs * pack_size


def _gives(rng: random.Random, name: str, thing: str, amount: int) -> tuple[str, int]:
    friends = rng.randint(2, 5)
    gift_size = rng.randint(1, max(1, amount // (friends * 2)))
    return (
        f"{name} gives {gift_size} {thing} to each of {friends} friends.",
        amount - friends * gift_size,
    )


def _loses(rng: random.Random, name: str, thing: str, amount: int) -> tuple[str, int]:
    parts = [part for part in (2, 3, 4, 5) if amount % part == 0]
    if not parts:
        lost_count = rng.randint(1, amount - 1)
        return f"Then {lost_count} of the {thing} get lost.", amount - lost_count
    part = rng.choice(parts)
    spelling = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth"}[part]
    return f"Then {spelling} of the {thing} get lost.", amount - amount // part


def _multiplies(rng: random.Random, name: str, thing: str, amount: int) -> tuple[str, int]:
    times = rng.choice((2, 3))
    spelling = {2: "doubles", 3: "triples"}[times]
    return f"After a swap the number of {name}'s {thing} {spelling}.", amount * times


def _percent(rng: random.Random, name: str, thing: str, amount: int) -> tuple[str, int]:
    rates = [rate for rate in (10, 20, 25, 40, 50, 75) if amount * rate % 100 == 0]
    if not rates:
        return _packs(rng, name, thing, amount)
    rate = rng.choice(rates)
    return f"{name} sells {rate}% of the {thing}.", amount - amount * rate // 100


STEPS: tuple[Callable[[random.Random, str, str, int], tuple[str, int]], ...] = (
    _packs,
    _gives,
    _loses,
    _multiplies,
    _percent,
)


def make_problems(seed: int, per_grade: int) -> list[Problem]:
    """Make ``per_grade`` problems of each grade; the same seed gives the same problems."""
    problems = []
    for grade in GRADES:
        for number in range(per_grade):
            rng = random.Random(f"{seed}/{grade}/{number}")
            name, thing = rng.choice(NAMES), rng.choice(THINGS)
            amount = rng.randrange(12, 60, 2)
            sentences = [f"{name} has {amount} {thing}."]
            previous_step = None
            for _ in range(grade):
                step = rng.choice(
                    [candidate for candidate in STEPS if candidate is not previous_step]
                )
                sentence, amount = step(rng, name, thing, amount)
                sentences.append(sentence)
                previous_step = step
            sentences.append(f"How many {thing} does {name} have in the end?")
            problems.append(Problem(f"g{grade}-{number}", grade, " ".join(sentences), amount))
    return problems


def main() -> None:
    """Print the problems."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-grade", type=int, default=20)
    options = parser.parse_args()
    for problem in make_problems(options.seed, options.per_grade):
        print(f"{problem.id}\t{problem.answer}\t{problem.text}")


if __name__ == "__main__":
    main()
