"""Value handles: no value of the user's is taken for one, and none is lost on its way."""

from __future__ import annotations

import asyncio
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from llmcompiler.compiler import LLMCompiler
from llmcompiler.events import TaskFinished, TaskStarted
from llmcompiler.executors.base import ToolCall
from llmcompiler.executors.local import LocalExecutor
from llmcompiler.executors.ray_worker import Work, call_in_worker
from llmcompiler.executors.value_handles import (
    ValueHandle,
    contains_handles,
    decode_handles,
    encode_handles,
    handles_in,
)
from llmcompiler.executors.value_store import ValueStore, resolve_handles
from llmcompiler.history.replay import replay
from llmcompiler.history.state import fold
from llmcompiler.language import parse_plan
from llmcompiler.log.codec import text_of, value_of
from llmcompiler.log.export import export_run, read_run
from llmcompiler.log.store import RunStore
from llmcompiler.runtime.result_cache import Hit, ResultCache
from llmcompiler.tools.base import tool
from tests.support.lookalikes import DIGEST, KEYS, LOOKALIKES
from tests.support.stories import run_started

GOLDEN = Path(__file__).parent.parent / "golden" / "handles-v2.db"
HANDLES = st.builds(
    lambda length: ValueHandle({"$held": DIGEST, "bytes": 9, "type": "list", "length": length}),
    st.integers(0, 3),
)
MIXED = st.recursive(
    LOOKALIKES | HANDLES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
    ),
    max_leaves=6,
)

quick = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def handles(value: Any) -> list[ValueHandle]:
    return list(handles_in(value))


@given(MIXED)
def test_a_written_value_is_read_as_the_same_value(value: Any) -> None:
    for same in (
        decode_handles(encode_handles(value)),
        value_of(text_of(value)),
        pickle.loads(pickle.dumps(value)),
    ):
        assert same == value
        assert handles(same) == handles(value)


@given(LOOKALIKES)
def test_no_value_of_the_users_is_a_handle(value: Any) -> None:
    assert not contains_handles({"argument": value})
    assert not handles(value_of(text_of(value)))
    assert resolve_handles({"argument": value}, _never, _never) == {"argument": value}


def test_a_handle_is_not_the_dict_that_looks_like_it() -> None:
    handle = ValueHandle({"$held": DIGEST, "length": 3})
    assert handle != dict(handle)
    assert dict(handle) != handle
    assert handle == ValueHandle(handle)
    assert text_of(handle) != text_of(dict(handle))


def test_a_part_of_a_handle_is_a_handle() -> None:
    handle = ValueHandle({"$held": DIGEST, "lengths": {"rows": 2}})
    rows = handle.part("rows")
    assert (rows.digest, rows.path, rows.length) == (DIGEST, ("rows",), 2)
    assert (rows.part(1).path, rows.part(1).length) == (("rows", 1), None)


@quick
@given(st.lists(MIXED, max_size=3))
def test_the_log_and_an_export_give_back_what_was_written(
    tmp_path: Path, values: list[Any]
) -> None:
    store = RunStore(":memory:")
    log = store.begin("a")
    events = [
        run_started(run="a"),
        *(TaskFinished(0.1, number, (), value, 0.1) for number, value in enumerate(values, 1)),
    ]
    log.append(events)
    log.close()
    file = tmp_path / "a.run"
    export_run(store, "a", file)
    exported = read_run(file)
    for read_events in (list(store.events("a")), list(exported.events)):
        assert read_events == events
        for event, value in zip(read_events[1:], values, strict=True):
            assert isinstance(event, TaskFinished)
            assert handles(event.value) == handles(value)


@quick
@given(argument=LOOKALIKES, value=MIXED)
def test_the_cache_of_results_gives_back_what_was_kept(
    tmp_path: Path, argument: Any, value: Any
) -> None:
    cache = ResultCache(tmp_path / "cache.sqlite")
    cached = tool(cache=60)(give)
    cache.keep(cached, {"value": argument}, value)
    hit = cache.look(cached, {"value": argument})
    assert isinstance(hit, Hit)
    assert hit.value == value
    assert handles(hit.value) == handles(value)
    cache.close()


def test_the_cache_of_results_tells_a_handle_from_the_dict_that_looks_like_it(
    tmp_path: Path,
) -> None:
    cache = ResultCache(tmp_path / "cache.sqlite")
    cached = tool(cache=60)(give)
    handle = ValueHandle({"$held": DIGEST, "bytes": 9})
    cache.keep(cached, {"value": handle}, "of the handle")
    assert not isinstance(cache.look(cached, {"value": dict(handle)}), Hit)
    cache.close()


def give(value: Any) -> Any:
    """The value itself."""
    return value


@tool
def echo(value: Any) -> Any:
    """The value itself."""
    return value


@tool
def table(rows: int) -> dict[str, Any]:
    """A table with a name."""
    return {"name": "numbers", "rows": [{"number": number} for number in range(rows)]}


@tool
def total(rows: list[dict[str, int]]) -> int:
    """The sum of the rows' numbers."""
    return sum(row["number"] for row in rows)


class StoringExecutor:
    """Runs calls in this process and stores large results out of line, as Ray's workers do."""

    def __init__(self, directory: Path, above: int) -> None:
        self._values = ValueStore(directory, above)

    def submit(self, call: ToolCall) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_task(self._call(call))

    async def _call(self, call: ToolCall) -> Any:
        arguments = call.arguments
        if call.has_handles:
            load = self._values.load
            arguments = call.tool.validate(resolve_handles(arguments, load, load))
        value = call.tool.encode(call.tool.function(**arguments))
        return self._values.store_if_large(value) or value

    async def aclose(self) -> None:
        pass


@settings(max_examples=25, deadline=None)
@given(value=LOOKALIKES, is_stored=st.booleans())
async def test_a_run_passes_values_on_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, value: Any, is_stored: bool
) -> None:
    directory = tmp_path_factory.mktemp("values")
    executor = StoringExecutor(directory, above=0) if is_stored else LocalExecutor()

    @tool
    def source() -> dict[str, Any]:
        """A value that looks like something else."""
        return {"free": value, "all": [value, value]}

    plan = parse_plan(
        '1. source()\n2. echo($1)\n3. echo($1.free)\n4. echo($1.all[*])\n5. echo({"k": [$1.free]})'
        "\n6. join($2, $3, $4, $5)"
    )
    async with LLMCompiler([source, echo], executor=executor, store=":memory:") as compiler:
        result = await compiler.execute(plan)
        assert result.status == "answered", result.failure
        load = ValueStore(directory, 0).load
        values = resolve_handles(result.value, load, load)
        assert values == {
            "2": {"free": value, "all": [value, value]},
            "3": value,
            "4": [value, value],
            "5": {"k": [value]},
        }
        assert (await replay(compiler.store, result.run)).tasks == 5
        forked = await compiler.fork(result.run, start=3)
        forked_value = forked.observations[3].value
        assert resolve_handles({"value": forked_value}, load, load) == {"value": value}


async def test_a_free_key_beside_the_mark_is_a_field_like_any_other() -> None:
    @tool
    def marked() -> dict[str, int]:
        """A dict that looks like a handle."""
        return {"$held": 3, "free": 7}

    async with LLMCompiler([marked, echo], store=":memory:") as compiler:
        result = await compiler.execute(parse_plan("1. marked()\n2. echo($1.free)\n3. join($2)"))
    assert result.value == 7


@given(LOOKALIKES)
def test_a_worker_takes_and_gives_values_as_they_are(value: Any) -> None:
    work = Work(["run", 1, [], "run/1", 1], {"value": value}, None, {}, False)
    packed = call_in_worker(echo, None, None, pickle.dumps(tuple(work)))
    assert isinstance(packed, bytes)
    returned, error, _ = pickle.loads(packed)
    assert error is None
    assert returned == value
    assert not handles(returned)


async def test_handles_are_followed_where_the_values_are(tmp_path: Path) -> None:
    plan = parse_plan(
        "1. table(50)\n2. total($1.rows)\n3. echo($1.rows[*].number)\n4. echo([[$1.name]])\n"
        "5. join($1, $2, $3, $4)"
    )
    executor = StoringExecutor(tmp_path / "values", above=300)
    store = RunStore(tmp_path / "runs.sqlite")
    async with LLMCompiler([table, total, echo], executor=executor, store=store) as compiler:
        result = await compiler.execute(plan)
        assert isinstance(result.observations[1].value, ValueHandle)
        assert result.observations[2].value == 1225
        assert result.observations[3].value == [*range(50)]
        assert result.observations[4].value == [["numbers"]], "however deep it stands"
        started = [event for event in store.events(result.run) if isinstance(event, TaskStarted)]
        assert contains_handles(started[1].arguments)
        assert (await replay(store, result.run)).tasks == 4
        forked = await compiler.fork(result.run, start=2)
        assert forked.observations[2].value == 1225


async def test_a_log_of_the_release_before_opens_and_replays_with_its_handles(
    tmp_path: Path,
) -> None:
    path = tmp_path / "runs.sqlite"
    shutil.copy(GOLDEN, path)
    store = RunStore(path)
    run = store.find("last")
    tasks = fold(store.events(run)).tasks
    assert isinstance(tasks[1].value, ValueHandle)
    assert tasks[1].value["lengths"] == {"rows": 20}
    assert (tasks[4].value, type(tasks[4].value)) == ({"$held": 3, "free": 7}, dict)
    assert (await replay(store, run)).tasks == 4


def _never(digest: str) -> Any:
    raise AssertionError(f"{digest} was looked up")
