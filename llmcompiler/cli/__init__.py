"""The command line. Answers go to stdout, everything else to stderr.

Exit codes: 0 answered, 1 the run failed, 2 a usage or plan error, 130 interrupted. Commands import
what they need when they run, so that ``--help`` answers at once.
"""

from __future__ import annotations

import errno
import gc
import io
import os
import sys

_COLLECT_AFTER = 50_000
"""Objects made before the garbage collector looks for cycles among them; Python's own is 700.

Nearly all that a command makes lives to its end, so looking often finds nothing: it is a twentieth
of the start and, of a run of many thousand small tasks, a third.
"""


def main() -> None:
    """Run the command line in ``sys.argv`` and exit."""
    gc.set_threshold(_COLLECT_AFTER)
    from llmcompiler.cli.app import app
    from llmcompiler.cli.errors import exit_code, report

    for stream in (sys.stdout, sys.stderr):
        # A model may write what a terminal's encoding, or any encoding, does not have.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app(prog_name="llmcompiler")
        finally:
            # Not left to the interpreter's end, where a reader that is gone makes a traceback.
            sys.stdout.flush()
    except BrokenPipeError:
        _forget_output()
        sys.exit(1)
    except Exception as error:
        if os.environ.get("LLMCOMPILER_DEBUG"):
            raise
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _forget_output()
        report(error)
        sys.exit(exit_code(error))


def _forget_output() -> None:
    """What is still to be written goes nowhere: the interpreter would try once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
