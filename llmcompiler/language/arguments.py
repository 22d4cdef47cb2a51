"""The arguments of one complete call: from their text to expressions.

A recursive-descent reader of JSON's and Python's literals and of references. It works on a piece of
text in memory and reports places as offsets into it. The module must not know how plans stream, how
tasks are numbered, or which tools there are.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Protocol

from llmcompiler.language.strings import QUOTES, read_string, unescape
from llmcompiler.language.syntax_issue import Note, Offsets, Refusal
from llmcompiler.plan.expressions import (
    Expr,
    Input,
    Literal,
    Reference,
    Template,
    make_dict,
    make_list,
    map_references,
    scan_reference,
    scan_string,
)

MAX_DEPTH = 64
"""Levels of lists and dicts; deep enough for any tool, shallow enough for Python's stack."""

_SPACE = re.compile(r"(?:\s|#[^\n]*)+")
_PLAIN_STRING = re.compile(r'"([^"\\$]+)"|\'([^\'\\$]+)\'')
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?")
_INTEGER = re.compile(r"-?[0-9]{1,18}(?=[,\])}])")
_WORD = re.compile(r"[^\W\d][\w.\-]*")
_KEYWORD = re.compile(r"([^\W\d][\w.\-]*)\s*(=(?!=)|:)")
_QUOTED_KEYWORD = re.compile(r'("(?:[^"\\]|\\.)*")\s*=(?!=)', re.DOTALL)
_JUNK = re.compile(r"[^\s,()\[\]{}]+")
_OPERATOR = re.compile(r"[-+*/%<>=!&|^~?]")
_PATH = re.compile(r"\.[^\W\d]|\[")
_WORDS = {
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "null": None,
    "None": None,
}


class Scope(Protocol):
    """What references may name at this place."""

    def known(self, number: int) -> bool:
        """Whether the task may be referred to."""
        ...

    def named(self, name: str) -> bool:
        """Whether the name is an input, for a string that holds it."""
        ...

    @property
    def renumbered(self) -> bool:
        """Whether ``resolve`` changes anything."""
        ...

    def resolve(self, ref: Reference | Input) -> Reference | Input:
        """The reference under the run's numbering."""
        ...

    def bare(self, ref: Reference | Input, span: Offsets) -> Reference | Input:
        """The same for a reference outside of strings.

        Raises:
            Refusal: it names nothing that is known.
        """
        ...

    def word_hint(self, word: str) -> str:
        """What to write instead of a word without quotes."""
        ...


def _anything(_: object) -> bool:
    return True


@dataclass(slots=True)
class Arguments:
    """The arguments of a call, and where each value stands."""

    args: list[Expr] = field(default_factory=list)
    kwargs: dict[str, Expr] = field(default_factory=dict)
    arg_spans: list[Offsets] = field(default_factory=list)
    kwarg_spans: dict[str, Offsets] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    later: list[tuple[int, Offsets]] = field(default_factory=list)
    """Numbers behind dollar signs in strings that name no task so far, and where they stand."""


class ArgumentReader:
    """Reads the arguments of one call, or one value.

    Args:
        text: what to read from.
        start: offset of the first character.
        end: offset behind the last one.
        scope: what references may name.
    """

    def __init__(self, text: str, start: int, end: int, scope: Scope) -> None:
        self._text = text
        self._at = start
        self._end = end
        self._scope = scope
        self._found = Arguments()

    def arguments(self) -> Arguments:
        """Read all arguments.

        Raises:
            Refusal: the text is something else.
        """
        found = self._found
        while not self._at_end():
            if (key := self._keyword()) is not None:
                name, span = key
                if name in found.kwargs:
                    raise Refusal("E112", f"argument {name!r} is given twice", span)
                self._skip()
                start = self._at
                found.kwargs[name] = self._value(0)
                found.kwarg_spans[name] = (start, self._at)
            else:
                start = self._at
                value = self._value(0)
                if found.kwargs:
                    raise Refusal(
                        "E111",
                        "a positional argument follows a keyword argument",
                        (start, self._at),
                        hint="give it a name too, or move it to the front",
                    )
                found.args.append(value)
                found.arg_spans.append((start, self._at))
            if self._at_end():
                break
            self._comma()
        return found

    def value(self) -> Expr:
        """Read one value that takes up the whole text.

        Raises:
            Refusal: the text is something else.
        """
        value = self._value(0)
        if not self._at_end():
            raise self._after_value()
        return value

    @property
    def notes(self) -> list[Note]:
        """Slips seen so far."""
        return self._found.notes

    # Moving on.

    def _skip(self) -> None:
        at = self._at
        if at >= self._end:
            return
        char = self._text[at]
        if char == " ":  # one is by far the most usual
            self._at = at = at + 1
            if at >= self._end:
                return
            char = self._text[at]
        may_skip = char <= " " or char == "#" or char > "~"
        if may_skip and (match := _SPACE.match(self._text, at, self._end)):
            self._at = match.end()

    def _at_end(self) -> bool:
        self._skip()
        return self._at >= self._end

    def _comma(self) -> None:
        if self._text[self._at] != ",":
            raise self._after_value()
        self._at += 1

    def _after_value(self) -> Refusal:
        text, at = self._text, self._at
        junk = _JUNK.match(text, at, self._end)
        span = (at, junk.end() if junk else at + 1)
        shown = text[span[0] : span[1]]
        before = text[at - 1] if at else ""
        if _OPERATOR.match(text, at) or shown in ("if", "and", "or", "in", "is", "for"):
            return Refusal(
                "E106",
                f"{shown!r} would compute something, which an argument cannot",
                span,
                hint='put the formula into a string for a tool that computes: calc("$1 / $2")',
            )
        if before.isdigit() and (shown[0].isalnum() or shown[0] in "_%"):
            return Refusal(
                "E108",
                f"{shown!r} does not belong to a number",
                span,
                hint="write digits only, or put the value into quotes",
            )
        if shown[0] == "(":
            return Refusal(
                "E107",
                "what stands before the parenthesis is called inside a call",
                span,
                hint="give the inner call a line of its own and refer to it by $N",
            )
        return Refusal(
            "E113",
            f"{shown!r} follows a value without a comma",
            span,
            expected="a comma or the closing bracket",
        )

    # Keywords.

    def _keyword(self) -> tuple[str, Offsets] | None:
        text, start = self._text, self._at
        if match := _KEYWORD.match(text, start, self._end):
            if match[2] == ":":
                self._note("W113", f"{match[1]!r} is followed by a colon", match.span(1))
            self._at = match.end()
            return match[1], match.span(1)
        if text[start] == '"' and (match := _QUOTED_KEYWORD.match(text, start, self._end)):
            self._at = match.end()
            return unescape(match[1][1:-1], start + 1), match.span(1)
        return None

    # Values.

    def _value(self, depth: int) -> Expr:
        self._skip()
        text, at = self._text, self._at
        if at >= self._end:
            raise Refusal("E105", "a value is missing", (at, at + 1), expected="a value")
        char = text[at]
        if char in QUOTES:
            if match := _PLAIN_STRING.match(text, at, self._end):
                self._at = match.end()
                return Literal(value=match[1] or match[2])
            return self._string()
        if char == "$":
            return self._reference()
        if char == "[":
            return self._list("]", depth)
        if char == "(":
            return self._list(")", depth)
        if char == "{":
            return self._dict(depth)
        if char.isdecimal() or char in "-+.":
            if match := _INTEGER.match(text, at, self._end):
                self._at = match.end()
                return Literal(value=int(match[0]))
            return self._number()
        return self._word()

    def _open(self, depth: int) -> None:
        if depth >= MAX_DEPTH:
            raise Refusal(
                "E116", f"nested more than {MAX_DEPTH} levels deep", (self._at, self._at + 1)
            )
        self._at += 1

    def _closes(self, bracket: str) -> bool:
        self._skip()
        if self._at < self._end and self._text[self._at] == bracket:
            self._at += 1
            return True
        if self._at >= self._end:
            raise Refusal("E101", f"{bracket!r} is missing", (self._at - 1, self._at))
        return False

    def _goes_on(self, bracket: str) -> bool:
        """Whether a comma follows a value, and not the closing bracket; it is taken."""
        if self._at < self._end and self._text[self._at] == ",":
            self._at += 1
            return True
        if self._closes(bracket):
            return False
        self._comma()
        return True

    def _list(self, bracket: str, depth: int) -> Expr:
        self._open(depth)
        items: list[Expr] = []
        commas = 0
        while not self._closes(bracket):
            items.append(self._value(depth + 1))
            if not self._goes_on(bracket):
                break
            commas += 1
        if bracket == ")" and len(items) == 1 and not commas:
            return items[0]
        return make_list(items)

    def _dict(self, depth: int) -> Expr:
        self._open(depth)
        entries: dict[str, Expr] = {}
        while not self._closes("}"):
            start = self._at
            key = self._key()
            if key in entries:
                raise Refusal("E110", f"key {key!r} stands twice in a dict", (start, self._at))
            self._skip()
            if self._at >= self._end or self._text[self._at] not in ":=":
                raise Refusal(
                    "E110",
                    f"key {key!r} has no value",
                    (start, self._at),
                    expected='{"key": value}',
                )
            self._at += 1
            entries[key] = self._value(depth + 1)
            if not self._goes_on("}"):
                break
        return make_dict(entries)

    def _key(self) -> str:
        text, at = self._text, self._at
        if match := _PLAIN_STRING.match(text, at, self._end):
            self._at = match.end()
            return match[1] or match[2]
        if text[at] in QUOTES:
            return self._string_content()
        if match := _WORD.match(text, at, self._end):
            self._at = match.end()
            self._note("W112", f"key {match[0]!r} has no quotes", match.span())
            return match[0]
        junk = _JUNK.match(text, at, self._end)
        span = junk.span() if junk else (at, at + 1)
        raise Refusal(
            "E110",
            f"{text[span[0] : span[1]]!r} is not a key",
            span,
            hint="keys are strings in quotes",
            expected='{"key": value}',
        )

    def _number(self) -> Expr:
        text, at = self._text, self._at
        match = _NUMBER.match(text, at, self._end)
        if match is None:
            if text[at] in "-+" and text.startswith("$", at + 1):
                raise self._computation(at)
            raise self._no_value(at)
        shown = match[0]
        self._at = match.end()
        if _PATH.match(text, match.end() - shown.endswith("."), self._end):
            whole = _JUNK.match(text, at, self._end)
            assert whole is not None
            raise Refusal(
                "E105",
                f"{whole[0]!r} is not a value",
                whole.span(),
                hint=f"a reference to a result starts with a dollar sign: ${whole[0]}",
            )
        try:
            value = int(shown) if shown.lstrip("+-").isdecimal() else float(shown)
        except ValueError:
            raise Refusal("E108", "the number has too many digits", match.span()) from None
        if isinstance(value, float) and not math.isfinite(value):
            raise Refusal("E108", f"{shown} is too large for a number", match.span())
        return Literal(value=value)

    def _no_value(self, at: int) -> Refusal:
        junk = _JUNK.match(self._text, at, self._end)
        span = junk.span() if junk else (at, at + 1)
        shown = self._text[span[0] : span[1]]
        if shown == ",":
            return Refusal("E105", "there is no value before the comma", span)
        return Refusal("E105", f"{shown!r} is not a value", span, expected="a value")

    def _computation(self, at: int) -> Refusal:
        return Refusal(
            "E106",
            f"{self._text[at]!r} would compute something, which an argument cannot",
            (at, at + 1),
            hint='put the formula into a string for a tool that computes: calc("-$1")',
        )

    def _word(self) -> Expr:
        text, at = self._text, self._at
        match = _WORD.match(text, at, self._end)
        if match is None:
            raise self._no_value(at)
        word, stop = match[0], match.end()
        if word in _WORDS:
            self._at = stop
            return Literal(value=_WORDS[word])
        if stop < self._end and text[stop] in QUOTES:
            raise Refusal(
                "E105",
                f"a string cannot have the prefix {word!r}",
                match.span(),
                hint="references in a string are filled in by themselves: leave the prefix out",
            )
        rest = _SPACE.sub("", text[stop : stop + 40])
        if rest.startswith("("):
            raise Refusal(
                "E107",
                f"{word} is called inside a call",
                match.span(),
                hint=f"give {word}(…) a line of its own and refer to its result by $N",
            )
        phrase = re.match(r"[^,()\[\]{}\n]*", text[at : self._end])
        length = len(phrase[0].rstrip()) if phrase else len(word)
        raise Refusal(
            "E105",
            f"{text[at : at + length]!r} is not a value",
            (at, at + length),
            hint=self._scope.word_hint(word),
        )

    # References.

    def _reference(self) -> Expr:
        text, at = self._text, self._at
        found, end = scan_reference(text, at, _anything, _anything)
        if found is None:
            junk = _JUNK.match(text, at, self._end)
            span = junk.span() if junk else (at, at + 1)
            raise Refusal(
                "E117",
                f"{text[span[0] : span[1]]!r} is not a reference",
                span,
                hint="a reference is $N and a path; text, such as an amount, stands in quotes",
            )
        self._at = end
        return self._scope.bare(found, (at, end))

    # Strings.

    def _string(self) -> Expr:
        start = self._at
        content = self._string_content()
        if "$" not in content:
            return Literal(value=content)
        scope = self._scope
        unknown: list[int] = []

        def known(number: int) -> bool:
            found = scope.known(number)
            if not found:
                unknown.append(number)
            return found

        expr = scan_string(content, known, scope.named)
        place = (start, self._at)
        self._found.later += [(number, place) for number in dict.fromkeys(unknown)]
        if not scope.renumbered or type(expr) is not Template:
            return expr
        return map_references(expr, scope.resolve)

    def _string_content(self) -> str:
        start = self._at
        content, closing, self._at = read_string(self._text, start, self._end)
        if closing[0] not in "\"'":
            opening = self._text[start]
            self._note("W106", f"a string stands in {opening}…{closing}", (start, self._at))
        return content

    def _note(self, code: str, message: str, span: Offsets, hint: str = "") -> None:
        self._found.notes.append(Note(code, message, span, hint))
