"""Measures of operations whose result could be huge, taken before they are carried out."""

from __future__ import annotations

import ast
import json
import math
import re
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from llmcompiler.programs import subset
from llmcompiler.programs.meter import MAX_BITS, MAX_WIDTH, LimitExceeded, Meter, weigh

_SEQUENCES = (str, bytes, list, tuple)
_PERCENT_WIDTH = re.compile(r"%[-+ #0]*(\*|\d+)?(?:\.(\*|\d+))?")


def _measure_power(base: Any, exponent: Any) -> None:
    if not (isinstance(base, int) and isinstance(exponent, int)) or exponent <= 0:
        return
    if abs(base) > 1 and base.bit_length() * exponent > MAX_BITS:
        raise LimitExceeded(f"a number has more than {MAX_BITS:,} bits")


def _measure_shift(value: Any, count: Any) -> None:
    if not (isinstance(value, int) and isinstance(count, int)) or not value:
        return
    if value.bit_length() + count > MAX_BITS:
        raise LimitExceeded(f"a number has more than {MAX_BITS:,} bits")


def _measure_product(first: Any, second: Any) -> None:
    for items, count in ((first, second), (second, first)):
        is_repetition = isinstance(items, _SEQUENCES) and isinstance(count, int)
        if is_repetition and len(items) * count > 10_000_000:
            raise LimitExceeded("a repetition makes more than 10,000,000 elements")


def measure_percent(pattern: str, values: Any) -> None:
    """Measure the result of ``pattern % values``."""
    numbers = (
        [value for value in values if isinstance(value, int)] if isinstance(values, tuple) else []
    )
    for match in _PERCENT_WIDTH.finditer(pattern):
        for group in match.groups():
            if group == "*":
                if any(abs(number) > MAX_WIDTH for number in numbers):
                    raise LimitExceeded(f"a format is wider than {MAX_WIDTH:,} characters")
            elif group and int(group) > MAX_WIDTH:
                raise LimitExceeded(f"a format is wider than {MAX_WIDTH:,} characters")


MEASURES: dict[type[ast.operator], Callable[[Any, Any], None]] = {
    ast.Pow: _measure_power,
    ast.LShift: _measure_shift,
    ast.Mult: _measure_product,
}


def measure_text(meter: Meter, owner: str, name: str, args: Sequence[Any]) -> None:
    """Measure the result of a method of a string."""
    if name in ("center", "ljust", "rjust", "zfill") and args and isinstance(args[0], int):
        if args[0] > MAX_WIDTH:
            raise LimitExceeded(f"a text is padded to more than {MAX_WIDTH:,} characters")
    elif name == "replace" and len(args) >= 2 and isinstance(args[1], str):
        matches = owner.count(args[0]) if isinstance(args[0], str) else 0
        meter.charge(len(owner) + matches * len(args[1]))
    elif name == "join" and args and type(args[0]) in (list, tuple, set):
        items = args[0]
        meter.charge(
            sum(len(item) for item in items if isinstance(item, str)) + len(owner) * len(items)
        )


def _guard_factorial(meter: Meter, *args: Any, **_: Any) -> None:
    if any(isinstance(value, int) and value > 10_000 for value in args):
        raise LimitExceeded("the number is larger than 10,000")


def _guard_power(meter: Meter, *args: Any, **kwargs: Any) -> None:
    values = [*args, *kwargs.values()]
    if len(values) == 2:
        _measure_power(*values)


def _guard_pattern(meter: Meter, *args: Any, **kwargs: Any) -> None:
    pattern = args[0] if args else kwargs.get("pattern", "")
    texts = [text for text in (*args[1:], *kwargs.values()) if isinstance(text, str)]
    check_pattern(pattern, max(texts, key=len, default=""))


def _guard_substitution(meter: Meter, *args: Any, **kwargs: Any) -> None:
    _guard_pattern(meter, *args, **kwargs)
    values = [*args, *(kwargs[name] for name in ("repl", "string") if name in kwargs)]
    texts = [text for text in values if isinstance(text, str)]
    if len(texts) > 2:
        meter.charge(len(texts[1]) * (len(texts[2]) + 1))


def _guard_product(meter: Meter, *args: Any, **_: Any) -> None:
    items = args[0] if len(args) == 1 and not isinstance(args[0], int) else args
    if type(items) is range:
        bits = len(items) * max(abs(items.start), abs(items.stop)).bit_length()
    elif type(items) in (list, tuple, set, frozenset):
        bits = sum(item.bit_length() for item in items if isinstance(item, int))
    else:
        raise TypeError("give a list of numbers")
    if bits > MAX_BITS:
        raise LimitExceeded(f"a number may have more than {MAX_BITS:,} bits")


def _guard_quantiles(meter: Meter, *args: Any, n: Any = 4, **_: Any) -> None:
    if isinstance(n, int) and n > 10_000:
        raise LimitExceeded("more than 10,000 quantiles")


def _guard_whole(meter: Meter, *args: Any, **kwargs: Any) -> None:
    weigh(meter, *args, *kwargs.values())


def _text_guard(name: str) -> Callable[..., Any]:
    def guard(meter: Meter, *args: Any, **_: Any) -> None:
        if args and isinstance(args[0], str):
            measure_text(meter, args[0], name, args[1:])

    return guard


def _guard_json(meter: Meter, *args: Any, **kwargs: Any) -> None:
    if set(kwargs) - {"indent", "sort_keys", "ensure_ascii", "separators"}:
        raise TypeError("json takes indent, sort_keys, ensure_ascii and separators here")
    indent = kwargs.get("indent")
    weigh(meter, *args)
    if (isinstance(indent, int) and indent > 16) or (isinstance(indent, str) and len(indent) > 16):
        raise LimitExceeded("an indent is wider than 16")


GUARDS: dict[Any, Callable[..., Any]] = {
    pow: _guard_power,
    math.factorial: _guard_factorial,
    math.comb: _guard_factorial,
    math.perm: _guard_factorial,
    math.prod: _guard_product,
    math.lcm: _guard_product,
    statistics.quantiles: _guard_quantiles,
    repr: _guard_whole,
    str: _guard_whole,
    sorted: _guard_whole,
    min: _guard_whole,
    max: _guard_whole,
    set: _guard_whole,
    frozenset: _guard_whole,
    dict: _guard_whole,
    **{getattr(str, name): _text_guard(name) for name in subset.METHODS[str]},
    json.dumps: _guard_json,
    json.loads: _guard_json,
    **{
        getattr(re, name): _guard_pattern
        for name in ("findall", "fullmatch", "match", "search", "split")
    },
    re.sub: _guard_substitution,
}

_REPEAT = re.compile(r"[*+]|\{\d*,\d*\}")
_FIXED_REPEAT = re.compile(r"\{\d+\}")
_MOST_OPTIONS = 12
"""Optional parts of a regular expression: each may double the time."""


def check_pattern(pattern: Any, text: Any) -> None:
    """Refuse a regular expression that may take very long on a text.

    Python's engine goes back and tries again, so a repetition inside a repetition takes
    exponential time, and each further one multiplies the time by the text's length.

    Raises:
        LimitExceeded: it may.
    """
    if not isinstance(pattern, str):
        return
    if len(pattern) > 500:
        raise LimitExceeded("a regular expression has more than 500 characters")
    size = len(text) if isinstance(text, str) else 0
    if size > 1_000_000:
        raise LimitExceeded(
            "a regular expression is matched against more than 1,000,000 characters"
        )
    bare = re.sub(r"\\.|\[(?:\\.|[^\]\\])*\]", "x", pattern)
    depth, repeats_in, options = 0, [0], 0
    for at, char in enumerate(bare):
        if char == "(":
            depth += 1
            repeats_in.append(0)
        elif char == ")" and depth:
            depth -= 1
            inner = repeats_in.pop()
            follows = _REPEAT.match(bare, at + 1) or _FIXED_REPEAT.match(bare, at + 1)
            if inner and follows:
                raise LimitExceeded("a regular expression repeats a repetition")
            if follows and "|" in bare[bare.rfind("(", 0, at) : at]:
                raise LimitExceeded("a regular expression repeats a choice")
            if follows and "?" in bare[bare.rfind("(", 0, at) + 2 : at]:
                raise LimitExceeded("a regular expression repeats an optional part")
            repeats_in[-1] += inner
        elif char == "?" and at and bare[at - 1] not in "(*+?}":
            options += 1
        elif _REPEAT.match(bare, at):
            repeats_in[-1] += 1
    if options > _MOST_OPTIONS:
        raise LimitExceeded("a regular expression has more than 12 optional parts")
    repeats = sum(repeats_in)
    if repeats > 1 and size**repeats > 10**9:
        raise LimitExceeded(f"a regular expression with {repeats} repetitions meets a long text")
