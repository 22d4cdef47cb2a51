"""Separates what a model says from what it thinks, where both stand in one text.

Models that reason write their thoughts into the answer, in tags such as ``<think>``, unless the
endpoint takes them out. A thought is no part of the answer: a call in it must not run. Chat
templates may open the tag inside the prompt, and then only the closing tag stands in the text.
"""

from __future__ import annotations

from typing import NamedTuple

# Opening and closing tags, in lower case. The last pair is the channel of thoughts of gpt-oss.
_TAGS: dict[str, str] = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<thoughts>": "</thoughts>",
    "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>",
    "[think]": "[/think]",
    "◁think▷": "◁/think▷",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "<|channel|>analysis<|message|>": "<|end|>",
}
_CLOSERS = tuple(closer for closer in _TAGS.values() if closer != "<|end|>")

# Marks of a format that stand between a thought and the answer, and belong to neither.
_MARKS = ("<|start|>assistant", "<|channel|>final<|message|>", "<|return|>")

_FIRST_CHARS = "<[◁"
_LONGEST = max(map(len, (*_TAGS, *_TAGS.values(), *_MARKS)))


class SplitText(NamedTuple):
    """A text in its two parts."""

    answer: str
    thought: str


def split_thinking(text: str) -> SplitText:
    """Split a complete text into what it says and what it thinks.

    All that stands before a closing tag without an opening tag is a thought.
    """
    splitter = ThinkingSplitter()
    splitter.feed(text)
    splitter.close()
    return splitter.result()


class ThinkingSplitter:
    """Splits a text that arrives in pieces.

    Tags in a quoted string (``"<think>"``, with its quotation marks on the same line) are text. A
    closing tag without an opening tag is passed on, so that a reader of the stream can drop what
    came before; ``result`` has dropped it.

    Attributes:
        retractions: how many closing tags without an opening tag were passed on.
    """

    def __init__(self) -> None:
        self.retractions = 0
        self._answer_parts: list[str] = []
        self._thoughts: list[str] = []
        self._thought: list[str] = []  # the pieces of the one that is open
        self._pending = ""
        self._closer = ""  # of the thought that is open
        self._opening = ""  # the tag that opened it, if other text stood before it on its line
        self._line = ""  # the answer's text on the current line

    def feed(self, piece: str) -> str:
        """Take in a piece of text.

        Returns:
            What can be passed on: text of the answer, as far as no tag can begin at its end.
        """
        self._pending += piece
        return self._drain(is_last=False)

    def close(self) -> str:
        """End the text.

        Returns:
            The rest of the answer.
        """
        passed = self._drain(is_last=True)
        if self._closer:
            opening = self._opening
            thought = self._end_thought()
            if opening and "\n" not in thought:
                # A sentence that names the tag, rather than a thought.
                self._thoughts.pop()
                passed += self._say(opening + thought)
        return passed

    def result(self) -> SplitText:
        """The answer and the thoughts so far."""
        answer = "".join(self._answer_parts)
        thoughts = (*self._thoughts, "".join(self._thought))
        thought = "\n".join(filter(None, (part.strip() for part in thoughts)))
        return SplitText(answer.lstrip("\n") if thought else answer, thought)

    def _drain(self, *, is_last: bool) -> str:
        passed: list[str] = []
        while True:
            if self._closer:
                if not self._read_thought(is_last):
                    break
            elif not self._read_text(passed, is_last):
                break
        return "".join(passed)

    def _read_thought(self, is_last: bool) -> bool:
        """Read on in a thought; True if it has ended."""
        lowered = self._pending.lower()
        end = lowered.find(self._closer)
        if end >= 0:
            self._thought.append(self._pending[:end])
            self._pending = self._pending[end + len(self._closer) :]
            self._end_thought()
            return True
        keep = 0 if is_last else _length_of_beginning(lowered, (self._closer,))
        cut = len(self._pending) - keep
        self._thought.append(self._pending[:cut])
        self._pending = self._pending[cut:]
        return False

    def _end_thought(self) -> str:
        thought = "".join(self._thought)
        self._thoughts.append(thought)
        self._thought = []
        self._closer = self._opening = ""
        return thought

    def _read_text(self, passed: list[str], is_last: bool) -> bool:
        """Read on in the answer; True if a tag was read."""
        position = 0
        while (position := _find_first_char(self._pending, position)) >= 0:
            head = self._pending[position : position + _LONGEST].lower()
            tag = next((tag for tag in (*_TAGS, *_CLOSERS, *_MARKS) if head.startswith(tag)), "")
            if tag:
                passed.append(self._say(self._pending[:position]))
                found = self._pending[position : position + len(tag)]
                self._pending = self._pending[position + len(tag) :]
                self._take_tag(tag, found, passed)
                return True
            if not is_last and _length_of_beginning(head, (*_TAGS, *_CLOSERS, *_MARKS)) == len(
                head
            ):
                break  # more of the text decides
            position += 1
        cut = len(self._pending) if position < 0 else position
        passed.append(self._say(self._pending[:cut]))
        self._pending = self._pending[cut:]
        return False

    def _take_tag(self, tag: str, found: str, passed: list[str]) -> None:
        if _is_quoted(self._line):
            passed.append(self._say(found))
        elif tag in _TAGS:
            self._closer = _TAGS[tag]
            self._opening = found if self._line.strip() else ""
        elif tag in _CLOSERS:
            passed.append(found)
            self._thoughts.append("".join(self._answer_parts))
            self._answer_parts = []
            self._line = ""
            self.retractions += 1

    def _say(self, text: str) -> str:
        if text:
            self._answer_parts.append(text)
            _, line_break, line = text.rpartition("\n")
            self._line = line if line_break else self._line + line
        return text


def _find_first_char(text: str, start: int) -> int:
    places = (text.find(char, start) for char in _FIRST_CHARS)
    return min((place for place in places if place >= 0), default=-1)


def _length_of_beginning(text: str, tags: tuple[str, ...]) -> int:
    """The length of the longest end of ``text`` with which a tag begins."""
    for length in range(min(len(text), _LONGEST - 1), 0, -1):
        if any(tag.startswith(text[-length:]) for tag in tags):
            return length
    return 0


def _is_quoted(line: str) -> bool:
    """True if a string is open at the end of ``line``, or the last character is a quote."""
    if line[-1:] in ("'", "`"):
        return True
    quotes, position = 0, 0
    while position < len(line):
        if line[position] == "\\":
            position += 1
        elif line[position] == '"':
            quotes += 1
        position += 1
    return quotes % 2 == 1
