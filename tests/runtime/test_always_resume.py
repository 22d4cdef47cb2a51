"""The engine's tests, with engines that are stopped after every record while others go on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llmcompiler.events import TaskStarted
from tests.runtime.test_engine import Harness, run
from tests.support.relay import Relay

TESTS = Path(__file__).parent.parent

SUITES = (
    "runtime/test_engine",
    "runtime/test_approval",
    "runtime/test_policies",
    "runtime/test_priorities",
    "runtime/test_result_cache",
)
NEIGHBOURS = (
    "run/test_compiler",
    "joiners/test_model",
    "history/test_cost",
    "history/test_critical_path",
)


@pytest.mark.slow
@pytest.mark.parametrize("suite", [*SUITES, *NEIGHBOURS])
def test_the_suite_passes_with_engines_that_live_for_one_record(suite: str) -> None:
    file = str(TESTS / f"{suite}.py")
    # The relay hands decisions on in tasks of its own, and no task can hand SystemExit on.
    options = ["--always-resume", "-m", "not slow", "-k", "not SystemExit"]
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, file],
        capture_output=True,
        text=True,
        check=False,
        cwd=TESTS.parent,
    )
    assert outcome.returncode == 0, outcome.stdout[-4000:]


def test_engines_are_stopped_and_calls_are_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.runtime.test_engine.Engine", Relay)
    monkeypatch.setattr(Relay, "stops", 0)

    async def work() -> Harness:
        harness = Harness()
        await harness.run("1. wait(3, value=1)\n2. wait(5, value=2)\n3. echo([$1, $2])")
        return harness

    harness = run(work)
    assert Relay.stops == 4, "two starts at once, each end with what it starts, the last end"
    assert harness.engine.observations[3].value == [1, 2]
    assert [event.at for event in harness.of(TaskStarted)] == [0, 0, 5]
