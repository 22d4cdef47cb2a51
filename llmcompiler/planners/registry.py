"""The planners of this package, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llmcompiler.errors import UsageError
from llmcompiler.planners.base import Planner
from llmcompiler.planners.drafts import DraftsPlanner
from llmcompiler.planners.function_calling import FunctionCallingPlanner
from llmcompiler.planners.python import PythonPlanner
from llmcompiler.planners.react import ReactPlanner
from llmcompiler.planners.structured import StructuredPlanner
from llmcompiler.planners.text import TextPlanner
from llmcompiler.prompting.prompts import Prompts

PLANNERS: Mapping[str, Callable[[Prompts], Planner]] = {
    TextPlanner.name: TextPlanner,
    DraftsPlanner.name: DraftsPlanner,
    StructuredPlanner.name: StructuredPlanner,
    FunctionCallingPlanner.name: FunctionCallingPlanner,
    ReactPlanner.name: ReactPlanner,
    PythonPlanner.name: PythonPlanner,
}
"""Constructors of planners, by name; each takes the texts that the model reads."""


def create_planner(planner: str | Planner, prompts: Prompts) -> Planner:
    """The planner of this name, or the planner itself.

    Raises:
        UsageError: there is no planner of this name.
    """
    if not isinstance(planner, str):
        return planner
    if planner in PLANNERS:
        return PLANNERS[planner](prompts)
    raise UsageError(f'there is no planner "{planner}"', hint=f"one of: {', '.join(PLANNERS)}")
