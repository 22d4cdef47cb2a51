"""Strings: their quotes, and what their escapes stand for.

Whatever a model may have meant as a string is read: Python's and JSON's quotes and escapes, triple
quotes, and typographic quotes. The module must not know what a string is an argument of, nor that
it may hold references.
"""

from __future__ import annotations

import re

from llmcompiler.language.syntax_issue import Refusal

QUOTES = {'"': '"', "'": "'", "“": "”“", "”": "”", "„": "“”", "‘": "’‘"}
"""Characters that open a string, each with those that close it."""


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
    # Scanned for references next, where two dollar signs are one.
    "$": "$$",
}
_HEX = {"x": 2, "u": 4, "U": 8}
_ESCAPE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(.)", re.DOTALL)


def read_string(text: str, start: int, end: int) -> tuple[str, str, int]:
    """Read the string whose opening quote stands at ``start``, up to ``end`` at most.

    Returns:
        What it says, the quote that closes it, and the offset behind that.

    Raises:
        Refusal: it is not closed, or an escape names no character.
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
    raise Refusal("E102", "a string has no closing quote", (start, start + opening))


def unescape(body: str, start: int) -> str:
    """What the text between two quotes, which begins at offset ``start``, stands for.

    Raises:
        Refusal: an escape names no character.
    """
    if "\\" not in body:
        return body
    out: list[str] = []
    position = 0
    while match := _ESCAPE.search(body, position):
        out.append(body[position : match.start()])
        position = match.end()
        if (kind := match[1]) is None:
            out.append(_code_units(match[0]))
        elif kind in _HEX:
            digits = body[position : position + _HEX[kind]]
            out.append(_character(kind, digits, start + match.start()))
            position += _HEX[kind]
        else:
            out.append(_ESCAPES.get(kind, match[0]))
    out.append(body[position:])
    return "".join(out)


def _character(kind: str, digits: str, at: int) -> str:
    whole = len(digits) == _HEX[kind] and re.fullmatch(r"[0-9a-fA-F]+", digits)
    code = int(digits, 16) if whole else -1
    escape = f"\\{kind}"
    if not 0 <= code <= 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise Refusal(
            "E109",
            f"the escape sequence {escape!r} names no character",
            (at, at + 2 + len(digits)),
            hint="write the character itself; a backslash in text is written \\\\",
        )
    return chr(code)


def _code_units(pair: str) -> str:
    high, low = int(pair[2:6], 16), int(pair[8:12], 16)
    return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
