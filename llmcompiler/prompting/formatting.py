"""Values as a person or a model reads them: rounded, grouped, without needless quotes.

The log keeps what the tools returned; this is for prompts and screens. The module must not know
tasks or plans.
"""

from __future__ import annotations

import json
from typing import Any

_COUNTED = 3
"""Lists longer than this are shown with their length."""

_DIGITS = 5
_GROUPED = 10_000
"""Integers below it may be years or numbers of things, and are written without separators."""


def value_text(value: Any) -> str:
    """A result for reading: grouped digits, no needless quotes or decimals."""
    match value:
        case bool() | None:
            return {True: "yes", False: "no", None: "none"}[value]
        case int():
            return f"{value:,}" if abs(value) >= _GROUPED else str(value)
        case float():
            return _float_text(value)
        case str():
            return value
        case dict():
            return ", ".join(f"{key}: {inner_text(item)}" for key, item in value.items())
        case list():
            # Nor does a small model count well.
            size = f"{len(value)} items: " if len(value) > _COUNTED else ""
            return size + ", ".join(map(inner_text, value)) if value else "none"
    return json.dumps(value, ensure_ascii=False, default=str)


def inner_text(value: Any) -> str:
    """A value that stands inside another one."""
    text = value_text(value)
    if isinstance(value, dict):
        return f"{{{text}}}"
    return f"[{text}]" if isinstance(value, list) and value else text


def _float_text(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return value_text(int(value))
    if not 1e-4 <= abs(value) < 1e15:
        return f"{value:.{_DIGITS}g}"
    whole = len(str(int(abs(value))))
    decimals = max(0, _DIGITS - whole) if abs(value) >= 1 else _DIGITS + 1
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def trimmed(value: Any, text: str, limit: int | None) -> str:
    """``text``, the reading of ``value``, cut to ``limit`` characters at a word."""
    if limit is None or len(text) <= limit:
        return text
    kept = text[:limit].rsplit(" ", 1)[0].rstrip(",{[ ")
    size = f" ({len(value)} in all)" if isinstance(value, list) else ""
    return f"{kept} ...{size}"
