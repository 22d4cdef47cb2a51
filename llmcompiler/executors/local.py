"""Tool calls in this process: async tools on the event loop, sync tools in threads.

Threads are anyio's. They are daemons, so a sync tool that never returns cannot keep the process
alive after its run was cancelled. They are reused, so a call does not start a thread.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from llmcompiler.errors import ToolError
from llmcompiler.executors.base import ToolCall
from llmcompiler.tools.context import set_current_call
from llmcompiler.tools.returned import is_unread, read_async, read_iterator

if TYPE_CHECKING:
    import anyio


class LocalExecutor:
    """Runs tool calls in this process.

    Args:
        threads: how many sync calls run at a time; further calls wait for a thread.
    """

    def __init__(self, threads: int = 64) -> None:
        self._threads = threads
        # A limiter belongs to one event loop, and an executor may serve several in turn.
        self._limiters: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, anyio.CapacityLimiter
        ] = weakref.WeakKeyDictionary()

    def submit(self, call: ToolCall) -> asyncio.Future[Any]:
        """Start the call; see ``Executor.submit``."""
        if call.has_handles:
            running = _refuse(call)
        elif call.tool.is_async:
            running = self._run_on_loop(call)
        else:
            running = self._run_in_thread(call)
        return asyncio.get_running_loop().create_task(running, name=call.context.key)

    async def _run_on_loop(self, call: ToolCall) -> Any:
        set_current_call(call.context)
        try:
            value = await read_async(call.tool.function(**call.arguments))
            if isinstance(value, Iterator):  # each item may take long, so a thread reads them
                value = await self._in_thread(call, read_iterator, value, call.context)
        except SystemExit as error:
            raise _exit_error(call, error) from error
        except BaseException:
            call.raised()
            raise
        call.returned(value)
        return value

    async def _run_in_thread(self, call: ToolCall) -> Any:
        # The thread gets a copy of this task's context, so the tool finds its call there too.
        set_current_call(call.context)
        try:
            value = await self._in_thread(call, _call_function, call)
            while is_unread(value):  # a plain function may return a coroutine of an async one
                value = await read_async(value)
                if isinstance(value, Iterator):
                    value = await self._in_thread(call, read_iterator, value, call.context)
        except SystemExit as error:
            raise _exit_error(call, error) from error
        except BaseException:
            call.raised()
            raise
        call.returned(value)
        return value

    async def _in_thread(self, call: ToolCall, function: Callable[..., Any], *args: Any) -> Any:
        """Run a part of a call in a thread, which goes on if the call is cancelled."""
        import anyio
        import anyio.to_thread

        loop = asyncio.get_running_loop()
        if loop not in self._limiters:
            self._limiters[loop] = anyio.CapacityLimiter(self._threads)
        try:
            return await anyio.to_thread.run_sync(
                function, *args, abandon_on_cancel=True, limiter=self._limiters[loop]
            )
        except asyncio.CancelledError:
            call.context.cancelled.set()
            raise

    async def aclose(self) -> None:
        """Do nothing: idle threads end by themselves."""


def _call_function(call: ToolCall) -> Any:
    """Call a sync tool; the thread also reads what the tool yields."""
    return read_iterator(call.tool.function(**call.arguments), call.context)


async def _refuse(call: ToolCall) -> Any:
    """Fail a call whose arguments hold handles of values that are not in this process."""
    call.raised()
    raise ToolError(
        f"{call.tool.name} needs a value that is kept on a cluster",
        hint="go on with the executor and the directory of values that the run began with",
    )


def _exit_error(call: ToolCall, error: SystemExit) -> ToolError:
    """The error of a tool that called ``sys.exit``, which must not end the whole program."""
    call.raised()
    return ToolError(f"{call.tool.name} called sys.exit({error.code!r})")
