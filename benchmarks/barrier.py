"""Whether a task waits for tasks that it does not need: two small graphs, with real sleeps.

    python -m venv PEERS && PEERS/bin/pip install -e . -r benchmarks/requirements-peers.txt
    PEERS/bin/python benchmarks/barrier.py

``fork`` is A (0.1 s) before C (0.5 s), beside B (0.5 s). ``staggered`` has two chains whose long
and short tasks alternate; one chain starts with a long task, the other with a short one. ``ideal``
is the critical path. ``levels`` is the sum of each level's longest task, the time of an engine that
works in supersteps. Each system gets the graph as its users would write it. The graph is built
before the clock starts, and one run precedes the measured runs. Times are wall-clock times.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from llmcompiler.executors.local import LocalExecutor
from llmcompiler.limits import Limits
from llmcompiler.log.journal import Journal
from llmcompiler.plan.expressions import ListExpr, Literal, Reference
from llmcompiler.plan.model import Task
from llmcompiler.runtime.budget import RunBudget
from llmcompiler.runtime.engine import Engine
from llmcompiler.tools.base import tool

Graph: TypeAlias = dict[str, tuple[float, tuple[str, ...]]]
"""Task -> seconds, and the earlier tasks that it waits for."""

Start: TypeAlias = Callable[[], Awaitable[object]]

SHAPES: dict[str, Graph] = {
    "fork": {"A": (0.1, ()), "B": (0.5, ()), "C": (0.5, ("A",))},
    "staggered": {
        "A1": (0.5, ()),
        "B1": (0.1, ()),
        "A2": (0.1, ("A1",)),
        "B2": (0.5, ("B1",)),
        "A3": (0.5, ("A2",)),
        "B3": (0.1, ("B2",)),
        "A4": (0.1, ("A3",)),
        "B4": (0.5, ("B3",)),
    },
}


def ideal(graph: Graph) -> float:
    """The critical path's length."""
    ends: dict[str, float] = {}
    for name, (seconds, needs) in graph.items():
        ends[name] = seconds + max((ends[need] for need in needs), default=0.0)
    return max(ends.values())


def levels(graph: Graph) -> float:
    """Seconds if a level starts once the level before it has ended."""
    level: dict[str, int] = {}
    longest: dict[int, float] = {}
    for name, (seconds, needs) in graph.items():
        level[name] = 1 + max((level[need] for need in needs), default=0)
        longest[level[name]] = max(longest.get(level[name], 0.0), seconds)
    return sum(longest.values())


def ends_of(graph: Graph) -> list[str]:
    """The tasks that no other task waits for."""
    needed_tasks = {need for _, needs in graph.values() for need in needs}
    return [name for name in graph if name not in needed_tasks]


def engine(graph: Graph) -> Start:
    """Prepare a run of this engine."""

    @tool
    async def work(seconds: float, after: list[int]) -> int:
        await asyncio.sleep(seconds)
        return 0

    numbers = {name: number for number, name in enumerate(graph, 1)}
    tasks = []
    for name, (seconds, needs) in graph.items():
        after = ListExpr(items=tuple(Reference(task=numbers[need]) for need in needs))
        tasks.append(
            Task(id=numbers[name], tool="work", args=(Literal(value=seconds), after)),
        )

    async def start() -> None:
        engine_run = Engine(
            "run",
            tools={"work": work},
            executor=LocalExecutor(),
            journal=Journal(asyncio.get_running_loop().time, None),
            budget=RunBudget(Limits()),
            inputs={},
        )
        engine_run.add(1, tasks)
        await engine_run.wait_idle()
        assert all(observation.status == "done" for observation in engine_run.observations.values())

    return start


def langgraph(graph: Graph) -> Start:
    """LangGraph: a node for each task, an edge for each dependency."""
    from langgraph.graph import END, START, StateGraph
    from typing_extensions import TypedDict

    class State(TypedDict):
        pass

    def node(seconds: float) -> Any:
        async def work(state: Any) -> dict[str, Any]:
            await asyncio.sleep(seconds)
            return {}

        return work

    builder = StateGraph(State)
    for name, (seconds, needs) in graph.items():
        builder.add_node(name, node(seconds))
        for need in needs or (START,):
            builder.add_edge(need, name)
    for name in ends_of(graph):
        builder.add_edge(name, END)
    compiled = builder.compile()
    return lambda: compiled.ainvoke({})


def pydantic_graph(graph: Graph) -> Start:
    """pydantic-graph: a step for each task, and one join of the last tasks."""
    from pydantic_graph import GraphBuilder, StepContext, reduce_null

    builder = GraphBuilder(output_type=type(None))

    def step(name: str, seconds: float) -> Any:
        async def work(ctx: StepContext[None, None, Any]) -> int:
            await asyncio.sleep(seconds)
            return 0

        return builder.step(work, node_id=name)

    # The library looks annotations up in the module.
    globals().update(StepContext=StepContext)
    steps = {name: step(name, seconds) for name, (seconds, _) in graph.items()}
    join = builder.join(reduce_null, initial=None)
    begin = [steps[name] for name, (_, needs) in graph.items() if not needs]
    builder.add(
        builder.edge_from(builder.start_node).to(*begin),
        *(
            builder.edge_from(steps[need]).to(steps[name])
            for name, (_, needs) in graph.items()
            for need in needs
        ),
        *(builder.edge_from(steps[name]).to(join) for name in ends_of(graph)),
        builder.edge_from(join).to(builder.end_node),
    )
    built = builder.build()
    return built.run


SYSTEMS: dict[str, tuple[Callable[[Graph], Start], str]] = {
    "engine": (engine, "llmcompiler"),
    "langgraph": (langgraph, "langgraph"),
    "pydantic-graph": (pydantic_graph, "pydantic_graph"),
}
"""The measured systems, and the module that each needs."""


async def seconds(start: Start) -> float:
    """Seconds of one run."""
    started_at = time.perf_counter()
    await start()
    return time.perf_counter() - started_at


async def measure(rounds: int) -> None:
    """Print a line for each shape and system: the best of ``rounds`` runs."""
    for shape, graph in SHAPES.items():
        print(f"{shape:10} ideal {ideal(graph):.2f} s, levels {levels(graph):.2f} s")
        for name, (prepare, module) in SYSTEMS.items():
            if importlib.util.find_spec(module) is None:
                print(f"not installed, so not measured: {name}", file=sys.stderr)
                continue
            start = prepare(graph)
            await start()
            shortest = min([await seconds(start) for _ in range(rounds)])
            print(
                f"{'':10} {name:15} {shortest:.3f} s {shortest / ideal(graph):6.2f} x", flush=True
            )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description="two graphs that show a barrier")
    parser.add_argument("--rounds", type=int, default=3)
    asyncio.run(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
