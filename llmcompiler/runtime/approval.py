"""Asking a person before a tool changes the world.

A tool made with ``@tool(effect="write", approve=True)`` is called only once somebody agreed. While
a call waits it holds no slot, everything that does not depend on it goes on, and several calls may
wait at once. With nobody to ask, the run stops as soon as nothing else can go on, and can be
resumed where there is somebody. The module must not know who is asked, or how.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """A call that waits for somebody to agree.

    Attributes:
        run: the run's id.
        task: the task's id.
        index: position in a fan-out; empty for an ordinary call.
        tool: the tool's name.
        arguments: what it would be called with, by parameter name.
    """

    run: str
    task: int
    index: tuple[int, ...]
    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Approve:
    """The call may be made.

    Attributes:
        arguments: what to call the tool with instead; ``None`` for what was planned.
    """

    arguments: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Deny:
    """The call is not made: it fails, and the joiner reads why.

    Attributes:
        reason: for the joiner and the log; may be empty.
    """

    reason: str = ""


ApprovalDecision: TypeAlias = Approve | Deny

Approver: TypeAlias = Callable[[ApprovalRequest], Awaitable[ApprovalDecision]]
"""Asks somebody. An exception of it ends the run."""
