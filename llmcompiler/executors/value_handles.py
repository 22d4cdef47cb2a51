"""Notes that stand for values which are kept elsewhere, because they are too large to come by.

A note is data like any other: hash, size, type and beginning of the value, and how long its lists
are. A path into a noted value gives a note of that part, which whoever has the value follows. The
module must not know where values are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

HELD = "$held"
"""The key that marks a note; behind it stands the hash."""

PATH = "path"
"""The key of the way from the whole value to the part that is meant."""

LENGTH = "length"
"""The key of a list's length."""

LENGTHS = "lengths"
"""The key of the lengths of an object's lists, by field."""

Note: TypeAlias = dict[str, Any]


def is_note(value: Any) -> bool:
    """Whether a note stands in a value's place."""
    return type(value) is dict and HELD in value


def part_of(note: Note, segment: str | int) -> Note:
    """The note of a field or element of what ``note`` stands for."""
    part: Note = {HELD: note[HELD], PATH: [*note.get(PATH, ()), segment]}
    if isinstance(length := note.get(LENGTHS, {}).get(segment), int):
        part[LENGTH] = length
    return part


def length_of(note: Note) -> int | None:
    """How long the list is that ``note`` stands for; ``None`` where the note does not say."""
    length = note.get(LENGTH)
    return length if isinstance(length, int) else None


def notes_in(arguments: Mapping[str, Any]) -> Iterator[Note]:
    """Notes that stand for an argument, or for an element of one that is a list."""
    for value in arguments.values():
        kind = type(value)
        if kind is dict and HELD in value:
            yield value
        elif kind is list:
            yield from (one for one in value if type(one) is dict and HELD in one)


def holds(arguments: Mapping[str, Any]) -> bool:
    """Whether there is a note among the arguments."""
    return next(notes_in(arguments), None) is not None
