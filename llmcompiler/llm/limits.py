"""Limits on the use of one model: requests a minute, tokens a minute, requests at once.

All waits are computed on the event loop's clock, so that a loop with a virtual clock drives them.
A caller that has to wait books its turn at once and then sleeps exactly until the turn; nobody
polls, and turns come in the order of the calls.
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
    """How much one model may be used; ``None`` is no limit.

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

    The sliding window is the library's. Its own clock is ``time.monotonic`` and its waiters poll
    every 10 ms; neither follows a virtual clock.
    """

    def flush(self) -> None:
        """Drop the requests that have left the window."""
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
    """A booked turn: its time on the loop's clock, and the amount that it takes of the rate."""

    __slots__ = ("amount", "turn")

    def __init__(self, turn: float, amount: float) -> None:
        self.turn = turn
        self.amount = amount


class AdaptiveRate:
    """Learns from refusals how many requests, or tokens, a minute an endpoint bears.

    Additive increase, multiplicative decrease (Chiu and Jain, 1989), as in TCP. Until the first
    refusal no caller waits. A refusal halves the rate at which requests were started, and all
    callers wait for as long as the endpoint asked. Each answer raises the rate by the answer's own
    amount. Once the endpoint has borne twice the refused rate, no caller waits any more.

    Args:
        slowest: the lowest rate; below it, the waits between the attempts of a request are enough.
    """

    def __init__(self, slowest: float) -> None:
        self._slowest = slowest
        self._rate: float | None = None
        self._refused_rate = 0.0
        self._turn = 0.0
        self._halved_at = 0.0
        self._last_time = 0.0
        self._recent: deque[Booking] = deque()
        self._recent_amount = 0.0

    @property
    def per_minute(self) -> float | None:
        """The present rate; ``None`` while no caller waits."""
        return self._rate

    def _now(self) -> float:
        now = asyncio.get_running_loop().time()
        if now < self._last_time:  # another loop's clock: times are void, the rate still holds
            self._turn = self._halved_at = self._recent_amount = 0.0
            self._recent.clear()
        self._last_time = now
        while self._recent and self._recent[0].turn <= now - MINUTE:
            self._recent_amount -= self._recent.popleft().amount
        return now

    async def acquire(self, amount: float = 1.0) -> Booking:
        """Book the next turn and wait for it."""
        now = self._now()
        booking = Booking(max(now, self._turn), amount)
        if self._rate is not None:
            self._turn = booking.turn + amount * MINUTE / self._rate
        self._recent.append(booking)
        self._recent_amount += amount
        if booking.turn > now:
            await asyncio.sleep(booking.turn - now)
        return booking

    def settle(self, booking: Booking, actual: float) -> None:
        """Replace the estimated amount of a booking by the actual amount."""
        excess, booking.amount = booking.amount - actual, actual
        if booking.turn > self._now() - MINUTE:
            self._recent_amount -= excess
        if self._rate is not None:
            self._turn -= excess * MINUTE / self._rate

    def slow_down(self, retry_after: float | None) -> None:
        """Slow down: the endpoint answered 429, and asked to wait ``retry_after`` seconds."""
        now = self._now()
        self._turn = max(self._turn, now + (retry_after or 0.0))
        # Refusals of requests that were sent together count once.
        if self._rate is None or now - self._halved_at >= 1.0:
            self._refused_rate = self._rate or max(self._recent_amount, self._slowest)
            self._rate = max(self._slowest, self._refused_rate / 2)
            self._halved_at = now

    def speed_up(self, amount: float = 1.0) -> None:
        """Speed up: the endpoint answered a request of this amount."""
        if self._rate is not None:
            self._rate += amount
            if self._rate > 2 * self._refused_rate:
                self._rate = None


class TokenRate:
    """A token bucket that holds one minute's tokens.

    A call takes its estimate, which may put the bucket into debt, and waits until the debt is
    refilled. ``settle`` replaces the estimate by the endpoint's count. A call that is larger than
    the bucket waits for a full bucket.

    Args:
        per_minute: tokens refilled in 60 seconds, and the size of the bucket.
    """

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._refilled_at: float | None = None

    def _refill(self) -> None:
        now = asyncio.get_running_loop().time()
        # A clock that went back is another loop's, and says nothing about the time between.
        elapsed = max(0.0, now - self._refilled_at) if self._refilled_at is not None else 0.0
        self._refilled_at = now
        self._level = min(self.per_minute, self._level + elapsed * self.per_minute / MINUTE)

    async def acquire(self, estimate: int) -> int:
        """Wait until the bucket has the tokens; returns the tokens booked, for ``settle``."""
        self._refill()
        booked = min(estimate, self.per_minute)
        self._level -= booked
        try:
            await asyncio.sleep(max(0.0, -self._level) * MINUTE / self.per_minute)
        except asyncio.CancelledError:
            self._level += booked
            raise
        return booked

    def settle(self, booked: int, actual: int) -> None:
        """Return to the bucket, or take from it, the difference of booked and actual tokens."""
        self._refill()
        self._level = min(self.per_minute, self._level + booked - actual)
