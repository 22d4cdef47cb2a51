"""A branch without a run: asks its models, keeps everything that it was asked.

It does what ``Branch`` says and no more: no log, no limits of a run. Calls run one after the other
in the order in which they were started unless a script has delays, so outcomes are the same each
time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from llmcompiler.errors import ModelError
from llmcompiler.llm.base import ChatModel, Completion, Request, Usage
from llmcompiler.llm.messages import Message
from llmcompiler.prompting.prompts import fill
from llmcompiler.reasoning.answers import extract_answer
from llmcompiler.reasoning.base import (
    BranchBudget,
    BudgetReached,
    Candidate,
    Prompt,
    StrategyResult,
)


@dataclass
class ScriptedCall:
    """See ``base.Call``."""

    id: str
    label: str
    how: str
    text: str = ""
    has_ended: bool = False
    heard: Callable[[], None] = lambda: None
    task: asyncio.Task[Candidate] = field(init=False)
    finish: str = "cut"

    async def read(self, model: ChatModel, request: Request) -> Candidate:
        usage, logprobs = Usage(calls=1), None
        pieces_read = 0
        try:
            async with aclosing(model.stream(request)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    if isinstance(piece, Completion):
                        usage, self.finish, logprobs = piece.usage, piece.finish, piece.logprobs
                        self.has_ended = True
                    else:
                        self.text += piece
                        pieces_read += 1
                    self.heard()
        except asyncio.CancelledError:
            usage = Usage(completion_tokens=pieces_read, calls=1)
        except ModelError:
            self.finish = "failed"
            self.has_ended = True
            self.heard()
        return Candidate(
            self.text,
            extract_answer(self.text, self.how),
            self.finish,
            self.id,
            self.label,
            usage,
            logprobs,
        )

    def cut(self) -> None:
        if not self.has_ended:
            self.task.cancel()

    def __await__(self) -> Generator[Any, None, Candidate]:
        return self.task.__await__()


class ScriptedBranch:
    """A ``Branch`` over models by name; ``branch`` is the first's name where one is given."""

    def __init__(
        self,
        models: ChatModel | Mapping[str, ChatModel],
        strategy: Any,
        *,
        seed: int = 0,
        calls: int | None = None,
        can: Sequence[str] = (),
        how: str = "auto",
        max_tokens: int | None = None,
        temperature: float = 1.0,
        prompts: Mapping[str, str] | None = None,
    ) -> None:
        self.models = models if isinstance(models, Mapping) else {"branch": models}
        self.strategy = strategy
        self.problem = self.context = ""
        self.budget = BranchBudget(calls=calls)
        self.seed: int | None = seed
        self.random = random.Random(seed)
        self.started: list[ScriptedCall] = []
        self.requests: list[tuple[str, Request]] = []
        self.accepted: list[Candidate] = []
        self.kept: StrategyResult | None = None
        self.candidates: list[Candidate] = []
        self._can, self._how, self._max_tokens = set(can), how, max_tokens
        self._temperature = temperature
        self._prompts = {**strategy.prompts, **(prompts or {})}

    @property
    def usage(self) -> Usage:
        return sum((one.usage for one in self.candidates), Usage())

    def has(self, capability: str, model: str = "branch") -> bool:
        return capability in self._can

    def prompt(self, name: str, **values: object) -> str:
        return fill(self._prompts[name], **values)

    def answer(self, text: str) -> str | None:
        return extract_answer(text, self._how)

    def start(self, ask: Prompt, *, label: str = "", model: str = "branch", **options: Any) -> Any:
        if self.budget.calls is not None and len(self.started) >= self.budget.calls:
            raise BudgetReached("no calls left", limit="calls")
        messages = (Message("user", ask),) if isinstance(ask, str) else tuple(ask)
        seed = options.pop("seed", None)
        known = {name: value for name, value in options.items() if value is not None}
        known.setdefault("temperature", self._temperature)
        known.setdefault("max_tokens", self._max_tokens)
        known["stop"] = tuple(known.get("stop", ()))
        number = len(self.started)
        request = Request(messages, seed=number if seed is None else seed, **known)
        self.requests.append((label, request))
        call = ScriptedCall(f"1/{number}", label, self._how)
        call.task = asyncio.ensure_future(call.read(self.models[model], request))
        call.task.add_done_callback(lambda task: self.candidates.append(task.result()))
        self.started.append(call)
        return call

    async def generate(
        self, ask: Prompt, *, n: int = 1, label: str = "", **options: Any
    ) -> list[Candidate]:
        return await self.generate_each([ask] * n, label=label, **options)

    async def generate_each(
        self, asks: Sequence[Prompt], *, label: str = "", **options: Any
    ) -> list[Candidate]:
        calls = []
        for ask in asks:
            try:
                calls.append(self.start(ask, label=label, **options))
            except BudgetReached:
                if not calls:
                    raise
                break
        return _some(await asyncio.gather(*(call.task for call in calls)))

    async def race(self, calls: Sequence[Any], until: Any) -> list[Candidate]:
        def check() -> None:
            count = sum(call.has_ended for call in calls)
            if until(calls) if callable(until) else count >= until:
                for call in calls:
                    call.cut()

        for call in calls:
            call.heard = check
        return _some(await asyncio.gather(*(call.task for call in calls)))

    async def gather(self, *work: Coroutine[Any, Any, Any]) -> list[Any]:
        return list(await asyncio.gather(*work))

    async def score(self, ask: Sequence[Message], *, model: str = "branch") -> Candidate:
        self.requests.append(("score", Request(tuple(ask))))
        scorer: Any = self.models[model]
        return Candidate(ask[-1].content, None, "stop", "s", "score", logprobs=scorer.score(ask))

    def accept(self, *candidates: Candidate) -> None:
        self.accepted += candidates

    def keep(self, outcome: StrategyResult) -> None:
        self.kept = outcome

    async def think(self, problem: str = "What is 1 + 1?", context: str = "") -> StrategyResult:
        """Run the strategy as the frame does: what was kept is the result if the budget ends."""
        self.problem, self.context = problem, context
        try:
            outcome: StrategyResult = await self.strategy.run(problem, context, self)
        except BudgetReached:
            if self.kept is None:
                raise
            return self.kept
        return outcome


def _some(candidates: Sequence[Candidate]) -> list[Candidate]:
    worked = [one for one in candidates if one.finish != "failed"]
    if not worked:
        raise ModelError("all calls failed")
    return worked
