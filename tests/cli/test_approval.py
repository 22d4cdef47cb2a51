"""Approval on a real terminal: several calls wait, the rest goes on, and each way to decide."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pexpect = pytest.importorskip("pexpect", reason="needs a pseudo-terminal")

TOOLS = """
import pathlib
from llmcompiler import tool

@tool(effect="write", approve=True)
async def send(text: str, times: int = 1) -> str:
    "Send a text."
    with open(pathlib.Path(__file__).with_name("sent"), "a") as file:
        file.write(f"{text} x{times}\\n")
    return text

@tool
async def look(place: str) -> str:
    "Look at a place."
    pathlib.Path(__file__).with_name("looked").touch()
    return place
"""
PLAN = '1. send("one")\n2. look("here")\n3. send("three")\n4. send($3)\n5. join($1, $2)\n'
ASKS = r"\[a/e/d\] "


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "post.py").write_text(TOOLS)
    (tmp_path / "post.plan").write_text(PLAN)
    return tmp_path


def arguments(place: Path, *command: str) -> list[str]:
    tools, store = str(place / "post.py"), str(place / "runs.sqlite")
    return ["-m", "llmcompiler", *command, "--tools", tools, "--store", store]


def on_terminal(place: Path, *command: str, **environ: str) -> pexpect.spawn:
    return pexpect.spawn(
        sys.executable,
        arguments(place, *command),
        env={**os.environ, **environ},
        timeout=60,
        encoding="utf-8",
        dimensions=(40, 120),
    )


def sent(place: Path) -> list[str]:
    file = place / "sent"
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_calls_are_approved_edited_and_denied(place: Path, term: str) -> None:
    terminal = on_terminal(place, "run", str(place / "post.plan"), TERM=term)
    terminal.expect(r"task 1[^\n]*: send")
    terminal.expect('text = "one"')
    terminal.expect(ASKS)
    assert (place / "looked").exists(), "what needs no approval went on"
    assert sent(place) == []
    terminal.sendline("what?")
    terminal.expect(ASKS)
    terminal.sendline("e")
    terminal.expect("JSON object: ")
    terminal.sendline('times="many"')
    terminal.expect(r"does not fit: [^\n]*times")
    terminal.expect(ASKS)
    terminal.sendline("e")
    terminal.sendline("times=2")
    terminal.expect(r"task 3[^\n]*: send")
    terminal.expect(ASKS)
    terminal.sendline("a")
    terminal.expect(r"task 4[^\n]*: send")
    terminal.expect(ASKS)
    terminal.sendline("d")
    terminal.expect("why")
    terminal.sendline("twice is enough")
    terminal.expect('"2": ?"here"')
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    assert sent(place) == ["one x2", "three x1"]


def test_an_unattended_run_stops_and_resume_asks(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, *arguments(place, "run", str(place / "post.plan"))],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "approval is needed for send (task 1), send (task 3)" in done.stderr
    assert "llmcompiler resume" in done.stderr
    assert (place / "looked").exists() and sent(place) == []
    (place / "looked").unlink()

    terminal = on_terminal(place, "resume", "last")
    for _ in range(3):
        terminal.expect(ASKS)
        terminal.sendline("a")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    assert sent(place) == ["one x1", "three x1", "three x1"]
    assert not (place / "looked").exists(), "what was done is not done again"


def test_a_terminal_that_is_closed_leaves_a_run_to_resume(place: Path) -> None:
    terminal = on_terminal(place, "run", str(place / "post.plan"))
    terminal.expect(ASKS)
    terminal.sendeof()
    terminal.expect("terminal was closed")
    terminal.expect("llmcompiler resume")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 1
    assert sent(place) == []


def test_ctrl_c_at_a_question_ends_the_run(place: Path) -> None:
    terminal = on_terminal(place, "run", str(place / "post.plan"))
    terminal.expect(ASKS)
    terminal.sendintr()
    terminal.expect("llmcompiler resume")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130
    assert sent(place) == []
