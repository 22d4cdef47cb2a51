"""Real processes, killed with SIGKILL before and after every record and effect, then resumed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def run_matrix(kind: str, cases: int, seed: int) -> dict[str, int]:
    """Run the matrix in a process of its own: it forks, and this one may have threads."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.support.kill_matrix"),
            *(f"--of={kind}", f"--cases={cases}", f"--seed={seed}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    totals: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return totals


def slow(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("kind", "cases", "seed"),
    [("plans", 20, 1), ("programs", 20, 1), slow("plans", 2500, 2), slow("programs", 400, 2)],
)
def test_nothing_recorded_happens_twice_and_every_run_ends_as_if_it_had_not_been_killed(
    kind: str, cases: int, seed: int
) -> None:
    totals = run_matrix(kind, cases, seed)
    assert totals.pop("kills") == cases
    assert not any(totals.values()), totals
