"""Code that a model wrote can compute, and do nothing else."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from llmcompiler.errors import UsageError
from llmcompiler.reasoning import sandbox
from llmcompiler.reasoning.sandbox import Sandbox, SandboxLimits, missing_guards

pytestmark = pytest.mark.skipif(
    bool(missing_guards()), reason=f"cannot be contained here: {dict(missing_guards())}"
)


@pytest.fixture
def runner() -> Sandbox:
    return Sandbox(SandboxLimits(seconds=30))


async def test_a_program_reads_computes_and_prints(runner: Sandbox) -> None:
    execution = await runner.run("print(sum(map(int, input().split())))", "1 2 3")
    assert (execution.ending, execution.stdout, execution.stderr, execution.denied_actions) == (
        "passed",
        "6\n",
        "",
        (),
    )


async def test_threads_event_loops_and_the_standard_library_work(runner: Sandbox) -> None:
    execution = await runner.run(
        "import asyncio, threading, decimal, json, re, datetime\n"
        "thread = threading.Thread(target=print, args=('thread',)); thread.start(); thread.join()\n"
        "async def main(): await asyncio.sleep(0); print('loop')\n"
        "asyncio.run(main())"
    )
    assert (execution.ending, execution.stdout, execution.denied_actions) == (
        "passed",
        "thread\nloop\n",
        (),
    )


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("assert 1 + 1 == 3", "AssertionError"),
        ("def f(:", "SyntaxError"),
        ("def f(): f()\nf()", "RecursionError"),
    ],
)
async def test_a_failed_program_shows_its_own_lines_only(
    runner: Sandbox, program: str, error: str
) -> None:
    execution = await runner.run(program)
    assert execution.ending == "failed"
    assert error in execution.stderr
    assert "sandbox" not in execution.stderr


@pytest.mark.parametrize("program", ["raise SystemExit(0)", "import os; os._exit(0)"])
async def test_leaving_early_is_not_passing(runner: Sandbox, program: str) -> None:
    assert (await runner.run(f"{program}\nassert False")).ending == "failed"


async def test_an_endless_loop_is_ended() -> None:
    execution = await Sandbox(SandboxLimits(seconds=1)).run("while True: pass")
    assert execution.ending == "time"


async def test_sleeping_for_ever_is_ended() -> None:
    execution = await Sandbox(SandboxLimits(seconds=1)).run(
        "print('x', flush=True)\nimport time; time.sleep(1e6)"
    )
    assert execution.ending == "time"


@pytest.mark.parametrize(
    "program", ["bytearray(1 << 40)", "kept = []\nwhile True: kept.append(bytes(1 << 20))"]
)
async def test_a_memory_bomb_hits_its_limit(program: str) -> None:
    execution = await Sandbox(SandboxLimits(seconds=30, memory=256 << 20)).run(program)
    assert execution.ending == "memory"


async def test_no_process_can_be_started(runner: Sandbox) -> None:
    execution = await runner.run(
        "import os, subprocess\n"
        "started = 0\n"
        "for _ in range(1000):\n"
        "    for start in (os.fork, lambda: subprocess.run(['true'])):\n"
        "        try:\n"
        "            start(); started += 1\n"
        "        except OSError: pass\n"
        "started += os.system('true') == 0\n"
        "try: os.execv('/bin/true', ['true'])\n"
        "except OSError: pass\n"
        "print(started)"
    )
    assert (execution.ending, execution.stdout) == ("passed", "0\n")
    assert {"processes: os.fork", "processes: subprocess.Popen"} <= set(execution.denied_actions)


async def test_no_process_can_be_signalled(runner: Sandbox) -> None:
    execution = await runner.run("import os; os.kill(os.getppid(), 0)")
    assert execution.ending == "failed"
    assert execution.denied_actions == ("processes: os.kill",)


async def test_files_outside_can_be_neither_read_nor_changed(
    runner: Sandbox, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("kept")
    attempts = [
        f"open({str(secret)!r}).read()",
        f"open({str(secret)!r}, 'w').write('gone')",
        f"os.unlink({str(secret)!r})",
        f"os.rename({str(secret)!r}, {str(tmp_path / 'other')!r})",
        f"os.truncate({str(secret)!r}, 0)",
        f"os.chmod({str(secret)!r}, 0o777)",
        f"os.symlink({str(secret)!r}, {str(tmp_path / 'link')!r})",
        f"os.listdir({str(tmp_path)!r})",
        "open('/proc/self/environ').read()",
        "open('/etc/passwd').read()",
        "open('own', 'w')",
        "os.memfd_create('x')",
    ]
    execution = await runner.run(
        "import os\n"
        f"for attempt in {attempts!r}:\n"
        "    try: exec(attempt)\n"
        "    except PermissionError: continue\n"
        "    print(attempt)"
    )
    assert (execution.ending, execution.stdout) == ("passed", "")
    assert f"files: open {secret}" in execution.denied_actions
    assert secret.read_text() == "kept"
    assert [*map(str, tmp_path.iterdir())] == [str(secret)]  # noqa: ASYNC240


async def test_the_network_is_out_of_reach(runner: Sandbox) -> None:
    connected = asyncio.Event()
    server = await asyncio.start_server(lambda *_: connected.set(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        execution = await runner.run(
            "import socket\n"
            "for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):\n"
            "    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):\n"
            "        try: socket.socket(family, kind)\n"
            "        except PermissionError: continue\n"
            "        print(family, kind)\n"
            f"socket.create_connection(('127.0.0.1', {port}))"
        )
    assert (execution.ending, execution.stdout) == ("failed", "")
    assert "network: socket.__new__" in execution.denied_actions
    assert not connected.is_set()


async def test_limits_cannot_be_raised_from_inside(runner: Sandbox) -> None:
    execution = await runner.run(
        "import resource\n"
        "for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE):\n"
        "    try: resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "    except (ValueError, OSError): continue\n"
        "    print(kind)"
    )
    assert (execution.ending, execution.stdout) == ("passed", "")


async def test_nothing_of_the_environment_is_seen(
    runner: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    execution = await runner.run("import os; print(sorted(os.environ))")
    assert "OPENAI_API_KEY" not in execution.stdout


async def test_long_output_is_cut_and_a_flood_is_ended(runner: Sandbox) -> None:
    long_output = await runner.run("print('x' * 10_000)")
    assert (long_output.ending, len(long_output.stdout), long_output.is_truncated) == (
        "passed",
        8192,
        True,
    )
    flood = await runner.run("while True: print('x' * 10_000)")
    assert (flood.ending, len(flood.stdout), flood.is_truncated) == ("output", 8192, True)


async def test_a_cancelled_run_leaves_no_process_behind(runner: Sandbox) -> None:
    import psutil

    children = {child.pid for child in psutil.Process().children()}
    running = asyncio.create_task(runner.run("while True: pass"))
    # The operating system tells nobody that a process has begun.
    while not (started := {c.pid for c in psutil.Process().children()} - children):  # noqa: ASYNC110
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not any(psutil.pid_exists(pid) for pid in started)


def test_what_cannot_be_contained_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_seccomp_problem", lambda: "no such thing here")
    with pytest.raises(UsageError, match=r"network: no such thing here.*processes"):
        Sandbox()
    with pytest.raises(UsageError, match="network"):
        Sandbox(uncontained=["processes"])
    Sandbox(uncontained=["network", "processes"])


def test_an_unknown_guard_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="there is no guard 'disk'"):
        Sandbox(uncontained=["disk"])  # type: ignore[list-item]


async def test_limits_too_small_for_an_interpreter_are_no_failure_of_the_program() -> None:
    with pytest.raises(UsageError, match="could not be set up"):
        await Sandbox(SandboxLimits(memory=1 << 20)).run("print(1)")


async def test_where_files_are_given_up_they_are_open_and_processes_still_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandbox, "_landlock_problem", lambda: "not here")
    execution = await Sandbox(uncontained=["files"]).run(
        f"print(open({os.devnull!r}).read() == '')\nimport os; os.fork()"
    )
    assert (execution.ending, execution.stdout) == ("failed", "True\n")
