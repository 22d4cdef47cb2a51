"""Runs code that a model wrote, in a process that can only compute.

Every program runs in a fresh interpreter with limits on time, memory and output. It has no access
to other files, to the network, to other processes or to this process's environment. If a machine
lacks a guard, ``Sandbox`` refuses to run and names the guard; a caller may accept the lack by the
same name. ``sandbox_child`` is the part that runs inside the process.

Which limit holds where:

- everywhere: wall time, and the size of the output; a program that floods its output is killed;
- POSIX: processor time, and the size of a file (``resource``); other systems run no program;
- Linux: ``memory`` (address space);
- Linux 5.13 and later with the extra ``sandbox``: ``files`` by Landlock (read the interpreter and
  the system's libraries, write nothing), ``network`` and ``processes`` by seccomp (about 120
  permitted system calls: threads are permitted; sockets, fork, exec and signals are not).

Two things are not prevented: a program can ask for names and sizes of files and read system
libraries, and it can use a bug in the kernel. Against attackers, add a virtual machine.
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
"""A kind of access that some machines cannot prevent."""

Ending: TypeAlias = Literal["passed", "failed", "time", "memory", "output"]
"""``passed``: the program reached its end; ``failed``: it raised, exited or was killed; the other
values name the limit that ended it."""

SECONDS = 100.0
OUTPUT_CHARS = 8192
MEMORY_BYTES = 1 << 30
FILE_BYTES = 64 << 10

_FLOOD_BYTES = 1 << 20
_REPORT_BYTES = 4096
_CHILD = Path(__file__).with_name("sandbox_child.py")
_SYSTEM_PATHS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache",
           "/usr/share/zoneinfo", "/dev/null", "/dev/urandom")  # fmt: skip


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """Limits of one program.

    Attributes:
        seconds: wall time, and also processor time.
        memory: address space in bytes.
        output: characters kept of each output stream; the rest is dropped.
    """

    seconds: float = SECONDS
    memory: int = MEMORY_BYTES
    output: int = OUTPUT_CHARS


@dataclass(frozen=True, slots=True)
class Execution:
    """The result of running a program.

    Attributes:
        ending: how the program ended.
        stdout: the beginning of its output.
        stderr: the beginning of its error output.
        is_truncated: True if one of the two was longer than the limit.
        denied_actions: forbidden actions that were seen, such as ``network: socket.connect``.
    """

    ending: Ending
    stdout: str
    stderr: str
    is_truncated: bool
    denied_actions: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """True if the program reached its end."""
        return self.ending == "passed"


def missing_guards() -> Mapping[Guard, str]:
    """The guards that this machine lacks, each with the reason."""
    missing: dict[Guard, str] = {}
    if sys.platform != "linux":
        missing["memory"] = f"{sys.platform} is not known to keep to a limit of address space"
    reason = _landlock_problem()
    if reason:
        missing["files"] = reason
    reason = _seccomp_problem()
    if reason:
        missing["network"] = missing["processes"] = reason
    return missing


class Sandbox:
    """Runs Python programs that nobody has read.

    Args:
        limits: limits of each program.
        uncontained: guards that the caller does without if the machine lacks them.

    Raises:
        UsageError: the machine lacks a guard that ``uncontained`` does not name, or it is no POSIX
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
        refused = {guard: reason for guard, reason in missing.items() if guard not in uncontained}
        if refused:
            reasons = "; ".join(f"{guard}: {reason}" for guard, reason in refused.items())
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
            "readable": sorted({sys.prefix, sys.base_prefix, *_SYSTEM_PATHS} - {"/", "/usr"}),
        }
        # With more programs than processors, programs would only miss their time limits.
        self._slots = asyncio.Semaphore(os.cpu_count() or 1)

    async def run(self, program: str, stdin: str = "") -> Execution:
        """Run a program as ``__main__``.

        Args:
            program: Python source; a program with a syntax error fails.
            stdin: text of its standard input.

        Raises:
            UsageError: the limits are too small for an interpreter; the program was not run.
        """
        async with self._slots:
            with tempfile.TemporaryDirectory(prefix="candidate-") as folder:
                return await self._run(Path(folder), program, stdin)

    async def _run(self, folder: Path, program: str, stdin: str) -> Execution:
        nonce = secrets.token_hex(8)
        spec_file = folder / "spec.json"
        spec_file.write_text(
            json.dumps({**self._spec, "program": program, "nonce": nonce}), "utf-8"
        )
        report = os.open(folder / "report", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-B", _CHILD, spec_file, str(report)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=folder,
                env={"LANG": "C.UTF-8", "PATH": os.defpath, "OPENBLAS_NUM_THREADS": "1"},
                pass_fds=(report,),
                start_new_session=True,
            )
            streams = [_CappedText(self.limits.output), _CappedText(self.limits.output)]
            timed_out = False
            try:
                async with asyncio.timeout(self.limits.seconds):
                    await self._talk(process, stdin, streams)
            except TimeoutError:
                timed_out = True
            finally:
                _kill_session(process)
                await process.wait()
            report_lines = os.pread(report, _REPORT_BYTES, 0).decode(errors="replace").splitlines()
        finally:
            os.close(report)
        if not timed_out and "ready" not in report_lines:
            raise UsageError(
                f"the sandbox could not be set up: {streams[1].text().strip()[-300:]}",
                hint="the code was not run",
            )
        return Execution(
            ending=_classify_ending(process.returncode, timed_out, streams, report_lines, nonce),
            stdout=streams[0].text(),
            stderr=streams[1].text(),
            is_truncated=any(stream.is_truncated for stream in streams),
            denied_actions=tuple(dict.fromkeys(line for line in report_lines if ": " in line)),
        )

    @staticmethod
    async def _talk(
        process: asyncio.subprocess.Process, stdin: str, streams: list[_CappedText]
    ) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(stdin.encode())
        process.stdin.close()
        async with asyncio.TaskGroup() as task_group:
            for reader, text in zip((process.stdout, process.stderr), streams, strict=True):
                task_group.create_task(text.fill(reader, process))
        await process.wait()


class _CappedText:
    """The beginning of a stream. The whole stream is read, so that its writer never blocks.

    Args:
        chars: characters to keep.

    Attributes:
        bytes: bytes read so far.
        is_truncated: True if text was dropped.
    """

    def __init__(self, chars: int) -> None:
        self._chars = chars
        self._parts: list[str] = []
        self._length = 0
        self.bytes = 0
        self.is_truncated = False

    async def fill(self, reader: asyncio.StreamReader, process: asyncio.subprocess.Process) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while chunk := await reader.read(1 << 16):
            self.bytes += len(chunk)
            text = decoder.decode(chunk)
            room = self._chars - self._length
            self._parts.append(text[:room])
            self._length += len(self._parts[-1])
            self.is_truncated = self.is_truncated or len(text) > room
            if self.bytes > _FLOOD_BYTES:
                _kill_session(process)

    def text(self) -> str:
        return "".join(self._parts)


def _kill_session(process: asyncio.subprocess.Process) -> None:
    """Kill the process and every other process of its session."""
    # The process is not reaped before ``wait``, so no other process has its number yet.
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def _classify_ending(
    code: int | None,
    timed_out: bool,
    streams: list[_CappedText],
    report_lines: list[str],
    nonce: str,
) -> Ending:
    if any(stream.bytes > _FLOOD_BYTES for stream in streams):
        return "output"
    if timed_out or code == -signal.SIGXCPU:
        return "time"
    if "memory" in report_lines:
        return "memory"
    return "passed" if code == 0 and f"ended {nonce}" in report_lines else "failed"


def _landlock_problem() -> str:
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


def _seccomp_problem() -> str:
    if sys.platform != "linux":
        return f"{sys.platform} has no seccomp"
    if importlib.util.find_spec("pyseccomp") is None:
        return "the package pyseccomp is not installed (extra `sandbox`)"
    try:
        import pyseccomp  # noqa: F401
    except RuntimeError:
        return "the library libseccomp is not installed"
    return ""
