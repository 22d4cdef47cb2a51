"""The streaming text planner: a model writes the plan language, and each task leaves at once.

The model's text goes through the incremental parser and the static checks as it arrives, so a task
can start while the rest of the plan is still being written. Where the text breaks, what came before
stays (it is running already) and the model is asked, a bounded number of times, to go on from there
with the diagnostics in hand. A whole plan that leaves a number of the question unused is looked at
once more. The module must not know who executes the tasks.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager

from llmcompiler.errors import CallInterrupted, ModelError, PlanError
from llmcompiler.language.grammar import plan_grammar
from llmcompiler.language.items import ParsedItem
from llmcompiler.language.parser import Parser
from llmcompiler.language.printer import print_task
from llmcompiler.language.spelling import END_MARKER
from llmcompiler.llm.base import Completion, Request
from llmcompiler.llm.messages import Message
from llmcompiler.passes.check import check_task
from llmcompiler.passes.deduplicate import Restated, restated
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.model import Join, Task
from llmcompiler.plan.types import Typed
from llmcompiler.planners.base import PlanItem, PlanningContext
from llmcompiler.planners.coverage import unused_numbers
from llmcompiler.planners.examples import DIRECT, choose_examples, nearest_example
from llmcompiler.prompting.digest import Digest
from llmcompiler.prompting.prompts import Example, Prompts, fill
from llmcompiler.tools.base import Tool
from llmcompiler.tools.selection import select_tools

MAX_TOKENS = 1024
"""Most tokens of one piece of a plan; a model that repeats itself without end is stopped there."""

BRIEF = 100
"""Characters of a tool's description that are shown, its first sentence at least."""


class TextPlanner:
    """A planner that streams a model's text (a ``Planner``).

    Args:
        prompts: the texts that the model reads.
        constrained: whether models whose endpoint can do so are held to the plan grammar of the
            tools; without it, the checks and the repairs stand in.
        examples: whether models are shown plans for other questions.

    Streaming tasks out of an unfinished plan is LLMCompiler's (Kim et al., arXiv 2312.04511,
    section 3.3); going on from the valid prefix of a broken one is ours.
    """

    name = "text"

    def __init__(
        self, prompts: Prompts | None = None, *, constrained: bool = True, examples: bool = True
    ) -> None:
        self._prompts = prompts or Prompts()
        self._constrained = constrained
        self._examples = examples

    async def plan(self, context: PlanningContext) -> AsyncGenerator[PlanItem, None]:
        """See ``Planner.plan``."""
        context = relevant(context)
        draft = _Draft(context)
        prefix = self._prefix(context)
        asked = asked_of(self._prompts, context)
        repairs = context.repairs
        missing = 0  # numbers of the question in no call, where it joined last
        while True:
            request = Request(
                (*prefix, Message("user", asked)),
                max_tokens=MAX_TOKENS,
                stop=(END_MARKER,),
                grammar=draft.grammar() if self._constrained else None,
            )
            async with aclosing(draft.extend(request, patient=repairs == 0)) as items:
                async for item in items:
                    yield item
            if draft.join is not None:
                unused = self._unused(context, draft)
                if repairs == 0 or not unused or len(unused) == missing:
                    yield draft.join
                    return
                repairs -= 1
                missing = len(unused)
                asked = self._look_again(context, draft, unused)
                continue
            if draft.failure is not None and not draft.may_go_on:
                break
            # What a crash of ours cut short is no mistake of the model's.
            if not isinstance(draft.failure, CallInterrupted):
                if repairs == 0:
                    break
                repairs -= 1
            if draft.tasks or draft.problems:
                asked = self._repair(context, draft)
        # A plan that was whole before it was looked at again is still that.
        if draft.failure is not None and not missing:
            raise draft.failure
        if not draft.tasks:
            raise PlanError(
                "the planner wrote no plan that can be executed",
                diagnostics=tuple(draft.problems),
                hint="ask in other words, or use a larger model",
            )
        yield Join(id=draft.next_id)

    def _prefix(self, context: PlanningContext) -> tuple[Message, ...]:
        """Rules and examples; all but the last are the same for every question.

        So a server that keeps what it has read need not read them again.
        """
        prompts = self._prompts
        system = fill(
            prompts.planner,
            tools=catalogue(context.tools),
            guidelines=guidelines(prompts, context.tools),
        )
        messages = [Message("system", system)]
        shown: tuple[Example, ...] = (DIRECT,)
        if self._examples:
            nearest = nearest_example(prompts, context.tools, context.question)
            shown = choose_examples(prompts, context.tools)
            shown += () if nearest is None else (nearest,)
        for example in shown:
            messages.append(Message("user", fill(prompts.question, question=example.question)))
            messages.append(Message("assistant", example.plan.strip()))
        return tuple(messages)

    def _repair(self, context: PlanningContext, draft: _Draft) -> str:
        return fill(
            self._prompts.repair,
            asked=asked_of(self._prompts, context),
            plan="\n".join(map(print_task, draft.tasks)) or "(nothing yet)",
            problems="\n".join(found.render() for found in draft.problems) or "(it broke off)",
            next_id=draft.next_id,
        )

    def _unused(self, context: PlanningContext, draft: _Draft) -> tuple[str, ...]:
        """Numbers that a first plan leaves unused.

        One without calls means that none is needed, and one that writes is taken at its word: what
        is added might do again what a call has done.
        """
        writes = any(context.tools[task.tool].effect == "write" for task in draft.tasks)
        if writes or context.rounds or not draft.tasks or not self._prompts.unused:
            return ()
        return unused_numbers(context.question, draft.tasks)

    def _look_again(self, context: PlanningContext, draft: _Draft, unused: Iterable[str]) -> str:
        return fill(
            self._prompts.unused,
            asked=asked_of(self._prompts, context),
            plan="\n".join(map(print_task, draft.tasks)),
            numbers=" and ".join(unused),
            next_id=draft.next_id,
        )


def guidelines(prompts: Prompts, tools: Mapping[str, Tool]) -> str:
    """The user's rules, a line each, behind one about ``think`` where it is at hand."""
    reasons = any(tool.reasons for tool in tools.values())
    lines = (*((prompts.reason,) if reasons else ()), *prompts.guidelines)
    return "".join(f"- {line}\n" for line in lines)


def asked_of(prompts: Prompts, context: PlanningContext) -> str:
    """The question, and in a later round what is known by then."""
    if not context.rounds:
        return fill(prompts.question, question=context.question)
    return fill(
        prompts.replan,
        question=context.question,
        observations=known_results(context),
        reason=context.rounds[-1].reason,
        next_id=context.next_id,
    )


def relevant(context: PlanningContext) -> PlanningContext:
    """The context with the tools that the question may need.

    Those that were used before are among them, and those that the prompts speak of: to compute is
    no word of a question.
    """
    wanted = [context.question, *(each.reason for each in context.rounds)]
    always = {task.tool for each in context.rounds for task in each.plan.tasks}
    always |= {name for name, tool in context.tools.items() if tool.reasons or name == "calc"}
    tools = select_tools("\n".join(wanted), context.tools, always=sorted(always))
    return dataclasses.replace(context, tools=tools)


class _Draft:
    """A plan in the making: its valid prefix, and what is wrong with what came behind it.

    Attributes:
        tasks: what was yielded.
        problems: errors in the model's last answer.
        failure: what the last call of the model died of.
        may_go_on: whether asking for the rest may help after that. What failed before its first
            piece, the endpoint has asked for often enough itself.
        join: what the last answer ended the plan with.
    """

    def __init__(self, context: PlanningContext) -> None:
        self.tasks: list[Task] = []
        self.problems: list[Diagnostic] = []
        self.failure: ModelError | None = None
        self.may_go_on = False
        self.join: Join | None = None
        self._context = context
        # Result schemas of all that was found sound, here and in earlier plans: tasks may refer
        # to these.
        self._produced: dict[int, Typed | None] = {}
        self._restated = Restated(context.tools)
        for each in context.rounds:
            for task in each.plan.tasks:
                check_task(task, tools=context.tools, produced=self._produced)

    @property
    def next_id(self) -> int:
        """The number that the next task should have."""
        return max([self._context.next_id, *(task.id + 1 for task in self.tasks)])

    def grammar(self) -> str:
        """What can follow: a plan that counts on, and refers to what is sound."""
        return plan_grammar(self._context.tools, first_id=self.next_id, earlier_ids=self._produced)

    def _forget_last(self) -> None:
        self.problems, self.failure, self.join = [], None, None
        for task_id in self._restated.ids:
            self._produced.pop(task_id, None)
        self._restated = Restated(self._context.tools, self.tasks)

    async def extend(self, request: Request, *, patient: bool) -> AsyncGenerator[PlanItem, None]:
        """Yield what one answer of the model adds to the plan.

        Args:
            request: what the model is asked.
            patient: read on behind an error for what can still be used, where nobody will be asked
                to write it anew.
        """
        self._forget_last()
        parser = Parser(earlier_ids=tuple(self._produced), first_id=self.next_id)
        finish = ""
        begun = False
        try:
            async with _closing(self._context.ask(request)) as pieces:
                async for piece in pieces:
                    begun = True
                    if isinstance(piece, Completion):
                        finish = piece.finish
                        break
                    if self.join is not None:
                        # Usually the stream ends here by itself, and then tells what it used.
                        break
                    for item in self._accept(parser, parser.feed(piece), patient):
                        yield item
                    if self.problems and not patient:
                        return
        except ModelError as error:
            # Half a call is no call: what the parser still holds is dropped.
            if self.join is None:
                self.failure = error
                broken_off = begun and error.retryable
                self.may_go_on = broken_off or isinstance(error, CallInterrupted)
            return
        if finish != "length" and self.join is None:
            for item in self._accept(parser, parser.close(), patient):
                yield item
        if self.join is None and not self.problems:
            yield self._ended(finish)

    def _accept(
        self, parser: Parser, items: Iterable[ParsedItem], patient: bool
    ) -> Iterator[PlanItem]:
        """Check what the parser read; a task with an error in it goes no further."""
        for item in items:
            match item:
                case Join():
                    sound = tuple(task_id for task_id in item.on if task_id in self._produced)
                    self.join = self._restated.join(Join(id=item.id, on=sound))
                case Task():
                    yield from self._check(item, parser)
                case Diagnostic():
                    if item.severity == "error":
                        self.problems.append(item)
                    yield item
            if self.problems and not patient:
                return  # with all that is wrong with the task, for the log as for the repair

    def _check(self, task: Task, parser: Parser) -> Iterator[PlanItem]:
        lost = [needed for needed in task.dependencies if needed not in self._produced]
        checked, found = check_task(
            task, tools=self._context.tools, produced=self._produced, spans=parser.spans
        )
        for needed in lost:
            message = f"task {task.id} needs the result of task {needed}, which was refused"
            found.append(Diagnostic("E207", message, task=task.id))
        errors = [one for one in found if one.severity == "error"]
        self.problems += errors
        if errors:
            self._produced.pop(task.id, None)
        yield from found
        if errors:
            return
        kept = self._restated.accept(checked)
        if isinstance(kept, Task):
            self.tasks.append(kept)
            yield kept
        else:
            yield restated(checked, kept)

    def _ended(self, finish: str) -> Diagnostic:
        why = "its answer became too long" if finish == "length" else "there is no join()"
        found = Diagnostic("E401", f"the plan stops early: {why}", hint="end the plan with join()")
        self.problems.append(found)
        return found


@asynccontextmanager
async def _closing(
    pieces: AsyncIterator[str | Completion],
) -> AsyncGenerator[AsyncIterator[str | Completion], None]:
    """Close a stream that is left early, so that the model stops decoding."""
    try:
        yield pieces
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


def catalogue(tools: Mapping[str, Tool]) -> str:
    """What planners are told of each tool: its signature, what it does, what its arguments mean."""
    lines = []
    for tool in tools.values():
        brief = _brief(tool.description)
        lines.append(f"{tool.signature()}  # {brief}" if brief else tool.signature())
        for name, schema in tool.parameters_schema.get("properties", {}).items():
            if meaning := _brief(str(schema.get("description") or "")):
                lines.append(f"    {name}: {meaning}")
    return "\n".join(lines)


def _brief(description: str) -> str:
    """The sentences that come first, as many as fit; one at least."""
    brief = ""
    for sentence in re.split(r"(?<=[.!?])\s+", description.strip()):
        if brief and len(brief) + len(sentence) > BRIEF:
            break
        brief = f"{brief} {sentence}".strip()
    return brief


def known_results(context: PlanningContext) -> str:
    """What the earlier plans called and what came of it, under the numbers of their tasks."""
    observations = {
        task_id: seen for each in context.rounds for task_id, seen in each.observations.items()
    }
    return "\n".join(Digest(observations, context.tools).numbered()) or "nothing"
