"""Events and values as the log stores them: rows, hashes, checksums.

An event is a row: its place in the run, its kind, a body of JSON, and a checksum over these three
and the run's id. A large value (a result, arguments, a request) stands in a table of its own, once,
under the hash of its JSON; the body holds the hash. A small value stands in the body itself, as the
only element of a list.

A handle of a value that is stored elsewhere (``ValueHandle``) is written as an object with the key
``$held``. A dict of a user's that has this key is escaped, so it is never read as a handle.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable, Container
from hashlib import blake2b
from typing import Any, TypeAlias

from pydantic_core import to_json

from llmcompiler.events import EVENTS, Event, event_from_json
from llmcompiler.executors.value_handles import MARK, decode_handles, encode_handles
from llmcompiler.speed import compiled_encoder

Contents: TypeAlias = dict[bytes, bytes]
"""JSON texts of values by their hashes."""

_INLINE_BYTES = 128
"""A value of at most so many bytes stands in the body. To write it twice costs less than a look-up
in the table of values, where it lies in a page of its own."""

_WORD = 1 << 63

_MARK = f'"{MARK}"'.encode()
"""Stands in the JSON of every value that holds a handle, or a dict that looks like one."""


def body_of(event: Event, stored: Container[bytes], contents: Contents) -> str:
    """The body of an event's row.

    Args:
        event: the event to write.
        stored: hashes of values that are known to be in the file.
        contents: receives the event's other values.
    """
    body = _ENCODERS[type(event)](event, stored, contents)
    try:
        return to_json(body).decode()
    except ValueError:
        # ASCII escapes: SQLite's text cannot hold the lone surrogates that JSON strings can.
        return _dump_ascii(body)


def _value_or_hash(value: Any, stored: Container[bytes], contents: Contents) -> str | list[Any]:
    """What stands for a value in a body: a small value in a list, the hash of a large one."""
    kind = type(value)
    if value is None or kind is bool or kind is float or (kind is int and -_WORD < value < _WORD):
        return [value]
    text = text_of(value)
    # A handle of a value on a cluster goes to the contents, where ``retention`` looks for it.
    if len(text) <= _INLINE_BYTES and _MARK not in text:
        return [value]
    digest = digest_of(text)
    if digest not in stored:
        contents[digest] = text
    return digest.hex()


_ENCODERS = {kind: compiled_encoder(kind, kind.VALUES, _value_or_hash) for kind in EVENTS.values()}


def stored_value(stored: Any, lookup: Callable[[str], Any]) -> Any:
    """The value for which ``stored`` stands in a body; ``lookup`` returns a value by its hash."""
    return stored[0] if type(stored) is list else lookup(stored)


def event_of(kind: str, body: str, lookup: Callable[[str], Any]) -> Event:
    """The event that a row holds.

    Args:
        kind: the name of the event's type.
        body: what ``body_of`` returned.
        lookup: returns a value by its hash.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: there is no such event.
    """
    fields = json.loads(body)
    for name in EVENTS[kind].VALUES:
        if name in fields:  # a field that is newer than the file has its default
            fields[name] = stored_value(fields[name], lookup)
    return event_from_json(kind, fields)


def text_of(value: Any) -> bytes:
    """The JSON text of a value, as it is stored: no data in it can be mistaken for a handle."""
    text = json_text(value)
    return text if _MARK not in text else json_text(encode_handles(value))


def value_of(text: bytes) -> Any:
    """The value of a stored JSON text."""
    value = json.loads(text.decode("utf-8", "surrogatepass"))
    return value if _MARK not in text else decode_handles(value)


def json_text(value: Any) -> bytes:
    """The text of JSON data, with nothing escaped."""
    try:
        return to_json(value)
    except ValueError:  # lone surrogates, which JSON strings can hold, or very deep nesting
        return _dump_unicode(value).encode("utf-8", "surrogatepass")


def digest_of(text: bytes) -> bytes:
    """The hash under which a text is stored."""
    return blake2b(text, digest_size=16).digest()


def is_intact(run_checksum: int, seq: Any, kind: Any, body: Any, crc: Any) -> bool:
    """True if a row is what was written.

    Args:
        run_checksum: the checksum of the run's id.
        seq: the event's number in its run.
        kind: the name of the event's type.
        body: the event's body.
        crc: the checksum that stands in the row.
    """
    # Damage may also change the types of what is stored.
    return isinstance(body, str) and checksum(run_checksum, seq, kind, body) == crc


def checksum(run_checksum: int, seq: int, kind: str, body: str) -> int:
    """The checksum of an event; ``run_checksum`` is the checksum of its run's id."""
    return zlib.crc32(f"{seq}{kind}{body}".encode(), run_checksum)


_dump_ascii = json.JSONEncoder(separators=(",", ":"), default=dataclasses.asdict).encode
_dump_unicode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
