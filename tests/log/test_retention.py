"""Retention: age, number and size bound the runs; shared values stay; no crash damages the file."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from llmcompiler.errors import LogError, UsageError
from llmcompiler.events import Event, TaskFinished
from llmcompiler.executors.value_store import ValueStore
from llmcompiler.log.retention import prune_runs
from llmcompiler.log.store import RunStore
from tests.support.stories import run_started

DAY = 86_400.0


def write_run(
    store: RunStore, run: str, *values: object, wall: float = 0.0, done: bool = True
) -> None:
    log = store.begin(run, wall)
    log.append([run_started(run=run)])
    log.append([TaskFinished(0.1, n, (), value, 0.1) for n, value in enumerate(values, 1)])
    if done:
        log.close()


def names(store: RunStore) -> list[str]:
    return [summary.run for summary in reversed(store.runs())]


def contents(store: RunStore) -> int:
    with sqlite3.connect(store.path) as db:
        return int(db.execute("SELECT count(*) FROM contents").fetchone()[0])


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs.sqlite")


def test_runs_older_than_an_age_are_dropped(store: RunStore) -> None:
    for day in range(4):
        write_run(store, f"day{day}", day, wall=day * DAY)
    report = prune_runs(store, older_than=1.5 * DAY, now=3 * DAY)
    assert report.runs == ("day0", "day1")
    assert names(store) == ["day2", "day3"]
    with pytest.raises(LogError, match="no run"):
        list(store.events("day0"))


def test_the_latest_runs_are_kept_by_number(store: RunStore) -> None:
    for number in range(5):
        write_run(store, f"run{number}")
    assert prune_runs(store, keep=2).runs == ("run0", "run1", "run2")
    assert names(store) == ["run3", "run4"]


def test_a_run_outside_any_bound_goes(store: RunStore) -> None:
    for day in range(4):
        write_run(store, f"day{day}", wall=day * DAY)
    assert prune_runs(store, older_than=10 * DAY, keep=3, now=4 * DAY).runs == ("day0",)


def test_the_oldest_go_until_the_rest_fits(store: RunStore) -> None:
    for number in range(10):
        write_run(store, f"run{number}", *(f"{number}/{n} {'x' * 5_000}" for n in range(20)))
    most = 450_000
    report = prune_runs(store, max_bytes=most)
    assert report.bytes_before > 900_000
    assert 250_000 < report.bytes_after <= most
    assert report.bytes_after == Path(store.path).stat().st_size
    assert names(store) == [f"run{number}" for number in range(len(report.runs), 10)]


def test_files_of_large_values_go_with_the_last_run_that_speaks_of_them(
    store: RunStore, tmp_path: Path
) -> None:
    values = ValueStore(tmp_path / "values", above=10)
    handles = [
        handle
        for number in range(4)
        if (handle := values.store_if_large(f"value {number} {'x' * 50}")) is not None
    ]
    write_run(store, "old", handles[0], handles[1], {"rows": [handles[3]]})
    write_run(store, "new", handles[1], {"in": [handles[2].part("rows")]})
    (values.directory / "readme.json").write_text("not ours")

    def files() -> list[str]:
        return sorted(file.stem for file in values.directory.rglob("*.json"))

    report = prune_runs(store, keep=2, directory=values.directory)
    assert (report.files, len(files())) == (0, 5)
    report = prune_runs(store, keep=1, directory=values.directory)
    assert (report.files, report.file_bytes) == (2, 120)
    assert files() == sorted([*(handle.digest for handle in handles[1:3]), "readme"])
    with pytest.raises(UsageError, match="is not a directory of values"):
        prune_runs(store, keep=1, directory=tmp_path / "none")


def test_files_stay_while_a_run_is_held(store: RunStore, tmp_path: Path) -> None:
    values = ValueStore(tmp_path / "values", above=10)
    values.store_if_large("a value that a worker has just written")
    write_run(store, "running", done=False)
    assert prune_runs(store, keep=5, directory=values.directory).files == 0


def test_what_other_runs_share_stays(store: RunStore) -> None:
    write_run(store, "parent", "shared " * 100, "its own " * 100)
    write_run(store, "fork", "shared " * 100)
    before = contents(store)
    report = prune_runs(store, keep=1)
    assert (report.runs, report.values) == (("parent",), 1)
    assert contents(store) == before - 1
    (_, event) = store.events("fork")
    assert isinstance(event, TaskFinished) and event.value == "shared " * 100


def test_a_store_may_be_emptied_and_used_again(store: RunStore) -> None:
    write_run(store, "a", "value")
    assert prune_runs(store, keep=0).runs == ("a",)
    assert contents(store) == 0
    write_run(store, "b", "value")
    (_, event) = store.events("b")
    assert isinstance(event, TaskFinished) and event.value == "value", "it is written again"


def test_another_process_writes_again_what_was_dropped(store: RunStore) -> None:
    write_run(store, "a", "value")
    prune_runs(RunStore(store.path), keep=0)
    write_run(store, "b", "value")
    assert len(list(store.events("b"))) == 2


def test_a_run_that_goes_on_is_never_dropped_and_values_wait(store: RunStore) -> None:
    write_run(store, "old", "value")
    write_run(store, "going", done=False)
    report = prune_runs(RunStore(store.path), keep=0)
    assert (report.runs, report.owned_runs, report.values) == (("old",), ("going",), 0)
    assert report.kept_because == "a run is going on"
    assert names(store) == ["going"]


def test_a_run_whose_process_was_killed_may_be_dropped(store: RunStore) -> None:
    code = (
        "import sys; from llmcompiler.log.store import RunStore; import os;"
        "RunStore(sys.argv[1]).begin('dead'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, store.path], check=True)
    assert prune_runs(store, keep=0).runs == ("dead",)


@pytest.mark.parametrize("bounds", [{}, {"keep": -1}, {"older_than": -1.0, "keep": 2}])
def test_bounds_that_say_nothing_are_refused(store: RunStore, bounds: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="which runs to drop"):
        prune_runs(store, **bounds)


def test_a_store_in_memory_can_be_pruned() -> None:
    store = RunStore(":memory:")
    write_run(store, "a")
    assert prune_runs(store, keep=0).runs == ("a",)


STEPS = 40
"""Instructions of SQLite between two places at which a prune may be killed."""


def pruned_until(path: Path, fatal: int) -> tuple[int, int]:
    """Prune in a process that is killed at a given place.

    Returns its wait status, and the number of places that it passed.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        passed = 0

        def step() -> int:
            nonlocal passed
            passed += 1
            if passed == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return 0

        try:
            store = RunStore(path)
            store._db.set_progress_handler(step, STEPS)
            prune_runs(store, keep=3)
            os.write(writer, str(passed).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        passed_in_all = int(pipe.read() or 0)
    return os.waitpid(child, 0)[1], passed_in_all


def full(path: Path) -> dict[str, list[Event]]:
    store = RunStore(path)
    for number in range(8):
        write_run(store, f"run{number}", *(f"{number}/{n}" * 1000 for n in range(40)))
    before = {run: list(store.events(run)) for run in names(store)}
    store.close()
    return before


@pytest.mark.parametrize("cases", [12, pytest.param(300, marks=pytest.mark.slow)])
def test_a_kill_anywhere_in_a_prune_or_its_vacuum_leaves_all_or_nothing(
    tmp_path: Path, cases: int
) -> None:
    before = full(tmp_path / "whole.sqlite")
    calm = shutil.copy(tmp_path / "whole.sqlite", tmp_path / "calm.sqlite")
    status, places = pruned_until(calm, 0)
    assert status == 0 and places > 100
    run_counts = set()
    for case in range(cases):
        path = shutil.copy(tmp_path / "whole.sqlite", tmp_path / f"{case}.sqlite")
        status, _ = pruned_until(path, 1 + case * (places - 1) // (cases - 1))
        assert os.WIFSIGNALED(status)
        with sqlite3.connect(path) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        store = RunStore(path)
        runs = names(store)
        run_counts.add(len(runs))
        assert runs in ([f"run{n}" for n in range(8)], [f"run{n}" for n in range(5, 8)])
        for run in runs:
            assert list(store.events(run)) == before[run]
        assert len(runs) > 3 or contents(store) == 120
        prune_runs(store, keep=3)
        assert contents(store) == 120, "what a kill left undone, the next prune does"
        store.close()
    assert run_counts == {3, 8}, "some were killed before the rows were gone, some in the vacuum"
