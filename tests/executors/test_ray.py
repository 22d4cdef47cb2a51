"""What only a cluster has: workers and nodes that die, and values that stay there.

Every test here starts or shares a cluster of real processes on this machine, so all are slow.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmcompiler.compiler import LLMCompiler
from llmcompiler.errors import UsageError
from llmcompiler.events import Event, TaskFailed, TaskFinished, TaskProgress, TaskRetried
from llmcompiler.history.replay import replay
from llmcompiler.language import parse_plan
from llmcompiler.tools.base import tool
from llmcompiler.tools.context import current_call
from llmcompiler.tools.policy import Retry

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
pytestmark = pytest.mark.slow

from llmcompiler.executors.ray import RayExecutor  # noqa: E402

AT_ONCE = Retry(attempts=3, base=0.0)


def noted(directory: str) -> int:
    """Write the call down, and count how often it was made so far."""
    call = current_call()
    path = Path(directory) / f"task-{call.task}"
    with path.open("a") as file:
        file.write(f"{call.key} {call.attempt} {os.getpid()}\n")
    return len(path.read_text().splitlines())


def ends(process: int) -> bool:
    """Wait for the end of a process that is not ours; whether it came."""
    for _ in range(1000):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


@tool
def first(directory: str) -> int:
    """A number."""
    noted(directory)
    return 20


@tool(retry=AT_ONCE)
def dies_once(directory: str, number: int) -> int:
    """Its worker is killed at the first attempt."""
    if noted(directory) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number + 1


@tool(retry=AT_ONCE, resources={"CPU": 1, "far": 1})
async def far(directory: str, number: int) -> int:
    """Waits for ever at the first attempt, on a node with the resource far."""
    if noted(directory) == 1:
        current_call().report(0)
        await asyncio.Event().wait()
    return number + 1


@tool(timeout=1.5)
def stubborn(directory: str) -> int:
    """Sleeps, where no interrupt of Ray's reaches it."""
    noted(directory)
    time.sleep(600)
    return 0


@tool
def large(size: int) -> str:
    """A long text."""
    return "x" * size


@tool
def length(text: str) -> int:
    """Its length."""
    return len(text)


@tool
def joined(texts: list[str]) -> int:
    """The length of several."""
    return sum(map(len, texts))


@tool
def table(rows: int) -> dict[str, Any]:
    """A table with a name."""
    return {"name": "numbers", "rows": [{"number": number} for number in range(rows)]}


@tool
def listed(rows: int) -> list[dict[str, Any]]:
    """The rows alone."""
    return [{"number": number} for number in range(rows)]


@tool
def emptied(row: Any) -> int:
    """The number of a row, which has none afterwards."""
    number: int = row.pop("number")
    return number


@tool
def total(rows: list[dict[str, int]], start: int = 0) -> int:
    """The sum of the rows' numbers."""
    return start + sum(row["number"] for row in rows)


@pytest.fixture(scope="module")
def machine() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    yield
    ray.shutdown()


def calls(directory: Path, task: int) -> list[list[str]]:
    return [line.split() for line in (directory / f"task-{task}").read_text().splitlines()]


async def test_a_worker_is_killed_and_nothing_recorded_runs_again(
    machine: None, tmp_path: Path
) -> None:
    events: list[Event] = []
    async with LLMCompiler(
        [first, dies_once], executor=RayExecutor(), store=tmp_path / "runs.sqlite"
    ) as compiler:
        plan = parse_plan(f'1. first("{tmp_path}")\n2. dies_once("{tmp_path}", $1)\n3. join($2)')
        result = await compiler.execute(plan, on_event=events.append)
        assert (result.status, result.value) == ("answered", 21)
        (retried,) = [event for event in events if type(event) is TaskRetried]
        assert "dies_once was lost (WorkerCrashedError" in retried.failure.message
        assert len(calls(tmp_path, 1)) == 1
        first_call, second_call = calls(tmp_path, 2)
        assert first_call[:2] == [f"{result.run}/2", "1"]
        assert second_call[:2] == [f"{result.run}/2", "2"]
        assert first_call[2] != second_call[2]
        assert (await replay(compiler.store, result.run)).status == "answered"


async def test_a_worker_that_does_not_stop_is_killed(machine: None, tmp_path: Path) -> None:
    async with LLMCompiler(
        [first, stubborn], executor=RayExecutor(), store=tmp_path / "runs.sqlite"
    ) as compiler:
        await compiler.execute(parse_plan(f'1. first("{tmp_path}")\n2. join($1)'))  # a worker is up
        result = await compiler.execute(
            parse_plan(f'1. first("{tmp_path}")\n2. stubborn("{tmp_path}")\n3. join($1)')
        )
    assert "timed out after 1.5 s" in str(result.observations[2].failure)
    ((_, _, worker),) = calls(tmp_path, 2)
    assert ends(int(worker))


async def test_large_values_stay_on_the_cluster(machine: None, tmp_path: Path) -> None:
    events: list[Event] = []
    executor = RayExecutor(values=tmp_path / "values", above=1000)
    store = tmp_path / "runs.sqlite"
    async with LLMCompiler([large, length, joined], executor=executor, store=store) as compiler:
        plan = parse_plan(
            "1. large(5000)\n2. length($1)\n3. large(10)\n4. joined([$1, $3, $1])\n"
            "5. join($1, $2, $4)"
        )
        result = await compiler.execute(plan, on_event=events.append)
        handle, size, total = result.value.values()
        assert (size, total) == (5000, 10_010)
        assert (handle["bytes"], handle["type"]) == (5002, "text of 5000")
        finished = [event for event in events if type(event) is TaskFinished]
        assert max(len(json.dumps(event.value)) for event in finished) < 1000
        assert (await replay(compiler.store, result.run)).status == "answered"
    files = list((tmp_path / "values").rglob("*.json"))
    assert [path.stem for path in files] == [handle.digest]
    # The file is as good as the cluster's memory.
    async with LLMCompiler([large, length, joined], executor=executor, store=store) as compiler:
        forked = await compiler.fork(result.run, start=2)
        assert forked.observations[2].value == 5000


async def test_parts_of_large_values_are_found_by_the_worker(machine: None, tmp_path: Path) -> None:
    plan = parse_plan(
        "1. table(500)\n2. total($1.rows, start=$1.rows[7].number)\n3. length($1.name)\n"
        "4. length($1.title)\n5. length($1.rows[*].text[*])\n6. join($2, $3)"
    )
    executor = RayExecutor(values=tmp_path / "values", above=1000)
    async with LLMCompiler([table, total, length], executor=executor, store=":memory:") as compiler:
        result = await compiler.execute(plan)
        assert (result.observations[2].value, result.observations[3].value) == (124_757, 7)
        failures = [result.observations[task].failure for task in (4, 5)]
        assert "kept on the cluster has no .title" in failures[0].message
        assert failures[0].hint == "fields: name, rows"
        assert "is kept on a cluster, and its handle tells no length" in failures[1].message


async def test_a_large_list_is_fanned_out_where_it_is(machine: None, tmp_path: Path) -> None:
    plan = parse_plan(
        "1. table(200)\n2. emptied($1.rows[*])\n3. emptied($1.rows[*])\n4. listed(300)\n"
        "5. emptied($4[*])\n6. join($2, $3, $5)"
    )
    store = tmp_path / "runs.sqlite"
    values = tmp_path / "values"
    tools = [table, listed, emptied]
    executor = RayExecutor(values=values, above=1000)
    async with LLMCompiler(tools, executor=executor, store=store) as compiler:
        result = await compiler.execute(plan)
        # What a tool does to its element, the next does not see.
        assert list(result.value.values()) == [[*range(200)], [*range(200)], [*range(300)]]
        assert result.observations[1].value["lengths"] == {"rows": 200}
        assert result.observations[4].value["length"] == 300
    # From the files, where the cluster's memory is gone.
    executor = RayExecutor(values=values, above=1000)
    async with LLMCompiler(tools, executor=executor, store=store) as compiler:
        forked = await compiler.fork(result.run, start=5)
        assert forked.observations[5].value == [*range(300)]


async def test_a_large_value_that_is_gone_is_missed_by_name(machine: None, tmp_path: Path) -> None:
    store = tmp_path / "runs.sqlite"
    values = tmp_path / "values"
    plan = parse_plan("1. large(5000)\n2. length($1)\n3. join($1, $2)")
    tools = [large, length]
    async with LLMCompiler(
        tools, executor=RayExecutor(values=values, above=1000), store=store
    ) as compiler:
        run = (await compiler.execute(plan)).run
    async with LLMCompiler(tools, store=store) as compiler:
        local_run = await compiler.fork(run, start=2)
    assert "needs a value that is kept on a cluster" in str(local_run.observations[2].failure)
    next(values.rglob("*.json")).unlink()
    async with LLMCompiler(
        tools, executor=RayExecutor(values=values, above=1000), store=store
    ) as compiler:
        gone = await compiler.fork(run, start=2)
        remade = await compiler.fork(run, start=1)
    assert "is not in" in str(gone.observations[2].failure)
    assert remade.observations[2].value == 5000


async def test_what_no_node_has_is_said(machine: None, tmp_path: Path) -> None:
    greedy = tool(resources={"GPU": 64})(length.function)
    ray.shutdown()  # the executor's own cluster cannot grow
    async with LLMCompiler([greedy], executor=RayExecutor(), store=":memory:") as compiler:
        result = await compiler.execute(parse_plan('1. length("a")\n2. join($1)'))
    assert "asks for GPU=64, which this machine does not have" in str(
        result.observations[1].failure
    )


def test_a_cluster_that_is_not_there() -> None:
    ray.shutdown()
    with pytest.raises(UsageError, match=r"no Ray cluster at 127\.0\.0\.1:9"):
        RayExecutor("127.0.0.1:9").start()


async def test_a_node_is_killed_and_another_takes_over(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        doomed = cluster.add_node(num_cpus=1, resources={"far": 1})
        ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        events: list[Event] = []
        has_begun = asyncio.Event()

        def heard(event: Event) -> None:
            events.append(event)
            if type(event) is TaskProgress:
                has_begun.set()

        async with LLMCompiler(
            [first, far, large, length],
            executor=RayExecutor(values=tmp_path / "values", above=1000),
            store=tmp_path / "runs.sqlite",
        ) as compiler:
            plan = parse_plan(
                f'1. first("{tmp_path}")\n2. far("{tmp_path}", $1)\n3. large(5000)\n'
                "4. length($3)\n5. join($2, $4)"
            )
            running = asyncio.ensure_future(compiler.execute(plan, on_event=heard))
            await has_begun.wait()
            cluster.remove_node(doomed, allow_graceful=False)
            cluster.add_node(num_cpus=1, resources={"far": 1})
            result = await running
        assert result.status == "answered", result.failure
        assert list(result.value.values()) == [21, 5000]
        assert not [event for event in events if type(event) is TaskFailed]
        assert [event.task for event in events if type(event) is TaskRetried] == [2]
        assert len(calls(tmp_path, 1)) == 1
        assert [call[:2] for call in calls(tmp_path, 2)] == [
            [f"{result.run}/2", "1"],
            [f"{result.run}/2", "2"],
        ]
    finally:
        ray.shutdown()
        cluster.shutdown()


async def test_a_span_of_a_worker_is_below_the_call(tmp_path: Path) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from llmcompiler.view.otel import Telemetry

    @tool
    def current_trace() -> list[str]:
        """The trace and span that are current in the worker."""
        from opentelemetry import trace

        context = trace.get_current_span().get_span_context()
        return [format(context.trace_id, "032x"), format(context.span_id, "016x")]

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = Telemetry(provider)
    async with LLMCompiler(
        [current_trace], executor=telemetry.executor(RayExecutor()), store=":memory:"
    ) as compiler:
        result = await compiler.execute(
            parse_plan("1. current_trace()\n2. join($1)"), on_event=telemetry.listener()
        )
    (span,) = [span for span in exporter.get_finished_spans() if "execute_tool" in span.name]
    context = span.get_span_context()
    assert context is not None
    assert result.value == [format(context.trace_id, "032x"), format(context.span_id, "016x")]
