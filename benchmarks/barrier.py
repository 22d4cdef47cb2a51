"""Does work wait for what it does not need? Two small graphs that show a level barrier.

    python benchmarks/barrier.py            # peers as in requirements-peers.txt, where installed

In ``beside``, C (0.5 s) needs A (0.1 s), and B (0.5 s) is beside both. In ``staggered`` there are
two chains, one short then long, the other long then short. Who goes level by level lets the short
task's successor wait for the long task beside it. Sleeps and times are real; ``ideal`` is the
longest path, ``levels`` what a barrier behind each level costs.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from llmcompiler import LLMCompiler, parse_plan, tool

Shape: TypeAlias = dict[int, tuple[float, int | None]]
"""Task -> seconds, and the one task that it waits for."""

SHAPES: dict[str, Shape] = {
    "beside": {1: (0.1, None), 2: (0.5, None), 3: (0.5, 1)},
    "staggered": {1: (0.1, None), 2: (0.4, None), 3: (0.4, 1), 4: (0.1, 2)},
}


def ideal(shape: Shape) -> float:
    """Seconds of the longest path."""
    ends: dict[int, float] = {}
    for task, (seconds, needs) in shape.items():
        ends[task] = seconds + (ends[needs] if needs is not None else 0.0)
    return max(ends.values())


def levels(shape: Shape) -> float:
    """Seconds with a barrier behind each level."""
    first = max(seconds for seconds, needs in shape.values() if needs is None)
    return first + max(seconds for seconds, needs in shape.values() if needs is not None)


Runner: TypeAlias = Callable[[], Coroutine[Any, Any, Any]]


def engine(shape: Shape) -> Runner:
    """This project, as an app uses it: a saved plan, its log in memory."""

    @tool
    async def work(seconds: float, after: Any = None) -> float:
        """Work for a while."""
        await asyncio.sleep(seconds)
        return seconds

    plan = parse_plan(
        "\n".join(
            f"{task}. work({seconds}{f', after=${needs}' if needs else ''})"
            for task, (seconds, needs) in shape.items()
        )
    )
    compiler = LLMCompiler([work], store=":memory:")
    return lambda: compiler.execute(plan)


def langgraph(shape: Shape) -> Runner:
    """LangGraph: a node a task."""
    from langgraph.graph import END, START, StateGraph
    from typing_extensions import TypedDict

    class State(TypedDict):
        pass

    def node(seconds: float) -> Callable[[Any], Coroutine[Any, Any, dict[str, Any]]]:
        async def work(state: Any) -> dict[str, Any]:
            await asyncio.sleep(seconds)
            return {}

        return work

    builder = StateGraph(State)
    needed = {needs for _, needs in shape.values()}
    for task, (seconds, _) in shape.items():
        builder.add_node(str(task), node(seconds))
    for task, (_, needs) in shape.items():
        builder.add_edge(START if needs is None else str(needs), str(task))
        if task not in needed:
            builder.add_edge(str(task), END)
    compiled = builder.compile()
    return lambda: compiled.ainvoke({}, {})


def pydantic_graph(shape: Shape) -> Runner:
    """pydantic-graph: a step a task, the ends joined."""
    from pydantic_graph import GraphBuilder, StepContext, reduce_list_append

    builder = GraphBuilder(output_type=list[float])

    def step(task: int, seconds: float) -> Any:
        async def work(ctx: StepContext[None, None, Any]) -> float:
            await asyncio.sleep(seconds)
            return seconds

        return builder.step(work, node_id=f"task-{task}")

    steps = {task: step(task, seconds) for task, (seconds, _) in shape.items()}
    together = builder.join(reduce_list_append, initial_factory=list)
    needed = {needs for _, needs in shape.values()}
    first = [steps[task] for task, (_, needs) in shape.items() if needs is None]
    builder.add(
        builder.edge_from(builder.start_node).to(*first),
        *(
            builder.edge_from(steps[needs]).to(steps[task])
            for task, (_, needs) in shape.items()
            if needs is not None
        ),
        *(builder.edge_from(steps[task]).to(together) for task in shape if task not in needed),
        builder.edge_from(together).to(builder.end_node),
    )
    built = builder.build()
    return built.run  # type: ignore[no-any-return]


SYSTEMS: dict[str, tuple[Callable[[Shape], Runner], str]] = {
    "llmcompiler": (engine, "llmcompiler"),
    "langgraph": (langgraph, "langgraph"),
    "pydantic-graph": (pydantic_graph, "pydantic_graph"),
}


async def measured(runner: Runner, rounds: int) -> float:
    """Seconds of the best round; one before is not counted, for what is loaded at first use."""
    best = float("inf")
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        await runner()
        best = min(best, time.perf_counter() - begun)
    return best


def main() -> None:
    """Print a line a shape and system."""
    parser = argparse.ArgumentParser(description="two small graphs that show a level barrier")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for name, shape in SHAPES.items():
        print(f"{name:10} ideal {ideal(shape):.2f} s, levels {levels(shape):.2f} s")
        for system, (build, module) in SYSTEMS.items():
            if importlib.util.find_spec(module) is None:
                print(f"not installed, so not measured: {system}", file=sys.stderr)
                continue
            took = asyncio.run(measured(build(shape), options.rounds))
            print(f"{name:10} {system:15} {took:.3f} s  {took / ideal(shape):.2f} x ideal")


if __name__ == "__main__":
    main()
