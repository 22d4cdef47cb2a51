"""How the command line prints errors: a sentence and a hint, never a traceback."""

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
    """2 for a wrong use of the command or a wrong plan, else 1."""
    return 2 if isinstance(error, UsageError | PlanError) else 1


def print_error(error: BaseException) -> None:
    """Write to stderr what went wrong, whose fault it is, and what to do."""
    if isinstance(error, LLMCompilerError):
        say("error", error.message, error.hint)
        return
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        say("error", "no space is left on the device", "make room, or write elsewhere")
        return
    say(
        "error",
        f"this is a bug in llmcompiler: {type(error).__name__}: {error}{_raised_at(error)}",
        "set LLMCOMPILER_DEBUG=1 to see the traceback, and report it",
    )


def print_failure(failure: Failure) -> None:
    """Write to stderr why a run failed."""
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


def _raised_at(error: BaseException) -> str:
    """The innermost place in this package that the error passed, as `` (at file:line)``."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(_PACKAGE):
            return f" (at {path.relative_to(_PACKAGE.parent)}:{frame.lineno})"
    return ""
