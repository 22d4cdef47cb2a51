"""Runs code that a model wrote, in a process that can do nothing but compute.

Every program gets a fresh interpreter, limits on time, memory and output, no way to other files,
to the network or to other processes, and none of this process's environment. What cannot be
contained on a machine is refused by name; a caller who accepts that says so by the same name.
The module must not know what the programs are for. ``sandbox_child`` is the half that runs inside.

What holds, and where:

- always: wall time; what is kept of the output; a program that floods its output is ended;
- POSIX: processor time, the size of a file (``resource``); elsewhere nothing is run at all;
- Linux: ``memory`` (address space);
- Linux 5.13 and later with the extra ``sandbox``: ``files`` by Landlock (reading below the
  interpreter and the system's libraries, writing nowhere), ``network`` and ``processes`` by seccomp
  (about 120 permitted system calls; threads are, sockets, fork, exec and signals are not).

Not promised: that nothing can be learnt from the machine (names and sizes of files can be asked
for, and system libraries read), nor anything against a bug in the kernel itself. Whoever expects
attackers rather than careless models adds a virtual machine.
"""

from __future__ import annotations

import asyncio
import codecs
import importlib.util
import json
import math
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from llmcompiler.errors import UsageError

Guard: TypeAlias = Literal["memory", "files", "network", "processes"]
"""What a machine may be unable to contain."""

Ending: TypeAlias = Literal["passed", "failed", "time", "memory", "output"]
"""``passed``: the program reached its end; ``failed``: it raised, exited or was killed; the others
are the limits that ended it."""

SECONDS = 100.0
OUTPUT_CHARS = 8192
MEMORY_BYTES = 1 << 30
FILE_BYTES = 64 << 10

_FLOOD_BYTES = 1 << 20
_REPORT_BYTES = 4096
_CHILD = Path(__file__).with_name("sandbox_child.py")
_SYSTEM = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache",
           "/usr/share/zoneinfo", "/dev/null", "/dev/urandom")  # fmt: skip


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """What one program may use.

    Attributes:
        seconds: of wall time, and of processor time.
        memory: bytes of address space.
        output: characters kept of each of the two output streams; the rest is dropped.
    """

    seconds: float = SECONDS
    memory: int = MEMORY_BYTES
    output: int = OUTPUT_CHARS


@dataclass(frozen=True, slots=True)
class Execution:
    """What became of a program.

    Attributes:
        ending: how it ended.
        stdout: the beginning of what it printed.
        stderr: the beginning of its error output.
        truncated: whether either was longer than what is kept.
        denied: what it tried and could not do, as far as it was seen, such as
            ``network: socket.connect``.
    """

    ending: Ending
    stdout: str
    stderr: str
    truncated: bool
    denied: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the program reached its end."""
        return self.ending == "passed"


def missing_guards() -> Mapping[Guard, str]:
    """What cannot be contained on this machine, and why."""
    missing: dict[Guard, str] = {}
    if sys.platform != "linux":
        missing["memory"] = f"{sys.platform} is not known to keep to a limit of address space"
    why = _no_landlock()
    if why:
        missing["files"] = why
    why = _no_seccomp()
    if why:
        missing["network"] = missing["processes"] = why
    return missing


class Sandbox:
    """A place to run Python programs that nobody has read.

    Args:
        limits: for each program.
        uncontained: guards that the caller does without where the machine lacks them.

    Raises:
        UsageError: the machine lacks a guard that was not named in ``uncontained``, or is no POSIX
            system.
    """

    def __init__(
        self, limits: SandboxLimits | None = None, *, uncontained: Collection[Guard] = ()
    ) -> None:
        unknown = set(uncontained) - set(get_args(Guard))
        if unknown:
            raise UsageError(
                f"there is no guard {min(unknown)!r}", hint=f"one of {', '.join(get_args(Guard))}"
            )
        if os.name != "posix":
            raise UsageError("code of a model is not run on this system", hint="use Linux")
        missing = missing_guards()
        refused = {guard: why for guard, why in missing.items() if guard not in uncontained}
        if refused:
            reasons = "; ".join(f"{guard}: {why}" for guard, why in refused.items())
            raise UsageError(
                f"code of a model cannot be contained on this machine ({reasons})",
                hint=f"to run it nevertheless, name what you do without: {', '.join(refused)}",
            )
        self.limits = limits or SandboxLimits()
        contain = [
            name
            for name, guard in (("memory", "memory"), ("files", "files"), ("calls", "processes"))
            if guard not in missing
        ]
        self._spec = {
            "contain": contain,
            "seconds": math.ceil(self.limits.seconds) + 1,
            "memory": self.limits.memory,
            "file_bytes": FILE_BYTES,
            "readable": sorted({sys.prefix, sys.base_prefix, *_SYSTEM} - {"/", "/usr"}),
        }
        # More at once than processors would only make each of them miss its time limit.
        self._slots = asyncio.Semaphore(os.cpu_count() or 1)

    async def run(self, program: str, stdin: str = "") -> Execution:
        """Run a program's text as ``__main__``.

        Args:
            program: Python source; a syntax error is a failed program.
            stdin: what it can read.

        Raises:
            UsageError: the limits leave no room for an interpreter; the program was not run.
        """
        async with self._slots:
            with tempfile.TemporaryDirectory(prefix="candidate-") as folder:
                return await self._run(Path(folder), program, stdin)

    async def _run(self, folder: Path, program: str, stdin: str) -> Execution:
        nonce = secrets.token_hex(8)
        spec = folder / "spec.json"
        spec.write_text(json.dumps({**self._spec, "program": program, "nonce": nonce}), "utf-8")
        report = os.open(folder / "report", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-B", _CHILD, spec, str(report)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=folder,
                env={"LANG": "C.UTF-8", "PATH": os.defpath, "OPENBLAS_NUM_THREADS": "1"},
                pass_fds=(report,),
                start_new_session=True,
            )
            streams = [_Kept(self.limits.output), _Kept(self.limits.output)]
            timed_out = False
            try:
                async with asyncio.timeout(self.limits.seconds):
                    await self._talk(process, stdin, streams)
            except TimeoutError:
                timed_out = True
            finally:
                _kill(process)
                await process.wait()
            told = os.pread(report, _REPORT_BYTES, 0).decode(errors="replace").splitlines()
        finally:
            os.close(report)
        if not timed_out and "ready" not in told:
            raise UsageError(
                f"the sandbox could not be set up: {streams[1].text().strip()[-300:]}",
                hint="the code was not run",
            )
        return Execution(
            ending=_ending(process.returncode, timed_out, streams, told, nonce),
            stdout=streams[0].text(),
            stderr=streams[1].text(),
            truncated=any(kept.dropped for kept in streams),
            denied=tuple(dict.fromkeys(line for line in told if ": " in line)),
        )

    @staticmethod
    async def _talk(process: asyncio.subprocess.Process, stdin: str, streams: list[_Kept]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(stdin.encode())
        process.stdin.close()
        async with asyncio.TaskGroup() as group:
            for source, kept in zip((process.stdout, process.stderr), streams, strict=True):
                group.create_task(kept.fill(source, process))
        await process.wait()


class _Kept:
    """The beginning of a stream; all of it is read, so that the writer is never stopped by it."""

    def __init__(self, chars: int) -> None:
        self._chars = chars
        self._parts: list[str] = []
        self._kept = 0
        self.bytes = 0
        self.dropped = False

    async def fill(self, source: asyncio.StreamReader, process: asyncio.subprocess.Process) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while chunk := await source.read(1 << 16):
            self.bytes += len(chunk)
            text = decoder.decode(chunk)
            room = self._chars - self._kept
            self._parts.append(text[:room])
            self._kept += len(self._parts[-1])
            self.dropped = self.dropped or len(text) > room
            if self.bytes > _FLOOD_BYTES:
                _kill(process)

    def text(self) -> str:
        return "".join(self._parts)


def _kill(process: asyncio.subprocess.Process) -> None:
    """End the process and, where it may have started others, its session."""
    # The process is not reaped before ``wait``, so its number is still its own.
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def _ending(
    code: int | None, timed_out: bool, streams: list[_Kept], told: list[str], nonce: str
) -> Ending:
    if any(kept.bytes > _FLOOD_BYTES for kept in streams):
        return "output"
    if timed_out or code == -signal.SIGXCPU:
        return "time"
    if "memory" in told:
        return "memory"
    return "passed" if code == 0 and f"ended {nonce}" in told else "failed"


def _no_landlock() -> str:
    if sys.platform != "linux":
        return f"{sys.platform} has no Landlock"
    if importlib.util.find_spec("landlock") is None:
        return "the package landlock is not installed (extra `sandbox`)"
    from landlock import LandlockError, landlock_abi_version

    try:
        landlock_abi_version()
    except (OSError, LandlockError):
        return "this kernel has no Landlock, or it is switched off"
    return ""


def _no_seccomp() -> str:
    if sys.platform != "linux":
        return f"{sys.platform} has no seccomp"
    if importlib.util.find_spec("pyseccomp") is None:
        return "the package pyseccomp is not installed (extra `sandbox`)"
    try:
        import pyseccomp  # noqa: F401
    except RuntimeError:
        return "the library libseccomp is not installed"
    return ""
