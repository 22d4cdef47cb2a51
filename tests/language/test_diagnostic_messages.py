"""Every error code, with its complete message for a person or a repairing planner.

``diagnostics.txt`` holds, for each code, a plan and the first message of that code about it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llmcompiler.compiler import LLMCompiler
from llmcompiler.events import Event, PlanDiagnosed
from llmcompiler.language import Parser
from llmcompiler.passes.check import check_plan
from llmcompiler.plan.diagnostics import CODES
from llmcompiler.testing.doubles import ScriptedModel
from llmcompiler.tools.base import tool
from tests.passes.test_check import TOOLS

FILE = Path(__file__).parent.parent / "golden" / "diagnostics.txt"
MESSAGES = {
    code: (plan, message)
    for code, plan, message in re.findall(
        r"^=== (\w+)\n(.*?)\n---\n(.*?)\n\n",
        FILE.read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
}
WHOLE = {
    "E401": "error[E401]: the plan stops early: there is no join()\n"
    "  = hint: end the plan with join()",
    "W401": "warning[W401]: task 2 repeats task 1 (look) and is not called\n --> task 2",
    "W402": "warning[W402]: task 3 is task 1 (look) written again\n --> task 3",
}
RENUMBERED = """\
warning[W109]: the plan should go on at 3, so its tasks were renumbered
 --> line 1, column 1
  |
1 | 1. calc("1")
  | ^^^^^^^
  = hint: task 1 became 3"""


@pytest.mark.parametrize("code", MESSAGES)
def test_the_whole_message(code: str) -> None:
    text, message = MESSAGES[code]
    parser = Parser(inputs="declare")
    parser.feed(text)
    parser.close()
    diagnostics = [*parser.diagnostics, *check_plan(parser.plan(), TOOLS, parser.spans)[1]]
    assert (
        next(diagnostic.render() for diagnostic in diagnostics if diagnostic.code == code)
        == message
    )


def test_a_plan_that_follows_another_is_renumbered() -> None:
    parser = Parser(earlier_ids=(1, 2), first_id=3)
    parser.feed('1. calc("1")')
    assert [diagnostic.render() for diagnostic in parser.diagnostics] == [RENUMBERED]


async def test_what_is_said_of_a_plan_as_a_whole() -> None:
    @tool
    def look(name: str) -> str:
        """Look something up."""
        return name

    events: list[Event] = []
    joined = json.dumps({"facts": "", "text": "a", "action": "answer"})
    script: list[Any] = ['1. look("a")\n2. look("a")\n', '3. look("a")\n4. join($1)', joined]
    compiler = LLMCompiler([look], ScriptedModel(script), store=":memory:")
    await compiler.run("?", on_event=events.append)
    rendered = {event.code: event.rendered for event in events if isinstance(event, PlanDiagnosed)}
    assert rendered == WHOLE


def test_no_code_is_left_out() -> None:
    # Codes of programs have a file of their own; see tests/programs/test_diagnostic_messages.py.
    assert {*MESSAGES, *WHOLE, "W109"} == {code for code in CODES if code[1] != "5"}
