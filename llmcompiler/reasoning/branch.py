"""A branch at work: makes a strategy's calls, counts them, cuts them, and keeps what was best.

Each call is read by an asyncio task of its own, so that a strategy that does not listen holds up
nobody. What a strategy learns, it learns in the order of the log; see ``tape``. The module must not
know any strategy, nor what runs beside the branch.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from llmcompiler.errors import UsageError
from llmcompiler.events import BranchStopped
from llmcompiler.llm.base import ChatModel, Request, Usage
from llmcompiler.llm.messages import Message
from llmcompiler.llm.prices import Prices
from llmcompiler.llm.samples import SharedRequest
from llmcompiler.llm.workspace import Seat, Workspace, WorkspaceRules
from llmcompiler.log.journal import Journal
from llmcompiler.prompting.prompts import fill
from llmcompiler.reasoning.answers import extract
from llmcompiler.reasoning.base import (
    BranchBudget,
    BranchCall,
    BudgetReached,
    Candidate,
    Capability,
    Prompt,
    StrategyResult,
)
from llmcompiler.reasoning.branch_call import LiveCall
from llmcompiler.reasoning.prefixes import HeldModel, reader_of
from llmcompiler.reasoning.request import BranchRequest
from llmcompiler.runtime.branch_order import Tape
from llmcompiler.runtime.model_calls import ModelCalls, RecordedCall, request_to_json

T = TypeVar("T")


class LiveBranch:
    """What a strategy uses (a ``Branch``).

    Args:
        spec: what is asked, and within which bounds.
        place: the branch's task, and its element of a fan-out.
        name: of the branch, in front of its calls' numbers: ``4``, or ``4[2]`` for an element.
        calls: makes and records calls.
        models: by the names that the strategy may use; ``branch`` is the one that it runs on.
        capabilities: of each of them.
        journal: told when the budget is reached.
        prices: for a budget in money.
        tape: what is recorded of the branch.
        begun: when the branch first began, in seconds of the run.
    """

    def __init__(
        self,
        spec: BranchRequest,
        place: tuple[int, tuple[int, ...]],
        name: str,
        *,
        calls: ModelCalls,
        models: Mapping[str, ChatModel],
        capabilities: Mapping[str, Sequence[str]],
        journal: Journal,
        prices: Prices,
        tape: Tape,
        begun: float,
    ) -> None:
        self.problem = spec.problem
        self.context = spec.context
        self.budget: BranchBudget = spec.budget
        self.seed = spec.seed
        self.random = random.Random(spec.seed or 0)
        self.tape = tape
        self.stopped: tuple[str, str] | None = None
        self.kept: StrategyResult | None = None
        self.accepted: list[str] = []
        self.calls: dict[str, LiveCall] = {}
        self._spec = spec
        self._place = place
        self._name = name
        self._asker = calls
        self._models = models
        self._capabilities = capabilities
        self._journal = journal
        self._prices = prices
        self._labels: Counter[str] = Counter()
        self._races: list[Callable[[], None]] = []
        self._workspaces: list[Workspace] = []
        self._usage = Usage()
        self._cost = 0.0
        self._recorded = calls.of_branch(name)
        self._unclaimed = dict(self._recorded)
        numbers = [int(call.rpartition("/")[2]) for call in self._recorded]
        self._next = max(numbers, default=-1) + 1
        self._timer: asyncio.TimerHandle | None = None
        tape.on_stop = self._stop
        if spec.budget.seconds is not None:
            left = max(0.0, begun + spec.budget.seconds - journal.now())
            self._timer = asyncio.get_running_loop().call_later(left, self._time_is_up)

    # What strategies see.

    @property
    def usage(self) -> Usage:
        """See ``Branch``."""
        return self._usage

    def has(self, capability: Capability, model: str = "branch") -> bool:
        """See ``Branch``."""
        self._model(model)
        return capability in self._capabilities.get(model, ())

    def prompt(self, name: str, **values: object) -> str:
        """See ``Branch``."""
        if name not in self._spec.prompts:
            raise UsageError(f'the strategy "{self._spec.strategy}" has no prompt "{name}"')
        return fill(self._spec.prompts[name], **values)

    def answer(self, text: str) -> str | None:
        """See ``Branch``."""
        return extract(text, self._spec.answer)

    def start(
        self, ask: Prompt, *, label: str = "", model: str = "branch", **options: Any
    ) -> LiveCall:
        """See ``Branch``."""
        return self._begin(self._request(ask, label, model, **options), label, model)

    def _request(
        self,
        ask: Prompt,
        label: str,
        model: str,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: Sequence[str] = (),
        seed: int | None = None,
        logprobs: int | None = None,
        schema: Mapping[str, Any] | None = None,
        grammar: str | None = None,
        seat: Seat | None = None,
    ) -> Request:
        spec = self._spec
        messages = _messages(ask)
        needed: list[tuple[bool, Capability]] = [
            (messages[-1].role == "assistant", "continuation"),
            (logprobs is not None, "logprobs"),
            (grammar is not None, "grammar"),
            (seat is not None, "shared_attention"),
        ]
        for is_needed, capability in needed:
            if is_needed and not self.has(capability, model):
                raise UsageError(
                    f"the model {self._model(model).name} has no {capability}, which the strategy "
                    f'"{spec.strategy}" asks for',
                    hint="use another model, or another strategy",
                )
        self._admit()
        count = self._labels[label]
        self._labels[label] += 1
        return Request(
            messages,
            max_tokens=max_tokens if max_tokens is not None else spec.max_tokens,
            temperature=temperature if temperature is not None else spec.temperature,
            top_p=top_p if top_p is not None else spec.top_p,
            stop=tuple(stop),
            seed=seed if seed is not None else self._derived_seed(label, count),
            schema=schema,
            grammar=grammar,
            logprobs=logprobs,
            seat=seat,
        )

    def _samples(self, ask: Prompt, n: int, label: str, model: str, options: Any) -> list[LiveCall]:
        """Calls for as many samples of one prompt as the budget allows, by one request."""
        if self.budget.calls is not None:
            n = max(1, min(n, self.budget.calls - len(self.calls)))
        request = self._request(ask, label, model, **options)
        request = dataclasses.replace(request, extra={"n": n})
        shared = SharedRequest(self._model(model), request)
        calls = [self._begin(request, label, model, shared.sample(number)) for number in range(n)]
        # Where some are recorded, those that are missing are asked for one by one.
        shared.separate_requests = any(call.id in self._recorded for call in calls)
        return calls

    def workspace(self, ask: Prompt, rules: WorkspaceRules) -> Workspace:
        """See ``Branch``."""
        made = Workspace(_messages(ask), rules)
        self._workspaces.append(made)
        return made

    async def generate(
        self, ask: Prompt, *, n: int = 1, label: str = "", **options: Any
    ) -> list[Candidate]:
        """See ``Branch``."""
        model = options.get("model", "branch")
        if n == 1 or not self.has("n", model):
            return await self.generate_each([ask] * n, label=label, **options)
        rest = {name: value for name, value in options.items() if name != "model"}
        return _worked(await self._collect(self._samples(ask, n, label, model, rest)))

    async def generate_each(
        self, asks: Sequence[Prompt], *, label: str = "", **options: Any
    ) -> list[Candidate]:
        """See ``Branch``."""
        calls: list[LiveCall] = []
        for ask in asks:
            try:
                calls.append(self.start(ask, label=label, **options))
            except BudgetReached:
                if not calls:
                    raise
                break
        return _worked(await self._collect(calls))

    async def race(
        self, calls: Sequence[BranchCall], until: int | Callable[[Sequence[BranchCall]], bool]
    ) -> list[Candidate]:
        """See ``Branch``."""
        running = [call for call in calls if isinstance(call, LiveCall)]

        def is_enough() -> bool:
            if callable(until):
                return until(running)
            candidates = (call.candidate for call in running)
            complete = sum(candidate is not None and candidate.complete for candidate in candidates)
            return complete >= until

        def look() -> None:
            if is_enough():
                for call in running:
                    call.cut()

        self._races.append(look)
        try:
            look()
            return await self._collect(running)
        finally:
            self._races.remove(look)

    async def gather(self, *work: Coroutine[Any, Any, T]) -> list[T]:
        """See ``Branch``."""
        tasks: list[asyncio.Task[T]] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks += [group.create_task(one) for one in work]
        except BaseExceptionGroup as several:
            # One error is what callers expect, and the first is what made the others stop.
            raise several.exceptions[0] from None
        return [task.result() for task in tasks]

    async def score(self, ask: Sequence[Message], *, model: str = "branch") -> Candidate:
        """See ``Branch``."""
        if not self.has("prompt_logprobs", model):
            raise UsageError(
                f"the model {self._model(model).name} has no prompt_logprobs",
                hint="score with an endpoint that gives log-probabilities of prompts, as vLLM does",
            )
        self._admit()
        request = Request(tuple(ask), max_tokens=1, temperature=0.0, extra={"prompt_logprobs": 1})
        return await self._begin(request, "score", model).settled()

    def accept(self, *candidates: Candidate) -> None:
        """See ``Branch``."""
        self.accepted += [one.call for one in candidates if one.call not in self.accepted]

    def keep(self, outcome: StrategyResult) -> None:
        """See ``Branch``."""
        self.kept = outcome

    # What the frame uses.

    async def close(self) -> None:
        """Cut what still runs, and wait until it has ended."""
        if self._timer is not None:
            self._timer.cancel()
        running = [call for call in self.calls.values() if not call.has_ended]
        for call in running:
            call.cut()
        await self._drained(running)
        self._clear()

    async def cancel(self) -> None:
        """The branch is cancelled: its calls break off, to be made again if it is resumed."""
        if self._timer is not None:
            self._timer.cancel()
        running = [call for call in self.calls.values() if not call.has_ended]
        for call in running:
            call.leave()
        await self._drained(running)
        self._clear()

    async def _drained(self, running: Sequence[LiveCall]) -> None:
        tasks = [call.task for call in running if call.task is not None]
        if tasks:
            await asyncio.wait(tasks)

    def _clear(self) -> None:
        for workspace in self._workspaces:
            workspace.close()

    def recorded(self, call: str) -> RecordedCall | None:
        """What the log holds of a call, or of the last that was made in its place."""
        return self._asker.recorded_end(call)

    def took(self, call: LiveCall) -> None:
        """A call wrote a piece, or ended."""
        if call.candidate is not None:
            used = call.candidate.usage
            self._usage += used
            self._spend(call, used)
        self.tape.consumed()
        self._check()
        for look in list(self._races):
            look()

    # How calls are made.

    def _begin(
        self, request: Request, label: str, model: str, sample: ChatModel | None = None
    ) -> LiveCall:
        name = self._claim(request, label)
        chosen = sample or self._model(model)
        prompt = "\0".join(message.content for message in request.messages)
        if sample is None and self._may_hold(request, model):
            others = (call for call in self.calls.values() if call.model == chosen.name)
            if (first := reader_of(prompt, others)) is not None:
                chosen = HeldModel(chosen, first.begun)
        call = LiveCall(self, name, label, chosen.name, prompt)
        stream = self._asker.ask_in_branch(
            chosen, name, request, label, self.tape, lambda: call.is_cut
        )
        self.calls[name] = call
        call.task = asyncio.get_running_loop().create_task(call.read(stream), name=name)
        return call

    def _may_hold(self, request: Request, model: str) -> bool:
        """Whether a call may wait for another; those of one workspace are started together."""
        return request.seat is None and self.has("prefix_cache", model)

    def _claim(self, request: Request, label: str) -> str:
        """The id of a call: of the recorded one that it is, else the next that is free."""
        asked = request_to_json(request)
        for name, recorded in self._unclaimed.items():
            if recorded.label == label and recorded.request == asked:
                del self._unclaimed[name]
                return name
        if not self._asker.live and self._unclaimed:
            # What differs is named when everything is compared.
            name = next(iter(self._unclaimed))
            del self._unclaimed[name]
            return name
        name = f"{self._name}/{self._next}"
        self._next += 1
        return name

    def _model(self, model: str) -> ChatModel:
        if model not in self._models:
            raise UsageError(
                f'the strategy "{self._spec.strategy}" asks for a model "{model}", which is not '
                "given",
                hint=f"name it: --branch-model {model}=openai:NAME",
            )
        return self._models[model]

    def _derived_seed(self, label: str, count: int) -> int | None:
        if self.seed is None:
            return None
        digest = hashlib.sha256(f"{self.seed}\0{label}\0{count}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1  # endpoints take 31 bits

    async def _collect(self, calls: Sequence[LiveCall]) -> list[Candidate]:
        """Candidates of all, unless all failed; if the strategy is cancelled, so are the calls."""
        try:
            candidates = [await call.settled() for call in calls]
        except BaseException:
            for call in calls:
                if not call.has_ended:
                    call.leave()
            await self._drained([call for call in calls if not call.has_ended])
            raise
        if all(one.finish == "failed" for one in candidates):
            for call in calls:
                if call.error is not None:
                    raise call.error
        return candidates

    # The budget.

    def _admit(self) -> None:
        """Refuse a call where the budget is used up."""
        most = self.budget.calls
        if self.stopped is None and most is not None and len(self.calls) >= most:
            self._stop("calls")
        if self.stopped is not None:
            limit, message = self.stopped
            raise BudgetReached(message, limit=limit, hint="give the branch more to get further")

    def _check(self) -> None:
        """Stop where tokens or money are used up; while a tape runs, it says so itself."""
        if self.stopped is not None or not self.tape.over or not self._asker.live:
            return
        running = sum(call.pieces for call in self.calls.values() if not call.has_ended)
        used = self._usage.prompt_tokens + self._usage.completion_tokens + running
        if self.budget.tokens is not None and used >= self.budget.tokens:
            self._stop("tokens")
        elif self.budget.cost is not None and self._cost >= self.budget.cost:
            self._stop("cost")

    def _spend(self, call: LiveCall, used: Usage) -> None:
        if self.budget.cost is not None:
            self._cost += self._prices.cost(call.model, used)

    def _time_is_up(self) -> None:
        if self._asker.live and self.tape.over and self.stopped is None:
            self._stop("seconds")

    def _stop(self, limit: str) -> None:
        """The budget is used up: what runs is cut, and nothing more is asked."""
        if self.stopped is not None:
            return
        message = f"the branch reached its budget {limit}={getattr(self.budget, limit):g}"
        self.stopped = limit, message
        task, index = self._place
        self._journal.emit(BranchStopped, task=task, index=index, limit=limit, message=message)
        self._journal.flush()
        if limit != "calls":
            for call in list(self.calls.values()):
                call.cut()


def _worked(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [one for one in candidates if one.finish != "failed"]


def _messages(ask: Prompt) -> tuple[Message, ...]:
    return (Message("user", ask),) if isinstance(ask, str) else tuple(ask)
