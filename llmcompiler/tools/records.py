"""``largest``, ``smallest`` and ``total``: tools for lists of records.

The result of a fan-out is often a list of records. A tool finds the largest record or the sum more
reliably than a model that reads fifty numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

from llmcompiler.errors import ToolError
from llmcompiler.tools.base import Tool, tool
from llmcompiler.tools.calc import calculate

Record: TypeAlias = dict[str, Any]

_WORD = re.compile(r"[^\W\d]\w*")


@tool(pure=True)
def largest(items: list[Record], by: str) -> Record:
    """The one of several records in which a number is highest.

    Args:
        items: records, such as [$1, $2].
        by: a field of theirs or a formula of fields, such as "population / area_km2".
    """
    return _extreme(items, by, max)


@tool(pure=True)
def smallest(items: list[Record], by: str) -> Record:
    """The one of several records in which a number is lowest.

    Args:
        items: records, such as [$1, $2].
        by: a field of theirs or a formula of fields, such as "population / area_km2".
    """
    return _extreme(items, by, min)


@tool(pure=True)
def total(items: list[Record], of: str) -> float:
    """The sum of a number over several records.

    Args:
        items: records, such as [$1, $2].
        of: a field of theirs or a formula of fields.
    """
    return sum(_number(record, of) for record in items)


TOOLS: list[Tool] = [largest, smallest, total]


def _extreme(items: list[Record], by: str, choose: Callable[..., Any]) -> Record:
    if not items:
        raise ToolError("there are no records to choose from")
    values = [_number(record, by) for record in items]
    best = values.index(choose(values))
    record = items[best]
    return record if by in record else {**record, by: values[best]}


def _number(record: Record, formula: str) -> int | float:
    """The formula's value in one record.

    Raises:
        ToolError: the formula uses no field of the record, or is not a number there.
    """
    if formula in record:
        value = record[formula]
    elif not any(word in record for word in _WORD.findall(formula)):
        raise ToolError(
            f'"{formula}" names no field of the records', hint="fields: " + ", ".join(record)
        )
    else:
        value = calculate(formula, record)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ToolError(
            f'"{formula}" is {value!r:.80}, which is not a number, in {_short_text(record)}',
            hint="fields that are numbers: " + ", ".join(_numeric(record)),
        )
    return value


def _numeric(record: Record) -> list[str]:
    return [
        name
        for name, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]


def _short_text(record: Record) -> str:
    return f"{str(record)[:80]}..." if len(str(record)) > 80 else str(record)
