"""Reasoning branches as the data of a page: drafts by step, votes, outcome, cost.

A step holds the calls that a strategy made at once. Steps follow from the labels and times of the
calls, so every strategy works, including one of the user's own. A draft names its call, whose text
is elsewhere in the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llmcompiler.history.cost import branch_cost
from llmcompiler.history.state import BranchState, CallState, RunState
from llmcompiler.reasoning.answers import same_answer
from llmcompiler.view.text import display_text

_MOST_CHARACTERS = 2000
"""Characters of an answer that the page shows at most."""

_NUMBER_WIDTH = 200
"""Characters above which an answer is no number in another spelling."""


def branch_reports(state: RunState, text: Callable[[Any], str]) -> list[dict[str, Any]]:
    """The data of a run's branches, in the order of their starts.

    Args:
        state: the run so far.
        text: turns a value into displayable text, cut to the page's limit.
    """
    return [_branch_report(state, branch, text) for branch in state.branches.values()]


def _branch_report(
    state: RunState, branch: BranchState, text: Callable[[Any], str]
) -> dict[str, Any]:
    calls = state.calls_of(branch.name)
    outcome = branch.outcome or {}
    data = dict(outcome.get("data") or {})
    votes = data.pop("votes", None)
    if not _are_votes(votes):
        data, votes = {**data, **({} if votes is None else {"votes": votes})}, []
    candidates = outcome.get("candidates") or ()
    ranks = {candidate["call"]: rank for rank, candidate in enumerate(candidates, 1)}
    answers = {candidate["call"]: candidate["answer"] for candidate in candidates}
    accepted = set(outcome.get("accepted") or ())
    answer = outcome.get("answer")

    def draft(call: CallState) -> dict[str, Any]:
        name = first_name(call.call)
        draft_answer = answers.get(name)
        return {
            "call": call.call,
            "label": display_text(call.label, 200),
            "finish": call.finish,
            "place": ranks.get(name),
            "answer": None
            if draft_answer is None
            else display_text(draft_answer, _MOST_CHARACTERS),
            "agrees": draft_answer is not None
            and answer is not None
            and _agree(draft_answer, answer),
            "accepted": name in accepted,
        }

    cost = branch_cost(branch, calls, state.now)
    return {
        "name": branch.name,
        "task": int(branch.name.partition("[")[0]),
        "strategy": branch.strategy,
        "problem": text(branch.spec.get("problem") or ""),
        "context": text(branch.spec.get("context") or ""),
        "options": {
            **{
                name: display_text(value, _MOST_CHARACTERS)
                for name, value in branch.spec["options"].items()
            },
            **{
                f"budget {name}": display_text(value, _MOST_CHARACTERS)
                for name, value in (branch.spec.get("budget") or {}).items()
                if value is not None
            },
        },
        "started": branch.started,
        "ended": branch.ended,
        "stopped": branch.stopped,
        "why": display_text(outcome.get("why") or "", _MOST_CHARACTERS),
        "answer": None if answer is None else display_text(answer, _MOST_CHARACTERS),
        "notes": [display_text(note, _MOST_CHARACTERS) for note in outcome.get("notes") or ()],
        "votes": [[display_text(voted, _MOST_CHARACTERS), count] for voted, count in votes],
        "data": {
            display_text(name, 200): display_text(value, _MOST_CHARACTERS)
            for name, value in data.items()
        },
        "cost": {
            "total": cost.b_total,
            "path": cost.b_seq,
            "decoded": cost.decoded,
            "cached": cost.cached,
            "peak": cost.peak,
            "unknown": cost.unknown,
            "waited": list(cost.critical),
            "waited_seconds": cost.critical_seconds,
        },
        "steps": [[draft(call) for call in step] for step in steps_of(calls)],
    }


def _agree(first: str, second: str) -> bool:
    if first == second:
        return True
    return max(len(first), len(second)) < _NUMBER_WIDTH and same_answer(first, second)


def _are_votes(votes: Any) -> bool:
    """True for a list of pairs of an answer and its count, as ``vote`` returns them."""
    return isinstance(votes, list) and all(
        isinstance(vote, list) and len(vote) == 2 and isinstance(vote[0], str) for vote in votes
    )


def first_name(call: str) -> str:
    """The name of a call without the number of its attempt: ``4/3`` for ``4/3/2``."""
    return "/".join(call.split("/")[:2])


def steps_of(calls: Sequence[CallState]) -> list[list[CallState]]:
    """Group calls into steps: calls of one label, or started before the first of a step ended."""
    steps: list[list[CallState]] = []
    first_end = 0.0
    for call in calls:
        end = float("inf") if call.seconds is None else call.started + call.seconds
        if steps and (call.label == steps[-1][-1].label or call.started < first_end):
            steps[-1].append(call)
            first_end = min(first_end, end)
        else:
            steps.append([call])
            first_end = end
    return steps
