"""Tool calls in this process: async tools on the event loop, sync tools in threads.

Threads are anyio's: they are daemons, so a sync tool that never returns cannot keep the process
alive after its run was cancelled, and they are reused, so a call costs no thread start.
"""

from __future__ import annotations

import asyncio
import functools
import weakref
from typing import TYPE_CHECKING, Any

from llmcompiler.errors import ToolError
from llmcompiler.executors.base import ToolCall
from llmcompiler.tools.context import set_current_call

if TYPE_CHECKING:
    import anyio


class LocalExecutor:
    """Runs tool calls in this process.

    Args:
        threads: most sync calls at a time; the rest wait for a thread.
    """

    def __init__(self, threads: int = 64) -> None:
        self._threads = threads
        # A limiter belongs to one event loop, and an executor may set_current_call several in turn.
        self._limiters: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, anyio.CapacityLimiter
        ] = weakref.WeakKeyDictionary()

    def submit(self, call: ToolCall) -> asyncio.Future[Any]:
        """Start the call; see ``Executor.submit``."""
        if call.has_handles:
            run = _refuse(call)
        else:
            run = self._on_loop(call) if call.tool.is_async else self._in_thread(call)
        return asyncio.get_running_loop().create_task(run, name=call.context.key)

    async def _on_loop(self, call: ToolCall) -> Any:
        set_current_call(call.context)
        try:
            value = await call.tool.function(**call.arguments)
        except SystemExit as error:
            raise _exited(call, error) from error
        except BaseException:
            call.raised()
            raise
        call.returned(value)
        return value

    async def _in_thread(self, call: ToolCall) -> Any:
        import anyio
        import anyio.to_thread

        loop = asyncio.get_running_loop()
        if loop not in self._limiters:
            self._limiters[loop] = anyio.CapacityLimiter(self._threads)
        # The thread gets a copy of this task's context, so the tool finds its call there too.
        set_current_call(call.context)
        try:
            value = await anyio.to_thread.run_sync(
                functools.partial(call.tool.function, **call.arguments),
                abandon_on_cancel=True,
                limiter=self._limiters[loop],
            )
        except SystemExit as error:
            raise _exited(call, error) from error
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                call.context.cancelled.set()
            call.raised()
            raise
        call.returned(value)
        return value

    async def aclose(self) -> None:
        """Nothing is held: idle threads end by themselves."""


async def _refuse(call: ToolCall) -> Any:
    call.raised()
    raise ToolError(
        f"{call.tool.name} needs a value that is kept on a cluster",
        hint="go on with the executor and the directory of values that the run began with",
    )


def _exited(call: ToolCall, error: SystemExit) -> ToolError:
    """What the call fails with: the exit would end the whole program from inside a tool."""
    call.raised()
    return ToolError(f"{call.tool.name} called sys.exit({error.code!r})")
