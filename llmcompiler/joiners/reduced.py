"""A joiner that decides several times and has a reducer make one decision of it.

A model that reads the same results twice may answer differently. So the joiner's model drafts
several decisions at once, each sampled with a seed of its own; most drafts settle whether to answer
at all, and a reducer of ``reasoning.reducers`` makes one of the answers. Every draft is a call of
its own in the log (``join/1/draft1``), those of a judge are ``join/1/reduce``. The module must not
know how a single draft is made.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmcompiler.errors import ModelError, ToolError, UsageError
from llmcompiler.joiners.model import MAX_TOKENS, Decision, JoinContext, Joiner
from llmcompiler.llm.base import Completion, Request, StreamFunction
from llmcompiler.llm.messages import Message

if TYPE_CHECKING:
    from llmcompiler.reasoning.reducers import Reduction

REDUCERS = ("vote", "best_of", "tournament", "synthesize")
"""Those that need nothing but texts and a judge."""

DRAFTS = 3
TEMPERATURE = 0.7
"""Of drafts and judges; a joiner by itself is asked for its likeliest text, the same each time."""


@dataclass(frozen=True, slots=True)
class JoinReducer:
    """How drafts become one decision.

    Attributes:
        name: one of ``REDUCERS``.
        drafts: how many.
    """

    name: str
    drafts: int = DRAFTS

    @classmethod
    def parse(cls, text: str) -> JoinReducer:
        """Read ``vote`` or ``vote:5``.

        Raises:
            UsageError: there is no such reducer for drafts, or the number is none.
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
    """A joiner whose decision is made of several drafts.

    Args:
        joiner: makes a draft each time that it is asked.
        reducer: how they become one.

    Voting is self-consistency (Wang et al. 2022) applied to the joiner. It helps where answers are
    short; prose is hardly ever written twice, and then the earliest draft wins.
    """

    def __init__(self, joiner: Joiner, reducer: JoinReducer) -> None:
        self._joiner = joiner
        self._reducer = reducer

    async def join(self, context: JoinContext) -> Decision:
        """See ``Joiner.join``.

        A draft whose model fails is left out as long as one does not. More than half of them have
        to wish for another plan, and then the first one's reason is the reason.

        Raises:
            ModelError: every draft failed, or the judge decided nothing.
        """
        shown: list[str] = []
        drafts = await self._drafts(context, shown)
        wishes = [one for one in drafts if one.kind == "replan"]
        if 2 * len(wishes) > len(drafts):
            return dataclasses.replace(
                wishes[0], why=f"{len(wishes)} of {len(drafts)} drafts ask for another plan"
            )
        texts = [one.text for one in drafts if one.kind == "answer"]
        if len(texts) == 1:
            return Decision("answer", texts[0], "the only draft that answers")
        try:
            # A judge reads what the drafts were made of: the results, and the question behind them.
            reduction = await self._reduce(texts, context, (*shown, context.question)[0])
        except ToolError as error:
            raise ModelError(f"the joiner's drafts: {error.message}", hint=error.hint) from error
        text = texts[reduction.positions[0]] if reduction.positions else reduction.text
        return Decision("answer", text, f"{self._reducer.name}: {reduction.why}")

    async def _drafts(self, context: JoinContext, shown: list[str]) -> list[Decision]:
        async def draft(number: int) -> Decision | ModelError:
            ask = _sampled(context.ask_as(f"draft{number}"), number, shown)
            try:
                return await self._joiner.join(dataclasses.replace(context, ask=ask))
            except ModelError as error:
                return error

        numbers = range(1, self._reducer.drafts + 1)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(draft(number)) for number in numbers]
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        made = [task.result() for task in tasks]
        drafts = [one for one in made if isinstance(one, Decision)]
        if not drafts:
            # The last one, as that is the call which a resumed run makes again.
            raise next(one for one in reversed(made) if isinstance(one, ModelError))
        return drafts

    async def _reduce(self, texts: list[str], context: JoinContext, problem: str) -> Reduction:
        from llmcompiler.reasoning import reducers

        if self._reducer.name == "vote":
            return reducers.vote(texts)
        ask, seeds = context.ask_as("reduce"), itertools.count(1)

        async def judge(question: str) -> str:
            request = Request(
                (Message("user", question),),
                max_tokens=MAX_TOKENS,
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


def _sampled(ask: StreamFunction, seed: int, shown: list[str]) -> StreamFunction:
    """The same way to ask, but for one of several samples; notes what the model is shown."""

    def start(request: Request) -> AsyncIterator[str | Completion]:
        shown.append(request.messages[-1].content)
        return ask(dataclasses.replace(request, temperature=TEMPERATURE, seed=seed))

    return start
