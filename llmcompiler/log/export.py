"""Export and import: a run as one file, for a bug report, another machine or a test's cassette.

The file is gzipped JSON Lines: a header with format and version, a line for each distinct value
under the hash of its content, a line for each event, and an end with the number of events and a
hash of all lines before. The same run always gives the same bytes, so a file can be kept under
version control.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import os
import secrets
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from llmcompiler.errors import LogError
from llmcompiler.events import EVENTS, Event, event_from_json
from llmcompiler.executors.value_handles import decode_handles, encode_handles
from llmcompiler.log.codec import digest_of, json_text
from llmcompiler.log.redaction import Redactor
from llmcompiler.log.store import RunStore

FORMAT = "llmcompiler run"
FORMAT_VERSION = 1

_LEVEL = 6


@dataclass(frozen=True, slots=True)
class RunFile:
    """The content of an exported file.

    Attributes:
        run: the run's id.
        wall: when the run began, seconds since the epoch.
        redacted: True if markers stand in place of its values.
        events: all events, in order.
    """

    run: str
    wall: float
    redacted: bool
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Imported:
    """The outcome of an import.

    Attributes:
        run: the run's id.
        is_new: False if the store had the same run already.
        redacted: True if markers stand in place of its values: it can be read, but not replayed.
    """

    run: str
    is_new: bool
    redacted: bool


def export_run(
    store: RunStore, run: str, file: str | os.PathLike[str], *, redact: bool = False
) -> str:
    """Write a run to a file, all of it or nothing; an existing file is replaced.

    Args:
        store: where the run is.
        run: its id, a unique prefix of it, or ``last``.
        file: by custom ``….jsonl.gz``.
        redact: replace question, texts, arguments and results by markers that keep their types
            and shapes; see ``llmcompiler.log.redaction``.

    Returns:
        The run's id.

    Raises:
        LogError: there is no such run, its log is damaged, or the file cannot be written.
    """
    run = store.find(run)
    events: Sequence[Event] = list(store.events(run))
    if redact:
        redactor = Redactor(secrets.token_bytes(16))
        events = [redactor.redact(event) for event in events]
    header = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "run": run,
        "wall": store.wall(run),
        "redacted": redact,
    }
    digest = blake2b(digest_size=16)
    data = io.BytesIO()
    # Without a time of writing, the same run gives the same bytes.
    with gzip.GzipFile(filename="", mode="wb", fileobj=data, compresslevel=_LEVEL, mtime=0) as out:
        for line in (_line(header), *_lines(events)):
            digest.update(line)
            out.write(line)
        out.write(_line({"end": len(events), "digest": digest.hexdigest()}))
    _write(Path(file), data.getvalue())
    return run


def _lines(events: Sequence[Event]) -> Iterator[bytes]:
    written_digests: set[str] = set()
    for event in events:
        kind = type(event)
        body: dict[str, Any] = {}
        for field in dataclasses.fields(kind):
            value = getattr(event, field.name)
            if field.name in kind.VALUES:
                encoded = encode_handles(value)
                digest = digest_of(json_text(encoded)).hex()
                if digest not in written_digests:
                    written_digests.add(digest)
                    yield _line({"value": digest, "json": encoded})
                value = digest
            elif field.name == "failure" and value is not None:
                value = dataclasses.asdict(value)
            body[field.name] = value
        yield _line({"event": kind.__name__, "body": body})


def _line(data: dict[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode() + b"\n"


def _write(file: Path, data: bytes) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise LogError(
            f"cannot write {file}: {error.strerror or error}", hint="give another place"
        ) from error


def import_run(store: RunStore, file: str | os.PathLike[str]) -> Imported:
    """Add a run from a file to a store, all of it or nothing. No run is ever overwritten.

    Raises:
        LogError: the file cannot be read, is no run, is damaged or of a newer format; or the store
            holds another run under the same id.
    """
    content = read_run(file)
    if store.has(content.run):
        if tuple(store.events(content.run)) == content.events:
            return Imported(content.run, False, content.redacted)
        raise LogError(
            f"{store.path} holds another run {content.run} than {file}",
            hint="import it into another store with --store",
        )
    store.add(content.run, content.wall, content.events)
    return Imported(content.run, True, content.redacted)


def read_run(file: str | os.PathLike[str]) -> RunFile:
    """Read a file that ``export_run`` wrote.

    Raises:
        LogError: it cannot be read, is no run, is damaged, or of a newer format.
    """
    try:
        with gzip.open(file, "rb") as source:
            lines = source.read().splitlines(keepends=True)
    except OSError as error:  # gzip.BadGzipFile is one too
        if isinstance(error, gzip.BadGzipFile):
            raise _not_a_run(file) from error
        raise LogError(
            f"cannot read {file}: {error.strerror or error}", hint="is the path right?"
        ) from error
    except (EOFError, zlib.error) as error:
        raise _damaged(file, "it breaks off or was changed") from error
    header = _parse_object(lines[0]) if lines else None
    if header is None or header.get("format") != FORMAT:
        raise _not_a_run(file)
    version = header.get("version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise LogError(
            f"{file} has format version {version}; this release reads {FORMAT_VERSION}",
            hint="upgrade llmcompiler-dag",
        )
    end = _parse_object(lines[-1])
    if end is None or "end" not in end:
        raise _damaged(file, "its end is missing")
    if end.get("digest") != blake2b(b"".join(lines[:-1]), digest_size=16).hexdigest():
        raise _damaged(file, "it does not fit its hash")
    try:
        events = tuple(_events(lines[1:-1]))
        if len(events) != end["end"]:
            raise ValueError(f"it has {len(events)} of {end['end']} events")
        return RunFile(header["run"], float(header["wall"]), bool(header["redacted"]), events)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(file, f"{type(error).__name__}: {error}") from error


def _events(lines: Sequence[bytes]) -> Iterator[Event]:
    values: dict[str, Any] = {}
    for line in lines:
        data = json.loads(line)
        if "value" in data:
            if digest_of(json_text(data["json"])).hex() != data["value"]:
                raise ValueError(f"the value {data['value']} does not fit its hash")
            values[data["value"]] = decode_handles(data["json"])
            continue
        kind, body = data["event"], data["body"]
        for name in EVENTS[kind].VALUES:
            if name in body:  # a field that is newer than the file has its default
                body[name] = values[body[name]]
        yield event_from_json(kind, body)


def _parse_object(line: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(line)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def _not_a_run(file: str | os.PathLike[str]) -> LogError:
    return LogError(
        f"{file} is not an exported run", hint="llmcompiler export RUN -o FILE makes one"
    )


def _damaged(file: str | os.PathLike[str], why: str) -> LogError:
    return LogError(f"{file} is damaged: {why}", hint="export the run again")
