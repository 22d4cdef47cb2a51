"""A pytest plugin: a test that leaves an asyncio task or a thread behind fails, and says which.

A task is left behind if it is still pending when its event loop is closed: ``asyncio.run`` would
cancel it without a word. A thread, if it lives on after the test and a short time to end. Tests of
the embedded model are exempt: its server lives as long as the process.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator

import pytest

_TIME_TO_END_S = 5.0

_OF_THE_PROCESS = frozenset({"tqdm_monitor", "PythonGCThread", "ray_listen_error_messages"})
"""Threads that libraries start once and keep: progress bars, also those that are not shown; a
connection to a Ray cluster, which a module of tests shares."""


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest of the marker."""
    config.addinivalue_line("markers", "leaves_tasks: means to leave asyncio tasks behind")


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail the test if anything of it lives on."""
    if request.node.get_closest_marker("model"):
        yield
        return
    tasks: list[str] = []
    cancel_all = asyncio.runners._cancel_all_tasks  # type: ignore[attr-defined]

    def noticed(loop: asyncio.AbstractEventLoop) -> None:
        for task in asyncio.all_tasks(loop):
            # Anything else is the loop's own: it closes an async generator that was collected.
            if inspect.iscoroutine(task.get_coro()):
                tasks.append(f"task {task.get_name()}: {task.get_coro()}")
        cancel_all(loop)

    monkeypatch.setattr(asyncio.runners, "_cancel_all_tasks", noticed)
    before = set(threading.enumerate())
    yield
    threads = [
        thread
        for thread in threading.enumerate()
        if thread not in before and thread.name not in _OF_THE_PROCESS
    ]
    for thread in threads:
        thread.join(_TIME_TO_END_S)
    left = tasks + [f"thread {thread.name}" for thread in threads if thread.is_alive()]
    if left and not request.node.get_closest_marker("leaves_tasks"):
        pytest.fail("left behind: " + "; ".join(left), pytrace=False)
