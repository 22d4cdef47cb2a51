"""``doctor``: whether everything that the settings name is there and works.

Each check looks at one thing and says what it found and, where that is not enough, what to do. A
check never mends anything. Exit code 1 if something would keep a run from working.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from llmcompiler.cli.options import JsonOption, ProfileOption
from llmcompiler.errors import LLMCompilerError

if TYPE_CHECKING:
    from llmcompiler.llm.endpoint import EndpointModel
    from llmcompiler.settings.reading import Configuration

Verdict: TypeAlias = Literal["ok", "note", "wrong"]

EXTRAS = {
    "local": ("xllamacpp", "the embedded model"),
    "mcp": ("mcp", "MCP servers and llmcompiler mcp"),
    "otel": ("opentelemetry", "traces and metrics"),
    "prices": ("genai_prices", "prices of models, for a limit on cost"),
    "ray": ("ray", "--executor ray"),
    "sandbox": ("landlock", "running code that a model wrote"),
    "ui": ("uvicorn", "llmcompiler ui"),
}
"""Of each extra that the command line uses: a module of it, and what it is for."""

_PATIENCE_S = 10.0
_GGUF = b"GGUF"


@dataclass(frozen=True)
class Found:
    """What a check found.

    Attributes:
        about: what was looked at.
        verdict: ``wrong`` keeps runs from working, ``note`` does not.
        said: what was found.
        hint: what to do; empty where nothing is to be done.
    """

    about: str
    verdict: Verdict
    said: str
    hint: str = ""


def doctor(
    profile: ProfileOption = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no endpoint and start no MCP server.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check the set-up and say what to fix.

    Settings, store, model, endpoint, tools, extras.

    Of an endpoint it finds out what it can do, which takes a few short requests the first time.
    Exit code 1 if something would keep runs from working.

    Example: llmcompiler doctor --profile team
    """
    from llmcompiler.cli.output import print_json

    found = []
    for one in checks(profile, offline):
        found.append(one)
        if not as_json:
            mark = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}[one.verdict]
            typer.echo(f"{mark}  {one.about}: {one.said}")
            if one.hint:
                typer.echo(f"       -> {one.hint}")
    wrong = sum(one.verdict == "wrong" for one in found)
    if as_json:
        print_json({"ok": not wrong, "checks": [asdict(one) for one in found]})
    if wrong:
        raise typer.Exit(1)


def checks(profile: str | None, offline: bool) -> Iterator[Found]:
    """All checks, each when it is asked for: some take seconds."""
    from llmcompiler.cli.options import configured

    try:
        read = configured(profile=profile)
    except LLMCompilerError as error:
        yield Found("settings", "wrong", error.message, error.hint)
        yield Found("the rest", "note", "not looked at, as it depends on the settings")
        return
    yield from _settings(read)
    steps: tuple[tuple[str, Callable[[], Iterable[Found]]], ...] = (
        ("store", lambda: _store(read)),
        ("model", lambda: _model(read, offline)),
        ("planner", lambda: _planner(read)),
        ("prompts", lambda: _prompts(read)),
        ("tools", lambda: _tools(read, offline)),
        ("executor", lambda: _executor(read, offline)),
    )
    for about, step in steps:
        try:
            yield from step()
        except LLMCompilerError as error:
            yield Found(about, "wrong", error.message, error.hint)
    yield from _extras()


def _settings(read: Configuration) -> Iterator[Found]:
    from llmcompiler.settings.reading import unknown_variables

    files = [str(one.file.path) for one in read.sources if one.file is not None]
    yield Found("settings", "ok", ", ".join(dict.fromkeys(files)) or "no file, which is fine")
    for name, close in unknown_variables():
        yield Found(
            "settings",
            "note",
            f"the variable {name} is none that is read",
            f"did you mean {close}?" if close else "llmcompiler config shows what is",
        )


def _store(read: Configuration) -> Iterator[Found]:
    from llmcompiler.log.store import RunStore, default_path

    path = read.settings.store or default_path()
    if path.exists():
        store = RunStore(path)
        store.runs(1)
        store.close()
    folder = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not os.access(folder, os.W_OK):
        yield Found(
            "store",
            "wrong",
            f"{folder} cannot be written",
            "choose another file: store in llmcompiler.toml, LLMCOMPILER_STORE or --store",
        )
        return
    yield Found("store", "ok", str(path) + ("" if path.exists() else " (made by the first run)"))


def _model(read: Configuration, offline: bool) -> Iterator[Found]:
    spec = read.settings.model
    kind, _, rest = spec.partition(":")
    if kind == "openai":
        yield from _endpoint(read, offline)
        return
    if kind != "local":
        from llmcompiler.llm.models import open_model

        open_model(spec)  # says what is wrong with it
    if importlib.util.find_spec("xllamacpp") is None:
        yield Found(
            "model",
            "wrong",
            f"{spec} needs the extra local",
            "pip install 'llmcompiler-dag[local]', or an endpoint: model = \"openai:NAME\"",
        )
    is_file = "/" in rest or rest.endswith(".gguf")
    yield _weights_file(Path(rest).expanduser()) if is_file else _weights(rest)


def _weights(name: str) -> Found:
    from llmcompiler.llm import weights

    wanted = weights.find_weights(name or weights.DEFAULT)
    if weights.is_pulled(wanted.name):
        return Found("model", "ok", f"{wanted.name}, {weights.path_of(wanted.name)}")
    return Found(
        "model",
        "note",
        f"the weights of {wanted.name} are not here; a run downloads {wanted.size / 1e6:,.0f} MB",
        f"llmcompiler models pull {wanted.name}",
    )


def _weights_file(path: Path) -> Found:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_GGUF))
    except OSError as error:
        return Found("model", "wrong", f"{path}: {error.strerror}", "check the path in the model")
    if magic != _GGUF:
        return Found("model", "wrong", f"{path} is no GGUF file", "convert it for llama.cpp")
    return Found("model", "ok", str(path))


def _endpoint(read: Configuration, offline: bool) -> Iterator[Found]:
    from llmcompiler.llm.endpoint import EndpointModel
    from llmcompiler.llm.models import open_model
    from llmcompiler.settings.reading import without_secrets

    spec, key = read.settings.model, read.api_key(read.settings.model)
    named = open_model(spec, base_url=read.settings.base_url, api_key=key)
    assert isinstance(named, EndpointModel)
    where = f"{spec} at {without_secrets(named.base_url)}"
    if offline:
        yield Found("endpoint", "ok", f"{where} (not asked)")
        return
    # Without the patience that a run has.
    model = EndpointModel(
        named.model, base_url=named.base_url, api_key=key, retries=0, read_timeout=_PATIENCE_S
    )
    yield from asyncio.run(_asked(model, where))


async def _asked(model: EndpointModel, where: str) -> list[Found]:
    from llmcompiler.llm.base import Request, complete
    from llmcompiler.llm.messages import Message

    hello = Request((Message("user", "Say hello."),), max_tokens=1)
    try:
        await complete(model, hello)
        able = await model.capabilities()
    except LLMCompilerError as error:
        return [Found("endpoint", "wrong", error.message, error.hint)]
    finally:
        await model.aclose()
    can = ", ".join(sorted(able)) or "nothing beyond chat"
    return [
        Found("endpoint", "ok", f"{where} answers"),
        Found("capabilities", "ok", f"{can} (some reasoning strategies need more than chat)"),
    ]


def _planner(read: Configuration) -> Iterator[Found]:
    from llmcompiler.compiler import LLMCompiler
    from llmcompiler.reasoning.registry import strategy_class

    settings = read.settings
    LLMCompiler((), planner=settings.planner, store=":memory:")
    if settings.reason is not None:
        strategy_class(settings.reason)
    reasons = f", reasoning by {settings.reason}" if settings.reason else ""
    yield Found("planner", "ok", f"{settings.planner}{reasons}")


def _prompts(read: Configuration) -> Iterator[Found]:
    from llmcompiler.cli.run import read_prompts

    if read_prompts(read) is not None:
        yield Found("prompts", "ok", str(read.settings.prompts))


def _tools(read: Configuration, offline: bool) -> Iterator[Found]:
    from llmcompiler.settings.servers import configured_server, load_tools

    for spec in read.settings.tools:
        if offline and spec.startswith("mcp:"):
            yield Found("tools", "note", f"{spec} was not started")
            continue
        try:
            count = len(load_tools([spec]))
        except LLMCompilerError as error:
            yield Found("tools", "wrong", f"{spec}: {error.message}", error.hint)
        else:
            yield Found("tools", "ok", f"{spec}: {count} tool{'' if count == 1 else 's'}")
    for name, said in read.settings.mcp.items():
        if f"mcp:{name}" in read.settings.tools and not offline:
            continue
        try:
            configured_server(name, read)
        except LLMCompilerError as error:
            yield Found("mcp", "note", error.message, error.hint)
            continue
        words = said.command.split() if isinstance(said.command, str) else said.command or []
        if words and shutil.which(words[0]) is None:
            hint = f"install it, or give its path: {read.origin('mcp', name)}"
            yield Found("mcp", "note", f"{name}: there is no program {words[0]!r}", hint)
        else:
            yield Found("mcp", "ok", f"{name} is described; it starts when a run names mcp:{name}")


def _executor(read: Configuration, offline: bool) -> Iterator[Found]:
    from llmcompiler.cli.options import executor_of

    settings = read.settings
    if settings.executor == "local":
        return
    if settings.ray.values is not None and not os.access(settings.ray.values, os.W_OK):
        where = settings.ray.values
        yield Found("executor", "wrong", f"{where} cannot be written", "make it, on every machine")
    if offline:
        yield Found("executor", "note", "ray was not started")
        return
    executor = executor_of(settings)
    assert executor is not None
    asyncio.run(executor.aclose())
    yield Found("executor", "ok", f"ray, {settings.ray.address or 'on this machine'}")


def _extras() -> Iterator[Found]:
    for extra, (module, use) in EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            hint = f"pip install 'llmcompiler-dag[{extra}]'"
            yield Found("extra", "note", f"{extra} is not installed ({use})", hint)
        else:
            yield Found("extra", "ok", f"{extra} ({use})")
