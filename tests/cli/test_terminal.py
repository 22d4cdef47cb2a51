"""Help, completion, narrow terminals, pipes and wrong commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmcompiler.log.store import RunStore
from tests.support.docs import CommandServer
from tests.support.stories import RUN, dense_japan

HELP = """
import json, sys
import typer
from llmcompiler.cli.app import app

def helps(command, context):
    yield context.command_path, command.get_help(context)
    for name in getattr(command, "commands", {}):
        inner = command.commands[name]
        yield from helps(inner, type(context)(inner, info_name=name, parent=context,
                                              **inner.context_settings))

root = typer.main.get_command(app)
context = root.make_context("llmcompiler", [], resilient_parsing=True)
print(json.dumps(dict(helps(root, context))))
"""


def cli(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llmcompiler", *arguments],
        cwd=cwd,
        env={**os.environ, "XDG_STATE_HOME": str(cwd), **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module", params=[40, 80, 200])
def helps(request: pytest.FixtureRequest) -> tuple[int, dict[str, str]]:
    done = subprocess.run(
        [sys.executable, "-c", HELP],
        env={**os.environ, "COLUMNS": str(request.param)},
        capture_output=True,
        text=True,
        check=True,
    )
    return request.param, json.loads(done.stdout)


def test_help_of_every_command_shows_an_example(helps: tuple[int, dict[str, str]]) -> None:
    _, texts = helps
    assert len(texts) > 20
    lacking = [
        name for name, text in texts.items() if "Example:" not in text and "Try:" not in text
    ]
    assert lacking == []


def test_help_fits_the_terminal_and_no_line_is_too_long_to_read(
    helps: tuple[int, dict[str, str]],
) -> None:
    width, texts = helps
    for name, text in texts.items():
        long = [line for line in text.splitlines() if len(line) > min(width, 80)]
        assert long == [], name
    # The list of commands cuts no description.
    if width == 80:
        assert "..." not in texts["llmcompiler"].partition("Commands:")[2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_a_script_that_completes(shell: str, tmp_path: Path) -> None:
    done = cli(
        "--show-completion", shell, cwd=tmp_path, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    )
    assert done.returncode == 0
    assert "_LLMCOMPILER_COMPLETE" in done.stdout


def complete(typed: str, cwd: Path) -> list[str]:
    words = typed.split(" ")
    done = cli(
        cwd=cwd,
        _LLMCOMPILER_COMPLETE="complete_bash",
        COMP_WORDS=typed,
        COMP_CWORD=str(len(words) - 1),
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_runs_strategies_and_formats_are_completed(tmp_path: Path) -> None:
    assert complete("llmcompiler show ", tmp_path) == ["last"]
    store = RunStore(tmp_path / "runs.sqlite")
    log = store.begin(RUN, 1_700_000_000.0)
    log.append(dense_japan())
    log.close()
    store.close()
    typed = f"llmcompiler show --store {tmp_path / 'runs.sqlite'} {RUN[:3]}"
    assert complete(typed, tmp_path) == [RUN]
    assert complete("llmcompiler think --strategy pa", tmp_path) == ["parallel_r1", "parathinker"]
    assert complete("llmcompiler graph --format s", tmp_path) == ["svg"]


def test_into_a_pipe_goes_plain_text(tmp_path: Path) -> None:
    plan = '1. calc("6 * 7")\n2. join($1)'
    done = cli("run", plan, "--tools", "calc", cwd=tmp_path, FORCE_COLOR="", NO_COLOR="1")
    assert (done.returncode, done.stdout) == (0, "42\n")
    assert "\x1b" not in done.stdout + done.stderr


@pytest.fixture(scope="module")
def command_server() -> Iterator[CommandServer]:
    server = CommandServer()
    yield server
    server.close()


MISTAKES = [
    ("run", "nothing.plan"),
    ("run", "1. clac(1)", "--tools", "calc"),
    ("show", "nothing"),
    ("show", "last", "--store", "/nowhere/at/all"),
    ("check", "1. calc("),
    ("think", "What?", "--strategy", "voet"),
    ("graph", '1. calc("1")', "--format", "png"),
    ("report", "last"),
    ("diff", "last", "last"),
    ("tools", "--tools", "nothing.py"),
    ("models", "path", "nothing"),
    ("frok", "last"),
]


@pytest.mark.parametrize("typed", MISTAKES, ids=" ".join)
def test_a_mistake_is_told_in_a_few_lines_without_a_traceback(
    typed: tuple[str, ...], tmp_path: Path, command_server: CommandServer
) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path), "COLUMNS": "80"}
    done = command_server.run(["llmcompiler", *typed], tmp_path, env)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert 0 < len(done.stderr.splitlines()) <= 20
    assert "bug" not in done.stderr
