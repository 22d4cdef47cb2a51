"""The results of a run as a strong model reads them: each call as planned, and what it returned.

Nothing is left out as long as everything fits into the budget. Beyond it, results are shortened by
their structure, the longest first, and every place says what is missing. The results that the
plan's join names are the last to be shortened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from llmcompiler.language.printer import print_task
from llmcompiler.plan.model import Plan
from llmcompiler.prompting.size import (
    BYTES_PER_TOKEN,
    compact_json,
    share_room,
    shorten_message,
    shorten_text,
    shorten_value,
    size_of,
)
from llmcompiler.runtime.results import Observation
from llmcompiler.tools.base import TRIM, Tool

_MAX_CALL = 1000
"""Most bytes of a call."""

_MOST_CALLS_PER_TOKEN = 1 / 40
"""Calls that are shown for each token of the budget; so each has room for a statement at least."""

_PREFERRED = 3 / 4
"""Share of the budget that the results named by the join may take before the others."""


class PlanWithResults(Protocol):
    """A plan and its results; a planner's ``PlanRound`` is one."""

    @property
    def plan(self) -> Plan:
        """The plan."""
        ...

    @property
    def observations(self) -> Mapping[int, Observation]:
        """How each of its tasks ended, by id."""
        ...

    @property
    def reason(self) -> str:
        """Why the joiner asked for another plan; empty for the latest one."""
        ...


def describe_results(
    plans: Sequence[PlanWithResults], tools: Mapping[str, Tool], tokens: int
) -> str:
    """All calls of some plans with their results.

    Args:
        plans: the run's plans, oldest first.
        tools: the run's tools; a result is shown by the tool's own rule, if its author gave one.
        tokens: most tokens of the text, as ``estimate_tokens`` counts them.
    """
    observations = [
        observation for results in plans for observation in results.observations.values()
    ]
    limit = tokens * BYTES_PER_TOKEN
    shown = observations[: max(1, int(tokens * _MOST_CALLS_PER_TOKEN))]
    calls = {observation.task.id: planned_call_text(observation) for observation in shown}
    ends = {observation.task.id: _End(observation, tools) for observation in shown}
    room = limit - sum(size_of(call) + len("\n   -> \n") for call in calls.values())
    shares = _share(ends, _named_tasks(plans), room)
    blocks = []
    for number, results in enumerate(plans, 1):
        lines = [f"Plan {number}:"] if len(plans) > 1 else []
        for task_id in results.observations:
            if task_id in ends:
                lines += [calls[task_id], f"   {ends[task_id].text(shares[task_id])}"]
        if results.plan.join is not None and results.plan.join.on:
            lines.append(f"{results.plan.join.id}. join({_join_arguments(results.plan)})")
        if results.reason and number < len(plans):
            lines.append(f"Not enough: {shorten_message(results.reason)}")
        blocks.append("\n".join(lines))
    if len(shown) < len(observations):
        blocks.append(
            f"… ({len(observations) - len(shown):,} of {len(observations):,} calls left out)"
        )
    if any(shares[task_id] < end.size for task_id, end in ends.items()):
        blocks.append(SHORTENED)
    return "\n\n".join(block for block in blocks if block)


SHORTENED = (
    "The results are too long to be shown whole: … (…) marks each place where something is left "
    "out. References still get the whole result."
)
"""Stands below results of which something is left out."""


def planned_call_text(observation: Observation) -> str:
    """The call as planned, under its number."""
    task = observation.task.model_copy(update={"thought": None})
    return shorten_text(print_task(task), _MAX_CALL)


def describe_ends(
    observations: Sequence[Observation], tools: Mapping[str, Tool], tokens: int
) -> list[str]:
    """What each call returned, or why it did not, in at most about ``tokens`` tokens together."""
    ends = [_End(observation, tools) for observation in observations]
    shares = share_room([end.size for end in ends], tokens * BYTES_PER_TOKEN)
    return [end.text(share).removeprefix("-> ") for end, share in zip(ends, shares, strict=True)]


class _End:
    """How a call ended, as text that can be shortened.

    Attributes:
        size: bytes of the complete text.
    """

    def __init__(self, observation: Observation, tools: Mapping[str, Tool]) -> None:
        is_done = observation.status == "done"
        self._head = "-> " if is_done else _failure_text(observation)
        self._has_result = is_done or observation.value is not None
        self._result: Any = observation.value
        self._is_own_text = False
        self._limit: int | None = None
        self.size = size_of(self._head)
        if not self._has_result:
            return
        tool = tools.get(observation.task.tool)
        if is_done and tool is not None and callable(tool.trim):
            self._result, self._is_own_text = tool.observe(observation.value), True
        elif tool is not None and isinstance(tool.trim, int) and tool.trim != TRIM:
            self._limit = tool.trim
        size = size_of(self._result if self._is_own_text else compact_json(self._result))
        self.size += size if self._limit is None else min(size, self._limit)

    def text(self, limit: int) -> str:
        """The text in at most ``limit`` bytes; at least statements about what is left out."""
        if not self._has_result:
            return _indent(shorten_text(self._head, limit))
        head = shorten_text(self._head, max(limit // 2, len("-> ")))
        limit -= size_of(head)
        if self._limit is not None:
            limit = min(limit, self._limit)
        if self._is_own_text:
            return _indent(head + shorten_text(self._result, limit))
        return _indent(head) + shorten_value(self._result, limit)


def _indent(text: str) -> str:
    return text.replace("\n", "\n   ")


def _failure_text(observation: Observation) -> str:
    failure = observation.failure
    reason = shorten_message(failure.message) if failure else ""
    if failure and failure.hint:
        reason += f" ({shorten_message(failure.hint)})"
    status = observation.status
    if status == "skipped":
        return f"not called: {reason.removeprefix('not run: ')}"
    rest = "; the rest -> " if observation.value is not None else ""
    return f"{status}: {reason}{rest}" if reason else f"{status}{rest}"


def _named_tasks(plans: Iterable[PlanWithResults]) -> set[int]:
    return {
        task_id
        for results in plans
        if results.plan.join is not None
        for task_id in results.plan.join.on
    }


def _join_arguments(plan: Plan) -> str:
    return ", ".join(f"${task_id}" for task_id in plan.join.on) if plan.join else ""


def _share(ends: Mapping[int, _End], named: set[int], room: int) -> dict[int, int]:
    """Bytes for each result; those that a join names come first, up to their part of the room."""
    first = [task_id for task_id in ends if task_id in named]
    rest = [task_id for task_id in ends if task_id not in named]
    sizes = {task_id: end.size for task_id, end in ends.items()}
    rest_size = sum(sizes[task_id] for task_id in rest)
    preferred = max(int(room * _PREFERRED), room - rest_size)
    shares = dict(
        zip(first, share_room([sizes[task_id] for task_id in first], preferred), strict=True)
    )
    left = room - sum(shares.values())
    return shares | dict(
        zip(rest, share_room([sizes[task_id] for task_id in rest], left), strict=True)
    )
