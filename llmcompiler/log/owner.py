"""Who holds a run: a process, told apart from a later one that got the same number.

A holder is written into the log and judged by whoever wants the run next. The module must not know
what is held.
"""

from __future__ import annotations

import functools
import json
import os
import socket
from pathlib import Path


@functools.cache
def _identity(pid: int) -> tuple[str, str]:
    return socket.gethostname(), _birth(pid)


def this_process() -> str:
    """This process, as it is written down."""
    pid = os.getpid()
    host, birth = _identity(pid)
    return json.dumps({"host": host, "pid": pid, "birth": birth})


def still_holds(written: str) -> str:
    """Who the holder is, if it may still be alive; empty if it has certainly ended."""
    holder = json.loads(written)
    host, pid = holder["host"], holder["pid"]
    if host != socket.gethostname():
        return f"process {pid} on {host}, which cannot be asked from here"
    if pid == os.getpid():
        return "this process"
    return f"process {pid}" if _is_alive(pid) and _birth(pid) == holder["birth"] else ""


def is_elsewhere(written: str) -> bool:
    """Whether the holder is on another machine, so that nobody here can tell if it lives."""
    host: str = json.loads(written)["host"]
    return host != socket.gethostname()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _birth(pid: int) -> str:
    """When the process began, in a form to compare; empty where the system does not tell.

    A process killed but not yet waited for holds nothing any more.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    state, started = fields[0], fields[19]
    return "ended" if state in "ZX" else started
