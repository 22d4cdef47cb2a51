"""JSON written by a model, held to the nesting limit of the plan language."""

from __future__ import annotations

from typing import Any

from llmcompiler.language.arguments import MAX_DEPTH
from llmcompiler.llm.json_text import load_strict_json

_PROBLEM = f"arguments are nested more than {MAX_DEPTH} levels deep"


def load_bounded_json(text: str, around: int) -> Any:
    """Parse JSON in which arguments may be nested as deeply as in a plan's text.

    Args:
        text: the JSON text.
        around: levels of lists and objects around an argument.

    Raises:
        ValueError: the text is not JSON, or nested too deeply.
    """
    try:
        data = load_strict_json(text)
    except RecursionError:
        raise ValueError(_PROBLEM) from None
    return bounded_json(data, around)


def bounded_json(data: Any, around: int) -> Any:
    """Return parsed JSON if it is not nested too deeply.

    Args:
        data: the JSON.
        around: levels of lists and objects around an argument.

    Raises:
        ValueError: it is nested too deeply.
    """
    values = [data]
    for _ in range(around + MAX_DEPTH + 1):
        values = [
            inner
            for value in values
            if isinstance(value, list | dict)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
    if values:
        raise ValueError(_PROBLEM)
    return data
