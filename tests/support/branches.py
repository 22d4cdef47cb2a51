"""A branch without a run: it asks scripted models and records every request.

It implements ``Branch`` without a log and without limits of a run. Unless a script has delays,
calls end in the order in which they were started, so results are the same each time.
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
    """See ``base.BranchCall``."""

    id: str
    label: str
    answer_format: str
    text: str = ""
    has_ended: bool = False
    on_progress: Callable[[], None] = lambda: None
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
                    self.on_progress()
        except asyncio.CancelledError:
            usage = Usage(completion_tokens=pieces_read, calls=1)
        except ModelError:
            self.finish = "failed"
            self.has_ended = True
            self.on_progress()
        return Candidate(
            self.text,
            extract_answer(self.text, self.answer_format),
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
    """A ``Branch`` over models by name; a single model gets the name ``branch``."""

    def __init__(
        self,
        models: ChatModel | Mapping[str, ChatModel],
        strategy: Any,
        *,
        seed: int = 0,
        calls: int | None = None,
        capabilities: Sequence[str] = (),
        answer_format: str = "auto",
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
        self.best_result: StrategyResult | None = None
        self.candidates: list[Candidate] = []
        self._capabilities, self._answer_format, self._max_tokens = (
            set(capabilities),
            answer_format,
            max_tokens,
        )
        self._temperature = temperature
        self._prompts = {**strategy.prompts, **(prompts or {})}

    @property
    def usage(self) -> Usage:
        return sum((candidate.usage for candidate in self.candidates), Usage())

    def has(self, capability: str, model: str = "branch") -> bool:
        return capability in self._capabilities

    def prompt(self, name: str, **values: object) -> str:
        return fill(self._prompts[name], **values)

    def answer(self, text: str) -> str | None:
        return extract_answer(text, self._answer_format)

    def start(
        self, prompt: Prompt, *, label: str = "", model: str = "branch", **options: Any
    ) -> Any:
        if self.budget.calls is not None and len(self.started) >= self.budget.calls:
            raise BudgetReached("no calls left", limit="calls")
        messages = (Message("user", prompt),) if isinstance(prompt, str) else tuple(prompt)
        seed = options.pop("seed", None)
        request_fields = {name: value for name, value in options.items() if value is not None}
        request_fields.setdefault("temperature", self._temperature)
        request_fields.setdefault("max_tokens", self._max_tokens)
        request_fields["stop"] = tuple(request_fields.get("stop", ()))
        number = len(self.started)
        request = Request(messages, seed=number if seed is None else seed, **request_fields)
        self.requests.append((label, request))
        call = ScriptedCall(f"1/{number}", label, self._answer_format)
        call.task = asyncio.ensure_future(call.read(self.models[model], request))
        call.task.add_done_callback(lambda task: self.candidates.append(task.result()))
        self.started.append(call)
        return call

    async def generate(
        self, prompt: Prompt, *, n: int = 1, label: str = "", **options: Any
    ) -> list[Candidate]:
        return await self.generate_each([prompt] * n, label=label, **options)

    async def generate_each(
        self, prompts: Sequence[Prompt], *, label: str = "", **options: Any
    ) -> list[Candidate]:
        calls = []
        for prompt in prompts:
            try:
                calls.append(self.start(prompt, label=label, **options))
            except BudgetReached:
                if not calls:
                    raise
                break
        return _successful(await asyncio.gather(*(call.task for call in calls)))

    async def race(self, calls: Sequence[Any], until: Any) -> list[Candidate]:
        def check() -> None:
            count = sum(call.has_ended for call in calls)
            if until(calls) if callable(until) else count >= until:
                for call in calls:
                    call.cut()

        for call in calls:
            call.on_progress = check
        return _successful(await asyncio.gather(*(call.task for call in calls)))

    async def gather(self, *coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
        return list(await asyncio.gather(*coroutines))

    async def score(self, prompt: Sequence[Message], *, model: str = "branch") -> Candidate:
        self.requests.append(("score", Request(tuple(prompt))))
        scorer: Any = self.models[model]
        return Candidate(
            prompt[-1].content, None, "stop", "s", "score", logprobs=scorer.score(prompt)
        )

    def accept(self, *candidates: Candidate) -> None:
        self.accepted += candidates

    def keep(self, result: StrategyResult) -> None:
        self.best_result = result

    async def think(self, problem: str = "What is 1 + 1?", context: str = "") -> StrategyResult:
        """Run the strategy like the executor: if the budget ends, the result kept last counts."""
        self.problem, self.context = problem, context
        try:
            result: StrategyResult = await self.strategy.run(problem, context, self)
        except BudgetReached:
            if self.best_result is None:
                raise
            return self.best_result
        return result


def _successful(candidates: Sequence[Candidate]) -> list[Candidate]:
    successful = [candidate for candidate in candidates if candidate.finish != "failed"]
    if not successful:
        raise ModelError("all calls failed")
    return successful
