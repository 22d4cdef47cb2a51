"""Value handles: they stand for values that are stored elsewhere, being too large for the driver.

A handle tells the hash, size, type and beginning of a value, and how long its lists are. A path
into such a value gives a handle of that part; the worker that has the value follows the path.

Inside the process a handle is a type of its own, so that no dict that a tool returns is taken for
one. Where a value is written as JSON (the log, the cache of results), ``encode_handles`` writes a
handle as ``{"$held": HASH, ...}`` and escapes dicts of the user's that have such a key;
``decode_handles`` reads both back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

MARK = "$held"
"""The key of a written handle's hash. Behind it may also stand an escaped dict of the user's."""

PATH = "path"
"""The key of the way from the whole value to the part that is meant."""

LENGTH = "length"
"""The key of a list's length."""

LENGTHS = "lengths"
"""The key of the lengths of an object's lists, by field."""

_KEYS = frozenset({MARK, PATH, LENGTH, LENGTHS, "bytes", "type", "begins"})
_DIGEST = re.compile(r"[0-9a-f]{32}")


class ValueHandle(dict[str, Any]):
    """Stands for a value that is stored elsewhere.

    A handle is the JSON object by which prompts, reports and logs show it: so whatever shows values
    shows handles too. Only its type makes it a handle.
    """

    __slots__ = ()
    __hash__ = None

    def __eq__(self, value: object) -> bool:
        return type(value) is ValueHandle and dict.__eq__(self, value)

    def __ne__(self, value: object) -> bool:
        return not self == value

    @property
    def digest(self) -> str:
        """The hash of the whole value."""
        digest: str = self[MARK]
        return digest

    @property
    def path(self) -> tuple[str | int, ...]:
        """The way from the whole value to the part that is meant; empty for the whole value."""
        return tuple(self.get(PATH, ()))

    @property
    def length(self) -> int | None:
        """How long the list is that the handle stands for; ``None`` where that is not known."""
        length = self.get(LENGTH)
        return length if isinstance(length, int) else None

    def part(self, segment: str | int) -> ValueHandle:
        """The handle of a field or an element."""
        part = ValueHandle({MARK: self.digest, PATH: [*self.path, segment]})
        if isinstance(length := self.get(LENGTHS, {}).get(segment), int):
            part[LENGTH] = length
        return part


def handles_in(value: Any) -> Iterator[ValueHandle]:
    """All handles in a value or in a call's arguments, however deep."""
    if type(value) is ValueHandle:
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from handles_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from handles_in(item)


def contains_handles(arguments: Mapping[str, Any]) -> bool:
    """Whether there is a handle among a call's arguments or inside one."""
    return next(handles_in(arguments), None) is not None


def encode_handles(value: Any) -> Any:
    """A value as plain JSON data, from which ``decode_handles`` makes the same value again.

    Handles become dicts with the key ``MARK``. A dict of the user's that has this key is wrapped
    into one that has no other: ``{"$held": {"$held": 3, "free": 7}}``.
    """
    if type(value) is ValueHandle:
        return dict(value)
    if isinstance(value, dict):
        encoded = {key: encode_handles(item) for key, item in value.items()}
        return {MARK: encoded} if MARK in encoded else encoded
    if isinstance(value, list | tuple):
        return [encode_handles(item) for item in value]
    return value


def decode_handles(value: Any) -> Any:
    """The value that ``encode_handles`` made this JSON data of.

    Releases before escaping was introduced wrote dicts of the user's as they were. Of those, the
    dicts that have not the form of a handle are read as they stand.
    """
    if isinstance(value, list):
        return [decode_handles(item) for item in value]
    if not isinstance(value, dict):
        return value
    if MARK in value:
        marked = value[MARK]
        if isinstance(marked, dict) and len(value) == 1:
            value = marked
        elif isinstance(marked, str) and _DIGEST.fullmatch(marked) and value.keys() <= _KEYS:
            return ValueHandle(value)
    return {key: decode_handles(item) for key, item in value.items()}
