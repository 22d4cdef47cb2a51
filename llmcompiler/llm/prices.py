"""What model calls cost, in US dollars.

Prices of public models come from ``genai-prices``, a list kept by others (extra ``prices``); one's
own come first. The embedded model is free. The module must not know limits or runs.
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
        prompt: tokens of prompts that were not cached.
        completion: decoded tokens.
        cached: prompt tokens from the endpoint's prefix cache; ``None`` for the price of others.
    """

    prompt: float
    completion: float
    cached: float | None = None

    def cost(self, usage: Usage) -> float:
        """What these tokens cost."""
        cached = self.prompt if self.cached is None else self.cached
        fresh = usage.prompt_tokens - usage.cached_tokens
        dollars = fresh * self.prompt + usage.cached_tokens * cached
        return (dollars + usage.completion_tokens * self.completion) / _MILLION


class Prices:
    """Prices of models by name, as ``ChatModel.name`` gives it.

    Args:
        own: prices that come before those of the list, also for models that it does not know.
    """

    def __init__(self, own: Mapping[str, Price] | None = None) -> None:
        self._own = dict(own or {})

    def cost(self, model: str, usage: Usage) -> float:
        """What a model call cost.

        Raises:
            UsageError: the model's price is not known, or the list is not installed.
        """
        if model in self._own:
            return self._own[model].cost(usage)
        return 0.0 if model.startswith(("local", "native")) else _listed(model, usage)


@functools.lru_cache(maxsize=256)
def _listed(model: str, usage: Usage) -> float:
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
