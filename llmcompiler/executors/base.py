"""The seam between the engine and the place where tool calls run."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from llmcompiler.tools.base import Tool
from llmcompiler.tools.context import CallContext


class ToolCall:
    """One call, its arguments bound.

    Attributes:
        tool: what to call.
        arguments: by parameter name, validated.
        context: what the tool may know of the run.
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
        """The tool has returned ``value``, and the future is about to.

        An executor whose future is an asyncio task may say so from inside it, as the last thing:
        whoever waits for the call need then not wait for the loop to come round. One that does
        also says when a tool has ``raised``, so that calls are heard to end in their order. Said
        in any other task it counts for nothing, as the future may still come to something else.
        """

    def raised(self) -> None:
        """The tool has raised an exception, and the future is about to."""


class Executor(Protocol):
    """Runs tool calls. One serves many runs at once."""

    def submit(self, call: ToolCall) -> asyncio.Future[Any]:
        """Start the call now.

        Returns:
            A future of the tool's raw value or exception. Cancelling it stops the call: at its
            next await, or for a sync tool as soon as the tool looks at its cancellation token.
        """
        ...

    async def aclose(self) -> None:
        """Free what the executor holds. Calls in flight must have ended. May be called twice."""
        ...
