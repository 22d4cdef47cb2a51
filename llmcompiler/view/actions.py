"""Actions of the live page: start a run, resume a run, decide about a call that waits.

Each run is a task of the page's event loop. The page reads its progress from the store, like that
of any other run.
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
    from llmcompiler.run.result import RunResult

_RunCall: TypeAlias = tuple[str, int, Index]
"""A call of a run: the run's id, the task and the index of the element."""


class PageActions:
    """Starts, resumes and approves on behalf of the page.

    Args:
        open_compiler: returns a compiler whose approver is ``approve`` of the given object. It may
            open a model, so it is called only once, at the first run.
        parse_plan: returns the checked plan of a text; ``None`` if the text is a question.
    """

    def __init__(
        self,
        open_compiler: Callable[[PageActions], LLMCompiler],
        parse_plan: Callable[[str], Plan | None],
    ) -> None:
        self._open_compiler = open_compiler
        self._parse_plan = parse_plan
        self._compiler: LLMCompiler | None = None
        self._running: set[asyncio.Task[RunResult]] = set()
        self._pending: dict[_RunCall, asyncio.Future[ApprovalDecision]] = {}

    async def approve(self, request: ApprovalRequest) -> ApprovalDecision:
        """Wait for the decision about a call. This is the compiler's approver."""
        call = request.run, request.task, request.index
        self._pending[call] = asyncio.get_running_loop().create_future()
        try:
            return await self._pending[call]
        finally:
            del self._pending[call]

    def decide(self, run: str, task: int, index: Index, decision: ApprovalDecision) -> None:
        """Pass the decision to the call that waits for it.

        Raises:
            UsageError: no call of this process waits there.
        """
        pending = self._pending.get((run, task, index))
        if pending is None or pending.done():
            raise UsageError(
                f"task {task} of run {run} does not wait here",
                hint="it was decided, or another process runs it; a stopped run can be resumed",
            )
        pending.set_result(decision)

    async def start(self, text: str, inputs: dict[str, Any]) -> str:
        """Start a run of a question or a plan, and return its id.

        Raises:
            LLMCompilerError: the run cannot start: a wrong plan, a missing input, no model.
        """
        plan = self._parse_plan(text)
        if plan is None and inputs:
            raise UsageError("a question takes no inputs", hint="inputs are for saved plans")

        def work(compiler: LLMCompiler, on_event: Listener) -> Awaitable[RunResult]:
            if plan is None:
                return compiler.run(text.strip(), on_event=on_event)
            return compiler.execute(plan, inputs, on_event=on_event)

        return await self._start_run(work)

    async def resume(self, run: str) -> str:
        """Continue a run that was stopped, and return its id.

        Raises:
            LLMCompilerError: the run cannot continue: it is answered, or another process owns it.
        """
        return await self._start_run(
            lambda compiler, listener: compiler.resume(run, on_event=listener)
        )

    async def _start_run(
        self, work: Callable[[LLMCompiler, Listener], Awaitable[RunResult]]
    ) -> str:
        if self._compiler is None:
            self._compiler = await asyncio.to_thread(self._open_compiler, self)
        run_id: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def on_event(event: Event) -> None:
            if isinstance(event, RunStarted) and not run_id.done():
                run_id.set_result(event.run)

        def on_end(task: asyncio.Task[RunResult]) -> None:
            self._running.discard(task)
            failure = None if task.cancelled() else task.exception()
            if failure is not None and not run_id.done():
                run_id.set_exception(failure)

        task = asyncio.ensure_future(work(self._compiler, on_event))
        self._running.add(task)
        task.add_done_callback(on_end)
        return await run_id

    async def close(self) -> None:
        """Interrupt the running runs. They are recorded as interrupted and can be resumed."""
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._compiler is not None:
            await self._compiler.aclose()


def parse_decision(data: dict[str, Any]) -> ApprovalDecision:
    """Parse a decision that the page sent.

    Raises:
        UsageError: the data are not a decision.
    """
    arguments = data.get("arguments")
    if data.get("verdict") == "approved" and (arguments is None or isinstance(arguments, dict)):
        return Approve(arguments)
    if data.get("verdict") == "denied":
        return Deny(str(data.get("reason") or ""))
    raise UsageError("no decision", hint="verdict is approved or denied, arguments an object")


def error_to_json(error: LLMCompilerError) -> dict[str, str]:
    """An error in the form that the page shows."""
    return {"error": error.message, "hint": error.hint}
