"""Failures of an endpoint, with what the user can do about each.

Every message names the model and the address, and never holds the key or the value of a header.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llmcompiler.errors import ModelError
from llmcompiler.llm.refusals import EndpointError
from llmcompiler.llm.wire import retry_after_seconds, root_cause

if TYPE_CHECKING:
    from openai import APIError

_SHORTEST_SECRET = 8
"""Characters from which on a text is left out of messages; shorter ones stand in other words."""


class FailedAttempt(Exception):
    """One attempt failed.

    Attributes:
        error: the failure, for the caller.
        reported: the endpoint's words; ``None`` if it gave none.
    """

    def __init__(self, error: ModelError, reported: EndpointError | None) -> None:
        super().__init__(error.message)
        self.error = error
        self.reported = reported


class EndpointFailures:
    """Makes the failures of one endpoint.

    Args:
        model: the model's name there.
        base_url: the address.
        secrets: texts that no message may hold.
        has_key: True if a key is sent.
    """

    def __init__(self, model: str, base_url: str, secrets: Iterable[str], *, has_key: bool) -> None:
        self._model = model
        self._base_url = base_url
        self._secrets = [secret for secret in secrets if len(secret) >= _SHORTEST_SECRET]
        self._has_key = has_key

    def of(self, error: APIError) -> FailedAttempt:
        """The failure that an exception of the SDK reports."""
        import openai

        if isinstance(error, openai.APITimeoutError):
            return self.make(
                "did not answer in time", hint="the endpoint is overloaded or unreachable"
            )
        if not isinstance(error, openai.APIStatusError):
            return self.make(
                f"cannot be reached ({root_cause(error)})",
                hint="check the base URL (OPENAI_BASE_URL or --base-url) and that it is running",
            )
        reported = EndpointError(error.status_code, error.body or error.message)
        retryable, hint = self.advice(reported)
        return self.make(
            f"answered {error.status_code}: {reported.text}",
            hint=hint,
            retryable=retryable,
            retry_after=retry_after_seconds(error.response.headers),
            reported=reported,
        )

    def advice(self, reported: EndpointError) -> tuple[bool, str]:
        """Whether the same request may succeed later, and a hint for the user."""
        status = reported.status
        if reported.is_context_overflow:
            return False, "the prompt is longer than the model's context; ask with less"
        if reported.is_filtered:
            return False, "the endpoint's content filter refused the prompt; ask in other words"
        if reported.code == "insufficient_quota" and status not in (401, 403, 404):
            return False, "the account has no quota left"
        if reported.is_about_functions:
            return False, "use a planner that needs no functions: text, structured or react"
        key_hint = "the key is wrong" if self._has_key else "no key was given; set OPENAI_API_KEY"
        hints = {
            401: key_hint,
            403: "the key may not use this model",
            404: f"the endpoint knows no model {self._model!r}, or the base URL lacks its /v1",
            429: "asked too often; set a limit of requests or tokens per minute",
        }
        return status in (408, 409, 425, 429) or status >= 500, hints.get(status, "")

    def make(
        self,
        problem: str,
        *,
        hint: str,
        retryable: bool = True,
        retry_after: float | None = None,
        reported: EndpointError | None = None,
    ) -> FailedAttempt:
        """A failure whose message names model and endpoint.

        Args:
            problem: what the model did, as the rest of a sentence.
            hint: what the reader can do about it.
            retryable: True if the same request may succeed when repeated.
            retry_after: seconds that the endpoint asked callers to wait.
            reported: the endpoint's own words.
        """
        url = urlsplit(self._base_url)
        # Messages show no password, and no query, which may hold one.
        address = url._replace(netloc=url.netloc.rpartition("@")[2], query="").geturl()
        message = f"model {self._model!r} at {address} {problem}"
        for secret in self._secrets:
            message = message.replace(secret, "***")
        error = ModelError(message, hint=hint, retryable=retryable, retry_after=retry_after)
        return FailedAttempt(error, reported)
