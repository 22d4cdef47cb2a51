"""Are the numbers of an answer those of the results?

A model that was told to copy numbers sometimes reckons instead, and small ones reckon badly. What
no result says is found here by comparing texts. The module must not know who wrote them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

TOLERANCE = 0.01
"""Relative difference that rounding may make."""

_SMALL = 10
"""Whole numbers up to it may count what a sentence names."""

_NUMBER = re.compile(
    r"(?<![\w.])(\d[\d,\u00a0\u202f]*(?:\.\d+)?)\s*(thousand|million|billion|trillion|%|percent)?",
    re.IGNORECASE,
)
_SCALE = {
    "": 1.0,
    "thousand": 1e3,
    "million": 1e6,
    "billion": 1e9,
    "trillion": 1e12,
    "%": 0.01,
    "percent": 0.01,
}


def ungrounded_numbers(answer: str, source: str) -> list[str]:
    """Numbers in ``answer`` that are none of those in ``source``, however rounded.

    Scale words and percent signs are understood in both: ``125 million`` is 125,000,000, and
    ``7.7 %`` is 0.077 as well as 7.7.
    """
    known = [value for one in _numbers(source) for value in one.values]
    return [
        one.text
        for one in _numbers(answer)
        if not (one.values[0] <= _SMALL and one.values[0].is_integer())
        and not any(
            abs(value - other) <= max(TOLERANCE * abs(other), rounding)
            for value, rounding in zip(one.values, one.roundings, strict=True)
            for other in known
        )
    ]


class _Number(NamedTuple):
    """A number as it stands, and scaled; how far rounding to its digits may have moved each."""

    text: str
    values: tuple[float, float]
    roundings: tuple[float, float]


def _numbers(text: str) -> list[_Number]:
    found = []
    for match in _NUMBER.finditer(text):
        digits = re.sub(r"[^\d.]", "", match[1])
        value, scale = float(digits), _SCALE[(match[2] or "").lower()]
        half = 0.5 * 10.0 ** -len(digits.partition(".")[2])
        found.append(_Number(match[0].strip(), (value, value * scale), (half, half * scale)))
    return found
