"""How errors reach a user of the command line: a sentence and a hint, never a traceback."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from llmcompiler.errors import LLMCompilerError, PlanError, UsageError

if TYPE_CHECKING:
    from llmcompiler.errors import Failure

_PACKAGE = Path(__file__).parent.parent


def exit_code(error: BaseException) -> int:
    """2 if the command cannot be carried out as given, else 1."""
    return 2 if isinstance(error, UsageError | PlanError) else 1


def report(error: BaseException) -> None:
    """Say on stderr what went wrong, whose fault it is, and what to do."""
    if isinstance(error, LLMCompilerError):
        say("error", error.message, error.hint)
        return
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        say("error", "no space is left where it was to write", "make room, or write elsewhere")
        return
    say(
        "error",
        f"this is a bug in llmcompiler: {type(error).__name__}: {error}{_place(error)}",
        "set LLMCOMPILER_DEBUG=1 to see the traceback, and report it",
    )


def report_failure(failure: Failure) -> None:
    """Say on stderr why a run failed."""
    if failure.blame == "bug":
        message = f"this is a bug in llmcompiler: {failure.type}: {failure.message}"
        say("error", message, "set LLMCOMPILER_DEBUG=1 to see the traceback, and report it")
    else:
        say("error", failure.message, failure.hint)


def say(kind: str, message: str, hint: str = "") -> None:
    """Write ``kind: message`` and the hint below it to stderr."""
    typer.echo(f"{kind}: {message}", err=True)
    if hint:
        typer.echo(f"  hint: {hint}", err=True)


def _place(error: BaseException) -> str:
    """Where in this package the error came out."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(_PACKAGE):
            return f" (at {path.relative_to(_PACKAGE.parent)}:{frame.lineno})"
    return ""
