"""A chat model behind an OpenAI-compatible HTTP endpoint, by the ``openai`` SDK.

One ``stream`` is one request, repeated a bounded number of times as long as nothing of the answer
has been handed out. After the first piece an error goes to the caller, who alone knows what to do
with half an answer. Every failure becomes a ``ModelError`` that names endpoint, model and status
and never holds the key. What the endpoint can do is in ``capabilities``, which fields it refuses in
``refusals``, what is sent in ``wire`` and what comes back in ``replies``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from llmcompiler.errors import ModelError
from llmcompiler.language.lazy_grammar import Grammar, grammar_text
from llmcompiler.llm.base import Completion, Request, Usage
from llmcompiler.llm.capabilities import (
    Constraint,
    EndpointCapabilities,
    grammar_fields,
    takes_grammar,
)
from llmcompiler.llm.failures import EndpointFailures, FailedAttempt
from llmcompiler.llm.limits import (
    MINUTE,
    SLOWEST_REQUESTS,
    SLOWEST_TOKENS,
    AdaptiveRate,
    ModelLimits,
    RequestRate,
    TokenRate,
)
from llmcompiler.llm.refusals import EndpointError, FieldSearch, Payload
from llmcompiler.llm.replies import EventReader, SampleBuffer, find_error, read_chunks, read_usage
from llmcompiler.llm.samples import SampleStream, sample_count, split_usage
from llmcompiler.llm.wire import (
    completion_payload,
    estimated_tokens,
    retry_after_seconds,
    root_cause,
)
from llmcompiler.model_options import ModelOptions

DEFAULT_BASE_URL = "https://api.openai.com/v1"
RETRIES = 4
BACKOFF_S = 0.5
LONGEST_WAIT_S = 120.0

_DRAIN_S = 1.0
"""Seconds to wait for the end of a complete response, to use its connection again."""

_NO_OPTIONS = ModelOptions()
_FAILED_FINISHES = ("error", "network_error", "insufficient_system_resource")
# Names of the HTTP client's exceptions: the SDK's releases bring different clients.
_TIMEOUTS = frozenset(("TimeoutException",))
_BROKEN = frozenset(("TransportError", "RequestError", "StreamError"))


@dataclass(slots=True)
class Connection:
    """What belongs to one event loop: connections and waiters cannot move to another loop.

    Attributes:
        client: has ``close``; the rest is between ``EndpointModel._client`` and ``_events``.
        slots: bounds the requests at once.
    """

    client: Any
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
        read_timeout: seconds without a byte after which the endpoint counts as stalled; ``None``
            for that of the options.
        trust_env: True to use proxies that the environment names; False for a loopback server.
        constraint: how the endpoint takes a grammar; ``None`` to find out by a trial.
        abilities: what else the endpoint can do (``reasoning.Capability``); likewise.
        functions: whether the endpoint has function calling; likewise.
        options: bounds of answers, temperature, headers, time-outs and more.

    Attributes:
        options: see the argument.
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
        read_timeout: float | None = None,
        trust_env: bool = True,
        constraint: Constraint | None = None,
        abilities: frozenset[str] | None = None,
        functions: bool | None = None,
        options: ModelOptions = _NO_OPTIONS,
    ) -> None:
        limits = limits or ModelLimits()
        self.name = name or f"openai:{model}"
        self.model = model
        self.base_url = base_url
        self.options = options
        self._api_key = api_key or ""
        self._retries = retries
        self._read_timeout = options.read_timeout if read_timeout is None else read_timeout
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
        self._connections: WeakKeyDictionary[asyncio.AbstractEventLoop, Connection] = (
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
        async with aclosing(self._samples(request, ())) as pieces:
            async for entry in pieces:
                yield entry

    async def _samples(self, request: Request, needed: Collection[str]) -> SampleStream:
        """As ``samples``; the optional fields ``needed`` are never left out."""
        request = await self._prepare(request)
        refused = self._capabilities.refused_fields().difference(needed)
        if sample_count(request) > 1 and "n" in refused:
            async with aclosing(self._single_samples(request)) as pieces:
                async for entry in pieces:
                    yield entry
            return
        search = FieldSearch(completion_payload(self.model, request), refused, needed)
        attempt = 0
        completions: list[tuple[int, Completion]] = []
        while not completions:
            handed_out = False
            try:
                async with aclosing(self._attempt(request, search.payload)) as pieces:
                    async for number, piece in pieces:
                        if isinstance(piece, Completion):
                            completions.append((number, piece))
                        else:
                            handed_out = True
                            yield number, piece
            except FailedAttempt as failed:
                if not handed_out and failed.reported is not None:
                    field_name = search.leave_out_next(failed.reported)
                    if field_name == "n" and sample_count(request) > 1:
                        self._capabilities.remember_refused(("n",))
                        break
                    if field_name is not None:
                        continue
                wait = self._retry_wait(failed.error, attempt)
                if handed_out or wait is None:
                    raise failed.error from None
                attempt += 1
                await asyncio.sleep(wait)
        if not completions:
            async with aclosing(self._single_samples(request)) as pieces:
                async for entry in pieces:
                    yield entry
            return
        self._capabilities.remember_refused(search.found)
        # Only here is the attempt over and its slot free, however slowly the caller reads on.
        for completion in completions:
            yield completion

    async def _single_samples(self, request: Request) -> SampleStream:
        """The samples by one request each, for an endpoint that refuses to give several."""
        extra = {name: value for name, value in request.extra.items() if name != "n"}
        for number in range(sample_count(request)):
            seed = None if request.seed is None else request.seed + number
            single = dataclasses.replace(request, extra=extra, seed=seed)
            async with aclosing(self.samples(single)) as pieces:
                async for _, piece in pieces:
                    yield number, piece

    async def _prepare(self, request: Request) -> Request:
        """The request with the model's options, and with its grammar as a field."""
        options = self.options
        extra = {**options.extra_body, **request.extra}
        if options.reasoning_effort is not None:
            extra.setdefault("reasoning_effort", options.reasoning_effort)
        if request.grammar is not None:
            constraint = await self._capabilities.constraint()
            if takes_grammar(constraint):
                extra |= grammar_fields(constraint, await _built_text(request.grammar))
        # A request that names its tool_choice is the trial itself.
        if request.functions and "tool_choice" not in extra:
            await self._require_functions()
        temperature = request.temperature
        if options.temperature is not None and temperature == 0:
            temperature = options.temperature
        return dataclasses.replace(
            request,
            max_tokens=request.max_tokens or options.bound(request.purpose),
            temperature=temperature,
            grammar=None,
            extra=extra,
        )

    async def _require_functions(self) -> None:
        if await self._capabilities.functions() is False:
            raise self._failures.make(
                "has no function calling",
                retryable=False,
                hint="use a planner that needs none (text, structured or react), or start the "
                "server with function calling",
            ).error

    @property
    def _failures(self) -> EndpointFailures:
        secrets = (self._api_key, *self.options.headers.values())
        return EndpointFailures(self.model, self.base_url, secrets, has_key=bool(self._api_key))

    async def capabilities(self) -> frozenset[str]:
        """What the endpoint can do beyond answering; see ``reasoning.Capability``."""
        return await self._capabilities.abilities()

    async def _completions(self, request: Request, needed: Collection[str]) -> list[Completion]:
        async with aclosing(self._samples(request, needed)) as pieces:
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

    async def _attempt(self, request: Request, payload: Payload) -> SampleStream:
        import openai

        connection = self._connection()
        answer = _Answer(self.model)
        try:
            async with self._admission(connection, request) as bill:
                async with aclosing(self._events(connection, payload, answer.reader)) as events:
                    async for event in events:
                        # A call that is left half-way never tells its tokens; then the estimate
                        # stands.
                        bill.tokens = None
                        for number, text in self._take(answer, event):
                            yield number, text
                usage = answer.usage
                bill.tokens = usage.prompt_tokens + usage.completion_tokens or None
        except openai.APIError as error:
            if isinstance(error, openai.RateLimitError):
                wait = retry_after_seconds(error.response.headers) or 0.0
                # A long wait is not held here: the next request fails with the endpoint's words.
                self._pace.slow_down(wait if wait <= LONGEST_WAIT_S else None)
                self._token_pace.slow_down(None)
            raise self._failures.of(error) from None
        except TimeoutError:
            raise self._failures.make(
                f"did not answer within {self.options.request_timeout:g} s",
                hint="request_timeout of the model's options sets the time",
            ) from None
        self._pace.speed_up()
        self._token_pace.speed_up(usage.prompt_tokens + usage.completion_tokens)
        for number, text in answer.close():
            yield number, text
        self._check_complete(answer)
        samples = [answer.buffers[number] for number in sorted(answer.buffers)]
        shares = [usage]
        if len(samples) > 1:
            shares = split_usage(usage, [sample.decoded for sample in samples])
        for number, (sample, share) in enumerate(zip(samples, shares, strict=True)):
            yield number, sample.completion(share, answer.model, request.max_tokens)

    async def _events(
        self, connection: Connection, payload: Payload, reader: EventReader
    ) -> AsyncGenerator[Any, None]:
        """Send a request, and yield the JSON of the events that come back.

        Raises:
            openai.APIError: the request failed.
            TimeoutError: the time for the whole request is over.
            FailedAttempt: what came is no chat completion.
        """
        import openai

        loop = asyncio.get_running_loop()
        seconds = self.options.request_timeout
        deadline = None if seconds is None else loop.time() + seconds
        # Not one time-out around all: the reader of the pieces may be another task.
        headers: dict[str, Any] = {} if self._api_key else {"Authorization": openai.Omit()}
        send = connection.client.chat.completions.with_streaming_response.create(
            model=self.model,
            messages=payload["messages"],
            extra_body=payload,
            extra_headers={**headers, **self.options.headers},
        )
        async with asyncio.timeout_at(deadline):
            response = await send.__aenter__()
        try:
            pieces = response.iter_bytes()
            while not reader.has_ended:
                async with asyncio.timeout_at(deadline):
                    piece = await anext(pieces, None)
                if piece is None:
                    break
                for event in reader.feed(piece):
                    yield event
            for event in reader.close():
                yield event
            await _drain(pieces)
        except ValueError as error:
            raise self._failures.make(
                f"sent what is not a chat completion ({error})",
                hint="check that the base URL is that of an OpenAI-compatible API",
            ) from None
        except Exception as error:
            kinds = {kind.__name__ for kind in type(error).__mro__}
            if kinds & _TIMEOUTS:
                raise openai.APITimeoutError(response.http_request) from error
            if kinds & _BROKEN:
                raise self._failures.make(
                    f"broke off its answer ({root_cause(error)})",
                    hint="the connection was lost; ask again",
                ) from None
            raise
        finally:
            await send.__aexit__(None, None, None)

    def _take(self, answer: _Answer, event: Any) -> list[tuple[int, str]]:
        """Add an event to the answer.

        Returns:
            The pieces of text that it completes, each with its sample's number.

        Raises:
            FailedAttempt: the event reports an error, or is none of a chat completion.
        """
        try:
            error = find_error(event)
        except ValueError as problem:
            raise self._failures.make(
                f"sent what is not a chat completion ({problem})",
                hint="check that the base URL is that of an OpenAI-compatible API",
            ) from None
        if error is not None:
            reported = EndpointError.in_answer(error)
            retryable, hint = self._failures.advice(reported)
            raise self._failures.make(
                f"sent an error: {reported.text}",
                hint=hint,
                retryable=retryable or not reported.status,
                reported=reported,
            )
        return answer.take(event)

    def _check_complete(self, answer: _Answer) -> None:
        """Check that an answer has come to its end.

        Raises:
            FailedAttempt: it has not, or there is none, or it is withheld.
        """
        samples = answer.buffers.values()
        if not samples:
            if answer.reader.body:
                problem = "sent a document that is no chat completion"
            else:
                problem = "sent no choices" if answer.events else "sent an empty stream"
            raise self._failures.make(
                problem, hint="check that the base URL ends where the API begins, usually with /v1"
            )
        for sample in samples:
            if sample.withheld:
                raise self._failures.make(
                    sample.withheld,
                    hint="ask in other words, or ask another model",
                    retryable=False,
                )
            if sample.finish in _FAILED_FINISHES:
                raise self._failures.make(
                    f"ended its answer with {sample.finish!r}", hint="ask again"
                )
            if not sample.finish:
                # Some endpoints give no reason, but say that the stream is complete.
                is_over = answer.reader.has_ended or answer.reader.body
                if not (is_over and sample.has_content):
                    has_text = any(map(any, (sample.text for sample in samples)))
                    raise self._failures.make(
                        "ended its stream early" if has_text else "sent no choices",
                        hint="the endpoint or a proxy before it gave up; ask again",
                    )
                sample.finish = "stop"

    @asynccontextmanager
    async def _admission(self, connection: Connection, request: Request) -> AsyncIterator[_Bill]:
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

    def _connection(self) -> Connection:
        loop = asyncio.get_running_loop()
        connection = self._connections.get(loop)
        if connection is None:
            slots = asyncio.Semaphore(self._concurrency) if self._concurrency else None
            connection = self._connections[loop] = Connection(self._client(), slots)
        return connection

    def _client(self) -> Any:
        import openai

        return openai.AsyncOpenAI(
            base_url=self.base_url,
            # The SDK does not start without a key; each request without one drops the header.
            api_key=self._api_key or "none",
            max_retries=0,
            timeout=openai.Timeout(self._read_timeout, connect=self.options.connect_timeout),
            http_client=openai.DefaultAsyncHttpxClient(
                trust_env=self._trust_env, proxy=self.options.proxy
            ),
        )


@dataclass(slots=True)
class _Answer:
    """What has come of one attempt.

    Attributes:
        model: the model that answers.
        reader: reads the bytes.
        buffers: the samples by number.
        usage: the tokens of the request.
        events: how many events have come.
    """

    model: str
    reader: EventReader = field(default_factory=EventReader)
    buffers: dict[int, SampleBuffer] = field(default_factory=dict)
    usage: Usage = field(default_factory=lambda: Usage(calls=1))
    events: int = 0

    def take(self, event: dict[str, Any]) -> list[tuple[int, str]]:
        """Add an event; returns the texts that it completes, each with its sample's number."""
        self.events += 1
        model = event.get("model")
        self.model = model if isinstance(model, str) and model else self.model
        self.usage = read_usage(event) or self.usage
        texts = []
        for chunk in read_chunks(event):
            text = self.buffers.setdefault(chunk.sample, SampleBuffer()).take(chunk)
            if text:
                texts.append((chunk.sample, text))
        return texts

    def close(self) -> list[tuple[int, str]]:
        """End the samples; returns the rest of their texts."""
        texts = [(number, sample.close()) for number, sample in self.buffers.items()]
        return [(number, text) for number, text in texts if text]


async def _built_text(grammar: Grammar) -> str:
    """The text of a grammar; where it has to be built, a thread does so."""
    if isinstance(grammar, str) or grammar.is_built:
        return grammar_text(grammar)
    return await asyncio.to_thread(grammar.text)


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    """Read a response to its end if the end is near, so that its connection can be used again."""
    try:
        async with asyncio.timeout(_DRAIN_S):
            async for _ in pieces:
                pass
    except TimeoutError:
        pass
