"""Real processes, killed with SIGKILL before and after every record and effect, then resumed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def run_matrix(cases: int, seed: int) -> dict[str, int]:
    """Run the matrix in a process of its own: it forks, and this one may have threads."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.kill_matrix", f"--cases={cases}", f"--seed={seed}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    totals: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return totals


@pytest.mark.parametrize(
    ("cases", "seed"), [(20, 1), pytest.param(2500, 2, marks=pytest.mark.slow)]
)
def test_nothing_recorded_happens_twice_and_every_run_ends_as_if_it_had_not_been_killed(
    cases: int, seed: int
) -> None:
    totals = run_matrix(cases, seed)
    assert totals.pop("kills") == cases
    assert totals == {"repeated": 0, "beyond": 0, "different": 0, "stuck": 0}
