"""The three forms in which a plan is written: numbered calls, JSON, and a program in Python."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import ValidationError

from llmcompiler.errors import PlanError
from llmcompiler.language.items import CallSource
from llmcompiler.language.parser import Parser
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.model import Plan
from llmcompiler.plan.program_text import is_program, program_plan

# A line that begins a task, in every spelling that the parser accepts.
_TASK_LINE = re.compile(r"^\s*\$?\d+\s*[.):=]\s*[^\W\d][\w.\-]*\s*\(", re.MULTILINE)


class ParsedPlan(NamedTuple):
    """A plan and the diagnostics about it.

    Attributes:
        plan: the parts that could be read. A program is not compiled yet.
        diagnostics: errors and warnings; after an error, parts of the plan may be missing.
        spans: the place of each task in the text; ``None`` unless its calls are numbered.
    """

    plan: Plan
    diagnostics: list[Diagnostic]
    spans: Mapping[int, CallSource] | None


def is_plan_text(text: str) -> bool:
    """True if a text is a plan, in any of its forms; otherwise it is a question."""
    return text.lstrip().startswith("{") or _TASK_LINE.search(text) is not None or is_program(text)


def parse_plan_text(text: str, *, is_python: bool = False) -> ParsedPlan:
    """Parse a plan: in the plan language, as JSON, or as a program.

    Args:
        text: the plan.
        is_python: True if it is known to be a program, however it reads.

    Raises:
        PlanError: the JSON is not a plan, or the text is neither numbered calls nor a program.
    """
    if is_python:
        return ParsedPlan(program_plan(text), [], None)
    if text.lstrip().startswith("{"):
        return ParsedPlan(plan_from_json(text), [], None)
    if not is_plan_text(text):
        raise PlanError(
            "this is no plan: no line has a numbered call, and it is no program",
            hint='a line of a plan reads: 1. country("Japan"); one of a program: '
            'japan = country("Japan")',
        )
    if _TASK_LINE.search(text) is None:
        return ParsedPlan(program_plan(text), [], None)
    parser = Parser(inputs="declare")
    parser.feed(text)
    parser.close()
    return ParsedPlan(parser.plan(), list(parser.diagnostics), parser.spans)


def plan_from_json(text: str) -> Plan:
    """Parse a plan from its JSON form.

    Raises:
        PlanError: the text is not JSON, or not a plan. The message names the wrong field.
    """
    try:
        return Plan.model_validate_json(text)
    except ValidationError as error:
        problems = [
            ": ".join(filter(None, (".".join(map(str, detail["loc"])), detail["msg"])))
            for detail in error.errors(include_url=False)
        ]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise PlanError(
            f"the JSON is not a plan: {problems[0]}{more}",
            hint="llmcompiler schema prints what a plan is",
        ) from error
