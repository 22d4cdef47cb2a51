"""Settings from where they are said, and the place where each was said.

What is said nearer to the command counts: flags; the profile that a flag names; the environment;
the profile that a variable or a file names; the project's file; the user's file; defaults. Tables
are merged key by key. Nothing is kept between two readings: a command reads once and hands on what
it read. The module must not know what settings are for.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, InitSettingsSource, SettingsError
from pydantic_settings.sources import PydanticBaseSettingsSource

from llmcompiler.errors import UsageError
from llmcompiler.limits import Limits
from llmcompiler.settings.files import SettingsFile, settings_files
from llmcompiler.settings.schema import (
    KEY_VARIABLE,
    PREFIX,
    McpServerSettings,
    Profile,
    RaySettings,
    Settings,
)

Key = tuple[str, ...]

BASE_URL_VARIABLE = "OPENAI_BASE_URL"
_ENVIRONMENT = "environment"
_FLAGS = {"limits": "--limit"}
_OWN_VARIABLES = ("CACHE", "HUB", "DEBUG")
"""Read where they are needed: they are about a machine, not about a command."""


@dataclass(frozen=True)
class Source:
    """One place that says something.

    Attributes:
        name: for people.
        data: what it says, by key.
        file: where the place is a file.
    """

    name: str
    data: Mapping[str, Any]
    file: SettingsFile | None = None

    def place(self, key: Key) -> str:
        """Where exactly it says ``key``."""
        if self.file is not None:
            prefix = self.name.split() if self.name.startswith("profile ") else []
            inner = ("profiles", prefix[1]) if prefix else ()
            found = self.file.place((*inner, *key))
            return f"{self.name}, {found}" if prefix else found
        if self.name == _ENVIRONMENT:
            return _variable(key)
        return _FLAGS.get(key[0], "--" + key[0].replace("_", "-"))


@dataclass(frozen=True)
class Configuration:
    """Settings, and where they were said.

    Attributes:
        settings: what counts.
        sources: the places, the one that counts most first.
    """

    settings: Settings
    sources: tuple[Source, ...]

    def origin(self, *key: str) -> str | None:
        """Where the value of ``key`` was said; ``None`` for a default."""
        found = next((one for one in self.sources if _says(one.data, key)), None)
        return None if found is None else found.place(key)

    def asked_for(self, key: str) -> Any:
        """What the command itself says: a flag, or the profile that a flag names; else ``None``.

        For commands that otherwise go on as a run was begun.
        """
        for source in self.sources:
            if source.name == _ENVIRONMENT:
                break
            if key in source.data:
                return source.data[key]
        return None

    def api_key(self, *models: str) -> str:
        """The endpoint's key, from its variable; empty for none.

        A key goes only where it was meant to go: an endpoint that a file names gets the key whose
        variable stands beside it, never one that happens to be in the environment.

        Args:
            models: what is to be asked; embedded ones need no key.

        Raises:
            UsageError: the variable that the settings name is not set.
        """
        if not any(model.startswith("openai:") for model in models):
            return ""
        url, variable = self._rank("base_url"), self._rank("api_key_variable")
        from_file = url is not None and self.sources[url].file is not None
        if url is not None and from_file and (variable is None or variable > url):
            return ""
        name = self.settings.api_key_variable
        key = os.environ.get(name, "")
        if not key and variable is not None:
            where = without_secrets(self.settings.base_url) or "the endpoint"
            raise UsageError(
                f"the key of {where} is to be in {name}, which is not set",
                hint=f"export {name}=…; {self.origin('api_key_variable')} names it",
            )
        return key

    def _rank(self, key: str) -> int | None:
        return next((n for n, one in enumerate(self.sources) if key in one.data), None)


def read_settings(
    flags: Mapping[str, Any] | None = None, directory: Path | None = None
) -> Configuration:
    """Settings from flags, environment and files.

    Args:
        flags: by setting; those that are ``None`` or empty were not given.
        directory: the project's; the working directory where not given.

    Raises:
        UsageError: a file or a value is not as it should be, or a profile is not there; the
            message names the place and the key.
    """
    given = {key: value for key, value in (flags or {}).items() if value not in (None, [], {})}
    files = [Source(str(file.path), _absolute(file), file) for file in settings_files(directory)]
    environment = Source(_ENVIRONMENT, _environment())
    said = (Source("flags", given), environment, *files)
    sources = _with_profile(said, "profile" in given)

    class Sourced(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: Any, **__: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(InitSettingsSource(settings_cls, dict(one.data)) for one in sources)

    try:
        settings = Sourced()
    except ValidationError as error:
        raise _refusal(error, sources) from None
    return Configuration(settings, sources)


def without_secrets(url: str | None) -> str | None:
    """The address without a user's name, password and query."""
    if url is None:
        return None
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, place, parts.path, "…" if parts.query else "", ""))


class _Environment(EnvSettingsSource):
    """The library's, without what is too much for a variable."""

    def __call__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__call__().items() if k not in ("mcp", "profiles")}


def _environment() -> dict[str, Any]:
    try:
        found = _Environment(Settings)()
    except SettingsError as error:
        raise UsageError(
            f"a variable of the environment cannot be read: {error}",
            hint=f"one value a variable: {PREFIX}LIMITS__DEADLINE=60",
        ) from None
    if (url := os.environ.get(BASE_URL_VARIABLE)) and "base_url" not in found:
        found["base_url"] = url
    return found


def unknown_variables() -> Iterator[tuple[str, str]]:
    """Variables that look like settings and are none, each with what may have been meant."""
    known = [
        PREFIX + name
        for name in (
            *(key.upper() for key in Settings.model_fields if key not in ("mcp", "profiles")),
            *_OWN_VARIABLES,
        )
    ]
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name.split("__")[0] not in known:
            yield name, next(iter(difflib.get_close_matches(name, known, 1)), "")


def _variable(key: Key) -> str:
    """The variable that says ``key``, of those that are set."""
    for end in range(len(key), 0, -1):
        name = PREFIX + "__".join(key[:end]).upper()
        if name in os.environ:
            return name
    return BASE_URL_VARIABLE if key[0] == "base_url" else PREFIX + "__".join(key).upper()


def _with_profile(said: tuple[Source, ...], by_flag: bool) -> tuple[Source, ...]:
    """The sources, with those of the profile that they name in its place among them."""
    naming = next((one for one in said if one.data.get("profile") is not None), None)
    if naming is None:
        return said
    name = str(naming.data["profile"])
    found, known = [], []
    for one in said:
        profiles = one.data.get("profiles")
        if isinstance(profiles, Mapping):
            known += list(profiles)
            if isinstance(said_there := profiles.get(name), Mapping):
                found.append(Source(f"profile {name}", said_there, one.file))
    if not found:
        close = difflib.get_close_matches(name, known, 1)
        if close:
            hint = f"did you mean {close[0]!r}?"
        elif known:
            hint = f"there are {', '.join(map(repr, known))}"
        else:
            hint = f"write one into llmcompiler.toml: [profiles.{name}]"
        raise UsageError(
            f"there is no profile {name!r}, which {naming.place(('profile',))} names", hint=hint
        )
    place = 1 if by_flag else 2
    return (*said[:place], *found, *said[place:])


def _absolute(file: SettingsFile) -> dict[str, Any]:
    """Paths in a file are meant from where the file is."""

    def absolute(data: Mapping[str, Any], *keys: str) -> dict[str, Any]:
        return dict(data) | {
            key: str(file.path.parent / Path(data[key]).expanduser())
            for key in keys
            if isinstance(data.get(key), str) and data[key] != ":memory:"
        }

    data = absolute(file.data, "store", "prompts")
    if isinstance(data.get("ray"), Mapping):
        data["ray"] = absolute(data["ray"], "values")
    return data


def _says(data: Any, key: Key) -> bool:
    for name in key:
        if not isinstance(data, Mapping) or name not in data:
            return False
        data = data[name]
    return True


def _refusal(error: ValidationError, sources: tuple[Source, ...]) -> UsageError:
    """The first thing that is wrong: where it is said, the key, and what the key is for."""
    # A misspelt key is what helps, where another complaint may follow from it.
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    key = tuple(str(part) for part in first["loc"] if isinstance(part, str))
    fields, description = _fields(key)
    at = key if first["type"] == "extra_forbidden" else _named(key)
    source = next((one for one in sources if _says(one.data, at)), None)
    where = "the settings" if source is None else source.place(at)
    dotted = ".".join(at)
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key[-1], fields, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        if key[-1] in ("api_key", "key", "token"):
            hint = (
                f'keys are not written down: api_key_variable = "{KEY_VARIABLE}" names a variable'
            )
        elif not close:
            hint = f"there are {', '.join(fields)}"
        return UsageError(f"{where}: there is no setting {dotted!r}", hint=hint.strip())
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] in ("model_type", "dict_type"):
        said = f"should be a table: [{dotted}]"
    return UsageError(f"{where}: {dotted}: {said}", hint=description)


def _fields(key: Key) -> tuple[list[str], str]:
    """The settings that there are beside ``key``, and what ``key`` itself is for."""
    model: type[BaseModel] = Settings
    rest = list(key)
    if len(rest) > 1 and rest[0] in ("mcp", "profiles"):
        model = McpServerSettings if rest[0] == "mcp" else Profile
        rest = rest[2:]
    if len(rest) > 1 and rest[0] in ("limits", "ray"):
        model, rest = (Limits if rest[0] == "limits" else RaySettings), rest[1:]
    field = model.model_fields.get(rest[0]) if rest else None
    description = (field.description or "") if field is not None else ""
    return list(model.model_fields), description


def _named(key: Key) -> Key:
    """The key without what pydantic says of the choices of a union that it tried."""
    depth = 1 if key[0] not in ("mcp", "profiles") else 3
    if key[depth - 1 : depth] in (("limits",), ("ray",)):
        depth += 1
    return key[:depth]
