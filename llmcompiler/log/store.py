"""The durable log: an SQLite file to which runs append their events, and from which all is read.

Layout: ``runs`` has a row a run, with the process that holds it; ``events`` a row an event, in the
order of the run; ``contents`` a row a distinct value that is not small, found by the hash of its
JSON. A run never changes or deletes an event, so a file is at all times a prefix of what happened.
State is a fold over events.

An event's place is one number, of its run and of its number in it, so that SQLite keeps the table
by it and an event of the latest run goes to the end: what is behind the end need not be moved, and
most commits write one page.

SQLite notices damage to its own structure only. So an event carries a checksum over itself, its
place and its run's id, a value is found by its hash, and places are counted: what was changed or
lost is refused, and what is read is what was written.

Promise: what ``append`` has returned from survives a kill of the process (``durability="process"``,
the default), or a loss of power (``"power"``, an fsync a commit). Events given to one ``append``
are kept together or not at all.

The module must not know engines, planners or tools.
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
from llmcompiler.log.owner import is_elsewhere, still_holds, this_process
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
_FEW = 8
"""Events up to which a batch is one statement, which SQLite commits with the least work."""
_INSERT_FEW = [_INSERT + ", (?, ?, ?, ?)" * (number - 1) for number in range(_FEW + 1)]

_REMEMBERED = 4096
_LATEST_RUNS = 20
_MODERATE_EVENTS = 2000


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A line of the list of runs.

    Attributes:
        run: the run's id.
        wall: when it began, seconds since the epoch.
        question: what was asked, or ``None`` for a saved plan without a question.
        status: ``answered``, ``failed``, ``interrupted``, or ``unfinished`` for a run that goes on
            in some process, or was killed; ``damaged`` if the file was.
        answer: the answer, where there is one.
        tasks: how many tasks were planned.
        seconds: how long it took; ``None`` while unfinished.
        parent: the run that it was forked from.
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
    """Where runs are kept unless said otherwise: ``runs.sqlite`` in the user's state directory."""
    import platformdirs

    return Path(platformdirs.user_state_dir("llmcompiler")) / "runs.sqlite"


class RunStore:
    """A file of runs. May be used from several threads; several processes may share the file.

    Where the file cannot be written, it is opened for reading, and only what writes is refused.

    Args:
        path: the file, made if it is not there; ``None`` for the default, ``":memory:"`` for none.
        durability: what a kept event survives; see the module's docstring.

    Raises:
        LogError: the file cannot be opened, is no run store, or is of a newer version.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, durability: Durability = "process"
    ) -> None:
        self.path = str(path) if path is not None else str(default_path())
        self._lock = threading.RLock()
        self._kept: dict[bytes, None] = {}
        self._seen_version = -1
        self._file = LogFile(self.path, durability)
        self._db = self._file.db

    def _no_run(self, run: str) -> LogError:
        return LogError(
            f'no run "{run}" in {self.path}', hint="llmcompiler runs lists what is there"
        )

    # Writing.

    def begin(self, run: str, wall: float | None = None) -> RunLog:
        """Make room for a new run.

        Raises:
            LogError: the id is taken, or the file cannot be written.
        """
        try:
            with self._lock:
                number = self._db.execute(
                    "INSERT INTO runs (id, wall, holder) VALUES (?, ?, ?)",
                    (run, time.time() if wall is None else wall, this_process()),
                ).lastrowid
                self._forget_if_pruned()
        except sqlite3.Error as error:
            raise self._file.error("cannot begin a run in", error) from error
        assert number is not None
        return RunLog(self, number, zlib.crc32(run.encode()))

    def claim(self, run: str, *, take_over: bool = False) -> RunLog:
        """Become the one writer of a run that another process left.

        Of several that try, one wins: the row is changed in one transaction, and two writers could
        never append anyway, as an event's number in its run is taken only once.

        Args:
            run: its whole id.
            take_over: whether a holder on another machine, of which this one cannot tell, is taken
                to have ended. One that has not cannot write any more.

        Raises:
            LogError: a process that still runs holds the run, or one on another machine does; the
                message names it.
        """
        try:
            with self._lock, self._file.transaction() as db:
                found = db.execute("SELECT run, holder FROM runs WHERE id = ?", (run,)).fetchone()
                if found is None:
                    raise self._no_run(run)
                number, holder = found
                if holder is not None and (who := still_holds(holder)):
                    unknown = is_elsewhere(holder)
                    if not (take_over and unknown):
                        way = "if it has ended, resume the run with --take-over"
                        raise LogError(
                            f"run {run} is held by {who}",
                            hint=way if unknown else "wait for it to end, or stop it",
                        )
                seq = _length(db, number)
                db.execute("UPDATE runs SET holder = ? WHERE run = ?", (this_process(), number))
            self._forget_if_pruned()
        except sqlite3.Error as error:
            raise self._file.error("cannot claim a run in", error) from error
        return RunLog(self, number, zlib.crc32(run.encode()), seq)

    def _forget_if_pruned(self) -> None:
        """Do not rely on values to be there that another process may have dropped.

        Called after a run was taken hold of: from then on none is dropped (``retention.prune``).
        """
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        if version != self._seen_version:
            self._kept.clear()
            self._seen_version = version

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that may drop rows, for ``retention``; what was remembered is forgotten.

        Raises:
            LogError: the file cannot be written.
        """
        try:
            with self._lock, self._file.transaction() as db:
                self._kept.clear()
                yield db
        except sqlite3.Error as error:
            raise self._file.error("cannot change", error) from error

    def compact(self) -> None:
        """Give the file's free space back. A crash leaves the file as it was before or after.

        SQLite writes the whole file anew into its write-ahead log, and one commit makes it count.

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
        """Let go of a run; see ``RunLog.close``."""
        try:
            with self._lock:
                # Not if it was taken over meanwhile.
                self._db.execute(
                    "UPDATE runs SET holder = NULL WHERE run = ? AND holder = ?",
                    (number, this_process()),
                )
        except sqlite3.Error as error:
            raise self._file.error("cannot write to", error) from error

    def append(self, number: int, crc: int, seq: int, events: Sequence[Event]) -> None:
        """Keep events, all or none; see ``RunLog.append``."""
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
                self._kept.update(dict.fromkeys(contents))
                while len(self._kept) > _REMEMBERED:
                    del self._kept[next(iter(self._kept))]

    def add(self, run: str, wall: float, events: Sequence[Event]) -> None:
        """Keep a whole run that was made elsewhere, all of it or nothing.

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
                    self._forget_if_pruned()
                    self._insert(number, zlib.crc32(run.encode()), 0, events)
            except sqlite3.Error as error:
                raise self._file.error("cannot add a run to", error) from error

    def _insert(self, number: int, crc: int, seq: int, events: Sequence[Event]) -> Contents:
        """Write events, and those of their values that are not known to be there; gives those."""
        db = self._db
        contents: Contents = {}
        # Of a plan of many tasks, events are encoded as SQLite takes them: it is one batch.
        rows: Iterable[_Row] = self._rows(number, crc, seq, events, contents)
        if 0 < len(events) <= _FEW:
            rows = list(rows)
            if not contents:
                # A statement by itself is a transaction, and one for all rows is the least work.
                db.execute(_INSERT_FEW[len(events)], list(chain.from_iterable(rows)))
                return contents
        with nullcontext() if db.in_transaction else self._file.transaction():
            db.executemany(_INSERT, rows)
            db.executemany("INSERT OR IGNORE INTO contents VALUES (?, ?)", contents.items())
        return contents

    def _rows(
        self, number: int, crc: int, seq: int, events: Iterable[Event], contents: Contents
    ) -> Iterator[_Row]:
        """The rows of events; adds to ``contents`` what is to be stored beside them."""
        first = number << SEQ_BITS
        for place, event in enumerate(events, seq):
            kind = type(event).__name__
            body = body_of(event, self._kept, contents)
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
        status, answer, seconds, ended = "unfinished", None, None, 0
        first, last = places_of(number)
        check = zlib.crc32(run.encode()) if isinstance(run, str) else 0
        for seq, kind, body, crc in self._db.execute(
            "SELECT place & ?, kind, body, crc FROM events WHERE place BETWEEN ? AND ?"
            " AND kind IN ('RunStarted', 'RunFinished') ORDER BY place",
            (LAST_SEQ, first, last),
        ):
            if not is_intact(check, seq, kind, body, crc):
                return RunSummary(str(run), wall, None, "damaged", None, 0, None)
            event = json.loads(body)
            if kind == RunStarted.__name__:
                question = event["question"]
                origin = self._value(event["origin"], f"the start of run {run}")
                parent = origin["run"] if origin else None
            elif kind == RunFinished.__name__:
                status, answer, seconds = event["status"], event["answer"], event["at"]
                ended = seq
        if (
            status != "answered"
            and self._db.execute(
                "SELECT 1 FROM events WHERE place BETWEEN ? AND ? LIMIT 1",
                (first + ended + 1, last),
            ).fetchone()
        ):
            status, seconds = "unfinished", None  # it was resumed, and has not ended since
        tasks = self._db.execute(
            "SELECT count(*) FROM events WHERE place BETWEEN ? AND ? AND kind = 'TaskPlanned'",
            (first, last),
        ).fetchone()[0]
        return RunSummary(run, wall, question, status, answer, tasks, seconds, parent)

    def catalogues(self) -> Iterator[dict[str, Any]]:
        """What tools said of themselves at the start of each run, newest first, each once.

        Raises:
            LogError: a start is damaged.
        """
        with self._reading() as db:
            rows = db.execute(
                "SELECT id, body FROM events JOIN runs ON runs.run = place >> ?"
                " WHERE kind IN ('RunStarted', 'RunFinished') AND kind = 'RunStarted'"
                " ORDER BY place DESC",
                (SEQ_BITS,),
            ).fetchall()
        seen: set[str] = set()
        for run, body in rows:
            try:
                stored = json.loads(body)["catalogue"]
            except (ValueError, KeyError, TypeError) as error:
                raise LogError(
                    f"the start of run {run} in {self.path} cannot be read",
                    hint="the file is damaged",
                ) from error
            if str(stored) not in seen:
                seen.add(str(stored))
                yield self._value(stored, f"the start of run {run}")

    def durations(self) -> dict[str, float]:
        """Median seconds of a call by tool, from the latest runs; fan-outs count as a whole.

        Only runs of moderate size are looked at, so that a start never waits for a large one.
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
        taken: dict[str, list[float]] = {}
        for run, kind, body in rows:
            try:
                event = json.loads(body)
                if kind == TaskPlanned.__name__:
                    tools[run, event["id"]] = event["task"]["tool"]
                elif not event["index"] and not event.get("cached"):
                    taken.setdefault(tools[run, event["task"]], []).append(event["seconds"])
            except (ValueError, KeyError, TypeError):
                continue  # damage is told to whoever reads that run; here it only costs a guess
        return {tool: statistics.median(seconds) for tool, seconds in taken.items()}

    def find(self, text: str) -> str:
        """The id of the run that ``text`` means: an id, a unique prefix of one, or ``last``.

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
        """Whether there is a run of exactly that id."""
        with self._reading() as db:
            found = db.execute("SELECT 1 FROM runs WHERE id = ?", (run,)).fetchone()
        return found is not None

    def length(self, run: str) -> int:
        """How many events a run has so far; ``run`` is its whole id."""
        with self._reading() as db:
            found = db.execute("SELECT run FROM runs WHERE id = ?", (run,)).fetchone()
            return 0 if found is None else _length(db, found[0])

    def wall(self, run: str) -> float:
        """When a run began, seconds since the epoch; ``run`` is its whole id."""
        with self._reading() as db:
            found = db.execute("SELECT wall FROM runs WHERE id = ?", (run,)).fetchone()
        return float(found[0])

    def events(self, run: str) -> Iterator[Event]:
        """The run's events in order, values included.

        Raises:
            LogError: there is no run of exactly that id, or what is kept of it is damaged.
        """
        with self._reading() as db:
            found = db.execute("SELECT run FROM runs WHERE id = ?", (run,)).fetchone()
            if found is None:
                raise self._no_run(run)
            rows = db.execute(
                "SELECT place & ?, kind, body, crc FROM events"
                " WHERE place BETWEEN ? AND ? ORDER BY place",
                (LAST_SEQ, *places_of(found[0])),
            ).fetchall()
        check = zlib.crc32(run.encode())
        for place, (seq, kind, body, crc) in enumerate(rows):
            if seq != place:
                raise LogError(
                    f"event {place} of run {run} in {self.path} is missing",
                    hint="the file is damaged",
                )
            if not is_intact(check, seq, kind, body, crc):
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
        """Close the file. May be called twice."""
        with self._lock:
            self._file.close()


def _length(db: sqlite3.Connection, run: int) -> int:
    """How many events a run has."""
    first, last = places_of(run)
    (end,) = db.execute(
        "SELECT max(place) FROM events WHERE place BETWEEN ? AND ?", (first, last)
    ).fetchone()
    return 0 if end is None else int(end) - first + 1


class _Reading:
    """Holds the store's lock, and turns SQLite's errors into ours."""

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
    """One run's place in a store: the only writer of its events."""

    def __init__(self, store: RunStore, number: int, crc: int, seq: int = 0) -> None:
        self._store = store
        self._number = number
        self._crc = crc
        self._seq = seq

    def append(self, events: Sequence[Event]) -> None:
        """Keep events, all or none; they are safe when this returns.

        Raises:
            LogError: the file cannot be written; none of the events were kept.
        """
        self._store.append(self._number, self._crc, self._seq, events)
        self._seq += len(events)

    def close(self) -> None:
        """Say that this process writes no more of the run."""
        self._store.release(self._number)
