"""The SQLite file of a log: creation, opening, and migration to this release's schema.

The file's header says that it is a log of this package, and the version of its schema. A file of an
older version is migrated when it is opened, in one transaction. A file that cannot be written is
opened for reading, from a copy where it has to be migrated first.
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
from llmcompiler.log.owner import is_elsewhere, owner_if_alive

Durability: TypeAlias = Literal["process", "power"]
"""What a commit survives: a kill of the process, or a loss of power (one fsync each)."""

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

# Version 1 had two key columns, run and seq, and stored every value in ``contents``.
_FROM_1 = f"""
DROP INDEX events_by_kind;
ALTER TABLE events RENAME TO events_1;
{_EVENTS};
INSERT INTO events SELECT run << 32 | seq, kind, body, crc FROM events_1 ORDER BY run, seq;
DROP TABLE events_1;
"""

SEQ_BITS = 32
LAST_SEQ = (1 << SEQ_BITS) - 1
"""The largest number of an event in its run. A place has the run above ``SEQ_BITS`` such bits."""

_BUSY_SECONDS = 10.0
_WRITABLE = "file and directory must be writable for this; to give another file: --store"
FROM_SQLITE = (sqlite3.Error, UnicodeDecodeError)
"""What SQLite raises where it cannot read or write a file.

If the file is damaged, even the message of SQLite's error may not be valid text.
"""


class LogFile:
    """An SQLite file of this release's schema.

    A file that cannot be written is opened for reading.

    Args:
        path: the file, made if it is missing; ``":memory:"`` for none.
        durability: what a commit survives.

    Attributes:
        db: the connection; a statement outside of a transaction commits by itself.

    Raises:
        LogError: the file cannot be opened, is no log, or is of a newer version.
    """

    def __init__(self, path: str, durability: Durability) -> None:
        self.path = path
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        try:
            if path != ":memory:":
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            self.db = _connect(path)
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
        """A transaction that takes the write lock at its beginning, and rolls back on an error."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise

    def error(self, doing: str, error: Exception) -> LogError:
        """A ``LogError`` for an error of SQLite, with a hint about what to do.

        Args:
            doing: what failed, such as ``cannot open``.
            error: what SQLite raised.
        """
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
        """Close the file. A second call does nothing."""
        self.db.close()
        if self._copy is not None:
            self._copy.cleanup()

    def _open(self, durability: Durability | None) -> None:
        """Check the file's header, migrate the file, and prepare it for writing.

        Args:
            durability: what a commit survives; ``None`` to open the file for reading.
        """
        db = self.db
        version = db.execute("PRAGMA user_version").fetchone()[0]
        application = db.execute("PRAGMA application_id").fetchone()[0]
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and application != _APPLICATION_ID:
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
                db = self.db = self._connect_copy()
            self._migrate(db)
        if durability is None:
            if not tables:
                raise LogError(f"{self.path} is empty and cannot be written", hint=_WRITABLE)
            db.execute("PRAGMA query_only = ON")
            return
        db.execute("PRAGMA journal_mode = WAL")
        # In WAL mode, NORMAL hands a commit to the operating system without an fsync. A kill of
        # the process loses nothing. A loss of power may lose the last commits, but never damages
        # the file.
        db.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
        if not tables:
            with self.transaction():
                if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    for statement in (_SCHEMA + _EVENTS).split(";"):
                        db.execute(statement)
                    db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _migrate(self, db: sqlite3.Connection) -> None:
        """Change a file of an older schema version to this one, in one transaction.

        Raises:
            LogError: a process of this machine owns a run. That process is of the older release,
                because any other would have migrated the file, and it could not write any more.
        """
        with self.transaction():
            if db.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION:
                return  # another process was quicker
            if self._copy is None:
                self._refuse_if_owned(db)
            for statement in _FROM_1.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _refuse_if_owned(self, db: sqlite3.Connection) -> None:
        for run, owner in db.execute("SELECT id, holder FROM runs WHERE holder NOT NULL"):
            if not is_elsewhere(owner) and (owner_name := owner_if_alive(owner)):
                raise LogError(
                    f"{self.path} is of an older release, in which {owner_name} holds run {run}",
                    hint="wait for it to end, or stop it",
                )

    def _read_only(self) -> sqlite3.Connection:
        """A connection to a file in a directory in which SQLite cannot make its own files."""
        write_ahead_log = Path(self.path + "-wal")
        if not write_ahead_log.exists() or not write_ahead_log.stat().st_size:
            # No process can be writing, and the file itself holds everything.
            uri = f"{Path(self.path).absolute().as_uri()}?immutable=1"
            return _connect(uri, uri=True)
        # SQLite reads a write-ahead log only where it may make a file beside it.
        return self._connect_copy()

    def _connect_copy(self) -> sqlite3.Connection:
        """A connection to a copy of the file in the temporary directory."""
        self._copy = tempfile.TemporaryDirectory(prefix="llmcompiler-")
        for suffix in ("", "-wal"):
            if Path(self.path + suffix).exists():
                shutil.copyfile(self.path + suffix, f"{self._copy.name}/copy{suffix}")
        return _connect(f"{self._copy.name}/copy")


def places_of(run: int) -> tuple[int, int]:
    """The first and the last place that an event of a run may have, both included."""
    first = run << SEQ_BITS
    return first, first | LAST_SEQ


def _connect(path: str, *, uri: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=uri
    )


def _cannot_be_written(error: sqlite3.OperationalError) -> bool:
    name = getattr(error, "sqlite_errorname", "")
    return name == "SQLITE_CANTOPEN" or name.startswith("SQLITE_READONLY")
