"""Arguments of a call: from the text between its brackets to expressions.

A recursive descent over text that is known to be complete. It accepts JSON's and Python's literals
alike. The module must not know lines, tasks or tools.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from llmcompiler.expressions import (
    Expr,
    Input,
    Known,
    Literal,
    NameKnown,
    Reference,
    make_dict,
    make_list,
    scan_reference,
    scan_string,
)

MAX_DEPTH = 100

_SPACE = re.compile(r"(?:\s+|#[^\n]*)*")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])")
_WORD = re.compile(r"[^\W\d]\w*")
_KEYWORD = re.compile(r"([^\W\d][\w\-]*)\s*=(?!=)")
_PLAIN = re.compile(r"[^\"'\\\u201c\u201d\u2018\u2019]*")
_BARE_EXPRESSION = re.compile(r"[\w\s$.\[\]{}+\-*/%()<>=!,\"']+")
_OPERATOR = re.compile(r"[+\-*/%<>=!]|\w\s*\(|\b(?:and|or|not|if|in)\b")
_CONSTANTS: dict[str, object] = {
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "null": None,
    "None": None,
}
_ESCAPES = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "b": "\b",
    "f": "\f",
    "0": "\0",
    "/": "/",
    "\\": "\\",
    '"': '"',
    "'": "'",
    "\n": "",
    "$": "$$",  # a dollar sign that is meant as one
}
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d", "\u2018": "\u2019"}
_CURLY = "\u201c\u201d\u2018\u2019"


class ValueProblem(Exception):
    """A mistake in a call's arguments.

    Attributes:
        code: of the diagnostic.
        start: position in the text, and ``end`` the one behind the place.
    """

    def __init__(
        self, code: str, message: str, start: int, end: int, hint: str = "", expected: str = ""
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.start = start
        self.end = end
        self.hint = hint
        self.expected = expected


Check: TypeAlias = Callable[[Reference | Input, int, int], None]
"""Called with each reference outside strings and its place; raises ``ValueProblem``."""


@dataclass(slots=True)
class Arguments:
    """What stands between the brackets of a call.

    Attributes:
        args: positional arguments, and ``kwargs`` those given by name.
        places: where each of them stands: position for position, and by name.
        slips: warnings: code, start, end.
    """

    args: list[Expr] = field(default_factory=list)
    kwargs: dict[str, Expr] = field(default_factory=dict)
    places: dict[int | str, tuple[int, int]] = field(default_factory=dict)
    slips: list[tuple[str, int, int]] = field(default_factory=list)


class ArgumentReader:
    """Reads the arguments of one call.

    Args:
        text: the call's text.
        start: the position behind its opening bracket.
        end: the position of its closing bracket.
        known: says which tasks a string may refer to.
        named: says which inputs a string may refer to.
        check: judges references outside strings.
    """

    def __init__(
        self, text: str, start: int, end: int, known: Known, named: NameKnown, check: Check
    ) -> None:
        self._text = text
        self._at = start
        self._end = end
        self._known = known
        self._named = named
        self._check = check
        self._out = Arguments()

    def read(self) -> Arguments:
        """All arguments.

        Raises:
            ValueProblem: the first mistake.
        """
        self._space()
        while self._at < self._end:
            self._argument()
            self._space()
            if self._at >= self._end:
                break
            if self._text[self._at] != ",":
                raise self._unexpected("a comma or the closing bracket")
            self._at += 1
            self._space()
        return self._out

    def _argument(self) -> None:
        start = self._at
        keyword = _KEYWORD.match(self._text, start, self._end)
        if keyword:
            name = keyword[1]
            if name in self._out.kwargs:
                raise ValueProblem("E105", f"{name} is given twice", start, start + len(name))
            self._at = keyword.end()
            self._space()
            self._out.kwargs[name] = self._whole(start)
            self._out.places[name] = (start, self._at)
            return
        value = self._whole(start)
        if self._out.kwargs:
            raise ValueProblem(
                "E104",
                "a positional argument stands behind a keyword argument",
                start,
                self._at,
                hint="put it first, or name it",
            )
        self._out.places[len(self._out.args)] = (start, self._at)
        self._out.args.append(value)

    def _whole(self, start: int) -> Expr:
        """An argument; an expression that lost its quotes is read as the string it must be."""
        begun = self._at
        slips = len(self._out.slips)
        try:
            value = self._value(0)
            self._space()
            if self._at >= self._end or self._text[self._at] == ",":
                return value
            problem = self._unexpected("a comma or the closing bracket")
        except ValueProblem as caught:
            problem = caught
        if problem.code == "E101" and (end := self._bare_end(begun)) is not None:
            del self._out.slips[slips:]
            self._at = end
            raw = self._text[begun:end].rstrip()
            self._out.slips.append(("W105", begun, begun + len(raw)))
            return scan_string(raw, self._known, self._named)
        raise problem

    def _bare_end(self, start: int) -> int | None:
        """The end of an unquoted expression such as ``$1.a / $1.b``; ``None`` if it is none."""
        depth, at = 0, start
        while at < self._end:
            char = self._text[at]
            if char in "([{":
                depth += 1
            elif char in ")]}":
                depth -= 1
            elif char == "," and depth == 0:
                break
            at += 1
        raw = self._text[start:at]
        if raw[:1] in "\"'" or not _BARE_EXPRESSION.fullmatch(raw) or not _OPERATOR.search(raw):
            return None
        return at

    def _value(self, depth: int) -> Expr:
        if depth > MAX_DEPTH:
            raise ValueProblem(
                "E106", f"more than {MAX_DEPTH} levels of lists", self._at, self._at + 1
            )
        if self._at >= self._end:
            raise self._unexpected("a value")
        char = self._text[self._at]
        if char in _QUOTES:
            return self._strings()
        if char == "$":
            return self._reference()
        if char in "[(":
            return self._list("]" if char == "[" else ")", depth)
        if char == "{":
            return self._dict(depth)
        if number := _NUMBER.match(self._text, self._at, self._end):
            self._at = number.end()
            digits = number[0]
            whole = digits.lstrip("+-").isdigit()
            if whole and len(digits) > 4000:
                raise ValueProblem("E101", "a number of over 4000 digits", *number.span())
            return Literal(value=int(digits) if whole else float(digits))
        if (word := _WORD.match(self._text, self._at, self._end)) and word[0] in _CONSTANTS:
            self._at = word.end()
            return Literal(value=_CONSTANTS[word[0]])
        raise self._unexpected("a value")

    def _reference(self) -> Expr:
        start = self._at
        found, end = scan_reference(self._text, start, _anything, _anything)
        if found is None or end > self._end:
            raise self._unexpected("a reference such as $1 or $1.name")
        self._check(found, start, end)
        self._at = end
        return found

    def _list(self, close: str, depth: int) -> Expr:
        items: list[Expr] = []
        opened = self._at
        self._at += 1
        self._space()
        while not self._closes(close, opened):
            items.append(self._value(depth + 1))
            self._comma(close)
        return make_list(items)

    def _dict(self, depth: int) -> Expr:
        entries: dict[str, Expr] = {}
        opened = self._at
        self._at += 1
        self._space()
        while not self._closes("}", opened):
            key = self._key(depth)
            entries[key] = self._value(depth + 1)
            self._comma("}")
        return make_dict(entries)

    def _key(self, depth: int) -> str:
        start = self._at
        if word := _WORD.match(self._text, start, self._end):
            self._at = word.end()
            key: object = word[0]
        else:
            value = self._value(depth + 1)
            key = value.value if isinstance(value, Literal) else None
        if not isinstance(key, str | int | float) or isinstance(key, bool):
            raise ValueProblem("E101", "a key is no string", start, self._at, expected="a string")
        self._space()
        if self._at >= self._end or self._text[self._at] != ":":
            raise self._unexpected("a colon")
        self._at += 1
        self._space()
        return key if isinstance(key, str) else repr(key)

    def _closes(self, close: str, opened: int) -> bool:
        if self._at >= self._end:
            raise ValueProblem(
                "E103", f'"{self._text[opened]}" is never closed', opened, opened + 1
            )
        if self._text[self._at] != close:
            return False
        self._at += 1
        return True

    def _comma(self, close: str) -> None:
        self._space()
        if self._at < self._end and self._text[self._at] == ",":
            self._at += 1
            self._space()
        elif self._at >= self._end or self._text[self._at] != close:
            raise self._unexpected(f'a comma or "{close}"')

    def _strings(self) -> Expr:
        """A string, or several in a row, which are one as in Python."""
        raw = self._string()
        while True:
            at = self._at
            self._space()
            if self._at < self._end and self._text[self._at] in "\"'" and self._at > at:
                raw += self._string()
            else:
                self._at = at
                return scan_string(raw, self._known, self._named)

    def _string(self) -> str:
        text, start = self._text, self._at
        quote = text[start]
        close = _QUOTES[quote]
        if quote in _CURLY:
            self._out.slips.append(("W104", start, start + 1))
        if quote not in _CURLY and text.startswith(quote * 3, start):
            close = quote * 3
        self._at = start + len(close)
        out: list[str] = []
        while self._at < self._end:
            plain = _PLAIN.match(text, self._at, self._end)
            assert plain is not None
            out.append(plain[0])
            self._at = plain.end()
            if self._at >= self._end:
                break
            if text.startswith(close, self._at):
                self._at += len(close)
                return "".join(out)
            if text[self._at] == "\\":
                out.append(self._escape())
            else:
                out.append(text[self._at])
                self._at += 1
        raise ValueProblem("E102", "this string is never closed", start, start + 1)

    def _escape(self) -> str:
        text, at = self._text, self._at
        char = text[at + 1 : at + 2]
        for mark, digits in (("u", 4), ("x", 2), ("U", 8)):
            code = text[at + 2 : at + 2 + digits]
            if char == mark and re.fullmatch(f"[0-9a-fA-F]{{{digits}}}", code):
                point = int(code, 16)
                self._at = at + 2 + digits
                if 0xD800 <= point < 0xDC00 and (low := self._low_surrogate()) is not None:
                    point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00)
                if point <= 0x10FFFF:
                    return chr(point)
                return text[at : self._at]
        self._at = min(at + 2, self._end)
        # What is no escape keeps its backslash, as in Python: regular expressions are full of it.
        return _ESCAPES.get(char, "\\" + char)

    def _low_surrogate(self) -> int | None:
        match = re.compile(r"\\u(d[c-f][0-9a-f]{2})", re.IGNORECASE).match(self._text, self._at)
        if match is None:
            return None
        self._at = match.end()
        return int(match[1], 16)

    def _space(self) -> None:
        match = _SPACE.match(self._text, self._at, self._end)
        assert match is not None
        self._at = match.end()

    def _unexpected(self, expected: str) -> ValueProblem:
        start = self._at
        if start >= self._end:
            return ValueProblem(
                "E101", f"{expected} is missing", start, start + 1, expected=expected
            )
        word = re.compile(r"[\w\-]+|\S").match(self._text, start, self._end)
        end = word.end() if word else start + 1
        shown = self._text[start:end]
        hint = ""
        if shown[0].isalpha():
            hint = f'text needs quotes: "{shown}"'
            if self._text[max(0, start - 1)] in "\"'":
                hint = "a quote inside a string needs a backslash before it"
        elif shown[0] in "\"'":
            hint = "a quote inside a string needs a backslash before it"
        return ValueProblem(
            "E101", f"{shown!r} cannot stand here", start, end, hint=hint, expected=expected
        )


def _anything(_: object) -> bool:
    return True
