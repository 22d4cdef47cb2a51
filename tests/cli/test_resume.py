"""``resume`` and ``fork`` from the command line, after real kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = '''
import os, pathlib, time
from llmcompiler import tool

EFFECTS = pathlib.Path(os.environ["EFFECTS"])

@tool(effect="write")
def charge(amount: int) -> int:
    """Charge an amount."""
    with EFFECTS.open("a") as file:
        file.write(f"charge {amount}\\n")
    return amount

@tool
def wait(value: int) -> int:
    """Wait for a gate, then give the value back."""
    print("waiting", flush=True)
    while not EFFECTS.with_name("gate").exists():
        time.sleep(0.01)
    return value
'''

PLAN = "1. charge(5)\n2. wait($1)\n3. charge($2)\n4. join()\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "tools.py").write_text(TOOLS)
    (tmp_path / "pay.plan").write_text(PLAN)
    return tmp_path


def cli(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llmcompiler", *arguments, "--store", str(place / "r.sqlite")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "EFFECTS": str(place / "effects")},
    )


def start(place: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "llmcompiler", *arguments, "--store", str(place / "r.sqlite")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "EFFECTS": str(place / "effects")},
    )


def kill_while_waiting(place: Path) -> None:
    with start(
        place, "run", str(place / "pay.plan"), "--tools", str(place / "tools.py")
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        os.kill(process.pid, signal.SIGKILL)


def test_a_killed_run_is_resumed_and_charges_once(place: Path) -> None:
    kill_while_waiting(place)
    assert "unfinished" in cli(place, "runs").stdout
    (place / "gate").touch()
    done = cli(place, "resume", "last", "--tools", str(place / "tools.py"))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "5"), done.stderr
    assert (place / "effects").read_text() == "charge 5\ncharge 5\n", "one each of tasks 1 and 3"
    assert cli(place, "replay", "last").returncode == 0


def test_of_several_that_resume_one_wins_and_the_others_are_told_who(place: Path) -> None:
    kill_while_waiting(place)
    processes = [
        start(place, "resume", "last", "--tools", str(place / "tools.py")) for _ in range(4)
    ]
    losers, winners = [], []
    for process in processes:
        assert process.stdout is not None
        # The winner prints a line when it waits at the gate; a loser prints nothing on stdout.
        (winners if process.stdout.readline() else losers).append(process)
    assert len(winners) == 1
    for process in losers:
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 1
        assert f"is held by process {winners[0].pid}" in stderr
    (place / "gate").touch()
    out, _ = winners[0].communicate(timeout=60)
    assert out.splitlines()[-1] == "5"
    assert (place / "effects").read_text() == "charge 5\ncharge 5\n"


def test_a_resume_without_the_tools_names_them(place: Path) -> None:
    kill_while_waiting(place)
    done = cli(place, "resume", "last")
    assert done.returncode == 2
    assert 'calls the tool "charge"' in done.stderr and "--tools" in done.stderr


def test_a_fork_takes_a_value_and_leaves_the_parent_alone(place: Path) -> None:
    (place / "gate").touch()
    tools = ("--tools", str(place / "tools.py"))
    cli(place, "run", str(place / "pay.plan"), *tools)
    done = cli(place, "fork", "last", "--set", "2=7", "--json", *tools)
    assert json.loads(done.stdout)["answer"] == "7"
    assert (place / "effects").read_text() == "charge 5\ncharge 5\ncharge 7\n"
    first, second = json.loads(cli(place, "runs", "--json").stdout)["runs"]
    assert (first["parent"], second["parent"]) == (second["run"], None)


def test_old_runs_are_dropped_and_the_latest_stay(place: Path) -> None:
    (place / "gate").touch()
    for _ in range(2):
        cli(place, "run", str(place / "pay.plan"), "--tools", str(place / "tools.py"))
    assert "dropped 1 run" in cli(place, "runs", "prune", "--keep", "1").stderr
    assert len(json.loads(cli(place, "runs", "--json").stdout)["runs"]) == 1
    assert "no age" in cli(place, "runs", "prune", "--older-than", "3x").stderr


def test_a_run_goes_to_another_store_and_becomes_a_plan(place: Path) -> None:
    (place / "gate").touch()
    tools = ("--tools", str(place / "tools.py"))
    cli(place, "run", str(place / "pay.plan"), *tools)
    file = str(place / "run.jsonl.gz")
    assert cli(place, "export", "last", "-o", file).returncode == 0
    run = cli(place, "import", file).stdout.strip()
    assert "no run" not in cli(place, "diff", run, "last").stderr
    saved = place / "saved.json"
    cli(place, "save", "last", "-o", str(saved))
    assert cli(place, "run", str(saved), *tools, "--quiet").stdout.splitlines()[-1] == "5"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fork", "last"], "a fork needs a place to start from"),
        (["fork", "last", "--set", "x=1"], "does not name a task"),
        (["fork", "last", "--from", "9"], "has no task 9"),
        (["fork", "nothing", "--from", "1"], 'no run "nothing"'),
        (["resume", "last"], "is answered already"),
    ],
)
def test_what_cannot_be_done_is_said(place: Path, arguments: list[str], message: str) -> None:
    (place / "gate").touch()
    cli(place, "run", str(place / "pay.plan"), "--tools", str(place / "tools.py"))
    done = cli(place, *arguments)
    assert done.returncode in (1, 2) and message in done.stderr
    assert "Traceback" not in done.stderr
