"""A running branch: starts a strategy's calls, counts and cuts them, and keeps the best result.

An asyncio task of its own reads each call, so a strategy that awaits something else delays no
call. A strategy sees pieces and ends in the order of the log; see ``runtime.branch_order``.
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
from llmcompiler.events import BranchStopped, CallId
from llmcompiler.llm.base import ChatModel, Request, Usage
from llmcompiler.llm.messages import Message
from llmcompiler.llm.prices import Prices
from llmcompiler.llm.samples import SharedRequest
from llmcompiler.llm.workspace import Seat, Workspace, WorkspaceRules
from llmcompiler.log.journal import Journal
from llmcompiler.prompting.prompts import fill
from llmcompiler.reasoning.answers import extract_answer
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
from llmcompiler.reasoning.prefixes import DeferredModel, find_prefix_reader
from llmcompiler.reasoning.request import BranchRequest
from llmcompiler.runtime.branch_order import BranchReplay
from llmcompiler.runtime.model_calls import (
    ModelCalls,
    RecordedCall,
    is_same_request,
    request_to_json,
)

T = TypeVar("T")


class LiveBranch:
    """The branch of one ``think`` call in a run (a ``Branch``).

    Args:
        request: the problem, the strategy's options and the budget.
        call_id: the branch's task, and the index of its element in a fan-out.
        name: the branch's name and the prefix of its calls' ids: ``4``, or ``4[2]`` for an element.
        calls: makes and records model calls.
        models: models by the names that the strategy may use; the strategy runs on ``branch``.
        capabilities: the capabilities of each model, by the same names.
        journal: takes the event that says that the budget is reached.
        prices: prices of tokens, for a budget in US dollars.
        replay: the recorded order of the branch's calls.
        started_at: when the branch first started, in seconds since the run started.
    """

    def __init__(
        self,
        request: BranchRequest,
        call_id: CallId,
        name: str,
        *,
        calls: ModelCalls,
        models: Mapping[str, ChatModel],
        capabilities: Mapping[str, Sequence[str]],
        journal: Journal,
        prices: Prices,
        replay: BranchReplay,
        started_at: float,
    ) -> None:
        self.problem = request.problem
        self.context = request.context
        self.budget: BranchBudget = request.budget
        self.seed = request.seed
        self.random = random.Random(request.seed or 0)
        self.replay = replay
        self.budget_stop: tuple[str, str] | None = None
        self.best_result: StrategyResult | None = None
        self.accepted_calls: list[str] = []
        self.calls: dict[str, LiveCall] = {}
        self._request = request
        self._call_id = call_id
        self._name = name
        self._model_calls = calls
        self._models = models
        self._capabilities = capabilities
        self._journal = journal
        self._prices = prices
        self._labels: Counter[str] = Counter()
        self._races: list[Callable[[], None]] = []
        self._workspaces: list[Workspace] = []
        self._usage = Usage()
        self._cost = 0.0
        self._recorded = calls.recorded_in_branch(name)
        self._unclaimed = dict(self._recorded)
        recorded_numbers = [int(call.rpartition("/")[2]) for call in self._recorded]
        self._next_number = max(recorded_numbers, default=-1) + 1
        self._timer: asyncio.TimerHandle | None = None
        replay.on_stop = self._stop
        if request.budget.seconds is not None:
            remaining = max(0.0, started_at + request.budget.seconds - journal.now())
            self._timer = asyncio.get_running_loop().call_later(remaining, self._on_time_up)

    # The ``Branch`` protocol, for strategies.

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
        if name not in self._request.prompts:
            raise UsageError(f'the strategy "{self._request.strategy}" has no prompt "{name}"')
        return fill(self._request.prompts[name], **values)

    def answer(self, text: str) -> str | None:
        """See ``Branch``."""
        return extract_answer(text, self._request.answer)

    def start(
        self, prompt: Prompt, *, label: str = "", model: str = "branch", **options: Any
    ) -> LiveCall:
        """See ``Branch``."""
        return self._start_call(self._build_request(prompt, label, model, **options), label, model)

    def _build_request(
        self,
        prompt: Prompt,
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
        defaults = self._request
        messages = _messages(prompt)
        requirements: list[tuple[bool, Capability]] = [
            (messages[-1].role == "assistant", "continuation"),
            (logprobs is not None, "logprobs"),
            (grammar is not None, "grammar"),
            (seat is not None, "shared_attention"),
        ]
        for is_required, capability in requirements:
            if is_required and not self.has(capability, model):
                raise UsageError(
                    f"the model {self._model(model).name} has no {capability}, which the strategy "
                    f'"{defaults.strategy}" asks for',
                    hint="use another model, or another strategy",
                )
        self._admit()
        count = self._labels[label]
        self._labels[label] += 1
        return Request(
            messages,
            max_tokens=max_tokens if max_tokens is not None else defaults.max_tokens,
            temperature=temperature if temperature is not None else defaults.temperature,
            top_p=top_p if top_p is not None else defaults.top_p,
            stop=tuple(stop),
            seed=seed if seed is not None else self._derived_seed(label, count),
            schema=schema,
            grammar=grammar,
            logprobs=logprobs,
            seat=seat,
            purpose="branch",
        )

    def _start_samples(
        self, prompt: Prompt, n: int, label: str, model: str, options: Any
    ) -> list[LiveCall]:
        """Start as many samples of one prompt as the budget allows, in one request."""
        if self.budget.calls is not None:
            n = max(1, min(n, self.budget.calls - len(self.calls)))
        request = self._build_request(prompt, label, model, **options)
        request = dataclasses.replace(request, extra={"n": n})
        shared = SharedRequest(self._model(model), request)
        calls = [
            self._start_call(request, label, model, shared.sample(number)) for number in range(n)
        ]
        # If some samples are recorded, the missing samples are requested one by one.
        shared.separate_requests = any(call.id in self._recorded for call in calls)
        return calls

    def workspace(self, prompt: Prompt, rules: WorkspaceRules) -> Workspace:
        """See ``Branch``."""
        workspace = Workspace(_messages(prompt), rules)
        self._workspaces.append(workspace)
        return workspace

    async def generate(
        self, prompt: Prompt, *, n: int = 1, label: str = "", **options: Any
    ) -> list[Candidate]:
        """See ``Branch``."""
        model = options.get("model", "branch")
        if n == 1 or not self.has("n", model):
            return await self.generate_each([prompt] * n, label=label, **options)
        call_options = {name: value for name, value in options.items() if name != "model"}
        return _drop_failed(
            await self._collect(self._start_samples(prompt, n, label, model, call_options))
        )

    async def generate_each(
        self, prompts: Sequence[Prompt], *, label: str = "", **options: Any
    ) -> list[Candidate]:
        """See ``Branch``."""
        calls: list[LiveCall] = []
        for prompt in prompts:
            try:
                calls.append(self.start(prompt, label=label, **options))
            except BudgetReached:
                if not calls:
                    raise
                break
        return _drop_failed(await self._collect(calls))

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

        def cut_if_enough() -> None:
            if is_enough():
                for call in running:
                    call.cut()

        self._races.append(cut_if_enough)
        try:
            cut_if_enough()
            return await self._collect(running)
        finally:
            self._races.remove(cut_if_enough)

    async def gather(self, *coroutines: Coroutine[Any, Any, T]) -> list[T]:
        """See ``Branch``."""
        tasks: list[asyncio.Task[T]] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks += [group.create_task(coroutine) for coroutine in coroutines]
        except BaseExceptionGroup as errors:
            # Callers expect one error, and the first one is what cancelled the others.
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def score(self, prompt: Sequence[Message], *, model: str = "branch") -> Candidate:
        """See ``Branch``."""
        if not self.has("prompt_logprobs", model):
            raise UsageError(
                f"the model {self._model(model).name} has no prompt_logprobs",
                hint="score with an endpoint that gives log-probabilities of prompts, as vLLM does",
            )
        self._admit()
        request = Request(
            tuple(prompt), max_tokens=1, temperature=0.0, extra={"prompt_logprobs": 1}
        )
        return await self._start_call(request, "score", model).wait_ended()

    def accept(self, *candidates: Candidate) -> None:
        """See ``Branch``."""
        self.accepted_calls += [
            candidate.call for candidate in candidates if candidate.call not in self.accepted_calls
        ]

    def keep(self, result: StrategyResult) -> None:
        """See ``Branch``."""
        self.best_result = result

    # For the executor.

    async def close(self) -> None:
        """Cut the calls that still run, and wait until they have ended."""
        if self._timer is not None:
            self._timer.cancel()
        running = [call for call in self.calls.values() if not call.has_ended]
        for call in running:
            call.cut()
        await self._wait_ended(running)
        self._close_workspaces()

    async def cancel(self) -> None:
        """Interrupt the calls that still run; a resumed branch makes them again."""
        if self._timer is not None:
            self._timer.cancel()
        running = [call for call in self.calls.values() if not call.has_ended]
        for call in running:
            call.interrupt()
        await self._wait_ended(running)
        self._close_workspaces()

    async def _wait_ended(self, running: Sequence[LiveCall]) -> None:
        tasks = [call.task for call in running if call.task is not None]
        if tasks:
            await asyncio.wait(tasks)

    def _close_workspaces(self) -> None:
        for workspace in self._workspaces:
            workspace.close()

    def recorded_call(self, call_id: str) -> RecordedCall | None:
        """The recorded call of that id, or the last one that was made in its place."""
        return self._model_calls.last_recorded(call_id)

    def on_call_progress(self, call: LiveCall) -> None:
        """Handle a new piece or the end of a call: count tokens, check the budget and races."""
        if call.candidate is not None:
            usage = call.candidate.usage
            self._usage += usage
            self._spend(call, usage)
        self.replay.run_next_stop()
        self._check_budget()
        for cut_if_enough in list(self._races):
            cut_if_enough()

    # Starting calls.

    def _start_call(
        self, request: Request, label: str, model: str, sample: ChatModel | None = None
    ) -> LiveCall:
        call_id = self._claim_id(request, label)
        chosen_model = sample or self._model(model)
        prompt_text = "\0".join(message.content for message in request.messages)
        if sample is None and self._may_wait(request, model):
            earlier_calls = (
                call for call in self.calls.values() if call.model == chosen_model.name
            )
            if (prefix_reader := find_prefix_reader(prompt_text, earlier_calls)) is not None:
                chosen_model = DeferredModel(chosen_model, prefix_reader.prompt_read)
        call = LiveCall(self, call_id, label, chosen_model.name, prompt_text)
        stream = self._model_calls.ask_in_branch(
            chosen_model, call_id, request, label, self.replay, lambda: call.is_cut
        )
        self.calls[call_id] = call
        call.task = asyncio.get_running_loop().create_task(call.read(stream), name=call_id)
        return call

    def _may_wait(self, request: Request, model: str) -> bool:
        """True if a call may wait for another call; calls of a workspace must start together."""
        return request.seat is None and self.has("prefix_cache", model)

    def _claim_id(self, request: Request, label: str) -> str:
        """Reuse the id of the matching recorded call, else take the next free id."""
        request_json = request_to_json(request)
        for call_id, recorded_call in self._unclaimed.items():
            if recorded_call.label == label and is_same_request(
                recorded_call.request, request_json
            ):
                del self._unclaimed[call_id]
                return call_id
        if not self._model_calls.live and self._unclaimed:
            # The comparison of the two logs reports what differs.
            call_id = next(iter(self._unclaimed))
            del self._unclaimed[call_id]
            return call_id
        call_id = f"{self._name}/{self._next_number}"
        self._next_number += 1
        return call_id

    def _model(self, model: str) -> ChatModel:
        if model not in self._models:
            raise UsageError(
                f'the strategy "{self._request.strategy}" asks for a model "{model}", which is not '
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
        """Wait for all calls and return their candidates; if cancelled, interrupt the calls.

        Raises:
            ModelError: all of them failed.
        """
        try:
            candidates = [await call.wait_ended() for call in calls]
        except BaseException:
            for call in calls:
                if not call.has_ended:
                    call.interrupt()
            await self._wait_ended([call for call in calls if not call.has_ended])
            raise
        if all(candidate.finish == "failed" for candidate in candidates):
            for call in calls:
                if call.error is not None:
                    raise call.error
        return candidates

    # The budget.

    def _admit(self) -> None:
        """Refuse a call if the budget is used up.

        Raises:
            BudgetReached: the budget allows no further call.
        """
        max_calls = self.budget.calls
        if self.budget_stop is None and max_calls is not None and len(self.calls) >= max_calls:
            self._stop("calls")
        if self.budget_stop is not None:
            limit, message = self.budget_stop
            raise BudgetReached(message, limit=limit, hint="give the branch more to get further")

    def _check_budget(self) -> None:
        """Stop the branch if tokens or money are used up; a replay stops where the log says so."""
        if self.budget_stop is not None or not self.replay.is_over or not self._model_calls.live:
            return
        running_pieces = sum(call.pieces for call in self.calls.values() if not call.has_ended)
        used_tokens = self._usage.prompt_tokens + self._usage.completion_tokens + running_pieces
        if self.budget.tokens is not None and used_tokens >= self.budget.tokens:
            self._stop("tokens")
        elif self.budget.cost is not None and self._cost >= self.budget.cost:
            self._stop("cost")

    def _spend(self, call: LiveCall, usage: Usage) -> None:
        if self.budget.cost is not None:
            self._cost += self._prices.cost(call.model, usage)

    def _on_time_up(self) -> None:
        if self._model_calls.live and self.replay.is_over and self.budget_stop is None:
            self._stop("seconds")

    def _stop(self, limit: str) -> None:
        """Record that the budget is used up, and cut the running calls."""
        if self.budget_stop is not None:
            return
        message = f"the branch reached its budget {limit}={getattr(self.budget, limit):g}"
        self.budget_stop = limit, message
        task, index = self._call_id
        self._journal.emit(BranchStopped, task=task, index=index, limit=limit, message=message)
        self._journal.flush()
        if limit != "calls":
            for call in list(self.calls.values()):
                call.cut()


def _drop_failed(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [candidate for candidate in candidates if candidate.finish != "failed"]


def _messages(prompt: Prompt) -> tuple[Message, ...]:
    return (Message("user", prompt),) if isinstance(prompt, str) else tuple(prompt)
