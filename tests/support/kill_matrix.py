"""Kills real processes with SIGKILL at every point of runs of several shapes, and resumes them.

A server process imports everything once and forks a child for each run, so a kill costs
milliseconds. Effects are counted in a file that the tools append to, apart from the log.

    python -m tests.support.kill_matrix [--cases N] [--seed S]
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
from llmcompiler.limits import Limits
from llmcompiler.log.store import RunLog, RunStore
from llmcompiler.testing.doubles import run_virtual
from tests.support.world import SHAPES, World


@dataclass(frozen=True)
class Variant:
    """How a run goes: its plan, the size of the planner's pieces, its slots."""

    shape: str
    chunk: int
    slots: int | None


@dataclass(frozen=True)
class Point:
    """Where a process dies: before or after its n-th ``append`` or ``effect``."""

    what: str
    number: int
    after: bool


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class FileWorld(World):
    """A world that writes its effects to a file, and may die over one."""

    def __init__(self, variant: Variant, folder: Path, point: Point | None) -> None:
        super().__init__(SHAPES[variant.shape], variant.chunk)
        self._file = os.open(folder / "effects", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._point = point
        self._count = 0

    def effect(self, key: str) -> None:
        self._count += 1
        point = self._point
        here = point is not None and (point.what, point.number) == ("effect", self._count)
        if here and point is not None and not point.after:
            die()
        os.write(self._file, f"{key}\n".encode())
        if here:
            die()


def run_once(variant: Variant, folder: Path, point: Point | None, resume: bool) -> None:
    """Run, or resume, in this process; the result goes to a file."""
    world = FileWorld(variant, folder, point)
    append, count = RunLog.append, 0

    def deadly(log: RunLog, events: Sequence[Event]) -> None:
        nonlocal count
        count += 1
        here = point is not None and (point.what, point.number) == ("append", count)
        if here and point is not None and not point.after:
            die()
        append(log, events)
        if here:
            die()

    RunLog.append = deadly  # type: ignore[method-assign]

    async def main() -> None:
        limits = Limits(concurrency=variant.slots)
        made = LLMCompiler(
            world.tools(),
            world.model(),
            store=folder / "runs.sqlite",
            limits=limits,
            approver=world.approve,
        )
        result = await (made.resume("last") if resume else made.run("what?"))
        seen = {i: [s.status, s.value] for i, s in result.observations.items()}
        text = json.dumps({"answer": result.answer, "seen": seen, "appends": count})
        (folder / "result.json").write_text(text)

    run_virtual(main())


def in_child(work: Callable[[], None]) -> int:
    """Do ``work`` in a forked process; its wait status."""
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
        beyond: calls that ran again though they had not been in flight.
        different: runs whose answer or values were not those of the calm run.
        stuck: resumed processes that did not end well.
    """

    kills: int = 0
    repeated: int = 0
    beyond: int = 0
    different: int = 0
    stuck: int = 0

    @property
    def faults(self) -> int:
        return self.repeated + self.beyond + self.different + self.stuck


def points(variant: Variant) -> tuple[list[Point], dict[str, Any]]:
    """Every point of a calm run, and its result."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assert in_child(lambda: run_once(variant, folder, None, False)) == 0
        calm = json.loads((folder / "result.json").read_text())
        effects = len((folder / "effects").read_text().split())
    found = [Point("append", n, after) for n in range(1, calm["appends"]) for after in (0, 1)]
    found += [Point("effect", n, after) for n in range(1, effects + 1) for after in (0, 1)]
    return found, calm


def kill_and_resume(variant: Variant, point: Point, calm: dict[str, Any], totals: Totals) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        status = in_child(lambda: run_once(variant, folder, point, False))
        if not os.WIFSIGNALED(status):
            return
        totals.kills += 1
        before = Counter((folder / "effects").read_text().split())
        recorded, in_flight = what_is_recorded(folder / "runs.sqlite")
        if in_child(lambda: run_once(variant, folder, None, bool(recorded is not None))) != 0:
            totals.stuck += 1
            print("stuck", variant, point, flush=True)
            return
        after = Counter((folder / "effects").read_text().split())
        result = json.loads((folder / "result.json").read_text())
        again = {key for key in before if after[key] > before[key]}
        totals.repeated += len(again & (recorded or set()))
        totals.beyond += len(again - in_flight)
        totals.beyond += sum(after[key] - before[key] - 1 for key in again)
        if (result["answer"], result["seen"]) != (calm["answer"], calm["seen"]):
            totals.different += 1
            print("different", variant, point, result, flush=True)


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


def matrix(cases: int | None, seed: int) -> Totals:
    """Kill at ``cases`` points drawn at random, or at every point there is."""
    everything: list[tuple[Variant, Point, dict[str, Any]]] = []
    for variant in variants():
        found, calm = points(variant)
        everything += [(variant, point, calm) for point in found]
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
    given = parser.parse_args()
    totals = matrix(given.cases, given.seed)
    print(json.dumps(vars(totals)))
    raise SystemExit(1 if totals.faults else 0)


if __name__ == "__main__":
    main()
