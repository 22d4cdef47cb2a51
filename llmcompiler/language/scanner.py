"""The call scanner: a state machine that finds the end of a call in text that arrives in pieces.

The scanner keeps a stack of open brackets and the kind of string that it is in. It looks at each
character once, and jumps from one interesting character to the next. The arguments are read later,
when the whole call is there.

States: *code* (outside of strings), *opened* (behind a first quote), *pair* (behind two quotes:
an empty string or the start of a triple-quoted one), *string*, *escape* (behind a backslash),
*comment*.
"""

from __future__ import annotations

import enum
import functools
import re
from typing import NamedTuple

from llmcompiler.language.strings import QUOTES

_CODE = re.compile(r"[\"'“”„‘(){}\[\]#\n:]")
_CLOSERS = {")": "(", "]": "[", "}": "{"}
_SPACE = re.compile(r"[ \t\r]*")
_AFTER_STRING = ",)]}:=#\n"
_COMPLETE_STRING = re.compile(r"\"[^\"\\]+\"|'[^'\\]+'")
_IN_STRING = {opener: re.compile(rf"[{closers}\\]") for opener, closers in QUOTES.items()}


_SIMPLE_DEPTH = 3


@functools.cache
def _simple_call_pattern() -> re.Pattern[str]:
    """Pattern of a simple call's text, from behind the opening parenthesis to the closing one.

    A simple call stands on one line. It holds complete strings between delimiters and matching
    brackets a few levels deep, and no comment. Compiling the pattern takes longer than reading a
    plan of usual length, so it is compiled on first use.
    """
    plain = r"[^\"'“”„‘(){}\[\]#\n]++"
    string = r"(?<!\w)(?:\"[^\"\\\n]*+\"|'[^'\\\n]*+')(?=[ \t\r]*[,)\]}:=])"
    inside = f"(?:{plain}|{string})*+"
    for _ in range(_SIMPLE_DEPTH):
        inside = rf"(?:{plain}|{string}|\({inside}\)|\[{inside}\]|\{{{inside}\}})*+"
    return re.compile(inside + r"\)")


def match_simple_call(text: str, position: int) -> int:
    """Find the end of a simple call whose opening parenthesis stands before ``position``.

    This is a fast path: ``CallScanner`` finds the same end, and finds the end of any other call.

    Returns:
        The offset behind the closing parenthesis; -1 where the call is not simple.
    """
    match = _simple_call_pattern().match(text, position)
    return match.end() if match else -1


class _State(enum.Enum):
    CODE = enum.auto()
    OPENED = enum.auto()
    PAIR = enum.auto()
    STRING = enum.auto()
    ESCAPE = enum.auto()
    COMMENT = enum.auto()


class ScanStop(enum.Enum):
    """The scanner's reason to stop before the end of the text."""

    CLOSED = enum.auto()
    """The call's parenthesis is closed; the position is behind it."""
    MISMATCH = enum.auto()
    """A bracket of the wrong kind; the position is behind it."""
    AFTER_STRING = enum.auto()
    """Text right after a string; the position is behind its first character."""
    BEFORE_STRING = enum.auto()
    """A quote right after a word; the position is behind the quote."""
    LINE = enum.auto()
    """A further line begins; the position is behind the line break."""
    LINE_START = enum.auto()
    """The first opening parenthesis or colon of a further line; the position is at it."""


class OpenDelimiter(NamedTuple):
    """A bracket or quote that is not closed yet, and its offset."""

    char: str
    offset: int


class CallScanner:
    """Finds the end of one call.

    Args:
        offset: of the call's opening parenthesis in its text.

    Attributes:
        brackets: the open brackets, the call's own parenthesis first.
        string: the quote of the string that the scanner is in, if it is in one.
        last_string: the quote of the string before, if there was one.
        last_comment: offset of the last comment; 0 if there was none.
    """

    def __init__(self, offset: int) -> None:
        self.brackets = [OpenDelimiter("(", offset)]
        self.string: OpenDelimiter | None = None
        self.last_string: OpenDelimiter | None = None
        self.last_comment = 0
        self._previous = "("
        self._offset = offset + 1
        self._state = _State.CODE
        self._is_triple = False
        self._quote_run = 0
        self._is_after_string = False
        self._watched = ""

    @property
    def offset(self) -> int:
        """Number of characters of the call's text that were scanned."""
        return self._offset

    @property
    def is_fresh(self) -> bool:
        """True if nothing was scanned yet."""
        return self._offset == self.brackets[0].offset + 1

    def scan(self, text: str, position: int) -> tuple[ScanStop | None, int]:
        """Scan ``text`` from ``position``, where the scan before stopped.

        Returns:
            The reason to stop, or ``None`` at the end of the text; and the position reached.
        """
        start = position
        end = len(text)
        stop: ScanStop | None = None
        while position < end and stop is None:
            match self._state:
                case _State.CODE:
                    stop, position = self._scan_code(text, position, start)
                case _State.STRING:
                    position = self._scan_string(text, position)
                case _State.ESCAPE:
                    position += 1
                    self._state = _State.STRING
                case _State.OPENED:
                    if text[position] == self._quote:
                        position += 1
                        self._state = _State.PAIR
                    else:
                        self._state = _State.STRING
                case _State.PAIR:
                    if text[position] == self._quote:
                        position += 1
                        self._is_triple = True
                        self._quote_run = 0
                        self._state = _State.STRING
                    else:
                        self._leave_string()
                case _State.COMMENT:
                    line_break = text.find("\n", position)
                    position = end if line_break < 0 else line_break
                    if line_break >= 0:
                        self._state = _State.CODE
        self._offset += position - start
        if position > start:
            self._previous = text[position - 1]
        return stop, position

    def opened_before(self, offset: int) -> list[OpenDelimiter]:
        """The open brackets and quotes before ``offset``, the call's own parenthesis first."""
        opened = [*self.brackets, self.string] if self.string is not None else self.brackets
        return [delimiter for delimiter in opened if delimiter.offset < offset]

    def finish(self) -> None:
        """End the text: two quotes at the very end are an empty string."""
        if self._state is _State.PAIR:
            self._leave_string()

    @property
    def _quote(self) -> str:
        return self.string.char if self.string else ""

    def _leave_string(self) -> None:
        self.last_string = self.string
        self.string = None
        self._is_triple = False
        self._is_after_string = True
        self._state = _State.CODE

    def _scan_string(self, text: str, position: int) -> int:
        quote = self._quote
        match = _IN_STRING[quote].search(text, position)
        if match is None or (self._is_triple and match.start() > position):
            self._quote_run = 0
        if match is None:
            return len(text)
        if match[0] == "\\":
            self._quote_run = 0
            self._state = _State.ESCAPE
        elif not self._is_triple:
            self._leave_string()
        else:
            self._quote_run += 1
            if self._quote_run == 3:
                self._leave_string()
        return match.end()

    def _scan_code(self, text: str, position: int, start: int) -> tuple[ScanStop | None, int]:
        # Most calls arrive, or are read again, in one piece. So this loop takes brackets and
        # complete strings in a row, instead of one in each turn of ``scan``.
        ahead = self._offset - start
        length = len(text)
        while True:
            if self._is_after_string:
                space = _SPACE.match(text, position)
                assert space is not None
                position = space.end()
                if position == length:
                    return None, position
                self._is_after_string = False
                if text[position] not in _AFTER_STRING:
                    return ScanStop.AFTER_STRING, position + 1
            match = _CODE.search(text, position)
            if match is None:
                return None, length
            char, at = match[0], match.start()
            position = at + 1
            if self._watched and char in self._watched:
                self._watched = "(" if char == ":" else ""
                return ScanStop.LINE_START, at
            if char in "([{":
                self.brackets.append(OpenDelimiter(char, ahead + at))
            elif char in _CLOSERS:
                if self.brackets[-1].char != _CLOSERS[char]:
                    return ScanStop.MISMATCH, position
                self.brackets.pop()
                if not self.brackets:
                    return ScanStop.CLOSED, position
            elif char in QUOTES:
                stop, position = self._open_string(text, at, start)
                if not self._is_after_string:
                    return stop, position
            elif char == "\n":
                self._watched = "(:"
                return ScanStop.LINE, position
            elif char == "#":
                self.last_comment = ahead + at
                self._state = _State.COMMENT
                return None, position

    def _open_string(self, text: str, at: int, start: int) -> tuple[ScanStop | None, int]:
        """Enter the string whose quote stands at ``at``, or pass it if all of it is there."""
        quote = text[at]
        before = text[at - 1] if at > start else self._previous
        if before.isalnum() or before == "_":
            return ScanStop.BEFORE_STRING, at + 1
        delimiter = OpenDelimiter(quote, self._offset - start + at)
        string = _COMPLETE_STRING.match(text, at)
        if string is None:
            self.string = delimiter
            self._state = _State.OPENED if quote in "\"'" else _State.STRING
            return None, at + 1
        self.last_string = delimiter
        self._is_after_string = True
        return None, string.end()
