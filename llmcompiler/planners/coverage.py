"""Numbers of a question that no call of a plan uses: a sign that the plan ends too early.

A small model that is asked for four things at times writes the call for the first and joins. What
it left out mostly has a number in it that then stands nowhere: of 280 plans of the embedded model
that were judged, 21 showed this sign, of which 19 were wrong. (Names are a weaker sign: many are
units and titles.) The module must not know what is done about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from llmcompiler.language.printer import print_task
from llmcompiler.plan.model import Task

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?"
_ASKED = re.compile(
    rf"(?<![\w$.^])({_NUMBER})(?!\w|\.\d)(?:\s*(%|percent\b|thousand\b|million\b|billion\b))?",
    re.IGNORECASE,
)
_WRITTEN = re.compile(rf"(?<![\w$.]){_NUMBER}", re.IGNORECASE)

_SCALES = {"%": 0.01, "percent": 0.01, "thousand": 1e3, "million": 1e6, "billion": 1e9}

_COUNTS = 3
"""Whole numbers up to this one mostly count what is asked for ("the 3 largest")."""


def unused_numbers(question: str, tasks: Iterable[Task]) -> tuple[str, ...]:
    """The question's numbers that stand in no call, each once, as they are written there.

    1.5 % may be 1.5 or 0.015, and 2 million may be 2 or 2000000.
    """
    calls = (print_task(task).removeprefix(f"{task.id}.") for task in tasks)
    written = {f"{_value(number):.12g}" for call in calls for number in _WRITTEN.findall(call)}
    unused: dict[str, None] = {}
    for number, scale in _ASKED.findall(question):
        value = _value(number)
        scaled = value * _SCALES.get(scale.lower(), 1.0)
        if (value > _COUNTS or not value.is_integer()) and not (
            {f"{value:.12g}", f"{scaled:.12g}"} & written
        ):
            unused[number] = None
    return tuple(unused)


def _value(number: str) -> float:
    return float(number.replace(",", ""))
