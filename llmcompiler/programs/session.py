"""Runs a program on the engine: the machine says which calls start, the engine makes them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from llmcompiler.errors import Failure, LLMCompilerError, PlanError, ToolError
from llmcompiler.events import BlockChosen, Index
from llmcompiler.log.journal import Journal
from llmcompiler.programs.commands import Closed, Decided, DropCall, Ended, StartCall, ToolFailed
from llmcompiler.programs.machine import Machine
from llmcompiler.programs.meter import CodeError
from llmcompiler.programs.program import CompiledStatement, ProgramCompiler
from llmcompiler.programs.values import DATE_TYPES
from llmcompiler.runtime.engine import Engine
from llmcompiler.tools.base import Tool


class ProgramSession:
    """A program that runs, perhaps while it is still written.

    Args:
        engine: makes the calls.
        journal: receives the choices of conditions.
        plan: the plan's number in the run.
        program: compiles the text.
        tools: by name.
        inputs: values that variables have at the start.
        max_iterations: most iterations of one loop.
    """

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        plan: int,
        program: ProgramCompiler,
        tools: Mapping[str, Tool],
        inputs: Mapping[str, Any],
        *,
        max_iterations: int,
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._plan = plan
        self._tools = tools
        self._machine = Machine(
            program.helpers,
            inputs,
            max_iterations=max_iterations,
            aliases=program.analysis.aliases,
        )
        self._open_sites: set[int] = set()
        self._dropped: set[int] = set()
        self._ended = asyncio.Event()
        self._is_pumping = False
        engine.on_site_call_ended = self._on_call_ended

    def add(self, statement: CompiledStatement) -> None:
        """Take in the next statement; what it calls starts as soon as its data is there."""
        for task in statement.tasks:
            self._engine.add_site(self._plan, task, statement.depths[task.id])
            self._open_sites.add(task.id)
        self._machine.add(statement.statements)
        self._pump()

    def close(self) -> None:
        """The program's text has ended."""
        self._machine.close()
        self._pump()

    async def wait(self) -> Ended:
        """Wait until the program and all its calls have ended.

        Raises:
            LimitReached: a limit stopped the run, or a call waits for an approval that nobody is
                there to give.
            ToolError: a tool whose policy is ``fail`` failed.
        """
        idle = asyncio.ensure_future(self._engine.wait_idle())
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            while self._machine.ended is None:
                await asyncio.wait({idle, ended}, return_when=asyncio.FIRST_COMPLETED)
                if idle.done():
                    idle.result()
                    if self._machine.ended is None and self._machine.waiting == 0:
                        raise AssertionError("the program waits for nothing")
                    idle = asyncio.ensure_future(self._engine.wait_idle())
        finally:
            for task in (idle, ended):
                task.cancel()
        result = self._machine.ended
        if result.error is not None:
            for site in sorted(self._dropped & self._open_sites):
                await self._engine.cancel(site, "the program failed before it")
        for site in sorted(self._open_sites):
            self._engine.close_site(site)
        self._open_sites.clear()
        await self._engine.wait_idle()
        return result

    def _on_call_ended(self, task: int, index: Index, value: Any, failure: Failure | None) -> None:
        if failure is None:
            self._machine.returned(task, index, value)
        else:
            self._machine.failed(task, index, ToolFailed(failure.message, failure))
        self._pump()

    def _pump(self) -> None:
        if self._is_pumping:
            return
        self._is_pumping = True
        try:
            while commands := self._machine.take():
                for command in commands:
                    self._carry_out(command)
        finally:
            self._is_pumping = False
        if self._machine.ended is not None:
            self._ended.set()

    def _carry_out(self, command: StartCall | DropCall | Decided | Closed) -> None:
        match command:
            case StartCall():
                tool = self._tools[command.tool]
                names = tool.parameters_schema.get("properties", ())
                arguments = dict(zip(names, command.args, strict=False)) | command.kwargs
                try:
                    if len(arguments) < len(command.args) + len(command.kwargs):
                        tool.bind(command.args, command.kwargs)  # says what does not fit
                except ToolError as error:
                    failed = ToolFailed(error.message)
                    self._machine.failed(command.site, command.index, failed)
                    return
                self._engine.call_site(command.site, command.index, arguments)
            case DropCall():
                self._dropped.add(command.site)
            case Decided():
                self._journal.emit(
                    BlockChosen,
                    plan=self._plan,
                    number=command.number,
                    index=command.index,
                    taken=command.taken,
                    line=command.line,
                )
            case Closed():
                for site in command.sites:
                    if site in self._open_sites:
                        self._open_sites.discard(site)
                        self._engine.close_site(site)


def failure_of_program(ended: Ended) -> LLMCompilerError | None:
    """The error that a program ended with; ``None`` if it ended well."""
    error = ended.error
    if error is None:
        return None
    where = f"line {ended.line}: " if ended.line else ""
    if isinstance(error, CodeError):
        text = f"{error.kind}: {error.message}" if error.message else error.kind
        return PlanError(f"the program failed: {where}{text}")
    hint = error.detail.hint if isinstance(error.detail, Failure) else ""
    return ToolError(f"the program failed: {where}{error.message}", hint=hint)


def plain_value(value: Any) -> Any:
    """A program's value as JSON: tuples and sets become lists, dates become text."""
    match value:
        case dict():
            return {str(key): plain_value(item) for key, item in value.items()}
        case list() | tuple():
            return [plain_value(item) for item in value]
        case set() | frozenset():
            items = [plain_value(item) for item in value]
            try:
                return sorted(items)
            except TypeError:
                return items
        case _ if isinstance(value, DATE_TYPES):
            return str(value)
        case range():
            return list(value)
        case _:
            return value
