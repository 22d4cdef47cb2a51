"""Bounds of texts in prompts: how tokens are estimated, and how texts and values are shortened.

Nothing is left out silently: wherever something is left out, a text in parentheses behind ``…``
says how much. A value is shortened by its structure: of a list the first items stay, of a record
all fields as far as possible, of a text its beginning and its end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

BYTES_PER_TOKEN = 3
"""Prose has four bytes of UTF-8 in a token, JSON with many numbers fewer than three."""

MAX_MESSAGE = 2000
"""Most characters of the message of a failed call in a prompt."""

_SMALLEST_PART = 120
"""Bytes that an item of a list or a field keeps at least, before items are left out."""

_SMALLEST_TEXT = 48
"""Bytes below which a text has no room for a beginning, an end and a statement."""

_MOST_LEVELS = 6
"""Levels of lists and records below which a value is shortened as text."""

_NOTE = 48
"""Bytes of a statement about what was left out."""


def size_of(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def estimate_tokens(text: str) -> int:
    """Tokens of a text, by rule: one for every three bytes of UTF-8, rounded up.

    No tokenizer is needed for it. It counts somewhat too many for prose in European languages, and
    about the right number for JSON and for Chinese.
    """
    return -(-size_of(text) // BYTES_PER_TOKEN)


def compact_json(value: Any) -> str:
    """A result as JSON in one line."""
    return json.dumps(value, ensure_ascii=False, default=str)


def shorten_message(message: str) -> str:
    """The message of a failed call, at most about ``MAX_MESSAGE`` characters of it."""
    return message if len(message) <= MAX_MESSAGE else shorten_text(message, MAX_MESSAGE)


def shorten_text(text: str, limit: int) -> str:
    """The beginning and the end of a text, with a statement between them.

    Args:
        text: the text.
        limit: most bytes of the shortened text; at least the statement is returned.
    """
    if size_of(text) <= limit:
        return text
    room = limit - _NOTE
    if room < _SMALLEST_TEXT:
        return f"… ({len(text):,} characters left out)"
    head, tail = _first_bytes(text, room * 3 // 4), _last_bytes(text, room // 4)
    left_out = len(text) - len(head) - len(tail)
    return f"{head} … ({left_out:,} characters left out) … {tail}"


def shorten_value(value: Any, limit: int) -> str:
    """A JSON value as text, shortened by its structure.

    Args:
        value: a result.
        limit: most bytes of the text; at least a statement is returned.
    """
    return _shorten(value, limit, 0)


def shorten_lines(lines: Sequence[str], limit: int) -> list[str]:
    """Lines that take at most ``limit`` bytes together; long lines give way first."""
    sizes = [size_of(line) for line in lines]
    if sum(sizes) <= limit:
        return list(lines)
    kept = _count_fitting(sizes, limit - _NOTE)
    shares = share_room(sizes[:kept], limit - _NOTE)
    texts = [shorten_text(line, share) for line, share in zip(lines, shares, strict=False)]
    if kept < len(lines):
        texts.append(f"… ({len(lines) - kept:,} of {len(lines):,} left out)")
    return texts


def share_room(sizes: Sequence[int], room: int) -> list[int]:
    """Share room among texts of these sizes: small ones stay whole, large ones get equal parts.

    Returns:
        A number for each text, at most its size; their sum is at most ``room``, if that is not
        negative.
    """
    shares = [0] * len(sizes)
    left = max(room, 0)
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    for rank, place in enumerate(order):
        shares[place] = min(sizes[place], left // (len(order) - rank))
        left -= shares[place]
    return shares


def _shorten(value: Any, limit: int, level: int) -> str:
    text = compact_json(value)
    if size_of(text) <= limit:
        return text
    short = ""
    if isinstance(value, str):
        short = compact_json(shorten_text(value, limit - 2 - (size_of(text) - size_of(value))))
        if size_of(short) > limit:
            short = compact_json(shorten_text(value, 0))
    elif isinstance(value, list) and level < _MOST_LEVELS:
        short = _shorten_list(value, limit, level)
    elif isinstance(value, Mapping) and level < _MOST_LEVELS:
        short = _shorten_record(value, limit, level)
    return short if short and size_of(short) <= limit else shorten_text(text, limit)


def _shorten_list(items: Sequence[Any], limit: int, level: int) -> str:
    room = limit - 2 - _NOTE
    sizes = [size_of(compact_json(item)) + 2 for item in items]
    kept = _count_fitting(sizes, room)
    if not kept:
        return f"[… ({len(items):,} items left out)]"
    shares = share_room(sizes[:kept], room)
    texts = [
        _shorten(item, share - 2, level + 1) for item, share in zip(items, shares, strict=False)
    ]
    if kept < len(items):
        texts.append(f"… (the last {len(items) - kept:,} of {len(items):,} items left out)")
    return f"[{', '.join(texts)}]"


def _shorten_record(record: Mapping[str, Any], limit: int, level: int) -> str:
    room = limit - 2 - _NOTE
    keys = [f"{compact_json(str(key))}: " for key in record]
    sizes = [
        size_of(compact_json(item)) + size_of(key) + 2
        for key, item in zip(keys, record.values(), strict=True)
    ]
    kept = _count_fitting(sizes, room)
    if not kept:
        return f"{{… ({len(record):,} fields left out)}}"
    shares = share_room(sizes[:kept], room)
    texts = [
        key + _shorten(item, share - 2 - size_of(key), level + 1)
        for key, item, share in zip(keys, record.values(), shares, strict=False)
    ]
    if kept < len(record):
        texts.append(f"… (the last {len(record) - kept:,} of {len(record):,} fields left out)")
    return f"{{{', '.join(texts)}}}"


def _count_fitting(sizes: Iterable[int], room: int) -> int:
    """How many parts fit from the first one on, if each keeps its smallest size."""
    count = 0
    for size in sizes:
        room -= min(size, _SMALLEST_PART)
        if room < 0:
            break
        count += 1
    return count


def _first_bytes(text: str, count: int) -> str:
    return text[:count].encode("utf-8", "surrogatepass")[:count].decode("utf-8", "ignore")


def _last_bytes(text: str, count: int) -> str:
    if count <= 0:
        return ""
    return text[-count:].encode("utf-8", "surrogatepass")[-count:].decode("utf-8", "ignore")
