"""Retention: deletion of old runs, and of the values to which no run refers any more.

A run that a live process owns is never deleted. A value stays as long as any run refers to it, such
as a fork of a deleted run. While any run is owned, all values stay too, because its process may
be about to refer to a value that it stored before; a later prune deletes them. The same holds for
large values that a cluster stores as files.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path

from llmcompiler.errors import LogError, UsageError
from llmcompiler.events import EVENTS
from llmcompiler.executors.value_handles import MARK
from llmcompiler.log.owner import owner_if_alive
from llmcompiler.log.sqlite_file import places_of
from llmcompiler.log.store import RunStore

_RESERVE_PAGES = 8
"""Pages that even a file without runs takes."""


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What a prune deleted.

    Attributes:
        runs: ids of the deleted runs, oldest first.
        owned_runs: ids of runs outside the bounds that stayed because a process owns them.
        values: number of deleted values.
        files: number of deleted files of large values.
        file_bytes: size of the deleted files.
        bytes_before: size of the store's files before.
        bytes_after: size of the store's files after.
        kept_because: why the file was not made smaller; empty if it was.
    """

    runs: tuple[str, ...]
    owned_runs: tuple[str, ...]
    values: int
    files: int
    file_bytes: int
    bytes_before: int
    bytes_after: int
    kept_because: str


def prune_runs(
    store: RunStore,
    *,
    older_than: float | None = None,
    keep: int | None = None,
    max_bytes: int | None = None,
    directory: Path | None = None,
    now: float | None = None,
) -> PruneReport:
    """Delete every run that is outside one of the bounds, and make the file smaller.

    Args:
        store: the file of runs.
        older_than: greatest age of a run that stays, in seconds since it began.
        keep: most runs that stay; the oldest go first.
        max_bytes: most bytes that the runs that stay may take; the oldest go first.
        directory: where a cluster stores large values of this store's runs, and of no other's.
            Files to which no run refers any more are deleted.
        now: seconds since the epoch; by default the clock's time.

    Raises:
        UsageError: no bound is given, one is negative, or there is no such directory.
        LogError: the store cannot be written.
    """
    bounds = (older_than, keep, max_bytes)
    if all(bound is None for bound in bounds) or any(b is not None and b < 0 for b in bounds):
        raise UsageError(
            "there is nothing to say which runs to drop",
            hint="give --older-than, --keep or --max-mb, none of them negative",
        )
    if directory is not None and not directory.is_dir():
        raise UsageError(f"{directory} is not a directory of values")
    before = _size(store)
    with store.deletion() as db:
        outside = _older(db, older_than, time.time() if now is None else now)
        outside |= _beyond(db, keep)
        if max_bytes is not None:
            outside |= _over(db, max_bytes)
        rows = db.execute("SELECT run, id, holder FROM runs ORDER BY run").fetchall()
        owned = {run for run, _, owner in rows if owner and owner_if_alive(owner)}
        to_delete = [(run, name) for run, name, _ in rows if run in outside - owned]
        for run, _ in to_delete:
            db.execute("DELETE FROM events WHERE place BETWEEN ? AND ?", places_of(run))
            db.execute("DELETE FROM runs WHERE run = ?", (run,))
        values = 0 if owned else _delete_values(db)
        referenced = _referenced_files(db)
    files = [] if owned or directory is None else _unreferenced_files(directory, referenced)
    file_bytes = sum(file.stat().st_size for file in files)
    for file in files:
        file.unlink()
    kept_because = "a run is going on" if owned else _compact(store)
    return PruneReport(
        runs=tuple(name for _, name in to_delete),
        owned_runs=tuple(name for run, name, _ in rows if run in outside & owned),
        values=values,
        files=len(files),
        file_bytes=file_bytes,
        bytes_before=before,
        bytes_after=_size(store),
        kept_because=kept_because,
    )


def _compact(store: RunStore) -> str:
    """Make the file smaller; returns why that failed, or an empty text."""
    try:
        store.compact()
    except LogError as error:
        return error.message
    return ""


def _size(store: RunStore) -> int:
    if store.path == ":memory:":
        return 0
    files = (Path(store.path + suffix) for suffix in ("", "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


# Which runs are outside the bounds.


def _older(db: sqlite3.Connection, seconds: float | None, now: float) -> set[int]:
    if seconds is None:
        return set()
    return _numbers(db.execute("SELECT run FROM runs WHERE wall < ?", (now - seconds,)))


def _beyond(db: sqlite3.Connection, keep: int | None) -> set[int]:
    if keep is None:
        return set()
    return _numbers(db.execute("SELECT run FROM runs ORDER BY run DESC LIMIT -1 OFFSET ?", (keep,)))


def _numbers(rows: Iterable[tuple[int]]) -> set[int]:
    return {run for (run,) in rows}


def _over(db: sqlite3.Connection, most: int) -> set[int]:
    """The runs that do not fit, if the latest are let in first.

    A value counts for the latest run that refers to it. A row takes more of the file than its text,
    so the lengths of texts are scaled to the file's present size.
    """
    _collect_references(db)
    sizes = db.execute(
        """
        WITH owned AS (SELECT digest, max(run) AS run FROM temp.referred GROUP BY digest)
        SELECT runs.run,
               (SELECT coalesce(sum(length(body)), 0) FROM events
                WHERE place BETWEEN runs.run << 32 AND ((runs.run + 1) << 32) - 1)
             + (SELECT coalesce(sum(length(body)), 0) FROM owned
                JOIN contents ON lower(hex(contents.digest)) = owned.digest
                WHERE owned.run = runs.run)
        FROM runs ORDER BY runs.run DESC
        """
    ).fetchall()
    pages, free, page = (
        db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    scale = (pages - free) * page / max(sum(size for _, size in sizes), 1)
    outside: set[int] = set()
    total = 0.0
    for run, size in sizes:
        total += size * scale
        if total > most - _RESERVE_PAGES * page:
            outside.add(run)
    return outside


# Values.


def _delete_values(db: sqlite3.Connection) -> int:
    _collect_references(db)
    return db.execute(
        "DELETE FROM contents WHERE lower(hex(digest)) NOT IN (SELECT digest FROM temp.referred)"
    ).rowcount


_HANDLE = re.compile(rf'"{re.escape(MARK)}":"([0-9a-f]{{32}})"'.encode())


def _referenced_files(db: sqlite3.Connection) -> set[str]:
    """Hashes of the large values of which the store holds a handle."""
    bodies = db.execute(
        "SELECT body FROM contents WHERE instr(body, CAST(? AS BLOB))", (f'"{MARK}"',)
    )
    return {digest.decode() for (body,) in bodies for digest in _HANDLE.findall(body)}


def _unreferenced_files(directory: Path, referenced: Container[str]) -> list[Path]:
    """Files of large values (``executors/value_store.py``) of which there is no handle."""
    files = (
        file for file in directory.glob("??/*.json") if re.fullmatch("[0-9a-f]{32}", file.stem)
    )
    return [file for file in files if file.stem not in referenced]


def _collect_references(db: sqlite3.Connection) -> None:
    """Fill the temporary table ``referred`` with the hashes of the values of each run."""
    db.execute("DROP TABLE IF EXISTS temp.referred")
    db.execute(
        "CREATE TEMP TABLE referred (digest TEXT, run INTEGER, PRIMARY KEY (digest, run))"
        " WITHOUT ROWID"
    )
    for name, kind in EVENTS.items():
        for field in kind.VALUES:
            db.execute(
                "INSERT OR IGNORE INTO temp.referred"
                " SELECT json_extract(body, ?1), place >> 32 FROM events"
                " WHERE kind = ?2 AND json_type(body, ?1) = 'text'",
                (f"$.{field}", name),
            )
