"""A joiner that drafts several decisions and reduces them to one.

A model that reads the same results twice may answer differently. So the joiner's model drafts
several decisions at once, each with its own seed. The majority settles whether to answer or to plan
again, and a reducer of ``reasoning.reducers`` makes one answer of several. Each draft is a call of
its own in the log (``join/1/draft1``); the calls of a judge are ``join/1/reduce``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmcompiler.errors import ModelError, ToolError, UsageError
from llmcompiler.joiners.model import Decision, JoinContext, Joiner
from llmcompiler.llm.base import Completion, Request, StreamFunction
from llmcompiler.llm.messages import Message

if TYPE_CHECKING:
    from llmcompiler.reasoning.reducers import Reduction

REDUCERS = ("vote", "best_of", "tournament", "synthesize")
"""The reducers that need only texts and a judge."""

DRAFTS = 3
"""Number of drafts unless the user gives another one."""
TEMPERATURE = 0.7
"""Sampling temperature of drafts and judges; a joiner alone gets the likeliest text."""


@dataclass(frozen=True, slots=True)
class JoinReducer:
    """A reducer of decisions, and the number of drafts that it gets.

    Attributes:
        name: one of ``REDUCERS``.
        drafts: number of drafts.
    """

    name: str
    drafts: int = DRAFTS

    @classmethod
    def parse(cls, text: str) -> JoinReducer:
        """Parse ``vote`` or ``vote:5``.

        Raises:
            UsageError: there is no such reducer for drafts, or the number is not one of drafts.
        """
        name, colon, number = text.partition(":")
        if name not in REDUCERS:
            raise UsageError(
                f'drafts of an answer cannot be reduced by "{name}"',
                hint=f"one of {', '.join(REDUCERS)}; {REDUCERS[0]}:5 for five drafts",
            )
        if colon and not (number.isdecimal() and int(number) >= 2):
            raise UsageError(
                f'"{text}": {number or "nothing"} is no number of drafts',
                hint=f"two or more, such as {name}:5",
            )
        return cls(name, int(number) if colon else DRAFTS)

    def __str__(self) -> str:
        return f"{self.name}:{self.drafts}"


class ReducedJoiner:
    """A joiner that reduces several drafts to one decision.

    Args:
        joiner: makes a draft at each call.
        reducer: the reducer of the drafts.

    Voting is self-consistency (Wang et al. 2022) applied to the joiner. It helps with short
    answers. Prose is hardly ever the same twice, and then the earliest draft wins.
    """

    def __init__(self, joiner: Joiner, reducer: JoinReducer) -> None:
        self._joiner = joiner
        self._reducer = reducer

    async def join(self, context: JoinContext) -> Decision:
        """See ``Joiner.join``.

        Drafts whose model fails are left out. The decision is another plan if more than half of the
        drafts ask for it; its reason is that of the first such draft.

        Raises:
            ModelError: every draft failed, or the judge decided nothing.
        """
        prompts: list[str] = []
        drafts = await self._make_drafts(context, prompts)
        replans = [draft for draft in drafts if draft.kind == "replan"]
        if 2 * len(replans) > len(drafts):
            return dataclasses.replace(
                replans[0], why=f"{len(replans)} of {len(drafts)} drafts ask for another plan"
            )
        texts = [draft.text for draft in drafts if draft.kind == "answer"]
        if len(texts) == 1:
            return Decision("answer", texts[0], "the only draft that answers")
        try:
            # A judge reads the prompt of the drafts: the results, and the question behind them.
            reduction = await self._reduce(texts, context, (*prompts, context.question)[0])
        except ToolError as error:
            raise ModelError(f"the joiner's drafts: {error.message}", hint=error.hint) from error
        text = texts[reduction.positions[0]] if reduction.positions else reduction.text
        return Decision("answer", text, f"{self._reducer.name}: {reduction.why}")

    async def _make_drafts(self, context: JoinContext, prompts: list[str]) -> list[Decision]:
        async def make_draft(number: int) -> Decision | ModelError:
            ask = _ask_for_sample(context.ask_as(f"draft{number}"), number, prompts)
            try:
                return await self._joiner.join(dataclasses.replace(context, ask=ask))
            except ModelError as error:
                return error

        numbers = range(1, self._reducer.drafts + 1)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(make_draft(number)) for number in numbers]
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        outcomes = [task.result() for task in tasks]
        drafts = [outcome for outcome in outcomes if isinstance(outcome, Decision)]
        if not drafts:
            # The error of the last draft: a resumed run makes that call again.
            raise next(outcome for outcome in reversed(outcomes) if isinstance(outcome, ModelError))
        return drafts

    async def _reduce(self, texts: list[str], context: JoinContext, problem: str) -> Reduction:
        from llmcompiler.reasoning import reducers

        if self._reducer.name == "vote":
            return reducers.vote(texts)
        ask, seeds = context.ask_as("reduce"), itertools.count(1)

        async def judge(question: str) -> str:
            request = Request(
                (Message("user", question),),
                purpose="answer",
                temperature=TEMPERATURE,
                seed=next(seeds),
            )
            async for piece in ask(request):
                if isinstance(piece, Completion):
                    return piece.text
            raise RuntimeError("a model ended its stream without a Completion")

        by_judge = {
            "best_of": reducers.best_of,
            "tournament": reducers.tournament,
            "synthesize": reducers.synthesize,
        }
        return await by_judge[self._reducer.name](texts, judge, problem)


def _ask_for_sample(ask: StreamFunction, seed: int, prompts: list[str]) -> StreamFunction:
    """Wrap ``ask`` for one of several samples.

    Args:
        ask: asks the model.
        seed: the sample's seed.
        prompts: collects the text of each request.
    """

    def ask_sample(request: Request) -> AsyncIterator[str | Completion]:
        prompts.append(request.messages[-1].content)
        return ask(dataclasses.replace(request, temperature=TEMPERATURE, seed=seed))

    return ask_sample
