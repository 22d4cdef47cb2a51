"""Where the steps of a text end that a reasoning model is writing.

What is written in steps can be shown to others, and put in order, step by step (Hogwild!, arXiv
2504.06261, section 3.2). The module must not know tokens, nor who writes.
"""

from __future__ import annotations

import re

_BLANK_LINE = re.compile(r"\n[ \t]*\n\s*$")
_SENTENCE_END = re.compile(r"[.!?:;)\]}'\"*`|]\s*$|\\\]\s*$|\$\$\s*$")
_FENCES = (("```", "```"), ("$$", "$$"), ("\\[", "\\]"), ("\\begin{", "\\end{"))


class Steps:
    """Finds where a writer's steps end: a blank line behind a sentence, outside of open fences."""

    def __init__(self) -> None:
        self._text = ""

    def take(self, new: str) -> bool:
        """Whether a step ends with this text; the next step begins behind it."""
        self._text += new
        if "\n" not in new or not ends_step(self._text):
            return False
        self._text = ""
        return True


def ends_step(text: str) -> bool:
    """Whether a step that reads like this has come to its end."""
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
