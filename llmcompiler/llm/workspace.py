"""A workspace: one text that several writers write at once, and that each of them can see.

A strategy, through its branch, gives each writer a seat; a call with a seat is otherwise a call
like any other. Only models with the capability ``shared_attention`` take such calls. The workspace
keeps the text in the pieces in which it came, so that a model that has lost its caches (because its
process ended) can read the pieces again and go on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from llmcompiler.llm.messages import Message

WorkspaceLayout: TypeAlias = Literal["contiguous", "interleaved", "combined", "paths"]
"""What a writer sees, behind the prompt and before its own work.

``contiguous``: all that the others have written, each in one piece; ``interleaved``: the finished
steps, in the order in which they were finished; ``combined``: the finished steps, then what the
others are writing now; ``paths``: nothing. The first three are Hogwild!'s (arXiv 2504.06261), the
last is ParaThinker's (arXiv 2509.04475).
"""

_BLANK_LINE = re.compile(r"\n[ \t]*\n\s*$")
_SENTENCE_END = re.compile(r"[.!?:;)\]}'\"*`|]\s*$|\\\]\s*$|\$\$\s*$")
_FENCES = (("```", "```"), ("$$", "$$"), ("\\[", "\\]"), ("\\begin{", "\\end{"))


@dataclass(frozen=True, slots=True)
class WorkspaceRules:
    """How a workspace is written.

    Attributes:
        layout: what writers see of each other.
        openings: the words that each writer's work begins with, one text a writer; where finished
            steps are moved into the common past, each step of the writer begins with them.
        headings: for layout ``combined``: the text before the others' work in progress, and the
            text before the writer's own.
        check: a text that is put into a writer's work at the end of a step; the writer goes on
            from it.
        check_every: tokens of a writer between two checks; 0 for no checks.
        banned: tokens that nobody may write; tokens that the model does not have are ignored.
    """

    layout: WorkspaceLayout
    openings: tuple[str, ...]
    headings: tuple[str, str] = ("", "")
    check: str = ""
    check_every: int = 0
    banned: tuple[str, ...] = ()


@dataclass(eq=False, slots=True)
class Seat:
    """A place at a workspace, for one call.

    Attributes:
        workspace: the workspace.
        number: the writer's number, from 0; -1 for a conclusion.
        kind: ``write``: from the beginning, in step with all others; ``append``: behind one
            writer's text, once all have ended; ``conclude``: behind the texts of all.
        text: the text that stands before the answer, for ``append`` and ``conclude``.
        pieces: the pieces that the call has given.
        over: True once no more pieces come.
        finish: the call's finish reason; empty while the call runs.
    """

    workspace: Workspace
    number: int
    kind: Literal["write", "append", "conclude"]
    text: str = ""
    pieces: list[str] = field(default_factory=list)
    over: bool = False
    finish: str = ""

    def to_json(self) -> dict[str, Any]:
        """The seat as it is logged with the call's request."""
        rules = self.workspace.rules
        texts = [*rules.openings, *rules.headings, rules.check, *rules.banned]
        fields = {
            "kind": self.kind,
            "number": self.number,
            "layout": rules.layout,
            "writers": len(rules.openings),
            "rules": hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16],
        }
        if rules.check_every:
            fields["check_every"] = rules.check_every
        return fields | ({"text": self.text} if self.text else {})


class Workspace:
    """The prompt, the rules and the seats of one shared text.

    Args:
        messages: the prompt of all writers.
        rules: how the workspace is written.

    Attributes:
        writers: the writers' seats.
    """

    def __init__(self, messages: tuple[Message, ...], rules: WorkspaceRules) -> None:
        self.messages = messages
        self.rules = rules
        self.writers = [Seat(self, number, "write") for number in range(len(rules.openings))]
        self._closers: list[Callable[[], None]] = []

    def append(self, number: int, text: str) -> Seat:
        """A seat behind the text of writer ``number``, for a call when all writers have ended."""
        return Seat(self, number, "append", text)

    def conclude(self, text: str) -> Seat:
        """A seat behind the texts of all writers."""
        return Seat(self, -1, "conclude", text)

    def on_close(self, closer: Callable[[], None]) -> None:
        """Call ``closer`` when the workspace is closed."""
        self._closers.append(closer)

    def close(self) -> None:
        """Tell everybody who registered by ``on_close`` that the workspace is no longer needed."""
        while self._closers:
            self._closers.pop()()


class StepDetector:
    """Finds where a writer's steps end: a blank line behind a sentence, outside of open fences.

    Finished steps can be shown to other writers and put in order (Hogwild!, arXiv 2504.06261,
    section 3.2).
    """

    def __init__(self) -> None:
        self._text = ""

    def take(self, new: str) -> bool:
        """True if a step ends with the text ``new``; the next step begins behind it."""
        self._text += new
        if "\n" not in new or not ends_step(self._text):
            return False
        self._text = ""
        return True


def ends_step(text: str) -> bool:
    """True if ``text``, which begins where a step begins, is a finished step."""
    blank = _BLANK_LINE.search(text)
    if blank is None or _SENTENCE_END.search(text[: blank.start()]) is None:
        return False
    for opens, closes in _FENCES:
        if opens == closes:
            if text.count(opens) % 2:
                return False
        elif text.count(opens) > text.count(closes):
            return False
    return True
