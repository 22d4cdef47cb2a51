"""The script that contains its own process, then runs a candidate: the inner part of ``sandbox``.

It starts in a fresh interpreter with two arguments: a JSON file that holds the program, its limits
and what to contain; and a file descriptor for its report. It sets the limits, gives up every access
that the candidate may not have, and only then compiles the candidate's code. The kernel enforces
the containment: Landlock for files, and a seccomp list of permitted system calls for network,
processes and the rest. The audit hook only reports what was tried; code that evades the hook is
contained as well. The script imports nothing of the package.
"""

from __future__ import annotations

import json
import linecache
import os
import sys
import traceback
from pathlib import Path
from typing import Any

READY = "ready"
ENDED = "ended"
MEMORY = "memory"
FILE_NAME = "candidate.py"

_MAX_REPORTS = 32
_UNIX_FAMILY = 1

# System calls that a started interpreter needs to compute, to read, and to run threads. All others
# fail with EPERM: socket, connect, fork, execve, kill, ptrace, mount, chmod, ...
_PERMITTED = """
read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 close close_range lseek
open openat openat2 stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2
readlink readlinkat getdents getdents64 getcwd chdir fchdir dup dup2 dup3 fcntl ioctl pipe pipe2
flock fsync fdatasync ftruncate fadvise64 umask sendfile
poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
eventfd eventfd2 timerfd_create timerfd_settime timerfd_gettime signalfd signalfd4
recvfrom sendto recvmsg sendmsg shutdown getsockopt setsockopt getsockname getpeername
mmap munmap mremap mprotect madvise brk mincore msync membarrier pkey_alloc pkey_free pkey_mprotect
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigtimedwait rt_sigpending rt_sigsuspend sigaltstack
futex futex_waitv futex_wait futex_wake set_robust_list get_robust_list rseq set_tid_address
gettid getpid getppid getuid geteuid getgid getegid getgroups getresuid getresgid getpgrp getpgid
getsid exit exit_group restart_syscall wait4 waitid getcpu sched_yield sched_getaffinity
sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min getpriority
clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times
getitimer setitimer alarm timer_create timer_settime timer_gettime timer_delete timer_getoverrun
getrandom uname sysinfo getrusage getrlimit ugetrlimit arch_prctl
""".split()

_AUDITED = {
    "socket.__new__": "network",
    "socket.connect": "network",
    "socket.bind": "network",
    "socket.getaddrinfo": "network",
    "os.fork": "processes",
    "os.forkpty": "processes",
    "os.exec": "processes",
    "os.system": "processes",
    "os.posix_spawn": "processes",
    "subprocess.Popen": "processes",
    "os.kill": "processes",
    "ctypes.dlopen": "files",
}


def set_limits(spec: dict[str, Any]) -> None:
    """Set the limits that the kernel enforces for this process."""
    import resource

    def at_most(kind: int, amount: int) -> None:
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            amount = min(amount, hard)
        resource.setrlimit(kind, (amount, amount))

    at_most(resource.RLIMIT_CPU, spec["seconds"])
    at_most(resource.RLIMIT_CORE, 0)
    at_most(resource.RLIMIT_NOFILE, 64)
    at_most(resource.RLIMIT_FSIZE, spec["file_bytes"])
    if "memory" in spec["contain"]:
        at_most(resource.RLIMIT_AS, spec["memory"])


def contain_files(readable: list[str]) -> None:
    """Permit reading below ``readable``, and no writing anywhere."""
    from landlock import FSAccess, Ruleset

    rules = Ruleset()
    for path in filter(Path.exists, map(Path, readable)):
        folder = path.is_dir()
        rules.allow(
            path, rules=FSAccess.READ_FILE | FSAccess.READ_DIR if folder else FSAccess.READ_FILE
        )
    rules.apply()


def contain_calls() -> None:
    """Permit the system calls of ``_PERMITTED`` and threads, but no new process and no socket."""
    import errno

    from pyseccomp import ALLOW, EQ, ERRNO, MASKED_EQ, Arch, Arg, SyscallFilter, resolve_syscall

    call_filter = SyscallFilter(ERRNO(errno.EPERM))
    for name in _PERMITTED:
        if resolve_syscall(Arch.NATIVE, name) >= 0:
            call_filter.add_rule(ALLOW, name)
    clone_thread, unix, stream = 0x00010000, 1, 1
    call_filter.add_rule(ALLOW, "clone", Arg(0, MASKED_EQ, clone_thread, clone_thread))
    # A filter cannot read the flags of clone3; on ENOSYS the C library falls back to clone.
    call_filter.add_rule(ERRNO(errno.ENOSYS), "clone3")
    # Event loops wake themselves through a socket pair, which leads to no other process.
    call_filter.add_rule(ALLOW, "socketpair", Arg(0, EQ, unix), Arg(1, MASKED_EQ, 0xF, stream))
    # Reading its own limits is permitted; raising them is not.
    call_filter.add_rule(ALLOW, "prlimit64", Arg(0, EQ, 0), Arg(2, EQ, 0))
    call_filter.load()


def run_program(spec: dict[str, Any], report: int) -> None:
    """Contain this process, then run the program in it as ``__main__``."""

    reported_lines: set[str] = set()

    def report_once(line: str) -> None:
        if line not in reported_lines and len(reported_lines) < _MAX_REPORTS:
            reported_lines.add(line)
            os.write(report, f"{line}\n".encode()[:300])

    set_limits(spec)
    if "calls" in spec["contain"]:
        # The import runs a program to find its library, so it must precede the containment.
        import pyseccomp  # noqa: F401
    if "files" in spec["contain"]:
        contain_files(spec["readable"])
    if "calls" in spec["contain"]:
        contain_calls()
    report_once(READY)

    readable = tuple(spec["readable"])
    auditing = bool({"files", "calls"} & set(spec["contain"]))

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if not auditing:
            return
        kind = _AUDITED.get(event)
        if kind is not None and not (event == "socket.__new__" and arguments[1] == _UNIX_FAMILY):
            report_once(f"{kind}: {event}")
        elif event == "open" and isinstance(arguments[0], str):
            path, mode = str(Path(arguments[0]).absolute()), str(arguments[1] or "")
            if set(mode) & set("wax+") or not path.startswith(readable):
                report_once(f"files: open {path[:200]}")

    linecache.cache[FILE_NAME] = (0, None, spec["program"].splitlines(keepends=True), FILE_NAME)
    try:
        code = compile(spec["program"], FILE_NAME, "exec", dont_inherit=True)
        sys.addaudithook(audit)
        exec(code, {"__name__": "__main__"})
        sys.stdout.flush()
    except Exception as error:  # noqa: BLE001 - whatever the candidate raises is its result
        # Printed here: the interpreter would look for the source in files that it may not read.
        auditing = False
        if isinstance(error, MemoryError):
            report_once(MEMORY)
        own_traceback = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(type(error), error, own_traceback)
        sys.exit(1)
    report_once(f"{ENDED} {spec['nonce']}")


if __name__ == "__main__":
    spec_file = Path(sys.argv[1])
    spec = json.loads(spec_file.read_text(encoding="utf-8"))
    spec_file.unlink()
    run_program(spec, int(sys.argv[2]))
