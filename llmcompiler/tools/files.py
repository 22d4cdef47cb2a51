"""The ``files`` tools: list, read and search text files under one directory.

No path that a plan can write, and no symbolic link, leads out of the root. The tools only read. The
search takes plain text and no regular expressions, because a planner's expression could run for
hours.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath
from typing import TextIO

from llmcompiler.errors import ToolError, UsageError
from llmcompiler.tools.base import Tool, tool
from llmcompiler.tools.context import current_call

MAX_FILES = 2000
MAX_MATCHES = 200
MAX_LINES = 2000
MAX_LINE = 2000
"""Most characters of a line that are returned; three dots stand for the rest."""

MAX_SEARCHED = 5_000_000
"""A search passes over files of more bytes."""


@dataclass(frozen=True)
class FileText:
    """Some lines of a file."""

    path: str
    start: int
    end: int
    more: bool
    text: str


@dataclass(frozen=True)
class Match:
    """A line that contains the text of a search."""

    path: str
    line: int
    text: str


def file_tools(root: str | Path) -> list[Tool]:
    """Tools that read under ``root``.

    Raises:
        UsageError: ``root`` is not a directory.
    """
    top = Path(root).expanduser().resolve()
    if not top.is_dir():
        raise UsageError(
            f"the root of the files tools, {str(root)!r}, is not a directory",
            hint="give an existing one: files:DIRECTORY",
        )

    @tool
    def list_files(pattern: str = "**/*") -> list[str]:
        """List the files whose path matches a pattern, sorted; hidden ones are left out.

        Args:
            pattern: a glob such as "*.md" (the top folder only) or "**/*.py" (all folders).
        """
        paths = list(islice(_matching(top, pattern), MAX_FILES + 1))
        if len(paths) > MAX_FILES:
            raise ToolError(
                f"more than {MAX_FILES} files match {pattern!r}", hint="use a narrower pattern"
            )
        return sorted(_relative(top, path) for path in paths)

    @tool
    def read_file(path: str, start: int = 1, lines: int = 200) -> FileText:
        """Read lines of a text file.

        Args:
            path: the file, as list_files names it.
            start: number of the first line, from 1.
            lines: how many lines to read.
        """
        if start < 1 or not 1 <= lines <= MAX_LINES:
            raise ToolError(
                f"read_file cannot read {lines} lines from line {start}",
                hint=f"start is 1 or more, lines is 1 to {MAX_LINES}",
            )
        with _open(top, path) as file:
            window = list(islice(_lines(file, path), start - 1, start + lines))
        text = window[:lines]
        if not text and start > 1:
            raise ToolError(f"{path} ends before line {start}")
        return FileText(path, start, start + len(text) - 1, len(window) > lines, "\n".join(text))

    @tool
    def search_files(text: str, pattern: str = "**/*") -> list[Match]:
        """Find the lines that contain a text, in any case; binary and huge files are passed over.

        Args:
            text: what to look for, as it stands in the files.
            pattern: which files, as in list_files.
        """
        if not text:
            raise ToolError("search_files was given an empty text to look for")
        return _search(top, text, pattern)

    return [list_files, read_file, search_files]


def _search(top: Path, text: str, pattern: str) -> list[Match]:
    folded_text = text.casefold()
    matches: list[Match] = []
    for path in sorted(_matching(top, pattern)):
        if path.stat().st_size > MAX_SEARCHED:
            continue
        name = _relative(top, path)
        try:
            with _open(top, name) as file:
                for number, line in enumerate(_lines(file, name), 1):
                    if folded_text in line.casefold():
                        matches.append(Match(name, number, line.strip()))
        except ToolError:
            continue
        if len(matches) > MAX_MATCHES:
            raise ToolError(
                f"more than {MAX_MATCHES} lines contain {text!r}",
                hint="look for a longer text, or give a narrower pattern",
            )
        if _is_cancelled():
            break
    return matches


def _relative(top: Path, path: Path) -> str:
    return path.relative_to(top).as_posix()


def _inside(top: Path, path: str) -> Path:
    """The real path of ``path``.

    Raises:
        ToolError: the real path is outside the root, by ``..``, by a link or as an absolute path.
    """
    try:
        real = (top / path).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise ToolError(f"{path!r} cannot be a path: {error}") from error
    if PurePath(path).is_absolute() or not real.is_relative_to(top):
        raise ToolError(
            f"{path!r} is outside the directory that may be read",
            hint="give a path relative to it, as list_files names them",
        )
    return real


def _open(top: Path, path: str) -> TextIO:
    real = _inside(top, path)
    # Do not block on a pipe, and do not follow a link that was made a moment ago.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(real, flags)
    except FileNotFoundError:
        raise ToolError(
            f"there is no file {path!r}", hint="list_files says which there are"
        ) from None
    except OSError as error:
        raise ToolError(f"{path!r} cannot be read: {error.strerror}") from error
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        description = "a directory" if stat.S_ISDIR(kind) else "not a regular file"
        raise ToolError(f"{path!r} is {description}")
    return os.fdopen(descriptor, encoding="utf-8")


def _lines(file: TextIO, path: str) -> Iterator[str]:
    """Lines without their ends.

    Raises:
        ToolError: the file is not UTF-8 text.
    """
    try:
        while piece := file.readline(MAX_LINE):
            line = piece.rstrip("\n")
            if "\0" in line:
                raise ToolError(f"{path!r} is a binary file")
            cut = not piece.endswith("\n")
            while cut and (next_piece := file.readline(MAX_LINE)):
                cut = not next_piece.endswith("\n")
                if next_piece != "\n" and not line.endswith("..."):
                    line += "..."
            yield line
    except UnicodeDecodeError:
        raise ToolError(f"{path!r} is a binary file, or its text is not UTF-8") from None


def _matching(top: Path, pattern: str) -> Iterator[Path]:
    parts = PurePath(pattern).parts
    if not pattern or PurePath(pattern).is_absolute() or ".." in parts:
        raise ToolError(
            f"{pattern!r} is not a pattern inside the directory that may be read",
            hint='for example "*.txt" or "**/*.md"',
        )
    try:
        for path in top.glob(pattern):
            if any(part.startswith(".") for part in path.relative_to(top).parts):
                continue
            if path.is_file() and path.resolve().is_relative_to(top):
                yield path
    except (ValueError, NotImplementedError) as error:
        raise ToolError(f"{pattern!r} is not a pattern: {error}") from error


def _is_cancelled() -> bool:
    try:
        return current_call().cancelled.is_set()
    except UsageError:
        return False
