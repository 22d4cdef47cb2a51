"""A model of a provider with a protocol of its own, through the library ``any-llm``.

The library turns each provider's stream into events of OpenAI's protocol. So only the transport is
another one: limits, repeated requests, refused fields and the reading of answers are those of
``EndpointModel``.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from typing import TYPE_CHECKING, Any

from llmcompiler.errors import UsageError
from llmcompiler.extras import require_extra
from llmcompiler.llm.base import Request
from llmcompiler.llm.endpoint import LONGEST_WAIT_S, Connection, EndpointModel
from llmcompiler.llm.failures import FailedAttempt
from llmcompiler.llm.limits import ModelLimits
from llmcompiler.llm.providers import LIBRARY
from llmcompiler.llm.refusals import EndpointError, Payload
from llmcompiler.llm.replies import EventReader
from llmcompiler.llm.samples import SampleStream
from llmcompiler.llm.wire import retry_after_seconds
from llmcompiler.model_options import ModelOptions

if TYPE_CHECKING:
    from any_llm import AnyLLM
    from any_llm.exceptions import AnyLLMError

_NO_OPTIONS = ModelOptions()
_ABILITIES: frozenset[str] = frozenset()
_REQUEST_FAULTS = (ValueError, TypeError, LookupError, AttributeError, NotImplementedError)


class ProviderModel(EndpointModel):
    """A model of Anthropic, Google, Mistral and others (a ``ChatModel``).

    Args:
        provider: a key of ``providers.LIBRARY``.
        model: the model's name there.
        base_url: the provider's address; ``None`` for its usual one.
        api_key: its key; empty if the provider's own library finds one.
        limits: requests and tokens a minute, requests at once.
        options: bounds of answers, temperature, headers, time-outs and more.

    Raises:
        UsageError: the library, or the part of it for this provider, is not installed.
    """

    def __init__(
        self,
        provider: str,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str = "",
        limits: ModelLimits | None = None,
        options: ModelOptions = _NO_OPTIONS,
    ) -> None:
        require_extra("providers", f"{provider}:{model}")
        super().__init__(
            model,
            base_url=base_url or provider,
            api_key=api_key,
            name=f"{provider}:{model}",
            limits=limits,
            # The library translates schemas and functions; no provider takes more than these.
            constraint="json_schema",
            abilities=_ABILITIES,
            functions=True,
            options=options,
        )
        self._provider = provider
        self._url = base_url
        self._is_loaded = False

    async def _samples(self, request: Request, needed: Collection[str]) -> SampleStream:
        if not self._is_loaded:
            # Importing the library takes seconds, in which the event loop must go on.
            await asyncio.to_thread(load_library, self._provider)
            self._is_loaded = True
        async for entry in super()._samples(request, needed):
            yield entry

    def _client(self) -> _LibraryClient:
        from any_llm import AnyLLM

        library_name = LIBRARY[self._provider].library_name
        arguments: dict[str, Any] = {}
        if AnyLLM.get_provider_class(library_name).MAX_RETRIES_SUPPORT != "unsupported":
            arguments["max_retries"] = 0  # requests are repeated here
        library = AnyLLM.create(
            library_name,
            api_key=self._api_key or None,
            api_base=self._url,
            unified_exceptions=True,
            **arguments,
        )
        return _LibraryClient(library)

    async def _events(
        self, connection: Connection, payload: Payload, reader: EventReader
    ) -> AsyncGenerator[Any, None]:
        from any_llm.exceptions import AnyLLMError

        loop = asyncio.get_running_loop()
        seconds = self.options.request_timeout
        deadline = float("inf") if seconds is None else loop.time() + seconds
        headers = {"extra_headers": self.options.headers} if self.options.headers else {}
        chunks: AsyncIterator[Any] | None = None
        try:
            while True:
                # Not one time-out around all: the reader of the pieces may be another task.
                stalled_at = loop.time() + self._read_timeout
                try:
                    async with asyncio.timeout_at(min(deadline, stalled_at)):
                        if chunks is None:
                            answer = await connection.client.library.acompletion(
                                **payload, **headers
                            )
                            if not payload.get("stream"):
                                yield answer.model_dump()
                                return
                            chunks = aiter(answer)
                        chunk = await anext(chunks, None)
                except TimeoutError:
                    if deadline <= stalled_at:
                        raise
                    raise self._failures.make(
                        "did not answer in time", hint="the provider is overloaded or unreachable"
                    ) from None
                if chunk is None:
                    return
                yield chunk.model_dump()
        except AnyLLMError as error:
            raise self._failure(error) from None
        except _REQUEST_FAULTS as error:
            raise self._failures.make(
                f"cannot be asked this, or sent what the library cannot read ({error})",
                hint="ask another model, or another planner (text, structured, function-calling)",
                retryable=False,
            ) from error
        finally:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()

    def _failure(self, error: AnyLLMError) -> FailedAttempt:
        """The failure that an exception of the library reports."""
        from any_llm.exceptions import UnsupportedParameterError

        if isinstance(error, UnsupportedParameterError):
            body = {"param": error.parameter_name, "message": f"unsupported: {error.message}"}
            return self._failures.make(
                f"cannot be asked this: {error.message}",
                hint="take another planner (text, structured, function-calling), or another model",
                retryable=False,
                reported=EndpointError(400, body),
            )
        status = error.status_code
        if status is None or status < 400:
            # Nothing came back, or an error in the middle of a stream that began well.
            reported = EndpointError.in_answer(_body(error))
            retryable, hint = self._failures.advice(reported)
            return self._failures.make(
                f"failed: {reported.text}",
                hint=hint or "check the network and the address, and ask again",
                retryable=retryable or not reported.status,
                reported=reported,
            )
        reported = EndpointError(status, _body(error))
        retryable, hint = self._failures.advice(reported)
        header = getattr(error, "retry_after", None)
        retry_after = retry_after_seconds({} if header is None else {"retry-after": str(header)})
        if status == 429:
            # A long wait is not held here: the next request fails with the provider's words.
            wait = retry_after or 0.0
            self._pace.slow_down(wait if wait <= LONGEST_WAIT_S else None)
            self._token_pace.slow_down(None)
        variables = LIBRARY[self._provider].key_variables
        if status == 401 and not self._api_key and variables:
            hint = f"no key was given; set {' or '.join(variables)}"
        return self._failures.make(
            f"answered {status}: {reported.text}",
            hint=hint,
            retryable=retryable,
            retry_after=retry_after,
            reported=reported,
        )


class _LibraryClient:
    """The library's client for one event loop."""

    def __init__(self, library: AnyLLM) -> None:
        self.library = library

    async def close(self) -> None:
        """Close the connections, by the method that the provider's own library has for it."""
        client = getattr(self.library, "client", None)
        client = getattr(client, "aio", client)
        close = getattr(client, "aclose", None) or getattr(client, "close", None)
        if close is not None:
            closing = close()
            if inspect.isawaitable(closing):
                await closing


def load_library(provider: str) -> None:
    """Import the library and its part for a provider.

    Raises:
        UsageError: a package that this provider needs is not installed.
    """
    from any_llm import AnyLLM

    library_name = LIBRARY[provider].library_name
    try:
        missing = AnyLLM.get_provider_class(library_name).MISSING_PACKAGES_ERROR
    except ImportError as error:
        missing = error
    if missing is not None:
        raise UsageError(
            f"{provider} needs a package that is not installed ({missing})",
            hint=f'pip install "any-llm-sdk[{library_name}]"',
        )


def _body(error: AnyLLMError) -> Any:
    """The provider's own words: the body of its answer, or the message."""
    original = error.original_exception
    body = getattr(original, "body", None) or getattr(original, "details", None)
    if isinstance(body, dict):
        inner = body.get("error")
        return inner if isinstance(inner, dict) else body
    return body or error.message
