"""Pieces of GBNF, the notation of grammars that llama.cpp and vLLM's engines read.

What a plan looks like is said elsewhere; the module must not know tools or plans.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

REPEATS = 64
"""Longest bounded repetition: each step of one is a rule of its own for the decoder."""

_KEYWORD = re.compile(r"[^\W\d][\w.\-]*")

SHARED = {
    # As long as 64 bits and a double's digits are: a shorter bound would cut an id in the middle.
    "int": '"-"? ("0" | [1-9] [0-9]{0,18})',
    "nat": '"0" | [1-9] [0-9]{0,18}',
    "num": 'int ("." [0-9]{1,17})? ([eE] [-+]? [0-9]{1,2})?',
    "pos": 'nat ("." [0-9]{1,17})? ([eE] [-+]? [0-9]{1,2})?',
    "bool": '"true" | "false" | "True" | "False"',
    "null": '"null" | "None"',
    "esc": r'"\\" ["\\/bfnrt]',
    "char": r'[^"\\$\x00-\x1f\x7f] | esc | "$$"',
    "key": r'"\"" char{1,48} "\""',
    "index": r'"[" ([0-9]{1,3} | "-" [1-9] | "*") "]"',
    "path": r'("." [a-zA-Z_] [a-zA-Z0-9_]* | index | "[" key "]")*',
    "thought": r'"Thought: " [^\n]+ "\n"',
}
# Any string, also one with references in it, whatever they name.
STRING = {"str": r'"\"" ([^"\\\x00-\x1f\x7f] | esc)* "\""'}
# The same, where behind $N and a dot only names of fields may stand.
STRING_OF_FIELDS = {
    "str": r'"\"" t',
    "t": r'"\"" | [^"\\$\x00-\x1f\x7f] t | esc t | "$" t-dollar',
    "t-dollar": r'"\"" | [1-9] t-number | "$" t | [^"\\$1-9{\x00-\x1f\x7f] t | esc t',
    "t-number": '[0-9] t-number | t-path | [^"\\\\$0-9.\\[\\x00-\\x1f\\x7f] t',
    "t-field": r"field t-end | [0-9] t | t-text",
    "t-end": r"t-path | [^\"\\$.\[0-9A-Za-z_\x00-\x1f\x7f-\U0010ffff] t",
    "t-path": r'"\"" | "." t-field | index t-end | esc t | "$" t-dollar',
    "t-text": r'"\"" | [^"\\$0-9A-Za-z_\x00-\x1f\x7f-\U0010ffff] t | esc t | "$" t-dollar',
}


def literal(plain: str) -> str:
    """The text itself."""
    out = plain.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + out.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


def keyword(name: str) -> str:
    """A parameter's name as plans write it."""
    return name if _KEYWORD.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def constant(value: Any) -> str:
    """One value of JSON, as plans write it."""
    if isinstance(value, bool):
        return '("true" | "True")' if value else '("false" | "False")'
    if value is None:
        return "null"
    return literal(json.dumps(value, ensure_ascii=False).replace("$", "$$"))


def repeated(body: str, least: int, most: int | None) -> str:
    """So many of ``body``; ``None`` for as many as come."""
    if most is None:
        return f"({body})*" if least == 0 else f"({body}){{{least},}}"
    return f"({body}){{{least},{most}}}" if most else ""


def string(schema: Mapping[str, Any]) -> str:
    """A string of the length that the schema allows."""
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    most = None if most is None or most > REPEATS else most
    if not least and most is None:
        return "str"
    return f'"\\"" {repeated("char", min(least, REPEATS), most)} "\\""'


def integer(schema: Mapping[str, Any]) -> str:
    """A whole number within the schema's bounds, if it has both; else not below 0, or any."""
    least = schema.get("minimum")
    if isinstance(under := schema.get("exclusiveMinimum"), int):
        least = under + 1
    most = schema.get("maximum")
    if isinstance(over := schema.get("exclusiveMaximum"), int):
        most = over - 1
    if not (isinstance(least, int) and isinstance(most, int)):
        return "nat" if isinstance(least, int) and least >= 0 else "int"
    choices: list[str] = []
    if least < 0:
        choices.append(f'"-" ({" | ".join(_range(max(1, -most), -least))})')
    if most >= 0:
        choices += _range(max(0, least), most)
    return f"({' | '.join(choices)})" if choices else "int"


def _range(low: int, high: int) -> list[str]:
    """Patterns of the whole numbers from ``low`` to ``high``, neither of them negative."""
    if low > high:
        return []
    width = len(str(low))
    top = 10**width - 1
    if high > top:
        return [*_range(low, top), *_range(top + 1, high)]
    return _digits(str(low), str(high))


def _digits(low: str, high: str) -> list[str]:
    """Patterns of the numbers between two of the same length, leading zeros included."""
    if low == high:
        return [literal(low)] if low else [""]
    rest = len(low) - 1
    if low[1:] == "0" * rest and high[1:] == "9" * rest:
        tail = "" if not rest else " [0-9]" if rest == 1 else f" [0-9]{{{rest}}}"
        return [f"[{low[0]}-{high[0]}]{tail}"]
    if low[0] == high[0]:
        return [f"{literal(low[0])} {tail}" for tail in _digits(low[1:], high[1:])]
    first, last = int(low[0]), int(high[0])
    out: list[str] = []
    if low[1:] != "0" * rest:
        out += [f"{literal(low[0])} {tail}" for tail in _digits(low[1:], "9" * rest)]
        first += 1
    ends: list[str] = []
    if high[1:] != "9" * rest:
        ends = [f"{literal(high[0])} {tail}" for tail in _digits("0" * rest, high[1:])]
        last -= 1
    if first <= last:
        out += _digits(str(first) + "0" * rest, str(last) + "9" * rest)
    return out + ends


def numbers(ids: Sequence[int]) -> str:
    """The numbers themselves, runs of them in one pattern."""
    out: list[str] = []
    run: list[int] = []
    for number in [*ids, -1]:
        if run and number != run[-1] + 1:
            out += _range(run[0], run[-1])
            run = []
        run.append(number)
    return " | ".join(out)
