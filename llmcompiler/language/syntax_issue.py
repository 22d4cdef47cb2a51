"""What is said of a text that cannot be read, or that was read in spite of a slip.

Places are offsets into the text of one call; whoever knows where the call stands turns them into
lines and columns. The module must not know how anything is read.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

Offsets: TypeAlias = tuple[int, int]
"""Start and end of a piece of a text."""


class Refusal(Exception):
    """The text is not a list of arguments: code, reason and place.

    Attributes:
        span: start and end offset of what is at fault.
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


class Note(NamedTuple):
    """A slip that was read as it was meant."""

    code: str
    message: str
    span: Offsets
    hint: str = ""
