"""A workspace: one text by several writers at once, each of whom can see all of it.

Who asks for it (a strategy, through its branch) gives each writer a seat, and a call with a seat is
a call like any other. Only a model that says ``shared_attention`` takes such calls. What has been
written is here as text, in the pieces in which it came, so that a model that has lost its caches,
because its process ended, can read it all again and go on. The module must not know how models
share attention.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from llmcompiler.llm.messages import Message

Layout: TypeAlias = Literal["contiguous", "interleaved", "combined", "paths"]
"""What a writer sees, behind the prompt and before its own work.

``contiguous``: all that the others have written, each in one piece; ``interleaved``: steps that are
finished, in the order in which they were; ``combined``: those, then what the others are writing
now; ``paths``: nothing. The first three are Hogwild!'s (arXiv 2504.06261), the last ParaThinker's
(arXiv 2509.04475).
"""


@dataclass(frozen=True, slots=True)
class Rules:
    """How a workspace is written.

    Attributes:
        layout: what writers see of each other.
        openings: what each writer's work begins with; where steps are moved into the common past,
            each of its steps does.
        headings: of layout ``combined``: what stands before the others' work in progress, and
            before one's own.
        check: what is put into a writer's text, for it to go on from; at the end of a step.
        check_every: tokens of a writer after which that happens; 0 for never.
        banned: tokens that nobody may write; those that the model does not have are no matter.
    """

    layout: Layout
    openings: tuple[str, ...]
    headings: tuple[str, str] = ("", "")
    check: str = ""
    check_every: int = 0
    banned: tuple[str, ...] = ()


@dataclass(eq=False, slots=True)
class Seat:
    """A place at a workspace, for one call.

    Attributes:
        workspace: whose it is.
        number: of the writer, from 0; of a conclusion, -1.
        kind: ``write``: from the beginning, in step with all others; ``append``: behind what that
            writer has, once all have ended; ``conclude``: behind what everybody has.
        text: what is put there first, of ``append`` and ``conclude``.
        pieces: what came.
        over: whether nothing more comes.
        finish: how it came to its end, if it did.
    """

    workspace: Workspace
    number: int
    kind: Literal["write", "append", "conclude"]
    text: str = ""
    pieces: list[str] = field(default_factory=list)
    over: bool = False
    finish: str = ""

    def to_json(self) -> dict[str, Any]:
        """As it is logged with the call's request."""
        rules = self.workspace.rules
        texts = [*rules.openings, *rules.headings, rules.check, *rules.banned]
        said = {
            "kind": self.kind,
            "number": self.number,
            "layout": rules.layout,
            "writers": len(rules.openings),
            "rules": hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16],
        }
        if rules.check_every:
            said["check_every"] = rules.check_every
        return said | ({"text": self.text} if self.text else {})


class Workspace:
    """What several writers have before them.

    Args:
        messages: what all of them were asked.
        rules: how it is written.

    Attributes:
        writers: their seats.
    """

    def __init__(self, messages: tuple[Message, ...], rules: Rules) -> None:
        self.messages = messages
        self.rules = rules
        self.writers = [Seat(self, number, "write") for number in range(len(rules.openings))]
        self._closers: list[Callable[[], None]] = []

    def append(self, number: int, text: str) -> Seat:
        """A seat behind what a writer has written, when all have ended."""
        return Seat(self, number, "append", text)

    def conclude(self, text: str) -> Seat:
        """A seat behind what everybody has written."""
        return Seat(self, -1, "conclude", text)

    def on_close(self, closer: Callable[[], None]) -> None:
        """Have a function called when nobody needs the workspace any more."""
        self._closers.append(closer)

    def close(self) -> None:
        """Nobody needs it any more."""
        while self._closers:
            self._closers.pop()()
