"""The interface between the engine and the place where tool calls run."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from llmcompiler.tools.base import Tool
from llmcompiler.tools.context import CallContext


class ToolCall:
    """One call, ready to be made.

    Attributes:
        tool: the tool to call.
        arguments: by parameter name, validated.
        context: what the tool can learn about the run.
        has_handles: True if there are value handles in the arguments (``ValueHandle``). The
            arguments are then as planned: whoever has the values validates them.
    """

    __slots__ = ("arguments", "context", "has_handles", "tool")

    def __init__(
        self,
        tool: Tool,
        arguments: dict[str, Any],
        context: CallContext,
        has_handles: bool = False,
    ) -> None:
        self.tool = tool
        self.arguments = arguments
        self.context = context
        self.has_handles = has_handles

    def returned(self, value: Any) -> None:
        """Tell the engine early that the tool has returned ``value``.

        An executor whose future is an asyncio task may call this as the last thing in that task, so
        that the engine need not wait for the next turn of the event loop. Such an executor must
        also call ``raised``, so that the engine sees calls end in their order. Ignored unless
        called from the task that ``submit`` returned.
        """

    def raised(self) -> None:
        """Tell the engine early that the tool has raised an exception; see ``returned``."""


class Executor(Protocol):
    """Runs tool calls. One executor serves many runs at once."""

    def submit(self, call: ToolCall) -> asyncio.Future[Any]:
        """Start the call now.

        Returns:
            A future of the tool's raw value or exception, or of a ``ValueHandle`` for a result
            that is stored elsewhere. Cancelling the future stops the call: at its next await, or
            for a sync tool as soon as the tool looks at its cancellation token.
        """
        ...

    async def aclose(self) -> None:
        """Release what the executor holds. All calls must have ended. May be called twice."""
        ...
