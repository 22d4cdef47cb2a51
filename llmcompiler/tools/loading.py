"""Loads the tools that a user names: built-in sets, modules, Python files, functions.

Specs, as ``--tools`` takes them:

* ``calc``, ``geo``, ``wikipedia`` (``wikipedia:de``), ``files`` (``files:DIRECTORY``), or several
  with commas between them;
* ``package.module:NAME``, where the name is a tool, a function, or a list or dict of these;
* ``path/to/file.py`` for all tools in it, or ``path/to/file.py:NAME``;
* ``mcp:COMMAND`` or ``mcp:https://…``; ``settings.servers`` adds ``mcp:NAME`` of a server in
  ``llmcompiler.toml``.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import logging
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from llmcompiler.errors import UsageError
from llmcompiler.extras import install_command, is_installed, require_extra
from llmcompiler.tools.adapters import adapt_tool
from llmcompiler.tools.base import DEFAULT_TOOLS, Tool, as_tool
from llmcompiler.tools.mcp.server import McpServer
from llmcompiler.tools.mcp.shared import ServerFactory, shared_server

ToolSource: TypeAlias = str | Tool | Callable[..., Any] | types.ModuleType | McpServer
"""Anything that names one tool or several, also tools of other frameworks (``adapters``)."""

BUILT_IN = ("calc", "geo", "wikipedia", "files")
_MODULES = {"calc": ("calc", "records"), "geo": ("geo",)}
_log = logging.getLogger(__name__)

_PYTHON_FILE = re.compile(r"(?P<path>.+\.py)(?::(?P<name>\w+))?")
_MEMBER = re.compile(r"(?P<module>\w+(?:\.\w+)*):(?P<name>\w+)")


def load_tools(
    sources: ToolSource | Iterable[ToolSource] | Mapping[str, Tool | Callable[..., Any]],
    make_server: ServerFactory = McpServer,
) -> dict[str, Tool]:
    """Tools by name, in the order given.

    Args:
        sources: one spec, tool, function or module, several of them, or a mapping whose keys are
            the names that the tools get.
        make_server: makes the server that a spec names after ``mcp:``; by default a command or a
            URL. ``settings.servers`` has one that also looks names up in the settings.

    Raises:
        UsageError: a source is missing or broken, or two different tools have one name.
    """
    if sources is DEFAULT_TOOLS and not is_installed("geo"):
        _log.warning("plans can call calc only; for the tools geo: %s", install_command("geo"))
    tools: dict[str, Tool] = {}
    origins: dict[str, str] = {}
    for source in _separate_specs(sources):
        for tool in _load(source, make_server):
            origin = source if isinstance(source, str) else repr(source)[:80]
            if tools.setdefault(tool.name, tool).function is not tool.function:
                raise UsageError(
                    f"two tools are called {tool.name!r}: one from {origins[tool.name]}, "
                    f"one from {origin}",
                    hint='rename one with @tool(name="..."), or give a server a prefix in '
                    "llmcompiler.toml",
                )
            origins.setdefault(tool.name, origin)
    return tools


def _separate_specs(sources: Any) -> Iterator[Any]:
    """The sources one by one; a text with commas names several."""
    if isinstance(sources, str | Mapping) or not isinstance(sources, Iterable):
        sources = [sources]
    for source in sources:
        if isinstance(source, str) and not source.startswith(("files:", "mcp:")):
            yield from (part.strip() for part in source.split(","))
        else:
            yield source


def _load(source: Any, make_server: ServerFactory) -> list[Tool]:
    if isinstance(source, types.ModuleType):
        return _tools_in(source, source.__name__)
    if isinstance(source, McpServer):
        return source.tools()
    if not isinstance(source, str):
        return _members(source, "the given object")
    name, _, argument = source.partition(":")
    if name in BUILT_IN:
        return _built_in(name, argument)
    if name == "mcp":
        return shared_server(argument, make_server).tools()
    if match := _PYTHON_FILE.fullmatch(source):
        module = _import_file(Path(match["path"]))
        if match["name"]:
            return _member(module, match["name"], match["path"])
        return _tools_in(module, match["path"])
    if match := _MEMBER.fullmatch(source):
        return _member(_import_module(match["module"]), match["name"], match["module"])
    close = difflib.get_close_matches(source, BUILT_IN, 1)
    raise UsageError(
        f"there is no tool set {source!r}",
        hint=(f"did you mean {close[0]!r}? " if close else "")
        + f"give one of {', '.join(BUILT_IN)}, package.module:NAME, or a Python file",
    )


def _built_in(name: str, argument: str) -> list[Tool]:
    if name == "files":
        from llmcompiler.tools.files import file_tools

        return file_tools(argument or ".")
    if name == "wikipedia":
        from llmcompiler.tools.wikipedia import wikipedia_tool

        return [wikipedia_tool(argument or "en")]
    if argument:
        raise UsageError(f"the tool set {name!r} takes nothing behind a colon, not {argument!r}")
    if name == "geo":
        require_extra("geo", "the tool set geo")
    return [
        tool
        for module in _MODULES[name]
        for tool in importlib.import_module(f"llmcompiler.tools.{module}").TOOLS
    ]


def _tools_in(module: types.ModuleType, where: str) -> list[Tool]:
    """All tools in a module, each once, under any number of names."""
    tools = {id(value): value for value in vars(module).values() if isinstance(value, Tool)}
    if not tools:
        raise UsageError(
            f"there are no tools in {where}",
            hint=f"decorate functions with @tool, or name one: {where}:NAME",
        )
    return list(tools.values())


def _member(module: types.ModuleType, name: str, where: str) -> list[Tool]:
    if not hasattr(module, name):
        close = difflib.get_close_matches(name, vars(module), 1)
        raise UsageError(
            f"there is no {name!r} in {where}", hint=f"did you mean {close[0]!r}?" if close else ""
        )
    return _members(getattr(module, name), f"{where}:{name}")


def _members(value: Any, where: str) -> list[Tool]:
    if isinstance(value, types.ModuleType):
        return _tools_in(value, where)
    if not isinstance(value, Tool) and (adapted_tool := adapt_tool(value)) is not None:
        return [adapted_tool]
    if isinstance(value, Mapping):
        tools = {str(name): _tool(member) for name, member in value.items()}
        return [dataclasses.replace(tool, name=name) for name, tool in tools.items()]
    if isinstance(value, list | tuple):
        return [_tool(member) for member in value]
    if not isinstance(value, Tool) and not callable(value):
        raise UsageError(
            f"{where} is {type(value).__name__}, not a tool",
            hint="give a tool, a function, or a list or dict of these",
        )
    return [as_tool(value)]


def _tool(value: Any) -> Tool:
    """The tool of a function, or of a tool of this package or another framework."""
    adapted_tool = None if isinstance(value, Tool) else adapt_tool(value)
    return as_tool(value) if adapted_tool is None else adapted_tool


@contextmanager
def _importable(directory: Path) -> Iterator[None]:
    """Inside the block, modules of a directory can be imported, as beside a script."""
    entry = str(directory)
    is_new = entry not in sys.path
    if is_new:
        sys.path.insert(0, entry)
    try:
        yield
    finally:
        if is_new and entry in sys.path:
            sys.path.remove(entry)


def _import_module(name: str) -> types.ModuleType:
    try:
        with _importable(Path.cwd()):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The module itself, or a package around it, is missing, and not one that it imports.
        if error.name and (name + ".").startswith(error.name + "."):
            raise UsageError(
                f"there is no module {name!r}", hint="check the spelling and where you are"
            ) from error
        raise _broken(name, error) from error
    except Exception as error:
        raise _broken(name, error) from error


def _import_file(path: Path) -> types.ModuleType:
    full = path.expanduser().resolve()
    if not full.is_file():
        names = [file.name for file in full.parent.glob("*.py")] if full.parent.is_dir() else []
        close = difflib.get_close_matches(full.name, names, 1)
        raise UsageError(
            f"there is no file {str(path)!r}", hint=f"did you mean {close[0]!r}?" if close else ""
        )
    # The module's name is unique to the path: two files called tools.py get different names, and a
    # file that is imported twice runs once.
    name = f"llmcompiler_file_{full.stem}_{hashlib.sha256(str(full).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, full)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        with _importable(full.parent):
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, UsageError) or not isinstance(error, Exception | SystemExit):
            raise
        raise _broken(str(path), error) from error
    return module


def _broken(where: str, error: BaseException) -> UsageError:
    """An error with the last line of a traceback and the last place in the user's own code."""
    cause = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{error.filename}:{error.lineno}"
    else:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if "importlib" not in frame.filename and frame.filename != __file__
        ]
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else where
    return UsageError(f"{where} cannot be imported: {cause}", hint=f"see {place}")
