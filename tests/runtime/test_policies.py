"""What a tool's own policy changes: who stops the run, who is repeated, which lists are enough."""

from __future__ import annotations

from typing import Any

import pytest

from llmcompiler import LLMCompiler, parse_plan, replay_run
from llmcompiler.testing.doubles import flaky, run_virtual
from llmcompiler.tools.base import Tool, tool
from llmcompiler.tools.policy import Retry


async def half(number: int) -> int:
    """Half of an even number."""
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


async def count(items: list[Any]) -> int:
    """How many items are there."""
    return sum(item is not None for item in items)


def run(plan: str, *tools: Tool, **options: Any) -> Any:
    async def main() -> Any:
        compiler = LLMCompiler([*tools, tool(count)], store=":memory:", **options)
        result = await compiler.execute(parse_plan(plan))
        if not any(
            observation.status == "cancelled" for observation in result.observations.values()
        ):
            await replay_run(compiler.store, result.run)
        return result

    return run_virtual(main())


def test_a_tool_may_end_the_run_by_its_failure_or_be_let_off() -> None:
    plan = "1. half(1)\n2. half(4)\n3. join($2)"
    assert run(plan, tool(half)).value == 2
    assert run(plan, tool(on_error="fail")(half)).status == "failed"
    assert run(plan, tool(half), on_error="fail").status == "failed"
    assert run(plan, tool(on_error="observe")(half), on_error="fail").value == 2


def test_a_tool_may_say_which_exceptions_are_worth_another_attempt() -> None:
    plan = "1. half(4)\n2. join()"
    kind = tool(name="half", retry=Retry(attempts=3, on=(ConnectionError,)))
    assert run(plan, kind(flaky(half, 2))).value == 2
    assert run(plan, kind(flaky(half, 3))).status == "failed"
    assert run(plan, tool(name="half")(flaky(half, 1))).status == "failed"


@pytest.mark.parametrize(
    ("numbers", "partial", "expected"),
    [([2, 3, 4], True, 2), ([2, 3, 4], False, None), ([1, 3], True, None), ([], True, 0)],
)
def test_a_fan_out_may_succeed_with_what_it_has(
    numbers: list[int], partial: bool, expected: int | None
) -> None:
    plan = f"1. same({numbers})\n2. half($1[*])\n3. count($2)\n4. join()"

    @tool
    async def same(items: list[int]) -> list[int]:
        """Give the list back."""
        return items

    result = run(plan, same, tool(partial=partial)(half))
    assert result.observations[3].value == expected
    if partial and expected:
        assert result.observations[2].value == [1, None, 2]
