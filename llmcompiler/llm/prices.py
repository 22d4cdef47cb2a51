"""What model calls cost, in US dollars.

The caller's own prices come first, then those of ``genai-prices`` (extra ``prices``), a public list
of public models. Models in this process are free.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from llmcompiler.errors import UsageError
from llmcompiler.llm.base import Usage

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens.

    Attributes:
        prompt: price of prompt tokens that were not cached.
        completion: price of decoded tokens.
        cached: price of prompt tokens from the endpoint's prefix cache; ``None`` for the price
            ``prompt``.
    """

    prompt: float
    completion: float
    cached: float | None = None

    def cost(self, usage: Usage) -> float:
        """What these tokens cost."""
        cached_price = self.prompt if self.cached is None else self.cached
        uncached_tokens = usage.prompt_tokens - usage.cached_tokens
        dollars = uncached_tokens * self.prompt + usage.cached_tokens * cached_price
        return (dollars + usage.completion_tokens * self.completion) / _MILLION


class Prices:
    """Prices of models by name, as ``ChatModel.name`` gives it.

    Args:
        own_prices: the caller's prices, by the model's name; they come before those of the list.
    """

    def __init__(self, own_prices: Mapping[str, Price] | None = None) -> None:
        self._own_prices = dict(own_prices or {})

    def cost(self, model: str, usage: Usage) -> float:
        """What a model call cost.

        Raises:
            UsageError: the model's price is not known, or the list is not installed.
        """
        if model in self._own_prices:
            return self._own_prices[model].cost(usage)
        return 0.0 if model.startswith(("local", "native")) else _cost_by_list(model, usage)


@functools.lru_cache(maxsize=256)
def _cost_by_list(model: str, usage: Usage) -> float:
    try:
        from genai_prices import Usage as Tokens, calc_price
    except ModuleNotFoundError:
        raise UsageError(
            "a limit on cost needs the list of prices",
            hint="pip install 'llmcompiler-dag[prices]', or give prices of your own",
        ) from None
    tokens = Tokens(
        input_tokens=usage.prompt_tokens,
        cache_read_tokens=usage.cached_tokens,
        output_tokens=usage.completion_tokens,
    )
    try:
        return float(calc_price(tokens, model.rpartition(":")[2]).total_price)
    except LookupError:
        raise UsageError(
            f"the price of model {model!r} is not known",
            hint=f"give it: prices={{{model!r}: Price(prompt=…, completion=…)}}",
        ) from None
