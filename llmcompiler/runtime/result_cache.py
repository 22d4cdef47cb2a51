"""Results of tools that serve later runs too.

A tool's results are cached only if the tool says for how long. ``@tool(cache=3600)`` lets a result
serve for an hour, wherever the same tool (same code, same schema, same model) is called with the
same arguments. A look-up that finds nothing gives the reason.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from llmcompiler.errors import LogError
from llmcompiler.executors.value_handles import decode_handles, encode_handles
from llmcompiler.tools.base import Tool

_SCHEMA = """
CREATE TABLE IF NOT EXISTS kept (
    tool      TEXT NOT NULL,
    digest    BLOB NOT NULL,
    arguments TEXT NOT NULL,
    code      TEXT NOT NULL,
    schema    TEXT NOT NULL,
    model     TEXT NOT NULL,
    at        REAL NOT NULL,
    value     TEXT NOT NULL,
    PRIMARY KEY (tool, digest)
) STRICT, WITHOUT ROWID
"""
_COMPARED = 50
"""Most calls of a tool that a call without a result is compared with, to say what differs."""

_LONGEST_VALUE = 60
"""Characters of an argument's value in the reason of a miss."""

_BUSY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Hit:
    """A result that still serves.

    Attributes:
        value: the result as JSON.
        age: seconds since the result was stored.
    """

    value: Any
    age: float


@dataclass(frozen=True, slots=True)
class Miss:
    """No result serves.

    Attributes:
        why: the reason in one sentence, for people.
    """

    why: str


class ResultCache:
    """A file of results. May be used from several threads, and by several processes.

    Args:
        path: an SQLite file, created if it does not exist; ``":memory:"`` for no file.
        clock: seconds since the epoch.

    Raises:
        LogError: (from any method) the file cannot be opened, read or written.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, clock: Callable[[], float] = time.time
    ) -> None:
        self.path = str(path)
        self._clock = clock
        self._lock = threading.Lock()
        try:
            if self.path != ":memory:":
                Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise self._error(error) from error

    def look(self, tool: Tool, arguments: Mapping[str, Any]) -> Hit | Miss:
        """Look up the result of a call; it serves for ``tool.cache`` seconds."""
        assert tool.cache is not None
        text = _text(arguments)
        rows_of_tool: list[tuple[str]] = []
        try:
            with self._lock:
                row = self._db.execute(
                    "SELECT code, schema, model, at, value FROM kept WHERE tool = ? AND digest = ?",
                    (tool.name, _digest(text)),
                ).fetchone()
                if row is None:
                    rows_of_tool = self._db.execute(
                        "SELECT arguments FROM kept WHERE tool = ? LIMIT ?", (tool.name, _COMPARED)
                    ).fetchall()
        except sqlite3.Error as error:
            raise self._error(error) from error
        if row is None:
            other_arguments = [json.loads(text) for (text,) in rows_of_tool]
            return Miss(_difference(tool.name, arguments, other_arguments))
        code, schema, model, at, value = row
        if schema != _schema(tool):
            return Miss(f"the schema of {tool.name} has changed since the result was kept")
        if model != tool.model:
            models = f"{model or 'no model'}, and is now of {tool.model or 'none'}"
            return Miss(f"the result is of {models}")
        if code != tool.version:
            return Miss(f"the code of {tool.name} has changed since the result was kept")
        age = self._clock() - at
        if age > tool.cache:
            return Miss(f"the result is {age:.0f} s old and serves for {tool.cache:g} s")
        return Hit(decode_handles(json.loads(value)), age)

    def keep(self, tool: Tool, arguments: Mapping[str, Any], value: Any) -> None:
        """Store a result, in place of an older one of the same call."""
        text = _text(arguments)
        row = (
            *(tool.name, _digest(text), text),
            *(tool.version, _schema(tool), tool.model),
            *(self._clock(), json.dumps(encode_handles(value))),
        )
        try:
            with self._lock:
                self._db.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            raise self._error(error) from error

    def close(self) -> None:
        """Close the file. May be called twice."""
        with self._lock:
            self._db.close()

    def _error(self, error: Exception) -> LogError:
        return LogError(
            f"the cache {self.path} cannot be used: {error}",
            hint="delete the file, or run without a cache; nothing but time is lost",
        )


def _text(arguments: Mapping[str, Any]) -> str:
    return json.dumps(encode_handles(arguments), sort_keys=True, separators=(",", ":"))


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()


def _schema(tool: Tool) -> str:
    text = json.dumps([tool.parameters_schema, tool.return_schema], sort_keys=True, default=str)
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _difference(
    name: str, arguments: Mapping[str, Any], stored_calls: Sequence[Mapping[str, Any]]
) -> str:
    """How a call differs from the most similar call whose result is stored."""
    if not stored_calls:
        return f"no result of {name} is kept"

    def differing_keys(candidate: Mapping[str, Any]) -> list[str]:
        keys = arguments.keys() | candidate.keys()
        absent = object()
        return sorted(k for k in keys if arguments.get(k, absent) != candidate.get(k, absent))

    nearest = min(stored_calls, key=lambda candidate: len(differing_keys(candidate)))
    differences = (
        f"{key} = {_value_text(nearest, key)}, and is now {_value_text(arguments, key)}"
        for key in differing_keys(nearest)[:2]
    )
    return f"{name} was called with other arguments only: {'; '.join(differences)}"


def _value_text(arguments: Mapping[str, Any], key: str) -> str:
    if key not in arguments:
        return "left out"
    text = json.dumps(arguments[key], ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
