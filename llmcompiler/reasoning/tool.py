"""``think``: the tool by which plans call reasoning branches.

It is declared like any other tool, so planners read of it, the front end checks its calls, and
saved plans pin it; a run carries its calls out itself (``reasoning.frame``).
"""

from __future__ import annotations

import dataclasses
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
    """The tool ``think``.

    Args:
        strategy: used by calls that do not name one.

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

    # What a branch asks is asked again where that helps; the whole of it never is.
    made = tool(retry=Retry(attempts=1), version="1", trim=None)(think)
    return dataclasses.replace(made, reasons=True)


def with_think(tools: Mapping[str, Tool], plan: Plan) -> Mapping[str, Tool]:
    """The tools, ``think`` among them if the plan calls it: it has said so itself."""
    if THINK in tools or all(task.tool != THINK for task in plan.tasks):
        return tools
    return {**tools, THINK: think_tool()}


TOOLS = (think_tool(),)
"""What ``--tools think`` loads."""
