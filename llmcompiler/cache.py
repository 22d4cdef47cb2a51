"""Results of reading tools that serve later runs too: off unless a tool says how long they keep.

``@tool(cache=3600)`` lets a result serve for an hour wherever the same tool (its code and schema)
is called with the same arguments. A look that finds nothing says why. The module must not know runs
or schedules.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from llmcompiler.errors import LogError
from llmcompiler.tools.base import Tool

_SCHEMA = """
CREATE TABLE IF NOT EXISTS results (
    tool      TEXT NOT NULL,
    arguments BLOB NOT NULL,
    version   TEXT NOT NULL,
    at        REAL NOT NULL,
    value     TEXT NOT NULL,
    PRIMARY KEY (tool, arguments)
) STRICT, WITHOUT ROWID
"""
_BUSY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Hit:
    """A result that still serves.

    Attributes:
        value: the result as JSON.
        age: seconds since it was kept.
    """

    value: Any
    age: float


@dataclass(frozen=True, slots=True)
class Miss:
    """There is none.

    Attributes:
        why: in a sentence, for people.
    """

    why: str


class ResultCache:
    """A file of results. May be used from several threads, and by several processes.

    Args:
        path: an SQLite file, made if it is not there; ``":memory:"`` for none.
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
        """The kept result of a call, if it still serves; ``tool.cache`` says how long it does."""
        assert tool.cache is not None
        try:
            with self._lock:
                row = self._db.execute(
                    "SELECT version, at, value FROM results WHERE tool = ? AND arguments = ?",
                    (tool.name, _digest(arguments)),
                ).fetchone()
        except sqlite3.Error as error:
            raise self._error(error) from error
        if row is None:
            return Miss(f"{tool.name} was not called with these arguments before")
        version, at, value = row
        if version != _version(tool):
            return Miss(f"{tool.name} has changed since the result was kept")
        age = self._clock() - at
        if age > tool.cache:
            return Miss(f"the result is {age:.0f} s old and serves for {tool.cache:g} s")
        return Hit(json.loads(value), age)

    def keep(self, tool: Tool, arguments: Mapping[str, Any], value: Any) -> None:
        """Remember a result, in place of an older one of the same call."""
        row = (tool.name, _digest(arguments), _version(tool), self._clock(), json.dumps(value))
        try:
            with self._lock:
                self._db.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?)", row)
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


def _digest(arguments: Mapping[str, Any]) -> bytes:
    text = json.dumps(arguments, sort_keys=True, separators=(",", ":"))
    return blake2b(text.encode(), digest_size=16).digest()


def _version(tool: Tool) -> str:
    schema = json.dumps([tool.parameters_schema, tool.return_schema], sort_keys=True, default=str)
    return f"{tool.version}:{blake2b(schema.encode(), digest_size=8).hexdigest()}"
