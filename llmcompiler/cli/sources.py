"""What a command is given to work on: a file, a text, or stdin; a question or a plan."""

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

# A line that begins a task, in the spellings that the parser knows.
_TASK_LINE = re.compile(r"^\s*\$?\d+\s*[.):=]\s*[^\W\d][\w.\-]*\s*\(", re.MULTILINE)
_FILE_NAME = re.compile(r"\S+\.(plan|json|txt)|\.{0,2}/\S+")
_MAX_NAME = 4096
_BYTE_ORDER_MARK = "\ufeff"  # which some editors put before a text


def read_text(source: str) -> str:
    """The content of the file ``source``, of stdin for ``-``, else ``source`` itself.

    Raises:
        UsageError: it looks like a file's name, but there is no such file, or it cannot be read.
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
    """Whether a text is a plan, in the plan language or as JSON, rather than a question."""
    return text.lstrip().startswith("{") or _TASK_LINE.search(text) is not None


class ReadPlan(NamedTuple):
    """A plan as it was read.

    Attributes:
        plan: what could be read of it.
        found: what there is to say about it; errors among it mean that parts are missing.
        spans: where its tasks stand in the text; ``None`` for JSON.
    """

    plan: Plan
    found: list[Diagnostic]
    spans: Mapping[int, CallSource] | None


def read_plan(text: str) -> ReadPlan:
    """A plan from its text or JSON.

    Raises:
        PlanError: it is JSON that is no plan, or a text with nothing of a plan in it.
    """
    if text.lstrip().startswith("{"):
        return ReadPlan(plan_from_json(text), [], None)
    if not is_plan(text):
        raise PlanError(
            "this is no plan: no line has a numbered call",
            hint='a line of a plan reads: 1. country("Japan")',
        )
    from llmcompiler.language import Parser

    parser = Parser(inputs="declare")
    parser.feed(text)
    parser.close()
    return ReadPlan(parser.plan(), list(parser.diagnostics), parser.spans)


def check(read: ReadPlan, tools: Mapping[str, Tool]) -> ReadPlan:
    """The plan, what could be read of it checked against tools, all findings in their order."""
    from llmcompiler.passes.check import check_plan
    from llmcompiler.reasoning.tool import with_think

    tools = with_think(tools, read.plan)
    plan, found = check_plan(read.plan, tools, read.spans)
    everything = sorted([*read.found, *found], key=lambda one: (one.line, one.column))
    return ReadPlan(plan, everything, read.spans)


def plan_from_json(text: str) -> Plan:
    """A plan from its JSON form.

    Raises:
        PlanError: it is not JSON, or not a plan; says where.
    """
    from pydantic import ValidationError

    from llmcompiler.plan.model import Plan

    try:
        return Plan.model_validate_json(text)
    except ValidationError as error:
        problems = [
            ": ".join(filter(None, (".".join(map(str, one["loc"])), one["msg"])))
            for one in error.errors(include_url=False)
        ]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise PlanError(
            f"the JSON is not a plan: {problems[0]}{more}",
            hint="llmcompiler schema prints what a plan is",
        ) from error


def sound_plan(read: ReadPlan) -> Plan:
    """The plan, if there are no errors in it; warnings go to stderr.

    Raises:
        PlanError: there are errors; it shows them all.
    """
    errors = [one for one in read.found if one.severity == "error"]
    if errors:
        count = f"{len(errors)} errors" if len(errors) > 1 else "an error"
        raise PlanError(f"the plan has {count}", diagnostics=errors)
    for warning in read.found:
        typer.echo(warning.render(), err=True)
    return read.plan
