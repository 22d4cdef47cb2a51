"""Exceptions as data: what an error says of itself, and whose fault it is."""

from __future__ import annotations

from llmcompiler.errors import (
    LimitReached,
    LLMCompilerError,
    LogError,
    ModelError,
    PlanError,
    ToolError,
    UsageError,
)
from llmcompiler.events import Blame, Failure

_BLAME: tuple[tuple[type[BaseException], Blame], ...] = (
    (PlanError, "plan"),
    (ToolError, "tool"),
    (ModelError, "model"),
    (LogError, "log"),
    (LimitReached, "limit"),
    (UsageError, "usage"),
)


def failure_of(error: BaseException, otherwise: Blame = "bug") -> Failure:
    """Describe an exception.

    Args:
        error: what was raised.
        otherwise: who is to blame where the exception's type does not say: ``tool`` for whatever
            a tool's own code raises.
    """
    blame = next((blame for kind, blame in _BLAME if isinstance(error, kind)), otherwise)
    if isinstance(error, LLMCompilerError):
        retryable = bool(getattr(error, "retryable", False))
        return Failure(blame, type(error).__name__, error.message, error.hint, retryable)
    return Failure(blame, type(error).__name__, str(error) or type(error).__name__)
