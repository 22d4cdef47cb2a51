"""The command line, run in child processes against a scripted endpoint."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.support.fake_openai import FakeOpenAI, ReceivedRequest, Reply, fake_openai

PLAN = ['1. country("Japan")\n2. calc("$1.population', ' / $1.area_km2")\n3. join()']
QUESTION = "How dense is Japan?"


@dataclass
class Finished:
    """A command that has ended: its exit code and output."""

    code: int
    out: str
    err: str


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "llmcompiler", *arguments]


async def start(*arguments: str, **environ: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command(*arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environ},
    )


async def end(process: asyncio.subprocess.Process, stdin: str = "") -> Finished:
    out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


async def cli(*arguments: str, stdin: str = "", **environ: str) -> Finished:
    return await end(await start(*arguments, **environ), stdin)


def answers(request: ReceivedRequest) -> Reply:
    """A plan for a planner, an answer for a joiner."""
    text = json.dumps(request.body["messages"])
    return (
        Reply(PLAN) if "join()" in text else Reply(["So: about 335 people per km².\nAnswer: 335"])
    )


def stalls(request: ReceivedRequest) -> Reply:
    """A greeting for a probe of capabilities; a plan that never ends for a planner."""
    if "Say hello" in json.dumps(request.body["messages"]):
        return Reply(["Hello."])
    return Reply(PLAN, stall=True)


Replies = Sequence[Reply] | Callable[[ReceivedRequest], Reply]


@asynccontextmanager
async def endpoint(replies: Replies = answers) -> AsyncIterator[FakeOpenAI]:
    async with fake_openai(replies) as server:
        yield server


def question_command(server: FakeOpenAI, *options: str) -> tuple[str, ...]:
    return ("run", QUESTION, "--model", "openai:scripted", "--base-url", server.url, *options)


# A question.


async def test_the_answer_is_all_of_stdout() -> None:
    async with endpoint() as server:
        done = await cli(*question_command(server))
    assert done.code == 0, done.err
    assert done.out.strip().endswith("335")
    assert "planned    2. calc(" in done.err
    assert "answered in" in done.err


async def test_quiet_says_nothing_else() -> None:
    async with endpoint() as server:
        done = await cli(*question_command(server, "--quiet"))
    assert (done.code, done.err) == (0, "")


async def test_json_is_one_object() -> None:
    async with endpoint() as server:
        done = await cli(*question_command(server, "--json"))
    data = json.loads(done.out)
    assert data["status"] == "answered"
    assert [task["tool"] for task in data["tasks"]] == ["country", "calc"]
    assert data["usage"]["calls"] == 2


async def test_a_question_from_stdin() -> None:
    async with endpoint() as server:
        done = await cli(
            "run", "-", "--model", "openai:m", "--base-url", server.url, stdin=QUESTION
        )
        # The first requests probe whether the endpoint takes a grammar.
        assert any(QUESTION in json.dumps(request.body) for request in server.requests)
    assert done.code == 0


async def test_a_run_is_listed_shown_drawn_and_replayed() -> None:
    async with endpoint() as server:
        finished = await cli(*question_command(server, "--json"))
    run = json.loads(finished.out)["run"]
    table = await cli("runs")
    assert run in table.out
    assert QUESTION in table.out
    page = await cli("show", run[:6])
    assert f"run {run}" in page.out
    assert "with expression=" in page.out
    assert json.loads((await cli("show", "last", "--json")).out) == json.loads(finished.out)
    assert (await cli("graph", "last")).out.startswith("flowchart TD")
    replayed = await cli("replay", "last")
    assert replayed.code == 0, replayed.err
    assert f"run {run} came out the same: 2 tasks, 2 model calls, answered" in replayed.out


async def test_a_plan_is_written_and_run() -> None:
    async with endpoint() as server:
        done = await cli("plan", QUESTION, "--model", "openai:m", "--base-url", server.url)
    assert done.code == 0, done.err
    assert '1. country("Japan")' in done.out
    assert done.out.startswith('question "How dense is Japan?"')
    checked = await cli("check", "-", stdin=done.out)
    assert checked.out == "the plan is sound: 2 tasks\n"


async def test_all_that_is_wrong_with_a_plan_is_said_at_once() -> None:
    text = '1. country(Japan)\n2. contry("Chad")\n3. calc("1", "2")\n4. calc("$2")\n'
    checked = await cli("check", "-", stdin=text)
    assert checked.code == 2
    errors = [line for line in checked.err.splitlines() if line.startswith("error")]
    assert [line[6:10] for line in errors] == ["E105", "E203", "E301"]
    assert "3 errors" in checked.err


async def test_a_plan_is_improved_and_what_was_done_is_said() -> None:
    async with endpoint() as server:
        at = ("--model", "openai:m", "--base-url", server.url)
        done = await cli("plan", QUESTION, "--explain", *at)
    assert done.code == 0, done.err
    assert '1. country("Japan")' in done.out
    assert "note: rank: the critical path is 1 -> 2: 2 calls in a row\n" in done.err


async def test_a_saved_plan_is_improved_without_a_model(tmp_path: Path) -> None:
    path = tmp_path / "why.plan"
    calls = ['calc("6 * 7")', *['think("Why?", [$1])'] * 2, 'think("So?", [$2, $3])', "join($4)"]
    lines = [f"{number}. {call}" for number, call in enumerate(calls, 1)]
    path.write_text("\n".join(lines))
    done = await cli("plan", str(path), "--explain", "--reason", "pdr")
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        '2. think("Why?", [42], strategy="pdr")',
        '4. think("So?", [$2, $2], strategy="pdr")',
        "5. join($4)",
    ]
    assert done.err.splitlines() == [
        "note: fold: task 1 (calc) is always 42",
        "note: deduplicate: task 3 repeats task 2 (think) and is not called",
        "note: lower: task 2 (think) is a branch: pdr, as nothing else is said",
        "note: lower: task 4 (think) is a branch: pdr, as nothing else is said",
        "note: rank: the critical path is 2 -> 4: 2 calls in a row",
    ]
    path.write_text('1. contry("Chad")')
    broken = await cli("plan", str(path))
    assert (broken.code, broken.out) == (2, "")
    assert "E203" in broken.err


# A saved plan.

SAVED = """input first: string
input second = "Chile"
1. country($first)
2. country($second)
3. calc("$1.population + $2.population")
4. join($3)
"""


@pytest.fixture
def saved(tmp_path: Path) -> str:
    path = tmp_path / "sum.plan"
    path.write_text(SAVED)
    return str(path)


async def test_a_saved_plan_without_a_question_needs_no_model(saved: str) -> None:
    done = await cli(
        "run", saved, "--input", "first=Peru", "-q", OPENAI_BASE_URL="http://x.invalid"
    )
    assert done.code == 0, done.err
    assert int(done.out) > 10_000_000


async def test_an_input_that_is_text_stays_text() -> None:
    plan = 'input zip: string\n1. largest([{"name": $zip, "n": 1}], by="n")\n2. join($1)\n'
    for typed, text in (("12345", "12345"), ("01234", "01234"), ('"x"', "x"), ("1e5", "1e5")):
        done = await cli("run", "-", "--input", f"zip={typed}", "-q", "--json", stdin=plan)
        assert json.dumps(text) in done.out, done.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
async def test_a_full_device_is_named() -> None:
    process = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m llmcompiler schema > /dev/full", stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    assert (process.returncode, err.decode().splitlines()[0]) == (
        1,
        "error: no space is left on the device",
    )


async def test_an_input_is_json_where_it_can_be() -> None:
    plan = 'input n\n1. calc("$n[0] + $n[1]")\n2. join($1)\n'
    done = await cli("run", "-", "--input", "n=[3, 4]", "-q", stdin=plan)
    assert done.out == "7\n", done.err


async def test_a_plan_from_stdin_or_the_command_line() -> None:
    plan = '1. calc("20 + 3")\n2. join($1)'
    assert (await cli("run", plan, "-q")).out == "23\n"
    assert (await cli("run", "-", "-q", stdin=plan)).out == "23\n"


# What goes wrong.


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("run", "no.plan"), "there is no file no.plan", "stdin"),
        (("run", QUESTION, "--model", "locl"), "unknown model 'locl'", "did you mean local"),
        (("run", QUESTION, "--tools", "geoo"), "geoo", "did you mean 'geo'"),
        (("run", QUESTION, "--limit", "tokns=3"), 'no limit "tokns"', "tokens"),
        (("run", QUESTION, "--limit", "tokens"), "not of the form K=V", "name=3"),
        (("run", QUESTION, "--input", "a=1"), "takes no inputs", "saved plans"),
        (("run", '1. contry("Japan")\n2. join()'), 'unknown tool "contry"', '"country"'),
        (("run", SAVED), 'value for its input "first"', "--input first="),
        (("check", "hello"), "no plan", '1. country("Japan")'),
        (("check", '{"tasks": [{"id": "x"}]}'), "tasks.0.id", "llmcompiler schema"),
        (("graph", "1. a()", "--format", "png"), "no format 'png'", "mermaid"),
    ],
)
async def test_mistakes_in_use_exit_with_2_and_a_hint(
    arguments: tuple[str, ...], message: str, hint: str
) -> None:
    if arguments[0] == "run" and "--model" not in arguments:
        arguments = (*arguments, "--model", "openai:m", "--base-url", "http://127.0.0.1:9/v1")
    done = await cli(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert message in done.err
    assert hint in done.err
    assert "Traceback" not in done.err


async def test_an_unknown_option_exits_with_2() -> None:
    assert (await cli("run", "--nope", "x")).code == 2
    assert (await cli("nope")).code == 2


async def test_what_is_not_in_the_log_exits_with_1(tmp_path: Path) -> None:
    done = await cli("show", "abc")
    assert (done.code, done.out) == (1, "")
    assert 'no run "abc"' in done.err
    done = await cli("show", "last", "--store", str(tmp_path / "no.sqlite"))
    assert done.code == 1
    assert not (tmp_path / "no.sqlite").exists(), "reading makes no file"


async def test_a_run_that_fails_exits_with_1_and_says_why() -> None:
    refused = Reply(status=401, error={"message": "bad key"})
    async with endpoint([refused]) as server:
        done = await cli(*question_command(server))
    assert (done.code, done.out) == (1, "")
    assert "error: " in done.err
    assert "bad key" in done.err or "key" in done.err
    assert "Traceback" not in done.err


async def test_a_limit_is_named() -> None:
    async with endpoint(stalls) as server:
        done = await cli(*question_command(server, "--limit", "deadline=0.5"))
    assert done.code == 1
    assert "limit deadline=0.5" in done.err
    assert "--limit deadline=" in done.err


async def test_a_bug_of_ours_is_called_one(tmp_path: Path) -> None:
    broken = tmp_path / "sitecustomize.py"
    broken.write_text(
        "import llmcompiler.settings.servers as s\ndef load_tools(*a): return 1 // 0\n"
        "s.load_tools = load_tools\n"
    )
    done = await cli("tools", PYTHONPATH=str(tmp_path))
    assert done.code == 1
    assert "this is a bug in llmcompiler: ZeroDivisionError" in done.err
    assert re.search(r"at llmcompiler/\w+/\w+\.py:\d+", done.err)
    assert "Traceback" not in done.err
    done = await cli("tools", PYTHONPATH=str(tmp_path), LLMCOMPILER_DEBUG="1")
    assert "Traceback" in done.err


async def test_a_reader_that_leaves_makes_no_noise() -> None:
    process = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m llmcompiler schema | head -c 1",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    done = await end(process)
    assert (done.out, done.err) == ("{", "")


# Tools, models, schema, version.


async def test_tools_are_listed_with_what_they_take(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from llmcompiler import tool\n\n@tool\ndef price(item: str) -> float:\n"
        '    """Price of an item, in euros."""\n    return 2.5\n'
    )
    done = await cli("tools", "--tools", str(own), "--tools", "geo")
    assert "price(item: str) -> float\n    Price of an item, in euros." in done.out
    assert "country(name: str)" in done.out
    assert set(json.loads((await cli("tools", "--json")).out)["tools"]) >= {"calc", "country"}


async def test_models_are_listed_and_found(tmp_path: Path) -> None:
    cache = {"LLMCOMPILER_CACHE": str(tmp_path)}
    assert re.search(
        r"qwen2\.5-coder-1\.5b .*not pulled", (await cli("models", "list", **cache)).out
    )
    done = await cli("models", "path", "smollm2-135m", **cache)
    assert (done.code, Path(done.out.strip()).parent) == (1, tmp_path / "models")
    assert "models pull smollm2-135m" in done.err
    assert (await cli("models", "pull", "nope", **cache)).code == 2


async def test_the_schema_is_one_that_plans_fit() -> None:
    import jsonschema

    schema = json.loads((await cli("schema")).out)
    jsonschema.Draft202012Validator.check_schema(schema)
    plan = json.loads((await cli("check", SAVED, "--json")).out)["plan"]
    jsonschema.validate(plan, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"tasks": [{"id": 0, "tool": "x"}]}, schema)


async def test_the_version() -> None:
    assert re.fullmatch(r"llmcompiler \d+\.\d+\.\d+\n", (await cli("--version")).out)


# Ctrl-C.

SLEEPS = """
import asyncio, time
from llmcompiler import tool

@tool
async def nap() -> str:
    "Sleeps on the loop."
    await asyncio.sleep(600)
    return ""

@tool
def deep_sleep() -> str:
    "Sleeps in a thread, and cannot be woken."
    time.sleep(600)
    return ""
"""


async def interrupt(process: asyncio.subprocess.Process, marker: bytes, times: int = 1) -> Finished:
    """Interrupt a run once stderr holds ``marker``, and wait for the end of the process."""
    assert process.stderr is not None
    output = b""
    while marker not in output:
        line = await asyncio.wait_for(process.stderr.readline(), 60)
        assert line, output.decode()
        output += line
    family = psutil.Process(process.pid).children(recursive=True)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
    done = await end(process)
    assert not any(child.is_running() for child in family)
    return Finished(done.code, done.out, output.decode() + done.err)


@pytest.mark.parametrize("tool", ["nap", "deep_sleep"])
async def test_ctrl_c_stops_a_run_and_leaves_its_log(tool: str, tmp_path: Path) -> None:
    (tmp_path / "sleeps.py").write_text(SLEEPS)
    plan = f'1. calc("1 + 1")\n2. {tool}()\n3. join()'
    process = await start("run", plan, "--tools", str(tmp_path / "sleeps.py"), "--tools", "calc")
    done = await interrupt(process, b"done       1.")
    assert (done.code, done.out) == (130, "")
    assert "Traceback" not in done.err
    run = re.search(r"the log of run (\w+) is intact", done.err)
    assert run is not None, done.err
    data = json.loads((await cli("show", run[1], "--json")).out)
    assert data["status"] == "interrupted"
    assert [task["status"] for task in data["tasks"]] == ["done", "cancelled"]


async def test_ctrl_c_while_the_planner_writes() -> None:
    async with endpoint(stalls) as server:
        process = await start(*question_command(server))
        done = await interrupt(process, b"planned    2.")
        assert done.code == 130
        data = json.loads((await cli("show", "last", "--json")).out)
    assert data["status"] == "interrupted"
    assert "".join(PLAN).startswith(data["model_calls"][0]["text"])


async def test_a_second_ctrl_c_ends_at_once() -> None:
    async with endpoint(stalls) as server:
        done = await interrupt(await start(*question_command(server)), b"planned    2.", times=2)
    assert done.code == 130
    assert "Traceback" not in done.err


# A terminal.


async def test_on_a_terminal_the_run_is_drawn_and_the_answer_is_still_clean() -> None:
    controller, terminal = pty.openpty()
    output = bytearray()
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            output.extend(os.read(controller, 65536))
        except OSError:
            loop.remove_reader(controller)

    loop.add_reader(controller, read)
    try:
        async with endpoint() as server:
            process = await asyncio.create_subprocess_exec(
                *command(*question_command(server)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=terminal,
                env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
            )
            out, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        loop.remove_reader(controller)
        os.close(terminal)
        os.close(controller)
    assert process.returncode == 0, output.decode()
    assert b"\x1b" not in out
    text = output.decode()
    assert "\x1b[?25l" in text
    assert "answered in" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


# Programs.

PROGRAM = """\
def main(n: int = 2, names: list = ["Chad", "Peru", "Japan"]):
    found = [country(name) for name in names]
    return [each.name for each in sorted(found, key=lambda each: -each.population)[:n]]
"""


async def test_a_program_is_checked_run_drawn_and_shown(tmp_path: Path) -> None:
    file = tmp_path / "largest.py"
    file.write_text(PROGRAM)
    assert (await cli("check", str(file))).out == "the plan is sound: 1 task, 2 inputs\n"
    done = await cli("run", str(file), "--input", "n=1")
    assert (done.code, done.out) == (0, '["Japan"]\n')
    assert (await cli("graph", str(file))).out.startswith("flowchart TD")
    assert "  2 |     found = [country(name)" in (await cli("show", "last")).out
    assert (await cli("replay", "last")).code == 0


async def test_a_program_with_a_mistake_runs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("x = contry('Chad')\nimport os\n")
    done = await cli("run", str(file))
    assert done.code == 2
    assert 'did you mean "country"' in done.err
    assert "error[E502]" in done.err
    assert "no runs yet" in (await cli("runs")).err


async def test_a_file_of_tools_is_no_plan(tmp_path: Path) -> None:
    file = tmp_path / "tools.py"
    file.write_text("def shout(text: str) -> str:\n    return text.upper()\n")
    done = await cli("run", str(file))
    assert done.code == 2
    assert "it is no plan" in done.err
    assert "--tools" in done.err


async def test_a_loop_stops_at_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "loop.py"
    file.write_text("x = 0\nwhile True:\n    x = calc(f'{x} + 1')\n")
    done = await cli("run", str(file), "--limit", "loop_iterations=5")
    assert done.code == 1
    assert "limit loop_iterations" in done.err
