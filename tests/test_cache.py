"""Results that serve later runs: which, for how long, and why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmcompiler import LLMCompiler, parse_plan, replay_run
from llmcompiler.cache import Hit, Miss, ResultCache
from llmcompiler.errors import UsageError
from llmcompiler.events import CacheMissed, Event, TaskFinished
from llmcompiler.testing import run_virtual
from llmcompiler.tools.base import Tool, tool

CALLS: list[str] = []


def made(seconds: float | None = 60, version: str = "1") -> Tool:
    @tool(cache=seconds, version=version)
    async def fetch(key: str) -> dict[str, Any]:
        """Fetch a record."""
        CALLS.append(key)
        return {"key": key, "n": len(CALLS)}

    return fetch


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


def run(used: Tool, cache: ResultCache | Path | None, key: str = "a") -> tuple[Any, list[Event]]:
    events: list[Event] = []

    async def main() -> Any:
        compiler = LLMCompiler([used], store=":memory:", cache=cache)
        result = await compiler.execute(
            parse_plan(f'1. fetch("{key}")\n2. join()'), on_event=events.append
        )
        await replay_run(compiler.store, result.run)
        return result.value

    return run_virtual(main()), events


def test_a_later_run_gets_the_result_without_a_call_and_its_log_says_so(tmp_path: Path) -> None:
    first, _ = run(made(), tmp_path / "cache.sqlite")
    second, events = run(made(), tmp_path / "cache.sqlite")
    assert first == second == {"key": "a", "n": 1}
    assert CALLS == ["a"]
    assert [event.cached for event in events if isinstance(event, TaskFinished)] == [True]


def test_nothing_is_kept_unless_the_tool_and_the_caller_say_so(tmp_path: Path) -> None:
    run(made(None), tmp_path / "cache.sqlite")
    run(made(None), tmp_path / "cache.sqlite")
    run(made(), None)
    run(made(), None)
    assert len(CALLS) == 4


def test_a_look_that_finds_nothing_says_why() -> None:
    now = 1000.0
    cache = ResultCache(":memory:", clock=lambda: now)
    assert cache.look(made(), {"key": "a"}) == Miss(
        "fetch was not called with these arguments before"
    )
    cache.keep(made(), {"key": "a"}, 5)
    assert cache.look(made(), {"key": "a"}) == Hit(5, 0.0)
    assert isinstance(cache.look(made(), {"key": "b"}), Miss)
    assert cache.look(made(version="2"), {"key": "a"}) == Miss(
        "fetch has changed since the result was kept"
    )
    now += 61
    assert cache.look(made(), {"key": "a"}) == Miss("the result is 61 s old and serves for 60 s")
    cache.close()


def test_the_run_tells_why_a_tool_was_called_nevertheless() -> None:
    cache = ResultCache(":memory:")
    run(made(), cache)
    _, events = run(made(version="2"), cache)
    assert [event.why for event in events if isinstance(event, CacheMissed)] == [
        "fetch has changed since the result was kept"
    ]
    cache.close()


def test_a_tool_that_writes_cannot_be_cached() -> None:
    with pytest.raises(UsageError, match="cannot be cached"):

        @tool(effect="write", cache=60)
        def pay(amount: int) -> None: ...
