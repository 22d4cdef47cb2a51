"""Limits on what one model is asked: requests a minute, tokens a minute, requests at once.

All waiting is computed on the event loop's clock, so that a loop with a virtual clock drives it.
A caller that has to wait books its turn at once and then sleeps exactly until it; nobody polls, and
turns come in the order of the calls. The module must not know any endpoint.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from asyncio_throttle.throttler import Throttler

from llmcompiler.errors import UsageError

MINUTE = 60.0

SLOWEST_REQUESTS = 60.0
SLOWEST_TOKENS = 10_000.0
"""Requests and tokens a minute below which no refusal makes a caller slow down."""


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """How much one model may be asked; ``None`` is no limit.

    Attributes:
        requests_per_minute: requests started in any window of 60 seconds.
        tokens_per_minute: prompt and completion tokens, refilled evenly over the minute.
        concurrency: requests in flight at once.

    Raises:
        UsageError: a limit is below one.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute", "concurrency"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(
                    f"{name} is {value}", hint="a limit is at least 1; leave it out for no limit"
                )


class RequestRate(Throttler):
    """``asyncio_throttle.Throttler`` on the loop's clock, waking once instead of polling.

    The library's sliding window is kept. Its clock is ``time.monotonic`` and its waiters look
    again every 10 ms, which neither stands still nor jumps with a virtual clock.
    """

    def flush(self) -> None:
        """Forget the requests that have left the window."""
        now = asyncio.get_running_loop().time()
        while self._task_logs and self._task_logs[0] + self.period <= now:
            self._task_logs.popleft()

    async def acquire(self) -> None:
        """Book the next free turn and wait for it."""
        self.flush()
        now = asyncio.get_running_loop().time()
        booked = len(self._task_logs)
        turn = now
        if booked >= self.rate_limit:
            turn = self._task_logs[booked - self.rate_limit] + self.period
        self._task_logs.append(turn)
        try:
            await asyncio.sleep(turn - now)
        except asyncio.CancelledError:
            self._task_logs.remove(turn)
            raise


class Booking:
    """A turn that was taken: when it is, and how much of the rate it takes."""

    __slots__ = ("amount", "turn")

    def __init__(self, turn: float, amount: float) -> None:
        self.turn = turn
        self.amount = amount


class AdaptiveRate:
    """Finds out how much a minute an endpoint bears, by its refusals: requests, or tokens.

    Additive increase, multiplicative decrease (Chiu and Jain, 1989), as TCP does it. Until the
    first refusal nothing waits. A refusal halves the rate at which requests were started, and all
    callers keep still for as long as the endpoint asked; each answer adds to the rate what it took
    itself, until twice the refused rate was borne and nothing waits again.

    Args:
        slowest: no rate is below this; there, the waits between attempts do the work.
    """

    def __init__(self, slowest: float) -> None:
        self._slowest = slowest
        self._rate: float | None = None
        self._refused_rate = 0.0
        self._turn = 0.0
        self._halved = 0.0
        self._at = 0.0
        self._recent: deque[Booking] = deque()
        self._taken = 0.0

    @property
    def per_minute(self) -> float | None:
        """The rate at present; ``None`` while nothing is held back."""
        return self._rate

    def _now(self) -> float:
        now = asyncio.get_running_loop().time()
        if now < self._at:  # another loop's clock; what was learnt of the rate stays
            self._turn = self._halved = self._taken = 0.0
            self._recent.clear()
        self._at = now
        while self._recent and self._recent[0].turn <= now - MINUTE:
            self._taken -= self._recent.popleft().amount
        return now

    async def acquire(self, amount: float = 1.0) -> Booking:
        """Book the next turn and wait for it."""
        now = self._now()
        booking = Booking(max(now, self._turn), amount)
        if self._rate is not None:
            self._turn = booking.turn + amount * MINUTE / self._rate
        self._recent.append(booking)
        self._taken += amount
        if booking.turn > now:
            await asyncio.sleep(booking.turn - now)
        return booking

    def settle(self, booking: Booking, actual: float) -> None:
        """Say how much a booking really took, where that was not known before."""
        over, booking.amount = booking.amount - actual, actual
        if booking.turn > self._now() - MINUTE:
            self._taken -= over
        if self._rate is not None:
            self._turn -= over * MINUTE / self._rate

    def refused(self, retry_after: float | None) -> None:
        """The endpoint said that it was asked too often (status 429)."""
        now = self._now()
        self._turn = max(self._turn, now + (retry_after or 0.0))
        # Refusals of requests that were on their way together are one piece of news.
        if self._rate is None or now - self._halved >= 1.0:
            self._refused_rate = self._rate or max(self._taken, self._slowest)
            self._rate = max(self._slowest, self._refused_rate / 2)
            self._halved = now

    def answered(self, amount: float = 1.0) -> None:
        """The endpoint answered a request of this amount."""
        if self._rate is not None:
            self._rate += amount
            if self._rate > 2 * self._refused_rate:
                self._rate = None


class TokenRate:
    """A token bucket that holds one minute's tokens.

    A call takes its estimate, the bucket going into debt if need be, and waits until the debt is
    refilled; ``settle`` corrects the estimate by what the endpoint counted. A call larger than the
    bucket waits for a full one.

    Args:
        per_minute: tokens refilled in 60 seconds, and the size of the bucket.
    """

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._at: float | None = None

    def _refill(self) -> None:
        now = asyncio.get_running_loop().time()
        # A clock that went back is another loop's; it tells nothing about the time between.
        passed = max(0.0, now - self._at) if self._at is not None else 0.0
        self._at = now
        self._level = min(self.per_minute, self._level + passed * self.per_minute / MINUTE)

    async def acquire(self, estimate: int) -> int:
        """Wait for room; returns the tokens taken, for ``settle``."""
        self._refill()
        taken = min(estimate, self.per_minute)
        self._level -= taken
        try:
            await asyncio.sleep(max(0.0, -self._level) * MINUTE / self.per_minute)
        except asyncio.CancelledError:
            self._level += taken
            raise
        return taken

    def settle(self, taken: int, actual: int) -> None:
        """Give back what ``acquire`` took too much, or take what it took too little."""
        self._refill()
        self._level = min(self.per_minute, self._level + taken - actual)
