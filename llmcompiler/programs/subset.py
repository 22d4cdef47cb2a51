"""The subset of Python that programs are written in: one table for compiler, checker and docs."""

from __future__ import annotations

import datetime
import json
import math
import re
import statistics
from typing import Any, NamedTuple

BUILTINS: dict[str, Any] = {
    "abs": abs,
    "all": all,
    "any": any,
    "bool": bool,
    "chr": chr,
    "dict": dict,
    "divmod": divmod,
    "enumerate": enumerate,
    "filter": filter,
    "float": float,
    "frozenset": frozenset,
    "int": int,
    "isinstance": isinstance,
    "len": len,
    "list": list,
    "map": map,
    "max": max,
    "min": min,
    "next": next,
    "ord": ord,
    "pow": pow,
    "range": range,
    "repr": repr,
    "reversed": reversed,
    "round": round,
    "set": set,
    "sorted": sorted,
    "str": str,
    "sum": sum,
    "tuple": tuple,
    "zip": zip,
}
"""Builtin functions and types, by name."""

LAZY = frozenset({"enumerate", "filter", "map", "reversed", "zip"})
"""Builtins whose result can be read once only. Such a result is read where it is made."""

METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        "capitalize casefold center count endswith find index isalnum isalpha isdecimal isdigit "
        "islower isnumeric isspace istitle isupper join ljust lower lstrip partition removeprefix "
        "removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines "
        "startswith strip swapcase title upper zfill".split()
    ),
    list: frozenset("append clear copy count extend index insert pop remove reverse sort".split()),
    tuple: frozenset({"count", "index"}),
    dict: frozenset("clear copy get items keys pop popitem setdefault update values".split()),
    set: frozenset(
        "add clear copy difference difference_update discard intersection intersection_update "
        "isdisjoint issubset issuperset pop remove symmetric_difference "
        "symmetric_difference_update union update".split()
    ),
    frozenset: frozenset(
        "copy difference intersection isdisjoint issubset issuperset symmetric_difference "
        "union".split()
    ),
    int: frozenset({"bit_length"}),
    float: frozenset({"is_integer"}),
    datetime.date: frozenset({"isoformat", "isoweekday", "weekday", "replace", "strftime"}),
    datetime.datetime: frozenset(
        {"date", "time", "isoformat", "isoweekday", "weekday", "replace", "strftime"}
    ),
    datetime.time: frozenset({"isoformat", "replace", "strftime"}),
    datetime.timedelta: frozenset({"total_seconds"}),
    re.Match: frozenset({"end", "group", "groupdict", "groups", "span", "start"}),
}
"""Methods of values, by the exact type of the value."""

MUTATING = frozenset(
    "add append clear difference_update discard extend insert intersection_update pop popitem "
    "remove reverse setdefault sort symmetric_difference_update update".split()
)
"""Methods that change the value that they are called on."""

FIELDS: dict[type, frozenset[str]] = {
    datetime.date: frozenset({"day", "month", "year"}),
    datetime.datetime: frozenset(
        {"day", "hour", "microsecond", "minute", "month", "second", "year"}
    ),
    datetime.time: frozenset({"hour", "microsecond", "minute", "second"}),
    datetime.timedelta: frozenset({"days", "microseconds", "seconds"}),
}
"""Attributes of values that are no dicts, by the exact type of the value."""


class Module(NamedTuple):
    """A module that programs may import.

    Attributes:
        functions: its functions and types, by name; a type may bring functions of its own.
        constants: its constants, by name.
    """

    functions: dict[str, Any]
    constants: dict[str, Any]


def _named(module: Any, names: str) -> dict[str, Any]:
    return {name: getattr(module, name) for name in names.split()}


MODULES: dict[str, Module] = {
    "math": Module(
        _named(
            math,
            "acos acosh asin asinh atan atan2 atanh ceil comb copysign cos cosh degrees dist exp "
            "fabs factorial floor fmod fsum gcd hypot isclose isfinite isinf isnan isqrt lcm log "
            "log10 log1p log2 perm pow prod radians sin sinh sqrt tan tanh trunc",
        ),
        _named(math, "e inf nan pi tau"),
    ),
    "statistics": Module(
        _named(
            statistics,
            "fmean geometric_mean harmonic_mean mean median median_high median_low mode multimode "
            "pstdev pvariance quantiles stdev variance",
        ),
        {},
    ),
    "json": Module(_named(json, "dumps loads"), {}),
    "re": Module(_named(re, "findall fullmatch match search split sub"), {}),
    "datetime": Module(_named(datetime, "date datetime time timedelta"), {}),
}
"""Modules that programs may import, all of them pure."""

TYPE_FUNCTIONS: dict[Any, frozenset[str]] = {
    datetime.date: frozenset({"fromisoformat", "fromordinal"}),
    datetime.datetime: frozenset({"combine", "fromisoformat", "strptime"}),
    datetime.time: frozenset({"fromisoformat"}),
    dict: frozenset({"fromkeys"}),
    str: METHODS[str],
}
"""Functions that are reached through a type, such as ``date.fromisoformat`` and ``str.lower``."""

HINTS: dict[str, str] = {
    "Import": "only math, statistics, json, re and datetime can be imported",
    "ImportFrom": "only math, statistics, json, re and datetime can be imported",
    "ClassDef": "use a dict for a record",
    "AsyncFunctionDef": "calls run in parallel by themselves; leave async out",
    "Await": "calls run in parallel by themselves; leave await out",
    "Raise": "use assert with a message",
    "With": "open files with a tool",
    "Global": "a helper function returns what it computes",
    "Nonlocal": "a helper function returns what it computes",
    "Yield": "collect the values in a list and return it",
    "YieldFrom": "collect the values in a list and return it",
    "NamedExpr": "assign on a line of its own",
    "Match": "use if and elif",
    "Delete": "build a new list or dict without the item",
    "Lambda": "a lambda can only be an argument, such as key=lambda item: item.size",
    "GeneratorExp": "a generator can only be the one argument of a call; use [...] for a list",
}
"""What to write instead of a construct that the subset lacks, by the name of the syntax node."""
