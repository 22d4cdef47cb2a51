"""The input of a command: a file, a text or stdin, with a question or a plan inside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from llmcompiler.errors import PlanError, UsageError

if TYPE_CHECKING:
    from llmcompiler.language.forms import ParsedPlan
    from llmcompiler.plan.model import Plan
    from llmcompiler.tools.base import Tool

_FILE_NAME = re.compile(r"\S+\.(plan|json|txt|py)|\.{0,2}/\S+")
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


def is_plan(text: str, source: str = "") -> bool:
    """True if a text is a plan, in any of its forms; otherwise it is a question.

    Args:
        text: what ``read_text`` gave.
        source: where from. A file that ends with ``.py`` is a program.

    Raises:
        UsageError: the file is one of tools.
    """
    from llmcompiler.language.forms import is_plan_text
    from llmcompiler.plan.program_text import defines_tools_only

    if not _is_python_file(source, text):
        return is_plan_text(text)
    if defines_tools_only(text):
        raise UsageError(
            f"{source} defines functions and runs nothing, so it is no plan",
            hint=f"give tools with --tools {source}; a plan in Python calls tools at its top "
            "level, or in a function main",
        )
    return True


def parse_plan_source(text: str, source: str = "") -> ParsedPlan:
    """Parse a plan in any of its forms.

    Args:
        text: what ``read_text`` gave.
        source: where from; see ``is_plan``.

    Raises:
        PlanError: the text is no plan.
        UsageError: the file is one of tools.
    """
    from llmcompiler.language.forms import parse_plan_text

    return parse_plan_text(text, is_python=_is_python_file(source, text) and is_plan(text, source))


def _is_python_file(source: str, text: str) -> bool:
    return source.endswith(".py") and source != text


def check_parsed_plan(parsed: ParsedPlan, tools: Mapping[str, Tool]) -> ParsedPlan:
    """Check a plan against tools. The result holds all diagnostics, in the order of the text."""
    from llmcompiler.language.forms import ParsedPlan
    from llmcompiler.passes.check import check_plan
    from llmcompiler.programs.saved import check_program
    from llmcompiler.reasoning.tool import with_think

    tools = with_think(tools, parsed.plan)
    if parsed.plan.program is not None:
        return ParsedPlan(*check_program(parsed.plan, tools), None)
    plan, diagnostics = check_plan(parsed.plan, tools, parsed.spans)
    ordered = sorted(
        [*parsed.diagnostics, *diagnostics],
        key=lambda diagnostic: (diagnostic.line, diagnostic.column),
    )
    return ParsedPlan(plan, ordered, parsed.spans)


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
