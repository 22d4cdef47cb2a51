"""``think``: the tool by which plans start reasoning branches.

It is declared like any other tool: planners read its signature, the front end checks its calls,
and saved plans pin it. A run carries out its calls by ``reasoning.executor``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from llmcompiler.errors import UsageError
from llmcompiler.plan.model import Plan
from llmcompiler.reasoning.registry import strategy_class
from llmcompiler.tools.base import Tool, tool
from llmcompiler.tools.policy import Retry

THINK = "think"
DEFAULT_STRATEGY = "vote"


def think_tool(strategy: str = DEFAULT_STRATEGY) -> Tool:
    """Make the tool ``think``.

    Args:
        strategy: the strategy of calls that do not name one.

    Raises:
        UsageError: there is no such strategy.
    """
    strategy_class(strategy)

    async def think(
        problem: str,
        context: Any = None,
        strategy: str = strategy,
        width: int | None = None,
        rounds: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> str:
        """Reason about a problem with several model calls, and give the answer as text.

        Args:
            problem: what is to be worked out, with all that is asked of the answer.
            context: results that it needs, such as [$1, $2].
            strategy: how to reason.
            width: how many drafts or paths at once.
            rounds: how many times they are improved.
            options: further options of the strategy, and answer, seed, max_tokens, budget.
        """
        raise UsageError(
            "think() was called outside a run", hint="await LLMCompiler.think(...) instead"
        )

    # Endpoints repeat single model calls of a branch; a whole branch is never repeated.
    plain_tool = tool(retry=Retry(attempts=1), version="1", trim=None)(think)
    return dataclasses.replace(plain_tool, reasons=True)


def with_think(tools: Mapping[str, Tool], plan: Plan) -> Mapping[str, Tool]:
    """Add ``think`` to the tools if the plan calls it."""
    if plan.program is not None:
        is_called = re.search(rf"\b{THINK}\s*\(", plan.program) is not None
    else:
        is_called = any(task.tool == THINK for task in plan.tasks)
    if THINK in tools or not is_called:
        return tools
    return {**tools, THINK: think_tool()}


TOOLS = (think_tool(),)
"""The tools that ``--tools think`` loads."""
