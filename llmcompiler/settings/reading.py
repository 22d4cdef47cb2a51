"""Reads settings from all their sources, with the place of each value.

The order of precedence: flags; the profile that a flag names; the environment; the profile that a
variable or a file names; the project's file; the user's file; defaults. Tables are merged key by
key. Nothing is cached: a command reads the settings once and hands the result on.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, InitSettingsSource, SettingsError
from pydantic_settings.sources import PydanticBaseSettingsSource

from llmcompiler.errors import UsageError
from llmcompiler.limits import Limits
from llmcompiler.model_options import ModelOptions
from llmcompiler.settings.files import SettingsFile, settings_files
from llmcompiler.settings.schema import (
    KEY_VARIABLE,
    PREFIX,
    EndpointProfile,
    McpServerSettings,
    RaySettings,
    Settings,
)

Key = tuple[str, ...]

TABLES: dict[str, type[BaseModel]] = {
    "mcp": McpServerSettings,
    "models": ModelOptions,
    "profiles": EndpointProfile,
}
"""The settings that are tables of tables, with what each inner table is."""

BASE_URL_VARIABLE = "OPENAI_BASE_URL"
_ENVIRONMENT = "environment"
_FLAGS = {"limits": "--limit"}
_OWN_VARIABLES = ("CACHE", "HUB", "DEBUG")
"""Variables that are no settings: they describe a machine and are read where they are needed."""


@dataclass(frozen=True)
class SettingsSource:
    """One source of values.

    Attributes:
        name: the source's name for people.
        data: its values, by key.
        file: the file; ``None`` if the source is none.
    """

    name: str
    data: Mapping[str, Any]
    file: SettingsFile | None = None

    def place(self, key: Key) -> str:
        """The place of ``key`` in the source, for people."""
        if self.file is not None:
            prefix = self.name.split() if self.name.startswith("profile ") else []
            inner = ("profiles", prefix[1]) if prefix else ()
            place = self.file.place((*inner, *key))
            return f"{self.name}, {place}" if prefix else place
        if self.name == _ENVIRONMENT:
            return _variable(key)
        return _FLAGS.get(key[0], "--" + key[0].replace("_", "-"))


@dataclass(frozen=True)
class Configuration:
    """Settings and their sources.

    Attributes:
        settings: the values.
        sources: the sources, in order of precedence.
    """

    settings: Settings
    sources: tuple[SettingsSource, ...]

    def origin(self, *key: str) -> str | None:
        """The place of the value of ``key``; ``None`` for a default."""
        source = next((source for source in self.sources if _has_key(source.data, key)), None)
        return None if source is None else source.place(key)

    def from_flags(self, key: str) -> Any:
        """The value of a flag, or of the profile that a flag names; ``None`` if neither has one.

        Commands that continue a run use it, because other values come from the run.
        """
        for source in self.sources:
            if source.name == _ENVIRONMENT:
                break
            if key in source.data:
                return source.data[key]
        return None

    def api_key(self, *models: str) -> str:
        """The endpoint's key, from its variable; empty if there is none.

        An endpoint that a file names gets only the key whose variable the same file names, or a
        source of higher precedence. It never gets a key that happens to be in the environment.

        Args:
            models: the models to ask; embedded ones need no key.

        Raises:
            UsageError: the variable that the settings name is not set.
        """
        if not any(model.startswith("openai:") for model in models):
            return ""
        url_rank, variable_rank = self._rank("base_url"), self._rank("api_key_variable")
        if (
            url_rank is not None
            and self.sources[url_rank].file is not None
            and (variable_rank is None or variable_rank > url_rank)
        ):
            return ""
        name = self.settings.api_key_variable
        key = os.environ.get(name, "")
        if not key and variable_rank is not None:
            endpoint = without_secrets(self.settings.base_url) or "the endpoint"
            raise UsageError(
                f"the key of {endpoint} is to be in {name}, which is not set",
                hint=f"export {name}=…; {self.origin('api_key_variable')} names it",
            )
        return key

    def model_options(self, spec: str) -> ModelOptions | None:
        """The options of a model: those of its own table, over those of the table ``default``.

        Args:
            spec: what ``--model`` takes. A table may have its name, or what stands behind its
                first colon.

        Raises:
            UsageError: a header uses a variable that is not set.
        """
        found: dict[str, Any] = {}
        for name in ("default", spec.partition(":")[2], spec):
            table = self.settings.models.get(name) if name else None
            if table is not None:
                values = table.model_dump(exclude_unset=True)
                place = str(self.origin("models", name))
                if headers := values.get("headers"):
                    values["headers"] = substitute_variables(headers, place, f"models.{name}")
                found |= values
        return ModelOptions(**found) if found else None

    def _rank(self, key: str) -> int | None:
        """The position of the first source that has ``key``."""
        return next((n for n, source in enumerate(self.sources) if key in source.data), None)


def substitute_variables(values: Mapping[str, str], place: str, name: str) -> dict[str, str]:
    """The values with environment variables in place of ``${NAME}``.

    Args:
        values: texts by key.
        place: where they stand, for messages.
        name: the table's name, for messages.

    Raises:
        UsageError: a variable is not set, or a dollar sign stands alone.
    """
    try:
        return {key: Template(value).substitute(os.environ) for key, value in values.items()}
    except KeyError as error:
        raise UsageError(
            f"{place}: {name} uses the variable {error.args[0]}, which is not set",
            hint=f"export {error.args[0]}=…",
        ) from error
    except ValueError as error:
        raise UsageError(f"{place}: {name}: {error}", hint="a dollar sign is $$") from error


def read_settings(
    flags: Mapping[str, Any] | None = None, directory: Path | None = None
) -> Configuration:
    """Settings from flags, environment and files.

    Args:
        flags: values by setting; ``None`` or an empty value means that a flag is absent.
        directory: the project's directory; by default the working directory.

    Raises:
        UsageError: a file or a value is wrong, or there is no such profile; the message names the
            place and the key.
    """
    flag_values = {
        key: value for key, value in (flags or {}).items() if value not in (None, [], {})
    }
    files = [
        SettingsSource(str(file.path), _with_absolute_paths(file), file)
        for file in settings_files(directory)
    ]
    environment = SettingsSource(_ENVIRONMENT, _environment())
    sources = _with_profile(
        (SettingsSource("flags", flag_values), environment, *files),
        by_flag="profile" in flag_values,
    )

    class Sourced(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: Any, **__: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(InitSettingsSource(settings_cls, dict(source.data)) for source in sources)

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
    """The library's source, without the tables, which are too large for variables."""

    def __call__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__call__().items() if k not in TABLES}


def _environment() -> dict[str, Any]:
    try:
        values = _Environment(Settings)()
    except SettingsError as error:
        raise UsageError(
            f"a variable of the environment cannot be read: {error}",
            hint=f"one value a variable: {PREFIX}LIMITS__DEADLINE=60",
        ) from None
    if (url := os.environ.get(BASE_URL_VARIABLE)) and "base_url" not in values:
        values["base_url"] = url
    return values


def unknown_variables() -> Iterator[tuple[str, str]]:
    """Variables that look like settings and are none, each with the most similar setting."""
    known_names = [
        PREFIX + name
        for name in (
            *(key.upper() for key in Settings.model_fields if key not in TABLES),
            *_OWN_VARIABLES,
        )
    ]
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name.split("__")[0] not in known_names:
            yield name, next(iter(difflib.get_close_matches(name, known_names, 1)), "")


def _variable(key: Key) -> str:
    """The variable that sets ``key``, or a table around it."""
    for end in range(len(key), 0, -1):
        name = PREFIX + "__".join(key[:end]).upper()
        if name in os.environ:
            return name
    return BASE_URL_VARIABLE if key[0] == "base_url" else PREFIX + "__".join(key).upper()


def _with_profile(
    sources: tuple[SettingsSource, ...], *, by_flag: bool
) -> tuple[SettingsSource, ...]:
    """The sources, and among them the tables of the profile that they name.

    Args:
        sources: flags, environment and files, in order of precedence.
        by_flag: True if a flag names the profile.
    """
    naming = next((source for source in sources if source.data.get("profile") is not None), None)
    if naming is None:
        return sources
    name = str(naming.data["profile"])
    profile_sources, names = [], []
    for source in sources:
        profiles = source.data.get("profiles")
        if isinstance(profiles, Mapping):
            names += list(profiles)
            if isinstance(table := profiles.get(name), Mapping):
                profile_sources.append(SettingsSource(f"profile {name}", table, source.file))
    if not profile_sources:
        close = difflib.get_close_matches(name, names, 1)
        if close:
            hint = f"did you mean {close[0]!r}?"
        elif names:
            hint = f"there are {', '.join(map(repr, names))}"
        else:
            hint = f"write one into llmcompiler.toml: [profiles.{name}]"
        raise UsageError(
            f"there is no profile {name!r}, which {naming.place(('profile',))} names", hint=hint
        )
    rank = 1 if by_flag else 2
    return (*sources[:rank], *profile_sources, *sources[rank:])


def _with_absolute_paths(file: SettingsFile) -> dict[str, Any]:
    """The file's settings; relative paths in it are relative to the file's directory."""

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


def _has_key(data: Any, key: Key) -> bool:
    for name in key:
        if not isinstance(data, Mapping) or name not in data:
            return False
        data = data[name]
    return True


def _refusal(error: ValidationError, sources: tuple[SettingsSource, ...]) -> UsageError:
    """An error about the first wrong value, with its place, its key and the key's purpose."""
    # An unknown key is often misspelt, and then it causes the other errors.
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    first = next((item for item in errors if item["type"] == "extra_forbidden"), errors[0])
    key = tuple(str(part) for part in first["loc"] if isinstance(part, str))
    fields, description = _fields(key)
    at = key if first["type"] == "extra_forbidden" else _setting_key(key)
    source = next((source for source in sources if _has_key(source.data, at)), None)
    place = "the settings" if source is None else source.place(at)
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
        return UsageError(f"{place}: there is no setting {dotted!r}", hint=hint.strip())
    problem = first["msg"].removeprefix("Value error, ")
    if first["type"] in ("model_type", "dict_type"):
        problem = f"should be a table: [{dotted}]"
    return UsageError(f"{place}: {dotted}: {problem}", hint=description)


def _fields(key: Key) -> tuple[list[str], str]:
    """The names of the settings beside ``key``, and the description of ``key``."""
    model: type[BaseModel] = Settings
    parts = list(key)
    if len(parts) > 1 and parts[0] in TABLES:
        model = TABLES[parts[0]]
        parts = parts[2:]
    if len(parts) > 1 and parts[0] in ("limits", "ray"):
        model, parts = (Limits if parts[0] == "limits" else RaySettings), parts[1:]
    field = model.model_fields.get(parts[0]) if parts else None
    description = (field.description or "") if field is not None else ""
    return list(model.model_fields), description


def _setting_key(key: Key) -> Key:
    """The key without the choices of a union, which pydantic appends."""
    depth = 1 if key[0] not in TABLES else 3
    if key[depth - 1 : depth] in (("limits",), ("ray",)):
        depth += 1
    return key[:depth]
