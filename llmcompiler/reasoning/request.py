"""What a reasoning branch was asked, as data, and how branches are named.

The module must not know how branches run.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from llmcompiler.events import BranchStarted, Index
from llmcompiler.reasoning.base import BranchBudget
from llmcompiler.runtime.branch_order import Step


@dataclass(frozen=True, slots=True)
class BranchRequest:
    """What a branch is asked, and how.

    Attributes:
        strategy: its name.
        options: all of the strategy's options, defaults included.
        problem: what is asked.
        context: what is known, as text; empty for nothing.
        answer: where in a text the answer is; see ``answers.extract``.
        budget: what the branch may use.
        seed: of sampling and of the strategy's own choices; ``None`` leaves sampling alone.
        max_tokens: of a call that does not say; ``None`` leaves it to the endpoint.
        temperature: of a call that does not say.
        top_p: likewise.
        prompts: the strategy's texts, the user's in place of its own.
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
        """As it is logged."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class BranchRecord:
    """What a log holds of a branch.

    Attributes:
        started: how it began.
        steps: what happened in it, in order; it grows while the log is read.
    """

    started: BranchStarted
    steps: list[Step]


def branch_name(task: int, index: Index) -> str:
    """The name of a task's branch, ``4`` or ``4[2]``; its calls are ``4/0``, ``4/1``, ..."""
    return f"{task}" + "".join(f"[{number}]" for number in index)


def task_of_branch(name: str) -> int | None:
    """The task of a branch or of one of its calls; ``None`` for calls of planner and joiner."""
    number = name.partition("/")[0].partition("[")[0]
    return int(number) if number.isdecimal() else None
