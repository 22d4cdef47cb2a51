"""The running budget: what a run has used of its limits on calls, tokens and money."""

from __future__ import annotations

from llmcompiler.errors import LimitReached
from llmcompiler.limits import Limits
from llmcompiler.llm.base import Usage
from llmcompiler.llm.prices import Prices


class RunBudget:
    """Counts what a run uses, and raises when a limit is reached.

    Args:
        limits: the bounds.
        prices: of models; used only with a limit on cost.

    Attributes:
        limits: see the argument.
        usage: tokens and model calls so far.
        cost: US dollars so far; counted only with a limit on cost.
    """

    def __init__(self, limits: Limits, prices: Prices | None = None) -> None:
        self.limits = limits
        self.usage = Usage()
        self.cost = 0.0
        self._prices = prices or Prices()
        self._tool_calls = 0
        self._model_calls = 0

    def start_tool_call(self) -> None:
        """Count a tool call that is about to start.

        Raises:
            LimitReached: the limit on tool calls is used up.
        """
        if self.limits.tool_calls is not None:
            self._check("tool_calls", self._tool_calls, self.limits.tool_calls)
        self._tool_calls += 1

    def start_model_call(self, model: str) -> None:
        """Count a call of ``model`` that is about to start.

        Raises:
            LimitReached: the limit on calls, tokens or cost is used up.
            UsageError: there is a limit on cost, and the price of the model is unknown.
        """
        if self.limits.cost is not None:
            self._prices.cost(model, Usage())
            self._check("cost", self.cost, self.limits.cost)
        self._check("model_calls", self._model_calls, self.limits.model_calls)
        tokens = self.usage.prompt_tokens + self.usage.completion_tokens
        self._check("tokens", tokens, self.limits.tokens)
        self._model_calls += 1

    def spend(self, model: str, usage: Usage) -> None:
        """Count the tokens, and the cost, of a call of ``model``."""
        self.usage += usage
        if self.limits.cost is not None:
            self.cost += self._prices.cost(model, usage)

    def _check(self, limit: str, amount: float, bound: float | None) -> None:
        if bound is not None and amount >= bound:
            raise LimitReached(
                f"the run reached its limit {limit}={bound}",
                limit=limit,
                hint=f"raise it with --limit {limit}=…",
            )
