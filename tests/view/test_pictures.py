"""A run's timeline in a terminal; plans and results in a notebook."""

from __future__ import annotations

from llmcompiler import LLMCompiler, tool
from llmcompiler.history.state import fold
from llmcompiler.language import parse_plan
from llmcompiler.view.gantt import gantt_lines
from tests.support.stories import dense_japan, troubled


def test_bars_stand_where_tasks_worked() -> None:
    first, second = gantt_lines(fold(dense_japan()), 44)
    assert first.startswith("1 country |")
    assert first.endswith("1.5 s")
    assert first.index("#") < second.index("#")
    assert len(first) <= 44
    assert len(second) <= 44


def test_what_is_not_on_the_critical_path_has_another_mark() -> None:
    lines = {line.split()[0]: line for line in gantt_lines(fold(troubled()), 80)}
    assert "#" in lines["1"]
    assert "=" in lines["3"]
    assert "2" not in lines


def test_of_many_tasks_the_longest_are_shown() -> None:
    events = dense_japan()
    assert list(gantt_lines(fold(events[:1]))) == []
    assert all(line.isascii() for line in gantt_lines(fold(events)))


async def test_notebooks_show_plans_and_results_as_text() -> None:
    @tool
    async def echo(text: str) -> str:
        """Give the text back."""
        return text

    hostile = "<script>alert(1)</script>\u202e"
    plan = parse_plan(f'1. echo("{hostile}")\n2. echo(["$1"])\n3. join($1)')
    async with LLMCompiler([echo], store=":memory:") as compiler:
        result = await compiler.execute(parse_plan(f'1. echo("{hostile}")\n2. join($1)'))
    for html in (plan._repr_html_(), result._repr_html_()):
        assert "<script" not in html
        assert "&lt;script&gt;" in html
        assert "\u202e" not in html
    assert "<svg" in plan._repr_html_()
    assert "answered" in result._repr_html_()
