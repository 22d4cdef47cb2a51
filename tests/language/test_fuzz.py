"""Any text is a plan or a diagnostic with a place, whole and in pieces; see ``support/fuzzing``."""

from __future__ import annotations

import random

import pytest

from tests.support.fuzzing import judge, mutant, seeds


def test_the_stored_plans() -> None:
    for text in seeds():
        for seed in range(20):
            judge(text, random.Random(seed))


def test_plans_gone_wrong() -> None:
    corpus = seeds()
    sound = 0
    for number in range(1_000):
        rng = random.Random(f"test/{number}")
        sound += judge(mutant(rng, corpus), rng)
    # Neither kind may crowd the other out.
    assert 200 < sound < 800


@pytest.mark.slow
def test_many_of_them() -> None:
    corpus = seeds()
    for number in range(100_000):
        rng = random.Random(f"slow/{number}")
        judge(mutant(rng, corpus), rng)
