"""The engine's own cost: microseconds per task, with DAGs of tools that do nothing.

    python benchmarks/overhead.py                                  # 100 to 10,000 tasks
    python benchmarks/overhead.py --sizes 1000 100000 --only bare engine logged
    python benchmarks/overhead.py --cpu                            # on a machine that is busy
    python benchmarks/overhead.py --memory

In the same process and on the same graphs run: the engine; a scheduler written by hand on bare
asyncio (in-degree counters, one asyncio task per call); and the engines of other projects that are
installed (``requirements-peers.txt``). The preparation of a system (building and compiling its
graph, parsing a plan, opening a store) is not counted; everything from the first call to the last
result is. The engine's time includes adding the tasks, which a planner streams.

``engine`` keeps no log. ``events`` also passes every event to a listener, and ``logged`` also
writes the crash-safe log to a file. A peer is not run on a shape that it cannot express:
``pydantic-graph`` and LlamaIndex Workflows get only ``wide`` (one step mapped over a list) and
``chain``. A system is not run on a size that would take longer than ``--patience`` seconds,
estimated from the size before.

Each figure is the best of ``--rounds`` runs. The systems alternate, so that a machine that becomes
slower slows all of them. With ``--cpu`` the time is that of the process, which other load disturbs
less than wall-clock time; it does not include Ray's workers.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import itertools
import math
import random
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

from llmcompiler.executors.local import LocalExecutor
from llmcompiler.limits import Limits
from llmcompiler.log.journal import Journal
from llmcompiler.log.store import RunStore
from llmcompiler.plan.expressions import ListExpr, Reference
from llmcompiler.plan.model import Task
from llmcompiler.runtime.budget import RunBudget
from llmcompiler.runtime.engine import Engine
from llmcompiler.tools.base import tool

Graph: TypeAlias = list[tuple[int, ...]]
"""For each task, counted from 0, the earlier tasks that it waits for."""

Runner: TypeAlias = Callable[[], Any]


# --- graphs ---------------------------------------------------------------------------------------


def wide(n: int) -> Graph:
    """``n`` independent tasks."""
    return [() for _ in range(n)]


def chain(n: int) -> Graph:
    """A chain: each task waits for the task before."""
    return [(i - 1,) if i else () for i in range(n)]


def lattice(n: int) -> Graph:
    """A square of diamonds: each task waits for its neighbours above and to the left."""
    side = math.isqrt(n - 1) + 1
    above = (() if i < side else (i - side,) for i in range(n))
    return [(*up, *((i - 1,) if i % side else ())) for i, up in enumerate(above)]


def scattered(n: int) -> Graph:
    """Each task waits for up to three of the hundred before it."""
    draw = random.Random(n)
    return [
        tuple(sorted({draw.randrange(max(0, i - 100), i) for _ in range(draw.randint(0, 3))}))
        if i
        else ()
        for i in range(n)
    ]


SHAPES = {"wide": wide, "chain": chain, "lattice": lattice, "random": scattered}


async def nothing(inputs: list[int] | None = None) -> int:
    """Do nothing."""
    return 0


# --- by hand, and this engine ---------------------------------------------------------------------


def bare(graph: Graph) -> Runner:
    """In-degree counters and one asyncio task per call."""

    async def main() -> None:
        waiting = [len(deps) for deps in graph]
        users: list[list[int]] = [[] for _ in graph]
        for i, deps in enumerate(graph):
            for dep in deps:
                users[dep].append(i)
        results: list[Any] = [None] * len(graph)
        remaining = len(graph)
        loop = asyncio.get_running_loop()
        all_done = loop.create_future()
        running: set[asyncio.Task[None]] = set()

        async def call(i: int) -> None:
            nonlocal remaining
            results[i] = await nothing([results[dep] for dep in graph[i]])
            remaining -= 1
            if not remaining:
                all_done.set_result(None)
            for user in users[i]:
                waiting[user] -= 1
                if not waiting[user]:
                    start(user)

        def start(i: int) -> None:
            task = loop.create_task(call(i))
            running.add(task)
            task.add_done_callback(running.discard)

        for i, deps in enumerate(graph):
            if not deps:
                start(i)
        await all_done

    return lambda: asyncio.run(main())


NOTHING = tool(nothing)


def tasks_of(graph: Graph) -> list[Task]:
    """The graph as tasks of a plan."""
    return [
        Task(id=i + 1, tool="nothing", args=(inputs_of(deps),) if deps else ())
        for i, deps in enumerate(graph)
    ]


def inputs_of(deps: Iterable[int]) -> ListExpr:
    """The list of the results of ``deps``."""
    return ListExpr(items=tuple(Reference(task=dep + 1) for dep in deps))


async def drive(tasks: list[Task], store: RunStore | None, *, listens: bool = False) -> Engine:
    """Run the tasks; with a store, under its log and with a listener."""
    event_names: list[str] = []
    log = store.begin(f"run-{time.time_ns()}") if store is not None else None
    listens = listens or store is not None
    listeners = (lambda event: event_names.append(type(event).__name__),) if listens else ()
    engine = Engine(
        "run",
        tools={"nothing": NOTHING},
        executor=LocalExecutor(),
        journal=Journal(asyncio.get_running_loop().time, log, listeners),
        budget=RunBudget(Limits()),
        inputs={},
    )
    engine.add(1, tasks)
    await engine.wait_idle()
    assert all(event_names.status == "done" for event_names in engine.observations.values())
    return engine


def engine(graph: Graph) -> Runner:
    """This engine without a log."""
    tasks = tasks_of(graph)
    return lambda: asyncio.run(drive(tasks, None))


def events(graph: Graph) -> Runner:
    """This engine without a log, with a listener of every event."""
    tasks = tasks_of(graph)
    return lambda: asyncio.run(drive(tasks, None, listens=True))


def logged(graph: Graph) -> Runner:
    """This engine with its log in a file, and a listener."""
    tasks = tasks_of(graph)

    folder = tempfile.TemporaryDirectory()
    store = RunStore(Path(folder.name) / "runs.sqlite")

    def run() -> None:
        assert folder  # keeps the folder alive: it is deleted with its last reference
        asyncio.run(drive(tasks, store))

    return run


# --- other projects' engines ----------------------------------------------------------------------


def langgraph(graph: Graph) -> Runner:
    """LangGraph: a node for each task, with edges from its dependencies."""
    from langgraph.graph import END, START, StateGraph
    from typing_extensions import TypedDict

    class State(TypedDict):
        pass

    async def node(state: Any) -> dict[str, Any]:
        await nothing()
        return {}

    builder = StateGraph(State)
    has_users = {dep for deps in graph for dep in deps}
    for i in range(len(graph)):
        builder.add_node(str(i), node)
    for i, deps in enumerate(graph):
        if deps:
            builder.add_edge([str(dep) for dep in deps], str(i))
        else:
            builder.add_edge(START, str(i))
        if i not in has_users:
            builder.add_edge(str(i), END)
    compiled = builder.compile()
    config: Any = {"recursion_limit": len(graph) + 10}
    return lambda: asyncio.run(compiled.ainvoke({}, config))


def pydantic_graph(graph: Graph) -> Runner | None:
    """pydantic-graph: a step mapped over a list, or a line of steps."""
    from pydantic_graph import GraphBuilder, StepContext, reduce_list_append

    n = len(graph)
    if graph == wide(n):
        builder = GraphBuilder(output_type=list[int])

        @builder.step
        async def numbers(ctx: StepContext[None, None, None]) -> list[int]:
            return list(range(n))

        @builder.step
        async def run_step(ctx: StepContext[None, None, int]) -> int:
            return await nothing()

        join = builder.join(reduce_list_append, initial_factory=list)
        builder.add(
            builder.edge_from(builder.start_node).to(numbers),
            builder.edge_from(numbers).map().to(run_step),
            builder.edge_from(run_step).to(join),
            builder.edge_from(join).to(builder.end_node),
        )
    elif graph == chain(n):
        builder = GraphBuilder(output_type=int)

        async def run_step(ctx: StepContext[None, None, Any]) -> int:
            return await nothing()

        steps = [builder.step(run_step, node_id=f"step-{i}") for i in range(n)]
        builder.add(
            builder.edge_from(builder.start_node).to(steps[0]),
            *(builder.edge_from(a).to(b) for a, b in itertools.pairwise(steps)),
            builder.edge_from(steps[-1]).to(builder.end_node),
        )
    else:
        return None
    built = builder.build()
    return lambda: asyncio.run(built.run())


def llama_index(graph: Graph) -> Runner | None:
    """LlamaIndex Workflows: one step that gets an event for each task."""
    from workflows import Context, Workflow, step
    from workflows.events import Event, StartEvent, StopEvent

    n = len(graph)

    class Next(Event):
        number: int

    class Done(Event):
        pass

    class Wide(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Next | None:
            for i in range(n):
                ctx.send_event(Next(number=i))
            return None

        @step(num_workers=n)
        async def one(self, ev: Next) -> Done:
            await nothing()
            return Done()

        @step
        async def end(self, ctx: Context, ev: Done) -> StopEvent | None:
            if ctx.collect_events(ev, [Done] * n) is None:
                return None
            return StopEvent(result=n)

    class Chain(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Next:
            return Next(number=0)

        @step
        async def one(self, ev: Next) -> Next | StopEvent:
            await nothing()
            return Next(number=ev.number + 1) if ev.number < n - 1 else StopEvent(result=n)

    # The annotations are strings here, and the library looks the classes up in the module.
    globals().update(Next=Next, Done=Done, Context=Context, StartEvent=StartEvent)
    globals().update(StopEvent=StopEvent)
    if graph == wide(n):
        kind: type[Workflow] = Wide
    elif graph == chain(n):
        kind = Chain
    else:
        return None

    async def main() -> None:
        await kind(timeout=None).run()

    return lambda: asyncio.run(main())


def dask(graph: Graph) -> Runner:
    """Dask's scheduler with threads."""
    from dask.threaded import get

    def call(*inputs: int) -> int:
        return 0

    tasks = {i: (call, *deps) for i, deps in enumerate(graph)}
    keys = list(range(len(graph)))
    return lambda: get(tasks, keys)


def ray(graph: Graph) -> Runner:
    """Ray: a remote function, called with the references of its dependencies."""
    import ray

    if not ray.is_initialized():
        ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)

    @ray.remote
    def call(*inputs: int) -> int:
        return 0

    def run() -> None:
        refs: list[Any] = []
        for deps in graph:
            refs.append(call.remote(*(refs[dep] for dep in deps)))
        ray.get(refs)

    return run


SYSTEMS: dict[str, tuple[Callable[[Graph], Runner | None], str]] = {
    "bare": (bare, "asyncio"),
    "engine": (engine, "llmcompiler"),
    "events": (events, "llmcompiler"),
    "logged": (logged, "llmcompiler"),
    "pydantic-graph": (pydantic_graph, "pydantic_graph"),
    "langgraph": (langgraph, "langgraph"),
    "llama-index": (llama_index, "workflows"),
    "dask": (dask, "dask"),
    "ray": (ray, "ray"),
}
"""The measured systems, and the module that each needs."""


# --- measuring ------------------------------------------------------------------------------------


def microseconds(run: Runner, n: int, clock: Callable[[], float]) -> float:
    """Microseconds per task of one run."""
    gc.collect()
    started_at = clock()
    run()
    return (clock() - started_at) * 1e6 / n


def measure(
    shape: str,
    sizes: list[int],
    names: list[str],
    rounds: int,
    patience: float,
    clock: Callable[[], float],
) -> None:
    """Print a line for each size and system."""
    too_slow: set[str] = set()
    latest: dict[str, float] = {}
    for n in sizes:
        graph = SHAPES[shape](n)
        runners: dict[str, Runner] = {}
        for name in names:
            if name in too_slow or latest.get(name, 0.0) * n / 1e6 > patience:
                too_slow.add(name)
            elif (runner := SYSTEMS[name][0](graph)) is not None:
                runners[name] = runner
        shortest = dict.fromkeys(runners, math.inf)
        for _ in range(rounds):
            for name, runner in runners.items():
                shortest[name] = min(shortest[name], microseconds(runner, n, clock))
        latest.update(shortest)
        base = shortest.get("bare", math.nan)
        for name, cost in shortest.items():
            print(f"{shape:8} {n:7,} {name:15} {cost:9.1f} us {cost / base:7.1f} x", flush=True)


def memory(shape: str, n: int) -> None:
    """Print the bytes per task that a run keeps, and its peak; the plan is not counted."""
    graph = SHAPES[shape](n)
    tasks = tasks_of(graph)
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(Path(folder) / "runs.sqlite")

        def logged_run() -> Engine:
            return asyncio.run(drive(tasks, store))

        measured = {
            "bare": bare(graph),
            "engine": lambda: asyncio.run(drive(tasks, None)),
            "logged": logged_run,
        }
        for name, run in measured.items():
            gc.collect()
            tracemalloc.start()
            result = run()
            gc.collect()
            now, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            del result
            print(f"{shape:8} {n:7,} {name:15} {now / n:7.0f} B kept {peak / n:7.0f} B at most")
        store.close()


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description="microseconds a task of DAGs of no-op tools")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience", type=float, default=10.0)
    parser.add_argument("--cpu", action="store_true", help="the process's time, for busy machines")
    parser.add_argument("--memory", action="store_true", help="bytes a task instead of time")
    options = parser.parse_args()
    missing = [name for name in options.only if importlib.util.find_spec(SYSTEMS[name][1]) is None]
    if missing:
        print(f"not installed, so not measured: {', '.join(missing)}", file=sys.stderr)
    names = [name for name in options.only if name not in missing]
    for shape in options.shapes:
        if options.memory:
            for n in options.sizes:
                memory(shape, n)
        else:
            clock = time.process_time if options.cpu else time.perf_counter
            measure(shape, options.sizes, names, options.rounds, options.patience, clock)


if __name__ == "__main__":
    main()
