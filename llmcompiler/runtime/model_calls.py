"""Model calls of a run: counted, recorded piece by piece, and cut short cleanly.

Planner, joiner and reasoning branches call models only through this module, so every token is in
the log before anyone uses it.
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
from llmcompiler.language.lazy_grammar import grammar_key
from llmcompiler.llm.base import ChatModel, Completion, Logprobs, Request, StreamFunction, Usage
from llmcompiler.llm.messages import FunctionCall, Message
from llmcompiler.llm.surrogates import SurrogateJoiner, join_surrogates
from llmcompiler.llm.thinking import ThinkingSplitter, split_thinking
from llmcompiler.llm.workspace import Seat
from llmcompiler.log.journal import Journal
from llmcompiler.runtime.branch_order import BranchReplay
from llmcompiler.runtime.budget import RunBudget


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A model call that the log holds, whole or in part.

    Attributes:
        pieces: the text that the model wrote.
        end: how the call ended; ``None`` if the process ended first.
        was_repeated: True if the run made another call after this one had failed.
        required_messages: the messages, as logged, that this call answers. If the request has
            other messages, the model is called. ``None`` if the call answers any request.
        request: the request as JSON.
        label: the name that a branch's strategy gave it.
    """

    pieces: tuple[str, ...]
    end: ModelFinished | ModelFailed | None
    was_repeated: bool = False
    required_messages: Any = None
    request: dict[str, Any] | None = None
    label: str = ""

    @property
    def finish(self) -> str:
        """How the call ended: ``interrupted`` if it did not, ``failed``, or the model's finish."""
        match self.end:
            case ModelFinished():
                return self.end.finish
            case ModelFailed() if self.end.failure.type != CallInterrupted.__name__:
                return "failed"
        return "interrupted"


CompletionLookup: TypeAlias = Callable[[str, dict[str, Any]], RecordedCall | None]
"""Finds the call of another run by role and request (as of ``request_to_json``)."""


def request_to_json(request: Request) -> dict[str, Any]:
    """The request as it is logged: the fields that differ from the defaults.

    The purpose is left out: the log says which role asked.
    """
    defaults = Request(messages=(), purpose=request.purpose)
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
        # The grammar follows from the tools, which the log holds, and is longer than the rest.
        fields["grammar"] = grammar_key(request.grammar)
    if request.seat is not None:
        fields["seat"] = request.seat.to_json()
    if request.functions:
        functions = [dataclasses.asdict(function) for function in request.functions]
        fields["functions"] = {
            "names": [function.name for function in request.functions],
            "schemas": _digest(json.dumps(functions, sort_keys=True)),
        }
    return fields


def is_same_request(recorded: Mapping[str, Any] | None, derived: Mapping[str, Any]) -> bool:
    """True if two requests, as they are logged, ask for the same.

    A request without ``max_tokens`` has the model's own bound; earlier releases logged a number.
    """
    if recorded is None:
        return False
    if "max_tokens" in derived:
        return dict(recorded) == dict(derived)
    return {name: value for name, value in recorded.items() if name != "max_tokens"} == derived


def _message_to_json(message: Message) -> dict[str, Any]:
    data: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        data["calls"] = [dataclasses.asdict(call) for call in message.calls]
    if message.call:
        data["call"] = message.call
    return data


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def completion_of(end: ModelFinished, text: str, model: str) -> Completion:
    """Rebuild a completion from its recorded end and its text."""
    usage = Usage(
        end.prompt_tokens, end.cached_tokens, end.completion_tokens, 1, end.reasoning_tokens
    )
    calls = tuple(FunctionCall(**call) for call in end.calls or ())
    logprobs = None if end.logprobs is None else _logprobs(end.logprobs)
    return Completion(
        text,
        end.finish,
        usage,
        end.model or model,
        logprobs,
        calls=calls,
        thinking=end.thinking or "",
        bound=end.bound,
    )


class ModelCalls:
    """Makes the model calls of one run.

    Args:
        journal: receives every piece of text.
        budget: limits on calls and tokens.
        recorded: calls in the log, by id; they are not made again.
        live: True if a call that is not recorded may be made; a replay makes none.
        lookup_completion: finds an equal call of another run, which is then not made again.

    Attributes:
        live: see the argument.
    """

    def __init__(
        self,
        journal: Journal,
        budget: RunBudget,
        recorded: Mapping[str, RecordedCall] | None = None,
        live: bool = True,
        lookup_completion: CompletionLookup | None = None,
    ) -> None:
        self._journal = journal
        self._budget = budget
        self._recorded = recorded or {}
        self.live = live
        self._lookup_completion = lookup_completion

    def ask(
        self, model: ChatModel, role: str, name: str, *, continues: bool = False
    ) -> StreamFunction:
        """Return a function that calls ``model`` and streams its answer.

        Args:
            model: the model.
            role: for the log.
            name: the id of the first call; the next ones are ``name/2``, ``name/3`` and so on.
            continues: True if the caller can continue an answer that broke off: it then gets a
                ``CallInterrupted``. Otherwise an interrupted call is repeated here.
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
            if recorded is not None and recorded.required_messages is not None:
                messages = to_jsonable_python(request_to_json(request)["messages"])
                recorded = recorded if recorded.required_messages == messages else None
            if recorded is None and self._lookup_completion is not None:
                recorded = self._lookup_completion(role, request_to_json(request))
            if recorded is None:
                self._check_live(call)
                self._count_call(model)
                self._emit_started(model, role, call, request)
                # Outside of branches, a caller that stops reading does so on purpose.
                text_filter = _TextFilter(apart=True)
                answer = self._make_call(model, call, request, lambda: True, text_filter)
                async with aclosing(answer) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            self._emit_started(model, role, call, request)
            for text in recorded.pieces:
                self._journal.emit(ModelText, call=call, text=text)
                self._journal.flush()
                yield text
            if isinstance(recorded.end, ModelFinished) and recorded.end.finish != "cut":
                written = split_thinking("".join(recorded.pieces)).answer
                replayed = completion_of(recorded.end, written, model.name)
                started_at = self._journal.now() - recorded.end.seconds
                self._emit_finished(model, call, replayed, started_at)
                yield replayed
                return
            if isinstance(recorded.end, ModelFailed):
                failure = recorded.end.failure
            else:
                failure = failure_of(CallInterrupted())
            self._journal.emit(ModelFailed, call=call, failure=failure)
            self._journal.flush()
            if recorded.was_repeated or failure.type == CallInterrupted.__name__:
                if continues:
                    raise CallInterrupted
            else:
                raise ModelError(failure.message, hint=failure.hint, retryable=failure.retryable)

    # Calls of reasoning branches: several at a time, cut at will, replayed in the recorded order.

    def recorded_in_branch(self, name: str) -> dict[str, RecordedCall]:
        """The recorded calls of a branch by id, in the order of their numbers, without repetitions.

        Args:
            name: the branch's name, with which the ids of its calls begin.
        """
        suffixes = (call.removeprefix(f"{name}/") for call in self._recorded)
        numbers = sorted(int(suffix) for suffix in suffixes if suffix.isdecimal())
        return {call: self._recorded[call] for call in (f"{name}/{n}" for n in numbers)}

    def last_recorded(self, call: str) -> RecordedCall | None:
        """What the log holds of a branch's call, or of the last repetition of it."""
        previous: RecordedCall | None = None
        for name in _repetition_ids(call):
            if name not in self._recorded:
                break
            repetition = self._recorded[name]
            if previous is not None and "seat" in (repetition.request or {}):
                # At a workspace, a repetition goes on where the call before it ended.
                pieces = previous.pieces + repetition.pieces
                repetition = dataclasses.replace(repetition, pieces=pieces)
            previous = repetition
        return previous

    def ask_in_branch(
        self,
        model: ChatModel,
        call: str,
        request: Request,
        label: str,
        replay: BranchReplay,
        is_cut: Callable[[], bool],
    ) -> AsyncGenerator[str | Completion | None, None]:
        """Record the start of a branch's call, at once, and stream its answer.

        Args:
            model: the model.
            call: the call's id; repetitions are called ``call/2`` and so on.
            request: the request.
            label: the name that the strategy gives the call.
            replay: the recorded order of the branch's calls.
            is_cut: True if the reader cancelled; the partial text is then final.

        Returns:
            Pieces, then a ``Completion``; ``None`` where the answer starts over. An answer at a
            workspace never starts over: others have read its text, so a repetition continues it.

        Raises:
            LimitReached: a limit of the run allows no further call.
            LogError: a replay has no such call.
        """
        self._start_in_branch(model, call, request, label, replay)
        return self._answer_in_branch(model, call, request, label, replay, is_cut)

    def _start_in_branch(
        self, model: ChatModel, call: str, request: Request, label: str, replay: BranchReplay
    ) -> None:
        if call not in self._recorded:
            self._check_live(call)
            self._count_call(model)
        self._emit_started(model, "branch", call, request, label)
        replay.note_start(call)

    async def _answer_in_branch(
        self,
        model: ChatModel,
        call: str,
        request: Request,
        label: str,
        replay: BranchReplay,
        is_cut: Callable[[], bool],
    ) -> AsyncGenerator[str | Completion | None, None]:
        seat = request.seat
        for name in _repetition_ids(call):
            if name != call:
                if seat is None:
                    yield None
                self._start_in_branch(model, name, request, label, replay)
            recorded = self._recorded.get(name)
            answer = (
                self._make_call(model, name, request, is_cut, _TextFilter(apart=False))
                if recorded is None
                else self._replay_call(model, name, recorded, replay, is_cut)
            )
            if seat is not None:
                answer = _at_seat(seat, answer, recorded)
            async with aclosing(answer) as pieces:
                async for piece in pieces:
                    yield piece
            if recorded is None or recorded.finish != "interrupted" or is_cut():
                return

    async def _make_call(
        self,
        model: ChatModel,
        call: str,
        request: Request,
        is_cut: Callable[[], bool],
        text_filter: _TextFilter,
    ) -> AsyncGenerator[str | Completion, None]:
        """Make a call."""
        started_at = self._journal.now()
        piece_count = 0
        source = model.stream(request)
        answer: Completion | None = None
        try:
            async for piece in source:
                if isinstance(piece, Completion):
                    answer = piece
                    continue  # reading the stream to its end frees the connection at once
                piece_count += 1
                if text := text_filter.feed(piece):
                    self._journal.emit(ModelText, call=call, text=text)
                    self._journal.flush()
                    yield text
            if text := text_filter.close():
                self._journal.emit(ModelText, call=call, text=text)
                self._journal.flush()
                yield text
        except (GeneratorExit, asyncio.CancelledError):
            # The endpoint reports tokens only at the end; a piece is at least one token.
            usage = Usage(completion_tokens=piece_count, calls=1)
            finish = "cut" if is_cut() else "interrupted"
            partial = Completion("", finish, usage, model.name, thinking=text_filter.thinking)
            self._emit_finished(model, call, partial, started_at)
            raise
        except LLMCompilerError as error:
            self._journal.emit(ModelFailed, call=call, failure=failure_of(error, "model"))
            self._journal.flush()
            raise
        finally:
            await _close(source)
        if answer is None:
            raise RuntimeError(f"{model.name} ended its stream without a Completion")
        answer = text_filter.complete(answer)
        self._emit_finished(model, call, answer, started_at)
        yield answer

    async def _replay_call(
        self,
        model: ChatModel,
        call: str,
        recorded: RecordedCall,
        replay: BranchReplay,
        is_cut: Callable[[], bool],
    ) -> AsyncGenerator[str | Completion, None]:
        """Stream a recorded call in the recorded order."""
        streamed_count = 0
        try:
            for text in recorded.pieces:
                await replay.wait_turn("text", call)
                streamed_count += 1
                self._journal.emit(ModelText, call=call, text=text)
                self._journal.flush()
                yield text
            await (replay.wait_turn("end", call) if recorded.end is not None else replay.wait_end())
            if recorded.finish == "cut":
                await replay.wait_forever()
        except (GeneratorExit, asyncio.CancelledError):
            if is_cut():
                for text in recorded.pieces[streamed_count:]:
                    self._journal.emit(ModelText, call=call, text=text)
                usage = Usage(completion_tokens=len(recorded.pieces), calls=1)
                answer = Completion("", "cut", usage, model.name)
                self._emit_finished(model, call, answer, self._journal.now())
            raise
        match recorded.end:
            case ModelFinished() as end:
                answer = completion_of(end, "".join(recorded.pieces), model.name)
                self._emit_finished(model, call, answer, self._journal.now() - end.seconds)
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

    # What every call records.

    def _emit_started(
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

    def _count_call(self, model: ChatModel) -> None:
        try:
            self._budget.start_model_call(model.name)
        except LimitReached as reached:
            self._journal.emit(LimitHit, limit=reached.limit, message=reached.message)
            raise

    def _emit_finished(
        self, model: ChatModel, call: str, answer: Completion, started_at: float
    ) -> None:
        usage, logprobs = answer.usage, answer.logprobs
        self._budget.spend(model.name, usage)
        self._journal.emit(
            ModelFinished,
            call=call,
            finish=answer.finish,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            seconds=self._journal.now() - started_at,
            calls=[dataclasses.asdict(call) for call in answer.calls] or None,
            logprobs=None if logprobs is None else dataclasses.asdict(logprobs),
            model=answer.model,
            reasoning_tokens=usage.reasoning_tokens,
            thinking=answer.thinking or None,
            bound=answer.bound,
        )
        self._journal.flush()


class _TextFilter:
    """Makes a model's text what the log keeps and callers read.

    Args:
        apart: True to keep thoughts in tags apart from the answer. Branches read them with it.
    """

    def __init__(self, *, apart: bool) -> None:
        self._surrogates = SurrogateJoiner()
        self._thinking = ThinkingSplitter() if apart else None

    def feed(self, piece: str) -> str:
        """Take in a piece; returns what can be passed on."""
        text = self._surrogates.feed(piece)
        return text if self._thinking is None else self._thinking.feed(text)

    def close(self) -> str:
        """End the text; returns the rest of it."""
        text = self._surrogates.close()
        if self._thinking is None:
            return text
        return self._thinking.feed(text) + self._thinking.close()

    @property
    def thinking(self) -> str:
        """The thoughts in tags so far."""
        return "" if self._thinking is None else self._thinking.result().thought

    def complete(self, answer: Completion) -> Completion:
        """The completion with its text in the same form."""
        text = join_surrogates(answer.text)
        thinking = join_surrogates(answer.thinking)
        if self._thinking is not None:
            text, thought = split_thinking(text)
            thinking = "\n".join(filter(None, (thinking, thought)))
        calls = tuple(
            dataclasses.replace(call, arguments=join_surrogates(call.arguments))
            for call in answer.calls
        )
        return dataclasses.replace(answer, text=text, thinking=thinking, calls=calls)


async def _at_seat(
    seat: Seat,
    answer: AsyncGenerator[str | Completion, None],
    recorded: RecordedCall | None,
) -> AsyncGenerator[str | Completion, None]:
    """Stream an answer into its seat at a workspace; a recorded answer stands there at once."""
    if recorded is not None:
        seat.pieces += recorded.pieces
        seat.over = recorded.finish != "interrupted"
        seat.finish = recorded.finish
    async with aclosing(answer) as pieces:
        async for piece in pieces:
            if isinstance(piece, Completion):
                # The whole text, although it may have taken several calls.
                yield dataclasses.replace(piece, text="".join(seat.pieces))
                continue
            if recorded is None:
                seat.pieces.append(piece)
            yield piece


def _repetition_ids(call: str) -> Iterator[str]:
    """Ids of a branch's call and of its repetitions."""
    return itertools.chain((call,), (f"{call}/{count}" for count in itertools.count(2)))


def _logprobs(data: Mapping[str, Any]) -> Logprobs:
    return Logprobs(tuple(data["chosen"]), tuple(tuple(entry) for entry in data["top"]))


async def _close(source: AsyncIterator[str | Completion]) -> None:
    """Close a stream that may not have been read to its end."""
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()
