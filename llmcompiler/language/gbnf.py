"""Pieces of GBNF, the notation of grammars that llama.cpp and vLLM's engines read.

``grammar`` builds the grammar of plans from these pieces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

REPEATS = 64
"""Longest bounded repetition: the decoder makes a rule of each of its steps."""

_KEYWORD = re.compile(r"[^\W\d][\w.\-]*")

SHARED = {
    # The bounds hold every 64-bit integer and every double: a lower one would cut an id in two.
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
# Any string, references of any kind included.
STRING = {"str": r'"\"" ([^"\\\x00-\x1f\x7f] | esc)* "\""'}
# Any string in which only a name of a field follows $N and a dot.
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
    """A terminal: the text in quotes."""
    out = plain.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + out.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


def parameter_name(name: str) -> str:
    """The name of a parameter as plans write it."""
    return name if _KEYWORD.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def constant(value: Any) -> str:
    """A terminal: a JSON value as plans write it."""
    if isinstance(value, bool):
        return '("true" | "True")' if value else '("false" | "False")'
    if value is None:
        return "null"
    return literal(json.dumps(value, ensure_ascii=False).replace("$", "$$"))


def repeat(body: str, least: int, most: int | None) -> str:
    """``body`` from ``least`` to ``most`` times; ``None`` is no upper bound."""
    if most is None:
        return f"({body})*" if least == 0 else f"({body}){{{least},}}"
    return f"({body}){{{least},{most}}}" if most else ""


def string_rule(schema: Mapping[str, Any]) -> str:
    """The rule of strings of the length that the schema allows."""
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    most = None if most is None or most > REPEATS else most
    if not least and most is None:
        return "str"
    return f'"\\"" {repeat("char", min(least, REPEATS), most)} "\\""'


def integer_rule(schema: Mapping[str, Any]) -> str:
    """The rule of whole numbers within the schema's bounds.

    With one bound only, the rule knows no more than the sign: not negative, or any number.
    """
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
    width = len(low) - 1
    if low[1:] == "0" * width and high[1:] == "9" * width:
        tail = "" if not width else " [0-9]" if width == 1 else f" [0-9]{{{width}}}"
        return [f"[{low[0]}-{high[0]}]{tail}"]
    if low[0] == high[0]:
        return [f"{literal(low[0])} {tail}" for tail in _digits(low[1:], high[1:])]
    first, last = int(low[0]), int(high[0])
    patterns: list[str] = []
    if low[1:] != "0" * width:
        patterns += [f"{literal(low[0])} {tail}" for tail in _digits(low[1:], "9" * width)]
        first += 1
    ends: list[str] = []
    if high[1:] != "9" * width:
        ends = [f"{literal(high[0])} {tail}" for tail in _digits("0" * width, high[1:])]
        last -= 1
    if first <= last:
        patterns += _digits(str(first) + "0" * width, str(last) + "9" * width)
    return patterns + ends


def numbers_rule(ids: Sequence[int]) -> str:
    """The rule of these numbers, with one pattern for each run of them."""
    patterns: list[str] = []
    run: list[int] = []
    for number in [*ids, -1]:
        if run and number != run[-1] + 1:
            patterns += _range(run[0], run[-1])
            run = []
        run.append(number)
    return " | ".join(patterns)
