"""The seam between this package and any chat model.

Everything that asks a model for text calls ``ChatModel.stream``. An endpoint, the embedded model
and a test's script are all ``ChatModel``s, so one implementation of budgets, logging and replay
serves them all.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from llmcompiler.language.lazy_grammar import Grammar
from llmcompiler.llm.messages import Function, FunctionCall, Message
from llmcompiler.llm.workspace import Seat
from llmcompiler.model_options import Purpose


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one model call, or the sum over several.

    Attributes:
        prompt_tokens: tokens of the prompts, cached ones included.
        cached_tokens: prompt tokens that the endpoint took from its prefix cache.
        completion_tokens: decoded tokens.
        calls: number of model calls.
        reasoning_tokens: decoded tokens of what the model thought, where the endpoint counts them;
            ``completion_tokens`` holds them, too.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0
    reasoning_tokens: int = 0

    def __add__(self, addend: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + addend.prompt_tokens,
            self.cached_tokens + addend.cached_tokens,
            self.completion_tokens + addend.completion_tokens,
            self.calls + addend.calls,
            self.reasoning_tokens + addend.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Natural logarithms of token probabilities, token by token.

    Attributes:
        chosen: one number a token of the text.
        top: the likeliest tokens' numbers at each place, as many as the request asked for.
    """

    chosen: tuple[float, ...]
    top: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model, with the limits and the form of the answer.

    Attributes:
        messages: the chat; if the last message is the assistant's, the model continues it.
        max_tokens: most tokens to decode; ``None`` leaves the number to the endpoint.
        temperature: 0 for the most likely text.
        top_p: nucleus sampling; 1 for none.
        stop: texts that end the answer and are left out of it.
        seed: makes sampling repeatable where the endpoint can.
        schema: JSON schema that the answer must fit (``response_format``).
        grammar: GBNF grammar that the answer must fit; an endpoint that takes no grammar answers
            without one.
        logprobs: how many of the likeliest tokens to report for each decoded one; ``None`` for no
            log-probabilities at all.
        functions: functions that the model may call instead of answering, several at once where it
            can.
        extra: further fields of the endpoint's own, passed as they are.
        seat: the answer's place at a workspace, if other calls write there and see it.
        purpose: what the answer is for; without ``max_tokens``, the model's own bound for this
            purpose holds (``ModelOptions``).
    """

    messages: tuple[Message, ...]
    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    schema: Mapping[str, Any] | None = None
    grammar: Grammar | None = None
    logprobs: int | None = None
    functions: tuple[Function, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    seat: Seat | None = None
    purpose: Purpose | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's whole answer.

    Attributes:
        text: the answer, without the beginning of a continued message.
        finish: why the answer ended: ``stop``, ``length``, or another word of the endpoint's.
        usage: the call's tokens.
        model: the endpoint's name for the model that answered.
        logprobs: the log-probabilities of the answer's tokens, where the request asked for them and
            the endpoint gave them.
        calls: the function calls that the model asks for, in its order.
        thinking: what the model thought before it answered, where the endpoint sends that apart.
        bound: the most tokens that the answer could have; ``None`` if the request set no bound.
    """

    text: str
    finish: str
    usage: Usage
    model: str
    logprobs: Logprobs | None = None
    calls: tuple[FunctionCall, ...] = ()
    thinking: str = ""
    bound: int | None = None


StreamFunction: TypeAlias = Callable[[Request], AsyncIterator[str | Completion]]
"""``ChatModel.stream`` of one model in one role, with recording and budgets around it."""


Pieces: TypeAlias = AsyncGenerator["str | Completion", None]
"""The stream of a ``ChatModel`` that can be closed early; all models of this package give one."""


@runtime_checkable
class ChatModel(Protocol):
    """Anything that answers a chat.

    Attributes:
        name: the model's name in logs and reports, for example ``local:qwen2.5-coder-1.5b``.
    """

    name: str

    def stream(self, request: Request) -> AsyncIterator[str | Completion]:
        """Yield pieces of text as they are decoded, and one ``Completion`` at the end.

        Closing the iterator early cancels the call at the endpoint.

        Raises:
            ModelError: the endpoint failed; ``retryable`` says whether asking again may help.
        """
        ...

    async def aclose(self) -> None:
        """Free connections and, for an embedded model, memory. May be called twice."""
        ...


async def complete(model: ChatModel, request: Request) -> Completion:
    """Ask ``model`` and return its whole answer.

    Raises:
        ModelError: the endpoint failed.
    """
    answer: Completion | None = None
    # Read to the end: a stream that is left earlier keeps its connection until it is collected.
    async for piece in model.stream(request):
        if isinstance(piece, Completion):
            answer = piece
    if answer is None:
        raise RuntimeError(f"{model.name} ended its stream without a Completion")
    return answer
