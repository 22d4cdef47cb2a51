"""Saved plans: read from any form, and checked as a whole before anything is recorded."""

from __future__ import annotations

from collections.abc import Mapping

from llmcompiler.errors import PlanError
from llmcompiler.language.forms import ParsedPlan, parse_plan_text
from llmcompiler.passes.check import check_plan
from llmcompiler.plan.model import Plan
from llmcompiler.programs.saved import check_program
from llmcompiler.reasoning.tool import with_think
from llmcompiler.tools.base import Tool


def sound_plan(saved: Plan | str, tools: Mapping[str, Tool]) -> Plan:
    """A plan that can run, with slips corrected that can be read in one way only.

    Args:
        saved: a plan, or its text: numbered calls, JSON, or a program.
        tools: what it may call, by name.

    Raises:
        PlanError: the text is no plan, or the plan does not fit the tools.
    """
    parsed = ParsedPlan(saved, [], None) if isinstance(saved, Plan) else parse_plan_text(saved)
    plan, diagnostics, spans = parsed
    tools = with_think(tools, plan)
    if plan.program is not None:
        checked, about_tasks = check_program(plan, tools)
    else:
        checked, about_tasks = check_plan(plan, tools, spans)
    errors = [item for item in (*diagnostics, *about_tasks) if item.severity == "error"]
    if errors:
        raise PlanError("the plan does not fit the tools", diagnostics=tuple(errors))
    return checked
