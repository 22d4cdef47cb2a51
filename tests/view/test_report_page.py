"""The report in a real browser: clicks, search, keys, a phone's screen, dark mode.

No test waits for a time: each waits for the element that it expects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llmcompiler.events import (
    Event,
    ModelText,
    PlanFinished,
    PlanStarted,
    RunFinished,
    TaskFinished,
)
from llmcompiler.view.page import report_page
from llmcompiler.view.report_data import run_report
from tests.support.browser import launch_browser, serious_violations
from tests.support.stories import (
    dense_japan,
    run_started,
    task_planned,
    task_started,
    thoughtful,
    troubled,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror='window.pwned=1'>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from launch_browser()


class Visit:
    """A page opened from disk, with its console messages and requests."""

    def __init__(self, browser: Browser, path: Path, script: str = "", **context: Any) -> None:
        self.context = browser.new_context(offline=True, **context)
        self.page: Page = self.context.new_page()
        self.page.add_init_script(script)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on(
            "console",
            lambda message: (
                self.complaints.append(message.text)
                if message.type in ("error", "warning")
                else None
            ),
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri(), timeout=120_000)


@pytest.fixture
def visit(browser: Browser, tmp_path: Path) -> Iterator[Any]:
    visits: list[Visit] = []

    def open_page(*runs: list[Event], **context: Any) -> Page:
        path = tmp_path / f"{len(visits)}.html"
        path.write_text(report_page([run_report(run) for run in runs], "a run"), encoding="utf-8")
        visits.append(Visit(browser, path, **context))
        return visits[-1].page

    yield open_page
    for visited in visits:
        assert visited.complaints == []
        assert [
            url for url in visited.requests if not url.startswith(("file:", "data:", "blob:"))
        ] == []
        visited.context.close()


def large_run(tasks: int) -> list[Event]:
    """A run of so many tasks. Each takes the result of the task seven before it, if any."""
    events: list[Event] = [run_started(None, planner=None), PlanStarted(0.0, 1)]
    for number in range(1, tasks + 1):
        needs = (number - 7,) if number > 7 else ()
        events.append(task_planned(0.0, number, "calc", f"${number - 7} + 1", deps=needs))
    for number in range(1, tasks + 1):
        events.append(task_started(number * 0.01, number, expression=f"{number} + 1"))
        events.append(TaskFinished(number * 0.01 + 0.05, number, (), number, 0.05))
    at = tasks * 0.01 + 1
    return [*events, PlanFinished(at, 1, tasks, ()), RunFinished(at, "answered", "so", 1, None)]


def test_answer_plan_timeline_and_cost_are_there(visit: Any) -> None:
    page = visit(dense_japan())
    assert page.locator("h1").inner_text() == "How dense is Japan?"
    assert page.locator(".the-answer").inner_text() == "332 people per km²"
    assert page.locator(".lines .line").count() == 2
    assert page.locator(".timeline .lane.task").count() == 2
    assert page.locator("table.numbers tbody tr").count() == 2
    for landmark in ("banner", "main", "contentinfo", "search"):
        assert page.get_by_role(landmark).count() == 1


def test_a_click_on_a_task_shows_all_of_it(visit: Any) -> None:
    page = visit(troubled())
    page.locator(".lines .line").first.click()
    detail = page.get_by_role("complementary", name="Task 1")
    assert detail.locator("tbody tr").count() == 2
    assert "there is no country 'Atlantis'" in detail.inner_text()
    detail.get_by_role("button", name="$2").click()
    assert "did not succeed" in page.get_by_role("complementary", name="Task 2").inner_text()
    page.get_by_role("button", name="Close details").click()
    assert page.get_by_role("complementary").count() == 0


def test_text_drawing_and_timeline_point_at_the_same_task(visit: Any) -> None:
    page = visit(dense_japan())
    page.locator(".lines .line").nth(1).hover()
    assert page.locator(".timeline .lane.task.hover").count() == 1
    page.locator(".timeline .lane.task").first.click()
    assert page.locator(".lines .line.chosen .number").inner_text() == "1."


def test_by_keyboard_alone(visit: Any) -> None:
    page = visit(dense_japan())
    page.keyboard.press("/")
    page.keyboard.type("area")
    page.get_by_text("2 found").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("application").focus()
    page.keyboard.press("ArrowDown")
    page.get_by_role("complementary", name="Task 1").wait_for()
    page.keyboard.press("ArrowDown")
    page.get_by_role("complementary", name="Task 2").wait_for()
    page.keyboard.press("ArrowUp")
    page.get_by_role("complementary", name="Task 1").wait_for()
    for key in "+-0":
        page.keyboard.press(key)
    page.keyboard.press("Escape")
    assert page.get_by_role("complementary").count() == 0


def test_no_key_comes_too_early(visit: Any) -> None:
    script = "addEventListener('DOMContentLoaded', () => document.body.dispatchEvent(new "
    script += "KeyboardEvent('keydown', {key: '/', bubbles: true})))"
    page = visit(dense_japan(), script=script)
    assert page.evaluate("document.activeElement.id") == "search"


def test_drafts_lie_side_by_side_under_what_was_made_of_them(visit: Any) -> None:
    page = visit(thoughtful())
    page.locator(".lines .line").first.click()
    page.get_by_role("button", name="drafts side by side").click()
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    page.get_by_role("complementary").wait_for(state="detached")
    vote = page.locator("details.branch").first
    assert "2 of 3 agree" in vote.locator("summary").first.inner_text()
    drafts = vote.get_by_role("region", name="Draft", exact=False)
    places = [draft.bounding_box() for draft in drafts.all()]
    assert len(places) == 3
    assert len({place["y"] for place in places}) == 1
    assert [place["x"] for place in places] == sorted({place["x"] for place in places})
    assert vote.get_by_text("accepted path", exact=True).count() == 1
    assert vote.locator("table.votes tbody tr").count() == 2


def test_the_passes_and_the_front_end_are_told_apart(visit: Any) -> None:
    page = visit(dense_japan())
    page.get_by_role("heading", name="What the passes did").wait_for()
    page.get_by_text("no call repeats another").wait_for()
    page = visit(troubled())
    page.get_by_role("heading", name="What the front end said").wait_for()


def test_idle_time_is_marked_over_all_rows(visit: Any) -> None:
    page = visit(troubled())
    box = page.locator(".timeline .bands .idle").first.bounding_box()
    last = page.locator(".timeline .lane.task").last.bounding_box()
    assert box["y"] + box["height"] >= last["y"] + last["height"]
    assert page.get_by_text("Nothing at work for").count() == 1
    assert visit(dense_japan()).get_by_text("Something was at work all the time").count() == 1


def test_a_planners_pieces_are_marked_in_the_timeline(visit: Any) -> None:
    page = visit(dense_japan())
    planner = page.locator(".timeline .lane.model").first
    assert planner.locator(".tick").count() == 2
    assert planner.locator(".bar.stream").count() == 1


def test_search_and_filter(visit: Any) -> None:
    page = visit(troubled())
    page.get_by_role("searchbox").fill("atlantis country")
    page.get_by_text("1 found").wait_for()
    page.get_by_role("searchbox").fill("")
    page.get_by_role("button", name="skipped 1").click()
    page.get_by_text("1 found").wait_for()
    assert page.locator(".lines .line .number").inner_text() == "2."


def test_forks_are_tabs(visit: Any) -> None:
    fork = [run_started("Another?", run="aaaaaaaaaa"), *troubled()[1:]]
    page = visit(dense_japan(), fork)
    page.get_by_role("tab", name="Fork aaaaaaaaaa").click()
    assert page.locator("h1").inner_text() == "Another?"


def test_dark_mode_follows_the_system_and_a_button_turns_it(visit: Any) -> None:
    page = visit(dense_japan(), color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(background)
    page.get_by_role("button", name="Light").click()
    assert page.evaluate(background) != before


def test_a_phone_scrolls_down_and_never_sideways(visit: Any) -> None:
    page = visit(troubled(), viewport={"width": 390, "height": 844})
    fits = "document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(fits)
    page.locator(".lines .line").first.click()
    page.get_by_role("complementary", name="Task 1").wait_for()
    assert page.evaluate(fits)


def test_paper_shows_the_drawing_as_a_picture(visit: Any) -> None:
    page = visit(dense_japan())
    assert page.pdf().startswith(b"%PDF")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.locator("img.printed").wait_for(state="attached")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_for_an_accessibility_checker(visit: Any, scheme: str) -> None:
    page = visit(troubled(), thoughtful(), color_scheme=scheme)
    page.locator(".lines .line").first.click()
    page.get_by_role("complementary", name="Task 1").wait_for()
    assert serious_violations(page) == []
    page.get_by_role("tab").nth(1).click()
    page.locator("details.branch").first.wait_for()
    assert serious_violations(page) == []


def with_hostile_values(event: Event) -> Event:
    match event:
        case TaskFinished():
            return dataclasses.replace(event, value={HOSTILE: f"\x00\u202e{HOSTILE}"})
        case ModelText():
            return dataclasses.replace(event, text=HOSTILE)
        case RunFinished():
            return dataclasses.replace(event, answer=f"{HOSTILE} עברית {'z' * 10_000_000}")
    return event


def test_hostile_values_are_text(visit: Any) -> None:
    events = [run_started(HOSTILE), *map(with_hostile_values, dense_japan()[1:])]
    page = visit(events)
    page.locator(".lines .line").first.click()
    page.get_by_role("complementary", name="Task 1").wait_for()
    assert page.locator("h1").inner_text() == HOSTILE
    assert "of 10,000," in page.locator(".the-answer").inner_text()
    assert page.evaluate("window.pwned") is None
    assert page.locator("main img:not(.printed), main script").count() == 0


def test_a_small_runs_report_is_a_small_file() -> None:
    page = report_page([run_report(large_run(8))], "a run")
    assert len(page.encode()) < 1_500_000


@pytest.mark.parametrize("tasks", [8, 200, pytest.param(5000, marks=pytest.mark.slow)])
def test_three_sizes(visit: Any, tasks: int, record_property: Any) -> None:
    page = visit(large_run(tasks))
    page.wait_for_function("performance.getEntriesByName('drawn').length > 0")
    mark = "name => performance.getEntriesByName(name)[0].startTime"
    ready, drawn = page.evaluate(f"['ready', 'drawn'].map({mark})")
    record_property("interactive_ms", ready)
    record_property("drawn_ms", drawn)
    print(f"{tasks} tasks: interactive after {ready:.0f} ms, drawn after {drawn:.0f} ms")  # noqa: T201
    page.get_by_role("searchbox").fill(f"${tasks} ")
    page.locator(".lines .line").first.click()
    page.get_by_role("complementary").wait_for()
    assert page.locator(".lines .line").count() <= 300
