"""Every code of a program's diagnostics, with its complete message.

``program_diagnostics.txt`` holds, for each code, a program and the first message of that code.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmcompiler.plan.diagnostics import CODES
from llmcompiler.plan.model import Plan
from llmcompiler.programs.saved import check_program
from llmcompiler.tools.base import tool

FILE = Path(__file__).parent.parent / "golden" / "program_diagnostics.txt"
MESSAGES = {
    code: (program, message)
    for code, program, message in re.findall(
        r"^=== (\w+)\n(.*?)\n---\n(.*?)\n\n",
        FILE.read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
}


@tool
def country(name: str) -> dict[str, int]:
    """Look up a country."""
    return {"population": len(name)}


def first_message(program: str, code: str) -> str:
    diagnostics = check_program(Plan(program=program), {"country": country})[1]
    return next(item.render() for item in diagnostics if item.code == code)


@pytest.mark.parametrize("code", MESSAGES)
def test_the_whole_message(code: str) -> None:
    program, message = MESSAGES[code]
    assert first_message(program, code) == message


def test_no_code_is_left_out() -> None:
    assert set(MESSAGES) == {code for code in CODES if code[1] == "5"}
