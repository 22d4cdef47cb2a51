"""Hostile programs are refused before they run, or stopped by a limit or an error with a name.

No program hangs: ``Meter`` counts steps and looks at the clock, and what Python's own code would
do in one long step is measured before. A program that hung would stop the test run itself.
"""

from __future__ import annotations

import builtins

import pytest

from llmcompiler.plan.diagnostics import CODES
from tests.support.hostile_programs import HOSTILE, outcome_of

COUNT = sum(map(len, HOSTILE.values()))


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_hostile_program_gives_a_value(kind: str) -> None:
    for source in HOSTILE[kind]:
        outcome, name = outcome_of(source)
        assert outcome in ("refused", "error"), source[:200]
        if outcome == "refused":
            assert name in CODES, source[:200]
        else:
            is_named = name in ("LimitReached", "ToolError", "error") or hasattr(builtins, name)
            assert is_named, (name, source[:200])


def test_there_are_more_than_three_hundred() -> None:
    assert COUNT > 300
    assert len({source for programs in HOSTILE.values() for source in programs}) > 300


@pytest.mark.parametrize("kind", ["attributes", "names", "imports"])
def test_most_of_what_reaches_for_the_inside_is_refused_before_it_runs(kind: str) -> None:
    refused = [source for source in HOSTILE[kind] if outcome_of(source)[0] == "refused"]
    assert len(refused) > 0.6 * len(HOSTILE[kind])


HARMLESS = [
    "answer = [f'{n:05.1f}' for n in (1, 2.5)]",
    "x = [[1, 2], [3, 4]]\nanswer = x == [[1, 2], [3, 4]]",
    "import re\nanswer = re.findall(r'(\\d{4})-(\\d{2})-(\\d{2})', 'x 2024-01-31 ' * 100)",
    "import re\nanswer = re.sub(r'\\s+', ' ', 'a  b ' * 1000)",
    "import re\nanswer = re.match(r'(?:(\\w+)@)?(\\w+)\\.(\\w+)', 'a@b.c').group(2)",
    "import math\nanswer = math.prod([1, 2, 3]) + math.lcm(4, 6)",
    "import statistics\nanswer = statistics.quantiles([1, 2, 3, 4], n=4)",
    "from math import factorial\nanswer = list(map(factorial, [3, 4]))",
    "answer = sorted({(2, 1), (1, 2)}, key=lambda pair: pair[1])",
    "answer = sum([i * i for i in range(1000)])",
    "answer = {(1, (2, 3)): 'a'}[(1, (2, 3))]",
    "answer = list(map(str.upper, ['a']))",
    "def f(x):\n    return g(x) + 1\ndef g(x):\n    return 2 * x\nanswer = f(3)",
    "answer = " + " + ".join(["1"] * 100),
]


@pytest.mark.parametrize("source", HARMLESS)
def test_a_harmless_program_is_not_mistaken(source: str) -> None:
    assert outcome_of(source)[0] == "value"
