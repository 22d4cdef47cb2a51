"""What a reasoning branch cost, computed from its calls. Results and views show these figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmcompiler.history.state import BranchState, CallState

_INCOMPLETE = ("cut", "interrupted")
"""Finishes of calls whose endpoint did not report tokens."""

_TOKENS_PER_CHARACTER = 0.25
"""Used when no call of the branch reported prompt tokens."""


@dataclass(frozen=True, slots=True)
class BranchCost:
    """What a branch cost.

    Attributes:
        calls: number of model calls, including those that were cut or failed.
        b_total: tokens of all calls, prompts and answers. For a call that was cut while the model
            wrote, the prompt's tokens are estimated from its length and the branch's other calls.
        b_seq: tokens of the calls on the accepted path, prompts and answers: what a single sequence
            of calls would have read and written.
        decoded: decoded tokens of all calls.
        prefill: prompt tokens that the endpoint had to read, as reported.
        cached: prompt tokens from the endpoint's prefix cache, as reported.
        unknown: calls whose prompt tokens are not reported, because they were cut or interrupted.
        seconds: from the branch's beginning to its end.
        critical: ids of the calls that the end waited for, one after the other.
        critical_seconds: how long these calls took.
        peak: the most calls that were being answered at once.
    """

    calls: int
    b_total: int
    b_seq: int
    decoded: int
    prefill: int
    cached: int
    unknown: int
    seconds: float
    critical: tuple[str, ...]
    critical_seconds: float
    peak: int


def branch_cost(branch: BranchState, calls: Sequence[CallState], now: float) -> BranchCost:
    """What a branch cost so far.

    Args:
        branch: its state.
        calls: its model calls.
        now: seconds since the run began; used for a branch that goes on.
    """
    accepted_calls = set((branch.outcome or {}).get("accepted", ()))
    # A call that was made again after a crash (4/0/2) counts as the call that it replaces (4/0).
    on_path = [call for call in calls if "/".join(call.call.split("/")[:2]) in accepted_calls]
    critical = _critical(calls)
    rate = _tokens_per_character(calls)
    estimated_tokens = {
        call.call: round(call.prompt_length * rate)
        for call in calls
        # A call that was cut before its first piece may never have been sent.
        if call.finish in _INCOMPLETE and call.first is not None and not _prompt(call)
    }
    # Samples of one request share a prompt that was read once; a single sequence needs it, too.
    shared_tokens = {
        call.call: round(call.prompt_length * rate)
        for call in calls
        if call.finish not in _INCOMPLETE and _decoded(call) and not _prompt(call)
    }
    return BranchCost(
        calls=len(calls),
        b_total=sum(_prompt(call) + _decoded(call) for call in calls)
        + sum(estimated_tokens.values()),
        b_seq=sum(
            _prompt(call) + _decoded(call) + (estimated_tokens | shared_tokens).get(call.call, 0)
            for call in on_path
        ),
        decoded=sum(map(_decoded, calls)),
        prefill=sum(_prompt(call) - _cached(call) for call in calls),
        cached=sum(map(_cached, calls)),
        unknown=sum(call.finish in _INCOMPLETE for call in calls),
        seconds=(now if branch.ended is None else branch.ended) - branch.started,
        critical=tuple(call.call for call in critical),
        critical_seconds=sum(call.seconds or 0.0 for call in critical),
        peak=_peak((call.first, _end(call)) for call in calls if call.first is not None),
    )


def _tokens_per_character(calls: Sequence[CallState]) -> float:
    """Prompt tokens per character of a prompt, from the calls that reported their tokens."""
    reported_calls = [call for call in calls if call.prompt_length and _prompt(call)]
    characters = sum(call.prompt_length for call in reported_calls)
    return sum(map(_prompt, reported_calls)) / characters if characters else _TOKENS_PER_CHARACTER


def _prompt(call: CallState) -> int:
    return call.usage.prompt_tokens if call.usage is not None else 0


def _cached(call: CallState) -> int:
    return call.usage.cached_tokens if call.usage is not None else 0


def _decoded(call: CallState) -> int:
    """Decoded tokens; for a call that goes on or has failed, the number of its pieces."""
    return call.usage.completion_tokens if call.usage is not None else call.pieces


def _end(call: CallState) -> float:
    return float("inf") if call.seconds is None else call.started + call.seconds


def _critical(calls: Sequence[CallState]) -> list[CallState]:
    """The calls that the branch's end waited for, first to last.

    Found backwards: before each call comes the call that ended last before it started.
    """
    # No call waits for a call that is cut: the strategy ended that one itself.
    candidates = (call for call in calls if call.seconds is not None and call.finish != "cut")
    ended_calls = sorted(candidates, key=_end)
    path: list[CallState] = []
    while ended_calls:
        path.append(ended_calls.pop())
        ended_calls = [call for call in ended_calls if _end(call) <= path[-1].started]
    return path[::-1]


def _peak(spans: Iterable[tuple[float, float]]) -> int:
    """The most spans (start, end) that overlap."""
    edges = sorted(edge for start, end in spans for edge in ((start, 1), (end, -1)))
    most = running = 0
    for _, step in edges:
        running += step
        most = max(most, running)
    return most
