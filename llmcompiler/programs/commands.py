"""What the machine of a program says and is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from llmcompiler.events import Index
from llmcompiler.programs.meter import CodeError


@dataclass(frozen=True, slots=True)
class StartCall:
    """A call may start.

    Attributes:
        site: the task's id.
        index: the iterations that the call stands under, outermost first.
        tool: the tool's name.
        args: positional arguments.
        kwargs: keyword arguments.
    """

    site: int
    index: Index
    tool: str
    args: list[Any]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DropCall:
    """A call that was started is not needed any more: the program failed before it."""

    site: int
    index: Index


@dataclass(frozen=True, slots=True)
class Decided:
    """A condition chose its block.

    Attributes:
        number: the condition's number in the program.
        index: the iterations that it stands under.
        taken: True for the first block.
        line: its line in the program.
    """

    number: int
    index: Index
    taken: bool
    line: int


@dataclass(frozen=True, slots=True)
class Closed:
    """Sites of a statement that has ended: no call of theirs comes any more."""

    sites: tuple[int, ...]


Command: TypeAlias = StartCall | DropCall | Decided | Closed


@dataclass(frozen=True, slots=True)
class ToolFailed:
    """A call failed.

    Attributes:
        message: what the tool said.
        detail: whatever the caller wants back with the program's outcome.
    """

    message: str
    detail: Any = None


@dataclass(frozen=True, slots=True)
class Ended:
    """The program has ended.

    Attributes:
        value: what it returned, or the value of ``answer``; ``None`` if it left the answer open.
        is_open: True if it neither returned a value nor assigned ``answer``.
        error: why it failed; ``None`` if it did not.
        line: the line that failed; 0 if none did.
    """

    value: Any = None
    is_open: bool = False
    error: CodeError | ToolFailed | None = None
    line: int = 0
