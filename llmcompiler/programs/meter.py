"""What pure code may use, how its use is counted, and how it fails."""

from __future__ import annotations

import time
from typing import Any

MAX_BITS = 100_000
"""Bits of an integer that a program may compute."""

MAX_WIDTH = 10_000
"""Characters that a format may ask for."""


MAX_VALUE_SIZE = 1_000_000
"""Parts of a value that is written as text, compared or handed to a tool."""

MAX_VALUE_DEPTH = 200
"""Levels of such a value."""

_CONTAINERS = frozenset({dict, list, tuple, set, frozenset})


class CodeError(Exception):
    """Pure code cannot go on.

    Args:
        kind: the name of the exception that CPython raises, or of the limit.
        message: what it says.
        line: the line of the program; 0 where it is not known.
    """

    def __init__(self, kind: str, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.line = line


class LimitExceeded(Exception):
    """Pure code took more steps, memory or time than it may."""


class BreakLoop(Exception):
    """A ``break`` inside pure code."""


class ContinueLoop(Exception):
    """A ``continue`` inside pure code."""


class ReturnValue(Exception):
    """A ``return`` inside a pure helper function."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Meter:
    """Counts what pure code uses.

    Args:
        steps: most steps of one statement.
        size: most elements and characters that one statement makes.
        seconds: most seconds of one statement.
    """

    def __init__(
        self, steps: int = 1_000_000, size: int = 50_000_000, seconds: float = 5.0
    ) -> None:
        self.max_steps, self.max_size, self.max_seconds = steps, size, seconds
        self.reset()

    def reset(self) -> None:
        """Begin to count anew, for another statement."""
        self.steps = self.size = 0
        self._deadline = 0.0

    def step(self, count: int = 1) -> None:
        """Count steps.

        Raises:
            LimitExceeded: they are too many, or took too long.
        """
        self.steps += count
        if self.steps > self.max_steps:
            raise LimitExceeded(f"the code takes more than {self.max_steps:,} steps")
        if self.steps & 0xFFF == 0 or count > 0xFFF:
            now = time.monotonic()
            if not self._deadline:
                self._deadline = now + self.max_seconds
            elif now > self._deadline:
                raise LimitExceeded(f"the code takes longer than {self.max_seconds:g} s")

    def charge(self, size: int) -> None:
        """Count characters or elements that are made.

        Raises:
            LimitExceeded: they are too many.
        """
        self.size += size
        if self.size > self.max_size:
            raise LimitExceeded(f"the code makes values of more than {self.max_size:,} elements")


def weigh(meter: Meter, *values: Any) -> None:
    """Count what an operation visits that goes through whole values: text of them, comparisons.

    A value that holds another twice is visited twice, so a small program can build a value that
    takes longer to visit than anyone waits.

    Raises:
        LimitExceeded: the values are too large together, or nested too deeply.
    """
    count, level = 0, [value for value in values if type(value) in _CONTAINERS]
    for _ in range(MAX_VALUE_DEPTH):
        if not level:
            meter.step(count >> 4)
            return
        inner: list[Any] = []
        for value in level:
            count += len(value)
            if count > MAX_VALUE_SIZE:
                raise LimitExceeded(f"a value has more than {MAX_VALUE_SIZE:,} parts")
            parts = (*value.keys(), *value.values()) if type(value) is dict else value
            inner += [part for part in parts if type(part) in _CONTAINERS]
        level = inner
    raise LimitExceeded(f"a value is nested more than {MAX_VALUE_DEPTH} levels deep")


def as_code_error(error: Exception, line: int) -> CodeError:
    """What CPython's exception is for the reader of a program."""
    if isinstance(error, LimitExceeded):
        return CodeError("LimitReached", str(error), line)
    if isinstance(error, RecursionError):
        return CodeError("LimitReached", "a value is nested too deeply", line)
    if isinstance(error, MemoryError):
        return CodeError("LimitReached", "the code needs too much memory", line)
    return CodeError(type(error).__name__, str(error), line)
