"""The finished steps of workers that share a workspace (Hogwild!, arXiv 2504.06261).

In some layouts of a workspace, each finished step moves into a common past, in the order of
finishing. This module rebuilds that past from the texts that the workers write.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from llmcompiler.events import Event, ModelStarted, ModelText
from llmcompiler.llm.workspace import StepDetector

_LAYOUTS_WITH_PAST = ("interleaved", "combined")
"""Layouts with a common past."""


@dataclass(slots=True)
class _Worker:
    label: str
    unfinished: str = ""
    steps: StepDetector = field(default_factory=StepDetector)


class SharedSteps:
    """The steps that workers have finished.

    Attributes:
        finished: the branch, the worker's label and the text of each step, in the order of
            finishing.
    """

    def __init__(self) -> None:
        self.finished: list[tuple[str, str, str]] = []
        self._workers: dict[str, _Worker] = {}

    def apply(self, event: Event) -> None:
        """Process the next event of the run."""
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
            if seat.get("kind") == "write" and seat.get("layout") in _LAYOUTS_WITH_PAST:
                self._workers[event.call] = _Worker(event.label)

    def unfinished(self, call: str) -> str | None:
        """The text of a worker's unfinished step; ``None`` for a call that shares no steps."""
        worker = self._workers.get(call)
        return worker.unfinished if worker else None
