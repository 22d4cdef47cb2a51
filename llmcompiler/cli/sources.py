"""The input of a command: a file, a text or stdin, with a question or a plan inside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from llmcompiler.errors import PlanError, UsageError

if TYPE_CHECKING:
    from llmcompiler.language import CallSource, Diagnostic
    from llmcompiler.plan.model import Plan
    from llmcompiler.tools.base import Tool

# A line that begins a task, in every spelling that the parser accepts.
_TASK_LINE = re.compile(r"^\s*\$?\d+\s*[.):=]\s*[^\W\d][\w.\-]*\s*\(", re.MULTILINE)
_FILE_NAME = re.compile(r"\S+\.(plan|json|txt)|\.{0,2}/\S+")
_MAX_NAME = 4096
_BYTE_ORDER_MARK = "\ufeff"  # some editors write it before a text


def read_text(source: str) -> str:
    """The content of the file ``source``, of stdin for ``-``, else ``source`` itself.

    Raises:
        UsageError: ``source`` looks like the name of a file that does not exist or cannot be read.
    """
    if source == "-":
        return typer.get_text_stream("stdin").read().removeprefix(_BYTE_ORDER_MARK)
    if "\n" in source or len(source) > _MAX_NAME:
        return source
    path = Path(source).expanduser()
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8").removeprefix(_BYTE_ORDER_MARK)
        if path.is_dir() and _FILE_NAME.fullmatch(source):
            raise UsageError(f"{source} is a directory", hint="give a file in it")
    except OSError as error:
        if path.name and _FILE_NAME.fullmatch(source):
            raise UsageError(f"cannot read {source}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{source} is not a text file in UTF-8") from error
    if _FILE_NAME.fullmatch(source):
        raise UsageError(
            f"there is no file {source}", hint="give a file, a text, or - to read stdin"
        )
    return source


def is_plan(text: str) -> bool:
    """True if a text is a plan, in the plan language or as JSON; otherwise it is a question."""
    return text.lstrip().startswith("{") or _TASK_LINE.search(text) is not None


class ParsedPlan(NamedTuple):
    """A plan and the diagnostics about it.

    Attributes:
        plan: the parts that could be read.
        diagnostics: errors and warnings; after an error, parts of the plan may be missing.
        spans: the place of each task in the text; ``None`` for JSON.
    """

    plan: Plan
    diagnostics: list[Diagnostic]
    spans: Mapping[int, CallSource] | None


def parse_plan_text(text: str) -> ParsedPlan:
    """Parse a plan, in the plan language or as JSON.

    Raises:
        PlanError: the JSON is not a plan, or no line of the text is a task.
    """
    if text.lstrip().startswith("{"):
        return ParsedPlan(plan_from_json(text), [], None)
    if not is_plan(text):
        raise PlanError(
            "this is no plan: no line has a numbered call",
            hint='a line of a plan reads: 1. country("Japan")',
        )
    from llmcompiler.language import Parser

    parser = Parser(inputs="declare")
    parser.feed(text)
    parser.close()
    return ParsedPlan(parser.plan(), list(parser.diagnostics), parser.spans)


def check_parsed_plan(parsed: ParsedPlan, tools: Mapping[str, Tool]) -> ParsedPlan:
    """Check a plan against tools. The result holds all diagnostics, in the order of the text."""
    from llmcompiler.passes.check import check_plan
    from llmcompiler.reasoning.tool import with_think

    tools = with_think(tools, parsed.plan)
    plan, diagnostics = check_plan(parsed.plan, tools, parsed.spans)
    ordered = sorted(
        [*parsed.diagnostics, *diagnostics],
        key=lambda diagnostic: (diagnostic.line, diagnostic.column),
    )
    return ParsedPlan(plan, ordered, parsed.spans)


def plan_from_json(text: str) -> Plan:
    """Parse a plan from its JSON form.

    Raises:
        PlanError: the text is not JSON, or not a plan. The message names the wrong field.
    """
    from pydantic import ValidationError

    from llmcompiler.plan.model import Plan

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


def require_valid_plan(parsed: ParsedPlan) -> Plan:
    """Print the plan's warnings to stderr and return it.

    Raises:
        PlanError: the plan has errors. The message shows all of them.
    """
    errors = [item for item in parsed.diagnostics if item.severity == "error"]
    if errors:
        count = f"{len(errors)} errors" if len(errors) > 1 else "an error"
        raise PlanError(f"the plan has {count}", diagnostics=errors)
    for warning in parsed.diagnostics:
        typer.echo(warning.render(), err=True)
    return parsed.plan
