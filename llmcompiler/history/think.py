"""Runs that reason: the plan of a single branch, what came of it, and the tool ``think``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmcompiler.errors import Failure, UsageError
from llmcompiler.history.cost import BranchCost, branch_cost
from llmcompiler.history.run_history import RunHistory
from llmcompiler.history.state import RunState
from llmcompiler.plan.expressions import Expr, Literal
from llmcompiler.plan.model import Join, Plan, Task
from llmcompiler.reasoning.executor import parse_branch_request
from llmcompiler.reasoning.tool import DEFAULT_STRATEGY, THINK, think_tool
from llmcompiler.run.config import RunConfig


@dataclass(frozen=True, slots=True)
class ThinkResult:
    """What a reasoning branch came to, and what it cost.

    Attributes:
        run: its run's id, by which ``show``, ``replay`` and ``resume`` find it.
        answer: the answer in its text; ``None`` if there is none, or the branch failed.
        text: its whole text.
        why: how the answer was chosen, in a sentence.
        notes: what readers should know of how it was made.
        stopped: the bound of its budget that it reached; empty for none.
        candidates: what it was chosen from: call, label, answer and finish of each.
        data: the strategy's own figures.
        cost: tokens, time, path; ``None`` if the run failed before the branch began.
        failure: why there is no result.
    """

    run: str
    answer: str | None
    text: str
    why: str
    notes: tuple[str, ...]
    stopped: str
    candidates: tuple[dict[str, Any], ...]
    data: Mapping[str, Any]
    cost: BranchCost | None
    failure: Failure | None


def think_plan(
    problem: str,
    context: Any,
    strategy: str,
    options: Mapping[str, Any],
    prompts: Mapping[str, str],
) -> Plan:
    """A plan with a single call of ``think``.

    Args:
        problem: what is to be worked out.
        context: what is known; ``None`` for nothing.
        strategy: its name.
        options: the strategy's options, and those of every branch, such as ``budget``.
        prompts: the user's texts for strategies, as ``STRATEGY.text``.

    Raises:
        UsageError: the problem is empty, or there is no such strategy or option.
    """
    if not problem.strip():
        raise UsageError("the problem is empty", hint='for example: "What is 17 * 23?"')
    arguments = {"problem": problem, "strategy": strategy, "options": options}
    parse_branch_request(arguments, prompts)  # finds a mistake before there is a run
    if context is not None:
        arguments["context"] = context
    kwargs: dict[str, Expr] = {name: Literal(value=value) for name, value in arguments.items()}
    return Plan(tasks=(Task(id=1, tool=THINK, kwargs=kwargs),), join=Join(id=2, on=(1,)))


def read_think_result(state: RunState, failure: Failure | None) -> ThinkResult:
    """What the run of a single branch came to."""
    branch = next(iter(state.branches.values()), None)
    outcome = (branch.outcome if branch is not None else None) or {}
    cost = None
    if branch is not None:
        cost = branch_cost(branch, state.calls_of(branch.name), state.now)
    return ThinkResult(
        state.run,
        outcome.get("answer"),
        outcome.get("text", ""),
        outcome.get("why", ""),
        tuple(outcome.get("notes", ())),
        branch.stopped if branch is not None else "",
        tuple(outcome.get("candidates", ())),
        outcome.get("data", {}),
        cost,
        failure,
    )


def add_think(config: RunConfig, strategy: str = DEFAULT_STRATEGY) -> RunConfig:
    """The configuration with the tool ``think``.

    Args:
        config: of a run.
        strategy: for calls that do not name one.
    """
    return dataclasses.replace(config, tools={**config.tools, THINK: think_tool(strategy)})


def add_recorded_think(history: RunHistory, config: RunConfig) -> RunConfig:
    """The configuration with the recorded run's ``think``, if the run had that tool."""
    description = history.start.catalogue.get(THINK, {})
    if not description.get("reasons"):
        return config
    return add_think(config, description["parameters_schema"]["properties"]["strategy"]["default"])
