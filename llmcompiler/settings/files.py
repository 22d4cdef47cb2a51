"""The two files that settings stand in: the project's and the user's.

The project's is ``llmcompiler.toml`` in the working directory or, without one, the table
``[tool.llmcompiler]`` of its ``pyproject.toml``; the user's is ``llmcompiler.toml`` in the user's
configuration directory. Directories above are not looked into: whoever can write there would
choose what runs here. The module must not know which settings there are.
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
    """A file that was read.

    Attributes:
        path: the file.
        data: what it says, without the table around it in ``pyproject.toml``.
        text: the whole of it.
        table: the names of the table that holds the settings; none for a file of its own.
    """

    path: Path
    data: Mapping[str, Any]
    text: str
    table: Sequence[str] = ()

    def line(self, key: Sequence[str]) -> int | None:
        """Where the file says something about ``key``, or about the table that it stands in."""
        wanted, inside, best = [*self.table, *key], list[str](), (0, 0)
        for number, line in enumerate(self.text.splitlines(), 1):
            if header := _HEADER.match(line):
                inside = _names(header["name"])
                here = inside
            elif named := _KEY.match(line):
                here = [*inside, *_names(named["name"])]
            else:
                continue
            if wanted[: len(here)] == here and len(here) > best[0]:
                best = (len(here), number)
        # A table that others are in as well is no place worth naming.
        return best[1] if best[0] > len(self.table) else None

    def place(self, key: Sequence[str]) -> str:
        """The file, and the line where one is known, as people write it."""
        line = self.line(key)
        return str(self.path) if line is None else f"{self.path}:{line}"


def _names(text: str) -> list[str]:
    found = re.findall(r"""[\w\-]+|"[^"]*"|'[^']*'""", text)
    return [name.strip("\"'") for name in found]


def settings_files(directory: Path | None = None) -> Iterator[SettingsFile]:
    """The files that are there, the one that counts more first.

    Args:
        directory: the project's; the working directory where not given.

    Raises:
        UsageError: one cannot be read, or is no TOML.
    """
    own, project, user = candidates(directory)
    found = _read(own) or _read(project, TABLE)
    if found is not None:
        yield found
    if (found := _read(user)) is not None:
        yield found


def candidates(directory: Path | None = None) -> tuple[Path, Path, Path]:
    """Where settings may stand: the project's two files and the user's."""
    import platformdirs

    here = directory or Path.cwd()
    user = Path(platformdirs.user_config_dir("llmcompiler"))
    return here / FILE, here / PROJECT_FILE, user / FILE


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
            return None  # somebody else's trouble
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
