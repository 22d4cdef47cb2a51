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
    failure_of,
)
from llmcompiler.events import LimitHit, ModelFailed, ModelFinished, ModelStarted, ModelText
from llmcompiler.llm.base import ChatModel, Completion, Logprobs, Request, StreamFunction, Usage
from llmcompiler.llm.messages import FunctionCall, Message
from llmcompiler.llm.workspace import Seat
from llmcompiler.log.journal import Journal
from llmcompiler.runtime.branch_order import Tape
from llmcompiler.runtime.budget import RunBudget


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A model call that the log holds, whole or in part.

    Attributes:
        pieces: the text that had come.
        end: how it ended; ``None`` if the process ended first.
        asked_again: whether the run went on with another call after this one had failed.
        only_for: the messages that it answers, as logged; asked something else, the model is asked
            anew. ``None`` for whatever is asked.
        request: what was asked, as JSON.
        label: what a branch called it.
    """

    pieces: tuple[str, ...]
    end: ModelFinished | ModelFailed | None
    asked_again: bool = False
    only_for: Any = None
    request: dict[str, Any] | None = None
    label: str = ""

    @property
    def finish(self) -> str:
        """How it ended: ``interrupted`` where it did not, ``failed``, or the finish of its end."""
        match self.end:
            case ModelFinished():
                return self.end.finish
            case ModelFailed() if self.end.failure.type != CallInterrupted.__name__:
                return "failed"
        return "interrupted"


CompletionLookup: TypeAlias = Callable[[str, dict[str, Any]], RecordedCall | None]
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
    if "extra" in fields:
        fields["extra"] = dict(request.extra)
    if "stop" in fields:
        fields["stop"] = list(request.stop)
    if request.grammar is not None:
        # It follows from the tools, which the log holds, and is longer than all the rest.
        fields["grammar"] = _digest(request.grammar)
    if request.seat is not None:
        fields["seat"] = request.seat.to_json()
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
    logprobs = None if end.logprobs is None else _logprobs(end.logprobs)
    return Completion(text, end.finish, usage, end.model or model, logprobs, calls=calls)


class ModelCalls:
    """Makes the model calls of one run.

    Args:
        journal: told of every piece of text.
        budget: limits on calls and tokens.
        recorded: calls by id whose answers are known already; they are not made again.
        live: whether a call that is not recorded may be made; a replay makes none.
        recall: knows calls of another run by role and request; they are not made again either.

    Attributes:
        live: as given.
    """

    def __init__(
        self,
        journal: Journal,
        budget: RunBudget,
        recorded: Mapping[str, RecordedCall] | None = None,
        live: bool = True,
        recall: CompletionLookup | None = None,
    ) -> None:
        self._journal = journal
        self._budget = budget
        self._recorded = recorded or {}
        self.live = live
        self._recall = recall

    def ask(
        self, model: ChatModel, role: str, name: str, *, continues: bool = False
    ) -> StreamFunction:
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
                self._check_live(call)
                self._admit(model)
                self._started(model, role, call, request)
                # Whoever asks outside of branches leaves on purpose only.
                async with aclosing(self._read(model, call, request, lambda: True)) as pieces:
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

    # Calls of reasoning branches: several at a time, cut at will, in the order of a tape.

    def of_branch(self, name: str) -> dict[str, RecordedCall]:
        """The recorded calls of a branch, in the order of their numbers; not those made again."""
        rests = (call.removeprefix(f"{name}/") for call in self._recorded)
        numbers = sorted(int(rest) for rest in rests if rest.isdecimal())
        return {call: self._recorded[call] for call in (f"{name}/{n}" for n in numbers)}

    def recorded_end(self, call: str) -> RecordedCall | None:
        """What the log holds of a branch's call, or of the last one that was made in its place."""
        found: RecordedCall | None = None
        for name in _names(call):
            if name not in self._recorded:
                break
            last = self._recorded[name]
            if found is not None and "seat" in (last.request or {}):
                # It went on where the one before had ended.
                last = dataclasses.replace(last, pieces=found.pieces + last.pieces)
            found = last
        return found

    def ask_in_branch(
        self,
        model: ChatModel,
        call: str,
        request: Request,
        label: str,
        tape: Tape,
        is_cut: Callable[[], bool],
    ) -> AsyncGenerator[str | Completion | None, None]:
        """Note the start of a branch's call, now, and give what it writes.

        Args:
            model: what is asked.
            call: the call's name; if it has to be made again, ``call/2`` and so on.
            request: what is asked.
            label: what the strategy calls it.
            tape: the recorded order of the branch.
            is_cut: whether who reads has left on purpose, so that what came is all of it.

        Returns:
            Pieces, then a ``Completion``; ``None`` where the answer begins anew. An answer at a
            workspace never does: what the others have seen stays, and it goes on from there.

        Raises:
            LimitReached: a limit of the run allows no further call.
            LogError: a replay has no such call.
        """
        self._begin_in_branch(model, call, request, label, tape)
        return self._answer_in_branch(model, call, request, label, tape, is_cut)

    def _begin_in_branch(
        self, model: ChatModel, call: str, request: Request, label: str, tape: Tape
    ) -> None:
        if call not in self._recorded:
            self._check_live(call)
            self._admit(model)
        self._started(model, "branch", call, request, label)
        tape.started(call)

    async def _answer_in_branch(
        self,
        model: ChatModel,
        call: str,
        request: Request,
        label: str,
        tape: Tape,
        is_cut: Callable[[], bool],
    ) -> AsyncGenerator[str | Completion | None, None]:
        seat = request.seat
        for name in _names(call):
            if name != call:
                if seat is None:
                    yield None
                self._begin_in_branch(model, name, request, label, tape)
            recorded = self._recorded.get(name)
            answer = (
                self._read(model, name, request, is_cut)
                if recorded is None
                else self._reread(model, name, recorded, tape, is_cut)
            )
            if seat is not None:
                answer = _seated(seat, answer, recorded)
            async with aclosing(answer) as pieces:
                async for piece in pieces:
                    yield piece
            if recorded is None or recorded.finish != "interrupted" or is_cut():
                return

    async def _read(
        self, model: ChatModel, call: str, request: Request, is_cut: Callable[[], bool]
    ) -> AsyncGenerator[str | Completion, None]:
        """A call that is made now."""
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
            finish = "cut" if is_cut() else "interrupted"
            self._finished(model, call, Completion("", finish, spent, model.name), begun)
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

    async def _reread(
        self,
        model: ChatModel,
        call: str,
        recorded: RecordedCall,
        tape: Tape,
        is_cut: Callable[[], bool],
    ) -> AsyncGenerator[str | Completion, None]:
        """A call that was made before."""
        given = 0
        try:
            for text in recorded.pieces:
                await tape.turn("text", call)
                given += 1
                self._journal.emit(ModelText, call=call, text=text)
                self._journal.flush()
                yield text
            await (tape.turn("end", call) if recorded.end is not None else tape.end())
            if recorded.finish == "cut":
                await tape.never()
        except (GeneratorExit, asyncio.CancelledError):
            if is_cut():
                for text in recorded.pieces[given:]:
                    self._journal.emit(ModelText, call=call, text=text)
                spent = Usage(completion_tokens=len(recorded.pieces), calls=1)
                answer = Completion("", "cut", spent, model.name)
                self._finished(model, call, answer, self._journal.now())
            raise
        match recorded.end:
            case ModelFinished() as end:
                answer = completion_of(end, "".join(recorded.pieces), model.name)
                self._finished(model, call, answer, self._journal.now() - end.seconds)
                if end.finish != "interrupted":
                    yield answer
                return
            case ModelFailed() as end:
                failure = end.failure
            case _:
                failure = failure_of(CallInterrupted())
        self._journal.emit(ModelFailed, call=call, failure=failure)
        self._journal.flush()
        if recorded.finish == "failed":
            raise ModelError(failure.message, hint=failure.hint, retryable=failure.retryable)

    # What is noted of every call.

    def _started(
        self, model: ChatModel, role: str, call: str, request: Request, label: str = ""
    ) -> None:
        self._journal.emit(
            ModelStarted,
            call=call,
            role=role,
            model=model.name,
            request=request_to_json(request),
            label=label,
        )
        self._journal.flush()

    def _check_live(self, call: str) -> None:
        if not self.live:
            raise LogError(
                f"the log holds no answer to the model call {call}",
                hint="the log was changed, or another release made it",
            )

    def _admit(self, model: ChatModel) -> None:
        try:
            self._budget.start_model_call(model.name)
        except LimitReached as reached:
            self._journal.emit(LimitHit, limit=reached.limit, message=reached.message)
            raise

    def _finished(self, model: ChatModel, call: str, answer: Completion, begun: float) -> None:
        usage, logprobs = answer.usage, answer.logprobs
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
            logprobs=None if logprobs is None else dataclasses.asdict(logprobs),
            model=answer.model,
        )
        self._journal.flush()


async def _seated(
    seat: Seat,
    answer: AsyncGenerator[str | Completion, None],
    recorded: RecordedCall | None,
) -> AsyncGenerator[str | Completion, None]:
    """An answer at a workspace, noted there; what is recorded is there from the beginning."""
    if recorded is not None:
        seat.pieces += recorded.pieces
        seat.over = recorded.finish != "interrupted"
        seat.finish = recorded.finish
    async with aclosing(answer) as pieces:
        async for piece in pieces:
            if isinstance(piece, Completion):
                # All of it, also where it took several calls.
                yield dataclasses.replace(piece, text="".join(seat.pieces))
                continue
            if recorded is None:
                seat.pieces.append(piece)
            yield piece


def _names(call: str) -> Iterator[str]:
    """Names of a call and of those that are made in its place."""
    return itertools.chain((call,), (f"{call}/{count}" for count in itertools.count(2)))


def _logprobs(data: Mapping[str, Any]) -> Logprobs:
    return Logprobs(tuple(data["chosen"]), tuple(tuple(each) for each in data["top"]))


async def _close(source: AsyncIterator[str | Completion]) -> None:
    """Close a generator that may not have been read to its end."""
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()
