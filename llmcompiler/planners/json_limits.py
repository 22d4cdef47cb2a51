"""JSON that a model wrote, held to the bounds that a plan's text has.

The module must not know what the JSON means.
"""

from __future__ import annotations

import json
from typing import Any

from llmcompiler.language.arguments import MAX_DEPTH


def read_written(text: str, around: int) -> Any:
    """What the JSON says; arguments in it may be nested as deeply as in a plan's text.

    Args:
        text: as a model wrote it.
        around: levels of lists and objects that stand around an argument.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    deep = f"arguments are nested more than {MAX_DEPTH} levels deep"
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(deep) from None
    level = [value]
    for _ in range(around + MAX_DEPTH + 1):
        level = [
            inner
            for one in level
            if isinstance(one, list | dict)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    if level:
        raise ValueError(deep)
    return value
