"""From tokens to text as it can be shown: whole characters, nothing behind a stop.

The module must not know models: a tokenizer is all it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Words:
    """Text of tokens that come one by one.

    Args:
        tokenizer: of transformers.
        stops: texts that end what is shown, and are left out of it.
        special: whether tokens that are no text (``<think>``, say) are shown by their names.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = (), *, special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._special = special
        self._stops = [stop for stop in stops if stop]
        self._tokens: list[int] = []
        self._shown = 0
        self._text = ""
        self._held = ""
        self.stopped = False

    def take(self, token: int) -> str:
        """What a token lets be shown; characters that need a further token wait for it."""
        self._tokens.append(token)
        text = self._decode(self._tokens)
        # A character of several tokens decodes to the replacement character until it is whole.
        if text.endswith("\ufffd") and len(self._tokens) - self._shown < 8:
            return ""
        new = text[len(self._text) :]
        # Decoding starts anew from the last token, which may say how the next is to be read.
        self._tokens = self._tokens[-1:]
        self._shown = 1
        self._text = self._decode(self._tokens)
        return self._until_stop(new)

    def rest(self) -> str:
        """What is still held back, when no more tokens come."""
        text = self._decode(self._tokens)[len(self._text) :]
        self._tokens, self._text, self._shown = [], "", 0
        shown = self._until_stop(text)
        if not self.stopped:
            shown, self._held = shown + self._held, ""
        return shown

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=not self._special, clean_up_tokenization_spaces=False
        )
        return text

    def _until_stop(self, new: str) -> str:
        text = self._held + new
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        held = max((_beginning(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _beginning(text: str, stop: str) -> int:
    """How many characters at the end of a text could be the beginning of a stop."""
    return next((n for n in range(len(stop) - 1, 0, -1) if text.endswith(stop[:n])), 0)
