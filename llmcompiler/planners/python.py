"""The program planner: a model writes Python, and each statement starts as soon as it is whole.

The model's text passes the compiler of programs as it arrives: reader, lowering, checks. If it
breaks, the statements before the break stay, since their calls are running already. The planner
shows the model the diagnostics and asks for the rest, a bounded number of times. A model that
begins its program anew is understood: statements that the program has already are not run twice.

A program that assigns ``answer`` needs no joiner. One that leaves it open is joined from the
results of its calls.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing

from llmcompiler.errors import CallInterrupted, ModelError, PlanError
from llmcompiler.language.spelling import END_MARKER
from llmcompiler.llm.base import Completion, Request
from llmcompiler.llm.messages import Message
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.planners.base import PlanItem, PlanningContext
from llmcompiler.planners.program_examples import select_programs
from llmcompiler.planners.stubs import stubs
from llmcompiler.planners.text import (
    closing,
    describe_earlier_results,
    format_guidelines,
    with_relevant_tools,
)
from llmcompiler.programs.program import CompiledStatement, ProgramCompiler
from llmcompiler.prompting.prompts import Prompts, fill
from llmcompiler.tools.base import Tool
from llmcompiler.tools.calc import TOOLS as CALCULATORS

MAX_TOKENS = 1024
"""Most tokens of one answer of the model; it stops a model that repeats itself without end."""


class PythonPlanner:
    """A planner that streams a program out of a model (a ``Planner``).

    Args:
        prompts: the texts that the model reads.

    A program in place of single calls is from CodeAct (Wang et al., arXiv 2402.01030). Running its
    statements while it is written, and going on from its valid prefix, are as in ``TextPlanner``.
    """

    name = "python"

    def __init__(self, prompts: Prompts | None = None) -> None:
        self._prompts = prompts or Prompts()

    async def plan(self, context: PlanningContext) -> AsyncGenerator[PlanItem, None]:
        """See ``Planner.plan``."""
        context = with_relevant_tools(context)
        context = dataclasses.replace(context, tools=without_calculators(context.tools))
        draft = _ProgramDraft(context)
        prefix = self._prefix(context)
        question = self._question(context)
        repairs = context.repairs
        while True:
            request = Request(
                (*prefix, Message("user", question)), max_tokens=MAX_TOKENS, stop=(END_MARKER,)
            )
            async with aclosing(draft.extend(request)) as items:
                async for item in items:
                    yield item
            if draft.failure is None and not draft.problems:
                return
            if draft.failure is not None and not draft.may_go_on:
                raise draft.failure
            # An answer that a crash of this program cut short is no mistake of the model.
            if not isinstance(draft.failure, CallInterrupted):
                if repairs == 0:
                    break
                repairs -= 1
            if draft.source or draft.problems:
                question = self._ask_to_repair(context, draft)
        if draft.failure is not None:
            raise draft.failure
        if not draft.source:
            raise PlanError(
                "the planner wrote no program that can be executed",
                diagnostics=tuple(draft.problems),
                hint="ask in other words, or use a larger model",
            )

    def _prefix(self, context: PlanningContext) -> tuple[Message, ...]:
        """The rules and the examples, the same for every question, for the model's prefix cache."""
        prompts = self._prompts
        system = fill(
            prompts.program,
            tools=stubs(context.tools),
            guidelines=format_guidelines(prompts, context.tools),
        )
        messages = [Message("system", system)]
        for example in select_programs(prompts, context.tools):
            messages.append(Message("user", fill(prompts.question, question=example.question)))
            messages.append(Message("assistant", example.program.strip()))
        return tuple(messages)

    def _question(self, context: PlanningContext) -> str:
        """The question; in a later round with the program before and its results."""
        if not context.rounds:
            return fill(self._prompts.question, question=context.question)
        last = context.rounds[-1]
        return fill(
            self._prompts.program_replan,
            question=context.question,
            program=(last.plan.program or "").strip() or "pass",
            observations=describe_earlier_results(context),
            reason=last.reason,
        )

    def _ask_to_repair(self, context: PlanningContext, draft: _ProgramDraft) -> str:
        problems = "\n".join(problem.render() for problem in draft.problems)
        return fill(
            self._prompts.program_repair,
            asked=self._question(context),
            program=draft.source.strip() or "(nothing yet)",
            problems=problems or "(it broke off)",
        )


THOUGHT_END = "</think>"
"""Ends a thought whose beginning the chat template wrote, so that it is not in the answer."""


def without_calculators(tools: Mapping[str, Tool]) -> Mapping[str, Tool]:
    """The tools less those that compute what Python computes itself."""
    known = {(tool.name, tool.description) for tool in CALCULATORS}
    return {
        name: tool for name, tool in tools.items() if (tool.name, tool.description) not in known
    }


class _ProgramDraft:
    """A program in the making: its valid prefix, and the problems behind it.

    Attributes:
        problems: errors in the model's last answer.
        failure: the error that the last call of the model failed with.
        may_go_on: True if asking for the rest can help after a failure. It cannot after a failure
            before the first piece: the endpoint has repeated such a call itself.
    """

    def __init__(self, context: PlanningContext) -> None:
        self.problems: list[Diagnostic] = []
        self.failure: ModelError | None = None
        self.may_go_on = False
        self._context = context
        self._waiting: list[CompiledStatement] = []
        self._rewind: Callable[[], None] | None = None
        self._program = ProgramCompiler(context.tools, first_id=context.next_id)

    @property
    def source(self) -> str:
        """The statements that were compiled."""
        return self._program.source

    async def extend(self, request: Request) -> AsyncGenerator[PlanItem, None]:
        """Ask the model once, and yield what its answer adds to the program."""
        self.problems, self.failure = [], None
        self._program.reopen()
        finish = text = ""
        has_started = False
        try:
            async with closing(self._context.ask(request)) as pieces:
                async for piece in pieces:
                    has_started = True
                    if isinstance(piece, Completion):
                        finish = piece.finish
                        break
                    fresh = piece
                    text += piece
                    if (end := text.find(THOUGHT_END)) >= 0:
                        # All of it was a thought whose beginning was not to be seen.
                        self._drop_waiting()
                        self._program.reopen()
                        fresh = text = text[end + len(THOUGHT_END) :]
                    for item in self._accept(self._program.feed(fresh)):
                        yield item
                    if self.problems:
                        self._drop_waiting()
                        return
        except ModelError as error:
            for item in self._release():
                yield item
            # The program is not finished: an unfinished statement is dropped.
            self.failure = error
            is_cut_short = has_started and error.retryable
            self.may_go_on = is_cut_short or isinstance(error, CallInterrupted)
            return
        if finish == "length":
            self._drop_waiting()
            diagnostic = Diagnostic(
                "E401",
                "the program stops early: the answer became too long",
                hint="write a shorter program that ends with answer = …",
            )
            self.problems.append(diagnostic)
            yield diagnostic
            return
        for item in self._accept(self._program.finish()):
            yield item
        if self.problems:
            self._drop_waiting()
            return
        for item in self._release():
            yield item

    def _accept(
        self, items: Iterator[CompiledStatement | Diagnostic]
    ) -> Iterator[CompiledStatement | Diagnostic]:
        """Yield what need not wait.

        A statement that calls a tool which writes waits until the answer has ended, and so do those
        behind it: they may turn out to be a thought. If the answer has a mistake or ends at a
        bound, they are forgotten, and the model writes them again.
        """
        while True:
            mark = self._program.mark() if not self._waiting else None
            item = next(items, None)
            if item is None:
                return
            if isinstance(item, Diagnostic):
                if item.severity == "error":
                    self.problems.append(item)
                yield item
            elif self._waiting or any(statement.has_write for statement in item.statements):
                if mark is not None:
                    self._rewind = mark
                self._waiting.append(item)
            else:
                yield item

    def _release(self) -> Iterator[CompiledStatement]:
        """Yield the statements that wait."""
        waiting, self._waiting = self._waiting, []
        yield from waiting

    def _drop_waiting(self) -> None:
        """Forget the statements that wait."""
        if self._waiting and self._rewind is not None:
            self._rewind()
        self._waiting = []
