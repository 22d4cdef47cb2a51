"""HTML of plans and results, for notebooks: a picture of the DAG and a table."""

from __future__ import annotations

import html
from collections.abc import Iterable

from llmcompiler.errors import UsageError
from llmcompiler.plan.model import Plan
from llmcompiler.run.result import RunResult
from llmcompiler.view.graph import draw_plan, to_svg
from llmcompiler.view.text import display_text, seconds_text, task_call_text, value_text

_MOST_ROWS = 200
_VALUE_WIDTH = 300
_MOST_DRAWN = 60
"""A picture of more tasks cannot be read in a cell."""


def plan_html(plan: Plan) -> str:
    """A drawing of the plan, and a table with the number, call and dependencies of each task."""
    rows = (
        (f"${task.id}", task_call_text(task, 400), " ".join(f"${dep}" for dep in task.dependencies))
        for task in plan.tasks[:_MOST_ROWS]
    )
    return _picture(plan) + _table(("task", "call", "needs"), rows) + _omitted(len(plan.tasks))


def result_html(result: RunResult) -> str:
    """The answer of the run, and a table with the outcome of each task."""
    message = result.answer if result.failure is None else result.failure.message
    head = (
        f"<p><b>{_text(message or '')}</b></p><p>{result.status} in {seconds_text(result.seconds)}"
    )
    rows = (
        (
            f"${number}",
            task_call_text(observed.task, 400),
            observed.status,
            seconds_text(observed.seconds) if observed.started is not None else "",
            observed.failure.message
            if observed.failure
            else value_text(observed.value, _VALUE_WIDTH),
        )
        for number, observed in list(result.observations.items())[:_MOST_ROWS]
    )
    table = _table(("task", "call", "status", "took", "value"), rows)
    return f"{head}</p>{table}{_omitted(len(result.observations))}"


def _picture(plan: Plan) -> str:
    if not 1 < len(plan.tasks) <= _MOST_DRAWN:
        return ""
    try:
        picture = to_svg(draw_plan(plan))
    except UsageError:  # no WebAssembly here; the table holds the same facts
        return ""
    return f"<div>{picture[picture.index('<svg') :]}</div>"


def _table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(
        "<tr>"
        + "".join(f'<td style="text-align:left">{_text(cell)}</td>' for cell in row)
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _omitted(number: int) -> str:
    return f"<p>{_MOST_ROWS} of {number} are shown</p>" if number > _MOST_ROWS else ""


def _text(text: str) -> str:
    return f"<bdi>{html.escape(display_text(text, 2000))}</bdi>"
