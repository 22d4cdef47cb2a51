"""A limit on money: prices of one's own, of the list, and none at all."""

from __future__ import annotations

from typing import Any

import pytest

from llmcompiler import Limits, LLMCompiler, UsageError
from llmcompiler.llm.base import Usage
from llmcompiler.llm.prices import Price, Prices
from llmcompiler.testing.doubles import Answer, ScriptedModel, run_virtual
from llmcompiler.tools.base import tool


@tool
async def one() -> int:
    """Give one."""
    return 1


PLAN = "1. one()\n2. join()"


def answer(cost: float, used: Usage, **prices: Price) -> Any:
    async def main() -> Any:
        model = ScriptedModel(
            [Answer(PLAN, usage=used), Answer("Action: Finish(1)", usage=used)], name="m"
        )
        compiler = LLMCompiler(
            [one], model, store=":memory:", limits=Limits(cost=cost), prices=prices
        )
        return await compiler.run("what?")

    return run_virtual(main())


def test_the_call_that_goes_beyond_is_the_last() -> None:
    used, price = Usage(1000, 0, 100, 1), Price(prompt=1000, completion=10_000)  # 2 dollars a call
    stopped = answer(1.5, used, m=price)
    assert stopped.status == "failed"
    assert stopped.failure.message == "the run reached its limit cost=1.5"
    assert stopped.observations[1].value == 1
    assert answer(2.5, used, m=price).failure is None


def test_a_model_without_a_price_is_named_before_it_is_asked() -> None:
    failed = answer(1.0, Usage(1, 0, 1, 1))
    assert "price of model 'm'" in failed.failure.message


def test_prices_of_public_models_come_from_the_list_and_local_ones_are_free() -> None:
    usage = Usage(1_000_000, 0, 0, 1)
    assert Prices().cost("openai:gpt-4o-mini", usage) == pytest.approx(0.15)
    assert Prices().cost("local:qwen2.5-coder-1.5b", usage) == 0
    assert Prices({"openai:gpt-4o-mini": Price(7, 1)}).cost("openai:gpt-4o-mini", usage) == 7
    with pytest.raises(UsageError, match="not known"):
        Prices().cost("openai:no-such-model-at-all", usage)


def test_cached_tokens_have_their_own_price() -> None:
    usage = Usage(prompt_tokens=1_000_000, cached_tokens=500_000)
    assert Price(2, 0).cost(usage) == 2
    assert Price(2, 0, cached=1).cost(usage) == 1.5
