"""A program gives what CPython gives, whatever the order in which its calls end."""

from __future__ import annotations

import random

import pytest

from tests.support.random_programs import ProgramGenerator, run_machine, run_python

SCHEDULES = 3


def check(seed: int) -> None:
    source = ProgramGenerator(random.Random(seed)).program()
    expected = run_python(source)
    for schedule in range(SCHEDULES):
        outcome = run_machine(source, random.Random(schedule))
        if outcome[0][:2] == ("error", "LimitReached"):
            continue  # CPython has no limits
        assert outcome == expected, f"seed {seed}, schedule {schedule}:\n{source}"


@pytest.mark.parametrize("hundred", range(6))
def test_a_program_means_what_it_means_in_cpython(hundred: int) -> None:
    for seed in range(100 * hundred, 100 * hundred + 100):
        check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("thousand", range(2))
def test_thousands_of_programs_mean_what_they_mean_in_cpython(thousand: int) -> None:
    for seed in range(1000 * thousand, 1000 * thousand + 1000):
        check(seed)


PROGRAMS = {
    "an answer from the block that ends last": (
        "if get(1).size > 3:\n    answer = get(2).size\nelse:\n    answer = get(3).size"
    ),
    "a fan-out of two levels": (
        "out = []\nfor i in range(5):\n    r = get(i)\n    out.append(near(r.size))\nanswer = out"
    ),
    "a loop that stops": (
        "for i in range(10):\n    if get(i).size > 8:\n        break\nelse:\n    put('none')\n"
        "answer = i"
    ),
    "failures that are caught": (
        "for i in [5, 6, 7, 8]:\n    try:\n        r = get(i)\n    except ToolError as e:\n"
        "        put(f'failed {e}')\n        continue\n    put(r.id)\nanswer = i"
    ),
    "two names of one list": (
        "a = []\nb = a\na.append(get(1).size)\nb.append(get(2).size)\nanswer = a"
    ),
    "a failure between two writes": "put(1)\nx = [1][get(2).size]\nput(2)",
    "a change behind a failure is not seen": (
        "xs = [1]\ntry:\n    get(7)\n    xs.append(2)\nexcept ToolError:\n    pass\nanswer = xs"
    ),
    "a list that one loop fills and another reads": (
        "out = []\nfor n in near(1):\n    out.append(get(n).size)\n"
        "answer = [out, [near(x) for x in out if x > 1]]"
    ),
    "a work list": (
        "seen = set()\ntodo = [1]\nwhile todo:\n    c = todo.pop()\n    if c in seen: continue\n"
        "    seen.add(c)\n    for n in near(c):\n        if n not in seen:\n"
        "            todo.append(n)\nanswer = sorted(seen)"
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_written_program(name: str) -> None:
    expected = run_python(PROGRAMS[name])
    for schedule in range(10):
        assert run_machine(PROGRAMS[name], random.Random(schedule)) == expected
