"""Every error that the package raises on purpose, by whose fault it is.

An error says what went wrong and where, and what to do about it (``hint``). Any other exception is
a bug in this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

Blame: TypeAlias = Literal["plan", "tool", "model", "log", "limit", "usage", "bug"]


class Rendered(Protocol):
    """Anything that has a text for people, such as a diagnostic."""

    def render(self) -> str:
        """The text, without a line break at its end."""
        ...


class LLMCompilerError(Exception):
    """Base of all errors that a user or a program can handle.

    Args:
        message: what went wrong, in one sentence, with the name of the thing at fault.
        hint: what the reader can do about it; may be empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class UsageError(LLMCompilerError):
    """The caller asked for something that does not exist or does not fit (exit code 2)."""


class PlanError(LLMCompilerError):
    """The plan, or the planner that wrote it, is at fault.

    Args:
        diagnostics: mistakes in the plan's text, in reading order; the message contains them.
    """

    def __init__(
        self, message: str, *, hint: str = "", diagnostics: Sequence[Rendered] = ()
    ) -> None:
        lines = [message, *(diagnostic.render() for diagnostic in diagnostics)]
        super().__init__("\n".join(lines), hint=hint)
        self.diagnostics = tuple(diagnostics)


class ToolError(LLMCompilerError):
    """A tool could not serve a call.

    A tool raises it if its *caller* can do better. The joiner and the replanner read the message as
    an observation, so it should name the wrong value.

    Args:
        retryable: True if the same call may succeed when repeated.
        retry_after: seconds that the other side asked callers to wait; ``None`` if it did not.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.retryable = retryable
        self.retry_after = retry_after


class ModelError(LLMCompilerError):
    """A model endpoint failed, or answered something that cannot be used.

    Args:
        retryable: True if the same request may succeed when repeated.
        retry_after: seconds that the endpoint asked callers to wait; ``None`` if it did not.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.retryable = retryable
        self.retry_after = retry_after


class CallInterrupted(ModelError):
    """A recorded model call has no end, because its process ended; nobody is to blame."""

    def __init__(self) -> None:
        super().__init__(
            "the process ended while the model was writing", hint="ask again", retryable=True
        )


class LogError(LLMCompilerError):
    """The run store is missing, damaged, busy, or of another version."""


class LimitReached(LLMCompilerError):
    """A limit of the run (deadline, calls, tokens, cost) was reached.

    Args:
        limit: the limit's name.
    """

    def __init__(self, message: str, *, limit: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.limit = limit


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call failed, as data.

    Attributes:
        blame: whose fault it is.
        type: the exception's class name.
        message: what went wrong.
        hint: what to do about it; may be empty.
        retryable: True if the same call may succeed when repeated.
    """

    blame: Blame
    type: str
    message: str
    hint: str = ""
    retryable: bool = False


_BLAME: tuple[tuple[type[BaseException], Blame], ...] = (
    (PlanError, "plan"),
    (ToolError, "tool"),
    (ModelError, "model"),
    (LogError, "log"),
    (LimitReached, "limit"),
    (UsageError, "usage"),
)


def failure_of(error: BaseException, otherwise: Blame = "bug") -> Failure:
    """The ``Failure`` that describes an exception.

    Args:
        error: the exception.
        otherwise: who is to blame for an exception of another type than this module's; ``tool``
            for exceptions of a tool's own code.
    """
    blame = next((blame for kind, blame in _BLAME if isinstance(error, kind)), otherwise)
    if isinstance(error, LLMCompilerError):
        retryable = bool(getattr(error, "retryable", False))
        return Failure(blame, type(error).__name__, error.message, error.hint, retryable)
    return Failure(blame, type(error).__name__, error_text(error))


_MOST_GROUP_MEMBERS = 5
_MOST_GROUP_DEPTH = 10


def error_text(error: BaseException, depth: int = 0) -> str:
    """What an exception says.

    The text has the exception's notes, and the exceptions inside a group. It is never empty, and
    reading it never raises.

    Args:
        error: the exception.
        depth: how many groups stand around it.
    """
    try:
        text = str(error) or type(error).__name__
    except Exception as unreadable:  # noqa: BLE001 - the message is code of others
        text = f"its message cannot be read: __str__ raised {type(unreadable).__name__}"
    if isinstance(error, BaseExceptionGroup) and depth < _MOST_GROUP_DEPTH:
        members = [
            f"{type(member).__name__}: {error_text(member, depth + 1)}"
            for member in error.exceptions[:_MOST_GROUP_MEMBERS]
        ]
        if (more := len(error.exceptions) - len(members)) > 0:
            members.append(f"and {more} more")
        text = f"{text}: {'; '.join(members)}"
    notes = getattr(error, "__notes__", None)
    return "\n".join([text, *map(str, notes)]) if isinstance(notes, list) else text
