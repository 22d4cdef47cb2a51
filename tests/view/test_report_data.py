"""The data of a report: times, attempts, cost; no value can harm the page."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest

from llmcompiler.events import PlanDiagnosed, RunFinished, TaskFinished
from llmcompiler.llm.prices import Price, Prices
from llmcompiler.log.store import RunStore
from llmcompiler.view.page import embedded_json, report_page
from llmcompiler.view.report_data import related_runs, run_report
from llmcompiler.view.text import display_text
from tests.support.stories import RUN, dense_japan, run_started, thoughtful, troubled


def task_of(report: dict[str, Any], number: int) -> dict[str, Any]:
    (task,) = (task for task in report["tasks"] if task["id"] == number)
    return dict(task)


def test_a_run_from_question_to_answer() -> None:
    report = run_report(dense_japan())
    assert (report["status"], report["answer"]) == ("answered", "332 people per km²")
    country, calc = task_of(report, 1), task_of(report, 2)
    assert country["call"] == 'country("Japan")'
    assert json.loads(country["value"])["population"] == 125_000_000
    assert (calc["ready"], calc["started"], calc["ended"]) == (2.0, 2.0, 2.1)
    assert calc["arguments"] == {"expression": "125000000 / 377000"}
    planner = report["calls"][0]
    assert (planner["first"], planner["ticks"]) == (0.5, [0.5, 1.0])


def test_the_critical_path_and_the_time_in_which_nothing_worked() -> None:
    report = run_report(dense_japan())
    assert report["critical"]["tasks"] == [1, 2]
    assert report["idle"] == []
    assert run_report(troubled())["idle"][0] == (0.0, 0.3)


def test_each_attempt_and_each_element_of_a_fan_out() -> None:
    report = run_report(troubled())
    first, second = task_of(report, 1)["attempts"]
    assert (first["outcome"], first["failure"]) == ("retried", "busy")
    assert (second["outcome"], second["started"], second["ended"]) == ("failed", 0.6, 0.7)
    statuses = {
        element["index"][0]: element["status"] for element in task_of(report, 4)["elements"]
    }
    assert statuses == {0: "done", 1: "running", 2: "failed"}
    assert task_of(report, 2)["because"] == 1


def test_drafts_stand_beside_those_that_were_asked_for_at_once() -> None:
    vote, pdr, hogwild = run_report(thoughtful())["branches"]
    assert [[draft["call"] for draft in step] for step in vote["steps"]] == [["1/0", "1/1", "1/2"]]
    labels = [[draft["label"] for draft in step] for step in pdr["steps"]]
    assert labels == [
        ["round 1 draft"] * 2,
        ["round 1 distil"],
        ["round 2 draft"] * 2,
        ["round 2 distil"],
        ["final draft"],
    ]
    assert [len(step) for step in hogwild["steps"]] == [2]


def test_what_a_reducer_did_with_the_drafts() -> None:
    vote, pdr, _ = run_report(thoughtful())["branches"]
    assert (vote["why"], vote["answer"]) == ("2 of 3 agree", "42")
    assert vote["votes"] == [["42", 2], ["41", 1]]
    (drafts,) = vote["steps"]
    assert [draft["agrees"] for draft in drafts] == [True, False, True]
    assert [draft["accepted"] for draft in drafts] == [True, False, False]
    assert [draft["place"] for draft in drafts] == [1, 3, 2]
    path = [draft["call"] for step in pdr["steps"] for draft in step if draft["accepted"]]
    assert path == ["2/0", "2/2", "2/3", "2/5", "2/6"]
    assert pdr["cost"]["path"] < pdr["cost"]["total"]


def test_what_the_passes_did_is_what_the_log_says() -> None:
    repeats = "task 3 repeats task 1 (country) and is not called"
    events = dense_japan()
    events.insert(8, PlanDiagnosed(1.0, 1, "W401", "warning", repeats, f"warning[W401]: {repeats}"))
    (plan,) = run_report(events)["plans"]
    assert (plan["passes"], plan["diagnostics"]) == ([repeats], [])
    (plan,) = run_report(troubled())["plans"]
    assert (plan["passes"], len(plan["diagnostics"])) == ([], 1)


def test_cost_by_role_and_model() -> None:
    prices = Prices({"local:small": Price(prompt=1.0, completion=10.0)})
    planner, joiner = run_report(dense_japan(), prices)["costs"]
    assert planner["dollars"] == pytest.approx((100 * 1 + 30 * 10) / 1e6)
    assert (joiner["role"], joiner["calls"], joiner["usage"]["prompt_tokens"]) == ("joiner", 1, 60)
    assert run_report(dense_japan())["costs"][0]["dollars"] == 0.0


def test_every_beginning_of_a_run_can_be_told() -> None:
    for events in (dense_japan(), troubled()):
        for length in range(1, len(events)):
            assert run_report(events[:length])["status"] == "unfinished" or length == len(events)


def test_what_a_terminal_or_a_page_would_obey_is_spelt_out() -> None:
    assert display_text("\x1b[31mred\x00\x9b") == r"\u001b[31mred\u0000\u009b"
    assert display_text("\u202etxt.exe") == r"\u202etxt.exe"
    assert display_text("\ud800") == r"\ud800"
    assert (
        display_text("tab\tand\nline stay, as does עברית") == "tab\tand\nline stay, as does עברית"
    )


def test_a_long_value_is_cut_with_a_word() -> None:
    text = display_text("x" * 10_000_000)
    assert len(text) < 61_000
    assert text.endswith("… cut: 60,000 of 10,000,000 characters are shown")


HOSTILE = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(1)> & \u2028"


def test_data_cannot_end_its_element() -> None:
    text = embedded_json({"value": HOSTILE, HOSTILE: [HOSTILE]})
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"value": HOSTILE, HOSTILE: [HOSTILE]}


def test_nor_can_the_title() -> None:
    page = report_page([run_report(dense_japan())], HOSTILE)
    assert page.count("</script>") == page.count("<script") == 2


def test_the_page_asks_nobody_for_anything() -> None:
    page = report_page([run_report(dense_japan())], "a run")
    assert "default-src 'none'" in page
    urls = re.findall(r'(?:src|href)="?(?!#|data:)([^"\s>]+)', page.partition("<script>")[0])
    assert urls == []


def test_values_of_a_large_run_share_what_a_page_may_hold() -> None:
    events = dense_japan()
    long_values = [
        dataclasses.replace(event, value="y" * 5_000_000)
        if isinstance(event, TaskFinished)
        else event
        for event in events
    ]
    assert len(embedded_json(run_report(long_values))) < 1_000_000


def test_parent_and_forks_are_related() -> None:
    store = RunStore(":memory:")
    origin = {"run": RUN, "tasks": [1], "values": {}, "calls": {}}
    for run, extra in ((RUN, {}), ("aaaaaaaaaa", {"origin": origin}), ("bbbbbbbbbb", {})):
        log = store.begin(run)
        log.append([run_started(run=run, **extra), RunFinished(1.0, "answered", "so", None, None)])
        log.close()
    assert related_runs(store, RUN) == ["aaaaaaaaaa"]
    assert related_runs(store, "aaaaaaaaaa") == [RUN]
    assert related_runs(store, "bbbbbbbbbb") == []
    store.close()
