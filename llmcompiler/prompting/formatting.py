"""Values as text for prompts: numbers rounded and grouped, no needless quotes."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

_COUNTED = 3
"""Longer lists are shown with their length."""

_DIGITS = 5
_GROUPED = 10_000
"""Integers below this may be years or counts of things, and have no separators."""


def format_value(value: Any) -> str:
    """Format a result: grouped digits, no needless quotes or decimals."""
    match value:
        case bool() | None:
            return {True: "yes", False: "no", None: "none"}[value]
        case int():
            return f"{value:,}" if abs(value) >= _GROUPED else str(value)
        case float():
            return _format_float(value)
        case str():
            return value
        case dict():
            return ", ".join(f"{key}: {format_inner_value(item)}" for key, item in value.items())
        case list():
            # A small model counts badly, so a long list has its length.
            size = f"{len(value)} items: " if len(value) > _COUNTED else ""
            return size + ", ".join(map(format_inner_value, value)) if value else "none"
    return json.dumps(value, ensure_ascii=False, default=str)


def format_inner_value(value: Any) -> str:
    """Format a value that stands inside another one."""
    text = format_value(value)
    if isinstance(value, dict):
        return f"{{{text}}}"
    return f"[{text}]" if isinstance(value, list) and value else text


def _format_float(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return format_value(int(value))
    if not 1e-4 <= abs(value) < 1e15:
        return f"{value:.{_DIGITS}g}"
    integer_digits = len(str(int(abs(value))))
    decimals = max(0, _DIGITS - integer_digits) if abs(value) >= 1 else _DIGITS + 1
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def describe_day(day: str) -> str:
    """The sentence about a day in ISO 8601 that prompts hold; empty for no day."""
    return f"Today is {_DAYS[date.fromisoformat(day).weekday()]}, {day}.\n" if day else ""


def trim_text(value: Any, text: str, limit: int | None) -> str:
    """Cut ``text``, the formatted ``value``, to ``limit`` characters at the end of a word."""
    if limit is None or len(text) <= limit:
        return text
    beginning = text[:limit].rsplit(" ", 1)[0].rstrip(",{[ ")
    size = f" ({len(value)} in all)" if isinstance(value, list) else ""
    return f"{beginning} ...{size}"
