"""``llmcompiler think``, and the drafts in views."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

from rich.console import Console

from llmcompiler.events import (
    BranchFinished,
    BranchStarted,
    Event,
    ModelFinished,
    ModelStarted,
    ModelText,
)
from llmcompiler.history.state import fold
from llmcompiler.view.drafts import draft_table, last_lines, visible_drafts
from llmcompiler.view.live import LiveView
from llmcompiler.view.steps import SharedSteps
from tests.cli.test_commands import cli
from tests.support.fake_openai import ReceivedRequest, Reply, fake_openai


def replies(_: ReceivedRequest) -> Reply:
    return Reply(["Let me think.\n", "Answer: 7"])


async def test_a_branch_alone_gives_its_answer_on_stdout_and_its_course_on_stderr() -> None:
    async with fake_openai(replies) as server:
        options = ("--model", "openai:x", "--base-url", server.url)
        done = await cli("think", "3 + 4?", "--width", "2", *options)
        assert (done.code, done.out.strip()) == (0, "7"), done.err
        assert "thought    1 by vote: 2 of 2 agree" in done.err
        compared = await cli("think", "3 + 4?", "--compare", "vote,refine", "--json", *options)
        rows = json.loads(compared.out)["strategies"]
        assert [(row["strategy"], row["answer"]) for row in rows] == [
            ("vote", "7"),
            ("refine", "7"),
        ]
        assert all(row["cost"]["b_seq"] > 0 for row in rows)


async def test_mistakes_are_named_before_anything_is_asked() -> None:
    done = await cli("think", "?", "--strategy", "votes", "--model", "openai:x")
    assert done.code == 2
    assert 'there is no strategy "votes"' in done.err
    done = await cli("think", "?", "--option", "max_tokens=80", "--model", "openai:x")
    assert (done.code, "give --max-tokens instead" in done.err) == (2, True)
    for option, name in (("--reason", "votes"), ("--join-reducer", "concat")):
        done = await cli("run", "?", option, name, "--model", "local:/no/weights.gguf")
        assert done.code == 2
        assert f'"{name}"' in done.err, "and not that there are no weights"


def draft_events() -> Iterator[Event]:
    yield BranchStarted(0.0, 1, (), "vote", {"options": {}}, {}, {})
    for number in range(9):
        yield ModelStarted(0.1, f"1/{number}", "branch", "m", {}, f"draft {number}")
    yield ModelText(1.0, "1/8", "a long text " * 40 + "the end")
    yield ModelText(1.0, "1/0", "short")
    yield ModelFinished(1.5, "1/0", "stop", 1, 0, 1, 1.4)


def test_drafts_stand_side_by_side_those_being_written_first() -> None:
    state = fold(draft_events())
    drafts = visible_drafts(state, 80)
    assert len(drafts) == 3
    assert "1/8" in [call.call for call in drafts]
    console = Console(width=80, file=None, record=True, force_terminal=False)
    with console.capture() as captured:
        console.print(draft_table(drafts, SharedSteps(), 4, 80, 2.0))
    lines = captured.get().splitlines()
    assert len(lines) <= 4
    assert all(len(line) <= 80 for line in lines)
    assert "the end" in captured.get()


def test_only_the_end_of_a_draft_is_shown() -> None:
    assert last_lines("one\ntwo\nthree", 10, 2) == ["two", "three"]
    assert last_lines("x" * 25, 10, 5) == ["x" * 10, "x" * 10, "x" * 5]
    assert last_lines("any", 10, 0) == []


def test_steps_that_workers_have_finished_stand_above_what_each_is_writing() -> None:
    """In the order of finishing, as in the workspace."""

    def worker(number: int) -> ModelStarted:
        seat = {"kind": "write", "number": number, "layout": "combined", "writers": 2}
        return ModelStarted(0.1, f"1/{number}", "branch", "m", {"seat": seat}, f"worker {number}")

    console = Console(width=60, height=20, record=True, force_terminal=False, file=io.StringIO())
    view = LiveView(console)
    view(BranchStarted(0.0, 1, (), "hogwild", {"options": {}}, {}, {}))
    for event in (worker(0), worker(1)):
        view(event)
    pieces = (
        ("1/1", "First 3 packs"),
        ("1/0", "I count."),
        ("1/1", " of 4.\n"),
        ("1/0", "\n\n"),
        ("1/1", "\n"),
        ("1/0", "Then 20 + 12"),
        ("1/1", "What is left?"),
    )
    for at, (call, text) in enumerate(pieces, 1):
        view(ModelText(float(at), call, text))
    console.print(view)
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    first = lines.index("worker 0: I count.")
    assert lines[first + 1] == "worker 1: First 3 packs of 4."
    assert lines[first + 3].split("  ")[0] == "Then 20 + 12"
    assert lines[first + 3].endswith("What is left?")
    view(BranchFinished(9.0, 1, (), {}))
    console.print(view)
    assert "I count" not in console.export_text(), "the branch has ended"
