"""What a reasoning branch cost, from its calls: the one account that results and views give.

The module must not know strategies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmcompiler.history.state import BranchState, CallState

_BROKEN_OFF = ("cut", "interrupted")
_TOKENS_A_CHARACTER = 0.25
"""Of a branch of which not one call told the tokens of its prompt."""


@dataclass(frozen=True, slots=True)
class BranchCost:
    """What a branch cost.

    Attributes:
        calls: model calls, those that were cut or failed included.
        b_total: tokens of all calls, prompts and answers. Of calls that were cut while they wrote,
            the prompt's are estimated from its length, by the branch's other calls.
        b_seq: tokens of the calls on the accepted path, prompts and answers: what one reader
            would have had to read and write in sequence.
        decoded: tokens that were decoded, in all calls.
        prefill: prompt tokens that the endpoint said it had to read.
        cached: prompt tokens that it said it had in its prefix cache.
        unknown: calls of whose prompts nobody told the tokens, as those were cut.
        seconds: from the branch's beginning to its end.
        critical: ids of the calls that the end waited for, one after the other.
        critical_seconds: how long these took.
        peak: most calls that were being answered at once.
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
        branch: as folded from the events.
        calls: its calls.
        now: seconds since the run began, for one that goes on.
    """
    accepted = set((branch.outcome or {}).get("accepted", ()))
    # A call that was made again after a crash stands for the one it took the place of.
    on_path = [call for call in calls if "/".join(call.call.split("/")[:2]) in accepted]
    critical = _critical(calls)
    told = [call for call in calls if call.asked and _prompt(call)]
    characters = sum(call.asked for call in told)
    rate = sum(map(_prompt, told)) / characters if characters else _TOKENS_A_CHARACTER
    # A call that was cut before its first piece may never have been sent.
    untold = [
        call
        for call in calls
        if call.finish in _BROKEN_OFF and call.first is not None and not _prompt(call)
    ]
    estimated = {call.call: round(call.asked * rate) for call in untold}
    # Samples of one request share a prompt that was read once; alone, each would have needed it.
    shared = {
        call.call: round(call.asked * rate)
        for call in calls
        if call.finish not in _BROKEN_OFF and _decoded(call) and not _prompt(call)
    }
    return BranchCost(
        calls=len(calls),
        b_total=sum(_prompt(call) + _decoded(call) for call in calls) + sum(estimated.values()),
        b_seq=sum(
            _prompt(call) + _decoded(call) + (estimated | shared).get(call.call, 0)
            for call in on_path
        ),
        decoded=sum(map(_decoded, calls)),
        prefill=sum(_prompt(call) - _cached(call) for call in calls),
        cached=sum(map(_cached, calls)),
        unknown=sum(call.finish in _BROKEN_OFF for call in calls),
        seconds=(now if branch.ended is None else branch.ended) - branch.started,
        critical=tuple(call.call for call in critical),
        critical_seconds=sum(call.seconds or 0.0 for call in critical),
        peak=_peak((call.first, _end(call)) for call in calls if call.first is not None),
    )


def _prompt(call: CallState) -> int:
    return call.usage.prompt_tokens if call.usage is not None else 0


def _cached(call: CallState) -> int:
    return call.usage.cached_tokens if call.usage is not None else 0


def _decoded(call: CallState) -> int:
    """Of a call that goes on or has failed, as many as pieces came."""
    return call.usage.completion_tokens if call.usage is not None else call.pieces


def _end(call: CallState) -> float:
    return float("inf") if call.seconds is None else call.started + call.seconds


def _critical(calls: Sequence[CallState]) -> list[CallState]:
    """Backwards from the last call to end: each time the one whose end the next had waited for."""
    # Nobody waits for a call that is cut: its end is another's doing.
    waited = (call for call in calls if call.seconds is not None and call.finish != "cut")
    ended = sorted(waited, key=_end)
    path: list[CallState] = []
    while ended:
        path.append(ended.pop())
        ended = [call for call in ended if _end(call) <= path[-1].started]
    return path[::-1]


def _peak(spans: Iterable[tuple[float, float]]) -> int:
    edges = sorted(edge for start, end in spans for edge in ((start, 1), (end, -1)))
    most = running = 0
    for _, step in edges:
        running += step
        most = max(most, running)
    return most
