"""Plans and results as notebooks show them: a picture of the DAG and a table.

It must not know what a notebook is.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from llmcompiler.errors import UsageError
from llmcompiler.plan.model import Plan
from llmcompiler.run.run import RunResult
from llmcompiler.view.graph import draw_plan, to_svg
from llmcompiler.view.text import call_text, seconds_text, shown, value_text

_MOST = 200
_VALUE = 300
_DRAWN = 60
"""Tasks up to which a picture of the DAG can be read in a cell."""


def plan_html(plan: Plan) -> str:
    """The plan drawn, and a row for each task: its number, its call, the tasks it needs."""
    rows = (
        (f"${task.id}", call_text(task, 400), " ".join(f"${dep}" for dep in task.dependencies))
        for task in plan.tasks[:_MOST]
    )
    return _picture(plan) + _table(("task", "call", "needs"), rows) + _rest(len(plan.tasks))


def result_html(result: RunResult) -> str:
    """The answer, and a row for each task with what came of it."""
    said = result.answer if result.failure is None else result.failure.message
    head = f"<p><b>{_text(said or '')}</b></p><p>{result.status} in {seconds_text(result.seconds)}"
    rows = (
        (
            f"${number}",
            call_text(seen.task, 400),
            seen.status,
            seconds_text(seen.seconds) if seen.started is not None else "",
            seen.failure.message if seen.failure else value_text(seen.value, _VALUE),
        )
        for number, seen in list(result.observations.items())[:_MOST]
    )
    table = _table(("task", "call", "status", "took", "value"), rows)
    return f"{head}</p>{table}{_rest(len(result.observations))}"


def _picture(plan: Plan) -> str:
    if not 1 < len(plan.tasks) <= _DRAWN:
        return ""
    try:
        picture = to_svg(draw_plan(plan))
    except UsageError:  # the table says the same
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


def _rest(number: int) -> str:
    return f"<p>{_MOST} of {number} are shown</p>" if number > _MOST else ""


def _text(text: str) -> str:
    return f"<bdi>{html.escape(shown(text, 2000))}</bdi>"
