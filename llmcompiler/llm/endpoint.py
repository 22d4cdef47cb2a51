"""A chat model behind an OpenAI-compatible HTTP endpoint, by the ``openai`` SDK.

One ``stream`` is one request, repeated a bounded number of times as long as nothing of the answer
has been handed out. After the first piece an error goes to the caller, who alone knows what to do
with half an answer. Every failure becomes a ``ModelError`` that names endpoint, model and status
and never holds the key. What the endpoint can do is in ``capabilities``, what is sent and received
in ``wire``.
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
from llmcompiler.llm.base import Completion, Request, Usage
from llmcompiler.llm.capabilities import (
    Constraint,
    EndpointCapabilities,
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
from llmcompiler.llm.samples import SampleStream, split_usage
from llmcompiler.llm.wire import (
    Chunk,
    SampleBuffer,
    completion_payload,
    error_text,
    estimated_tokens,
    parse_chunk,
    retry_after_seconds,
    root_cause,
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


@dataclass(slots=True)
class _Connection:
    """What belongs to one event loop: connections and waiters cannot move to another loop."""

    client: AsyncOpenAI
    slots: asyncio.Semaphore | None


@dataclass(slots=True)
class _Bill:
    """The tokens that a call really cost; ``None`` where the endpoint does not say."""

    tokens: int | None = 0


class EndpointModel:
    """A model of an OpenAI-compatible server (a ``ChatModel``).

    Args:
        model: the model's name at the endpoint.
        base_url: the API's address, up to and including ``/v1``.
        api_key: sent as bearer token; ``None`` or empty sends none.
        name: the model's name in logs; default ``openai:MODEL``.
        limits: requests and tokens a minute, requests at once.
        retries: how often a request is repeated at most.
        read_timeout: seconds without a byte after which the endpoint counts as stalled.
        trust_env: True to use proxies that the environment names; False for a loopback server.
        constraint: how the endpoint takes a grammar; ``None`` to find out by a trial.
        abilities: what else the endpoint can do (``reasoning.Capability``); likewise.
        functions: whether the endpoint has function calling; likewise.
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
        # A 429 does not say which of the two rates was too high; so both adapt, and the tighter
        # one makes callers wait.
        self._pace = AdaptiveRate(SLOWEST_REQUESTS)
        self._token_pace = AdaptiveRate(SLOWEST_TOKENS)
        self._tokens = TokenRate(limits.tokens_per_minute) if limits.tokens_per_minute else None
        self._capabilities = EndpointCapabilities(
            base_url,
            model,
            self._completions,
            constraint=constraint,
            abilities=abilities,
            functions=functions,
        )
        self._connections: WeakKeyDictionary[asyncio.AbstractEventLoop, _Connection] = (
            WeakKeyDictionary()
        )
        self._random = random.Random()

    async def stream(self, request: Request) -> AsyncGenerator[str | Completion, None]:
        """Yield the answer's pieces, then one ``Completion`` (see ``ChatModel.stream``)."""
        async with aclosing(self.samples(request)) as pieces:
            async for _, piece in pieces:
                yield piece

    async def samples(self, request: Request) -> SampleStream:
        """Yield the pieces of all samples that are asked for (see ``SamplingModel.samples``)."""
        if request.grammar is not None:
            fields = grammar_fields(await self._capabilities.constraint(), request.grammar)
            request = dataclasses.replace(request, grammar=None, extra={**request.extra, **fields})
        # A request that names its tool_choice is the trial itself.
        if request.functions and "tool_choice" not in request.extra:
            await self._require_functions()
        attempt = 0
        completions: list[tuple[int, Completion]] = []
        while not completions:
            handed_out = False
            try:
                async with aclosing(self._attempt(request)) as pieces:
                    async for number, piece in pieces:
                        if isinstance(piece, Completion):
                            completions.append((number, piece))
                        else:
                            handed_out = True
                            yield number, piece
            except _RefusedFieldError as refusal:
                self._capabilities.leave_out(refusal.field)
            except ModelError as error:
                wait = self._retry_wait(error, attempt)
                if handed_out or wait is None:
                    raise
                attempt += 1
                await asyncio.sleep(wait)
        # Only here is the attempt over and its slot free, however slowly the caller reads on.
        for completion in completions:
            yield completion

    async def _require_functions(self) -> None:
        if await self._capabilities.functions() is False:
            raise self._error(
                "has no function calling",
                hint="use a planner that needs none (text, structured or react), or start the "
                "server with function calling",
            )

    async def capabilities(self) -> frozenset[str]:
        """What the endpoint can do beyond answering; see ``reasoning.Capability``."""
        return await self._capabilities.abilities()

    async def _completions(self, request: Request) -> list[Completion]:
        async with aclosing(self.samples(request)) as pieces:
            return [piece async for _, piece in pieces if isinstance(piece, Completion)]

    async def aclose(self) -> None:
        """Close the running loop's connections and drop those of other loops."""
        connection = self._connections.pop(asyncio.get_running_loop(), None)
        self._connections.clear()
        if connection is not None:
            await connection.client.close()

    def _retry_wait(self, error: ModelError, attempt: int) -> float | None:
        """Seconds before the next attempt; ``None`` for no further attempt."""
        if not error.retryable or attempt >= self._retries:
            return None
        backoff = BACKOFF_S * 2**attempt
        # Never before the time that the endpoint names; the random part spreads the callers.
        wait = (error.retry_after or backoff / 2) + self._random.uniform(0, backoff / 2)
        return wait if wait <= LONGEST_WAIT_S else None

    async def _attempt(self, request: Request) -> SampleStream:
        import openai

        connection = self._connection()
        buffers: dict[int, SampleBuffer] = {}
        usage = Usage(calls=1)
        model = self.model
        try:
            async with (
                self._admission(connection, request) as bill,
                await connection.client.chat.completions.create(**self._payload(request)) as chunks,
            ):
                # A call that is left half-way never tells its tokens; then the estimate stands.
                bill.tokens = None
                async for chunk in self._well_formed(chunks):
                    model = chunk.model or model
                    usage = chunk.usage or usage
                    buffers.setdefault(chunk.sample, SampleBuffer()).take(chunk)
                    if chunk.text:
                        yield chunk.sample, chunk.text
                bill.tokens = usage.prompt_tokens + usage.completion_tokens or None
        except openai.APIError as error:
            if isinstance(error, openai.RateLimitError):
                wait = retry_after_seconds(error.response.headers) or 0.0
                # A long wait is not held here: the next request fails with the endpoint's words.
                self._pace.slow_down(wait if wait <= LONGEST_WAIT_S else None)
                self._token_pace.slow_down(None)
            raise self._failure(error) from None
        self._pace.speed_up()
        self._token_pace.speed_up(usage.prompt_tokens + usage.completion_tokens)
        if not buffers:
            raise self._error(
                "sent an empty stream",
                hint="check that the base URL ends where the API begins, usually with /v1",
                retryable=True,
            )
        samples = [buffers[number] for number in sorted(buffers)]
        if not all(sample.finish for sample in samples):
            has_text = any(sample.text for sample in samples)
            raise self._error(
                "ended its stream early" if has_text else "sent no choices",
                hint="the endpoint or a proxy before it gave up; ask again",
                retryable=True,
            )
        shares = [usage]
        if len(samples) > 1:
            shares = split_usage(usage, [sample.decoded for sample in samples])
        for number, (sample, share) in enumerate(zip(samples, shares, strict=True)):
            yield number, sample.completion(share, model)

    async def _well_formed(
        self, events: AsyncIterator[ChatCompletionChunk]
    ) -> AsyncIterator[Chunk]:
        # The SDK does not check what it receives, so nonsense shows only when fields are read.
        try:
            async for event in events:
                for chunk in parse_chunk(event):
                    yield chunk
        except (ValueError, AttributeError, TypeError) as error:
            raise self._error(
                f"sent what is not a chat completion ({type(error).__name__}: {error})",
                hint="check that the base URL is that of an OpenAI-compatible API",
                retryable=True,
            ) from None

    @asynccontextmanager
    async def _admission(self, connection: _Connection, request: Request) -> AsyncIterator[_Bill]:
        """Wait until the limits let the request through; correct the token count afterwards."""
        bill = _Bill()
        async with connection.slots or nullcontext():
            await self._pace.acquire()
            if self._requests is not None:
                await self._requests.acquire()
            estimate = estimated_tokens(request)
            booking = await self._token_pace.acquire(estimate)
            booked_tokens = await self._tokens.acquire(estimate) if self._tokens else 0
            try:
                yield bill
            finally:
                if bill.tokens:  # a refused call keeps its turn, so that the next call waits
                    self._token_pace.settle(booking, bill.tokens)
                if self._tokens is not None and bill.tokens is not None:
                    self._tokens.settle(booked_tokens, bill.tokens)

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
            # The SDK does not start without a key; each request without one drops the header.
            api_key=self._api_key or "none",
            max_retries=0,
            timeout=openai.Timeout(self._read_timeout, connect=CONNECT_TIMEOUT_S),
            http_client=openai.DefaultAsyncHttpxClient(trust_env=self._trust_env),
        )

    def _payload(self, request: Request) -> dict[str, Any]:
        import openai

        payload = completion_payload(self.model, request)
        if not self._api_key:
            payload["extra_headers"] = {"Authorization": openai.Omit()}
        if request.extra:
            payload["extra_body"] = dict(request.extra)
        return self._capabilities.without_refused_fields(payload)

    def _failure(self, error: APIError) -> ModelError | _RefusedFieldError:
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
        if error.status_code == 400 and self._capabilities.can_leave_out(error.param):
            return _RefusedFieldError(error.param or "")
        text = error_text(error)
        retryable, hint = self._advice(error.status_code, str(error.code or ""), text)
        return self._error(
            f"answered {error.status_code}: {text}",
            hint=hint,
            retryable=retryable,
            retry_after=retry_after_seconds(error.response.headers),
        )

    def _advice(self, status: int, code: str, text: str) -> tuple[bool, str]:
        """Whether the same request may succeed later, and a hint for the user."""
        words = f"{code} {text}".lower()
        if "context" in words and any(
            word in words for word in ("exceed", "length", "too long", "maximum")
        ):
            return False, "the prompt is longer than the model's context; ask with less"
        if code == "insufficient_quota" and status not in (401, 403, 404):
            return False, "the account has no quota left"
        key_hint = "the key is wrong" if self._api_key else "no key was given; set OPENAI_API_KEY"
        hints = {
            401: key_hint,
            403: "the key may not use this model",
            404: f"the endpoint knows no model {self.model!r}, or the base URL lacks its /v1",
            429: "asked too often; set a limit of requests or tokens per minute",
        }
        return status in (408, 409, 429) or status >= 500, hints.get(status, "")

    def _error(
        self,
        problem: str,
        *,
        hint: str = "",
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> ModelError:
        url = urlsplit(self.base_url)
        # Messages show no password, and no query, which may hold one.
        address = url._replace(netloc=url.netloc.rpartition("@")[2], query="").geturl()
        message = f"model {self.model!r} at {address} {problem}"
        if self._api_key:
            message = message.replace(self._api_key, "***")
        return ModelError(message, hint=hint, retryable=retryable, retry_after=retry_after)


class _RefusedFieldError(Exception):
    """The model refuses an optional field; the request is repeated without it."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field
