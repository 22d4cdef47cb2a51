"""The durable log: an SQLite file to which runs append their events.

Layout: table ``runs`` has a row for each run, with the process that owns it. Table ``events`` has a
row for each event, in the order of the run. Table ``contents`` has a row for each distinct large
value, under the hash of its JSON. A run only appends events, so the file is at all times a prefix
of what happened. State is a fold over events.

An event's place is one number: its run in the upper bits, its number in the run in the lower ones.
It is the table's key, so an event of the latest run goes to the end of the table, and most commits
write one page.

SQLite notices damage to its own structure only. So an event carries a checksum over its body, its
place and its run's id; a value stands under its hash; and the places of a run have no gaps. A store
refuses a run in which anything was changed or lost.

Promise: once ``append`` has returned, its events survive a kill of the process
(``durability="process"``, the default), or a loss of power (``"power"``, one fsync for each
commit). The events of one ``append`` are stored together or not at all.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from llmcompiler.errors import LogError
from llmcompiler.events import Event, RunFinished, RunStarted, TaskPlanned
from llmcompiler.log.codec import (
    Contents,
    body_of,
    checksum,
    digest_of,
    event_of,
    is_intact,
    stored_value,
    value_of,
)
from llmcompiler.log.owner import is_elsewhere, owner_if_alive, this_process
from llmcompiler.log.sqlite_file import (
    FROM_SQLITE,
    LAST_SEQ,
    SEQ_BITS,
    Durability,
    LogFile,
    places_of,
)

_INSERT = "INSERT INTO events VALUES (?, ?, ?, ?)"
_Row: TypeAlias = tuple[int, str, str, int]
_SMALL_BATCH = 8
"""A batch of at most so many events is one statement, which SQLite commits with the least work."""
_INSERT_SMALL_BATCH = [
    _INSERT + ", (?, ?, ?, ?)" * (number - 1) for number in range(_SMALL_BATCH + 1)
]

_MAX_KNOWN_HASHES = 4096
_LATEST_RUNS = 20
_MODERATE_EVENTS = 2000


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A line of the list of runs.

    Attributes:
        run: the run's id.
        wall: when it began, seconds since the epoch.
        question: the question; ``None`` for a saved plan without one.
        status: ``answered``, ``failed`` or ``interrupted``; ``unfinished`` for a run that still
            runs in some process, or was killed; ``damaged`` if its rows are.
        answer: the answer; ``None`` for a run without one.
        tasks: number of tasks that were planned.
        seconds: how long the run took; ``None`` while unfinished.
        parent: id of the run from which it was forked.
    """

    run: str
    wall: float
    question: str | None
    status: str
    answer: str | None
    tasks: int
    seconds: float | None
    parent: str | None = None


def default_path() -> Path:
    """The default file of runs: ``runs.sqlite`` in the user's state directory."""
    import platformdirs

    return Path(platformdirs.user_state_dir("llmcompiler")) / "runs.sqlite"


class RunStore:
    """A file of runs. Several threads may use one store; several processes may share the file.

    A file that cannot be written is opened for reading; then every method that writes raises.

    Args:
        path: the file, made if it is missing; ``None`` for the default, ``":memory:"`` for none.
        durability: what a stored event survives; see the module's docstring.

    Raises:
        LogError: the file cannot be opened, is no run store, or is of a newer version.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, durability: Durability = "process"
    ) -> None:
        self.path = str(path) if path is not None else str(default_path())
        self._lock = threading.RLock()
        self._known_hashes: dict[bytes, None] = {}
        self._data_version = -1
        self._file = LogFile(self.path, durability)
        self._db = self._file.db

    def _no_run(self, run: str) -> LogError:
        return LogError(
            f'no run "{run}" in {self.path}', hint="llmcompiler runs lists what is there"
        )

    # Writing.

    def begin(self, run: str, wall: float | None = None) -> RunLog:
        """Add a new run, which this process owns.

        Raises:
            LogError: the id is taken, or the file cannot be written.
        """
        try:
            with self._lock:
                number = self._db.execute(
                    "INSERT INTO runs (id, wall, holder) VALUES (?, ?, ?)",
                    (run, time.time() if wall is None else wall, this_process()),
                ).lastrowid
                self._drop_known_hashes_if_pruned()
        except sqlite3.Error as error:
            raise self._file.error("cannot begin a run in", error) from error
        assert number is not None
        return RunLog(self, number, zlib.crc32(run.encode()))

    def claim(self, run: str, *, take_over: bool = False) -> RunLog:
        """Become the only writer of a run that another process left.

        If several processes claim a run, one wins: the row is changed in one transaction. Two
        writers could not both append anyway, because each place holds one event.

        Args:
            run: the run's whole id.
            take_over: claim the run even from an owner on another machine, of which this machine
                cannot tell whether it has ended. That owner cannot write any more.

        Raises:
            LogError: the owner still runs, or is on another machine; the message names it.
        """
        try:
            with self._lock, self._file.transaction() as db:
                row = db.execute("SELECT run, holder FROM runs WHERE id = ?", (run,)).fetchone()
                if row is None:
                    raise self._no_run(run)
                number, owner = row
                if owner is not None and (owner_name := owner_if_alive(owner)):
                    may_have_ended = is_elsewhere(owner)
                    if not (take_over and may_have_ended):
                        raise LogError(
                            f"run {run} is held by {owner_name}",
                            hint="if it has ended, resume the run with --take-over"
                            if may_have_ended
                            else "wait for it to end, or stop it",
                        )
                seq = _length(db, number)
                db.execute("UPDATE runs SET holder = ? WHERE run = ?", (this_process(), number))
            self._drop_known_hashes_if_pruned()
        except sqlite3.Error as error:
            raise self._file.error("cannot claim a run in", error) from error
        return RunLog(self, number, zlib.crc32(run.encode()), seq)

    def _drop_known_hashes_if_pruned(self) -> None:
        """Forget which values are in the file, if another process may have deleted some.

        Called once this process owns a run: from then on ``retention.prune`` deletes no value.
        """
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        if version != self._data_version:
            self._known_hashes.clear()
            self._data_version = version

    @contextmanager
    def deletion(self) -> Iterator[sqlite3.Connection]:
        """A transaction that may delete rows; ``retention`` uses it.

        Raises:
            LogError: the file cannot be written.
        """
        try:
            with self._lock, self._file.transaction() as db:
                self._known_hashes.clear()
                yield db
        except sqlite3.Error as error:
            raise self._file.error("cannot change", error) from error

    def compact(self) -> None:
        """Make the file smaller by its free space. A crash leaves it as it was before or after.

        SQLite writes the whole file anew into its write-ahead log, and one commit makes it valid.

        Raises:
            LogError: another process is writing, or there is no space for the copy.
        """
        try:
            with self._lock:
                self._db.execute("VACUUM")
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise self._file.error("cannot compact", error) from error

    def release(self, number: int) -> None:
        """End this process's ownership of a run; see ``RunLog.close``."""
        try:
            with self._lock:
                # Another process may have taken the run over meanwhile.
                self._db.execute(
                    "UPDATE runs SET holder = NULL WHERE run = ? AND holder = ?",
                    (number, this_process()),
                )
        except sqlite3.Error as error:
            raise self._file.error("cannot write to", error) from error

    def append(self, number: int, crc: int, seq: int, events: Sequence[Event]) -> None:
        """Store events, all or none; see ``RunLog.append``."""
        with self._lock:
            try:
                contents = self._insert(number, crc, seq, events)
            except sqlite3.IntegrityError as error:
                raise LogError(
                    f"another process has taken over the run in {self.path}",
                    hint="what this process did after that is not recorded",
                ) from error
            except sqlite3.Error as error:
                raise self._file.error("cannot write to", error) from error
            if contents:
                self._known_hashes.update(dict.fromkeys(contents))
                while len(self._known_hashes) > _MAX_KNOWN_HASHES:
                    del self._known_hashes[next(iter(self._known_hashes))]

    def add(self, run: str, wall: float, events: Sequence[Event]) -> None:
        """Store a complete run from another store, all of it or nothing.

        Raises:
            LogError: the id is taken, or the file cannot be written.
        """
        with self._lock:
            try:
                with self._file.transaction() as db:
                    number = db.execute(
                        "INSERT INTO runs (id, wall) VALUES (?, ?)", (run, wall)
                    ).lastrowid
                    assert number is not None
                    self._drop_known_hashes_if_pruned()
                    self._insert(number, zlib.crc32(run.encode()), 0, events)
            except sqlite3.Error as error:
                raise self._file.error("cannot add a run to", error) from error

    def _insert(self, number: int, crc: int, seq: int, events: Sequence[Event]) -> Contents:
        """Write events and large values; return the values that were not known to be stored."""
        db = self._db
        contents: Contents = {}
        # A large plan is one batch, so its events are encoded one by one while SQLite takes them.
        rows: Iterable[_Row] = self._rows(number, crc, seq, events, contents)
        if 0 < len(events) <= _SMALL_BATCH:
            rows = list(rows)
            if not contents:
                # A statement outside of a transaction is one; one for all rows is the least work.
                db.execute(_INSERT_SMALL_BATCH[len(events)], list(chain.from_iterable(rows)))
                return contents
        with nullcontext() if db.in_transaction else self._file.transaction():
            db.executemany(_INSERT, rows)
            db.executemany("INSERT OR IGNORE INTO contents VALUES (?, ?)", contents.items())
        return contents

    def _rows(
        self, number: int, crc: int, seq: int, events: Iterable[Event], contents: Contents
    ) -> Iterator[_Row]:
        """The rows of events; adds their large values to ``contents``."""
        first = number << SEQ_BITS
        for place, event in enumerate(events, seq):
            kind = type(event).__name__
            body = body_of(event, self._known_hashes, contents)
            yield first + place, kind, body, checksum(crc, place, kind, body)

    # Reading.

    def runs(self, limit: int | None = None) -> list[RunSummary]:
        """The latest runs, newest first."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT run, id, wall FROM runs ORDER BY run DESC LIMIT ?",
                (-1 if limit is None else limit,),
            ).fetchall()
            return [self._summary(*row) for row in rows]

    def _summary(self, number: int, run: str, wall: float) -> RunSummary:
        question: str | None = None
        parent: str | None = None
        status, answer, seconds, end_seq = "unfinished", None, None, 0
        first, last = places_of(number)
        run_checksum = zlib.crc32(run.encode()) if isinstance(run, str) else 0
        for seq, kind, body, crc in self._db.execute(
            "SELECT place & ?, kind, body, crc FROM events WHERE place BETWEEN ? AND ?"
            " AND kind IN ('RunStarted', 'RunFinished') ORDER BY place",
            (LAST_SEQ, first, last),
        ):
            if not is_intact(run_checksum, seq, kind, body, crc):
                return RunSummary(str(run), wall, None, "damaged", None, 0, None)
            event = json.loads(body)
            if kind == RunStarted.__name__:
                question = event["question"]
                origin = self._value(event["origin"], f"the start of run {run}")
                parent = origin["run"] if origin else None
            elif kind == RunFinished.__name__:
                status, answer, seconds = event["status"], event["answer"], event["at"]
                end_seq = seq
        if (
            status != "answered"
            and self._db.execute(
                "SELECT 1 FROM events WHERE place BETWEEN ? AND ? LIMIT 1",
                (first + end_seq + 1, last),
            ).fetchone()
        ):
            status, seconds = "unfinished", None  # it was resumed, and has not ended since
        tasks = self._db.execute(
            "SELECT count(*) FROM events WHERE place BETWEEN ? AND ? AND kind = 'TaskPlanned'",
            (first, last),
        ).fetchone()[0]
        return RunSummary(run, wall, question, status, answer, tasks, seconds, parent)

    def catalogues(self) -> Iterator[dict[str, Any]]:
        """The distinct catalogues of tools with which runs started, newest first.

        Raises:
            LogError: the start of a run is damaged.
        """
        with self._reading() as db:
            rows = db.execute(
                "SELECT id, body FROM events JOIN runs ON runs.run = place >> ?"
                " WHERE kind IN ('RunStarted', 'RunFinished') AND kind = 'RunStarted'"
                " ORDER BY place DESC",
                (SEQ_BITS,),
            ).fetchall()
        yielded: set[str] = set()
        for run, body in rows:
            try:
                stored = json.loads(body)["catalogue"]
            except (ValueError, KeyError, TypeError) as error:
                raise LogError(
                    f"the start of run {run} in {self.path} cannot be read",
                    hint="the file is damaged",
                ) from error
            if str(stored) not in yielded:
                yielded.add(str(stored))
                yield self._value(stored, f"the start of run {run}")

    def durations(self) -> dict[str, float]:
        """Median seconds of a call, by tool, from the latest runs; a fan-out counts as one call.

        Large runs are left out, so that the start of a run does not wait for their events.
        """
        with self._reading() as db:
            latest = db.execute(
                "SELECT run FROM runs ORDER BY run DESC LIMIT ?", (_LATEST_RUNS,)
            ).fetchall()
            rows = [
                (run, kind, body)
                for (run,) in reversed(latest)
                if _length(db, run) <= _MODERATE_EVENTS
                for kind, body in db.execute(
                    "SELECT kind, body FROM events WHERE place BETWEEN ? AND ?"
                    " AND kind IN ('TaskPlanned', 'TaskFinished') ORDER BY place",
                    places_of(run),
                )
            ]
        tools: dict[tuple[int, int], str] = {}
        seconds_by_tool: dict[str, list[float]] = {}
        for run, kind, body in rows:
            try:
                event = json.loads(body)
                if kind == TaskPlanned.__name__:
                    tools[run, event["id"]] = event["task"]["tool"]
                elif not event["index"] and not event.get("cached"):
                    tool = tools[run, event["task"]]
                    seconds_by_tool.setdefault(tool, []).append(event["seconds"])
            except (ValueError, KeyError, TypeError):
                continue  # a read of that run reports the damage; here it only costs an estimate
        return {tool: statistics.median(seconds) for tool, seconds in seconds_by_tool.items()}

    def find(self, text: str) -> str:
        """The id of a run, by an id, a unique prefix of one, or ``last``.

        Raises:
            LogError: there is no such run, or more than one.
        """
        with self._reading() as db:
            if text == "last":
                rows = db.execute("SELECT id FROM runs ORDER BY run DESC LIMIT 1").fetchall()
                if not rows:
                    raise LogError(
                        f"{self.path} holds no runs yet", hint='make one: llmcompiler run "…"'
                    )
            else:
                rows = db.execute(
                    "SELECT id FROM runs WHERE id = ?1 OR substr(id, 1, length(?1)) = ?1"
                    " ORDER BY id = ?1 DESC LIMIT 3",
                    (text,),
                ).fetchall()
        ids = [row[0] for row in rows]
        if not ids or not text:
            raise self._no_run(text)
        if len(ids) > 1 and ids[0] != text:
            raise LogError(f'"{text}" begins more than one run', hint=f"one of {', '.join(ids)} …")
        return str(ids[0])

    def has(self, run: str) -> bool:
        """True if there is a run of exactly that id."""
        with self._reading() as db:
            row = db.execute("SELECT 1 FROM runs WHERE id = ?", (run,)).fetchone()
        return row is not None

    def length(self, run: str) -> int:
        """Number of events that a run has now; ``run`` is its whole id."""
        with self._reading() as db:
            row = db.execute("SELECT run FROM runs WHERE id = ?", (run,)).fetchone()
            return 0 if row is None else _length(db, row[0])

    def wall(self, run: str) -> float:
        """When a run began, seconds since the epoch; ``run`` is its whole id."""
        with self._reading() as db:
            (wall,) = db.execute("SELECT wall FROM runs WHERE id = ?", (run,)).fetchone()
        return float(wall)

    def events(self, run: str) -> Iterator[Event]:
        """The run's events in order, values included.

        Raises:
            LogError: there is no run of exactly that id, or its rows are damaged.
        """
        with self._reading() as db:
            row = db.execute("SELECT run FROM runs WHERE id = ?", (run,)).fetchone()
            if row is None:
                raise self._no_run(run)
            rows = db.execute(
                "SELECT place & ?, kind, body, crc FROM events"
                " WHERE place BETWEEN ? AND ? ORDER BY place",
                (LAST_SEQ, *places_of(row[0])),
            ).fetchall()
        run_checksum = zlib.crc32(run.encode())
        for place, (seq, kind, body, crc) in enumerate(rows):
            if seq != place:
                raise LogError(
                    f"event {place} of run {run} in {self.path} is missing",
                    hint="the file is damaged",
                )
            if not is_intact(run_checksum, seq, kind, body, crc):
                raise LogError(
                    f"event {seq} of run {run} in {self.path} does not fit its checksum",
                    hint="the file is damaged",
                )
            yield self._decode(run, seq, kind, body)

    def _decode(self, run: str, seq: int, kind: str, body: str) -> Event:
        where = f"event {seq} of run {run} in {self.path}"
        try:
            return event_of(kind, body, lambda digest: self._content(digest, where))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise LogError(
                f"{where} cannot be read: {type(error).__name__} {error}",
                hint="the file is damaged, or was written by another release",
            ) from error

    def _value(self, stored: Any, where: str) -> Any:
        return stored_value(stored, lambda digest: self._content(digest, where))

    def _content(self, digest: str, where: str) -> Any:
        with self._reading() as db:
            key = bytes.fromhex(digest)
            row = db.execute("SELECT body FROM contents WHERE digest = ?", (key,)).fetchone()
        if row is None or digest_of(row[0]) != key:
            state = "is missing" if row is None else "does not fit its hash"
            raise LogError(f"a value of {where} {state}", hint="the file is damaged")
        return value_of(row[0])

    def _reading(self) -> _Reading:
        return _Reading(self)

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        with self._lock:
            self._file.close()


def _length(db: sqlite3.Connection, run: int) -> int:
    """Number of events of a run."""
    first, last = places_of(run)
    (last_place,) = db.execute(
        "SELECT max(place) FROM events WHERE place BETWEEN ? AND ?", (first, last)
    ).fetchone()
    return 0 if last_place is None else int(last_place) - first + 1


class _Reading:
    """Locks the store, and turns SQLite's errors into ``LogError``."""

    def __init__(self, store: RunStore) -> None:
        self._store = store

    def __enter__(self) -> sqlite3.Connection:
        self._store._lock.acquire()
        return self._store._db

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        self._store._lock.release()
        if isinstance(error, FROM_SQLITE):
            raise self._store._file.error("cannot read", error) from error


class RunLog:
    """The only writer of a run's events."""

    def __init__(self, store: RunStore, number: int, crc: int, seq: int = 0) -> None:
        self._store = store
        self._number = number
        self._crc = crc
        self._seq = seq

    def append(self, events: Sequence[Event]) -> None:
        """Store events, all or none; they are safe when this returns.

        Raises:
            LogError: the file cannot be written; none of the events were stored.
        """
        self._store.append(self._number, self._crc, self._seq, events)
        self._seq += len(events)

    def close(self) -> None:
        """End this process's ownership of the run."""
        self._store.release(self._number)
