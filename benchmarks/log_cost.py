"""Cost of a durable log: microseconds and bytes per task, and the speed of a replay.

    python benchmarks/log_cost.py                    # a chain of 300 tasks, a replay of 10,000
    python benchmarks/log_cost.py --tasks 1000 --rounds 5 --replay 0

Each system runs the same chain of tools that only return a small record, once without its log and
once with its log in a file; the difference is the cost of the log. A chain is the worst case for
all systems, because no two tasks can share a commit.

* ``process``: this package's log by default; recorded events survive ``kill -9``.
* ``power``: an fsync for each commit; recorded events survive a loss of power.
* ``langgraph sync`` and ``async``: LangGraph's SQLite saver. It saves the state before the next
  node starts, or while the next node runs (its default, which may lose the last step). It opens its
  file in WAL mode and leaves ``synchronous`` at SQLite's default, an fsync for each commit, so
  compare it with ``power``.
* ``dbos``: a DBOS workflow of steps on its SQLite system database, with fsync; without its log, the
  same functions called directly.

Peers that are not installed are named and left out (``requirements-log.txt``). Each figure is the
best of ``--rounds`` rounds, in which the systems alternate. For the replay, the chain's plan is run
once and replayed; bytes are the sizes of the files after all connections are closed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import logging
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from llmcompiler.compiler import LLMCompiler
from llmcompiler.executors.local import LocalExecutor
from llmcompiler.history.replay import replay
from llmcompiler.limits import Limits
from llmcompiler.log.journal import Journal
from llmcompiler.log.sqlite_file import Durability
from llmcompiler.log.store import RunStore
from llmcompiler.plan.expressions import Literal, Reference
from llmcompiler.plan.model import Plan, Task
from llmcompiler.runtime.budget import RunBudget
from llmcompiler.runtime.engine import Engine
from llmcompiler.tools.base import tool

Run: TypeAlias = Callable[[Path], Callable[[], Any]]
"""Prepares a run that keeps its log in a folder, and returns the function to measure."""


@tool
async def step(number: int, before: Any = None) -> dict[str, Any]:
    """Give a record that is like no other."""
    return record(number)


def record(number: int) -> dict[str, Any]:
    """The result of a task."""
    return {"name": f"record {number}", "value": number * 1.5, "tags": ["a", "b"]}


def chain(length: int) -> list[Task]:
    """A chain: each task needs the task before."""
    return [
        Task(
            id=number,
            tool="step",
            args=(Literal(value=number), *((Reference(task=number - 1),) if number > 1 else ())),
        )
        for number in range(1, length + 1)
    ]


# --- this package ---------------------------------------------------------------------------------


def ours(length: int, durability: Durability | None) -> Run:
    """The engine with a log of that durability, or without a log."""
    tasks = chain(length)

    def prepare(folder: Path) -> Callable[[], Any]:
        store = RunStore(folder / "log", durability=durability) if durability else None

        async def run() -> None:
            log = store.begin("run") if store is not None else None
            engine = Engine(
                "run",
                tools={"step": step},
                executor=LocalExecutor(),
                journal=Journal(asyncio.get_running_loop().time, log),
                budget=RunBudget(Limits()),
                inputs={},
            )
            engine.add(1, tasks)
            await engine.wait_idle()
            assert len(engine.observations) == length
            if store is not None:
                store.close()

        return lambda: asyncio.run(run())

    return prepare


# --- peers ----------------------------------------------------------------------------------------


def langgraph(length: int, durability: str | None) -> Run:
    """LangGraph with its SQLite saver, or without a checkpointer."""
    from langgraph.graph import END, START, StateGraph
    from typing_extensions import TypedDict

    class State(TypedDict):
        last: dict[str, Any]

    def node(number: int) -> Callable[[State], dict[str, Any]]:
        return lambda state: {"last": record(number)}

    builder = StateGraph(State)
    for number in range(length):
        builder.add_node(str(number), node(number))
        builder.add_edge(str(number - 1) if number else START, str(number))
    builder.add_edge(str(length - 1), END)
    config: Any = {"recursion_limit": length + 10, "configurable": {"thread_id": "run"}}

    def prepare(folder: Path) -> Callable[[], Any]:
        if durability is None:
            compiled = builder.compile()
            return lambda: compiled.invoke({"last": {}}, config)
        import sqlite3

        from langgraph.checkpoint.sqlite import SqliteSaver

        def run() -> None:
            with closing(sqlite3.connect(folder / "log", check_same_thread=False)) as connection:
                graph = builder.compile(checkpointer=SqliteSaver(connection))
                graph.invoke({"last": {}}, config, durability=durability)

        return run

    return prepare


def dbos(length: int, logged: bool) -> Run:
    """DBOS: steps in a workflow, or the same functions called directly."""

    def prepare(folder: Path) -> Callable[[], Any]:
        if not logged:
            return lambda: [record(number) for number in range(length)]
        from dbos import DBOS

        logging.getLogger("dbos").setLevel(logging.ERROR)
        DBOS(
            config={
                "name": "log-cost",
                "system_database_url": f"sqlite:///{folder / 'log'}",
                "log_level": "ERROR",
            }
        )
        recorded_step = DBOS.step()(record)

        @DBOS.workflow()
        def workflow() -> int:
            for number in range(length):
                recorded_step(number)
            return length

        DBOS.launch()
        return workflow

    return prepare


def after_dbos() -> None:
    """Reset DBOS, so that the next round starts without state."""
    from dbos import DBOS

    DBOS.destroy(destroy_registry=True)


@dataclass(frozen=True, slots=True)
class System:
    """A way to run the chain.

    Attributes:
        name: name in the table.
        module: the module that must be installed.
        plain: the run without a log.
        logged: the run with a log.
        after: called after a logged run.
    """

    name: str
    module: str
    plain: Callable[[int], Run]
    logged: Callable[[int], Run]
    after: Callable[[], None] = lambda: None


SYSTEMS = (
    System("process", "llmcompiler", lambda n: ours(n, None), lambda n: ours(n, "process")),
    System("power", "llmcompiler", lambda n: ours(n, None), lambda n: ours(n, "power")),
    System(
        "langgraph sync",
        "langgraph.checkpoint.sqlite",
        lambda n: langgraph(n, None),
        lambda n: langgraph(n, "sync"),
    ),
    System(
        "langgraph async",
        "langgraph.checkpoint.sqlite",
        lambda n: langgraph(n, None),
        lambda n: langgraph(n, "async"),
    ),
    System("dbos", "dbos", lambda n: dbos(n, False), lambda n: dbos(n, True), after_dbos),
)


# --- measuring ------------------------------------------------------------------------------------


def is_installed(module: str) -> bool:
    """True if a module can be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@dataclass(slots=True)
class BestFigures:
    """Best figures of a system: seconds without and with log, and bytes of the log's files."""

    plain: float = float("inf")
    logged: float = float("inf")
    size: int = 0


def seconds(run: Callable[[], Any]) -> float:
    """Seconds of one run."""
    started_at = time.perf_counter()
    run()
    return time.perf_counter() - started_at


def measure(system: System, length: int, figures: BestFigures) -> None:
    """Measure one round of a system, and update its best figures."""
    with tempfile.TemporaryDirectory() as name:
        figures.plain = min(figures.plain, seconds(system.plain(length)(Path(name))))
    with tempfile.TemporaryDirectory() as name:
        run = system.logged(length)(Path(name))
        figures.logged = min(figures.logged, seconds(run))
        system.after()
        figures.size = sum(file.stat().st_size for file in Path(name).iterdir())


def compare(length: int, rounds: int) -> None:
    """Print a line for each system: microseconds and bytes per task, with ratios."""
    missing = [system.name for system in SYSTEMS if not is_installed(system.module)]
    systems = [system for system in SYSTEMS if system.name not in missing]
    best_figures = {system.name: BestFigures() for system in systems}
    for _ in range(rounds):
        for system in systems:
            measure(system, length, best_figures[system.name])
    print(f"chain of {length} tasks, best of {rounds}")
    print(
        f"{'':16}{'without':>9}{'with log':>9}{'log':>9}{'to process':>11}{'to power':>9}", end=""
    )
    print(f"{'bytes':>9}{'to process':>11}")
    costs = {name: figures.logged - figures.plain for name, figures in best_figures.items()}
    for name, figures in best_figures.items():
        plain, logged, cost = (
            figure * 1e6 / length for figure in (figures.plain, figures.logged, costs[name])
        )
        print(
            f"{name:16}{plain:9.0f}{logged:9.0f}{cost:9.0f}"
            f"{costs[name] / costs['process']:10.1f}x{costs[name] / costs['power']:8.2f}x"
            f"{figures.size / length:9.0f}{figures.size / best_figures['process'].size:10.1f}x"
        )
    for name in missing:
        print(f"{name:16}not installed (benchmarks/requirements-log.txt)")


def replays(length: int, rounds: int) -> None:
    """Print the speed of a replay of that many tasks, and the size of its log."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "log"
        compiler = LLMCompiler([step], store=path)
        run_seconds = seconds(lambda: compiler.execute_sync(Plan.of(chain(length))))
        replay_seconds = min(
            seconds(lambda: asyncio.run(replay(compiler.store, "last"))) for _ in range(rounds)
        )
        compiler.store.close()
        size = path.stat().st_size
    print(f"run of {length:,} tasks: {length / run_seconds:,.0f} tasks/s with its log")
    print(
        f"replay: {length / replay_seconds:,.0f} tasks/s; store: {size / length:,.0f} bytes a task"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=300, help="length of the chain")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--replay", type=int, default=10_000, help="tasks to replay; 0 for none")
    options = parser.parse_args()
    compare(options.tasks, options.rounds)
    if options.replay:
        replays(options.replay, options.rounds)


if __name__ == "__main__":
    main()
