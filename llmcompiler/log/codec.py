"""Events and values as the log stores them: rows, hashes, checksums.

An event is a row: its place in the run, its kind, a body of JSON, and a checksum over these and the
run's id. Values (results, arguments, requests) stand apart, each once, found by the hash of their
JSON; in the body is that hash. A small value stands in the body itself, as the one element of a
list. The module must not know files or transactions.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable, Container
from hashlib import blake2b
from typing import Any, TypeAlias

from pydantic_core import to_json

from llmcompiler.events import EVENTS, Event, event_from_dict

Contents: TypeAlias = dict[bytes, bytes]
"""Texts of values by their hashes."""

_SMALL = 128
"""Bytes of JSON up to which it costs less to write a value twice than to keep it apart: there it is
found by its hash, so it lies in a page of its own."""

_WORD = 1 << 63


def body_of(event: Event, kept: Container[bytes], contents: Contents) -> str:
    """The body of an event's row.

    Args:
        event: what is to be written.
        kept: hashes of values that are known to be stored.
        contents: the event's other values are added to these.
    """
    kind = type(event)
    body = (_ENCODERS.get(kind) or _encoder(kind))(event, kept, contents)
    try:
        return to_json(body).decode()
    except ValueError:
        # ASCII escapes: SQLite's text cannot hold the lone surrogates that JSON strings can.
        return _ascii(body)


def _stored(value: Any, kept: Container[bytes], contents: Contents) -> str | list[Any]:
    """What stands for a value in a body: the value in a list if it is small, else its hash."""
    kind = type(value)
    if value is None or kind is bool or kind is float or (kind is int and -_WORD < value < _WORD):
        return [value]
    text = text_of(value)
    # Notes are looked for among the contents (``retention``).
    if len(text) <= _SMALL and b'"$held"' not in text:
        return [value]
    digest = digest_of(text)
    if digest not in kept:
        contents[digest] = text
    return digest.hex()


def stored_value(stored: Any, lookup: Callable[[str], Any]) -> Any:
    """The value for which something stands in a body; ``lookup`` gives one by its hash."""
    return stored[0] if type(stored) is list else lookup(stored)


def event_of(kind: str, body: str, lookup: Callable[[str], Any]) -> Event:
    """The event that a row holds.

    Args:
        kind: the event's type.
        body: as ``body_of`` gave it.
        lookup: gives a value by its hash.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: there is no such event.
    """
    fields = json.loads(body)
    for name in EVENTS[kind].VALUES:
        if name in fields:  # a field that is newer than the file has its default
            fields[name] = stored_value(fields[name], lookup)
    return event_from_dict({"kind": kind, **fields})


def text_of(value: Any) -> bytes:
    """A JSON value as it is stored."""
    try:
        return to_json(value)
    except ValueError:  # lone surrogates, which JSON strings can hold, or very deep nesting
        return _dumps(value).encode("utf-8", "surrogatepass")


def digest_of(text: bytes) -> bytes:
    """The hash by which a stored text is found."""
    return blake2b(text, digest_size=16).digest()


def value_of(text: bytes) -> Any:
    """The JSON value of a stored text."""
    return json.loads(text.decode("utf-8", "surrogatepass"))


def is_whole(run: int, seq: Any, kind: Any, body: Any, crc: Any) -> bool:
    """Whether an event is what was written; ``run`` is the checksum of the run's id."""
    # Damage may also change the types of what is stored.
    return isinstance(body, str) and checksum(run, seq, kind, body) == crc


def checksum(run: int, seq: int, kind: str, body: str) -> int:
    """The checksum of an event; ``run`` is that of the run's id."""
    return zlib.crc32(f"{seq}{kind}{body}".encode(), run)


_Encoder: TypeAlias = Callable[[Event, Container[bytes], Contents], dict[str, Any]]

_ENCODERS: dict[type[Event], _Encoder] = {}


def _encoder(kind: type[Event]) -> _Encoder:
    """What gives an event of this type as a dict, values as they are stored.

    Each event is written by one, so it is a dict display, which takes a quarter of a loop's time.
    """
    items = ", ".join(
        f"{name!r}: stored(event.{name}, kept, contents)"
        if name in kind.VALUES
        else f"{name!r}: event.{name}"
        for name in (field.name for field in dataclasses.fields(kind))
    )
    made: _Encoder = eval(f"lambda event, kept, contents: {{{items}}}", {"stored": _stored})
    _ENCODERS[kind] = made
    return made


_ascii = json.JSONEncoder(separators=(",", ":"), default=dataclasses.asdict).encode
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
