"""Model calls of a run: counted, recorded piece by piece, and cut short cleanly.

Planner, joiner and reasoning branches ask models only through here, so that every token they were
given is in the log before it is used. The module must not know what is asked, or why.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

from llmcompiler.errors import LLMCompilerError
from llmcompiler.events import ModelFailed, ModelFinished, ModelStarted, ModelText
from llmcompiler.failures import failure_of
from llmcompiler.journal import Journal
from llmcompiler.limits import Budget
from llmcompiler.llm.base import Ask, ChatModel, Completion, Request, Usage

Source: TypeAlias = Callable[[str, Request], AsyncIterator[str | Completion]]
"""Where the answer to a call comes from: its id and the request in, the answer out."""


def request_to_json(request: Request) -> dict[str, Any]:
    """The request as it is logged: what differs from the defaults."""
    defaults = Request(messages=())
    fields = {
        field.name: getattr(request, field.name)
        for field in dataclasses.fields(request)
        if getattr(request, field.name) != getattr(defaults, field.name)
    }
    fields["messages"] = [
        {"role": message.role, "content": message.content} for message in request.messages
    ]
    if "stop" in fields:
        fields["stop"] = list(request.stop)
    return fields


class ModelCalls:
    """Makes the model calls of one run.

    Args:
        journal: told of every piece of text.
        budget: limits on calls and tokens.
        recorded: in a replay, where answers come from instead of a model.
    """

    def __init__(self, journal: Journal, budget: Budget, recorded: Source | None = None) -> None:
        self._journal = journal
        self._budget = budget
        self._recorded = recorded

    def ask(self, model: ChatModel, role: str, name: str) -> Ask:
        """A way to ask ``model`` whose calls are named ``name``, ``name/2``, ``name/3``, …"""
        count = 0

        def start(request: Request) -> AsyncIterator[str | Completion]:
            nonlocal count
            count += 1
            call = name if count == 1 else f"{name}/{count}"
            return self._stream(model, role, call, request)

        return start

    async def _stream(
        self, model: ChatModel, role: str, call: str, request: Request
    ) -> AsyncIterator[str | Completion]:
        self._budget.start_model_call()
        self._journal.emit(
            ModelStarted, call=call, role=role, model=model.name, request=request_to_json(request)
        )
        self._journal.flush()
        begun = self._journal.now()
        pieces = 0
        source = self._recorded(call, request) if self._recorded else model.stream(request)
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
            self._finished(call, "cut", Usage(completion_tokens=pieces, calls=1), begun)
            raise
        except LLMCompilerError as error:
            self._journal.emit(ModelFailed, call=call, failure=failure_of(error, "model"))
            self._journal.flush()
            raise
        finally:
            await _close(source)
        if answer is None:
            raise RuntimeError(f"{model.name} ended its stream without a Completion")
        self._finished(call, answer.finish, answer.usage, begun)
        yield answer

    def _finished(self, call: str, finish: str, usage: Usage, begun: float) -> None:
        self._budget.usage += usage
        self._journal.emit(
            ModelFinished,
            call=call,
            finish=finish,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            seconds=self._journal.now() - begun,
        )
        self._journal.flush()


async def _close(source: AsyncIterator[str | Completion]) -> None:
    """Close a generator that may not have been read to its end."""
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()
