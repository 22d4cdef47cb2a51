"""Where a call ends: a state machine over its characters, the only one that sees broken-up text.

It keeps a stack of open brackets and what kind of string it is in, looks at each character once,
and jumps from one interesting character to the next. What the call says is read later, when all of
it is there. The module must not know what arguments, tasks or plans are.

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
_AFTER_STRING = ",)]}:=#\n"
_WHOLE_STRING = re.compile(r"\"[^\"\\]+\"|'[^'\\]+'")
_IN_STRING = {opener: re.compile(rf"[{closers}\\]") for opener, closers in QUOTES.items()}


_CALM_DEPTH = 3


@functools.cache
def _calm() -> re.Pattern[str]:
    """The rest of a call on one line, its parenthesis closed, in which nothing is unusual.

    Whole strings between delimiters, brackets that match, a few levels deep, no comment. Compiled
    when it is needed, which takes longer than reading a plan of usual length.
    """
    plain = r"[^\"'“”„‘(){}\[\]#\n]++"
    string = r"(?<!\w)(?:\"[^\"\\\n]*+\"|'[^'\\\n]*+')(?=[ \t\r]*[,)\]}:=])"
    inside = f"(?:{plain}|{string})*+"
    for _ in range(_CALM_DEPTH):
        inside = rf"(?:{plain}|{string}|\({inside}\)|\[{inside}\]|\{{{inside}\}})*+"
    return re.compile(inside + r"\)")


def end_of_calm_call(text: str, position: int) -> int:
    """Where the call ends whose opening parenthesis stands before ``position``; -1 if unclear.

    What is not seen at one glance is for ``CallScanner``, which says the same of what is.
    """
    found = _calm().match(text, position)
    return found.end() if found else -1


class _State(enum.Enum):
    CODE = enum.auto()
    OPENED = enum.auto()
    PAIR = enum.auto()
    STRING = enum.auto()
    ESCAPE = enum.auto()
    COMMENT = enum.auto()


class Stop(enum.Enum):
    """Why the scanner stopped before the end of what it was given."""

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


class Open(NamedTuple):
    """A bracket or quote that is not closed yet, and where it stands."""

    char: str
    offset: int


class CallScanner:
    """Finds the end of a call whose opening parenthesis stands at ``offset``.

    Attributes:
        brackets: open ones, the call's own first.
        string: the string that it is in, if any.
        last_string: the one that it was in before, if any.
        last_comment: offset of the last comment; 0 if there was none.
    """

    def __init__(self, offset: int) -> None:
        self.brackets = [Open("(", offset)]
        self.string: Open | None = None
        self.last_string: Open | None = None
        self.last_comment = 0
        self._previous = "("
        self._offset = offset + 1
        self._state = _State.CODE
        self._triple = False
        self._run = 0
        self._after_string = False
        self._watching = ""

    @property
    def offset(self) -> int:
        """How many characters of the item were scanned."""
        return self._offset

    @property
    def is_fresh(self) -> bool:
        """Whether nothing was scanned yet."""
        return self._offset == self.brackets[0].offset + 1

    def scan(self, text: str, position: int) -> tuple[Stop | None, int]:
        """Scan ``text`` from ``position``; ``None`` and the end if nothing was found.

        The text scanned goes on where the last one stopped.
        """
        start = position
        end = len(text)
        stop: Stop | None = None
        while position < end and stop is None:
            match self._state:
                case _State.CODE:
                    stop, position = self._code(text, position, start)
                case _State.STRING:
                    position = self._in_string(text, position)
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
                        self._triple = True
                        self._run = 0
                        self._state = _State.STRING
                    else:
                        self._leave_string()
                case _State.COMMENT:
                    found = text.find("\n", position)
                    position = end if found < 0 else found
                    if found >= 0:
                        self._state = _State.CODE
        self._offset += position - start
        if position > start:
            self._previous = text[position - 1]
        return stop, position

    def opened_before(self, offset: int) -> list[Open]:
        """What is open, the call's own parenthesis first, of what stands before ``offset``."""
        opened = [*self.brackets, self.string] if self.string is not None else self.brackets
        return [one for one in opened if one.offset < offset]

    def finish(self) -> None:
        """Nothing follows: two quotes at the very end were an empty string."""
        if self._state is _State.PAIR:
            self._leave_string()

    @property
    def _quote(self) -> str:
        return self.string.char if self.string else ""

    def _leave_string(self) -> None:
        self.last_string = self.string
        self.string = None
        self._triple = False
        self._after_string = True
        self._state = _State.CODE

    def _in_string(self, text: str, position: int) -> int:
        quote = self._quote
        match = _IN_STRING[quote].search(text, position)
        if match is None or (self._triple and match.start() > position):
            self._run = 0
        if match is None:
            return len(text)
        if match[0] == "\\":
            self._run = 0
            self._state = _State.ESCAPE
        elif not self._triple:
            self._leave_string()
        else:
            self._run += 1
            if self._run == 3:
                self._leave_string()
        return match.end()

    def _code(self, text: str, position: int, start: int) -> tuple[Stop | None, int]:
        # Brackets, and strings that are there in full, are taken in a row instead of one for each
        # turn of ``scan``: most calls arrive, or are read again, in one piece.
        ahead = self._offset - start
        length = len(text)
        while True:
            if self._after_string:
                while position < length and text[position] in " \t\r":
                    position += 1
                if position == length:
                    return None, position
                self._after_string = False
                if text[position] not in _AFTER_STRING:
                    return Stop.AFTER_STRING, position + 1
            match = _CODE.search(text, position)
            if match is None:
                return None, length
            char, at = match[0], match.start()
            position = at + 1
            if self._watching and char in self._watching:
                self._watching = "(" if char == ":" else ""
                return Stop.LINE_START, at
            if char in "([{":
                self.brackets.append(Open(char, ahead + at))
            elif char in _CLOSERS:
                if self.brackets[-1].char != _CLOSERS[char]:
                    return Stop.MISMATCH, position
                self.brackets.pop()
                if not self.brackets:
                    return Stop.CLOSED, position
            elif char in QUOTES:
                before = text[at - 1] if at > start else self._previous
                if before.isalnum() or before == "_":
                    return Stop.BEFORE_STRING, position
                opened = Open(char, ahead + at)
                whole = _WHOLE_STRING.match(text, at)
                if whole is None:
                    self.string = opened
                    self._state = _State.OPENED if char in "\"'" else _State.STRING
                    return None, position
                position = whole.end()
                self.last_string = opened
                self._after_string = True
            elif char == "\n":
                self._watching = "(:"
                return Stop.LINE, position
            elif char == "#":
                self.last_comment = ahead + at
                self._state = _State.COMMENT
                return None, position
