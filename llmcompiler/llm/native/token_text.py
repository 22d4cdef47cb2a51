"""From tokens to text that can be shown: whole characters only, and nothing behind a stop text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class TokenText:
    """Decodes tokens that come one by one.

    Args:
        tokenizer: of transformers.
        stops: texts that end the shown text and are left out of it.
        special: True to show special tokens (``<think>``, say) by their names.

    Attributes:
        stopped: True once a stop text has come.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = (), *, special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._special = special
        self._stops = [stop for stop in stops if stop]
        self._tokens: list[int] = []
        self._decoded_tokens = 0
        self._text = ""
        self._pending = ""
        self.stopped = False

    def take(self, token: int) -> str:
        """The text that can be shown once ``token`` is known; part of a character has to wait."""
        self._tokens.append(token)
        text = self._decode(self._tokens)
        # A character of several tokens decodes to the replacement character until it is whole.
        if text.endswith("\ufffd") and len(self._tokens) - self._decoded_tokens < 8:
            return ""
        new = text[len(self._text) :]
        # The last token stays, because the text of the next token may depend on it.
        self._tokens = self._tokens[-1:]
        self._decoded_tokens = 1
        self._text = self._decode(self._tokens)
        return self._until_stop(new)

    def flush(self) -> str:
        """The text that was still waiting; called when no more tokens come."""
        text = self._decode(self._tokens)[len(self._text) :]
        self._tokens, self._text, self._decoded_tokens = [], "", 0
        visible = self._until_stop(text)
        if not self.stopped:
            visible, self._pending = visible + self._pending, ""
        return visible

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=not self._special, clean_up_tokenization_spaces=False
        )
        return text

    def _until_stop(self, new: str) -> str:
        text = self._pending + new
        stop_places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if stop_places:
            self.stopped, self._pending = True, ""
            return text[: min(stop_places)]
        pending = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._pending = text[len(text) - pending :]
        return text[: len(text) - pending]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of ``stop``."""
    return next((n for n in range(len(stop) - 1, 0, -1) if text.endswith(stop[:n])), 0)
