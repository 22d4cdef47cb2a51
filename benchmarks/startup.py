"""Time of ``llmcompiler --help``, compared with ``import typer, rich`` in the same run.

The two alternate, so that a machine that becomes slower slows both. The target is a ratio of at
most 3.

    python benchmarks/startup.py [ROUNDS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "import typer, rich": [sys.executable, "-c", "import typer, rich"],
    "llmcompiler --help": [sys.executable, "-m", "llmcompiler", "--help"],
    "llmcompiler run --help": [sys.executable, "-m", "llmcompiler", "run", "--help"],
}


def seconds(command: list[str]) -> float:
    """Wall-clock seconds of one run of ``command``."""
    started_at = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started_at


def main() -> None:
    """Print the median of each, and its ratio to the first."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    for command in COMMANDS.values():
        seconds(command)  # fills the caches of files and of byte code
    times_by_name = {name: [0.0] * rounds for name in COMMANDS}
    for number in range(rounds):
        for name, command in COMMANDS.items():
            times_by_name[name][number] = seconds(command)
    base = statistics.median(times_by_name["import typer, rich"])
    for name, times in times_by_name.items():
        median = statistics.median(times)
        print(f"{name:24} {1000 * median:6.0f} ms   {median / base:.2f} x")


if __name__ == "__main__":
    main()
