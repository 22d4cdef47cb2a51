"""The streaming text planner: a model writes the plan language, and each task starts at once.

The model's text passes the incremental parser and the static checks as it arrives, so a task can
start while the model still writes the plan. If the text breaks, the tasks before the break stay,
since they are running already. The planner shows the model the diagnostics and asks for the rest of
the plan, a bounded number of times. If a complete plan leaves a number of the question unused, the
planner asks the model to look again.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from llmcompiler.errors import CallInterrupted, ModelError, PlanError
from llmcompiler.language.items import ParsedItem
from llmcompiler.language.lazy_grammar import LazyGrammar, lazy_plan_grammar
from llmcompiler.language.parser import Parser
from llmcompiler.language.printer import print_task
from llmcompiler.language.spelling import END_MARKER
from llmcompiler.llm.base import Completion, Request
from llmcompiler.llm.messages import Message
from llmcompiler.passes.check import check_task
from llmcompiler.passes.deduplicate import Deduplicator, rewritten_call
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.model import Join, Task
from llmcompiler.plan.types import SchemaType
from llmcompiler.planners.base import PlanItem, PlanningContext
from llmcompiler.planners.bounds import check_not_cut, describe_cut
from llmcompiler.planners.coverage import find_unused_numbers
from llmcompiler.planners.examples import (
    DIRECT,
    find_nearest_example,
    select_examples,
    written_examples,
)
from llmcompiler.planners.plan_gate import PlanGate
from llmcompiler.prompting.digest import Digest
from llmcompiler.prompting.profile import SMALL, Profile
from llmcompiler.prompting.prompts import Example, Prompts, fill
from llmcompiler.prompting.results import describe_results
from llmcompiler.prompting.size import BYTES_PER_TOKEN, shorten_lines
from llmcompiler.prompting.tool_stubs import describe_as_stubs
from llmcompiler.tools.base import Tool
from llmcompiler.tools.selection import select_tools

_MAX_PREFIXES = 16
"""Most selections of tools whose rules and examples a planner remembers."""

MAX_DESCRIPTION = 100
"""Most characters of a tool's description in a prompt; the first sentence may be longer."""


class TextPlanner:
    """A planner that streams a model's text (a ``Planner``).

    Args:
        prompts: the texts that the model reads.
        constrained: hold models, where their endpoint can do so, to the plan grammar of the tools;
            without it there are only the checks and repairs.
        examples: show models plans for other questions.

    Streaming tasks out of an unfinished plan is from LLMCompiler (Kim et al., arXiv 2312.04511,
    section 3.3). Going on from the valid prefix of a broken plan is new here.
    """

    name = "text"

    def __init__(
        self, prompts: Prompts | None = None, *, constrained: bool = True, examples: bool = True
    ) -> None:
        self._prompts = prompts or Prompts()
        self._constrained = constrained
        self._examples = examples
        self._prefixes: dict[tuple[Any, ...], tuple[tuple[Tool, ...], tuple[Message, ...]]] = {}

    async def plan(self, context: PlanningContext) -> AsyncGenerator[PlanItem, None]:
        """See ``Planner.plan``."""
        context = with_relevant_tools(context)
        draft = _Draft(context)
        prefix = self._prefix(context)
        question = question_text(self._prompts, context)
        repairs = context.repairs
        unused_before = 0  # unused numbers of the question at the last join
        while True:
            request = Request(
                (*prefix, Message("user", question)),
                purpose="plan",
                stop=(END_MARKER,),
                grammar=draft.grammar() if self._constrained else None,
            )
            async with aclosing(draft.extend(request, patient=repairs == 0)) as items:
                async for item in items:
                    yield item
            if draft.join is not None:
                unused = self._unused_numbers(context, draft)
                if repairs == 0 or not unused or len(unused) == unused_before:
                    yield draft.join
                    return
                repairs -= 1
                unused_before = len(unused)
                question = self._ask_to_look_again(context, draft, unused)
                continue
            if draft.failure is not None and not draft.may_go_on:
                break
            # An answer that a crash of this program cut short is no mistake of the model.
            if not isinstance(draft.failure, CallInterrupted):
                if repairs == 0:
                    break
                repairs -= 1
            if draft.tasks or draft.problems:
                question = self._ask_to_repair(context, draft)
        # A plan that was complete before the model looked at it again stays complete.
        if draft.failure is not None and not unused_before:
            raise draft.failure
        if not draft.tasks:
            raise PlanError(
                "the planner wrote no plan that can be executed",
                diagnostics=tuple(draft.problems),
                hint=draft.cut or "ask in other words, or use a larger model",
            )
        yield Join(id=draft.next_id)

    def _prefix(self, context: PlanningContext) -> tuple[Message, ...]:
        """The rules and the examples.

        All but the last example are the same for every question, for the model's prefix cache.
        """
        tools = tuple(context.tools.values())
        key = (context.profile, context.today, *map(id, tools))
        # The tools are kept with the messages, so that no other tools can get their addresses.
        _, messages = self._prefixes.get(key) or (tools, self._common_prefix(context))
        self._prefixes[key] = (tools, messages)
        while len(self._prefixes) > _MAX_PREFIXES:
            del self._prefixes[next(iter(self._prefixes))]
        nearest = None
        if self._examples and context.profile.invents_examples:
            nearest = find_nearest_example(self._prompts, context.tools, context.question)
        return messages if nearest is None else (*messages, *self._as_messages(nearest))

    def _common_prefix(self, context: PlanningContext) -> tuple[Message, ...]:
        """The part of the prefix that is the same for every question."""
        prompts = self._prompts
        system = fill(
            prompts.planner,
            tools=describe_tools(context.tools, context.profile),
            guidelines=format_guidelines(prompts, context.tools),
            today=context.today,
        )
        messages = [Message("system", system)]
        examples: tuple[Example, ...] = (DIRECT,)
        if not context.profile.invents_examples:
            examples = written_examples(prompts, context.tools) if self._examples else ()
        elif self._examples:
            examples = select_examples(prompts, context.tools)
        for example in examples:
            messages += self._as_messages(example)
        return tuple(messages)

    def _as_messages(self, example: Example) -> tuple[Message, Message]:
        question = fill(self._prompts.question, question=example.question)
        return Message("user", question), Message("assistant", example.plan.strip())

    def _ask_to_repair(self, context: PlanningContext, draft: _Draft) -> str:
        return fill(
            self._prompts.repair,
            asked=question_text(self._prompts, context),
            plan="\n".join(map(print_task, draft.tasks)) or "(nothing yet)",
            problems="\n".join(problem.render() for problem in draft.problems) or "(it broke off)",
            next_id=draft.next_id,
        )

    def _unused_numbers(self, context: PlanningContext, draft: _Draft) -> tuple[str, ...]:
        """The numbers of the question that the run's first plan leaves unused.

        A plan without calls needs none. A plan that calls a writing tool stays as it is: a call
        that the model adds might repeat the effect of one that has run.
        """
        if not context.profile.checks_numbers:
            return ()
        writes = any(context.tools[task.tool].effect == "write" for task in draft.tasks)
        if writes or context.rounds or not draft.tasks or not self._prompts.unused:
            return ()
        return find_unused_numbers(context.question, draft.tasks)

    def _ask_to_look_again(
        self, context: PlanningContext, draft: _Draft, unused: Iterable[str]
    ) -> str:
        return fill(
            self._prompts.unused,
            asked=question_text(self._prompts, context),
            plan="\n".join(map(print_task, draft.tasks)),
            numbers=" and ".join(unused),
            next_id=draft.next_id,
        )


def format_guidelines(prompts: Prompts, tools: Mapping[str, Tool]) -> str:
    """The user's rules, a line each, behind the rule about ``think`` if that tool is there."""
    reasons = any(tool.reasons for tool in tools.values())
    lines = (*((prompts.reason,) if reasons else ()), *prompts.guidelines)
    return "".join(f"- {line}\n" for line in lines)


def question_text(prompts: Prompts, context: PlanningContext) -> str:
    """The question for the model; in a later round with the results of the plans before."""
    if not context.rounds:
        return fill(prompts.question, question=context.question)
    return fill(
        prompts.replan,
        question=context.question,
        observations=describe_earlier_results(context),
        reason=context.rounds[-1].reason,
        next_id=context.next_id,
    )


def with_relevant_tools(context: PlanningContext) -> PlanningContext:
    """The context with only the tools that the question may need.

    Tools that an earlier plan called stay. So do ``calc`` and the tools that reason: the prompts
    speak of these, while a question rarely does.
    """
    texts = [context.question, *(plan_round.reason for plan_round in context.rounds)]
    always = {task.tool for plan_round in context.rounds for task in plan_round.plan.tasks}
    always |= {name for name, tool in context.tools.items() if tool.reasons or name == "calc"}
    tools = select_tools(
        "\n".join(texts),
        context.tools,
        always=sorted(always),
        threshold=context.profile.max_tools,
        count=context.profile.selected_tools,
    )
    return dataclasses.replace(context, tools=tools)


class _Draft:
    """A plan in the making: its valid prefix, and the problems behind it.

    Attributes:
        tasks: the tasks yielded so far.
        problems: errors in the model's last answer.
        failure: the error that the last call of the model failed with.
        may_go_on: True if asking for the rest can help after a failure. It cannot after a failure
            before the first piece: the endpoint has repeated such a call itself.
        join: the join at the end of the last answer.
        cut: which bound ended the last answer before its join; empty if none did.
    """

    def __init__(self, context: PlanningContext) -> None:
        self.tasks: list[Task] = []
        self.problems: list[Diagnostic] = []
        self.failure: ModelError | None = None
        self.may_go_on = False
        self.join: Join | None = None
        self.cut = ""
        self._context = context
        # Result types of the sound tasks that references may name, earlier plans' included.
        self._produced = earlier_result_types(context)
        self._deduplicator = Deduplicator(context.tools, earlier_only=True)

    @property
    def next_id(self) -> int:
        """The number of the next task."""
        return max([self._context.next_id, *(task.id + 1 for task in self.tasks)])

    def grammar(self) -> LazyGrammar:
        """The grammar of the rest of the plan, which refers to sound tasks only."""
        return lazy_plan_grammar(
            self._context.tools, first_id=self.next_id, earlier_ids=self._produced
        )

    def new_parser(self) -> Parser:
        """A parser of the rest of the plan."""
        return Parser(earlier_ids=tuple(self._produced), first_id=self.next_id)

    def writes(self, item: PlanItem) -> bool:
        """True if the item is a call that changes the world outside."""
        return isinstance(item, Task) and self._context.tools[item.tool].effect == "write"

    def retract(self, items: Iterable[PlanItem]) -> None:
        """Drop tasks that have not been yielded, with the join and the problems behind them."""
        for item in items:
            if isinstance(item, Task):
                self.tasks.remove(item)
                self._produced.pop(item.id, None)
        self._start_answer()

    def _start_answer(self) -> None:
        self.problems, self.failure, self.join, self.cut = [], None, None, ""
        for task_id in self._deduplicator.replacements:
            self._produced.pop(task_id, None)
        self._deduplicator = Deduplicator(self._context.tools, self.tasks, earlier_only=True)

    async def extend(self, request: Request, *, patient: bool) -> AsyncGenerator[PlanItem, None]:
        """Ask the model once, and yield what its answer adds to the plan.

        Args:
            request: the request to the model.
            patient: read on behind an error for tasks that can still be used, because no repair
                will follow.
        """
        self._start_answer()
        reading = _Reading(self)
        finish: Completion | None = None
        has_started = False
        try:
            async with closing(self._context.ask(request)) as pieces:
                async for piece in pieces:
                    has_started = True
                    if isinstance(piece, Completion):
                        finish = piece
                        break
                    if self.join is not None and not reading.waiting:
                        # Usually the stream ends here by itself, with a Completion.
                        break
                    for item in reading.feed(piece, patient):
                        yield item
                    if self.problems and not patient:
                        reading.drop_waiting()
                        return
            if finish is not None:
                check_not_cut(finish, "plan")
        except ModelError as error:
            # The parser is not closed: an unfinished call is dropped.
            if self.join is None:
                for item in reading.release():
                    yield item
                self.failure = error
                is_cut_short = has_started and error.retryable
                self.may_go_on = is_cut_short or isinstance(error, CallInterrupted)
                return
        cut = describe_cut(finish, "plan") if finish is not None else ""
        if cut and self.join is None:
            reading.drop_waiting()
        else:
            for item in reading.close(patient):
                yield item
        if self.join is None and not self.problems:
            yield self._report_early_end(cut)

    def accept(
        self, parser: Parser, items: Iterable[ParsedItem], patient: bool
    ) -> Iterator[PlanItem]:
        """Check the parsed items, and yield the diagnostics and the sound tasks."""
        for item in items:
            match item:
                case Join():
                    sound = tuple(task_id for task_id in item.on if task_id in self._produced)
                    self.join = self._deduplicator.redirect_join(Join(id=item.id, on=sound))
                case Task():
                    yield from self._check(item, parser)
                case Diagnostic():
                    if item.severity == "error":
                        self.problems.append(item)
                    yield item
            if self.problems and not patient:
                return  # behind all errors of the task, for the log and for the repair

    def _check(self, task: Task, parser: Parser) -> Iterator[PlanItem]:
        refused = [producer for producer in task.dependencies if producer not in self._produced]
        checked, diagnostics = check_task(
            task, tools=self._context.tools, result_types=self._produced, spans=parser.spans
        )
        for producer in refused:
            message = f"task {task.id} needs the result of task {producer}, which was refused"
            diagnostics.append(Diagnostic("E207", message, task=task.id))
        errors = [diagnostic for diagnostic in diagnostics if diagnostic.severity == "error"]
        self.problems += errors
        if errors:
            self._produced.pop(task.id, None)
        yield from diagnostics
        if errors:
            return
        kept_task = self._deduplicator.accept(checked)
        if isinstance(kept_task, Task):
            self.tasks.append(kept_task)
            yield kept_task
        else:
            yield rewritten_call(checked, kept_task)

    def _report_early_end(self, cut: str) -> Diagnostic:
        """The problem of an answer without a join: for the model in short, for people in full."""
        hint = "end the plan with join()"
        reason = "its answer became too long" if cut else "there is no join()"
        diagnostic = Diagnostic("E401", f"the plan stops early: {reason}", hint=hint)
        self.problems.append(diagnostic)
        self.cut = cut
        if not cut:
            return diagnostic
        return Diagnostic("E401", f"the plan stops early: {cut}", hint=hint)


class _Reading:
    """One answer of the model on its way into a draft.

    A call that writes waits until the answer has ended, and so do the calls behind it: they may
    turn out to stand in a thought whose beginning was not to be seen. If the answer has a mistake,
    or ends at a bound, they are dropped, and the model writes them again.

    Attributes:
        waiting: the items that wait.
    """

    def __init__(self, draft: _Draft) -> None:
        self.waiting: list[PlanItem] = []
        self._draft = draft
        self._parser = draft.new_parser()
        self._gate = PlanGate()
        self._retractions = 0

    def feed(self, piece: str, patient: bool) -> Iterator[PlanItem]:
        """Take in a piece of text, and yield the items that need not wait."""
        text = self._gate.feed(piece)
        if self._gate.retractions > self._retractions:
            self._retractions = self._gate.retractions
            self._draft.retract(self.waiting)
            self.waiting.clear()
            self._parser = self._draft.new_parser()
        for item in self._draft.accept(self._parser, self._parser.feed(text), patient):
            if isinstance(item, Task) and (self.waiting or self._draft.writes(item)):
                self.waiting.append(item)
            else:
                yield item

    def close(self, patient: bool) -> Iterator[PlanItem]:
        """End the text, and yield all other items."""
        rest = self._parser.feed(self._gate.close())
        if self._draft.join is None:
            rest += self._parser.close()
        last = list(self._draft.accept(self._parser, rest, patient))
        yield from self.release()
        yield from last

    def release(self) -> Iterator[PlanItem]:
        """Yield the items that wait."""
        yield from self.waiting
        self.waiting.clear()

    def drop_waiting(self) -> None:
        """Drop the items that wait, since the answer is not complete; its problems stay."""
        problems = self._draft.problems
        self._draft.retract(self.waiting)
        self._draft.problems = problems
        self.waiting.clear()


@asynccontextmanager
async def closing(
    pieces: AsyncIterator[str | Completion],
) -> AsyncGenerator[AsyncIterator[str | Completion], None]:
    """Close the stream on leaving early, so that the model stops decoding."""
    try:
        yield pieces
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


def earlier_result_types(context: PlanningContext) -> dict[int, SchemaType | None]:
    """The result types of the earlier plans' tasks by id; ``None`` where a type is unknown."""
    types: dict[int, SchemaType | None] = {}
    for plan_round in context.rounds:
        for task in plan_round.plan.tasks:
            check_task(task, tools=context.tools, result_types=types)
    return types


def describe_tools(tools: Mapping[str, Tool], profile: Profile = SMALL) -> str:
    """Describe each tool for a planner's model, as the model's profile says.

    A small model gets a signature, the purpose in short, and the meaning of the arguments; a strong
    one gets all that the tools' authors wrote.
    """
    if profile.tool_stubs:
        return describe_as_stubs(tools)
    lines = []
    for tool in tools.values():
        purpose = _first_sentences(tool.description)
        lines.append(f"{tool.signature()}  # {purpose}" if purpose else tool.signature())
        for name, schema in tool.parameters_schema.get("properties", {}).items():
            if meaning := _first_sentences(str(schema.get("description") or "")):
                lines.append(f"    {name}: {meaning}")
    return "\n".join(lines)


def _first_sentences(description: str) -> str:
    """The first sentences of a description, as many as fit; at least one."""
    brief = ""
    for sentence in re.split(r"(?<=[.!?])\s+", description.strip()):
        if brief and len(brief) + len(sentence) > MAX_DESCRIPTION:
            break
        brief = f"{brief} {sentence}".strip()
    return brief


def describe_earlier_results(context: PlanningContext) -> str:
    """The calls of the earlier plans and their results, under the numbers of their tasks."""
    profile = context.profile
    if profile.whole_results:
        return describe_results(context.rounds, context.tools, profile.result_tokens) or "nothing"
    observations = {
        task_id: observation
        for plan_round in context.rounds
        for task_id, observation in plan_round.observations.items()
    }
    lines = Digest(observations, context.tools).numbered()
    limit = profile.result_tokens * BYTES_PER_TOKEN
    return "\n".join(shorten_lines(lines, limit)) or "nothing"
