"""Kills real processes with SIGKILL at every point of runs of several shapes, and resumes them.

A server process imports everything once and forks a child for each run, so a kill costs
milliseconds. Effects are counted in a file that the tools append to, apart from the log.

    python -m tests.support.kill_matrix [--of plans|programs] [--cases N] [--seed S]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmcompiler.compiler import LLMCompiler
from llmcompiler.events import (
    ApprovalAsked,
    ApprovalGiven,
    Event,
    TaskFailed,
    TaskFinished,
    TaskStarted,
)
from llmcompiler.history.replay import replay
from llmcompiler.limits import Limits
from llmcompiler.log.store import RunLog, RunStore
from llmcompiler.testing.doubles import run_virtual
from tests.support.world import PROGRAMS, SHAPES, World


@dataclass(frozen=True)
class Variant:
    """How a run goes.

    Attributes:
        shape: the name of its plan or program.
        chunk: the size of the planner's pieces; ``None`` for a program that is executed as it is.
        slots: how many calls may run at once.
    """

    shape: str
    chunk: int | None
    slots: int | None

    @property
    def is_program(self) -> bool:
        return self.shape in PROGRAMS


@dataclass(frozen=True)
class Point:
    """Where a process dies: before or after its n-th ``append`` or ``effect``."""

    what: str
    number: int
    after: bool


def die_at(point: Point | None, reached: Point) -> None:
    """Kill this process if it has reached the point."""
    if point == reached:
        os.kill(os.getpid(), signal.SIGKILL)


class FileWorld(World):
    """A world that writes its effects to a file, and dies at a point."""

    def __init__(self, variant: Variant, folder: Path, point: Point | None) -> None:
        plans = [PROGRAMS[variant.shape]] if variant.is_program else SHAPES[variant.shape]
        super().__init__(plans, variant.chunk or 0)
        mode = os.O_CREAT | os.O_WRONLY | os.O_APPEND
        self._file = os.open(folder / "effects", mode)
        self._writes = os.open(folder / "writes", mode)
        self._point = point
        self._count = 0

    def effect(self, key: str) -> None:
        self._count += 1
        die_at(self._point, Point("effect", self._count, after=False))
        os.write(self._file, f"{key}\n".encode())
        die_at(self._point, Point("effect", self._count, after=True))

    def written(self, key: str) -> None:
        os.write(self._writes, f"{key}\n".encode())
        self.effect(key)


def run_once(variant: Variant, folder: Path, point: Point | None, how: str) -> None:
    """Run, or resume, in this process; the result goes to a file."""
    world = FileWorld(variant, folder, point)
    append, count = RunLog.append, 0

    def deadly(log: RunLog, events: Sequence[Event]) -> None:
        nonlocal count
        count += 1
        die_at(point, Point("append", count, after=False))
        append(log, events)
        die_at(point, Point("append", count, after=True))

    RunLog.append = deadly  # type: ignore[method-assign]

    async def main() -> None:
        limits = Limits(concurrency=variant.slots)
        agent = LLMCompiler(
            world.tools(),
            world.model(),
            store=folder / "runs.sqlite",
            limits=limits,
            approver=world.approve,
            planner="python" if variant.is_program else "text",
        )
        if how == "resume":
            result = await agent.resume("last")
        elif variant.chunk is None:
            result = await agent.execute(world.plans[0])
        else:
            result = await agent.run("what?")
        observations = {i: [s.status, s.value] for i, s in result.observations.items()}
        outcome = {
            "status": result.status,
            "answer": result.answer,
            "value": result.value,
            "failure": result.failure and result.failure.message,
            "observations": observations,
        }
        (folder / "result.json").write_text(json.dumps({"outcome": outcome, "appends": count}))

    run_virtual(main())


def in_child(work: Callable[[], None]) -> int:
    """Do ``work`` in a forked process, and give its wait status."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


@dataclass
class Totals:
    """What the matrix found.

    Attributes:
        kills: processes that died of SIGKILL.
        repeated: recorded calls that ran again.
        beyond: calls that ran again although they were not in flight.
        different: runs whose answer or values were not those of the calm run.
        disordered: runs of a program whose writes came in another order than in the calm run.
        unreplayed: resumed runs that cannot be replayed, or come out differently.
        stuck: resumed processes that did not end well.
    """

    kills: int = 0
    repeated: int = 0
    beyond: int = 0
    different: int = 0
    disordered: int = 0
    unreplayed: int = 0
    stuck: int = 0

    @property
    def faults(self) -> int:
        return sum(vars(self).values()) - self.kills


def lines_of(path: Path) -> list[str]:
    return path.read_text().split()


def order_of_writes(folder: Path) -> list[str]:
    """The calls that write, in order; one that was in flight at the kill counts once."""
    return list(dict.fromkeys(lines_of(folder / "writes")))


def points(variant: Variant) -> tuple[list[Point], dict[str, Any]]:
    """Every point of a calm run, and its result."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assert in_child(lambda: run_once(variant, folder, None, "run")) == 0
        calm = json.loads((folder / "result.json").read_text())
        calm["writes"] = order_of_writes(folder)
        effects = len(lines_of(folder / "effects"))
    places = [("append", n) for n in range(1, calm["appends"])]
    places += [("effect", n) for n in range(1, effects + 1)]
    all_points = [Point(what, n, after) for what, n in places for after in (False, True)]
    return all_points, calm


def kill_and_resume(variant: Variant, point: Point, calm: dict[str, Any], totals: Totals) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        status = in_child(lambda: run_once(variant, folder, point, "run"))
        if not os.WIFSIGNALED(status):
            return
        totals.kills += 1
        before = Counter(lines_of(folder / "effects"))
        recorded, in_flight = what_is_recorded(folder / "runs.sqlite")
        how = "run" if recorded is None else "resume"
        if in_child(lambda: run_once(variant, folder, None, how)) != 0:
            totals.stuck += 1
            print("stuck", variant, point, flush=True)
            return
        after = Counter(lines_of(folder / "effects"))
        outcome = json.loads((folder / "result.json").read_text())["outcome"]
        repeated_keys = {key for key in before if after[key] > before[key]}
        totals.repeated += len(repeated_keys & (recorded or set()))
        totals.beyond += len(repeated_keys - in_flight)
        totals.beyond += sum(after[key] - before[key] - 1 for key in repeated_keys)
        if outcome != calm["outcome"]:
            totals.different += 1
            print("different", variant, point, outcome, flush=True)
        if variant.is_program and order_of_writes(folder) != calm["writes"]:
            totals.disordered += 1
            print("disordered", variant, point, order_of_writes(folder), flush=True)
        if in_child(lambda: replay_last(folder)) != 0:
            totals.unreplayed += 1
            print("unreplayed", variant, point, flush=True)


def replay_last(folder: Path) -> None:
    """Replay the run in the folder, which has no tools and no model to call."""
    store = RunStore(folder / "runs.sqlite")
    try:
        run_virtual(replay(store, "last"))
    finally:
        store.close()


def what_is_recorded(path: Path) -> tuple[set[str] | None, set[str]]:
    """Calls and approvals whose end is recorded, and those in flight; ``None`` without a run."""
    store = RunStore(path)
    try:
        runs = store.runs()
        if not runs:
            return None, set()
        events = list(store.events(runs[0].run))
    finally:
        store.close()
    if not events:
        return None, set()
    started = {key(e) for e in events if isinstance(e, TaskStarted | ApprovalAsked)}
    ended = {key(e) for e in events if isinstance(e, TaskFinished | TaskFailed | ApprovalGiven)}
    return ended, started - ended


def key(event: TaskStarted | TaskFinished | TaskFailed | ApprovalAsked | ApprovalGiven) -> str:
    role = ("ask",) if isinstance(event, ApprovalAsked | ApprovalGiven) else ()
    return "/".join(map(str, (*role, event.task, *event.index)))


def variants() -> Iterator[Variant]:
    for shape in SHAPES:
        for chunk in (1, 3, 7, 200):
            for slots in (None, 1, 2):
                yield Variant(shape, chunk, slots)


def program_variants() -> Iterator[Variant]:
    for shape in PROGRAMS:
        # A program of the planner's that fails is followed by another.
        for chunk in (None,) if shape == "a failure" else (None, 3, 200):
            for slots in (None, 1):
                yield Variant(shape, chunk, slots)


MATRICES = {"plans": variants, "programs": program_variants}


def matrix(kind: str, cases: int | None, seed: int) -> Totals:
    """Kill at ``cases`` points drawn at random, or at every point there is."""
    everything: list[tuple[Variant, Point, dict[str, Any]]] = []
    values: dict[str, Any] = {}
    for variant in MATRICES[kind]():
        variant_points, calm = points(variant)
        value = calm["outcome"]["value"]
        assert values.setdefault(variant.shape, value) == value, variant
        everything += [(variant, point, calm) for point in variant_points]
    print(f"{len(everything)} points", flush=True)
    if cases is not None:
        everything = random.Random(seed).sample(everything, min(cases, len(everything)))
    totals = Totals()
    for variant, point, calm in everything:
        kill_and_resume(variant, point, calm, totals)
    return totals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=None, help="points drawn; default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--of", choices=MATRICES, default="plans")
    arguments = parser.parse_args()
    totals = matrix(arguments.of, arguments.cases, arguments.seed)
    print(json.dumps(vars(totals)))
    raise SystemExit(1 if totals.faults else 0)


if __name__ == "__main__":
    main()
