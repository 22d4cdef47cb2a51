"""What holds wherever tools are called: in this process, or as tasks of a Ray cluster.

Each test runs on both. Those on Ray are slow: a cluster takes seconds to start.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llmcompiler.compiler import LLMCompiler
from llmcompiler.errors import ToolError
from llmcompiler.events import Event, TaskFailed, TaskProgress, TaskRetried
from llmcompiler.executors.base import Executor, ToolCall
from llmcompiler.executors.local import LocalExecutor
from llmcompiler.history.replay import replay
from llmcompiler.language import parse_plan
from llmcompiler.limits import Limits
from llmcompiler.run.result import RunResult
from llmcompiler.tools.base import Tool, tool
from llmcompiler.tools.context import CallContext, current_call
from llmcompiler.tools.policy import Retry

MakeExecutor = Callable[[], Executor]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    yield
    ray.shutdown()


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def executor(request: pytest.FixtureRequest) -> MakeExecutor:
    if request.param == "local":
        return LocalExecutor
    request.getfixturevalue("cluster")
    from llmcompiler.executors.ray import RayExecutor

    return RayExecutor


@tool
def add(a: int, b: int) -> int:
    """Sum of two numbers."""
    return a + b


@tool
async def double(number: int) -> int:
    """Twice the number."""
    await asyncio.sleep(0)
    return 2 * number


@tool
def numbers(count: int) -> list[int]:
    """The first numbers."""
    return list(range(count))


@tool
def refuse(number: int) -> int:
    """Refuses with a hint."""
    raise ToolError(f"{number} is too much", hint="give less")


class OddityError(Exception):
    """Cannot be sent anywhere."""

    def __init__(self, number: int, *, callback: Any) -> None:
        super().__init__(f"odd: {number}")
        self.callback = callback


@tool
def break_down(number: int) -> int:
    """Raises what Python raises."""
    return number // 0


@tool
def run_out(number: int) -> int:
    """Raises what no future takes."""
    return next(iter([number][1:]))


@tool
def break_oddly(number: int) -> int:
    """Raises what cannot be pickled."""
    raise OddityError(number, callback=lambda: None)


@tool
def leave(number: int) -> int:
    """Calls sys.exit."""
    sys.exit(number)


@tool
def useless(number: int) -> Any:
    """Gives what is no JSON."""
    return {1, object()}


@tool(retry=Retry(attempts=3, base=0.0))
def passing(directory: str) -> list[str]:
    """Fails in passing twice; gives the keys and attempts that it saw."""
    call = current_call()
    with (Path(directory) / "seen").open("a") as file:
        file.write(f"{call.key} {call.attempt}\n")
    if call.attempt < 3:
        raise ToolError("not yet", retryable=True)
    return (Path(directory) / "seen").read_text().splitlines()


@tool
def whoami() -> dict[str, Any]:
    """The call as the tool sees it."""
    call = current_call()
    return {"run": call.run, "task": call.task, "index": list(call.index), "key": call.key}


@tool
def slowly(count: int) -> str:
    """Tells of its progress."""
    for done in range(count):
        current_call().report(done + 1, count, f"step {done + 1}")
    return "done"


@tool(timeout=1.0)
async def forever(directory: str) -> str:
    """Never ends by itself; notes that it was stopped."""
    (Path(directory) / "began").touch()
    current_call().report(0)
    try:
        await asyncio.Event().wait()
    finally:
        (Path(directory) / "stopped").touch()
    return ""


waiting = dataclasses.replace(forever, name="waiting", timeout=None)

TOOLS: tuple[Tool, ...] = (
    add, double, numbers, refuse, break_down, run_out, break_oddly, leave, useless, passing, whoami,
    slowly, forever, waiting,
)  # fmt: skip


class Bench:
    """A compiler on one executor, whose events are kept."""

    def __init__(self, compiler: LLMCompiler) -> None:
        self.compiler = compiler
        self.events: list[Event] = []

    async def run(self, plan: str) -> RunResult:
        return await self.compiler.execute(parse_plan(plan), on_event=self.events.append)

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]


@asynccontextmanager
async def bench(make: MakeExecutor, tmp_path: Path, **options: Any) -> AsyncIterator[Bench]:
    async with LLMCompiler(
        TOOLS, executor=make(), store=tmp_path / "runs.sqlite", **options
    ) as compiler:
        yield Bench(compiler)


async def test_values_go_from_task_to_task(executor: MakeExecutor, tmp_path: Path) -> None:
    async with bench(executor, tmp_path) as it:
        result = await it.run("1. add(1, 2)\n2. double($1)\n3. add($1, $2)\n4. join($3)")
    assert result.value == 9


async def test_a_fan_out_keeps_its_order(executor: MakeExecutor, tmp_path: Path) -> None:
    async with bench(executor, tmp_path) as it:
        result = await it.run("1. numbers(6)\n2. double($1[*])\n3. join($2)")
    assert result.value == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        ("refuse(7)", "ToolError", "7 is too much"),
        ("break_down(7)", "ZeroDivisionError", "by zero"),
        ("run_out(7)", "RuntimeError", "raised StopIteration"),
        ("leave(3)", "ToolError", "leave called sys.exit(3)"),
        ("useless(1)", "ToolError", "cannot be JSON"),
    ],
)
async def test_a_failure_is_told_as_it_was_raised(
    executor: MakeExecutor, tmp_path: Path, call: str, kind: str, message: str
) -> None:
    async with bench(executor, tmp_path) as it:
        await it.run(f"1. {call}\n2. add(1, 2)\n3. double($1)\n4. join($2)")
    failure = it.of(TaskFailed)[0].failure
    assert (failure.type, failure.blame) == (kind, "tool")
    assert message in failure.message


async def test_an_exception_that_cannot_travel_is_told_too(
    executor: MakeExecutor, tmp_path: Path
) -> None:
    async with bench(executor, tmp_path) as it:
        await it.run("1. break_oddly(7)\n2. join()")
    assert "odd: 7" in it.of(TaskFailed)[0].failure.message


async def test_a_call_is_repeated_under_its_key(executor: MakeExecutor, tmp_path: Path) -> None:
    async with bench(executor, tmp_path) as it:
        result = await it.run(f'1. passing("{tmp_path}")\n2. join($1)')
    key = f"{result.run}/1"
    assert result.value == [f"{key} 1", f"{key} 2", f"{key} 3"]
    assert [event.attempt for event in it.of(TaskRetried)] == [1, 2]


async def test_a_tool_knows_its_call(executor: MakeExecutor, tmp_path: Path) -> None:
    async with bench(executor, tmp_path) as it:
        result = await it.run("1. whoami()\n2. join($1)")
    assert result.value == {"run": result.run, "task": 1, "index": [], "key": f"{result.run}/1"}


async def test_progress_is_told_before_the_end(executor: MakeExecutor, tmp_path: Path) -> None:
    async with bench(executor, tmp_path) as it:
        await it.run("1. slowly(1)\n2. join($1)")
    (progress,) = it.of(TaskProgress)
    assert (progress.done, progress.total, progress.message) == (1, 1, "step 1")


async def test_a_call_that_takes_too_long_is_stopped(
    executor: MakeExecutor, tmp_path: Path
) -> None:
    async with bench(executor, tmp_path) as it:
        await it.run("1. add(1, 1)\n2. join($1)")  # the first call waits for a worker
        await it.run(f'1. forever("{tmp_path}")\n2. join()')
    assert "timed out after 1 s" in it.of(TaskFailed)[-1].failure.message
    # A worker that had not begun was never stopped.
    assert (tmp_path / "stopped").exists() == (tmp_path / "began").exists()


async def test_a_call_is_stopped_with_its_run(executor: MakeExecutor, tmp_path: Path) -> None:
    async with LLMCompiler([add, waiting], executor=executor(), store=":memory:") as compiler:
        has_begun = asyncio.Event()

        def heard(event: Event) -> None:
            if type(event) is TaskProgress:
                has_begun.set()

        plan = parse_plan(f'1. waiting("{tmp_path}")\n2. join()')
        running = asyncio.ensure_future(compiler.execute(plan, on_event=heard))
        await has_begun.wait()
        running.cancel()
        await asyncio.wait((running,))
    assert (tmp_path / "stopped").exists()


async def test_a_call_is_called_off_before_it_began(executor: MakeExecutor, tmp_path: Path) -> None:
    its = executor()
    arguments = {"directory": str(tmp_path)}
    future = its.submit(ToolCall(waiting, arguments, CallContext("run", 1, (), "run/1")))
    assert future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await future
    assert not future.cancel()
    await its.aclose()
    assert not (tmp_path / "began").exists()


async def test_a_limit_on_calls_holds(executor: MakeExecutor, tmp_path: Path) -> None:
    async with bench(executor, tmp_path, limits=Limits(tool_calls=2)) as it:
        result = await it.run("1. add(1, 2)\n2. double($1)\n3. double($2)\n4. join($3)")
    assert result.failure is not None
    assert "tool_calls=2" in result.failure.message


async def test_a_fatal_failure_ends_the_rest(executor: MakeExecutor, tmp_path: Path) -> None:
    async with bench(executor, tmp_path, on_error="fail") as it:
        result = await it.run(f'1. waiting("{tmp_path}")\n2. break_down(1)\n3. join()')
    assert result.failure is not None
    assert "task 2 (break_down) failed" in result.failure.message


async def test_a_run_is_replayed_without_the_executor(
    executor: MakeExecutor, tmp_path: Path
) -> None:
    async with bench(executor, tmp_path) as it:
        result = await it.run("1. numbers(3)\n2. double($1[*])\n3. refuse(1)\n4. join($2)")
        report = await replay(it.compiler.store, result.run)
    assert (report.status, report.tasks) == ("answered", 3)


PLAN = """1. numbers(3)
2. double($1[*])
3. refuse(5)
4. double($3)
5. add(2, 3)
6. add($5, $2[0])
7. join()
"""


@pytest.mark.slow
async def test_the_log_of_both_is_the_same(cluster: None, tmp_path: Path) -> None:
    from llmcompiler.executors.ray import RayExecutor

    logs = []
    for number, make in enumerate((LocalExecutor, RayExecutor)):
        (tmp_path / str(number)).mkdir()
        async with bench(make, tmp_path / str(number)) as it:
            await it.run(PLAN)
        logs.append(sorted(filter(None, map(_plain, it.events))))
    assert logs[0] == logs[1]


def _plain(event: Event) -> str:
    """An event without what no two runs have in common."""
    fields = dataclasses.asdict(event)
    for name in ("at", "seconds", "wall", "run", "key"):
        fields.pop(name, None)
    return f"{type(event).__name__} {fields}"


class Doubling:
    """Has another executor make the call, and makes something else of what comes."""

    def __init__(self) -> None:
        self._inner = LocalExecutor()

    def submit(self, call: ToolCall) -> asyncio.Future[Any]:
        async def doubled() -> int:
            value: int = await self._inner.submit(call)
            if value > 10:
                raise ToolError("too large")
            return 2 * value

        return asyncio.ensure_future(doubled())

    async def aclose(self) -> None:
        await self._inner.aclose()


async def test_what_an_executor_makes_of_anothers_result_is_the_result() -> None:
    compiler = LLMCompiler([add, double], executor=Doubling(), store=":memory:")
    plan = parse_plan("1. add(1, 2)\n2. double($1)\n3. add($1, $2)\n4. join($3)")
    result = await compiler.execute(plan)
    ends = {number: (end.status, end.value) for number, end in result.observations.items()}
    assert ends == {1: ("done", 6), 2: ("failed", None), 3: ("skipped", None)}
