"""Reasoning branches as the data of a page: drafts step by step, and what was made of them.

A step is what the strategy asked for at once, told from labels and times, so that a strategy that
nobody has written yet is shown as well. Texts of calls are not repeated here: a draft names its
call. The module must not know any strategy, nor how a page looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llmcompiler.history.cost import branch_cost
from llmcompiler.history.state import BranchState, CallState, RunState
from llmcompiler.reasoning.answers import same
from llmcompiler.view.text import shown

_SHOWN = 2000
"""Characters of an answer; the drafts themselves are longer."""

_LINE = 200


def branch_stories(state: RunState, text: Callable[[Any], str]) -> list[dict[str, Any]]:
    """The run's branches, in the order begun.

    Args:
        state: of the run so far.
        text: a value as harmless text, cut so that all of the page's have room.
    """
    return [_branch(state, branch, text) for branch in state.branches.values()]


def _branch(state: RunState, branch: BranchState, text: Callable[[Any], str]) -> dict[str, Any]:
    calls = state.calls_of(branch.name)
    outcome = branch.outcome or {}
    data = dict(outcome.get("data") or {})
    votes = data.pop("votes", None)
    if not _are_votes(votes):
        data, votes = {**data, **({} if votes is None else {"votes": votes})}, []
    order = {one["call"]: place for place, one in enumerate(outcome.get("candidates") or (), 1)}
    answers = {one["call"]: one["answer"] for one in outcome.get("candidates") or ()}
    accepted = set(outcome.get("accepted") or ())
    answer = outcome.get("answer")

    def draft(call: CallState) -> dict[str, Any]:
        name = first_name(call.call)
        said = answers.get(name)
        return {
            "call": call.call,
            "label": shown(call.label, 200),
            "finish": call.finish,
            "place": order.get(name),
            "answer": None if said is None else shown(said, _SHOWN),
            "agrees": said is not None and answer is not None and _agree(said, answer),
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
            **{name: shown(value, _SHOWN) for name, value in branch.spec["options"].items()},
            **{
                f"budget {name}": shown(value, _SHOWN)
                for name, value in (branch.spec.get("budget") or {}).items()
                if value is not None
            },
        },
        "started": branch.started,
        "ended": branch.ended,
        "stopped": branch.stopped,
        "why": shown(outcome.get("why") or "", _SHOWN),
        "answer": None if answer is None else shown(answer, _SHOWN),
        "notes": [shown(note, _SHOWN) for note in outcome.get("notes") or ()],
        "votes": [[shown(said, _SHOWN), count] for said, count in votes],
        "data": {shown(name, 200): shown(value, _SHOWN) for name, value in data.items()},
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


def _agree(one: str, other: str) -> bool:
    # What is longer than a line is no number in another spelling.
    return one == other or (max(len(one), len(other)) < _LINE and same(one, other))


def _are_votes(votes: Any) -> bool:
    """Whether they are answers with a count each, as ``vote`` has them."""
    return isinstance(votes, list) and all(
        isinstance(one, list) and len(one) == 2 and isinstance(one[0], str) for one in votes
    )


def first_name(call: str) -> str:
    """The name under which a call was first made: ``4/3`` of ``4/3/2``, its second making."""
    return "/".join(call.split("/")[:2])


def steps_of(calls: Sequence[CallState]) -> list[list[CallState]]:
    """Calls that were asked for at once: of one label, or begun before the first of them ended."""
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
