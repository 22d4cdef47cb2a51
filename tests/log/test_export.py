"""Export and import: a run as one file, complete or not at all, with values or without."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from llmcompiler.compiler import LLMCompiler
from llmcompiler.errors import Failure, LogError
from llmcompiler.events import Event, ModelFailed, RunStarted, TaskFinished, TaskPlanned
from llmcompiler.history.replay import replay
from llmcompiler.history.state import fold
from llmcompiler.log.export import FORMAT_VERSION, export_run, import_run, read_run
from llmcompiler.log.store import RunStore
from llmcompiler.testing.doubles import ScriptedModel, run_virtual
from llmcompiler.tools.base import tool
from tests.support.stories import RUN, dense_japan, run_started, troubled


@tool
def search(entity: str) -> dict[str, Any]:
    """Find facts about an entity."""
    return {"name": entity, "size": len(entity), "secret": True}


@pytest.fixture
def store() -> RunStore:
    return RunStore(":memory:")


@pytest.fixture
def target() -> RunStore:
    return RunStore(":memory:")


def write_run(store: RunStore, events: list[Event], run: str = RUN) -> None:
    store.begin(run, 1.5).append(events)


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]


def rewrite(file: Path, lines: list[dict[str, Any]]) -> None:
    file.write_bytes(gzip.compress("".join(f"{json.dumps(line)}\n" for line in lines).encode()))


@pytest.mark.parametrize("events", [dense_japan(), troubled(), []])
def test_what_was_exported_comes_back_equal(
    store: RunStore, target: RunStore, tmp_path: Path, events: list[Event]
) -> None:
    write_run(store, events)
    assert export_run(store, "last", tmp_path / "run.jsonl.gz") == RUN
    imported = import_run(target, tmp_path / "run.jsonl.gz")
    assert (imported.run, imported.is_new, imported.redacted) == (RUN, True, False)
    assert list(target.events(RUN)) == events
    assert target.runs()[0] == store.runs()[0]


@settings(max_examples=25)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.characters(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
        max_leaves=8,
    )
)
def test_every_value_comes_back_equal(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    file = tmp_path_factory.mktemp("run") / "run.jsonl.gz"
    store, target = RunStore(":memory:"), RunStore(":memory:")
    if isinstance(value, float) and value in (float("inf"), -float("inf")):
        return
    write_run(store, [TaskFinished(0.0, 1, (), value, 0.0)])
    export_run(store, RUN, file)
    import_run(target, file)
    assert list(target.events(RUN)) == list(store.events(RUN))


def test_an_imported_run_can_be_replayed(tmp_path: Path, target: RunStore) -> None:
    script = ['1. search("Japan")\n2. join()', json.dumps({"action": "answer", "text": "so"})]

    async def work() -> str | None:
        compiler = LLMCompiler([search], ScriptedModel(script), store=":memory:")
        await compiler.run("what?")
        export_run(compiler.store, "last", tmp_path / "run.jsonl.gz")
        return (await replay(target, import_run(target, tmp_path / "run.jsonl.gz").run)).answer

    assert run_virtual(work()) == "so"


def test_each_value_is_written_once(store: RunStore, tmp_path: Path) -> None:
    write_run(store, [TaskFinished(0.0, number, (), "x" * 999, 0.0) for number in range(5)])
    export_run(store, RUN, tmp_path / "run")
    assert sum("value" in line for line in lines_of(tmp_path / "run")) == 1


def test_the_same_run_gives_the_same_bytes(store: RunStore, tmp_path: Path) -> None:
    write_run(store, dense_japan())
    for name in ("a", "b"):
        export_run(store, RUN, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_run_is_not_imported_twice_nor_overwritten(
    store: RunStore, target: RunStore, tmp_path: Path
) -> None:
    write_run(store, dense_japan())
    export_run(store, RUN, tmp_path / "run")
    import_run(target, tmp_path / "run")
    assert not import_run(target, tmp_path / "run").is_new
    third = RunStore(":memory:")
    write_run(third, dense_japan()[:3])
    with pytest.raises(LogError, match=f"holds another run {RUN}"):
        import_run(third, tmp_path / "run")
    assert list(third.events(RUN)) == dense_japan()[:3]


def test_an_export_that_fails_leaves_the_old_file(store: RunStore, tmp_path: Path) -> None:
    write_run(store, dense_japan())
    (tmp_path / "run").mkdir()
    with pytest.raises(LogError, match="cannot write"):
        export_run(store, RUN, tmp_path / "run")
    with pytest.raises(LogError, match=r"cannot write .*No such file"):
        export_run(store, RUN, tmp_path / "nowhere" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# Files that are refused.


def export_japan(store: RunStore, tmp_path: Path) -> Path:
    write_run(store, dense_japan())
    export_run(store, RUN, tmp_path / "run")
    return tmp_path / "run"


def test_a_newer_format_is_refused_by_name(store: RunStore, tmp_path: Path) -> None:
    file = export_japan(store, tmp_path)
    lines = lines_of(file)
    lines[0]["version"] = FORMAT_VERSION + 1
    rewrite(file, lines)
    with pytest.raises(LogError, match=f"format version {FORMAT_VERSION + 1}"):
        read_run(file)


def test_a_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    for data in (b"dear diary", gzip.compress(b"dear diary"), gzip.compress(b"{}\n"), b""):
        (tmp_path / "x").write_bytes(data)
        with pytest.raises(LogError, match="x is not an exported run"):
            read_run(tmp_path / "x")
    with pytest.raises(LogError, match=r"cannot read .*No such file"):
        read_run(tmp_path / "none")


def test_a_file_cut_or_changed_anywhere_is_refused(store: RunStore, tmp_path: Path) -> None:
    file = export_japan(store, tmp_path)
    content = file.read_bytes()
    for position in range(0, len(content), 7):
        file.write_bytes(content[:position])
        with pytest.raises(LogError):
            read_run(file)
        flipped = bytes([content[position] ^ 4])
        file.write_bytes(content[:position] + flipped + content[position + 1 :])
        try:
            run = read_run(file)
        except LogError:
            continue
        assert run.events == tuple(dense_japan()), "a bit of gzip's header that says nothing"


def test_lines_taken_out_or_exchanged_are_noticed(store: RunStore, tmp_path: Path) -> None:
    file = export_japan(store, tmp_path)
    lines = lines_of(file)
    for changed in (lines[:-1], lines[:3] + lines[4:], [lines[0], *lines[2:4], lines[1]]):
        rewrite(file, changed)
        with pytest.raises(LogError, match="run is damaged"):
            read_run(file)


# Redaction.

SECRETS = ("Japan", "Atlantis", "125000000", "331.56", "population /", "dense", "mean")


@pytest.mark.parametrize("events", [dense_japan(), troubled()])
def test_a_redacted_run_says_nothing_of_the_users(
    store: RunStore, target: RunStore, tmp_path: Path, events: list[Event]
) -> None:
    write_run(store, events)
    export_run(store, RUN, tmp_path / "run", redact=True)
    text = gzip.decompress((tmp_path / "run").read_bytes()).decode()
    assert [secret for secret in SECRETS if secret in text] == []
    imported = import_run(target, tmp_path / "run")
    assert imported.redacted
    before, after = fold(events), fold(target.events(RUN))
    assert {n: task.status for n, task in before.tasks.items()} == {
        n: task.status for n, task in after.tasks.items()
    }
    assert [task.dependencies for task in after.tasks.values()] == [
        task.task.dependencies for task in before.tasks.values()
    ], "references stay where they are"


def test_a_marker_keeps_type_shape_and_equality(store: RunStore, tmp_path: Path) -> None:
    value = {"name": "Japan", "size": 5, "list": [1.5, True, None, "Japan", 5]}
    write_run(store, [TaskFinished(0.0, 1, (), value, 0.0)])
    export_run(store, RUN, tmp_path / "run", redact=True)
    (event,) = read_run(tmp_path / "run").events
    assert isinstance(event, TaskFinished)
    markers = event.value
    assert list(markers) == ["name", "size", "list"]
    assert markers["name"].startswith("<redacted string of 5 characters, ")
    number, truth, nothing, name, size = markers["list"]
    assert number.startswith("<redacted number, ") and truth.startswith("<redacted boolean, ")
    assert nothing is None
    assert (name, size) == (markers["name"], markers["size"])
    export_run(store, RUN, tmp_path / "other", redact=True)
    (second_event,) = read_run(tmp_path / "other").events
    assert isinstance(second_event, TaskFinished)
    assert second_event.value["name"] != markers["name"], "hashes of two exports cannot be compared"


def test_a_forks_origin_keeps_its_lineage_only(store: RunStore, tmp_path: Path) -> None:
    call = {"id": 2, "tool": "search", "args": [{"$ref": "$1"}, "Lima"], "kwargs": {}}
    origin = {"run": "0011", "tasks": [1, 2], "values": {"1": "Peru"}, "calls": {"2": call}}
    write_run(store, [run_started("how big?", origin=origin)])
    export_run(store, RUN, tmp_path / "run", redact=True)
    (first,) = read_run(tmp_path / "run").events
    assert isinstance(first, RunStarted) and first.origin is not None
    assert (first.origin["run"], first.origin["tasks"]) == ("0011", [1, 2])
    assert first.origin["calls"]["2"]["args"][0] == {"$ref": "$1"}
    assert "Peru" not in str(first) and "Lima" not in str(first)


def test_plans_inputs_and_failures_are_redacted_too(store: RunStore, tmp_path: Path) -> None:
    plan = {
        "question": "how big is $city in Peru?",
        "inputs": [{"name": "city", "type": "string", "required": False, "default": "Lima"}],
        "tasks": [
            {
                "id": 1,
                "tool": "search",
                "args": [{"$ref": "$city"}, ["Lima", 3]],
                "kwargs": {"unit": "in $city in Lima"},
                "thought": "Lima?",
            }
        ],
    }
    task = {**plan["tasks"][0], "id": 2}  # type: ignore[dict-item]
    write_run(
        store,
        [
            run_started("how big is Lima?", plan=plan, inputs={"city": "Lima"}, planner=None),
            TaskPlanned(0.0, 1, 2, task, ()),
            ModelFailed(0.1, "join/1", Failure("model", "ModelError", "no Lima", "try Peru")),
        ],
    )
    export_run(store, RUN, tmp_path / "run", redact=True)
    text = gzip.decompress((tmp_path / "run").read_bytes()).decode()
    assert "Lima" not in text and "Peru" not in text
    first, _, _ = read_run(tmp_path / "run").events
    assert isinstance(first, RunStarted) and first.plan is not None
    assert first.plan["tasks"][0]["args"][0] == {"$ref": "$city"}
