"""What a tool's function returned, read to its end: awaitables are awaited, generators collected.

A plain function may return a coroutine, for example if it wraps an async one. A generator runs code
of the tool while it is read, so it is read as a part of the call, under the call's timeout.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

from llmcompiler.errors import ToolError
from llmcompiler.tools.context import CallContext


def read_iterator(value: Any, context: CallContext) -> Any:
    """The items of a generator or another iterator as a list; any other value as it is.

    Runs in the thread of a sync tool, because the next item may take long.

    Raises:
        ToolError: nobody waits for the result any more.
    """
    if not isinstance(value, Iterator):
        return value
    items = []
    for item in value:
        if context.cancelled.is_set():
            raise ToolError("nobody waits for the rest of what the tool yields")
        items.append(item)
    return items


async def read_async(value: Any) -> Any:
    """The result of an awaitable and the items of an async iterator; any other value as it is."""
    if inspect.isawaitable(value):
        value = await value
    if isinstance(value, AsyncIterator):
        return [item async for item in value]
    return value


def is_unread(value: Any) -> bool:
    """True if the value has to be awaited or collected."""
    return isinstance(value, Iterator | AsyncIterator) or inspect.isawaitable(value)
