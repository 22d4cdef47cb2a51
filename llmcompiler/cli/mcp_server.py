"""What ``llmcompiler mcp`` offers other agents: run, plan, check, replay and report as tools.

Each is the command of that name, with data for an answer. A run tells how it goes in progress
notifications, a line each, and is recorded like any other, so that whoever asked can have it shown
and replayed later. The module must not know how clients are reached.
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
from llmcompiler.run.run import RunResult
from llmcompiler.version import VERSION
from llmcompiler.view.plain import PlainView
from llmcompiler.view.report import report_lines
from llmcompiler.view.text import failure_text

if TYPE_CHECKING:
    from mcp.server import MCPServer
    from mcp.server.mcpserver import Context

RunId = Annotated[str, Field(description="A run's id, a unique beginning of one, or: last.")]


class Answered(BaseModel):
    """What became of a run that was asked for.

    Attributes:
        run: its id, for replay and report.
        status: ``answered``, ``failed`` or ``interrupted``.
        answer: the answer; ``None`` unless answered.
        value: the answer as data, for a plan without a question.
        failure: why there is no answer.
        tasks: how many there were.
        seconds: how long it took.
    """

    run: str
    status: str
    answer: str | None
    value: Any
    failure: str | None
    tasks: int
    seconds: float


class Checked(BaseModel):
    """What there is to say about a plan; ``ok`` if none of it is an error."""

    ok: bool
    diagnostics: list[str]


class Replayed(BaseModel):
    """What a replay compared: everything came out as it was recorded."""

    run: str
    status: str
    answer: str | None
    tasks: int
    model_calls: int


def mcp_server(compiler: LLMCompiler) -> MCPServer:
    """The server; ``run_stdio_async`` serves the client at stdin and stdout.

    Args:
        compiler: does the work; it is not closed.
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
    reads = ToolAnnotations(read_only_hint=True)

    # The SDK reads the hint of a context where it is used.
    async def run(
        what: Annotated[str, Field(description="A question, or a plan in the plan language.")],
        context: Context,
        inputs: Annotated[
            dict[str, Any] | None, Field(description="Values of a plan's inputs.")
        ] = None,
    ) -> Answered:
        """Answer a question, or run a plan: as parallel as its data allows, and recorded."""
        with _told():
            plan = None
            if sources.is_plan(what):
                read = sources.check(sources.read_plan(what), compiler.tools)
                plan = sources.sound_plan(read)
            async with _Telling(context) as view:
                result = await (
                    compiler.run(what, on_event=view)
                    if plan is None
                    else compiler.execute(plan, inputs or {}, on_event=view)
                )
            return _answered(result)

    run.__annotations__["context"] = Context

    async def plan(question: str) -> str:
        """Plan a question and run nothing; gives the plan's text, which `run` takes."""
        with _told():
            return print_plan(await compiler.plan(question))

    def check(plan: str) -> Checked:
        """Say what is wrong with a plan, and run nothing."""
        with _told():
            found = sources.check(sources.read_plan(plan), compiler.tools).found
            errors = any(one.severity == "error" for one in found)
            return Checked(ok=not errors, diagnostics=[one.render() for one in found])

    async def replay(run: RunId = "last") -> Replayed:
        """Derive a finished run again from its log, call nothing, and compare every decision."""
        with _told():
            found = await derive_again(compiler.store, run)
            return Replayed(
                run=found.run,
                status=found.status,
                answer=found.answer,
                tasks=found.tasks,
                model_calls=found.model_calls,
            )

    def report(run: RunId = "last") -> str:
        """Show a run from question to answer: plan, every task with what it gave, model calls."""
        with _told():
            found = compiler.store.find(run)
            return "\n".join(report_lines(fold(compiler.store.events(found))))

    server.add_tool(run)
    for each in (plan, check, replay, report):
        server.add_tool(each, annotations=reads)
    return server


def _answered(result: RunResult) -> Answered:
    failure = result.failure
    return Answered(
        run=result.run,
        status=result.status,
        answer=result.answer,
        value=result.value,
        failure=None if failure is None else failure_text(failure),
        tasks=len(result.observations),
        seconds=result.seconds,
    )


@contextmanager
def _told() -> Iterator[None]:
    """Errors that users are meant to handle reach the client with their hint."""
    from mcp.server.mcpserver.exceptions import ToolError

    try:
        yield
    except LLMCompilerError as error:
        raise ToolError(str(error)) from error


class _Telling:
    """Tells a client, line by line, what a view would show."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()

    async def __aenter__(self) -> PlainView:
        self._teller = asyncio.create_task(self._tell())
        return PlainView(_Lines(self._lines))  # type: ignore[arg-type]

    async def __aexit__(self, *_: object) -> None:
        self._lines.put_nowait(None)
        await self._teller

    async def _tell(self) -> None:
        said = 0
        while (line := await self._lines.get()) is not None:
            said += 1
            await self._context.report_progress(said, message=line)


@dataclass(frozen=True, slots=True)
class _Lines:
    """A stream whose lines go to a queue."""

    queue: asyncio.Queue[str | None]

    def write(self, text: str) -> None:
        self.queue.put_nowait(text.strip())

    def flush(self) -> None:
        """Nothing is held back."""


async def serve(compiler: LLMCompiler) -> None:
    """Serve the client at stdin and stdout until it goes."""
    try:
        await mcp_server(compiler).run_stdio_async()
    finally:
        await compiler.aclose()
