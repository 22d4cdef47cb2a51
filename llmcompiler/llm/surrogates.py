"""Makes text of JSON strings that hold surrogates, which no file and no endpoint takes.

JSON may escape one character as two surrogates, and an endpoint may cut its stream between them.
"""

from __future__ import annotations

import re
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")
_FIRST_HALF = re.compile("[\ud800-\udbff]\\Z")


def join_surrogates(text: str) -> str:
    """The text with pairs of surrogates as one character; a lone one becomes U+FFFD."""
    if _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def join_surrogates_in(value: Any) -> Any:
    """JSON data with ``join_surrogates`` applied to every string, keys included."""
    if isinstance(value, str):
        return join_surrogates(value)
    if isinstance(value, list):
        return [join_surrogates_in(item) for item in value]
    if isinstance(value, dict):
        return {join_surrogates(key): join_surrogates_in(item) for key, item in value.items()}
    return value


class SurrogateJoiner:
    """Joins surrogates in a text that arrives in pieces: the first half waits for the second."""

    def __init__(self) -> None:
        self._half = ""

    def feed(self, piece: str) -> str:
        """Take in a piece; returns what is complete."""
        text = self._half + piece
        self._half = text[-1:] if _FIRST_HALF.search(text) else ""
        return join_surrogates(text[:-1] if self._half else text)

    def close(self) -> str:
        """End the text; returns what is left of it."""
        return join_surrogates(self._half)
