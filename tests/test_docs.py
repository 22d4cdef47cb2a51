"""Transcripts in the documentation are what the commands print."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
_BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def run(command: str, place: Path) -> str:
    words = shlex.split(command)
    assert words[0] == "llmcompiler"
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=place,
        env={**os.environ, "XDG_STATE_HOME": str(place / "state"), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout + done.stderr


def neutral(text: str) -> str:
    """Without run ids and times, which are never the same."""
    text = re.sub(r"\b[0-9a-f]{10}\b", "RUN", text)
    return re.sub(r"\d+\.\d s\b", "N s", text).rstrip()


def matches(expected: str, printed: str) -> bool:
    """Whether the text was printed; ``...`` on a line of its own stands for any lines."""
    parts = [re.escape(part) for part in re.split(r"^\.\.\.$\n?", expected, flags=re.MULTILINE)]
    return re.fullmatch(r"(?:.*\n)*?".join(parts) + r"\s*", printed + "\n") is not None


@pytest.mark.parametrize("page", ["replay.md", "tutorial.md"])
def test_a_pages_transcripts_are_true(page: str, tmp_path: Path) -> None:
    first = ""
    commands = 0
    for kind, file, body in _BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
        if file:
            (tmp_path / file).write_text(body, encoding="utf-8")
        if kind != "console":
            continue
        for step in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            command, _, expected = step.partition("\n")
            printed = run(command.replace("FIRST", first), tmp_path)
            assert matches(neutral(expected) + "\n", neutral(printed)), f"{command}\n{printed}"
            commands += 1
            if not first and (ids := re.findall(r"\b[0-9a-f]{10}\b", printed)):
                first = ids[0]
    assert commands


def test_the_site_is_built_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)],
        cwd=DOCS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tutorial" / "index.html").exists()
