"""Recorded durations decide who goes first where slots are scarce."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmcompiler import Limits, LLMCompiler, RunStore, parse_plan
from llmcompiler.events import TaskStarted
from llmcompiler.testing.doubles import run_virtual
from llmcompiler.tools.base import tool


@tool
async def quick(value: Any = None) -> int:
    """Take a second."""
    await asyncio.sleep(1)
    return 1


@tool
async def slow(value: Any = None) -> int:
    """Take a minute."""
    await asyncio.sleep(60)
    return 2


PLAN = parse_plan("1. quick()\n2. quick($1)\n3. quick($2)\n4. slow()\n5. join()")


def test_the_second_run_starts_what_took_long_in_the_first() -> None:
    order: list[list[int]] = []

    async def main() -> None:
        store = RunStore(":memory:")
        compiler = LLMCompiler([quick, slow], store=store, limits=Limits(concurrency=1))
        for _ in range(2):
            starts: list[int] = []
            order.append(starts)

            def note(event: Any, starts: list[int] = starts) -> None:
                if isinstance(event, TaskStarted):
                    starts.append(event.task)

            await compiler.execute(PLAN, on_event=note)
        assert store.durations() == pytest.approx({"quick": 1, "slow": 60})

    run_virtual(main())
    assert order == [[1, 2, 3, 4], [4, 1, 2, 3]]


def test_damaged_and_strange_rows_cost_only_a_guess() -> None:
    store = RunStore(":memory:")
    run = store.begin("r")
    run.close()
    store._db.execute("INSERT INTO events VALUES (1 << 32, 'TaskFinished', 'no json', 0)")
    assert store.durations() == {}
