"""The file of a log: made, opened for writing or reading, and brought to this release.

A file says by its header that it is ours and which version of the schema it has. An older one is
brought to this one when it is opened, all of it in one transaction; one that cannot be written is
read as it is, if need be from a copy. The module must not know what is in a row.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

from llmcompiler.errors import LogError
from llmcompiler.log.owner import is_elsewhere, still_holds

Durability: TypeAlias = Literal["process", "power"]
"""What is kept survives a kill of the process, or a loss of power (an fsync a commit)."""

SCHEMA_VERSION = 2

_APPLICATION_ID = 0x4C4D4350  # "LMCP": tells our files from other SQLite files

_SCHEMA = """
CREATE TABLE runs (
    run      INTEGER PRIMARY KEY,
    id       TEXT NOT NULL UNIQUE,
    wall     REAL NOT NULL,
    holder   TEXT
) STRICT;
CREATE TABLE contents (
    digest BLOB PRIMARY KEY,
    body   BLOB NOT NULL
) STRICT, WITHOUT ROWID;
"""

_EVENTS = """
CREATE TABLE events (
    place INTEGER PRIMARY KEY, -- run << 32 | number of the event in its run
    kind  TEXT NOT NULL,
    body  TEXT NOT NULL,
    crc   INTEGER NOT NULL
) STRICT;
CREATE INDEX events_by_kind ON events (kind) WHERE kind IN ('RunStarted', 'RunFinished');
"""

# Version 1 kept events by two columns, run and seq, and all values apart.
_FROM_1 = f"""
DROP INDEX events_by_kind;
ALTER TABLE events RENAME TO events_1;
{_EVENTS};
INSERT INTO events SELECT run << 32 | seq, kind, body, crc FROM events_1 ORDER BY run, seq;
DROP TABLE events_1;
"""

SEQ_BITS = 32
LAST_SEQ = (1 << SEQ_BITS) - 1
"""An event's place is its run, and its number in it of so many bits, at most this one."""

_BUSY_SECONDS = 10.0
_WRITABLE = "file and directory must be writable for this; to give another file: --store"
# Of a damaged file, even the words of SQLite's error may be no text.
FROM_SQLITE = (sqlite3.Error, UnicodeDecodeError)
"""What SQLite raises where a file cannot be read or written."""


class LogFile:
    """An SQLite file of this release's schema.

    Where the file cannot be written, it is opened for reading.

    Args:
        path: the file, made if it is not there; ``":memory:"`` for none.
        durability: what a commit survives.

    Attributes:
        db: the connection; statements outside of a transaction commit by themselves.

    Raises:
        LogError: the file cannot be opened, is no log, or is of a newer version.
    """

    def __init__(self, path: str, durability: Durability) -> None:
        self.path = path
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        try:
            if path != ":memory:":
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            self.db = _connected(path)
            try:
                self._open(durability)
            except sqlite3.OperationalError as error:
                if not _cannot_be_written(error) or not os.access(path, os.R_OK):
                    raise
                self.db.close()
                self.db = self._read_only()
                self._open(None)
        except (*FROM_SQLITE, OSError) as error:
            raise self.error("cannot open", error) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and alone: the write lock is taken at the beginning."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise

    def error(self, doing: str, error: Exception) -> LogError:
        """SQLite's error in our words: what was being done, and what to do now."""
        text = str(error)
        hint = "give another file with --store"
        if "locked" in text or "busy" in text:
            hint = "another process holds the file; wait for it, or give another with --store"
        elif "readonly" in text or "unable to open" in text:
            hint = _WRITABLE
        elif "full" in text or "No space" in text:
            hint = "free some space; what was recorded before is intact"
        elif "malformed" in text or "not a database" in text or isinstance(error, ValueError):
            hint = "the file is damaged or no run store; move it away, or give another with --store"
        return LogError(f"{doing} the run store {self.path}: {text}", hint=hint)

    def close(self) -> None:
        """Close it. May be called twice."""
        self.db.close()
        if self._copy is not None:
            self._copy.cleanup()

    def _open(self, durability: Durability | None) -> None:
        """Check what the file is, and prepare it for writing; not with ``None``."""
        db = self.db
        version = db.execute("PRAGMA user_version").fetchone()[0]
        owner = db.execute("PRAGMA application_id").fetchone()[0]
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and owner != _APPLICATION_ID:
            raise LogError(
                f"{self.path} is an SQLite file of another program",
                hint="give another file with --store",
            )
        if tables and version < 1:
            raise LogError(f"{self.path} has no schema version", hint="the file is damaged")
        if version > SCHEMA_VERSION:
            raise LogError(
                f"{self.path} has schema version {version}; this release reads {SCHEMA_VERSION}",
                hint="upgrade llmcompiler-dag, or give another file with --store",
            )
        if tables and version < SCHEMA_VERSION:
            if durability is None and self._copy is None:
                db.close()
                db = self.db = self._copied()
            self._migrate(db)
        if durability is None:
            if not tables:
                raise LogError(f"{self.path} is empty and cannot be written", hint=_WRITABLE)
            db.execute("PRAGMA query_only = ON")
            return
        db.execute("PRAGMA journal_mode = WAL")
        # In WAL mode NORMAL leaves a commit in the operating system's hands: a killed process
        # loses nothing, a loss of power may lose the last commits but never damages the file.
        db.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
        if not tables:
            with self.transaction():
                if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    for statement in (_SCHEMA + _EVENTS).split(";"):
                        db.execute(statement)
                    db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _migrate(self, db: sqlite3.Connection) -> None:
        """Bring a file of an older schema version to this one, in one transaction.

        Raises:
            LogError: a process of this machine holds a run. It must be of the release that made the
                file, as any other would have brought it here, and it could not go on.
        """
        with self.transaction():
            if db.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION:
                return  # another process was quicker
            for run, holder in db.execute("SELECT id, holder FROM runs WHERE holder NOT NULL"):
                if self._copy is None and not is_elsewhere(holder) and (who := still_holds(holder)):
                    raise LogError(
                        f"{self.path} is of an older release, in which {who} holds run {run}",
                        hint="wait for it to end, or stop it",
                    )
            for statement in _FROM_1.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _read_only(self) -> sqlite3.Connection:
        """The file where nothing can be made beside it, as SQLite does for readers and writers."""
        log = Path(self.path + "-wal")
        if not log.exists() or not log.stat().st_size:
            # Nobody can be writing, and all that was written is in the file itself.
            uri = f"{Path(self.path).absolute().as_uri()}?immutable=1"
            return _connected(uri, uri=True)
        # What a writer left in its log is seen only where SQLite may make a file: in a copy.
        return self._copied()

    def _copied(self) -> sqlite3.Connection:
        """A copy of the file in the temporary directory."""
        self._copy = tempfile.TemporaryDirectory(prefix="llmcompiler-")
        for suffix in ("", "-wal"):
            if Path(self.path + suffix).exists():
                shutil.copyfile(self.path + suffix, f"{self._copy.name}/copy{suffix}")
        return _connected(f"{self._copy.name}/copy")


def places_of(run: int) -> tuple[int, int]:
    """The first and the last place that events of a run may have, for ``BETWEEN``."""
    first = run << SEQ_BITS
    return first, first | LAST_SEQ


def _connected(path: str, *, uri: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=uri
    )


def _cannot_be_written(error: sqlite3.OperationalError) -> bool:
    name = getattr(error, "sqlite_errorname", "")
    return name == "SQLITE_CANTOPEN" or name.startswith("SQLITE_READONLY")
