"""``config``: what a command would run with, and where each value was said."""

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
    """Show every setting and where it was said.

    A file and line, a variable, a profile, a flag.

    No key is shown: of variables only the names, of headers and of what MCP servers see only that
    they are there.

    Example: llmcompiler config --profile team
    """
    from llmcompiler.cli.options import configured
    from llmcompiler.cli.output import print_json
    from llmcompiler.settings.files import candidates

    read = configured(profile=profile)
    files = [(path, path.exists()) for path in candidates()]
    settings = list(_settings(read))
    if as_json:
        print_json(
            {
                "files": [{"path": str(path), "there": there} for path, there in files],
                "settings": {
                    name: {"value": value, "from": origin} for name, value, origin in settings
                },
            }
        )
        return
    width = max(len(name) for name, _, _ in settings)
    shown = [(name, _shown(value), origin) for name, value, origin in settings]
    column = min(44, max(len(value) for _, value, _ in shown))
    for name, value, origin in shown:
        typer.echo(f"{name:{width}}  {value:{column}}  {origin or 'default'}")
    for path, there in files:
        typer.echo(f"{'read' if there else 'not there'}: {path}", err=True)


def _settings(read: Configuration) -> Iterator[tuple[str, Any, str | None]]:
    """Each setting's name, value and place; servers and profiles by what is said of them."""
    values = read.settings.model_dump(mode="json")
    for name, value in values.items():
        if name not in ("limits", "mcp", "profiles"):
            yield name, _told(name, value), read.origin(name)
    for name, value in values["limits"].items():
        yield f"limits.{name}", value, read.origin("limits", name)
    for table in ("mcp", "profiles"):
        for name, said in values[table].items():
            for key, value in said.items():
                if read.origin(table, name, key) is not None:
                    place = read.origin(table, name, key)
                    yield f"{table}.{name}.{key}", _guarded(key, value), place


def _told(name: str, value: Any) -> Any:
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


def _guarded(key: str, value: Any) -> Any:
    from llmcompiler.settings.reading import without_secrets

    if key in _SECRET_TABLES:
        return dict.fromkeys(value, "…")
    if key in ("url", "base_url"):
        return without_secrets(value)
    if key == "command":
        # What stands behind a program may be a token.
        words = value.split() if isinstance(value, str) else value
        return " ".join(words[:1]) + (" …" if len(words) > 1 else "")
    return value


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_shown(one)}" for key, one in value.items() if one is not None)
    return str(value)
