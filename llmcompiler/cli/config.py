"""``config``: the settings of a command, and where each value comes from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer

from llmcompiler.cli.options import JsonOption, ProfileOption

if TYPE_CHECKING:
    from llmcompiler.settings.reading import Configuration

_SECRET_TABLES = ("env", "headers")


def config(profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """Show every setting and where it comes from.

    The place is a file and line, a variable, a profile or a flag.

    Keys stay hidden: of a variable only its name is shown; of headers, and of the environment of an
    MCP server, only the names.

    Example: llmcompiler config --profile team
    """
    from llmcompiler.cli.options import read_configuration
    from llmcompiler.cli.output import print_json
    from llmcompiler.settings.files import settings_paths

    configuration = read_configuration(profile=profile)
    files = [(path, path.exists()) for path in settings_paths()]
    settings = list(_settings(configuration))
    if as_json:
        print_json(
            {
                "files": [{"path": str(path), "there": exists} for path, exists in files],
                "settings": {
                    name: {"value": value, "from": origin} for name, value, origin in settings
                },
            }
        )
        return
    width = max(len(name) for name, _, _ in settings)
    rows = [(name, _value_text(value), origin) for name, value, origin in settings]
    column = min(44, max(len(value) for _, value, _ in rows))
    for name, value, origin in rows:
        typer.echo(f"{name:{width}}  {value:{column}}  {origin or 'default'}")
    for path, exists in files:
        typer.echo(f"{'read' if exists else 'not there'}: {path}", err=True)


def _settings(configuration: Configuration) -> Iterator[tuple[str, Any, str | None]]:
    """The name, value and origin of each setting, and of each entry of a server or profile."""
    from llmcompiler.settings.reading import TABLES

    values = configuration.settings.model_dump(mode="json")
    for name, value in values.items():
        if name not in ("limits", *TABLES):
            shown = _displayed_value(name, _decided(name, configuration, value))
            yield name, shown, configuration.origin(name)
    for name, value in values["limits"].items():
        yield f"limits.{name}", value, configuration.origin("limits", name)
    for table in TABLES:
        for name, entries in values[table].items():
            for key, value in entries.items():
                origin = configuration.origin(table, name, key)
                if origin is not None:
                    yield f"{table}.{name}.{key}", _without_secrets(key, value), origin


def _decided(name: str, configuration: Configuration, value: Any) -> Any:
    """The value of a setting; what the model's name decides where it decides."""
    from llmcompiler.prompting.profile import profile_for

    settings = configuration.settings
    if name == "prompt_profile" and value == "auto":
        return f"auto ({profile_for(settings.model).name})"
    if name == "context_tokens" and value is None:
        return profile_for(settings.model, settings.prompt_profile).context_tokens
    return value


def _displayed_value(name: str, value: Any) -> Any:
    from llmcompiler.log.store import default_path
    from llmcompiler.settings.reading import without_secrets

    match name:
        case "store" if value is None:
            return str(default_path())
        case "base_url":
            return without_secrets(value)
        case "api_key_variable":
            return f"{value} ({'set' if os.environ.get(value) else 'not set'})"
    return value


def _without_secrets(key: str, value: Any) -> Any:
    from llmcompiler.settings.reading import without_secrets

    if key in _SECRET_TABLES:
        return dict.fromkeys(value, "…")
    if key in ("url", "base_url", "proxy"):
        return without_secrets(value)
    if key == "command":
        # An argument of a program may be a token.
        words = value.split() if isinstance(value, str) else value
        return " ".join(words[:1]) + (" …" if len(words) > 1 else "")
    return value


def _value_text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key}={_value_text(entry)}" for key, entry in value.items() if entry is not None
        )
    return str(value)
