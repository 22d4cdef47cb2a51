"""Which calls of earlier plans of a run may stand for calls of its next plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from llmcompiler.plan.model import Task
from llmcompiler.planners.base import PlanRound
from llmcompiler.tools.base import Tool


def reusable_tasks(rounds: Sequence[PlanRound], tools: Mapping[str, Tool]) -> Iterator[Task]:
    """Tasks of the earlier plans whose result may stand for a new call with equal arguments.

    A failed task is left out, so that a new plan may try it again. A plan with a write tool ends
    the reuse: nothing says whether its other calls read before or after the write, so they and
    everything before them are read again.
    """
    for finished_round in rounds[_rounds_until_write(rounds, tools) :]:
        for task in finished_round.plan.tasks:
            if finished_round.observations[task.id].status == "done":
                yield task


def _rounds_until_write(rounds: Sequence[PlanRound], tools: Mapping[str, Tool]) -> int:
    """The number of rounds up to the last one in which a call may have written."""
    for number in range(len(rounds), 0, -1):
        finished_round = rounds[number - 1]
        for task in finished_round.plan.tasks:
            tool = tools.get(task.tool)
            may_write = tool is None or tool.effect == "write"
            if may_write and finished_round.observations[task.id].status != "skipped":
                return number
    return 0
