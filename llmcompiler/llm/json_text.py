"""Finds the JSON in a model's answer, wherever it stands.

An endpoint that holds models to no schema sends JSON in a fence, behind a sentence, or before one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

from llmcompiler.llm.surrogates import join_surrogates_in

_FENCE = re.compile(r"```[\w-]*[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)

_BRACKET = re.compile(r"[{\[]")

_MAX_STARTS = 2_000
"""Most places in a text where JSON is looked for; it bounds the time for a text of brackets."""


def load_strict_json(text: str) -> Any:
    """Parse JSON, without ``NaN`` and ``Infinity``, which are none.

    Lone surrogates become U+FFFD. Control characters may stand in strings.

    Raises:
        ValueError: the text is not JSON.
        RecursionError: it is nested too deeply.
    """
    return join_surrogates_in(json.loads(text, strict=False, parse_constant=_refuse_constant))


def find_json(text: str, fits: Callable[[Any], bool]) -> Any:
    """Find JSON in a text that may have other words around it.

    Args:
        text: a model's answer.
        fits: True for the value that is looked for.

    Returns:
        The text as a whole if that fits; else the last value in it that fits; else ``None``.
    """
    for candidate in (text, *reversed(_FENCE.findall(text))):
        try:
            value = load_strict_json(candidate)
        except (ValueError, RecursionError):
            continue
        if fits(value):
            return value
    return _find_among_words(text, fits)


def _find_among_words(text: str, fits: Callable[[Any], bool]) -> Any:
    decoder = json.JSONDecoder(strict=False, parse_constant=_refuse_constant)
    found = None
    position = 0
    for _ in range(_MAX_STARTS):
        start = _BRACKET.search(text, position)
        if start is None:
            break
        position = start.start()
        try:
            value, end = decoder.raw_decode(text, position)
            value = join_surrogates_in(value)
        except (ValueError, RecursionError):
            position += 1
            continue
        if fits(value):
            found = value
            position = end
        else:
            # The value that is looked for may stand inside this one.
            position += 1
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
