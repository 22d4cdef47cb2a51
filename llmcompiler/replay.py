"""Replay: a finished run happens again from its log, and every decision is compared.

Nothing is called: no model, no tool, no network. The recorded text of the planner is parsed and
checked again, arguments are bound again from the recorded results, fan-outs opened and closed,
failures spread, the joiner's text read again. What comes out must be what is in the log, value by
value; the first thing that is not is named. Only results of tools and texts of models, which come
from outside, are taken from the log as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llmcompiler.calls import request_to_json
from llmcompiler.compiler import replay_run
from llmcompiler.errors import LogError
from llmcompiler.events import (
    Event,
    Index,
    Joined,
    MapOpened,
    ModelFailed,
    ModelFinished,
    ModelStarted,
    ModelText,
    PlanDiagnosed,
    PlanFinished,
    RunFinished,
    RunStarted,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskPlanned,
    TaskSkipped,
    TaskStarted,
)
from llmcompiler.executors.base import ToolCall
from llmcompiler.failures import RecordedError
from llmcompiler.llm.base import Completion, Request, Usage
from llmcompiler.log import RunStore

Place: TypeAlias = tuple[int, Index]


class DivergenceError(LogError):
    """A replay came to something else than the log holds.

    Attributes:
        where: the task, plan, join or run at fault.
        field: what of it differs.
    """

    def __init__(self, where: str, field: str, recorded: Any, derived: Any) -> None:
        super().__init__(
            f"{where}: {field} is {derived!r}, but the log holds {recorded!r}",
            hint="the log was changed, or this release reads plans differently from the one that "
            "made it",
        )
        self.where = where
        self.field = field


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay compared.

    Attributes:
        run: the run's id.
        tasks: tasks derived again.
        model_calls: model answers read again.
        status: how the run had ended.
        answer: its answer.
        seconds: how long the replay took.
    """

    run: str
    tasks: int
    model_calls: int
    status: str
    answer: str | None
    seconds: float
