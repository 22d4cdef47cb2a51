"""Reads a program while it is written: text in, whole statements of the top level out.

A statement is whole when the next one begins, and a statement of one line at its line end. So its
calls start while the model writes the next line. Text that is no program (a fence, prose in front
of it, everything behind a closing fence) is left out with a warning.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from llmcompiler.plan.diagnostics import Diagnostic, Span

MAX_LENGTH = 100_000
"""Characters of a program."""

MAX_DEPTH = 40
"""Levels of brackets, and of indented blocks."""

END_MARKER = "<END_OF_PLAN>"
"""Text from here on is ignored."""

_CONTINUES = ("else", "elif", "except", "finally")
_STARTS_CODE = (
    *("#", "@", "import ", "from ", "def ", "if ", "for ", "while ", "try", "class ", "with "),
    *("async ", "match ", "return", "assert ", "raise", "del ", "global ", "nonlocal "),
)
_COMPOUND = ("if", "for", "while", "try", "def", "with", "class", "async", "match", "@")


class ProgramReader:
    """Splits a stream of text into statements of the top level.

    It stops at the first mistake: what follows may build on what was refused.

    Args:
        source: the lines of the program that stand before what is read.
    """

    def __init__(self, source: str = "") -> None:
        self.statements: list[ast.stmt] = []
        """Every statement that was read."""
        self.lines: list[str] = source.splitlines()
        """Every whole line, as written."""
        self._line = ""  # the line that is being written
        self._chunk: list[str] = []  # whole lines of the statement that is being written
        self._first = 1  # the number of its first line
        self._number = len(self.lines)  # the number of the last whole line
        self._length = len(source)
        self._scanner = _Scanner()
        self._ended = False
        self._in_fence = False

    def feed(self, text: str) -> Iterator[ast.stmt | Diagnostic]:
        """Take in a piece of text; yields what it completes."""
        self._length += len(text)
        if self._length > MAX_LENGTH and not self._ended:
            self._ended = True
            yield Diagnostic("E501", f"the program has more than {MAX_LENGTH:,} characters")
        for piece in text.splitlines(keepends=True):
            if self._ended:
                return
            self._line += piece
            if self._line.endswith(("\n", "\r")):
                line, self._line = self._line.rstrip("\r\n"), ""
                yield from self._take(line)

    def finish(self) -> Iterator[ast.stmt | Diagnostic]:
        """The text has ended."""
        if self._ended:
            return
        if self._line:
            line, self._line = self._line, ""
            yield from self._take(line)
        yield from self._emit()
        self._ended = True

    def _take(self, line: str) -> Iterator[ast.stmt | Diagnostic]:
        stripped = line.strip()
        in_statement = bool(self._chunk)
        if not self._scanner.inside and stripped.startswith("```"):
            if self._in_fence or self.statements or in_statement:
                yield from self._emit()
                self._ended = True
            else:
                self._in_fence = True
            return
        is_in_front = not self.statements and not self._in_fence and not in_statement
        if is_in_front and stripped and not stripped.startswith("#") and _is_prose(line):
            message = "text in front of the program is left out"
            yield Diagnostic("W501", message, self._number + 1, 1, len(line) + 1, line)
            return
        self._number += 1
        self.lines.append(line)
        if END_MARKER in line and not self._scanner.inside:
            line = line.partition(END_MARKER)[0]
            stripped = line.strip()
            if stripped:
                self._chunk.append(line)
            yield from self._emit()
            self._ended = True
            return
        begins = bool(stripped) and not line[0].isspace() and not self._scanner.inside
        if begins and in_statement and not self._goes_on(line):
            yield from self._emit()
        if self._ended:
            return
        if not self._chunk:
            if not stripped or stripped.startswith("#"):
                return
            self._first = self._number
        self._chunk.append(line)
        self._scanner.scan(line)
        if self._scanner.depth > MAX_DEPTH:
            yield self._refuse(f"brackets are nested more than {MAX_DEPTH} levels deep")
            return
        if not self._scanner.inside and not self._is_compound():
            yield from self._emit()

    def _goes_on(self, line: str) -> bool:
        word = line.split(":", 1)[0].split(None, 1)[0] if line.strip() else ""
        return word in _CONTINUES or self._chunk[-1].lstrip().startswith("@")

    def _is_compound(self) -> bool:
        first = self._chunk[0]
        word = first.split(None, 1)[0].rstrip(":(") if first.strip() else ""
        return word in _COMPOUND or first.startswith("@")

    def _refuse(self, message: str, hint: str = "") -> Diagnostic:
        self._ended = True
        line = self._chunk[-1] if self._chunk else ""
        return Diagnostic("E501", message, self._number, 1, len(line) + 1, line, hint)

    def _emit(self) -> Iterator[ast.stmt | Diagnostic]:
        lines, self._chunk = self._chunk, []
        self._scanner = _Scanner()
        if not any(line.strip() for line in lines):
            return
        text = "\n".join(lines)
        deepest = max((len(line) - len(line.lstrip())) for line in lines if line.strip())
        try:
            if deepest > 4 * MAX_DEPTH:
                raise SyntaxError("blocks are nested too deeply")
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            self._ended = True
            yield self._syntax(error, lines)
            return
        for statement in tree.body:
            ast.increment_lineno(statement, self._first - 1)
            self.statements.append(statement)
            yield statement

    def drop(self, statement: ast.stmt) -> None:
        """Take the lines of a statement that was just read out of the program."""
        first, last = statement.lineno, statement.end_lineno or statement.lineno
        del self.lines[first - 1 : last]
        self._number -= last - first + 1
        self._first = self._number

    def source_until(self, statement: ast.stmt) -> str:
        """The program's text up to the end of a statement, with its line end."""
        last = statement.end_lineno or statement.lineno
        lines = self.lines[:last]
        line = lines[-1].encode()
        rest = line[statement.end_col_offset :].decode()
        if rest.lstrip().startswith(";"):
            lines[-1] = line[: statement.end_col_offset].decode()
        return "\n".join(lines) + "\n"

    def _syntax(self, error: Exception, lines: list[str]) -> Diagnostic:
        number = getattr(error, "lineno", None) or 1
        column = getattr(error, "offset", None) or 1
        number = min(max(number, 1), len(lines))
        line = lines[number - 1]
        message = getattr(error, "msg", None) or str(error)
        return Diagnostic(
            "E500",
            f"this is no Python: {message}",
            self._first + number - 1,
            max(1, column),
            max(1, column) + 1,
            line,
            "correct the line and go on from it",
        )


class _Scanner:
    """Follows brackets and strings from line to line."""

    def __init__(self) -> None:
        self.depth = 0
        self._quote = ""
        self._joined = False

    @property
    def inside(self) -> bool:
        """True if the next line belongs to the same statement."""
        return self.depth > 0 or bool(self._quote) or self._joined

    def scan(self, line: str) -> None:
        """Take in a line."""
        at, end = 0, len(line)
        self._joined = False
        while at < end:
            char = line[at]
            if self._quote:
                if char == "\\":
                    at += 2
                    continue
                if line.startswith(self._quote, at):
                    at += len(self._quote)
                    self._quote = ""
                    continue
                at += 1
                continue
            if char == "#":
                break
            if char in "\"'":
                triple = char * 3
                self._quote = triple if line.startswith(triple, at) else char
                at += len(self._quote)
                continue
            if char in "([{":
                self.depth += 1
            elif char in ")]}":
                self.depth = max(0, self.depth - 1)
            elif char == "\\" and at == end - 1:
                self._joined = True
            at += 1
        if len(self._quote) == 1 and not line.endswith("\\"):
            self._quote = ""  # a string that is not closed: Python says so


def _is_prose(line: str) -> bool:
    """Whether a line in front of a program is no line of it."""
    text = line.strip()
    if text.startswith(_STARTS_CODE):
        return False
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return not any(mark in text for mark in "=([{\"'") or text.endswith((".", ":", "!", "?"))
    return (
        len(tree.body) == 1
        and isinstance(tree.body[0], ast.AnnAssign)
        and (tree.body[0].value is None and text.endswith(":"))
    )


def node_span(node: ast.AST, source: str, first: int = 1) -> Span:
    """Where a node stands in a program's text."""
    lines = source.split("\n")
    number = getattr(node, "lineno", first)
    line = lines[number - 1] if 0 < number <= len(lines) else ""
    start = getattr(node, "col_offset", 0)
    end = getattr(node, "end_col_offset", None)
    if getattr(node, "end_lineno", number) != number or end is None:
        end = len(line.encode())
    # Python counts bytes; people count characters.
    column = len(line.encode()[:start].decode(errors="ignore"))
    stop = len(line.encode()[:end].decode(errors="ignore"))
    return Span(number, column + 1, max(stop, column + 1) + 1, line)
