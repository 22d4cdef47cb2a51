"""What a caller of ``LLMCompiler.think`` is given. It must not know how a branch ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmcompiler.errors import Failure
from llmcompiler.history.cost import BranchCost, branch_cost
from llmcompiler.history.state import RunState


@dataclass(frozen=True, slots=True)
class ThinkResult:
    """What a branch came to, and what it cost.

    Attributes:
        run: its run's id, with which ``show``, ``replay`` and ``resume`` find it.
        answer: the answer in it; ``None`` where none was found, or the branch failed.
        text: the whole of it.
        why: how it was decided, in a sentence.
        notes: what readers should know of how it was made.
        stopped: the bound of its budget that it reached; empty for none.
        candidates: what it was chosen from: call, label, answer and finish of each.
        data: the strategy's own figures.
        cost: tokens, time, path; ``None`` where it failed before it began.
        failure: why there is nothing.
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
