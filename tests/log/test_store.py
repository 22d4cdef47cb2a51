"""The log: appended events come back; damaged and foreign files are refused by name."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from llmcompiler.errors import Failure, LogError
from llmcompiler.events import (
    Event,
    Joined,
    ModelText,
    RunFinished,
    RunStarted,
    TaskFailed,
    TaskFinished,
)
from llmcompiler.log.sqlite_file import SCHEMA_VERSION, places_of
from llmcompiler.log.store import RunStore

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)


def started(run: str, question: str | None = "how dense?") -> RunStarted:
    return RunStarted(
        at=0.0,
        run=run,
        wall=1.5,
        question=question,
        inputs={},
        plan=None,
        planner="text",
        models={"planner": "scripted"},
        tools=("calc",),
        catalogue={"calc": {"description": "x"}},
        limits={},
        prompts={},
    )


def finished(status: str = "answered") -> RunFinished:
    return RunFinished(at=2.0, status=status, answer="12", value=None, failure=None)  # type: ignore[arg-type]


def done(task: int, value: Any) -> TaskFinished:
    return TaskFinished(at=1.0, task=task, index=(), value=value, seconds=0.5)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs.sqlite")


@settings(max_examples=50)
@given(values=st.lists(json_values, max_size=6))
def test_every_json_value_comes_back_equal(values: list[Any]) -> None:
    store = RunStore(":memory:")
    events: list[Event] = [done(number, value) for number, value in enumerate(values)]
    store.begin("a").append(events)
    assert list(store.events("a")) == events


def test_events_of_all_shapes_come_back_equal(store: RunStore) -> None:
    events: list[Event] = [
        started("a"),
        ModelText(at=0.1, call="plan/1", text='1. calc("\ud800 ü \n")'),
        TaskFailed(
            at=1.0, task=3, index=(0, 2), failure=Failure("tool", "ToolError", "no"), seconds=0.1
        ),
        Joined(at=1.5, plan=1, decision="answer", text="(a)\n(b)"),
        finished(),
    ]
    log = store.begin("a")
    log.append(events[:2])
    log.append(events[2:])
    assert list(store.events("a")) == events


def test_equal_values_are_stored_once(store: RunStore) -> None:
    big = "x" * 10_000
    store.begin("a").append([done(1, big), done(2, big)])
    store.begin("b").append([done(1, big)])
    with sqlite3.connect(store.path) as db:
        assert db.execute("SELECT count(*) FROM contents").fetchone() == (1,)


def test_small_values_stand_in_the_event_itself(store: RunStore) -> None:
    events: list[Event] = [
        done(number, value)
        for number, value in enumerate(
            [None, True, -1, 2**70, 0.1, "", "\ud800", "x" * 126, [], ["a"], {"a": {"b": [1, "é"]}}]
        )
    ]
    store.begin("a").append(events)
    assert list(store.events("a")) == events
    with sqlite3.connect(store.path) as db:
        assert db.execute("SELECT count(*) FROM contents").fetchone() == (0,)
        store.begin("b").append([done(1, "x" * 127), done(2, {"$held": "0" * 32})])
        assert db.execute("SELECT count(*) FROM contents").fetchone() == (2,)


def test_a_failed_append_keeps_nothing(store: RunStore) -> None:
    log = store.begin("a")
    log.append([started("a")])
    with sqlite3.connect(store.path) as db:
        place = places_of(1)[0] + 2
        db.execute("INSERT INTO events VALUES (?, 'ModelText', '{}', 0)", (place,))
    with pytest.raises(LogError, match="taken over the run"):
        log.append([done(1, "kept?"), done(2, "never")])
    with sqlite3.connect(store.path) as db:
        db.execute("DELETE FROM events WHERE place = ?", (place,))
    assert list(store.events("a")) == [started("a")]


def test_runs_are_listed_newest_first_with_how_they_ended(store: RunStore) -> None:
    store.begin("aa11", 1.0).append([started("aa11"), finished()])
    store.begin("ab22", 2.0).append([started("ab22", None)])
    second, first = store.runs()
    assert (second.run, second.status, second.question) == ("ab22", "unfinished", None)
    assert (first.run, first.status, first.answer, first.seconds) == ("aa11", "answered", "12", 2.0)
    assert [summary.run for summary in store.runs(1)] == ["ab22"]


def test_a_run_is_found_by_id_prefix_or_last(store: RunStore) -> None:
    for run in ("aa11", "ab22", "ab"):
        store.begin(run)
    assert store.find("aa") == "aa11"
    assert store.find("ab") == "ab", "an id that is also a prefix means itself"
    assert store.find("last") == "ab"
    with pytest.raises(LogError, match="begins more than one run"):
        store.find("a")
    with pytest.raises(LogError, match='no run "zz"'):
        store.find("zz")
    with pytest.raises(LogError, match="no run"):
        store.find("%")


def test_an_empty_store_says_how_to_make_a_run(store: RunStore) -> None:
    with pytest.raises(LogError, match="holds no runs yet"):
        store.find("last")


def test_a_taken_id_is_refused(store: RunStore) -> None:
    store.begin("a")
    with pytest.raises(LogError, match="UNIQUE"):
        store.begin("a")


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE cats (name)")
    with pytest.raises(LogError, match="another program"):
        RunStore(path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary, " * 100)
    with pytest.raises(LogError, match="not a database"):
        RunStore(path)


def test_a_newer_version_is_refused_by_name(store: RunStore) -> None:
    store.close()
    with sqlite3.connect(store.path) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(LogError, match=f"schema version {SCHEMA_VERSION + 1}"):
        RunStore(store.path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match="cannot open the run store"):
        RunStore(tmp_path / "file" / "runs.sqlite")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("DELETE FROM contents", "is missing"),
        ("UPDATE contents SET body = x'32'", "does not fit its hash"),
        ("UPDATE events SET body = replace(body, '1', '2')", "does not fit its checksum"),
        ("UPDATE events SET kind = 'TaskFailed'", "does not fit its checksum"),
        ("UPDATE events SET crc = 1", "does not fit its checksum"),
        ("UPDATE events SET place = place + 1", "event 0 of run a .* is missing"),
        ("UPDATE runs SET id = 'a' || id", 'no run "a"'),
    ],
)
def test_damage_is_never_wrong_data(store: RunStore, damage: str, message: str) -> None:
    store.begin("a").append([done(1, "1" * 200)])
    with sqlite3.connect(store.path) as db:
        db.execute(damage)
    with pytest.raises(LogError, match=message):
        list(store.events("a"))


def test_two_stores_write_to_one_file(store: RunStore) -> None:
    second_store = RunStore(store.path)
    first, second = store.begin("a"), second_store.begin("b")
    for number in range(20):
        first.append([done(number, number)])
        second.append([done(number, -number)])
    assert len(list(second_store.events("a"))) == len(list(store.events("b"))) == 20


_WRITER = """
import sys
from llmcompiler.events import TaskFinished
from llmcompiler.log.store import RunStore
log = RunStore(sys.argv[1], durability=sys.argv[2]).begin("a")
for number in range(1_000_000):
    log.append([TaskFinished(at=0.0, task=number, index=(), value=[number], seconds=0.0)])
    print(number, flush=True)
"""


@pytest.mark.parametrize("durability", ["process", "power"])
def test_what_append_returned_from_survives_a_kill(tmp_path: Path, durability: str) -> None:
    path = tmp_path / "runs.sqlite"
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), durability], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    reported = -1
    while reported < 25:
        reported = int(writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    reported = int((writer.stdout.read().split() or [reported])[-1])
    writer.wait()
    values = [
        event.value for event in RunStore(path).events("a") if isinstance(event, TaskFinished)
    ]
    assert values == [[number] for number in range(len(values))]
    assert len(values) > reported
