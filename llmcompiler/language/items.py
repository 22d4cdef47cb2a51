"""Items that the parser yields, and their places in a plan's text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from llmcompiler.language.syntax_issue import Offsets
from llmcompiler.plan.diagnostics import Diagnostic, Span
from llmcompiler.plan.expressions import Expr
from llmcompiler.plan.model import Join, PlanInput, Task


@dataclass(frozen=True, slots=True)
class ThoughtLine:
    """A line of prose between tasks."""

    text: str


@dataclass(frozen=True, slots=True)
class QuestionLine:
    """The header line of a saved plan: the question that the plan answers."""

    expr: Expr


ParsedItem: TypeAlias = Task | Join | Diagnostic | ThoughtLine | PlanInput | QuestionLine
"""Whatever the parser can yield."""


@dataclass(frozen=True, slots=True)
class CallSource:
    """The places of a call and of its parts in the plan's text.

    Attributes:
        text: the call, from the start of its first line.
        line: number of that line.
        tool: offsets of the tool's name in ``text``.
        args: offsets of the positional arguments.
        kwargs: offsets of the keyword arguments' values.
    """

    text: str
    line: int
    tool: Offsets
    args: tuple[Offsets, ...]
    kwargs: Mapping[str, Offsets]

    def span(self, offsets: Offsets) -> Span:
        """The place of a part of the call; the first line of a part that has several."""
        return span_of(self.text, self.line, offsets)


def span_of(text: str, first_line: int, offsets: Offsets) -> Span:
    """The place of a piece of ``text``, cut at the end of the piece's first line.

    Args:
        text: one or several lines.
        first_line: number of its first line, counted from 1.
        offsets: start and end of the piece in ``text``.
    """
    start, end = offsets
    begin = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", begin)
    line = (text[begin:] if stop < 0 else text[begin:stop]).rstrip("\r")
    column = min(start - begin, len(line))
    return Span(
        line=first_line + text.count("\n", 0, begin),
        column=column + 1,
        end_column=max(min(end - begin, len(line)), column + 1) + 1,
        source_line=line,
    )
