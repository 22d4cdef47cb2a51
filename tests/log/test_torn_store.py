"""A store that was cut or changed on its disk returns what was written, or refuses.

The files of a run are cut at each boundary of 512 bytes, and have bits flipped at random places:
once with the commits still in the write-ahead log, and once with all of them in the main file. A
read then returns a prefix of the run's events, unchanged, or raises a ``LogError``.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmcompiler.errors import LogError
from llmcompiler.events import Event, TaskFinished
from llmcompiler.log.store import RunStore
from tests.support.stories import dense_japan, troubled

RUNS = {"0123456789": dense_japan(), "9876543210": troubled()}
SAMPLE = 60
SLOW_SAMPLE = 3_000


@dataclass(frozen=True)
class Damage:
    """A change of one file: a cut to a length, or flipped bits in a byte."""

    where: str
    suffix: str
    length: int | None = None
    place: int = 0
    mask: int = 0

    def apply(self, folder: Path) -> None:
        file = folder / f"runs.sqlite{self.suffix}"
        data = bytearray(file.read_bytes())
        if self.length is not None:
            del data[self.length :]
        else:
            data[self.place] ^= self.mask
        file.write_bytes(data)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Copies of one store: all in its write-ahead log, half of it there, and all in its file."""
    live = tmp_path_factory.mktemp("live")
    copies = {}
    store = RunStore(live / "runs.sqlite")
    for run, events in RUNS.items():
        log = store.begin(run)
        for position in range(0, len(events), 3):
            log.append(events[position : position + 3])
        log.append([big(number) for number in range(8)])
        log.close()
        copy = tmp_path_factory.mktemp("copy")
        shutil.copytree(live, copy, dirs_exist_ok=True)
        (copy / "runs.sqlite-shm").unlink()
        copies[f"log {len(copies)}"] = copy
        with closing(sqlite3.connect(store.path)) as db:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")
    store.close()
    copies["file"] = live
    assert (copies["log 0"] / "runs.sqlite-wal").stat().st_size > 10_000
    assert [path.name for path in live.iterdir()] == ["runs.sqlite"]
    return copies


def big(number: int) -> Event:
    return TaskFinished(3.0, 100 + number, (), f"{number} " * 900, 0.1)


def truth(run: str) -> list[Event]:
    return [*RUNS[run], *(big(number) for number in range(8))]


def cuts(stores: dict[str, Path]) -> Iterator[Damage]:
    for where, suffix, size in files(stores):
        for length in range(0, size, 512):
            yield Damage(where, suffix, length=length)


def flips(stores: dict[str, Path], number: int) -> Iterator[Damage]:
    generator = random.Random(number)
    choices = list(files(stores))
    for _ in range(number):
        where, suffix, size = generator.choice(choices)
        mask = generator.choice((1 << generator.randrange(8), generator.randrange(1, 256)))
        yield Damage(where, suffix, place=generator.randrange(size), mask=mask)


def files(stores: dict[str, Path]) -> Iterator[tuple[str, str, int]]:
    for where, folder in stores.items():
        for suffix in ("", "-wal"):
            file = folder / f"runs.sqlite{suffix}"
            if file.exists() and file.stat().st_size:
                yield where, suffix, file.stat().st_size


def verdict_on(stores: dict[str, Path], damage: Damage, scratch: Path) -> str:
    """``complete``, ``prefix`` or ``refused``: the result of reading all of a damaged store."""
    folder = scratch / "store"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(stores[damage.where], folder)
    damage.apply(folder)
    try:
        store = RunStore(folder / "runs.sqlite")
    except LogError:
        return "refused"
    verdicts = {read(store, run, damage) for run in RUNS}
    summaries = listing(store)
    assert summaries is None or {
        summary.run for summary in summaries if summary.status != "damaged"
    } <= {
        *RUNS,
        *(summary.run for summary in summaries if summary.question is None and summary.tasks == 0),
    }, damage
    store.close()
    return max(verdicts, key=("complete", "prefix", "refused").index)


def read(store: RunStore, run: str, damage: Damage) -> str:
    events: list[Event] = []
    try:
        for event in store.events(run):
            events.append(event)  # noqa: PERF402 (events before an error count as well)
        verdict = "complete" if len(events) == len(truth(run)) else "prefix"
    except LogError:
        verdict = "refused"
    assert events == truth(run)[: len(events)], damage
    return verdict


def listing(store: RunStore) -> list[Any] | None:
    try:
        return list(store.runs())
    except LogError:
        return None


def test_an_unchanged_store_is_whole(stores: dict[str, Path], tmp_path: Path) -> None:
    unchanged = Damage("file", "", place=0, mask=0)
    assert verdict_on(stores, unchanged, tmp_path) == "complete"


def test_a_store_cut_or_flipped_anywhere_never_lies(
    stores: dict[str, Path], tmp_path: Path
) -> None:
    sample = random.Random(0).sample(list(cuts(stores)), SAMPLE)
    verdicts = Counter(
        verdict_on(stores, damage, tmp_path) for damage in (*sample, *flips(stores, SAMPLE))
    )
    assert verdicts["prefix"] and verdicts["refused"], "both ends of the promise were tried"


@pytest.mark.slow
def test_a_store_cut_at_every_boundary_never_lies(stores: dict[str, Path], tmp_path: Path) -> None:
    verdicts = Counter(verdict_on(stores, damage, tmp_path) for damage in cuts(stores))
    assert verdicts["prefix"] and verdicts["refused"]


@pytest.mark.slow
def test_a_store_with_bits_flipped_never_lies(stores: dict[str, Path], tmp_path: Path) -> None:
    verdicts = Counter(
        verdict_on(stores, damage, tmp_path) for damage in flips(stores, SLOW_SAMPLE)
    )
    print(verdicts)  # noqa: T201
    assert sum(verdicts.values()) == SLOW_SAMPLE
    assert verdicts["prefix"] and verdicts["refused"]
