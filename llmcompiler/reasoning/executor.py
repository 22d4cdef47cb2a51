"""The executor of ``think`` calls: runs a strategy for each.

A ``think`` call in a plan is an ordinary task. For other tools an executor calls a function; for
``think`` this executor runs a strategy, which asks models through a branch. The engine therefore
schedules, cancels, records, replays and resumes a branch like every other task.
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
from llmcompiler.runtime.branch_order import BranchReplay
from llmcompiler.runtime.model_calls import ModelCalls

_SETTINGS = ("answer", "seed", "max_tokens", "temperature", "top_p")
_BUDGET_FIELDS = ("tokens", "calls", "cost", "seconds")


class BranchExecutor:
    """An executor that runs reasoning branches itself and passes all other calls on.

    Args:
        inner: runs the calls of other tools.
        calls: makes and records model calls.
        journal: takes the events of branches.
        models: opens the models that strategies may name; a strategy runs on ``branch``.
        prompts: the user's replacements of strategies' texts, as ``STRATEGY.text``.
        prices: prices of tokens, for budgets in US dollars.
        recorded: branches that the log holds, complete or not, by name.
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
        """Do nothing; the inner executor belongs to whoever opened it."""

    async def _reason(self, call: ToolCall) -> str:
        task, index = call.context.task, call.context.index
        name = branch_name(task, index)
        strategy, request = parse_branch_request(call.arguments, self._prompts)
        record = self._recorded.get(name)
        models = self._models()
        if record is None:
            capabilities = {
                role: sorted(await capabilities_of(model)) for role, model in models.items()
            }
            started_at = self._journal.now()
        else:
            # The recorded capabilities and prompts, so that the strategy decides as before.
            capabilities = record.started.capabilities
            request = _with_recorded_prompts(request, record)
            started_at = record.started.at
        _check_needs(strategy, models, capabilities)
        self._journal.emit(
            BranchStarted,
            task=task,
            index=index,
            strategy=request.strategy,
            spec=request.to_json(),
            models={role: model.name for role, model in models.items()},
            capabilities=capabilities,
        )
        self._journal.flush()
        branch = LiveBranch(
            request,
            (task, index),
            name,
            calls=self._calls,
            models=models,
            capabilities=capabilities,
            journal=self._journal,
            prices=self._prices,
            replay=BranchReplay(record.steps if record is not None else ()),
            started_at=started_at,
        )
        result = await _run_strategy(strategy, branch)
        self._journal.emit(
            BranchFinished, task=task, index=index, outcome=_result_to_json(result, branch)
        )
        return result.text if result.answer is None else result.answer


async def _run_strategy(strategy: Strategy, branch: LiveBranch) -> StrategyResult:
    """Run the strategy until it returns or its budget ends; no call outlives it.

    Raises:
        ToolError: the budget ended before any call had written text.
    """
    try:
        result = await strategy.run(branch.problem, branch.context, branch)
    except BudgetReached as error:
        await branch.close()
        best_result = branch.best_result or _last_text(branch)
        if best_result is None:
            raise ToolError(f"{error.message} before it had anything", hint=error.hint) from None
        return best_result
    except BaseException:
        await branch.cancel()
        raise
    await branch.close()
    return result


def _last_text(branch: LiveBranch) -> StrategyResult | None:
    """The last complete text with an answer, else the last text; for strategies that kept none."""
    candidates = [call.candidate for call in branch.calls.values() if call.candidate is not None]
    candidates = [candidate for candidate in reversed(candidates) if candidate.text]
    answered = (c for c in candidates if c.answer is not None and c.complete)
    best = next(answered, None) or next(iter(candidates), None)
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


def _with_recorded_prompts(request: BranchRequest, record: BranchRecord) -> BranchRequest:
    recorded_prompts = record.started.spec.get("prompts", request.prompts)
    return dataclasses.replace(request, prompts=dict(recorded_prompts))


def parse_branch_request(
    arguments: Mapping[str, Any], prompts: Mapping[str, str]
) -> tuple[Strategy, BranchRequest]:
    """Make the strategy and the request of a ``think`` call.

    Args:
        arguments: the call's arguments.
        prompts: the user's replacements of strategies' texts, as ``STRATEGY.text``.

    Raises:
        UsageError: an unknown strategy or option, or a value that does not fit.
    """
    options = dict(arguments.get("options") or {})
    for name in ("width", "rounds"):
        if arguments.get(name) is not None:
            options[name] = arguments[name]
    settings = {name: options.pop(name) for name in _SETTINGS if name in options}
    bounds = options.pop("budget", None) or {}
    if unknown := sorted(set(bounds) - set(_BUDGET_FIELDS)):
        raise UsageError(
            f"a branch has no budget of {unknown[0]}",
            hint=f"there are {', '.join(_BUDGET_FIELDS)}",
        )
    for name, bound in bounds.items():
        if not isinstance(bound, int | float) or bound <= 0:
            raise UsageError(f"a budget is a number greater than 0, not {name}={bound}")
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
    request = BranchRequest(
        strategy=strategy_name,
        options=strategy.model_dump(mode="json"),
        problem=arguments["problem"],
        context=context_text(arguments.get("context")),
        answer=answer,
        budget=BranchBudget(**bounds),
        seed=settings.get("seed"),
        max_tokens=settings.get("max_tokens"),
        temperature=1.0 if temperature is None else float(temperature),
        top_p=float(settings.get("top_p", 1.0)),
        prompts=texts,
    )
    return strategy, request


def budget_to_options(budget: BranchBudget | None) -> dict[str, float] | None:
    """The bounds that are set, as the option ``budget`` of ``think``; ``None`` without a bound."""
    if budget is None:
        return None
    bounds = dataclasses.asdict(budget)
    return {name: bound for name, bound in bounds.items() if bound is not None} or None


def context_text(context: Any) -> str:
    """The context as text: strings unchanged, other values as JSON, a blank line between items."""
    if context is None or context == "":
        return ""
    if isinstance(context, list):
        return "\n\n".join(filter(None, map(context_text, context)))
    return context if isinstance(context, str) else json.dumps(context, ensure_ascii=False)


def _result_to_json(result: StrategyResult, branch: LiveBranch) -> dict[str, Any]:
    return {
        "answer": result.answer,
        "text": result.text,
        "why": result.why,
        "notes": list(result.notes),
        "stopped": branch.budget_stop[0] if branch.budget_stop is not None else None,
        "candidates": [
            {
                "call": candidate.call,
                "label": candidate.label,
                "answer": candidate.answer,
                "finish": candidate.finish,
            }
            for candidate in result.candidates
        ],
        "accepted": branch.accepted_calls,
        "data": dict(result.data),
    }
