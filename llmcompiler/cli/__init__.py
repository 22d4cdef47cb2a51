"""The command line. Answers go to stdout, everything else to stderr.

Exit codes: 0 answered, 1 the run failed, 2 a usage or plan error, 130 interrupted. A command
imports what it needs inside its function, so that ``--help`` answers at once.
"""

from __future__ import annotations

import errno
import gc
import io
import os
import sys

_GC_THRESHOLD = 50_000
"""New objects before the garbage collector looks for cycles. Python's default is 700.

Nearly every object of a command lives as long as the process, so frequent searches find nothing.
They would take a twentieth of the start, and a third of a run of many thousand small tasks.
"""


def main() -> None:
    """Run the command line in ``sys.argv`` and exit."""
    gc.set_threshold(_GC_THRESHOLD)
    from llmcompiler.cli.app import app
    from llmcompiler.cli.errors import exit_code, print_error

    for stream in (sys.stdout, sys.stderr):
        # A model may write characters that the terminal's encoding does not have.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app(prog_name="llmcompiler")
        finally:
            # The interpreter would flush at its end, and print a traceback if the reader is gone.
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        sys.exit(1)
    except Exception as error:
        if os.environ.get("LLMCOMPILER_DEBUG"):
            raise
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _discard_output()
        print_error(error)
        sys.exit(exit_code(error))


def _discard_output() -> None:
    """Drop unwritten output: the interpreter would try to write it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
