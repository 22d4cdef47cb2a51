"""A chat model behind an OpenAI-compatible HTTP endpoint, by the ``openai`` SDK.

One ``stream`` is one request, asked again a bounded number of times as long as nothing of the
answer has been handed out; after the first piece an error goes to the caller, who alone knows what
to do with half an answer. Every failure leaves as a ``ModelError`` that names endpoint, model and
status, and that never holds the key. The module must not know what the text is for.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from llmcompiler.errors import ModelError
from llmcompiler.llm.base import Completion, Request, Usage, complete
from llmcompiler.llm.capabilities import (
    Constraint,
    find_abilities,
    find_ability,
    find_constraint,
    find_functions,
    grammar_fields,
)
from llmcompiler.llm.limits import (
    MINUTE,
    SLOWEST_REQUESTS,
    SLOWEST_TOKENS,
    AdaptiveRate,
    ModelLimits,
    RequestRate,
    TokenRate,
)
from llmcompiler.llm.messages import Message
from llmcompiler.llm.samples import Samples, split_usage
from llmcompiler.llm.wire import (
    Chunk,
    Sample,
    estimated_tokens,
    is_strict,
    message_to_json,
    read_chunk,
    retry_after_of,
    root_cause,
    what_it_said,
)

if TYPE_CHECKING:
    from openai import APIError, AsyncOpenAI
    from openai.types.chat import ChatCompletionChunk

DEFAULT_BASE_URL = "https://api.openai.com/v1"
RETRIES = 4
BACKOFF_S = 0.5
LONGEST_WAIT_S = 120.0
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 600.0

# Fields that some models refuse, and what takes their place; the rest is left out.
_RENAMED = {"max_tokens": "max_completion_tokens"}
_OPTIONAL = frozenset(
    """
    max_tokens temperature top_p stop seed stream_options parallel_tool_calls
    """.split()
)


@dataclass(slots=True)
class _Connection:
    """What belongs to one event loop: connections and waiters cannot move to another."""

    client: AsyncOpenAI
    slots: asyncio.Semaphore | None


@dataclass(slots=True)
class _Bill:
    """The tokens a call turned out to cost; ``None`` where nobody knows."""

    tokens: int | None = 0


class EndpointModel:
    """A model of an OpenAI-compatible server (a ``ChatModel``).

    Args:
        model: the model's name at the endpoint.
        base_url: where the API is, up to and including ``/v1``.
        api_key: sent as bearer token; ``None`` or empty sends none.
        name: how the model is called in logs; default ``openai:MODEL``.
        limits: requests and tokens a minute, requests at once.
        retries: how often a request is asked again at most.
        read_timeout: seconds without a byte after which the endpoint counts as stalled.
        trust_env: whether proxies from the environment apply; not for a loopback server.
        constraint: how the endpoint takes a grammar; found out by trying if it is not said.
        abilities: what else it can do (``reasoning.Capability``); found out likewise.
        functions: whether it has function calling; found out likewise.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str = DEFAULT_BASE_URL,
        api_key: str | None = None,
        name: str | None = None,
        limits: ModelLimits | None = None,
        retries: int = RETRIES,
        read_timeout: float = READ_TIMEOUT_S,
        trust_env: bool = True,
        constraint: Constraint | None = None,
        abilities: frozenset[str] | None = None,
        functions: bool | None = None,
    ) -> None:
        limits = limits or ModelLimits()
        self.name = name or f"openai:{model}"
        self.model = model
        self.base_url = base_url
        self._api_key = api_key or ""
        self._retries = retries
        self._read_timeout = read_timeout
        self._trust_env = trust_env
        self._concurrency = limits.concurrency
        self._requests = (
            RequestRate(limits.requests_per_minute, MINUTE) if limits.requests_per_minute else None
        )
        # A refusal does not say which of the two was too much; the tighter one holds by itself.
        self._pace = AdaptiveRate(SLOWEST_REQUESTS)
        self._token_pace = AdaptiveRate(SLOWEST_TOKENS)
        self._tokens = TokenRate(limits.tokens_per_minute) if limits.tokens_per_minute else None
        self._refused: set[str] = set()
        self._constraint = constraint
        self._abilities = abilities
        self._functions = functions
        self._connections: WeakKeyDictionary[asyncio.AbstractEventLoop, _Connection] = (
            WeakKeyDictionary()
        )
        self._random = random.Random()

    async def stream(self, request: Request) -> AsyncGenerator[str | Completion, None]:
        """Yield the answer's pieces, then one ``Completion`` (see ``ChatModel.stream``)."""
        async with aclosing(self.samples(request)) as pieces:
            async for _, piece in pieces:
                yield piece

    async def samples(self, request: Request) -> Samples:
        """Yield the pieces of all samples that are asked for (see ``SamplingModel.samples``)."""
        if request.grammar is not None and self._constraint is None:
            constraint = await find_constraint(self.base_url, self.model, self._answer_once)
            request = dataclasses.replace(
                request,
                grammar=None,
                extra={**request.extra, **grammar_fields(constraint, request.grammar)},
            )
        if request.functions and "tool_choice" not in request.extra:
            await self._need_functions()
        attempt = 0
        answers: list[tuple[int, Completion]] = []
        while not answers:
            handed_out = False
            try:
                async with aclosing(self._attempt(request)) as pieces:
                    async for number, piece in pieces:
                        if isinstance(piece, Completion):
                            answers.append((number, piece))
                        else:
                            handed_out = True
                            yield number, piece
            except _RefusedField as refusal:
                self._refused.add(refusal.field)
            except ModelError as error:
                wait = self._wait(error, attempt)
                if handed_out or wait is None:
                    raise
                attempt += 1
                await asyncio.sleep(wait)
        # The attempt is over, and its slot free, before a caller gets a chance to dawdle.
        for answer in answers:
            yield answer

    async def _need_functions(self) -> None:
        if self._functions is None:
            self._functions = await find_functions(self.base_url, self.model, self._answer_once)
        if self._functions is False:
            raise self._error(
                "has no function calling",
                hint="use a planner that needs none (text, structured or react), or start the "
                "server with function calling",
            )

    async def capabilities(self) -> frozenset[str]:
        """What the endpoint was seen to do, or is known to; see ``reasoning.Capability``."""
        if self._abilities is not None:
            return self._abilities
        found = await find_abilities(self.base_url, self.model, self._answer_once)
        constraint = self._constraint or await find_constraint(
            self.base_url, self.model, self._answer_once
        )
        if await find_ability(self.base_url, self.model, "n", self._gives_two):
            found |= {"n"}
        holds = constraint not in ("json_schema", "none")
        return found | {"grammar"} if holds else found

    async def _gives_two(self) -> bool:
        request = Request(
            (Message("user", "Say hello."),), max_tokens=1, temperature=1.0, extra={"n": 2}
        )
        samples = [one async for _, one in self.samples(request) if isinstance(one, Completion)]
        # llama.cpp's server counts one sample's tokens only; single calls are counted truly.
        return len(samples) == 2 and sum(one.usage.completion_tokens for one in samples) >= 2

    async def _answer_once(self, request: Request) -> Completion:
        return await complete(self, request)

    async def aclose(self) -> None:
        """Close the connections that belong to the running loop and forget the others."""
        connection = self._connections.pop(asyncio.get_running_loop(), None)
        self._connections.clear()
        if connection is not None:
            await connection.client.close()

    def _wait(self, error: ModelError, attempt: int) -> float | None:
        """Seconds before the next attempt; ``None`` for no further attempt."""
        if not error.retryable or attempt >= self._retries:
            return None
        backoff = BACKOFF_S * 2**attempt
        # Never before the time asked for; the spread keeps callers from coming back in step.
        wait = (error.retry_after or backoff / 2) + self._random.uniform(0, backoff / 2)
        return wait if wait <= LONGEST_WAIT_S else None

    async def _attempt(self, request: Request) -> Samples:
        import openai

        connection = self._connection()
        samples: dict[int, Sample] = {}
        usage = Usage(calls=1)
        model = self.model
        seen = False
        try:
            async with (
                self._admitted(connection, request) as bill,
                await connection.client.chat.completions.create(**self._payload(request)) as chunks,
            ):
                # A call left half-way has cost tokens that nobody tells; the estimate stands.
                bill.tokens = None
                async for chunk in self._well_formed(chunks):
                    seen = True
                    model = chunk.model or model
                    usage = chunk.usage or usage
                    samples.setdefault(chunk.sample, Sample()).take(chunk)
                    if chunk.text:
                        yield chunk.sample, chunk.text
                bill.tokens = usage.prompt_tokens + usage.completion_tokens or None
        except openai.APIError as error:
            if isinstance(error, openai.RateLimitError):
                wait = retry_after_of(error.response.headers) or 0.0
                # Who asks while the endpoint wants to be left alone for long is to be told so.
                self._pace.refused(wait if wait <= LONGEST_WAIT_S else None)
                self._token_pace.refused(None)
            raise self._failure(error) from None
        self._pace.answered()
        self._token_pace.answered(usage.prompt_tokens + usage.completion_tokens)
        if not seen:
            raise self._error(
                "sent an empty stream",
                hint="check that the base URL ends where the API begins, usually with /v1",
                retryable=True,
            )
        whole = [samples[number] for number in sorted(samples)]
        if not all(sample.finish for sample in whole):
            said = any(sample.text for sample in whole)
            raise self._error(
                "ended its stream early" if said else "sent no choices",
                hint="the endpoint or a proxy before it gave up; ask again",
                retryable=True,
            )
        shares = [usage]
        if len(whole) > 1:
            shares = split_usage(usage, [sample.decoded for sample in whole])
        for number, (sample, share) in enumerate(zip(whole, shares, strict=True)):
            yield number, sample.completion(share, model)

    async def _well_formed(
        self, chunks: AsyncIterator[ChatCompletionChunk]
    ) -> AsyncIterator[Chunk]:
        # The SDK does not check what it reads, so nonsense shows only when it is looked at.
        try:
            async for chunk in chunks:
                for one in read_chunk(chunk):
                    yield one
        except (ValueError, AttributeError, TypeError) as error:
            raise self._error(
                f"sent what is not a chat completion ({type(error).__name__}: {error})",
                hint="check that the base URL is that of an OpenAI-compatible API",
                retryable=True,
            ) from None

    @asynccontextmanager
    async def _admitted(self, connection: _Connection, request: Request) -> AsyncIterator[_Bill]:
        """Wait until the limits let the request through; correct the token count afterwards."""
        bill = _Bill()
        async with connection.slots or nullcontext():
            await self._pace.acquire()
            if self._requests is not None:
                await self._requests.acquire()
            estimate = estimated_tokens(request)
            booking = await self._token_pace.acquire(estimate)
            taken = await self._tokens.acquire(estimate) if self._tokens else 0
            try:
                yield bill
            finally:
                if bill.tokens:  # who was refused keeps the turn, so that the next one waits
                    self._token_pace.settle(booking, bill.tokens)
                if self._tokens is not None and bill.tokens is not None:
                    self._tokens.settle(taken, bill.tokens)

    def _connection(self) -> _Connection:
        loop = asyncio.get_running_loop()
        connection = self._connections.get(loop)
        if connection is None:
            slots = asyncio.Semaphore(self._concurrency) if self._concurrency else None
            connection = self._connections[loop] = _Connection(self._client(), slots)
        return connection

    def _client(self) -> AsyncOpenAI:
        import openai

        return openai.AsyncOpenAI(
            base_url=self.base_url,
            # The SDK refuses to start without a key; each request then leaves the header out.
            api_key=self._api_key or "none",
            max_retries=0,
            timeout=openai.Timeout(self._read_timeout, connect=CONNECT_TIMEOUT_S),
            http_client=openai.DefaultAsyncHttpxClient(trust_env=self._trust_env),
        )

    def _payload(self, request: Request) -> dict[str, Any]:
        import openai

        payload: dict[str, Any] = {
            "model": self.model,
            "messages": [message_to_json(message) for message in request.messages],
            "temperature": request.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.max_tokens is not None:
            payload["max_tokens"] = request.max_tokens
        if request.top_p != 1.0:
            payload["top_p"] = request.top_p
        if request.stop:
            payload["stop"] = list(request.stop)
        if request.seed is not None:
            payload["seed"] = request.seed
        if request.logprobs is not None:
            payload |= {"logprobs": True, "top_logprobs": request.logprobs}
        if request.schema is not None:
            payload["response_format"] = {
                "type": "json_schema",
                "json_schema": {
                    "name": "answer",
                    "schema": request.schema,
                    "strict": is_strict(request.schema),
                },
            }
        if request.functions:
            payload["tools"] = [
                {"type": "function", "function": dataclasses.asdict(function)}
                for function in request.functions
            ]
            payload["parallel_tool_calls"] = True
        if not self._api_key:
            payload["extra_headers"] = {"Authorization": openai.Omit()}
        extra = dict(request.extra)
        if request.grammar is not None and self._constraint is not None:
            extra |= grammar_fields(self._constraint, request.grammar)
        if extra:
            payload["extra_body"] = extra
        for refused in self._refused & payload.keys():
            value = payload.pop(refused)
            if refused in _RENAMED:
                payload[_RENAMED[refused]] = value
        return payload

    def _failure(self, error: APIError) -> ModelError | _RefusedField:
        import openai

        if isinstance(error, openai.APITimeoutError):
            return self._error(
                "did not answer in time",
                hint="the endpoint is overloaded or unreachable",
                retryable=True,
            )
        if isinstance(error, openai.APIConnectionError):
            reason = root_cause(error)
            # Only these two can happen once the endpoint has taken the request.
            if type(error.__cause__).__name__ in ("RemoteProtocolError", "ReadError"):
                return self._error(
                    f"broke off its answer ({reason})",
                    hint="the connection was lost; ask again",
                    retryable=True,
                )
            return self._error(
                f"cannot be reached ({reason})",
                hint="check the base URL (OPENAI_BASE_URL or --base-url) and that it is running",
                retryable=True,
            )
        if not isinstance(error, openai.APIStatusError):
            return self._error(f"failed mid-stream: {error.message}", retryable=True)
        status, code = error.status_code, str(error.code or "")
        if status == 400 and error.param in _OPTIONAL - self._refused:
            return _RefusedField(error.param or "")
        said = what_it_said(error)
        lower = f"{code} {said}".lower()
        overflow = "context" in lower and any(
            w in lower for w in ("exceed", "length", "too long", "maximum")
        )
        retryable = status in (408, 409, 429) or status >= 500
        hint = ""
        if overflow:
            retryable = False
            hint = "the prompt is longer than the model's context; ask with less"
        elif status == 401:
            hint = "the key is wrong" if self._api_key else "no key was given; set OPENAI_API_KEY"
        elif status == 403:
            hint = "the key may not use this model"
        elif status == 404:
            hint = f"the endpoint knows no model {self.model!r}, or the base URL lacks its /v1"
        elif code == "insufficient_quota":
            retryable = False
            hint = "the account has no quota left"
        elif status == 429:
            hint = "asked too often; set a limit of requests or tokens per minute"
        return self._error(
            f"answered {status}: {said}",
            hint=hint,
            retryable=retryable,
            retry_after=retry_after_of(error.response.headers),
        )

    def _error(
        self,
        what: str,
        *,
        hint: str = "",
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> ModelError:
        url = urlsplit(self.base_url)
        # Neither a password nor what may be one in a query.
        host = url._replace(netloc=url.netloc.rpartition("@")[2], query="").geturl()
        message = f"model {self.model!r} at {host} {what}"
        if self._api_key:
            message = message.replace(self._api_key, "***")
        return ModelError(message, hint=hint, retryable=retryable, retry_after=retry_after)


class _RefusedField(Exception):
    """The model does not take an optional field; the request is made again without it."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field
