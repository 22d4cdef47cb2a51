"""The drafts of reasoning branches, side by side in columns of text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from llmcompiler.history.state import CallState, RunState
from llmcompiler.view.steps import SharedSteps
from llmcompiler.view.text import one_line, seconds_text

_LEAST_COLUMNS = 24
"""A narrower draft cannot be read."""


def visible_drafts(state: RunState, width: int) -> list[CallState]:
    """The calls that have room side by side: those in progress first, then the latest."""
    calls = [call for call in state.calls.values() if call.role == "branch"]
    if not any(branch.ended is None for branch in state.branches.values()):
        return []
    room = max(1, width // _LEAST_COLUMNS)
    writing = [call for call in calls if call.seconds is None]
    # Calls that already write come before calls that wait.
    writing.sort(key=lambda call: (call.first is None, call.started))
    columns = writing[:room]
    if len(columns) < room:
        ended = [call for call in calls if call.seconds is not None]
        columns = ended[len(columns) - room :] + columns
    return sorted(columns, key=lambda call: call.started)


def shared_lines(steps: SharedSteps, state: RunState, height: int, width: int) -> list[Text]:
    """The latest steps that workers of running branches have finished, one line each."""
    lines = [
        Text(one_line(f"{label}: {text}", width), style="green")
        for branch, label, text in steps.finished
        if branch in state.branches and state.branches[branch].ended is None
    ]
    return lines[-height:] if height > 0 else []


def draft_table(
    calls: Sequence[CallState], steps: SharedSteps, height: int, width: int, now: float
) -> Table:
    """The last lines of each call, in a column of its own.

    Of a worker that shares steps, the column shows its unfinished step only.

    Args:
        calls: from ``visible_drafts``.
        steps: the finished steps, which are shown elsewhere.
        height: number of lines, including a head line.
        width: columns of the whole table.
        now: seconds since the run began.
    """
    column_width = max(_LEAST_COLUMNS, width // len(calls)) - 1
    table = Table.grid(padding=(0, 1), expand=True)
    for _ in calls:
        table.add_column(ratio=1, no_wrap=True, overflow="crop")
    table.add_row(*(_head(call, column_width, now) for call in calls))
    texts = [call.text if (step := steps.unfinished(call.call)) is None else step for call in calls]
    bodies = [last_lines(text, column_width, height - 1) for text in texts]
    for row in range(max(map(len, bodies), default=0)):
        table.add_row(
            *(
                Text(body[row] if row < len(body) else "", style="dim" if call.seconds else "")
                for call, body in zip(calls, bodies, strict=True)
            )
        )
    return table


def _head(call: CallState, width: int, now: float) -> Text:
    if call.seconds is not None:
        status, style = call.finish or "ended", "green" if call.finish == "stop" else "yellow"
    elif call.first is None:
        status, style = f"waits {seconds_text(now - call.started)}", "dim"
    else:
        status, style = f"{call.pieces} tokens", "cyan"
    return Text(one_line(f"{call.call} {call.label} - {status}", width), style=style)


def last_lines(text: str, width: int, height: int) -> list[str]:
    """The end of a text, wrapped to ``width``, at most ``height`` lines."""
    if height <= 0:
        return []
    lines: list[str] = []
    # Only the visible end is wrapped.
    for line in text[-width * height :].splitlines():
        clean = one_line(line)
        lines += [clean[at : at + width] for at in range(0, len(clean), width)]
    return lines[-height:]
