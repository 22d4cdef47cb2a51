"""The request and the record of a reasoning branch, and the names of branches."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from llmcompiler.events import BranchStarted, Index
from llmcompiler.reasoning.base import BranchBudget
from llmcompiler.runtime.branch_order import BranchStep


@dataclass(frozen=True, slots=True)
class BranchRequest:
    """Everything that a branch is asked to do.

    Attributes:
        strategy: name of the strategy.
        options: all options of the strategy, defaults included.
        problem: the problem to solve.
        context: what is known beforehand, as text; may be empty.
        answer: where in a text the answer is; see ``answers.extract_answer``.
        budget: bounds on tokens, calls, cost and time.
        seed: seed of sampling and of the strategy's choices; ``None`` sends no seed to endpoints.
        max_tokens: default of a call; ``None`` for the endpoint's default.
        temperature: default of a call.
        top_p: default of a call.
        prompts: the strategy's texts by name, with the user's replacements.
    """

    strategy: str
    options: dict[str, Any]
    problem: str
    context: str
    answer: str
    budget: BranchBudget
    seed: int | None
    max_tokens: int | None
    temperature: float
    top_p: float
    prompts: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The request as the log stores it."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class BranchRecord:
    """What the log holds of a branch.

    Attributes:
        started: the event that started the branch.
        steps: what happened in the branch, in order; the list grows while the log is read.
    """

    started: BranchStarted
    steps: list[BranchStep]


def branch_name(task: int, index: Index) -> str:
    """The name of a task's branch, ``4`` or ``4[2]``; its calls are named ``4/0``, ``4/1``, ..."""
    return f"{task}" + "".join(f"[{number}]" for number in index)


def task_of_branch(name: str) -> int | None:
    """The task of a branch, or of a branch's call; ``None`` for calls of planner and joiner."""
    number = name.partition("/")[0].partition("[")[0]
    return int(number) if number.isdecimal() else None
