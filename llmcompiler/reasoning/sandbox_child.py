"""The program that contains itself, then runs a candidate: the inner half of ``sandbox``.

Started as a script in a fresh interpreter with one argument, a JSON file that holds the program,
its limits and what to contain. It takes the limits on, gives up what the candidate must not have,
and only then compiles the candidate's code. The kernel does the containing: Landlock for files,
a seccomp list of permitted system calls for network, processes and the rest. The audit hook below
only tells the parent what was tried; code that gets around it is contained all the same. The module
must import nothing of the package.
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
NAME = "candidate.py"

_TOLD = 32
_UNIX = 1

# What an interpreter that has started needs to compute, to read, and to run threads. Whatever is
# missing here fails with EPERM: socket, connect, fork, execve, kill, ptrace, mount, chmod, ...
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

_TELLING = {
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


def limit(spec: dict[str, Any]) -> None:
    """Take on the limits that the kernel keeps for a process."""
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
    """Leave reading below some paths, and no writing anywhere."""
    from landlock import FSAccess, Ruleset

    rules = Ruleset()
    for path in filter(Path.exists, map(Path, readable)):
        folder = path.is_dir()
        rules.allow(
            path, rules=FSAccess.READ_FILE | FSAccess.READ_DIR if folder else FSAccess.READ_FILE
        )
    rules.apply()


def contain_calls() -> None:
    """Leave the system calls of ``_PERMITTED``, and threads; never another process or a socket."""
    import errno

    from pyseccomp import ALLOW, EQ, ERRNO, MASKED_EQ, Arch, Arg, SyscallFilter, resolve_syscall

    calls = SyscallFilter(ERRNO(errno.EPERM))
    for name in _PERMITTED:
        if resolve_syscall(Arch.NATIVE, name) >= 0:
            calls.add_rule(ALLOW, name)
    clone_thread, unix, stream = 0x00010000, 1, 1
    calls.add_rule(ALLOW, "clone", Arg(0, MASKED_EQ, clone_thread, clone_thread))
    # Its flags lie in memory, out of a filter's sight; the C library then falls back to clone.
    calls.add_rule(ERRNO(errno.ENOSYS), "clone3")
    # A pair of connected streams leads nowhere else; event loops wake themselves through one.
    calls.add_rule(ALLOW, "socketpair", Arg(0, EQ, unix), Arg(1, MASKED_EQ, 0xF, stream))
    # Reading one's own limits, not raising them.
    calls.add_rule(ALLOW, "prlimit64", Arg(0, EQ, 0), Arg(2, EQ, 0))
    calls.load()


def run(spec: dict[str, Any], report: int) -> None:
    """Contain this process, then run the program in it as ``__main__``."""

    told: set[str] = set()

    def tell(what: str) -> None:
        if what not in told and len(told) < _TOLD:
            told.add(what)
            os.write(report, f"{what}\n".encode()[:300])

    limit(spec)
    if "calls" in spec["contain"]:
        # It looks for its library by running a program, which files out of reach would prevent.
        import pyseccomp  # noqa: F401
    if "files" in spec["contain"]:
        contain_files(spec["readable"])
    if "calls" in spec["contain"]:
        contain_calls()
    tell(READY)

    readable = tuple(spec["readable"])
    listening = bool({"files", "calls"} & set(spec["contain"]))

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if not listening:
            return
        kind = _TELLING.get(event)
        if kind is not None and not (event == "socket.__new__" and arguments[1] == _UNIX):
            tell(f"{kind}: {event}")
        elif event == "open" and isinstance(arguments[0], str):
            path, mode = str(Path(arguments[0]).absolute()), str(arguments[1] or "")
            if set(mode) & set("wax+") or not path.startswith(readable):
                tell(f"files: open {path[:200]}")

    linecache.cache[NAME] = (0, None, spec["program"].splitlines(keepends=True), NAME)
    try:
        code = compile(spec["program"], NAME, "exec", dont_inherit=True)
        sys.addaudithook(hear)
        exec(code, {"__name__": "__main__"})
        sys.stdout.flush()
    except Exception as error:  # noqa: BLE001 - whatever the candidate raises is its result
        # Printed here, because the interpreter would look for the source in files out of reach.
        listening = False
        if isinstance(error, MemoryError):
            tell(MEMORY)
        frames = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(type(error), error, frames)
        sys.exit(1)
    tell(f"{ENDED} {spec['nonce']}")


if __name__ == "__main__":
    given_file = Path(sys.argv[1])
    given = json.loads(given_file.read_text(encoding="utf-8"))
    given_file.unlink()
    run(given, int(sys.argv[2]))
