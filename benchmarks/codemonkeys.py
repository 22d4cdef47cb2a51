"""Whether running candidates against model-written tests picks better programs than chance.

    python benchmarks/codemonkeys.py --results code.jsonl --minutes 9    # resumes where it stopped
    python benchmarks/codemonkeys.py --results code.jsonl --table
    python benchmarks/codemonkeys.py --check           # hidden tests accept the references; no model

Twenty small problems, written for this benchmark, with hidden tests that no model sees.
`codemonkeys` runs with four candidates of the embedded 1.5B model; the hidden tests then judge all
candidates. ``selected``: the share of problems whose chosen candidate passes. ``random``: the mean
share of candidates that pass, the result of a random choice. ``oracle``: the share of problems with
a candidate that passes.
"""

# ruff: noqa: E501 - a case a line
from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmcompiler import LLMCompiler, RunState
from llmcompiler.reasoning.sandbox import Sandbox, SandboxLimits
from llmcompiler.reasoning.strategies.codemonkeys import extract_code

OPTIONS = {"width": 4, "keep": 3, "calls": 3, "seconds": 10.0}
MAX_TOKENS = 160


@dataclass(frozen=True)
class Task:
    """A function to write.

    Attributes:
        name: name of the function.
        text: what the function should do.
        reference: a right solution, to check the hidden tests.
        hidden: hidden cases: arguments and result, both as Python.
    """

    name: str
    text: str
    reference: str
    hidden: tuple[tuple[str, str], ...]


def _task(signature: str, text: str, body: str, **cases: str) -> Task:
    name = signature.partition("(")[0]
    hidden_cases = tuple(
        (arguments, result)
        for arguments, _, result in (c.partition(" -> ") for c in cases.values())
    )
    return Task(
        name, f"Write the function {signature}. {text}", f"def {signature}:\n{body}", hidden_cases
    )


TASKS = (
    _task(
        "count_vowels(s)", "It counts the vowels a, e, i, o, u in s, in either case.",
        "    return sum(c in 'aeiou' for c in s.lower())",
        a="'Apple' -> 2", b="'' -> 0", c="'AEIOU xyz' -> 5", d="'rhythm' -> 0",
    ),
    _task(
        "second_largest(xs)", "It returns the second largest distinct value of a list, or None.",
        "    d = sorted(set(xs))\n    return d[-2] if len(d) > 1 else None",
        a="[3, 1, 2] -> 2", b="[5, 5] -> None", c="[] -> None", d="[5, 5, 4] -> 4",
        e="[-1, -2, -3] -> -2",
    ),
    _task(
        "rle(s)", "It run-length encodes s: 'aaab' becomes 'a3b1', '' becomes ''.",
        "    out = ''\n    i = 0\n    while i < len(s):\n        j = i\n"
        "        while j < len(s) and s[j] == s[i]:\n            j += 1\n"
        "        out += s[i] + str(j - i)\n        i = j\n    return out",
        a="'aaab' -> 'a3b1'", b="'' -> ''", c="'abc' -> 'a1b1c1'", d="'aabaa' -> 'a2b1a2'",
        e="'zzzzzzzzzzzz' -> 'z12'",
    ),
    _task(
        "roman(n)", "It writes n (1 to 3999) as a Roman numeral.",
        "    out = ''\n    for v, r in zip((1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),\n"
        "                    'M CM D CD C XC L XL X IX V IV I'.split()):\n"
        "        while n >= v:\n            out += r\n            n -= v\n    return out",
        a="1994 -> 'MCMXCIV'", b="4 -> 'IV'", c="3999 -> 'MMMCMXCIX'", d="58 -> 'LVIII'",
    ),
    _task(
        "is_leap(y)", "It says whether the year y is a leap year in the Gregorian calendar.",
        "    return y % 4 == 0 and (y % 100 != 0 or y % 400 == 0)",
        a="2000 -> True", b="1900 -> False", c="2024 -> True", d="2023 -> False",
    ),
    _task(
        "rotate(xs, k)", "It returns the list rotated to the right by k places; k may be negative "
        "or larger than the list.",
        "    if not xs:\n        return []\n    k %= len(xs)\n    return xs[-k:] + xs[:-k]",
        a="[1, 2, 3], 1 -> [3, 1, 2]", b="[1, 2, 3], -1 -> [2, 3, 1]", c="[], 5 -> []",
        d="[1, 2], 5 -> [2, 1]", e="[1, 2, 3], 3 -> [1, 2, 3]",
    ),
    _task(
        "balanced(s)", "It says whether the brackets ()[]{} in s are balanced; other characters do "
        "not matter.",
        "    st = []\n    for c in s:\n        if c in '([{':\n            st.append(c)\n"
        "        elif c in ')]}':\n            if not st or st.pop() != '([{'[')]}'.index(c)]:\n"
        "                return False\n    return not st",
        a="'(a[b]{c})' -> True", b="'(]' -> False", c="'' -> True", d="'((' -> False",
        e="')(' -> False", f="'([)]' -> False",
    ),
    _task(
        "digit_root(n)", "It adds up the decimal digits of n >= 0 again and again until one digit "
        "is left.",
        "    while n > 9:\n        n = sum(map(int, str(n)))\n    return n",
        a="0 -> 0", b="38 -> 2", c="999999 -> 9", d="10 -> 1",
    ),
    _task(
        "merge_intervals(xs)", "xs is a list of [start, end] lists. It merges those that overlap or "
        "touch and returns them sorted.",
        "    out = []\n    for a, b in sorted(xs):\n        if out and a <= out[-1][1]:\n"
        "            out[-1][1] = max(out[-1][1], b)\n        else:\n            out.append([a, b])\n"
        "    return out",
        a="[[1, 3], [2, 6], [8, 10]] -> [[1, 6], [8, 10]]", b="[[1, 4], [4, 5]] -> [[1, 5]]",
        c="[] -> []", d="[[5, 6], [1, 2]] -> [[1, 2], [5, 6]]", e="[[1, 9], [2, 3]] -> [[1, 9]]",
    ),
    _task(
        "caesar(s, k)", "It shifts the letters a-z and A-Z by k places, around the alphabet, and "
        "leaves everything else.",
        "    def f(c):\n        if c.isascii() and c.isalpha():\n"
        "            b = ord('a') if c.islower() else ord('A')\n"
        "            return chr((ord(c) - b + k) % 26 + b)\n        return c\n"
        "    return ''.join(map(f, s))",
        a="'abc xyz', 3 -> 'def abc'", b="'Hello!', 13 -> 'Uryyb!'", c="'a', -1 -> 'z'",
        d="'Az', 27 -> 'Ba'",
    ),
    _task(
        "flatten(xs)", "It flattens lists nested to any depth into one list.",
        "    out = []\n    for x in xs:\n        out += flatten(x) if isinstance(x, list) else [x]\n"
        "    return out",
        a="[1, [2, [3, []]], 4] -> [1, 2, 3, 4]", b="[] -> []", c="[[], [[]]] -> []",
        d="['ab', ['c']] -> ['ab', 'c']",
    ),
    _task(
        "primes(n)", "It returns the list of all primes less than or equal to n.",
        "    return [p for p in range(2, n + 1) if all(p % d for d in range(2, int(p**.5) + 1))]",
        a="10 -> [2, 3, 5, 7]", b="1 -> []", c="2 -> [2]", d="30 -> [2, 3, 5, 7, 11, 13, 17, 19, "
        "23, 29]", e="0 -> []",
    ),
    _task(
        "median(xs)", "It returns the median of a non-empty list of numbers; of an even number of "
        "them the mean of the middle two. The list is not changed.",
        "    s = sorted(xs)\n    m = len(s) // 2\n    return s[m] if len(s) % 2 else (s[m - 1] + s[m]) / 2",
        a="[3, 1, 2] -> 2", b="[4, 1, 3, 2] -> 2.5", c="[7] -> 7", d="[1, 1] -> 1",
    ),
    _task(
        "anagrams(words)", "It groups words that are anagrams of each other: a list of lists, groups "
        "and words in the order of first appearance.",
        "    g = {}\n    for w in words:\n        g.setdefault(''.join(sorted(w)), []).append(w)\n"
        "    return list(g.values())",
        a="['tea', 'ate', 'tan', 'eat'] -> [['tea', 'ate', 'eat'], ['tan']]", b="[] -> []",
        c="['a', 'b', 'a'] -> [['a', 'a'], ['b']]",
    ),
    _task(
        "to_base(n, b)", "It writes the integer n in base b (2 to 16) with the digits 0-9a-f; "
        "negative numbers begin with '-'.",
        "    if n == 0:\n        return '0'\n    s, m = '', abs(n)\n    while m:\n"
        "        s = '0123456789abcdef'[m % b] + s\n        m //= b\n    return '-' + s if n < 0 else s",
        a="10, 2 -> '1010'", b="0, 7 -> '0'", c="-255, 16 -> '-ff'", d="8, 3 -> '22'",
    ),
    _task(
        "longest_run(xs)", "It returns the length of the longest run of strictly increasing "
        "neighbours in a list.",
        "    best = cur = 1 if xs else 0\n    for a, b in zip(xs, xs[1:]):\n"
        "        cur = cur + 1 if b > a else 1\n        best = max(best, cur)\n    return best",
        a="[1, 2, 3, 1, 2] -> 3", b="[] -> 0", c="[5, 5] -> 1", d="[3, 2, 1] -> 1",
        e="[1, 2, 2, 3, 4] -> 3",
    ),
    _task(
        "title_case(s)", "It capitalises the first letter of every word (words are separated by "
        "spaces) and makes the others small; spaces stay as they are.",
        "    return ' '.join(w[:1].upper() + w[1:].lower() for w in s.split(' '))",
        a="'hello WORLD' -> 'Hello World'", b="\"don't stop\" -> \"Don't Stop\"",
        c="'a  b' -> 'A  B'", d="'' -> ''",
    ),
    _task(
        "transpose(m)", "It transposes a matrix given as a list of rows; [] stays [].",
        "    return [list(r) for r in zip(*m)]",
        a="[[1, 2], [3, 4], [5, 6]] -> [[1, 3, 5], [2, 4, 6]]", b="[] -> []", c="[[1]] -> [[1]]",
    ),
    _task(
        "change(amount, coins)", "It returns the least number of coins that add up to amount, or -1 "
        "if none do; each coin may be used any number of times.",
        "    best = [0] + [None] * amount\n    for a in range(1, amount + 1):\n"
        "        o = [best[a - c] for c in coins if c <= a and best[a - c] is not None]\n"
        "        best[a] = min(o) + 1 if o else None\n"
        "    return -1 if best[amount] is None else best[amount]",
        a="11, [1, 2, 5] -> 3", b="3, [2] -> -1", c="0, [1] -> 0", d="6, [1, 3, 4] -> 2",
    ),
    _task(
        "parse_time(s)", "It turns texts such as '1h30m', '45m', '2h' or '90s' into seconds; parts "
        "come in the order h, m, s.",
        "    import re\n    h, m, x = re.fullmatch(r'(?:(\\d+)h)?(?:(\\d+)m)?(?:(\\d+)s)?', s).groups()\n"
        "    return int(h or 0) * 3600 + int(m or 0) * 60 + int(x or 0)",
        a="'1h30m' -> 5400", b="'45m' -> 2700", c="'90s' -> 90", d="'1h1s' -> 3601", e="'2h' -> 7200",
    ),
)  # fmt: skip


def hidden_test(task: Task) -> str:
    """Python code that fails if the function above it is wrong."""
    return "\n".join(
        f"assert {task.name}({arguments}) == {result}" for arguments, result in task.hidden
    )


async def judge(programs: list[str], task: Task) -> list[bool]:
    """For each program, True if the hidden tests accept it."""
    sandbox = Sandbox(SandboxLimits(seconds=10))
    test = hidden_test(task)
    executions = await asyncio.gather(
        *(sandbox.run(f"{program}\n\n\n{test}\n") for program in programs)
    )
    return [program.passed for program in executions]


async def solve(compiler: LLMCompiler, task: Task) -> dict[str, Any]:
    """Solve one problem, and return the row of the results."""
    state = RunState()
    result = await compiler.think(
        task.text,
        strategy="codemonkeys",
        seed=1,
        max_tokens=MAX_TOKENS,
        temperature=0.8,
        on_event=state.apply,
        **OPTIONS,
    )
    if result.cost is None or result.failure is not None:
        raise SystemExit(f"{task.name}: {result.failure}")
    calls = [call for call in state.calls.values() if call.label == "candidate"]
    programs = [extract_code(call.text) for call in calls]
    passing = await judge(programs, task)
    return {
        "problem": task.name,
        "selected": passing[programs.index(result.text)],
        "random": sum(passing) / len(passing),
        "oracle": any(passing),
        "calls": result.cost.calls,
        "B_total": result.cost.b_total,
        "seconds": round(result.cost.seconds, 1),
        "why": result.why,
        "data": dict(result.data),
    }


async def solve_missing(file: Path, minutes: float) -> None:
    """Solve the problems that the file lacks, until the time is up."""
    finished = {row["problem"] for row in read_rows(file)}
    deadline = time.monotonic() + 60 * minutes
    async with LLMCompiler((), "local", store=":memory:") as compiler:
        for task in TASKS:
            if task.name not in finished and time.monotonic() < deadline:
                row = await solve(compiler, task)
                with file.open("a") as out:
                    out.write(json.dumps(row) + "\n")


async def check_references() -> None:
    """Check that every hidden test accepts its reference and refuses an empty function."""
    for task in TASKS:
        empty = task.reference.partition("\n")[0] + "\n    return None"
        assert await judge([task.reference, empty], task) == [True, False], task.name
    print(f"{len(TASKS)} problems, {sum(len(task.hidden) for task in TASKS)} hidden cases: sound")


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of the results file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table of the shares."""
    count = len(rows)
    if not count:
        return "no results yet"
    shares = [sum(row[name] for row in rows) / count for name in ("random", "selected", "oracle")]
    cells = " | ".join(f"{share:.0%}" for share in shares)
    return f"| problems | random | selected | oracle |\n|---|---|---|---|\n| {count} | {cells} |"


def main() -> None:
    """Solve missing problems, print the table, or check the problems."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("codemonkeys.jsonl"))
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.check:
        asyncio.run(check_references())
        return
    if not options.table:
        asyncio.run(solve_missing(options.results, options.minutes))
    print(table(read_rows(options.results)))


if __name__ == "__main__":
    main()
