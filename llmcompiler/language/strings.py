"""Strings: their quotes, and what their escapes stand for.

The reader takes whatever a model may have meant as a string: Python's and JSON's quotes and
escapes, triple quotes, and typographic quotes.
"""

from __future__ import annotations

import re

from llmcompiler.language.syntax_issue import SyntaxIssue

QUOTES = {'"': '"', "'": "'", "“": "”“", "”": "”", "„": "“”", "‘": "’‘"}
"""Characters that open a string, each with the characters that close it."""

_CLOSING = {
    opening: re.compile(rf"\\.|[{closing}]", re.DOTALL) for opening, closing in QUOTES.items()
} | {quote * 3: re.compile(rf"\\.|{quote * 3}", re.DOTALL) for quote in "\"'"}
_ESCAPES = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "b": "\b",
    "f": "\f",
    "v": "\v",
    "a": "\a",
    "0": "\0",
    "/": "/",
    "\\": "\\",
    '"': '"',
    "'": "'",
    "“": "“",
    "”": "”",
    "‘": "‘",
    "’": "’",
    "\n": "",
    # The string is scanned for references next, and there two dollar signs stand for one.
    "$": "$$",
}
_HEX = {"x": 2, "u": 4, "U": 8}
_ESCAPE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(.)", re.DOTALL)


def read_string(text: str, start: int, end: int) -> tuple[str, str, int]:
    """Read the string whose opening quote stands at ``start``, up to ``end`` at most.

    Returns:
        The string's value, its closing quote, and the offset behind that quote.

    Raises:
        SyntaxIssue: the string is not closed, or an escape names no character.
    """
    quote = text[start]
    if quote in "\"'" and text.startswith(quote * 3, start):
        quote *= 3
    opening, closing = len(quote), _CLOSING[quote]
    position = start + opening
    while match := closing.search(text, position, end):
        position = match.end()
        if match[0][0] != "\\":
            body = text[start + opening : match.start()]
            return unescape(body, start + opening), match[0], position
    raise SyntaxIssue("E102", "a string has no closing quote", (start, start + opening))


def unescape(body: str, start: int) -> str:
    """Resolve the escapes in ``body``, the text between two quotes.

    Args:
        body: the text.
        start: its offset, for the place of an issue.

    Raises:
        SyntaxIssue: an escape names no character.
    """
    if "\\" not in body:
        return body
    pieces: list[str] = []
    position = 0
    while match := _ESCAPE.search(body, position):
        pieces.append(body[position : match.start()])
        position = match.end()
        if (kind := match[1]) is None:
            pieces.append(_join_surrogates(match[0]))
        elif kind in _HEX:
            digits = body[position : position + _HEX[kind]]
            pieces.append(_decode_character(kind, digits, start + match.start()))
            position += _HEX[kind]
        else:
            pieces.append(_ESCAPES.get(kind, match[0]))
    pieces.append(body[position:])
    return "".join(pieces)


def _decode_character(kind: str, digits: str, at: int) -> str:
    is_complete = len(digits) == _HEX[kind] and re.fullmatch(r"[0-9a-fA-F]+", digits)
    code = int(digits, 16) if is_complete else -1
    escape = f"\\{kind}"
    if not 0 <= code <= 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise SyntaxIssue(
            "E109",
            f"the escape sequence {escape!r} names no character",
            (at, at + 2 + len(digits)),
            hint="write the character itself; a backslash in text is written \\\\",
        )
    return chr(code)


def _join_surrogates(pair: str) -> str:
    high, low = int(pair[2:6], 16), int(pair[8:12], 16)
    return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
