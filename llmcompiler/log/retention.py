"""Retention: old runs are dropped, and with them the values that no run refers to any more.

A run that a live process holds is never dropped. Values are counted by reference: what a fork or
another run shares with a dropped one stays. While any run is held, values stay as well, since its
process may be about to refer to one that it wrote before; the next prune drops them. Large values
that a cluster keeps as files go likewise. The module must not know what events mean.
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
from llmcompiler.log.owner import still_holds
from llmcompiler.log.sqlite_file import places_of
from llmcompiler.log.store import RunStore

_RESERVE_PAGES = 8
"""What a file takes however little is in it."""


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What was dropped.

    Attributes:
        runs: ids of the runs that were dropped, oldest first.
        held: ids of those that would have been, but are held by a process.
        values: how many values were dropped.
        files: how many files of large values were deleted.
        file_bytes: their size.
        bytes_before: size of the store's files.
        bytes_after: their size now.
        kept_because: why values were kept and the file was not made smaller; empty if it was.
    """

    runs: tuple[str, ...]
    held: tuple[str, ...]
    values: int
    files: int
    file_bytes: int
    bytes_before: int
    bytes_after: int
    kept_because: str


def prune(
    store: RunStore,
    *,
    older_than: float | None = None,
    keep: int | None = None,
    max_bytes: int | None = None,
    directory: Path | None = None,
    now: float | None = None,
) -> PruneReport:
    """Drop every run that is outside one of the bounds, and make the file smaller.

    Args:
        store: of which runs are dropped.
        older_than: seconds since the run began.
        keep: how many of the latest runs may stay.
        max_bytes: how much the runs that stay may take; the oldest go first.
        directory: where a cluster keeps large values of this store's runs, and of no other's: those
            that no run speaks of any more are deleted.
        now: seconds since the epoch; default is the clock.

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
    with store.changing() as db:
        outside = _older(db, older_than, time.time() if now is None else now)
        outside |= _beyond(db, keep)
        if max_bytes is not None:
            outside |= _over(db, max_bytes)
        holders = db.execute("SELECT run, id, holder FROM runs ORDER BY run").fetchall()
        held = {run for run, _, holder in holders if holder and still_holds(holder)}
        dropped = [(run, name) for run, name, _ in holders if run in outside - held]
        for run, _ in dropped:
            db.execute("DELETE FROM events WHERE place BETWEEN ? AND ?", places_of(run))
            db.execute("DELETE FROM runs WHERE run = ?", (run,))
        values = 0 if held else _drop_values(db)
        spoken_of = _handles(db)
    files = [] if held or directory is None else _others(directory, spoken_of)
    file_bytes = sum(file.stat().st_size for file in files)
    for file in files:
        file.unlink()
    why = "a run is going on" if held else _compacted(store)
    return PruneReport(
        runs=tuple(name for _, name in dropped),
        held=tuple(name for run, name, _ in holders if run in outside & held),
        values=values,
        files=len(files),
        file_bytes=file_bytes,
        bytes_before=before,
        bytes_after=_size(store),
        kept_because=why,
    )


def _compacted(store: RunStore) -> str:
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
    """The runs that do not fit, when the latest are let in first.

    A value counts for the latest run that refers to it. Rows take more of a file than their text,
    so texts are scaled to what they take now.
    """
    _note_references(db)
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


def _drop_values(db: sqlite3.Connection) -> int:
    _note_references(db)
    return db.execute(
        "DELETE FROM contents WHERE lower(hex(digest)) NOT IN (SELECT digest FROM temp.referred)"
    ).rowcount


_HANDLE = re.compile(rb'"\$held":"([0-9a-f]{32})"')


def _handles(db: sqlite3.Connection) -> set[str]:
    """Hashes of the large values of which the store holds a handle."""
    bodies = db.execute("SELECT body FROM contents WHERE instr(body, CAST('\"$held\"' AS BLOB))")
    return {digest.decode() for (body,) in bodies for digest in _HANDLE.findall(body)}


def _others(directory: Path, spoken_of: Container[str]) -> list[Path]:
    """Files of large values (``executors/value_store.py``) of which there is no handle."""
    files = (
        file for file in directory.glob("??/*.json") if re.fullmatch("[0-9a-f]{32}", file.stem)
    )
    return [file for file in files if file.stem not in spoken_of]


def _note_references(db: sqlite3.Connection) -> None:
    """Fill a temporary table with what each run refers to."""
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
