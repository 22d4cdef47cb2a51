"""The steps that workers share, as they finish them (Hogwild!, arXiv 2504.06261).

Workers of a workspace whose layout moves finished steps into the common past have them there in the
order in which they were finished, whoever wrote them; here that past is put together again from
what workers write. The module must not know where it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from llmcompiler.events import Event, ModelStarted, ModelText
from llmcompiler.llm.workspace import StepDetector

_SHARING = ("interleaved", "combined")
"""Layouts that have a common past."""


@dataclass(slots=True)
class _Worker:
    label: str
    unfinished: str = ""
    steps: StepDetector = field(default_factory=StepDetector)


class SharedSteps:
    """What workers have finished.

    Attributes:
        finished: the branch, the worker's label and the text of each step, in order.
    """

    def __init__(self) -> None:
        self.finished: list[tuple[str, str, str]] = []
        self._workers: dict[str, _Worker] = {}

    def take(self, event: Event) -> None:
        """Take in the next event of the run."""
        if isinstance(event, ModelText):
            worker = self._workers.get(event.call)
            if worker is None:
                return
            worker.unfinished += event.text
            if worker.steps.take(event.text):
                branch = event.call.rpartition("/")[0]
                self.finished.append((branch, worker.label, worker.unfinished.strip()))
                worker.unfinished = ""
        elif isinstance(event, ModelStarted):
            seat = event.request.get("seat") or {}
            if seat.get("kind") == "write" and seat.get("layout") in _SHARING:
                self._workers[event.call] = _Worker(event.label)

    def unfinished(self, call: str) -> str | None:
        """What a worker has written of its next step; ``None`` for a call that shares none."""
        worker = self._workers.get(call)
        return worker.unfinished if worker else None
