"""What happens after a call failed: a retry, an observation, or the end of the run.

A run has a policy, and a tool may have its own.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, TypeAlias

OnError: TypeAlias = Literal["observe", "fail"]
"""After a failed task, ``observe`` goes on with tasks that do not need it; ``fail`` stops them."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How failed calls are repeated. A call is repeated only if its error may be transient.

    Delays grow exponentially with full jitter (Brooker, "Exponential Backoff And Jitter", 2015),
    unless the other side asked for a certain delay. The jitter is computed from the call's key, so
    that the same run has the same delays.

    Attributes:
        attempts: most attempts, the first included.
        base: longest first delay, in seconds.
        most: longest delay, in seconds, unless the other side asked for a longer one.
        on: exceptions after which a call is always repeated, such as ``(ConnectionError,
            TimeoutError)``; others are repeated if they are ``retryable``.
    """

    attempts: int = 3
    base: float = 0.5
    most: float = 30.0
    on: tuple[type[Exception], ...] = ()

    def helps(self, error: BaseException, attempt: int) -> bool:
        """True if the call is repeated after ``error`` ended attempt number ``attempt``."""
        return attempt < self.attempts and self._is_transient(error)

    def _is_transient(self, error: BaseException) -> bool:
        """True if an exception, or every exception of a group, is one to repeat a call after."""
        if getattr(error, "retryable", False) is True or isinstance(error, self.on):
            return True
        return isinstance(error, BaseExceptionGroup) and all(
            self._is_transient(member) for member in error.exceptions
        )

    def delay(self, key: str, attempt: int, requested_delay: float | None) -> float:
        """Seconds to wait after attempt number ``attempt`` of the call ``key`` failed.

        ``requested_delay`` is the delay for which the other side asked, if any.
        """
        if requested_delay is not None:
            return requested_delay
        ceiling = min(self.most, self.base * 2.0 ** (attempt - 1))
        return random.Random(f"{key}#{attempt}").uniform(0, ceiling)
