"""Options that several commands share, and the parsing of their texts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import typer

from llmcompiler.cli import completion
from llmcompiler.cli.errors import say
from llmcompiler.errors import LogError, UsageError

if TYPE_CHECKING:
    from llmcompiler.executors.base import Executor
    from llmcompiler.log.store import RunStore
    from llmcompiler.settings.reading import Configuration
    from llmcompiler.settings.schema import Settings
    from llmcompiler.tools.base import Tool

K = TypeVar("K")

ToolsOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--tools",
        metavar="SPEC",
        autocompletion=completion.tools,
        help="A built-in set (calc, geo, wikipedia, files), package.module:NAME, a Python file, or "
        "an MCP server: mcp:COMMAND, mcp:URL. May be repeated; calc and geo where not given.",
        show_default=False,
    ),
]
AcceptOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--accept-tool-changes",
        help="Continue although tools of MCP servers changed since they were last used.",
    ),
]
ModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="SPEC",
        help="local, local:NAME, local:/path/to/file.gguf, native:NAME|/path (branches share "
        "attention), openai:NAME for an OpenAI-compatible endpoint (OPENAI_BASE_URL, "
        "OPENAI_API_KEY), or a provider's: anthropic:NAME, gemini:NAME, ollama:NAME and others. "
        "local where nothing is set.",
        show_default=False,
    ),
]
ProfileOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="NAME",
        help="A profile of llmcompiler.toml: an endpoint with its model and key.",
        show_default=False,
    ),
]
SameModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="SPEC",
        help="As for run; the model of the recorded run where not given.",
        show_default=False,
    ),
]
BaseUrlOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--base-url", metavar="URL", help="Endpoint of openai: models.", show_default=False
    ),
]
PlannerOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--planner",
        metavar="NAME",
        autocompletion=completion.planners,
        help="How questions are planned: text (where nothing is set), drafts, structured, "
        "function-calling, react.",
        show_default=False,
    ),
]
SamePlannerOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--planner",
        metavar="NAME",
        help="As for run; the planner of the recorded run where not given.",
        show_default=False,
    ),
]
PromptsOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        help="Texts for planner and joiner: a TOML or JSON file. Texts that it leaves out stay.",
        show_default=False,
    ),
]
LimitOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="K=V",
        help="A bound of the run: concurrency, deadline (seconds), replans, repairs, model_calls, "
        "tokens, tool_calls, cost (US dollars). May be repeated.",
        show_default=False,
    ),
]
ReasonOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--reason",
        metavar="STRATEGY",
        autocompletion=completion.strategies,
        help="Let the planner call think(), which reasons by STRATEGY: many drafts, one answer.",
        show_default=False,
    ),
]
JoinReducerOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--join-reducer",
        metavar="NAME[:N]",
        help="Draft N answers at once, three where not given, and make one of them by vote, "
        "best_of, tournament or synthesize.",
        show_default=False,
    ),
]
ExecutorOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--executor",
        metavar="WHERE",
        help="Where tools are called: local (where nothing is set), or ray for a Ray cluster; its "
        "address is ray.address in llmcompiler.toml.",
        show_default=False,
    ),
]
StoreOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="FILE",
        help="The file of runs; the user's own where not given.",
        show_default=False,
    ),
]
CacheOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="FILE",
        help="A file that keeps results of tools made with @tool(cache=SECONDS), for later runs.",
        show_default=False,
    ),
]
CacheExplainOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--cache-explain", help="Print for each call whether the cache served it, and why not."
    ),
]
JsonOption: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout.")
]
QuietOption: TypeAlias = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show nothing but the answer and errors.")
]
RunArgument: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run's id, a unique beginning of one, or: last.",
        autocompletion=completion.runs,
    ),
]


def parse_pairs(texts: Iterable[str] | None, option: str) -> dict[str, str]:
    """Parse texts of the form ``K=V``. The last value of a name counts.

    Args:
        texts: as given on the command line.
        option: the option's name, for errors.

    Raises:
        UsageError: a text has no ``=``.
    """
    values: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{option} {text!r} is not of the form K=V", hint=f"{option} name=3")
        values[name.strip()] = value
    return values


def parse_by_task(texts: Iterable[str] | None, option: str) -> dict[int, str]:
    """Parse texts of the form ``TASK=…``, as ``parse_pairs`` does.

    Raises:
        UsageError: a text has no ``=``, or does not begin with a task's number.
    """
    values = parse_pairs(texts, option)
    for task in values:
        if not task.isdecimal():
            raise UsageError(
                f"{option} {task}=… does not name a task", hint=f"{option} 3=…, with its number"
            )
    return {int(task): text for task, text in values.items()}


def parse_json_values(texts: Mapping[K, str]) -> dict[K, Any]:
    """Parse each value as JSON; a text that is no JSON stays a string."""
    return {name: _json_or_string(text) for name, text in texts.items()}


def _json_or_string(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_configuration(**flags: Any) -> Configuration:
    """The configuration of a command, from its flags, the environment and the settings files.

    Args:
        flags: by name of the setting; ``limits`` holds the texts of ``--limit``.

    Raises:
        UsageError: a setting is invalid.
    """
    from llmcompiler.limits import Limits
    from llmcompiler.settings.reading import read_settings

    limits = parse_pairs(flags.pop("limits", None), "--limit")
    Limits.parse(limits)  # raises an error that names the flag
    return read_settings({**flags, "limits": limits})


def create_executor(settings: Settings) -> Executor | None:
    """The executor that the settings name, connected to its cluster; ``None`` for this process.

    Raises:
        UsageError: Ray is not installed, or there is no cluster at the address.
    """
    if settings.executor == "local":
        return None
    from llmcompiler.executors.ray import RayExecutor

    ray = settings.ray
    executor = RayExecutor(ray.address, values=ray.values, above=ray.above)
    executor.start()
    return executor


def open_store(flag: Path | None) -> RunStore:
    """Open the store for reading.

    Raises:
        LogError: the store that was named does not exist, or cannot be read.
    """
    from llmcompiler.log.store import RunStore

    configuration = read_configuration(store=flag)
    path = configuration.settings.store
    if path is not None and str(path) != ":memory:" and not path.exists():
        raise LogError(
            f"there is no run store {path}",
            hint=f"check the name given with {configuration.origin('store')}",
        )
    return RunStore(path)


def load_named_tools(specs: list[str] | None) -> dict[str, Tool]:
    """The tools that ``--tools`` names; without it, those of the settings."""
    from llmcompiler.settings.servers import load_tools

    configuration = read_configuration(tools=specs)
    tools = load_tools(configuration.settings.tools)
    note_missing_tools(configuration)
    return tools


def note_missing_tools(configuration: Configuration) -> None:
    """Say which of the default tools are not installed, unless the user has named tools."""
    from llmcompiler.extras import install_command, is_installed

    if configuration.origin("tools") is None and not is_installed("geo"):
        say(
            "note",
            "plans can call calc only: the tools geo (countries, cities) are not installed",
            f"{install_command('geo')}, or name tools of your own with --tools",
        )
