"""What a person does from the live page: start runs, resume them, decide about calls that wait.

The runs are tasks of the page's event loop; everything that is known of them is in the store, as of
every other run. The module must not know HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from llmcompiler.errors import LLMCompilerError, UsageError
from llmcompiler.events import Event, Index, RunStarted
from llmcompiler.log.journal import Listener
from llmcompiler.runtime.approval import ApprovalDecision, ApprovalRequest, Approve, Deny

if TYPE_CHECKING:
    from llmcompiler.compiler import LLMCompiler
    from llmcompiler.plan.model import Plan
    from llmcompiler.run.run import RunResult

_Place: TypeAlias = tuple[str, int, Index]


class Desk:
    """Runs that were started from the page.

    Args:
        compiler: makes a compiler whose runs ask the given approver; it may open a model, so it is
            called at the first run only.
        read_plan: a checked plan of a text that is one; ``None`` for a question.
    """

    def __init__(
        self,
        compiler: Callable[[Desk], LLMCompiler],
        read_plan: Callable[[str], Plan | None],
    ) -> None:
        self._make = compiler
        self._read_plan = read_plan
        self._compiler: LLMCompiler | None = None
        self._running: set[asyncio.Task[RunResult]] = set()
        self._waiting: dict[_Place, asyncio.Future[ApprovalDecision]] = {}

    async def approve(self, request: ApprovalRequest) -> ApprovalDecision:
        """Wait until somebody decides; it is the compiler's approver."""
        place = request.run, request.task, request.index
        self._waiting[place] = asyncio.get_running_loop().create_future()
        try:
            return await self._waiting[place]
        finally:
            del self._waiting[place]

    def decide(self, run: str, task: int, index: Index, decision: ApprovalDecision) -> None:
        """Let a waiting call go on, or not.

        Raises:
            UsageError: no call of this process's waits there.
        """
        waiting = self._waiting.get((run, task, index))
        if waiting is None or waiting.done():
            raise UsageError(
                f"task {task} of run {run} does not wait here",
                hint="it was decided, or another process runs it; a stopped run can be resumed",
            )
        waiting.set_result(decision)

    async def start(self, text: str, inputs: dict[str, Any]) -> str:
        """Begin a run of a question or a plan, and give its id.

        Raises:
            LLMCompilerError: it cannot begin: a bad plan, a missing input, no model.
        """
        plan = self._read_plan(text)
        if plan is None and inputs:
            raise UsageError("a question takes no inputs", hint="inputs are for saved plans")

        def work(compiler: LLMCompiler, on_event: Listener) -> Awaitable[RunResult]:
            if plan is None:
                return compiler.run(text.strip(), on_event=on_event)
            return compiler.execute(plan, inputs, on_event=on_event)

        return await self._begin(work)

    async def resume(self, run: str) -> str:
        """Go on with a run that was stopped.

        Raises:
            LLMCompilerError: it cannot go on: it is answered, or another process holds it.
        """
        return await self._begin(lambda compiler, listen: compiler.resume(run, on_event=listen))

    async def _begin(self, work: Callable[[LLMCompiler, Listener], Awaitable[RunResult]]) -> str:
        if self._compiler is None:
            self._compiler = await asyncio.to_thread(self._make, self)
        begun: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def listen(event: Event) -> None:
            if isinstance(event, RunStarted) and not begun.done():
                begun.set_result(event.run)

        def ended(task: asyncio.Task[RunResult]) -> None:
            self._running.discard(task)
            failure = None if task.cancelled() else task.exception()
            if failure is not None and not begun.done():
                begun.set_exception(failure)

        task = asyncio.ensure_future(work(self._compiler, listen))
        self._running.add(task)
        task.add_done_callback(ended)
        return await begun

    async def close(self) -> None:
        """Interrupt what runs; the log says so, and the runs can be resumed."""
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._compiler is not None:
            await self._compiler.aclose()


def decision_of(data: dict[str, Any]) -> ApprovalDecision:
    """A decision as the page sends it.

    Raises:
        UsageError: it is none.
    """
    arguments = data.get("arguments")
    if data.get("verdict") == "approved" and (arguments is None or isinstance(arguments, dict)):
        return Approve(arguments)
    if data.get("verdict") == "denied":
        return Deny(str(data.get("reason") or ""))
    raise UsageError("no decision", hint="verdict is approved or denied, arguments an object")


def problem(error: LLMCompilerError) -> dict[str, str]:
    """An error as the page shows it."""
    return {"error": error.message, "hint": error.hint}
