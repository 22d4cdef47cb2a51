"""The passes in their order, each with what it has to say.

Folding first, since it makes calls equal; pruning after what leaves calls without users. None
changes what a plan gives. The module must not know how plans are executed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from llmcompiler.passes.base import PassTool
from llmcompiler.passes.deduplicate import deduplicate
from llmcompiler.passes.fold import fold
from llmcompiler.passes.lower import lower
from llmcompiler.passes.prune import prune
from llmcompiler.passes.rank import rank
from llmcompiler.plan.model import Plan

Pass: TypeAlias = Callable[[Plan, Mapping[str, PassTool]], tuple[Plan, list[str]]]

PASSES: tuple[Pass, ...] = (fold, deduplicate, prune, lower, rank)


def optimize(plan: Plan, tools: Mapping[str, PassTool]) -> tuple[Plan, list[str]]:
    """Take a checked plan through all passes.

    Args:
        plan: without errors.
        tools: what it calls, by name.

    Returns:
        A plan that gives the same, and a line for every change, such as ``deduplicate: task 4
        repeats task 1 (country) and is not called``.
    """
    said: list[str] = []
    for one in PASSES:
        plan, lines = one(plan, tools)
        said += [f"{one.__name__}: {line}" for line in lines]
    return plan, said
