"""Model calls of a run: counted, recorded piece by piece, and cut short cleanly.

Planner, joiner and reasoning branches ask models only through here, so that every token they were
given is in the log before it is used. The module must not know what is asked, or why.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic_core import to_jsonable_python

from llmcompiler.errors import (
    CallInterrupted,
    LimitReached,
    LLMCompilerError,
    LogError,
    ModelError,
)
from llmcompiler.events import LimitHit, ModelFailed, ModelFinished, ModelStarted, ModelText
from llmcompiler.failures import failure_of
from llmcompiler.journal import Journal
from llmcompiler.limits import Budget
from llmcompiler.llm.base import Ask, ChatModel, Completion, FunctionCall, Message, Request, Usage


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A model call that the log holds, whole or in part.

    Attributes:
        pieces: the text that had come.
        end: how it ended; ``None`` if the process ended first.
        asked_again: whether the run went on with another call after this one had failed.
        only_for: the messages that it answers, as logged; asked something else, the model is asked
            anew. ``None`` for whatever is asked.
    """

    pieces: tuple[str, ...]
    end: ModelFinished | ModelFailed | None
    asked_again: bool = False
    only_for: Any = None


RecallAnswer: TypeAlias = Callable[[str, dict[str, Any]], RecordedCall | None]
"""The answer that a role's model once gave to this very request, as ``request_to_json`` has it."""


def request_to_json(request: Request) -> dict[str, Any]:
    """The request as it is logged: what differs from the defaults."""
    defaults = Request(messages=())
    fields = {
        field.name: getattr(request, field.name)
        for field in dataclasses.fields(request)
        if getattr(request, field.name) != getattr(defaults, field.name)
    }
    fields["messages"] = [_message_to_json(message) for message in request.messages]
    if "stop" in fields:
        fields["stop"] = list(request.stop)
    if request.grammar is not None:
        # It follows from the tools, which the log holds, and is longer than all the rest.
        fields["grammar"] = _digest(request.grammar)
    if request.functions:
        said = [dataclasses.asdict(function) for function in request.functions]
        fields["functions"] = {
            "names": [function.name for function in request.functions],
            "schemas": _digest(json.dumps(said, sort_keys=True)),
        }
    return fields


def _message_to_json(message: Message) -> dict[str, Any]:
    said: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        said["calls"] = [dataclasses.asdict(call) for call in message.calls]
    if message.call:
        said["call"] = message.call
    return said


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def completion_of(end: ModelFinished, text: str, model: str) -> Completion:
    """The answer whose end was recorded."""
    usage = Usage(end.prompt_tokens, end.cached_tokens, end.completion_tokens, 1)
    calls = tuple(FunctionCall(**call) for call in end.calls or ())
    return Completion(text, end.finish, usage, model, calls=calls)


class ModelCalls:
    """Makes the model calls of one run.

    Args:
        journal: told of every piece of text.
        budget: limits on calls and tokens.
        recorded: calls by id whose answers are known already; they are not made again.
        live: whether a call that is not recorded may be made; a replay makes none.
        recall: knows calls of another run by role and request; they are not made again either.
    """

    def __init__(
        self,
        journal: Journal,
        budget: Budget,
        recorded: Mapping[str, RecordedCall] | None = None,
        live: bool = True,
        recall: RecallAnswer | None = None,
    ) -> None:
        self._journal = journal
        self._budget = budget
        self._recorded = recorded or {}
        self._live = live
        self._recall = recall

    def ask(self, model: ChatModel, role: str, name: str, *, continues: bool = False) -> Ask:
        """A way to ask ``model`` whose calls are named ``name``, ``name/2``, ``name/3``.

        Args:
            model: what is asked.
            role: for the log.
            name: of the first call.
            continues: whether the asker can go on from an answer that broke off, and so is told
                of an interruption by a ``ModelError``; otherwise the call is made again for it.
        """
        counter = itertools.count(1)

        def start(request: Request) -> AsyncIterator[str | Completion]:
            names = (name if count == 1 else f"{name}/{count}" for count in counter)
            return self._answer(model, role, names, request, continues)

        return start

    async def _answer(
        self,
        model: ChatModel,
        role: str,
        names: Iterator[str],
        request: Request,
        continues: bool,
    ) -> AsyncIterator[str | Completion]:
        for call in names:
            recorded = self._recorded.get(call)
            if recorded is not None and recorded.only_for is not None:
                asked = to_jsonable_python(request_to_json(request)["messages"])
                recorded = recorded if recorded.only_for == asked else None
            if recorded is None and self._recall is not None:
                recorded = self._recall(role, request_to_json(request))
            if recorded is None:
                if not self._live:
                    raise LogError(
                        f"the log holds no answer to the model call {call}",
                        hint="the log was changed, or another release made it",
                    )
                async with aclosing(self._ask_now(model, role, call, request)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            self._started(model, role, call, request)
            for text in recorded.pieces:
                self._journal.emit(ModelText, call=call, text=text)
                self._journal.flush()
                yield text
            if isinstance(recorded.end, ModelFinished) and recorded.end.finish != "cut":
                answer = completion_of(recorded.end, "".join(recorded.pieces), model.name)
                self._finished(model, call, answer, self._journal.now() - recorded.end.seconds)
                yield answer
                return
            if isinstance(recorded.end, ModelFailed):
                failure = recorded.end.failure
            else:
                failure = failure_of(CallInterrupted())
            self._journal.emit(ModelFailed, call=call, failure=failure)
            self._journal.flush()
            if recorded.asked_again or failure.type == CallInterrupted.__name__:
                if continues:
                    raise CallInterrupted
            else:
                raise ModelError(failure.message, hint=failure.hint, retryable=failure.retryable)

    def _started(self, model: ChatModel, role: str, call: str, request: Request) -> None:
        self._journal.emit(
            ModelStarted, call=call, role=role, model=model.name, request=request_to_json(request)
        )
        self._journal.flush()

    async def _ask_now(
        self, model: ChatModel, role: str, call: str, request: Request
    ) -> AsyncGenerator[str | Completion, None]:
        try:
            self._budget.start_model_call(model.name)
        except LimitReached as reached:
            self._journal.emit(LimitHit, limit=reached.limit, message=reached.message)
            raise
        self._started(model, role, call, request)
        begun = self._journal.now()
        pieces = 0
        source = model.stream(request)
        answer: Completion | None = None
        try:
            async for piece in source:
                if isinstance(piece, Completion):
                    answer = piece
                    continue  # a stream left before its end keeps its connection for a while
                pieces += 1
                self._journal.emit(ModelText, call=call, text=piece)
                self._journal.flush()
                yield piece
        except (GeneratorExit, asyncio.CancelledError):
            # The endpoint reports tokens only at the end; a piece is one token at least.
            spent = Usage(completion_tokens=pieces, calls=1)
            self._finished(model, call, Completion("", "cut", spent, model.name), begun)
            raise
        except LLMCompilerError as error:
            self._journal.emit(ModelFailed, call=call, failure=failure_of(error, "model"))
            self._journal.flush()
            raise
        finally:
            await _close(source)
        if answer is None:
            raise RuntimeError(f"{model.name} ended its stream without a Completion")
        self._finished(model, call, answer, begun)
        yield answer

    def _finished(self, model: ChatModel, call: str, answer: Completion, begun: float) -> None:
        usage = answer.usage
        self._budget.spend(model.name, usage)
        self._journal.emit(
            ModelFinished,
            call=call,
            finish=answer.finish,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            seconds=self._journal.now() - begun,
            calls=[dataclasses.asdict(one) for one in answer.calls] or None,
        )
        self._journal.flush()


async def _close(source: AsyncIterator[str | Completion]) -> None:
    """Close a generator that may not have been read to its end."""
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()
