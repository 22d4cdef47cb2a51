"""Carries out reasoning branches: the executor of ``think`` calls.

A call of ``think`` in a plan is an ordinary task. Where other tools' functions are called, here a
strategy runs, with a branch through which it asks models. So a branch is scheduled, cancelled,
recorded, replayed and resumed by what does so for every task. The module must not know plans.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from llmcompiler.errors import ToolError, UsageError
from llmcompiler.events import BranchFinished, BranchStarted
from llmcompiler.executors.base import Executor, ToolCall
from llmcompiler.llm.base import ChatModel
from llmcompiler.llm.capabilities import capabilities_of
from llmcompiler.llm.prices import Prices
from llmcompiler.log.journal import Journal
from llmcompiler.reasoning.answers import check_format
from llmcompiler.reasoning.base import BranchBudget, BudgetReached, Strategy, StrategyResult
from llmcompiler.reasoning.branch import LiveBranch
from llmcompiler.reasoning.registry import make_strategy
from llmcompiler.reasoning.request import BranchRecord, BranchRequest, branch_name
from llmcompiler.runtime.branch_order import Tape
from llmcompiler.runtime.model_calls import ModelCalls

MAX_TOKENS = 1024
"""Of a call whose caller does not say: small models do not always come to an end."""

_SETTINGS = ("answer", "seed", "max_tokens", "temperature", "top_p")
_BUDGET = ("tokens", "calls", "cost", "seconds")


class BranchExecutor:
    """An executor that carries out reasoning branches itself and hands on all other calls.

    Args:
        inner: where other tools' calls run.
        calls: makes and records model calls.
        journal: told how branches begin and end.
        models: opens the models that strategies name; ``branch`` is the one they run on.
        prompts: the user's texts in place of strategies' own, as ``STRATEGY.text``.
        prices: for budgets in money.
        recorded: branches that the log holds already, in whole or in part, by name.
    """

    def __init__(
        self,
        inner: Executor,
        *,
        calls: ModelCalls,
        journal: Journal,
        models: Callable[[], Mapping[str, ChatModel]],
        prompts: Mapping[str, str],
        prices: Prices,
        recorded: Mapping[str, BranchRecord],
    ) -> None:
        self._inner = inner
        self._calls = calls
        self._journal = journal
        self._models = models
        self._prompts = prompts
        self._prices = prices
        self._recorded = recorded

    def submit(self, call: ToolCall) -> asyncio.Future[Any]:
        """See ``Executor.submit``."""
        if not call.tool.reasons:
            return self._inner.submit(call)
        return asyncio.get_running_loop().create_task(self._reason(call), name=call.context.key)

    async def aclose(self) -> None:
        """The inner executor is its owner's."""

    async def _reason(self, call: ToolCall) -> str:
        task, index = call.context.task, call.context.index
        name = branch_name(task, index)
        strategy, spec = parse_branch_request(call.arguments, self._prompts)
        record = self._recorded.get(name)
        models = self._models()
        if record is None:
            capabilities = {
                role: sorted(await capabilities_of(model)) for role, model in models.items()
            }
            begun = self._journal.now()
        else:
            # As they were then, so that the strategy goes the same way.
            capabilities = record.started.capabilities
            spec = _with_recorded_prompts(spec, record)
            begun = record.started.at
        _check_needs(strategy, models, capabilities)
        self._journal.emit(
            BranchStarted,
            task=task,
            index=index,
            strategy=spec.strategy,
            spec=spec.to_json(),
            models={role: model.name for role, model in models.items()},
            capabilities=capabilities,
        )
        self._journal.flush()
        branch = LiveBranch(
            spec,
            (task, index),
            name,
            calls=self._calls,
            models=models,
            capabilities=capabilities,
            journal=self._journal,
            prices=self._prices,
            tape=Tape(record.steps if record is not None else ()),
            begun=begun,
        )
        outcome = await _carry_out(strategy, branch)
        self._journal.emit(
            BranchFinished, task=task, index=index, outcome=_to_json(outcome, branch)
        )
        return outcome.text if outcome.answer is None else outcome.answer


async def _carry_out(strategy: Strategy, branch: LiveBranch) -> StrategyResult:
    """Run the strategy to its end, or to that of its budget; no call outlives it."""
    try:
        outcome = await strategy.run(branch.problem, branch.context, branch)
    except BudgetReached as reached:
        await branch.close()
        kept = branch.kept or _whatever_there_is(branch)
        if kept is None:
            raise ToolError(
                f"{reached.message} before it had anything", hint=reached.hint
            ) from None
        return kept
    except BaseException:
        await branch.cancel()
        raise
    await branch.close()
    return outcome


def _whatever_there_is(branch: LiveBranch) -> StrategyResult | None:
    """Of a strategy that kept nothing, the last text that gives an answer, else the last one."""
    candidates = [call.candidate for call in branch.calls.values() if call.candidate is not None]
    candidates = [one for one in reversed(candidates) if one.text]
    best = next((one for one in candidates if one.answer is not None and one.complete), None)
    best = best or next(iter(candidates), None)
    if best is None:
        return None
    return StrategyResult(best.text, best.answer, (best,), "the last text before the budget ended")


def _check_needs(
    strategy: Strategy, models: Mapping[str, ChatModel], capabilities: Mapping[str, list[str]]
) -> None:
    lacking = sorted(set(strategy.needs) - set(capabilities["branch"]))
    if lacking:
        raise UsageError(
            f'the strategy "{strategy.name}" needs {", ".join(lacking)}, which '
            f"{models['branch'].name} does not have",
            hint="use another strategy or another model",
        )


def _with_recorded_prompts(spec: BranchRequest, record: BranchRecord) -> BranchRequest:
    recorded = record.started.spec.get("prompts", spec.prompts)
    return dataclasses.replace(spec, prompts=dict(recorded))


def parse_branch_request(
    arguments: Mapping[str, Any], prompts: Mapping[str, str]
) -> tuple[Strategy, BranchRequest]:
    """The strategy and the specification that a call of ``think`` amounts to.

    Args:
        arguments: of the call.
        prompts: the user's texts, as ``STRATEGY.text``.

    Raises:
        UsageError: there is no such strategy or option, or a value does not fit.
    """
    options = dict(arguments.get("options") or {})
    for name in ("width", "rounds"):
        if arguments.get(name) is not None:
            options[name] = arguments[name]
    settings = {name: options.pop(name) for name in _SETTINGS if name in options}
    budget = options.pop("budget", None) or {}
    if unknown := sorted(set(budget) - set(_BUDGET)):
        raise UsageError(
            f"a branch has no budget of {unknown[0]}", hint=f"there are {', '.join(_BUDGET)}"
        )
    for name, most in budget.items():
        if not isinstance(most, int | float) or most <= 0:
            raise UsageError(f"a budget is a number more than 0, not {name}={most}")
    answer = settings.get("answer") or "auto"
    check_format(answer)
    strategy_name = arguments["strategy"]
    strategy = make_strategy(strategy_name, options)
    texts = dict(strategy.prompts)
    for key, text in prompts.items():
        owner, _, name = key.partition(".")
        if owner != strategy_name:
            continue
        if name not in texts:
            raise UsageError(
                f'the strategy "{owner}" has no prompt "{name}"',
                hint=f"it has: {', '.join(texts)}",
            )
        texts[name] = text
    temperature = settings.get("temperature")
    assert isinstance(strategy, BaseModel)
    spec = BranchRequest(
        strategy=strategy_name,
        options=strategy.model_dump(mode="json"),
        problem=arguments["problem"],
        context=context_text(arguments.get("context")),
        answer=answer,
        budget=BranchBudget(**budget),
        seed=settings.get("seed"),
        max_tokens=settings.get("max_tokens", MAX_TOKENS),
        temperature=1.0 if temperature is None else float(temperature),
        top_p=float(settings.get("top_p", 1.0)),
        prompts=texts,
    )
    return strategy, spec


def budget_to_options(budget: BranchBudget | None) -> dict[str, float] | None:
    """The bounds that are set, as ``think`` takes them."""
    if budget is None:
        return None
    bounds = dataclasses.asdict(budget)
    return {name: most for name, most in bounds.items() if most is not None} or None


def context_text(context: Any) -> str:
    """What is known, as text: strings as they are, the rest as JSON, items of a list apart."""
    if context is None or context == "":
        return ""
    if isinstance(context, list):
        return "\n\n".join(filter(None, map(context_text, context)))
    return context if isinstance(context, str) else json.dumps(context, ensure_ascii=False)


def _to_json(outcome: StrategyResult, branch: LiveBranch) -> dict[str, Any]:
    return {
        "answer": outcome.answer,
        "text": outcome.text,
        "why": outcome.why,
        "notes": list(outcome.notes),
        "stopped": branch.stopped[0] if branch.stopped is not None else None,
        "candidates": [
            {"call": one.call, "label": one.label, "answer": one.answer, "finish": one.finish}
            for one in outcome.candidates
        ],
        "accepted": branch.accepted,
        "data": dict(outcome.data),
    }
