"""The differences of two runs, as text for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from llmcompiler.history.decisions import call_text
from llmcompiler.history.diff import RunDiff, TaskDiff
from llmcompiler.view.text import count_text, one_line, seconds_text

_WIDTH = 80
_MOST_ELEMENTS = 5
"""Differing elements of a fan-out that are printed; the others are counted."""

_NOISE_SECONDS = 0.1
"""A smaller difference in time is noise."""


def print_diff(diff: RunDiff, *, times: bool = True) -> None:
    """Print the differences to stdout. A file or a pipe gets every line whole.

    Args:
        diff: the two runs and their differences.
        times: compare durations too. The durations of a derived run mean nothing.
    """
    on_terminal = sys.stdout.isatty()
    console = Console(width=None if on_terminal else 10_000, highlight=False)
    console.print(render(diff, times=times), soft_wrap=not on_terminal)


def render(diff: RunDiff, *, times: bool = True) -> RenderableType:
    """A table of the two runs, and below it their differing plans, values and times."""
    return Group(_sides(diff, times), *_sections(diff, times))


def _sides(diff: RunDiff, times: bool) -> Table:
    before, after = diff.before, diff.after
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    table.add_row("", Text(before.run, "bold"), Text(after.run, "bold"))
    for name, before_text, after_text in _rows(diff, times):
        style = "" if before_text == after_text else "yellow"
        table.add_row(name, Text(before_text, style), Text(after_text, style))
    return table


def _rows(diff: RunDiff, times: bool) -> Iterator[tuple[str, str, str]]:
    before, after = diff.before, diff.after
    if before.parent or after.parent:
        yield "forked from", before.parent or "", after.parent or ""
    if before.question or after.question:
        yield "question", one_line(before.question or "", 200), one_line(after.question or "", 200)
    for name in dict.fromkeys((*before.inputs, *after.inputs)):
        texts = [str(side.inputs.get(name, "")) for side in (before, after)]
        yield name, one_line(texts[0], _WIDTH), one_line(texts[1], _WIDTH)
    for role in dict.fromkeys((*before.models, *after.models)):
        yield role, before.models.get(role, ""), after.models.get(role, "")
    yield "status", before.status, after.status
    yield "answer", one_line(before.answer or "", 200), one_line(after.answer or "", 200)
    yield "plans", str(before.plans), str(after.plans)
    if times:
        yield "time", seconds_text(before.seconds), seconds_text(after.seconds)
    yield "model calls", str(before.usage.calls), str(after.usage.calls)
    if before.usage.calls or after.usage.calls:
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens"):
            counts = [f"{getattr(side.usage, name):,}" for side in (before, after)]
            yield name.replace("_", " "), counts[0], counts[1]
        partly_new = times and diff.anew not in (None, after.cost)
        note = f" ({_money(diff.anew)} of it anew)" if partly_new else ""
        yield "cost", _money(before.cost), _money(after.cost) + note


def _money(dollars: float | None) -> str:
    if dollars is None:
        return "not known"
    return "$0" if not dollars else f"${dollars:.2f}" if dollars >= 1 else f"${dollars:.2g}"


def _sections(diff: RunDiff, times: bool) -> Iterator[Text]:
    same_count = sum(task.change == "same" for task in diff.tasks)
    yield Text()
    if diff.prompts:
        yield _heading("prompts", ", ".join(diff.prompts) + " differ")
    yield _heading("plan", f"{count_text(same_count, 'task')} alike" if diff.tasks else "no tasks")
    yield from _indented(line for task in diff.tasks for line in _plan_lines(task))
    compared = sum(task.elements for task in diff.tasks)
    differing = sum(len(task.outcomes) for task in diff.tasks)
    yield _heading(
        "values", f"{count_text(compared - differing, 'result')} alike, {differing} different"
    )
    yield from _indented(line for task in diff.tasks for line in _value_lines(task))
    lines = [line for task in diff.tasks for line in _time_lines(task)]
    if lines and times:
        yield _heading("time", "of tasks of both")
        yield from _indented(lines)


def _heading(title: str, summary: str) -> Text:
    return Text.assemble((title, "bold"), f": {summary}")


def _indented(lines: Iterable[Text]) -> Iterator[Text]:
    for line in lines:
        yield Text("  ").append_text(line)


def _name(task: TaskDiff) -> str:
    if task.before is None or task.after is None:
        return f"{task.before or task.after} {task.tool}"
    moved = f" → {task.after}" if task.after != task.before else ""
    return f"{task.before}{moved} {task.tool}"


def _plan_lines(task: TaskDiff) -> Iterator[Text]:
    match task.change:
        case "added":
            yield Text(f"+ {_name(task)}", "green")
        case "removed":
            yield Text(f"- {_name(task)}", "red")
        case "changed":
            yield Text(f"~ {_name(task)}", "yellow")
            for argument in task.arguments:
                before = one_line(argument.before or "none", _WIDTH)
                after = one_line(argument.after or "none", _WIDTH)
                yield Text(f"    {argument.name}: {before} → {after}")


def _value_lines(task: TaskDiff) -> Iterator[Text]:
    for outcome in task.outcomes[:_MOST_ELEMENTS]:
        place = call_text(task.before or 0, outcome.index).removeprefix("task ")
        before, after = (one_line(text, _WIDTH) for text in (outcome.before, outcome.after))
        yield Text.assemble(
            (f"~ {place} {task.tool}{outcome.path}", "yellow"), f": {before} → {after}"
        )
    if (more := len(task.outcomes) - _MOST_ELEMENTS) > 0:
        yield Text(f"  and {more} more of its elements", "dim")


def _time_lines(task: TaskDiff) -> Iterator[Text]:
    before, after = task.seconds
    if before is not None and after is not None and abs(after - before) >= _NOISE_SECONDS:
        yield Text(f"{_name(task)}: {seconds_text(before)} → {seconds_text(after)}")
