"""What a run has used of its limits: calls, tokens and money."""

from __future__ import annotations

from llmcompiler.errors import LimitReached
from llmcompiler.limits import Limits
from llmcompiler.llm.base import Usage
from llmcompiler.llm.prices import Prices


class RunBudget:
    """Counts what a run uses and says when a limit is reached.

    Args:
        limits: the bounds.
        prices: of models; looked at only where there is a limit on cost.
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
            LimitReached: it would be one too many.
        """
        if self.limits.tool_calls is not None:
            self._check("tool_calls", self._tool_calls, self.limits.tool_calls)
        self._tool_calls += 1

    def start_model_call(self, model: str) -> None:
        """Count a call of ``model`` that is about to start.

        Raises:
            LimitReached: it would be one too many, or the tokens or the money are used up.
            UsageError: there is a limit on cost, and the model's price is not known.
        """
        if self.limits.cost is not None:
            self._prices.cost(model, Usage())
            self._check("cost", self.cost, self.limits.cost)
        self._check("model_calls", self._model_calls, self.limits.model_calls)
        used = self.usage.prompt_tokens + self.usage.completion_tokens
        self._check("tokens", used, self.limits.tokens)
        self._model_calls += 1

    def spend(self, model: str, usage: Usage) -> None:
        """Count what a call of ``model`` used."""
        self.usage += usage
        if self.limits.cost is not None:
            self.cost += self._prices.cost(model, usage)

    def _check(self, limit: str, used: float, most: float | None) -> None:
        if most is not None and used >= most:
            raise LimitReached(
                f"the run reached its limit {limit}={most}",
                limit=limit,
                hint=f"raise it with --limit {limit}=…",
            )
