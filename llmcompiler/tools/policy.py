"""What becomes of a call that fails: repeated, observed, or the end of the run.

A run has a policy, and a tool may have its own. The module must not know how calls are run.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, TypeAlias

OnError: TypeAlias = Literal["observe", "fail"]
"""``observe`` lets everything that does not depend on a failed task go on; ``fail`` cancels it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How failed calls are repeated: only those whose error says that it may help.

    Delays grow exponentially with full jitter (Brooker, "Exponential Backoff And Jitter", 2015);
    a delay that the other side asked for is honoured instead. The jitter is drawn from the call's
    key, so that a run repeats itself.

    Attributes:
        attempts: most attempts, the first included.
        base: seconds; the most that the first delay can be.
        most: seconds; no delay is longer, unless the other side asked for it.
        on: exceptions that are worth another attempt whatever they say of themselves, such as
            ``(ConnectionError, TimeoutError)``.
    """

    attempts: int = 3
    base: float = 0.5
    most: float = 30.0
    on: tuple[type[Exception], ...] = ()

    def helps(self, error: BaseException, attempt: int) -> bool:
        """Whether the call is made again after ``error`` ended attempt number ``attempt``."""
        worth = getattr(error, "retryable", False) is True or isinstance(error, self.on)
        return worth and attempt < self.attempts

    def delay(self, key: str, attempt: int, asked: float | None) -> float:
        """Seconds to wait after attempt number ``attempt`` of the call ``key`` failed."""
        if asked is not None:
            return asked
        ceiling = min(self.most, self.base * 2.0 ** (attempt - 1))
        return random.Random(f"{key}#{attempt}").uniform(0, ceiling)
