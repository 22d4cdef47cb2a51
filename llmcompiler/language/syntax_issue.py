"""Syntax issues and slips: what the readers report about a piece of text.

A place is a pair of offsets into the text of one call. The plan builder, which knows where the call
stands, turns it into a line and columns.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

Offsets: TypeAlias = tuple[int, int]
"""Start and end of a piece of a text."""


class SyntaxIssue(Exception):
    """A piece of text cannot be read.

    Attributes:
        code: key of a diagnostic.
        message: what is wrong.
        span: start and end offset of the part at fault.
        hint: what to do about it; may be empty.
        expected: what would have been right; may be empty.
    """

    def __init__(
        self, code: str, message: str, span: Offsets, *, hint: str = "", expected: str = ""
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.span = span
        self.hint = hint
        self.expected = expected


class Slip(NamedTuple):
    """A slip of the writer that has only one reading, and was read so."""

    code: str
    message: str
    span: Offsets
    hint: str = ""
