"""The planners of this package, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llmcompiler.planners.base import Planner
from llmcompiler.planners.drafts import DraftsPlanner
from llmcompiler.planners.function_calling import FunctionCallingPlanner
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
}
"""Constructors of planners, by name; each takes the texts that the model reads."""
