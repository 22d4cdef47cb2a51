"""The two files of settings: the project's and the user's.

The project's file is ``llmcompiler.toml`` in the working directory. Without one, it is the table
``[tool.llmcompiler]`` of ``pyproject.toml`` there. The user's file is ``llmcompiler.toml`` in the
user's configuration directory. Directories above the working directory are not searched, because
other people may be able to write there and would choose which programs run here.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmcompiler.errors import UsageError

FILE = "llmcompiler.toml"
PROJECT_FILE = "pyproject.toml"
TABLE = ("tool", "llmcompiler")

_HEADER = re.compile(r"\s*\[\s*(?P<name>[^\[\]]+?)\s*\]")
_KEY = re.compile(r"""\s*(?P<name>(?:[\w\-.]|"[^"]*"|'[^']*')+?)\s*=""")


@dataclass(frozen=True)
class SettingsFile:
    """A file of settings.

    Attributes:
        path: the file.
        data: the settings, without the table around them in ``pyproject.toml``.
        text: the complete text of the file.
        table: the name of the table that holds the settings, in parts; empty without one.
    """

    path: Path
    data: Mapping[str, Any]
    text: str
    table: Sequence[str] = ()

    def line(self, key: Sequence[str]) -> int | None:
        """Number of the line with ``key``, or of the header of its table; ``None`` if unknown."""
        full_key, table, best = [*self.table, *key], list[str](), (0, 0)
        for number, line in enumerate(self.text.splitlines(), 1):
            if header := _HEADER.match(line):
                table = _names(header["name"])
                key_of_line = table
            elif assignment := _KEY.match(line):
                key_of_line = [*table, *_names(assignment["name"])]
            else:
                continue
            length = len(key_of_line)
            if full_key[:length] == key_of_line and length > best[0]:
                best = (length, number)
        # The table around all settings is no helpful place.
        return best[1] if best[0] > len(self.table) else None

    def place(self, key: Sequence[str]) -> str:
        """``FILE:LINE`` of ``key``; only the file if the line is unknown."""
        line = self.line(key)
        return str(self.path) if line is None else f"{self.path}:{line}"


def _names(text: str) -> list[str]:
    names = re.findall(r"""[\w\-]+|"[^"]*"|'[^']*'""", text)
    return [name.strip("\"'") for name in names]


def settings_files(directory: Path | None = None) -> Iterator[SettingsFile]:
    """The files that exist, in order of precedence.

    Args:
        directory: the project's directory; by default the working directory.

    Raises:
        UsageError: a file cannot be read, or is no TOML.
    """
    own_path, project_path, user_path = settings_paths(directory)
    file = _read(own_path) or _read(project_path, TABLE)
    if file is not None:
        yield file
    if (file := _read(user_path)) is not None:
        yield file


def settings_paths(directory: Path | None = None) -> tuple[Path, Path, Path]:
    """The possible files of settings: the project's two and the user's."""
    import platformdirs

    project = directory or Path.cwd()
    user = Path(platformdirs.user_config_dir("llmcompiler"))
    return project / FILE, project / PROJECT_FILE, user / FILE


def _read(path: Path, table: Sequence[str] = ()) -> SettingsFile | None:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text in UTF-8", hint="TOML files are UTF-8") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    try:
        data: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        if table and "tool.llmcompiler" not in text:
            return None  # an error in tables of other programs
        raise UsageError(
            f"{path} is not TOML: {error}", hint='text stands in quotes: model = "local"'
        ) from None
    for name in table:
        data = data.get(name) if isinstance(data, dict) else None
        if data is None:
            return None
    if not isinstance(data, dict):
        raise UsageError(f"{path}: {'.'.join(table)} is no table", hint=f"[{'.'.join(table)}]")
    return SettingsFile(path, data, text, table)
