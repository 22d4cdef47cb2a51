"""Results that serve later runs: which, for how long, and why not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmcompiler import LLMCompiler, parse_plan, replay_run
from llmcompiler.cli.app import app
from llmcompiler.errors import UsageError
from llmcompiler.events import CacheMissed, Event, TaskFinished
from llmcompiler.runtime.result_cache import Hit, Miss, ResultCache
from llmcompiler.testing.doubles import run_virtual
from llmcompiler.tools.base import Tool, tool

CALLS: list[str] = []


def make_fetch(seconds: float | None = 60, version: str = "1") -> Tool:
    @tool(cache=seconds, version=version)
    async def fetch(key: str) -> dict[str, Any]:
        """Fetch a record."""
        CALLS.append(key)
        return {"key": key, "n": len(CALLS)}

    return fetch


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


def run(fetch: Tool, cache: ResultCache | Path | None, key: str = "a") -> tuple[Any, list[Event]]:
    events: list[Event] = []

    async def main() -> Any:
        compiler = LLMCompiler([fetch], store=":memory:", cache=cache)
        result = await compiler.execute(
            parse_plan(f'1. fetch("{key}")\n2. join()'), on_event=events.append
        )
        await replay_run(compiler.store, result.run)
        return result.value

    return run_virtual(main()), events


def test_a_later_run_gets_the_result_without_a_call_and_its_log_says_so(tmp_path: Path) -> None:
    first, _ = run(make_fetch(), tmp_path / "cache.sqlite")
    second, events = run(make_fetch(), tmp_path / "cache.sqlite")
    assert first == second == {"key": "a", "n": 1}
    assert CALLS == ["a"]
    assert [event.cached for event in events if isinstance(event, TaskFinished)] == [True]


def test_nothing_is_kept_unless_the_tool_and_the_caller_say_so(tmp_path: Path) -> None:
    run(make_fetch(None), tmp_path / "cache.sqlite")
    run(make_fetch(None), tmp_path / "cache.sqlite")
    run(make_fetch(), None)
    run(make_fetch(), None)
    assert len(CALLS) == 4


NOW = [1000.0]


@pytest.fixture
def cache() -> Iterator[ResultCache]:
    """A cache that holds one result of ``fetch(key="a")``, kept just now."""
    NOW[0] = 1000.0
    cache = ResultCache(":memory:", clock=lambda: NOW[0])
    cache.keep(make_fetch(), {"key": "a"}, 5)
    yield cache
    cache.close()


def test_the_same_call_is_served(cache: ResultCache) -> None:
    assert cache.look(make_fetch(), {"key": "a"}) == Hit(5, 0.0)


def test_another_tool_has_results_of_its_own(cache: ResultCache) -> None:
    renamed = dataclasses.replace(make_fetch(), name="other")
    assert cache.look(renamed, {"key": "a"}) == Miss("no result of other is kept")


def test_a_miss_names_the_argument_that_is_new(cache: ResultCache) -> None:
    assert cache.look(make_fetch(), {"key": "b"}) == Miss(
        'fetch was called with other arguments only: key = "a", and is now "b"'
    )
    assert cache.look(make_fetch(), {"key": "a", "deep": True}) == Miss(
        "fetch was called with other arguments only: deep = left out, and is now true"
    )


def test_a_miss_tells_code_schema_model_and_age_apart(cache: ResultCache) -> None:
    def why(fetch: Tool) -> str:
        result = cache.look(fetch, {"key": "a"})
        assert isinstance(result, Miss)
        return result.why

    assert why(make_fetch(version="2")) == "the code of fetch has changed since the result was kept"
    wider = dataclasses.replace(make_fetch(), return_schema={"type": "integer"})
    assert why(wider) == "the schema of fetch has changed since the result was kept"
    asks = dataclasses.replace(make_fetch(), model="m2 temperature=0")
    assert why(asks) == "the result is of no model, and is now of m2 temperature=0"
    NOW[0] += 61
    assert why(make_fetch()) == "the result is 61 s old and serves for 60 s"


def test_the_run_tells_why_a_tool_was_called_nevertheless() -> None:
    cache = ResultCache(":memory:")
    run(make_fetch(), cache)
    _, events = run(make_fetch(version="2"), cache)
    assert [event.why for event in events if isinstance(event, CacheMissed)] == [
        "the code of fetch has changed since the result was kept"
    ]
    cache.close()


TOOLS = """
from llmcompiler import tool

@tool(cache=3600)
def fetch(key: str) -> str:
    "Fetch a record."
    return key.upper()
"""


def on_command_line(place: Path, plan: str, *options: str) -> tuple[str, list[str]]:
    """What is printed as the answer, and what is said about the cache."""
    (place / "tools.py").write_text(TOOLS)
    (place / "a.plan").write_text(plan)
    arguments = ["run", str(place / "a.plan"), "--tools", str(place / "tools.py")]
    arguments += ["--store", str(place / "runs.sqlite"), "-q", *options]
    outcome = CliRunner().invoke(app, arguments, catch_exceptions=False)
    lines = outcome.stderr.splitlines()
    return outcome.stdout.strip(), [line for line in lines if "cache" in line]


def test_the_command_line_says_what_the_cache_did(tmp_path: Path) -> None:
    explained = ("--cache", str(tmp_path / "cache.sqlite"), "--cache-explain")
    first = on_command_line(tmp_path, '1. fetch("a")', *explained)
    assert first == ("A", ["cache: task 1 was called: no result of fetch is kept"])
    second = on_command_line(tmp_path, '1. fetch("a")', *explained)
    assert second == ("A", ["cache: task 1 was served"])
    third = on_command_line(tmp_path, '1. fetch("b")', *explained)
    why = 'fetch was called with other arguments only: key = "a", and is now "b"'
    assert third == ("B", [f"cache: task 1 was called: {why}"])


def test_the_command_line_explains_only_a_cache_that_there_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--cache-explain needs a cache"):
        on_command_line(tmp_path, '1. fetch("a")', "--cache-explain")


def test_the_command_line_says_so_where_nothing_can_be_served(tmp_path: Path) -> None:
    explained = ("--tools", "calc", "--cache", str(tmp_path / "cache.sqlite"), "--cache-explain")
    _, lines = on_command_line(tmp_path, '1. calc("1 + 1")', *explained)
    assert lines == ["cache: no tool that was called is made with @tool(cache=SECONDS)"]


def test_a_tool_that_writes_cannot_be_cached() -> None:
    with pytest.raises(UsageError, match="cannot be cached"):

        @tool(effect="write", cache=60)
        def pay(amount: int) -> None: ...
