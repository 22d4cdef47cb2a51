"""The gate before the parser of a streamed plan: it lets no thought of the model through.

A task starts when its text has been read, so a call in a thought must not reach the parser. Tags
around a thought are plain to see. Where the chat template opened the tag, only its end stands in
the text, and until then the thought looks like prose. So prose at the beginning waits until a
closing tag, or the end of the text, says what it is; a text that begins as a plan waits for
nothing.
"""

from __future__ import annotations

import re

from llmcompiler.llm.thinking import ThinkingSplitter

_PLAN_BEGINS = re.compile(
    r"\s*(?:```\w*\s*|#[^\n]*\n\s*)*(?:\d+\s*[.):]|thought\s*:|join\s*\(|[A-Za-z_][\w.\-]*\()",
    re.IGNORECASE,
)


class PlanGate:
    """Lets the text of a plan through, piece by piece.

    Attributes:
        retractions: how often text that was let through turned out to be a thought. What was made
            of it is to be dropped, and the next text begins anew.
    """

    def __init__(self) -> None:
        self.retractions = 0
        self._splitter = ThinkingSplitter()
        self._waiting = ""
        self._is_open = False

    def feed(self, piece: str) -> str:
        """Take in a piece of text; returns what the parser may read."""
        return self._pass(self._splitter.feed(piece))

    def close(self) -> str:
        """End the text; returns what is left of it."""
        ending = self._pass(self._splitter.close())
        self._is_open = True
        text, self._waiting = self._waiting + ending, ""
        return text

    def _pass(self, text: str) -> str:
        if self._splitter.retractions > self.retractions:
            self.retractions = self._splitter.retractions
            self._is_open = True
            self._waiting = ""
            return self._splitter.result().answer
        if self._is_open:
            return text
        self._waiting += text
        if _PLAN_BEGINS.match(self._waiting) is None:
            return ""
        self._is_open = True
        text, self._waiting = self._waiting, ""
        return text
