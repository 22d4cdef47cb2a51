"""``doctor``: checks that everything that the settings name exists and works.

Each check looks at one thing, reports what it found and, if that is not enough, what to do. A check
never repairs anything. Exit code 1 if something would keep a run from working.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from llmcompiler.cli.options import JsonOption, ProfileOption
from llmcompiler.errors import LLMCompilerError
from llmcompiler.extras import EXTRAS, install_command, is_installed
from llmcompiler.llm.providers import PROVIDERS

if TYPE_CHECKING:
    from llmcompiler.llm.endpoint import EndpointModel
    from llmcompiler.settings.reading import Configuration

CheckVerdict: TypeAlias = Literal["ok", "note", "wrong"]

_READ_TIMEOUT_S = 10.0
_GGUF = b"GGUF"


@dataclass(frozen=True)
class CheckResult:
    """The result of one check. ``--json`` prints the fields under their names.

    Attributes:
        about: the subject of the check.
        verdict: ``wrong`` keeps runs from working, ``note`` does not.
        said: what the check found.
        hint: what to do; empty if there is nothing to do.
    """

    about: str
    verdict: CheckVerdict
    said: str
    hint: str = ""


def doctor(
    profile: ProfileOption = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Call no endpoint and start no MCP server.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check the set-up and say what to fix.

    Settings, store, model, endpoint, tools, extras.

    The first check of an endpoint probes its capabilities with a few short requests.
    Exit code 1 if something would keep runs from working.

    Example: llmcompiler doctor --profile team
    """
    from llmcompiler.cli.output import print_json

    results = []
    for result in run_checks(profile, offline):
        results.append(result)
        if not as_json:
            mark = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}[result.verdict]
            typer.echo(f"{mark}  {result.about}: {result.said}")
            if result.hint:
                typer.echo(f"       -> {result.hint}")
    wrong = sum(result.verdict == "wrong" for result in results)
    if as_json:
        print_json({"ok": not wrong, "checks": [asdict(result) for result in results]})
    if wrong:
        raise typer.Exit(1)


def run_checks(profile: str | None, offline: bool) -> Iterator[CheckResult]:
    """Run all checks one after the other, and yield each result at once: some take seconds."""
    from llmcompiler.cli.options import read_configuration

    try:
        configuration = read_configuration(profile=profile)
    except LLMCompilerError as error:
        yield CheckResult("settings", "wrong", error.message, error.hint)
        yield CheckResult("the rest", "note", "not checked, because it depends on the settings")
        return
    yield from _settings(configuration)
    steps: tuple[tuple[str, Callable[[], Iterable[CheckResult]]], ...] = (
        ("store", lambda: _store(configuration)),
        ("model", lambda: _model(configuration, offline)),
        ("planner", lambda: _planner(configuration)),
        ("prompt profile", lambda: _prompt_profile(configuration)),
        ("prompts", lambda: _prompts(configuration)),
        ("tools", lambda: _tools(configuration, offline)),
        ("executor", lambda: _executor(configuration, offline)),
    )
    for about, step in steps:
        try:
            yield from step()
        except LLMCompilerError as error:
            yield CheckResult(about, "wrong", error.message, error.hint)
    yield from _extras()


def _settings(configuration: Configuration) -> Iterator[CheckResult]:
    from llmcompiler.settings.reading import unknown_variables

    files = [str(source.file.path) for source in configuration.sources if source.file is not None]
    yield CheckResult("settings", "ok", ", ".join(dict.fromkeys(files)) or "no file, which is fine")
    for name, close in unknown_variables():
        yield CheckResult(
            "settings",
            "note",
            f"the variable {name} is not a setting, so it is ignored",
            f"did you mean {close}?" if close else "llmcompiler config shows the settings",
        )


def _store(configuration: Configuration) -> Iterator[CheckResult]:
    from llmcompiler.log.store import RunStore, default_path

    path = configuration.settings.store or default_path()
    if path.exists():
        store = RunStore(path)
        store.runs(1)
        store.close()
    folder = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not os.access(folder, os.W_OK):
        yield CheckResult(
            "store",
            "wrong",
            f"{folder} cannot be written",
            "choose another file: store in llmcompiler.toml, LLMCOMPILER_STORE or --store",
        )
        return
    yield CheckResult(
        "store", "ok", str(path) + ("" if path.exists() else " (made by the first run)")
    )


def _model(configuration: Configuration, offline: bool) -> Iterator[CheckResult]:
    spec = configuration.settings.model
    kind, _, model_name = spec.partition(":")
    if kind == "openai":
        yield from _endpoint(configuration, offline)
        return
    if kind in PROVIDERS:
        yield from _provider(spec, offline)
        return
    if kind != "local":
        from llmcompiler.llm.models import open_model

        open_model(spec)  # raises an error that says what is wrong
    if not is_installed("local"):
        yield CheckResult(
            "model",
            "wrong",
            f"{spec} needs the extra local",
            f'{install_command("local")}, or an endpoint: model = "openai:NAME"',
        )
    is_file = "/" in model_name or model_name.endswith(".gguf")
    yield _weights_file(Path(model_name).expanduser()) if is_file else _weights(model_name)


def _weights(name: str) -> CheckResult:
    from llmcompiler.llm import weights

    entry = weights.find_weights(name or weights.DEFAULT)
    if weights.is_pulled(entry.name):
        return CheckResult("model", "ok", f"{entry.name}, {weights.path_of(entry.name)}")
    return CheckResult(
        "model",
        "note",
        f"the weights of {entry.name} are not here; a run downloads {entry.size / 1e6:,.0f} MB",
        f"llmcompiler models pull {entry.name}",
    )


def _weights_file(path: Path) -> CheckResult:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_GGUF))
    except OSError as error:
        return CheckResult(
            "model", "wrong", f"{path}: {error.strerror}", "check the path in the model"
        )
    if magic != _GGUF:
        return CheckResult("model", "wrong", f"{path} is no GGUF file", "convert it for llama.cpp")
    return CheckResult("model", "ok", str(path))


def _endpoint(configuration: Configuration, offline: bool) -> Iterator[CheckResult]:
    from llmcompiler.llm.endpoint import EndpointModel
    from llmcompiler.llm.models import open_model
    from llmcompiler.settings.reading import without_secrets

    spec, key = configuration.settings.model, configuration.api_key(configuration.settings.model)
    configured_model = open_model(
        spec,
        base_url=configuration.settings.base_url,
        api_key=key,
        options=configuration.model_options(spec),
    )
    assert isinstance(configured_model, EndpointModel)
    where = f"{spec} at {without_secrets(configured_model.base_url)}"
    if offline:
        yield CheckResult("endpoint", "ok", f"{where} (not called)")
        return
    # No retries and a short timeout, unlike in a run.
    model = EndpointModel(
        configured_model.model,
        base_url=configured_model.base_url,
        api_key=key,
        retries=0,
        read_timeout=_READ_TIMEOUT_S,
        options=configured_model.options,
    )
    yield from asyncio.run(_probe(model, where))


def _provider(spec: str, offline: bool) -> Iterator[CheckResult]:
    from llmcompiler.llm.endpoint import EndpointModel
    from llmcompiler.llm.models import open_model

    model = open_model(spec)
    assert isinstance(model, EndpointModel)
    if offline:
        yield CheckResult("endpoint", "ok", f"{spec} (not called)")
        return
    yield from asyncio.run(_probe(model, spec))


async def _probe(model: EndpointModel, where: str) -> list[CheckResult]:
    from llmcompiler.llm.base import Request, complete
    from llmcompiler.llm.messages import Message

    hello = Request((Message("user", "Say hello."),), max_tokens=1)
    try:
        await complete(model, hello)
        capabilities = await model.capabilities()
    except LLMCompilerError as error:
        return [CheckResult("endpoint", "wrong", error.message, error.hint)]
    finally:
        await model.aclose()
    names = ", ".join(sorted(capabilities)) or "nothing beyond chat"
    return [
        CheckResult("endpoint", "ok", f"{where} answers"),
        CheckResult(
            "capabilities", "ok", f"{names} (some reasoning strategies need more than chat)"
        ),
    ]


def _planner(configuration: Configuration) -> Iterator[CheckResult]:
    from llmcompiler.compiler import LLMCompiler
    from llmcompiler.reasoning.registry import strategy_class

    settings = configuration.settings
    LLMCompiler((), planner=settings.planner, store=":memory:")
    if settings.reason is not None:
        strategy_class(settings.reason)
    reasons = f", reasoning by {settings.reason}" if settings.reason else ""
    yield CheckResult("planner", "ok", f"{settings.planner}{reasons}")


def _prompt_profile(configuration: Configuration) -> Iterator[CheckResult]:
    from llmcompiler.prompting.profile import profile_for

    settings = configuration.settings
    profile = profile_for(settings.model, settings.prompt_profile, settings.context_tokens)
    origin = configuration.origin("prompt_profile")
    source = f"set by {origin}" if origin else f"from the name {settings.model}"
    tokens = f"{profile.result_tokens:,} of {profile.context_tokens:,} tokens for results"
    yield CheckResult("prompt profile", "ok", f"{profile.name} ({source}); {tokens}")


def _prompts(configuration: Configuration) -> Iterator[CheckResult]:
    from llmcompiler.cli.run import read_prompts

    if read_prompts(configuration) is not None:
        yield CheckResult("prompts", "ok", str(configuration.settings.prompts))


def _tools(configuration: Configuration, offline: bool) -> Iterator[CheckResult]:
    from llmcompiler.settings.servers import configured_server, load_tools

    for spec in configuration.settings.tools:
        if offline and spec.startswith("mcp:"):
            yield CheckResult("tools", "note", f"{spec} was not started")
            continue
        try:
            count = len(load_tools([spec]))
        except LLMCompilerError as error:
            yield CheckResult("tools", "wrong", f"{spec}: {error.message}", error.hint)
        else:
            yield CheckResult("tools", "ok", f"{spec}: {count} tool{'' if count == 1 else 's'}")
    for name, server in configuration.settings.mcp.items():
        if f"mcp:{name}" in configuration.settings.tools and not offline:
            continue
        try:
            configured_server(name, configuration)
        except LLMCompilerError as error:
            yield CheckResult("mcp", "note", error.message, error.hint)
            continue
        words = server.command.split() if isinstance(server.command, str) else server.command or []
        if words and shutil.which(words[0]) is None:
            hint = f"install it, or give its path: {configuration.origin('mcp', name)}"
            yield CheckResult("mcp", "note", f"{name}: there is no program {words[0]!r}", hint)
        else:
            yield CheckResult(
                "mcp", "ok", f"{name} is described; it starts when a run names mcp:{name}"
            )


def _executor(configuration: Configuration, offline: bool) -> Iterator[CheckResult]:
    from llmcompiler.cli.options import create_executor

    settings = configuration.settings
    if settings.executor == "local":
        return
    if settings.ray.values is not None and not os.access(settings.ray.values, os.W_OK):
        where = settings.ray.values
        yield CheckResult(
            "executor", "wrong", f"{where} cannot be written", "make it, on every machine"
        )
    if offline:
        yield CheckResult("executor", "note", "ray was not started")
        return
    executor = create_executor(settings)
    assert executor is not None
    asyncio.run(executor.aclose())
    yield CheckResult("executor", "ok", f"ray, {settings.ray.address or 'on this machine'}")


def _extras() -> Iterator[CheckResult]:
    for name, extra in EXTRAS.items():
        if is_installed(name):
            yield CheckResult("extra", "ok", f"{name} ({extra.use})")
        else:
            said = f"{name} is not installed ({extra.use})"
            yield CheckResult("extra", "note", said, install_command(name))
