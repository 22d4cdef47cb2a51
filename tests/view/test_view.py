"""Views of runs and plans: live, as lines, as a page, as a drawing, as data."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest
from rich.console import Console

from llmcompiler.events import (
    Event,
    Joined,
    LimitHit,
    MapOpened,
    PlanDiagnosed,
    PlanStarted,
    TaskFinished,
)
from llmcompiler.history.state import RunState, fold
from llmcompiler.language import parse_plan
from llmcompiler.view.data import run_to_json
from llmcompiler.view.graph import draw_plan, draw_run, to_dot, to_mermaid, to_svg
from llmcompiler.view.live import Frame, LiveView
from llmcompiler.view.plain import PlainView
from llmcompiler.view.report import report_lines
from llmcompiler.view.steps import SharedSteps
from llmcompiler.view.text import one_line, seconds_text, value_text
from tests.support.stories import (
    RUN,
    dense_japan,
    run_started,
    task_planned,
    task_started,
    troubled,
)


def plain(events: list[Event]) -> str:
    out = io.StringIO()
    view = PlainView(out)
    for event in events:
        view(event)
    return out.getvalue()


def frame(
    state: RunState,
    *,
    width: int = 100,
    height: int = 24,
    now: float | None = None,
    ascii_only: bool = False,
) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        at = state.now if now is None else now
        console.print(Frame(state, SharedSteps(), at, height, width, ascii_only).draw())
    return [line.rstrip() for line in captured.get().splitlines()]


def many_tasks(number: int = 100, done: int = 40, running: int = 5) -> RunState:
    events: list[Event] = [run_started(), PlanStarted(0.0, 1)]
    events += [task_planned(0.1, n, "country", f"Land {n}") for n in range(1, number + 1)]
    events += [task_started(0.2, n, name=f"Land {n}") for n in range(1, done + running + 1)]
    events += [TaskFinished(0.3, n, (), n, 0.1) for n in range(1, done + 1)]
    return fold(events)


# Texts.


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (0.26, "0.3 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (65, "1 min 05 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_a_line_holds_nothing_that_a_terminal_obeys() -> None:
    assert one_line("a\x1b[2Jb\r\nc\x9bd\te") == "a [2Jb c d e"


def test_a_line_is_cut_where_it_is_too_long() -> None:
    assert one_line("abcdef", 6) == "abcdef"
    assert one_line("abcdefg", 6) == "abcde…"
    assert value_text(["é"] * 10**5, 9) == '["é", "é…'


# Lines.


def test_plain_lines_tell_a_run_from_question_to_end() -> None:
    lines = plain(dense_japan()).splitlines()
    assert lines[0].endswith(f"run {RUN}: How dense is Japan?")
    assert any('planned    1. country("Japan")' in line for line in lines)
    assert any("done       2. calc(" in line and "= 331.56" in line for line in lines)
    assert "answered in 2.6 s: 2 tasks, 2 model calls, 160 + 39 tokens (40 cached)" in lines[-1]


def test_plain_lines_tell_trouble() -> None:
    text = plain(troubled())
    assert 'retry      1. country("Atlantis"): busy (again in 0.2 s)' in text
    assert "failed     1. country(\"Atlantis\"): there is no country 'Atlantis'" in text
    assert 'skipped    2. calc("$1.population * 2"): not run: 1 did not succeed' in text
    assert "fans out   4. country($3[*]): 3 elements" in text
    assert "failed     4[2]. country($3[*])" in text
    assert 'cancelled  5. country("Japan"): stopped: the run was interrupted' in text
    assert "error in the plan: unknown tool" in text
    assert text.splitlines()[-1].endswith("5 tasks, 1 failed, 1 skipped, 2 cancelled")


def test_elements_that_end_well_have_no_lines_of_their_own() -> None:
    assert "900000" not in plain(troubled())


def test_a_question_of_several_lines_is_one_line() -> None:
    assert len(plain([run_started("a\nb\x1b[2J")]).splitlines()) == 1


# Live.


def test_a_frame_shows_each_task_with_its_state_time_and_result() -> None:
    lines = frame(fold(dense_japan()))
    assert lines[0] == "How dense is Japan?"
    assert re.fullmatch(r'✓ 1 country\("Japan"\) +1\.5 s \{"population".*…', lines[1])
    assert re.fullmatch(r'✓ 2 calc\("\$1\.population / \$1\.area.* 0\.1 s 331\.564.*', lines[2])
    assert lines[3].startswith("answered in 2.6 s: 2 tasks")
    assert "".join(lines[3:]).endswith(f"(run {RUN})")


def test_durations_tick_between_events() -> None:
    state = fold(dense_japan()[:6])
    assert "2.5 s" in frame(state, now=3.0)[1]
    assert "4.5 s" in frame(state, now=5.0)[1]


def test_what_the_planner_is_writing_is_shown() -> None:
    state = fold([*dense_japan()[:3]])
    assert any("planner reads the prompt, 2.0 s" in line for line in frame(state, now=2.0))
    state = fold(dense_japan()[:7])
    lines = frame(state)
    assert "✎ planner 3. join()" in lines
    assert lines[-1].endswith("2 tokens being written")


def test_a_fan_out_is_one_line_with_how_far_it_is() -> None:
    state = fold(troubled()[:21])
    assert any("country($3[*])" in line and "2/3, 1 failed" in line for line in frame(state))
    narrow = frame(state, width=40)
    assert any("2/3, 1 failed country" in line for line in narrow)


@pytest.mark.parametrize("width", [20, 40, 59, 60, 80, 200])
@pytest.mark.parametrize("events_of", [dense_japan, troubled])
def test_no_line_is_wider_than_the_terminal(
    width: int, events_of: Callable[[], list[Event]]
) -> None:
    events = events_of()
    for count in range(1, len(events)):
        assert all(len(line) <= width for line in frame(fold(events[:count]), width=width))


@pytest.mark.parametrize("height", [6, 10, 24, 50])
def test_many_tasks_fit_the_terminal(height: int) -> None:
    lines = frame(many_tasks(), height=height)
    assert len(lines) < height
    if height > 10:
        running = [line for line in lines if line[:1] in "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"]
        assert len(running) == 5, "running tasks come first"
    hidden = next(line for line in lines if line.startswith("  and "))
    counts = sum(map(int, re.findall(r"\d+", hidden)))
    rows = sum(bool(re.search(r'country\("Land', line)) for line in lines)
    assert counts + rows == 100, "every task is shown or counted"


def test_a_terminal_without_unicode_gets_ascii() -> None:
    state = fold(dense_japan()[:8])
    assert all(line.isascii() for line in frame(state, ascii_only=True))


def test_replans_diagnostics_and_limits_are_remarked() -> None:
    events = [
        *dense_japan()[:10],
        PlanDiagnosed(2.0, 1, "E203", "error", 'there is no tool "contry"', "…"),
        Joined(2.1, 1, "replan", "the area is missing"),
        LimitHit(2.2, "tokens", "the run reached its limit tokens=100"),
    ]
    text = "\n".join(frame(fold(events)))
    assert 'the planner is asked to mend: there is no tool "contry"' in text
    assert "another plan: the area is missing" in text
    assert "the run reached its limit tokens=100" in text


def test_the_live_view_draws_and_gives_the_terminal_back() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, height=24, _environ={})
    with LiveView(console) as view:
        for event in dense_japan():
            view(event)
    text = out.getvalue()
    assert "answered in 2.6 s" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1, "the cursor comes back"
    view.close()
    assert out.getvalue() == text


def test_no_colour_where_none_is_wanted() -> None:
    out = io.StringIO()
    environ = {"NO_COLOR": "1", "TERM": "xterm-256color"}
    console = Console(file=out, force_terminal=True, width=80, height=24, _environ=environ)
    with LiveView(console) as view:
        for event in dense_japan():
            view(event)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", out.getvalue())


# Pages, drawings, data.


def test_a_page_shows_arguments_as_they_were_resolved() -> None:
    page = "\n".join(report_lines(fold(dense_japan())))
    assert "question: How dense is Japan?" in page
    assert "  3. join()" in page
    assert "with expression=125000000 / 377000" in page
    assert "plan/1   local:small  1.2 s, 100 + 30 tokens (40 cached)" in page
    assert page.endswith("answer: 332 people per km²")


def test_a_page_of_a_run_that_was_cut_off() -> None:
    page = "\n".join(report_lines(fold(dense_japan()[:8])))
    assert "plan 1 (unfinished)" in page
    assert "plan/1   local:small  unfinished" in page
    assert "unfinished after 1.0 s" in page


def test_data_holds_values_whole() -> None:
    data = json.loads(json.dumps(run_to_json(fold(dense_japan()))))
    assert data["status"] == "answered"
    assert data["tasks"][0]["value"] == {"population": 125_000_000, "area_km2": 377_000}
    assert data["tasks"][1]["depends_on"] == [1]
    assert data["usage"]["completion_tokens"] == 39
    assert parse_plan(data["plans"][0]).join is not None


def test_data_of_a_run_that_was_cut_off() -> None:
    data = run_to_json(fold(dense_japan()[:8]))
    assert (data["status"], data["answer"]) == ("unfinished", None)


NASTY = '1. say("a \\"b\\" <i> # $$x \\\\ `c` & 1. d")\n2. say($1[*])\n3. join($2)\n'


def test_mermaid_escapes_what_it_would_take_for_markup() -> None:
    drawing = to_mermaid(draw_plan(parse_plan(NASTY)))
    assert drawing.splitlines()[0] == "flowchart TD"
    labels = re.findall(r'\["(.*?)"\]', drawing)
    assert labels
    for label in labels:
        assert not re.search(r'["<>$`&]', label.replace("<br/>", ""))
    assert "  t1 --> t2\n  t2 --> join1\n" in drawing


def test_a_fan_out_has_a_shape_of_its_own() -> None:
    drawing = draw_plan(parse_plan(NASTY))
    assert 't2[["' in to_mermaid(drawing)
    assert "box3d" in to_dot(drawing)


def test_dot_strings_are_closed() -> None:
    drawing = to_dot(draw_plan(parse_plan(NASTY)))
    for line in drawing.splitlines():
        bare = re.sub(r"\\.", "", line)
        assert bare.count('"') % 2 == 0


def test_a_join_of_everything_hangs_from_the_last_tasks() -> None:
    drawing = to_dot(draw_run(fold(dense_japan())))
    assert "t2 -> join1;" in drawing
    assert "t1 -> join1;" not in drawing


def test_a_run_is_drawn_with_what_came_of_it() -> None:
    drawing = to_mermaid(draw_run(fold(troubled())))
    assert drawing.count(":::cancelled") == 2
    assert "classDef failed" in drawing
    assert "classDef planned" not in drawing


def test_plans_of_a_run_that_was_planned_again_are_grouped() -> None:
    events = [*dense_japan()[:-1], PlanStarted(3.0, 2)]
    drawing = to_mermaid(draw_run(fold(events)))
    assert 'subgraph plan1["plan 1"]' in drawing
    assert 'subgraph plan2["plan 2"]' in drawing


def test_svg_needs_no_program_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    plan = parse_plan('1. country("</text><script>alert(1)</script>")\n2. calc("$1.a")\n3. join()')
    picture = ElementTree.fromstring(to_svg(draw_plan(plan)))
    boxes = [element for element in picture.iter() if element.get("class") == "node"]
    assert len(boxes) == 3
    assert not [element for element in picture.iter() if element.tag.endswith("script")]
    text = "".join(picture.itertext())
    assert '$1 = country("</text><script>alert(1)</script>")' in text


def test_svg_of_whatever_a_plan_holds() -> None:
    ElementTree.fromstring(to_svg(draw_plan(parse_plan(NASTY))))
    ElementTree.fromstring(to_svg(draw_run(fold(troubled()))))


def test_an_empty_fan_out_is_done_at_once() -> None:
    events = [
        run_started(),
        PlanStarted(0.0, 1),
        task_planned(0.0, 1, "countries"),
        TaskFinished(0.1, 1, (), [], 0.1),
        task_planned(0.1, 2, "country", {"$ref": "$1[*]"}, deps=(1,)),
        MapOpened(0.1, 2, 0),
        TaskFinished(0.1, 2, (), [], 0.0),
    ]
    assert any("country($1[*])" in line and "[]" in line for line in frame(fold(events)))
