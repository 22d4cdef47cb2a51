"""The log under odd conditions: old files, full disks, other writers, clocks that go back.

Each condition has a stated behaviour, which docs/log.md tells users.
"""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from llmcompiler.errors import LogError
from llmcompiler.events import Event, ModelText, TaskFinished
from llmcompiler.history.replay import replay
from llmcompiler.history.state import fold
from llmcompiler.log import sqlite_file as log_file
from llmcompiler.log.owner import this_process
from llmcompiler.log.sqlite_file import SCHEMA_VERSION
from llmcompiler.log.store import RunLog, RunStore
from tests.support.stories import dense_japan, troubled

GOLDEN = Path(__file__).parent.parent / "golden"


def done(number: int, value: object = None) -> TaskFinished:
    return TaskFinished(0.1, number, (), value, 0.1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.sqlite"


class TestVersions:
    def test_every_released_version_has_its_golden_file(self) -> None:
        names = sorted(file.name for file in GOLDEN.glob("log-v*.db"))
        assert names == [f"log-v{version}.db" for version in range(1, SCHEMA_VERSION + 1)]

    @pytest.mark.parametrize("file", sorted(GOLDEN.glob("log-v*.db")), ids=lambda f: f.stem)
    async def test_a_file_of_every_released_version_opens_and_replays(
        self, file: Path, path: Path
    ) -> None:
        shutil.copy(file, path)
        store = RunStore(path)
        state = fold(store.events(store.find("last")))
        assert state.answer == "Nine – “together”."
        assert [len(plan.tasks) for plan in state.plans] == [4, 2]
        assert [task.status for task in state.tasks.values()] == [
            "done",
            "failed",
            "skipped",
            "done",
            "done",
            "done",
        ]
        report = await replay(store, "last")
        assert (report.tasks, report.answer) == (6, state.answer)

    def test_an_older_file_is_brought_to_this_version_once(self, path: Path) -> None:
        shutil.copy(GOLDEN / "log-v1.db", path)
        before = RunStore(path)
        events = list(before.events(before.find("last")))
        before.close()
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        store = RunStore(path)
        assert list(store.events(store.find("last"))) == events
        assert store.runs()[0].status == "answered"

    def test_an_older_file_is_left_alone_while_a_process_writes_to_it(self, path: Path) -> None:
        """That process is of the older release, and could not write to a migrated file."""
        shutil.copy(GOLDEN / "log-v1.db", path)
        set_owner = "UPDATE runs SET holder = ?"
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(set_owner, (this_process(),))
        with pytest.raises(LogError, match=r"of an older release, in which .* holds run") as caught:
            RunStore(path)
        assert caught.value.hint == "wait for it to end, or stop it"
        with closing(sqlite3.connect(path)) as db, db:
            assert db.execute("PRAGMA user_version").fetchone() == (1,)
            db.execute(set_owner, (None,))
        assert RunStore(path).runs()

    @pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, 2**31 - 1])
    def test_other_versions_are_refused_by_name(self, path: Path, version: int) -> None:
        RunStore(path).close()
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA user_version = {version}")
        with pytest.raises(LogError, match=f"schema version {version}|no schema version"):
            RunStore(path)


class TestClock:
    """The time of day serves people and pruning by age; nothing else is computed from it."""

    def test_runs_are_ordered_as_they_began_when_the_clock_goes_back(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = RunStore(path)
        for run, now in (("first", 2e9), ("second", 1e9), ("third", 0.0)):
            monkeypatch.setattr(time, "time", lambda now=now: now)
            store.begin(run)
        assert [summary.run for summary in store.runs()] == ["third", "second", "first"]
        assert store.find("last") == "third"

    def test_events_come_back_in_their_order_whatever_their_times(self, path: Path) -> None:
        store = RunStore(path)
        events: list[Event] = [ModelText(at, "plan/1", "x") for at in (3.0, 1.0, -5.0)]
        store.begin("a").append(events)
        assert list(store.events("a")) == events


WRITER = """
import sys
from llmcompiler.events import TaskFinished
from llmcompiler.log.store import RunStore
log = RunStore(sys.argv[1]).begin(sys.argv[2])
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    log.append([TaskFinished(0.0, number, (), f"shared {number}", 0.0)])
"""


class TestOtherWriters:
    """Runs of several processes go to one file; a run has one writer."""

    def test_processes_write_at_the_same_time(self, path: Path) -> None:
        RunStore(path).close()
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(path), run, "100"], stdin=subprocess.PIPE
            )
            for run in ("a", "b", "c")
        ]
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write(b"\n")
            writer.stdin.flush()
        assert [writer.wait() for writer in writers] == [0, 0, 0]
        store = RunStore(path)
        for run in ("a", "b", "c"):
            values = [e.value for e in store.events(run) if isinstance(e, TaskFinished)]
            assert values == [f"shared {number}" for number in range(100)]

    def test_processes_may_make_the_file_at_the_same_time(self, path: Path) -> None:
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(path), f"run{number}", "1"],
                stdin=subprocess.DEVNULL,
            )
            for number in range(4)
        ]
        assert [writer.wait() for writer in writers] == [0] * 4
        assert len(RunStore(path).runs()) == 4

    def test_a_lock_held_too_long_is_an_error_that_loses_nothing(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(log_file, "_BUSY_SECONDS", 0.01)
        log = RunStore(path).begin("a")
        log.append([done(1)])
        with closing(sqlite3.connect(path, isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            with pytest.raises(LogError, match="locked") as caught:
                log.append([done(2)])
            assert "another process holds the file" in caught.value.hint
            writer.execute("ROLLBACK")
        log.append([done(2)])
        assert list(RunStore(path).events("a")) == [done(1), done(2)]

    def test_a_reader_does_not_hold_up_a_writer(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(log_file, "_BUSY_SECONDS", 0.01)
        log = RunStore(path).begin("a")
        log.append([done(1)])
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM events").fetchone() == (1,)
            log.append([done(2)])
            assert reader.execute("SELECT count(*) FROM events").fetchone() == (1,)


FILLING = """
import resource, sys
from llmcompiler.errors import LogError
from llmcompiler.events import TaskFinished
from llmcompiler.log.store import RunStore
log = RunStore(sys.argv[1]).begin("a")
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
for number in range(10_000):
    try:
        log.append([TaskFinished(0.1, number, (), f"{number} " * 500, 0.1)])
    except LogError as error:
        print(number, error.message)
        break
"""


class TestFullDisk:
    """The recorded events are intact, the run ends with an error, and it can be resumed."""

    def test_a_full_disk_keeps_what_was_recorded(self, path: Path) -> None:
        ended = subprocess.run(
            [sys.executable, "-c", FILLING, str(path)], capture_output=True, text=True, check=True
        )
        number, _, message = ended.stdout.partition(" ")
        assert message.startswith("cannot write to the run store")
        events = list(RunStore(path).events("a"))
        assert events == [done(n, f"{n} " * 500) for n in range(int(number))]
        assert len(events) > 10

    def test_once_there_is_space_writing_goes_on(self, path: Path) -> None:
        store = RunStore(path)
        log = store.begin("a")
        log.append([done(1)])
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(LogError, match="full") as caught:
            log.append([done(2, "x" * 100_000), done(3)])
        assert caught.value.hint == "free some space; what was recorded before is intact"
        store._db.execute("PRAGMA max_page_count = 1000000")
        log.append([done(2, "x" * 100_000), done(3)])
        assert list(store.events("a")) == [done(1), done(2, "x" * 100_000), done(3)]


def unprivileged(work: Callable[[], object]) -> str:
    """The text of what ``work`` returns, run by a user whom read-only files stop."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            text = str(work())
        except BaseException as error:  # noqa: BLE001 (the parent reads it)
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


@pytest.fixture
def sealed() -> Iterator[Path]:
    """A store in a folder in which nothing can be made, readable for everybody."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = RunStore(folder / "runs.sqlite")
        log = store.begin("a")
        log.append(dense_japan())
        log.close()
        store.close()
        folder.chmod(0o555)
        (folder / "runs.sqlite").chmod(0o444)
        yield folder / "runs.sqlite"
        folder.chmod(0o755)


class TestReadOnly:
    """A store that cannot be written can be read; each write is refused with its reason."""

    def test_everything_can_be_read(self, sealed: Path) -> None:
        def read() -> object:
            store = RunStore(sealed)
            return store.find("last"), len(list(store.events("a"))), store.runs()[0].status

        assert unprivileged(read) == str(("a", len(dense_japan()), "answered"))

    def test_a_file_of_an_older_version_is_read_too(self, sealed: Path) -> None:
        sealed.chmod(0o644)
        shutil.copyfile(GOLDEN / "log-v1.db", sealed)
        sealed.chmod(0o444)

        def read() -> object:
            store = RunStore(sealed)
            answer = store.runs()[0].answer
            with pytest.raises(LogError, match="cannot begin a run in"):
                store.begin("c")
            store.close()
            return answer

        assert unprivileged(read) == "Nine – “together”."

    def test_what_a_killed_writer_left_in_its_log_is_read_too(self, sealed: Path) -> None:
        """The two files were copied while a process wrote, to another medium or a snapshot."""
        folder = sealed.parent
        folder.chmod(0o755)
        store = RunStore(folder / "live.sqlite")
        store.begin("b").append(troubled())
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{store.path}{suffix}", f"{sealed}{suffix}")
        store.close()
        folder.chmod(0o555)

        def read() -> object:
            store = RunStore(sealed)
            count = len(list(store.events("b")))
            with pytest.raises(LogError, match="cannot begin a run in"):
                store.begin("c")
            copy = store._file._copy
            store.close()
            return count, copy is not None and not Path(copy.name).exists()

        assert unprivileged(read) == str((len(troubled()), True))

    def test_a_run_is_not_begun_and_the_message_says_why(self, sealed: Path) -> None:
        message = unprivileged(lambda: RunStore(sealed).begin("b"))
        assert message.startswith("LogError: cannot begin a run in the run store")
        assert "readonly" in message

    def test_a_run_is_not_resumed(self, sealed: Path) -> None:
        message = unprivileged(lambda: RunStore(sealed).claim("a"))
        assert message.startswith("LogError: cannot claim a run in the run store")

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")
    def test_a_folder_in_which_nothing_can_be_made(self) -> None:
        with pytest.raises(LogError, match=r"cannot open the run store /proc/self/runs.sqlite"):
            RunStore("/proc/self/runs.sqlite")


class TestOtherMachines:
    """This machine cannot tell whether a process on another machine lives; the user can."""

    @pytest.fixture
    def foreign_log(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> RunLog:
        """The writer of run ``a``, on a machine with another name."""
        log = RunStore(path).begin("a")
        log.append([done(1)])
        monkeypatch.setattr(socket, "gethostname", lambda: "another-machine")
        return log

    def test_a_run_held_there_is_refused_and_the_way_is_named(
        self, path: Path, foreign_log: RunLog
    ) -> None:
        with pytest.raises(LogError, match="which cannot be asked from here") as caught:
            RunStore(path).claim("a")
        assert caught.value.hint.endswith("resume the run with --take-over")

    def test_it_can_be_taken_over_and_the_old_holder_writes_no_more(
        self, path: Path, foreign_log: RunLog
    ) -> None:
        store = RunStore(path)
        log = store.claim("a", take_over=True)
        log.append([done(2)])
        with pytest.raises(LogError, match="another process has taken over"):
            foreign_log.append([done(2, "old")])
        assert list(store.events("a")) == [done(1), done(2)]

    def test_the_old_holders_end_does_not_free_it(self, path: Path) -> None:
        log = RunStore(path).begin("a")
        store = RunStore(path)
        with closing(sqlite3.connect(path)) as db:
            db.execute("UPDATE runs SET holder = json_set(holder, '$.pid', 1, '$.host', 'there')")
            db.commit()
        log.close()
        with pytest.raises(LogError, match="process 1 on there"):
            store.claim("a")

    def test_one_that_lives_here_is_not_taken_over(self, path: Path) -> None:
        store = RunStore(path)
        store.begin("a")
        with pytest.raises(LogError, match="held by this process") as caught:
            store.claim("a", take_over=True)
        assert caught.value.hint == "wait for it to end, or stop it"
