"""A run on a terminal, redrawn continuously: tasks, texts of models, time and tokens.

Rich redraws from a thread of its own, so that durations tick between events. A lock keeps that
thread from reading a state that is changing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from llmcompiler.events import Event
from llmcompiler.history.state import CallState, RunState, TaskState, TaskStatus
from llmcompiler.view.drafts import draft_table, shared_lines, visible_drafts
from llmcompiler.view.steps import SharedSteps
from llmcompiler.view.text import (
    count_text,
    one_line,
    outcome_text,
    progress_text,
    seconds_text,
    summary_text,
    task_call_text,
    tokens_text,
)

_REDRAWS_PER_SECOND = 10
_MOST_REMARKS = 3
_RESULTS_FROM = 60
"""Columns of a terminal that has room for results beside the calls."""

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ASCII_FRAMES = "|/-\\"
_ICONS: dict[TaskStatus, tuple[str, str, str]] = {
    "planned": ("·", ".", "dim"),
    "running": ("", "", "cyan"),
    "waiting": ("↻", "~", "yellow"),
    "done": ("✓", "+", "green"),
    "failed": ("✗", "x", "red"),
    "skipped": ("○", "o", "yellow"),
    "cancelled": ("■", "#", "yellow"),
}
# If there is no room for all tasks, those of the smallest number are shown.
_URGENCY: dict[TaskStatus, int] = {
    "running": 0,
    "waiting": 0,
    "failed": 1,
    "skipped": 2,
    "cancelled": 2,
    "done": 3,
    "planned": 4,
}


class LiveView:
    """Shows a run on a terminal; a context manager.

    Args:
        console: the terminal, with its width, colours and characters.
        clock: seconds; the durations between events come from it.

    Attributes:
        state: the run so far.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.state = RunState()
        self._steps = SharedSteps()
        self._clock = clock
        self._lock = threading.Lock()
        self._last_event = clock()
        self._live = Live(
            self,
            console=console,
            refresh_per_second=_REDRAWS_PER_SECOND,
            vertical_overflow="crop",
            redirect_stdout=False,
        )

    def __call__(self, event: Event) -> None:
        """Process the next event. The next redraw shows it."""
        with self._lock:
            self.state.apply(event)
            self._steps.apply(event)
            self._last_event = self._clock()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop drawing during the block, so that other code can use the terminal."""
        self._live.stop()
        try:
            yield
        finally:
            self._live.start()

    def close(self) -> None:
        """Draw once more and release the terminal. May be called twice."""
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.height if options.height is not None else console.height
        with self._lock:
            size = (height, options.max_width)
            yield Frame(self.state, self._steps, self._now(), *size, options.ascii_only).draw()

    def _now(self) -> float:
        """Seconds from the start of the run until now."""
        if self.state.status != "running":
            return self.state.now
        return self.state.now + self._clock() - self._last_event


class Frame:
    """One drawing of a run, fitted to a terminal.

    Args:
        state: the run so far.
        steps: the finished steps of its branches' workers.
        now: seconds since the run began.
        height: lines of the terminal.
        width: columns of the terminal.
        ascii_only: the terminal shows ASCII characters only.
    """

    def __init__(
        self,
        state: RunState,
        steps: SharedSteps,
        now: float,
        height: int,
        width: int,
        ascii_only: bool,
    ) -> None:
        self._state = state
        self._steps = steps
        self._now = now
        self._height = height
        self._width = width
        self._ascii = ascii_only

    def draw(self) -> Group:
        """The lines, from the question to the totals."""
        question = one_line(self._state.question or "", 2 * self._width - 8)
        above = [Text(question, style="bold")] if question else []
        below = [*self._remarks(), *self._writing()]
        # One line is for the footer; one stays free so that the terminal does not scroll.
        question_lines = -(-len(question) // self._width)
        room = self._height - question_lines - len(below) - 2
        drafts = visible_drafts(self._state, self._width)
        # Drafts get the room that tasks leave, but at least half of it.
        height = max(room // 2, room - len(self._state.tasks)) if drafts else 0
        tasks = self._tasks(max(room - height, 1))
        return Group(*above, *tasks, *self._drafts(drafts, height), *below, self._footer())

    def _drafts(self, drafts: list[CallState], height: int) -> Iterator[Text | Table]:
        """The finished steps that workers share, in up to half of the room, above the drafts."""
        if height > 1:
            shared = shared_lines(self._steps, self._state, height // 2, self._width)
            yield from shared
            remaining = height - len(shared)
            yield draft_table(drafts, self._steps, remaining, self._width, self._now)

    def _tasks(self, room: int) -> Iterator[Text | Table]:
        tasks, summary = self._choose(room)
        if tasks:
            yield self._table(tasks)
        if summary is not None:
            yield summary

    def _choose(self, room: int) -> tuple[list[TaskState], Text | None]:
        """The tasks to show, in order, and a line about the others."""
        tasks = list(self._state.tasks.values())
        if len(tasks) <= room:
            return tasks, None

        def rank(task: TaskState) -> tuple[int, float]:
            latest_first = -(task.ended or 0.0)
            return _URGENCY[task.status], latest_first if task.status != "planned" else task.id

        visible_ids = {task.id for task in sorted(tasks, key=rank)[: max(room - 1, 1)]}
        hidden_counts: dict[str, int] = {}
        for task in tasks:
            if task.id not in visible_ids:
                hidden_counts[task.status] = hidden_counts.get(task.status, 0) + 1
        counts = ", ".join(f"{number} {status}" for status, number in hidden_counts.items())
        line = Text(f"  and {counts}", style="dim", no_wrap=True, overflow="ellipsis")
        return [task for task in tasks if task.id in visible_ids], line

    def _table(self, tasks: list[TaskState]) -> Table:
        wide = self._width >= _RESULTS_FROM
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=1)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(ratio=3, no_wrap=True, overflow="ellipsis")
        table.add_column(justify="right", no_wrap=True)
        if wide:
            table.add_column(ratio=2, no_wrap=True, overflow="ellipsis")
        for task in tasks:
            table.add_row(*self._row(task, wide))
        return table

    def _row(self, task: TaskState, wide: bool) -> Iterator[Text]:
        icon, ascii_icon, style = _ICONS[task.status]
        if task.status == "running":
            frames = _ASCII_FRAMES if self._ascii else _FRAMES
            icon = ascii_icon = frames[int(self._now * _REDRAWS_PER_SECOND) % len(frames)]
        seconds = task.seconds(self._now)
        faint = "dim" if task.status in ("planned", "skipped", "cancelled") else ""
        call = task_call_text(task.task, self._width)
        # Without a column for results, the progress of a fan-out goes before its call.
        if not wide and task.extent is not None:
            call = f"{progress_text(task)} {call}"
        yield Text(ascii_icon if self._ascii else icon, style=style)
        yield Text(str(task.id), style="dim")
        yield Text(call, style=faint)
        yield Text("" if seconds is None else seconds_text(seconds), style="dim")
        if wide:
            has_trouble = task.status in ("failed", "waiting", "skipped") and not task.is_not_taken
            yield Text(outcome_text(task, self._width), style=style if has_trouble else "")

    def _remarks(self) -> Iterator[Text]:
        """The latest remarks about plans and limits, one line each."""
        state = self._state
        remarks = [
            (f"another plan: {join.text}", "yellow")
            for join in state.joins
            if join.decision == "replan"
        ]
        remarks += [
            (f"the planner is asked to mend: {diagnostic.message}", "yellow")
            for diagnostic in (state.plans[-1].diagnostics if state.plans else ())
            if diagnostic.severity == "error"
        ]
        remarks += [(hit.message, "red") for hit in state.limits_hit]
        for text, style in remarks[-_MOST_REMARKS:]:
            yield Text(one_line(text, self._width), style=style, no_wrap=True, overflow="ellipsis")

    def _writing(self) -> Iterator[Text]:
        """The model calls in progress outside of branches, one line each."""
        for call in self._state.calls.values():
            if call.seconds is None and call.role != "branch":
                yield self._call_line(call)

    def _call_line(self, call: CallState) -> Text:
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f"{'>' if self._ascii else '✎'} {call.role} ", style="magenta")
        waited = seconds_text(self._now - call.started)
        if not call.text:
            line.append(f"reads the prompt, {waited}", style="dim")
            return line
        last = call.text.rstrip("\n").rpartition("\n")[2]
        line.append(one_line(last), style="dim")
        return line

    def _footer(self) -> Text:
        state = self._state
        if state.status != "running":
            style = "green" if state.status == "answered" else "yellow"
            return Text(f"{summary_text(state)} (run {state.run})", style=style)
        tasks = state.tasks.values()
        ended = sum(task.ended is not None for task in tasks)
        running = sum(task.status == "running" for task in tasks)
        parts = [seconds_text(self._now)]
        if tasks:
            parts.append(f"{ended}/{count_text(len(tasks), 'task')}")
        if running:
            parts.append(f"{running} running")
        if state.usage.calls:
            parts.append(tokens_text(state.usage))
        streaming = sum(call.pieces for call in state.calls.values() if call.seconds is None)
        if streaming:
            parts.append(f"{count_text(streaming, 'token')} being written")
        dot = " - " if self._ascii else " · "
        return Text(dot.join(parts), style="dim", no_wrap=True, overflow="ellipsis")
