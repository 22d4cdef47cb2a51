"""The MCP server of ``llmcompiler mcp``: run, plan, check, replay and report as tools.

Each tool does what the command of that name does, and returns data. A run sends its progress as
notifications, one for each line. It is recorded like any other run, so the client can replay it or
get its report later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field

from llmcompiler.cli import sources
from llmcompiler.compiler import LLMCompiler
from llmcompiler.errors import LLMCompilerError
from llmcompiler.history.replay import replay as derive_again
from llmcompiler.history.state import fold
from llmcompiler.language import print_plan
from llmcompiler.language.forms import parse_plan_text
from llmcompiler.run.result import RunResult
from llmcompiler.version import VERSION
from llmcompiler.view.plain import PlainView
from llmcompiler.view.report import report_lines
from llmcompiler.view.text import failure_text

if TYPE_CHECKING:
    from mcp.server import MCPServer
    from mcp.server.mcpserver import Context

RunId = Annotated[str, Field(description="A run's id, a unique beginning of one, or: last.")]


class RunReply(BaseModel):
    """The outcome of a run.

    Attributes:
        run: its id, for replay and report.
        status: ``answered``, ``failed`` or ``interrupted``.
        answer: the answer; ``None`` unless answered.
        value: the answer as data, for a plan without a question.
        failure: why there is no answer.
        tasks: the number of tasks.
        seconds: the duration of the run.
    """

    run: str
    status: str
    answer: str | None
    value: Any
    failure: str | None
    tasks: int
    seconds: float


class CheckReply(BaseModel):
    """The diagnostics of a plan; ``ok`` if none of them is an error."""

    ok: bool
    diagnostics: list[str]


class ReplayReply(BaseModel):
    """The run that a replay derived again. Every decision was the recorded one."""

    run: str
    status: str
    answer: str | None
    tasks: int
    model_calls: int


def mcp_server(compiler: LLMCompiler) -> MCPServer:
    """The server; ``run_stdio_async`` serves the client at stdin and stdout.

    Args:
        compiler: does the work. The server does not close it.
    """
    from mcp.server import MCPServer
    from mcp.server.mcpserver import Context
    from mcp.types import ToolAnnotations

    names = ", ".join(compiler.tools)
    server = MCPServer(
        "llmcompiler",
        version=VERSION,
        instructions="Hand over a question that needs several look-ups or calculations: it is "
        f"planned as a DAG, run in parallel and recorded. Tools that plans can use: {names}.",
        log_level="WARNING",
    )
    read_only = ToolAnnotations(read_only_hint=True)

    # The SDK looks for the class itself in the annotations, so it is set below the function.
    async def run(
        what: Annotated[str, Field(description="A question, or a plan in the plan language.")],
        context: Context,
        inputs: Annotated[
            dict[str, Any] | None, Field(description="Values of a plan's inputs.")
        ] = None,
    ) -> RunReply:
        """Answer a question, or run a plan: as parallel as its data allows, and recorded."""
        with _as_tool_errors():
            plan = None
            if sources.is_plan(what):
                parsed = sources.check_parsed_plan(sources.parse_plan_source(what), compiler.tools)
                plan = sources.require_valid_plan(parsed)
            async with _ProgressStream(context) as view:
                result = await (
                    compiler.run(what, on_event=view)
                    if plan is None
                    else compiler.execute(plan, inputs or {}, on_event=view)
                )
            return _run_reply(result)

    async def run_program(
        code: Annotated[
            str,
            Field(
                description="Python in a subset of the language. It calls the tools as functions; "
                "the answer is what main returns, or the value of the variable answer."
            ),
        ],
        context: Context,
        inputs: Annotated[
            dict[str, Any] | None, Field(description="Values of the parameters of main.")
        ] = None,
    ) -> RunReply:
        """Run a program: checked as a whole first, then as parallel as its data allows, recorded.

        A mistake in it is told with its place, and then nothing has run.
        """
        with _as_tool_errors():
            parsed = sources.check_parsed_plan(
                parse_plan_text(code, is_python=True), compiler.tools
            )
            program = sources.require_valid_plan(parsed)
            async with _ProgressStream(context) as view:
                result = await compiler.execute(program, inputs or {}, on_event=view)
            return _run_reply(result)

    run.__annotations__["context"] = run_program.__annotations__["context"] = Context

    async def plan(question: str) -> str:
        """Plan a question and run nothing; gives the plan's text, which `run` takes."""
        with _as_tool_errors():
            return print_plan(await compiler.plan(question))

    def check(plan: str) -> CheckReply:
        """Say what is wrong with a plan, and run nothing."""
        with _as_tool_errors():
            parsed = sources.check_parsed_plan(sources.parse_plan_source(plan), compiler.tools)
            diagnostics = parsed.diagnostics
            errors = any(item.severity == "error" for item in diagnostics)
            return CheckReply(ok=not errors, diagnostics=[item.render() for item in diagnostics])

    async def replay(run: RunId = "last") -> ReplayReply:
        """Derive a finished run again from its log, call nothing, and compare every decision."""
        with _as_tool_errors():
            comparison = await derive_again(compiler.store, run)
            return ReplayReply(
                run=comparison.run,
                status=comparison.status,
                answer=comparison.answer,
                tasks=comparison.tasks,
                model_calls=comparison.model_calls,
            )

    def report(run: RunId = "last") -> str:
        """Show a run from question to answer: plan, every task with what it gave, model calls."""
        with _as_tool_errors():
            run_id = compiler.store.find(run)
            return "\n".join(report_lines(fold(compiler.store.events(run_id))))

    server.add_tool(run)
    server.add_tool(run_program)
    for command in (plan, check, replay, report):
        server.add_tool(command, annotations=read_only)
    return server


def _run_reply(result: RunResult) -> RunReply:
    failure = result.failure
    return RunReply(
        run=result.run,
        status=result.status,
        answer=result.answer,
        value=result.value,
        failure=None if failure is None else failure_text(failure),
        tasks=len(result.observations),
        seconds=result.seconds,
    )


@contextmanager
def _as_tool_errors() -> Iterator[None]:
    """Pass errors that a user can handle to the client, with their hints."""
    from mcp.server.mcpserver.exceptions import ToolError

    try:
        yield
    except LLMCompilerError as error:
        raise ToolError(str(error)) from error


class _ProgressStream:
    """Sends the lines of a plain view to the client, as progress notifications."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()

    async def __aenter__(self) -> PlainView:
        self._sender = asyncio.create_task(self._send())
        return PlainView(_LineQueue(self._lines))  # type: ignore[arg-type]

    async def __aexit__(self, *_: object) -> None:
        self._lines.put_nowait(None)
        await self._sender

    async def _send(self) -> None:
        count = 0
        while (line := await self._lines.get()) is not None:
            count += 1
            await self._context.report_progress(count, message=line)


@dataclass(frozen=True, slots=True)
class _LineQueue:
    """A text stream that puts each line into a queue."""

    queue: asyncio.Queue[str | None]

    def write(self, text: str) -> None:
        self.queue.put_nowait(text.strip())

    def flush(self) -> None:
        """Do nothing: ``write`` buffers nothing."""


async def serve(compiler: LLMCompiler) -> None:
    """Serve the client at stdin and stdout until it disconnects."""
    try:
        await mcp_server(compiler).run_stdio_async()
    finally:
        await compiler.aclose()
