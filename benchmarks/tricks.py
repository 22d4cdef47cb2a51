"""What each trick of ``llmcompiler/speed.py`` is worth.

    python benchmarks/tricks.py

Each trick is measured against its plain equivalent in two cases: the operation that it serves by
itself, and the same operation where a run needs it. A constructor is needed where a journal tells a
listener of an event, an encoder where a store keeps one. The events are those of a thousand tasks:
planned, started, finished.

Both variants take turns in one process. A figure is the best of ``--rounds`` turns, in nanoseconds
an event on the process's clock. The share is what the trick saves of the plain variant's time.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from llmcompiler.events import EVENTS, Event, TaskFinished, TaskPlanned, TaskStarted
from llmcompiler.log import codec
from llmcompiler.log.journal import Journal
from llmcompiler.log.store import RunStore
from llmcompiler.speed import PLAIN_CONSTRUCTORS, compiled_encoder, plain_encoder

TASKS = 1000
TASK = {"id": 1, "tool": "price", "args": ["$1", {"$ref": 2}], "kwargs": {}, "thought": None}


def emit_all(journal: Journal) -> None:
    """The events of ``TASKS`` tasks."""
    for task in range(TASKS):
        journal.emit(TaskPlanned, 1, task, TASK, (task - 1,))
        journal.emit(TaskStarted, task, (), 1, f"run/{task}", {"quantity": task})
        journal.emit(TaskFinished, task, (), task * 2.5, 0.25)


def collected() -> list[Event]:
    """The same events in a list."""
    events: list[Event] = []
    journal = Journal(time.monotonic, None, (events.append,))
    emit_all(journal)
    journal.flush()
    return events


def make_events() -> None:
    """Make the events, and nothing else."""
    for task in range(TASKS):
        TaskPlanned(0.5, 1, task, TASK, (task - 1,))
        TaskStarted(0.5, task, (), 1, "run/1", {"quantity": task})
        TaskFinished(0.5, task, (), task * 2.5, 0.25)


def tell_listener() -> None:
    """Make the events and hand them to a listener."""
    journal = Journal(time.monotonic, None, (lambda event: None,))
    emit_all(journal)
    journal.flush()


def encode_events(events: list[Event]) -> None:
    """Encode the events as rows hold them."""
    for event in events:
        codec.body_of(event, (), {})


class Keeper:
    """Makes the events and writes them to a file of runs, each time as another run."""

    def __init__(self, directory: Path) -> None:
        self._store = RunStore(directory / "runs.sqlite")
        self._runs = 0

    def keep_events(self) -> None:
        """Write one run."""
        self._runs += 1
        log = self._store.begin(f"run-{self._runs}")
        journal = Journal(time.monotonic, log)
        emit_all(journal)
        journal.flush()
        log.close()


@contextmanager
def plain_constructors() -> Iterator[None]:
    """Events are made by the constructors that dataclasses have."""
    fast = {kind: kind.__init__ for kind in EVENTS.values()}
    for kind in EVENTS.values():
        setattr(kind, "__init__", PLAIN_CONSTRUCTORS[kind])  # noqa: B010
    yield
    for kind, constructor in fast.items():
        setattr(kind, "__init__", constructor)  # noqa: B010


@contextmanager
def plain_encoders() -> Iterator[None]:
    """Events are encoded by a loop over their fields."""
    for kind in EVENTS.values():
        codec._ENCODERS[kind] = plain_encoder(kind, kind.VALUES, codec._value_or_hash)
    yield
    for kind in EVENTS.values():
        codec._ENCODERS[kind] = compiled_encoder(kind, kind.VALUES, codec._value_or_hash)


def seconds(work: Callable[[], None]) -> float:
    """Processor time of one call."""
    gc.collect()
    gc.disable()
    start = time.process_time()
    work()
    end = time.process_time()
    gc.enable()
    return end - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    events = collected()
    with tempfile.TemporaryDirectory() as directory:
        keeper = Keeper(Path(directory))
        cases = [
            ("slot constructor", "make an event", plain_constructors, make_events),
            ("slot constructor", "tell a listener", plain_constructors, tell_listener),
            ("compiled encoder", "encode an event", plain_encoders, lambda: encode_events(events)),
            ("compiled encoder", "keep an event", plain_encoders, keeper.keep_events),
        ]
        print(f"{'trick':18} {'case':18} {'with':>8} {'plain':>8} {'saves':>7}")
        for trick, case, plainly, work in cases:
            fast, plain = [], []
            for _ in range(rounds):
                fast.append(seconds(work))
                with plainly():
                    plain.append(seconds(work))
            quick, slow = (1e9 * min(times) / len(events) for times in (fast, plain))
            print(f"{trick:18} {case:18} {quick:5.0f} ns {slow:5.0f} ns {1 - quick / slow:7.0%}")


if __name__ == "__main__":
    main()
