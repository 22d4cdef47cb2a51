"""JSON written by a model, held to the nesting limit of the plan language."""

from __future__ import annotations

import json
from typing import Any

from llmcompiler.language.arguments import MAX_DEPTH


def load_bounded_json(text: str, around: int) -> Any:
    """Parse JSON in which arguments may be nested as deeply as in a plan's text.

    Args:
        text: the JSON text.
        around: levels of lists and objects around an argument.

    Raises:
        ValueError: the text is not JSON, or nested too deeply.
    """
    problem = f"arguments are nested more than {MAX_DEPTH} levels deep"
    try:
        data = json.loads(text)
    except RecursionError:
        raise ValueError(problem) from None
    values = [data]
    for _ in range(around + MAX_DEPTH + 1):
        values = [
            inner
            for value in values
            if isinstance(value, list | dict)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
    if values:
        raise ValueError(problem)
    return data
