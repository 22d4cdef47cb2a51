"""Ownership of a run: which process may write it, and whether that process still runs.

A run's owner is stored as JSON: the host's name, the process's number, and when the process began.
The last part tells a process apart from a later one that got the same number.
"""

from __future__ import annotations

import functools
import json
import os
import socket
from pathlib import Path


@functools.cache
def _identity(pid: int) -> tuple[str, str]:
    return socket.gethostname(), _start_time(pid)


def this_process() -> str:
    """This process, in the stored form of an owner."""
    pid = os.getpid()
    host, birth = _identity(pid)
    return json.dumps({"host": host, "pid": pid, "birth": birth})


def owner_if_alive(owner: str) -> str:
    """The owner's name for people, if the process may still run; empty if it has certainly ended.

    Args:
        owner: in its stored form.
    """
    fields = json.loads(owner)
    host, pid = fields["host"], fields["pid"]
    if host != socket.gethostname():
        return f"process {pid} on {host}, which cannot be asked from here"
    if pid == os.getpid():
        return "this process"
    return f"process {pid}" if _is_alive(pid) and _start_time(pid) == fields["birth"] else ""


def is_elsewhere(owner: str) -> bool:
    """True if the owner is on another machine, so that this one cannot tell whether it runs."""
    host: str = json.loads(owner)["host"]
    return host != socket.gethostname()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _start_time(pid: int) -> str:
    """When a process began, in a form to compare; empty where the system does not tell.

    A process that was killed and not yet waited for counts as ended: it writes nothing any more.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    state, started_at = fields[0], fields[19]
    return "ended" if state in "ZX" else started_at
