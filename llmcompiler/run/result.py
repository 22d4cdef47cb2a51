"""What became of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llmcompiler.errors import Failure
from llmcompiler.events import Status
from llmcompiler.llm.base import Usage
from llmcompiler.plan.model import Plan
from llmcompiler.runtime.results import Observation


@dataclass(frozen=True, slots=True)
class RunResult:
    """What became of a run.

    Attributes:
        run: its id, by which ``show`` and ``replay`` find it.
        status: ``answered``, ``failed`` or ``interrupted``.
        answer: the answer as text; ``None`` unless answered.
        value: the answer as data, for a plan without a question.
        plans: every plan of the run, in order.
        observations: how each task ended, by id.
        usage: tokens of all model calls.
        seconds: from start to end.
        failure: why there is no answer.
    """

    run: str
    status: Status
    answer: str | None
    value: Any
    # Left out of ``repr``, which people read: a plan is long, and ``asyncio.run`` makes a ``repr``.
    plans: tuple[Plan, ...] = field(repr=False)
    observations: dict[int, Observation] = field(repr=False)
    usage: Usage
    seconds: float
    failure: Failure | None

    @property
    def plan(self) -> Plan | None:
        """The last plan; ``None`` if the run ended before there was one."""
        return self.plans[-1] if self.plans else None

    def _repr_html_(self) -> str:
        # Through the package's lazy names: ``view`` stands above this module in the import order.
        import llmcompiler

        return llmcompiler.result_html(self)
