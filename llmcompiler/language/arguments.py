"""The argument reader: from the text of one complete call to expressions.

It is a recursive-descent reader of JSON's and Python's literals and of references. It works on text
in memory, and reports places as offsets into that text.
"""

from __future__ import annotations

import ast
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, Protocol

from llmcompiler.language.strings import QUOTES, read_string, unescape
from llmcompiler.language.syntax_issue import Offsets, Slip, SyntaxIssue
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
"""Most levels of lists and dicts: deep enough for any tool, shallow enough for Python's stack."""

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
_LONGEST_CONSTRUCTOR = 400
_WORDS = {
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "null": None,
    "None": None,
}


class Scope(Protocol):
    """The tasks and inputs that references can name at this place."""

    def has_task(self, number: int) -> bool:
        """True if references can name the task."""
        ...

    def has_input(self, name: str) -> bool:
        """True if ``$name`` in a string is a reference to an input."""
        ...

    @property
    def is_renumbered(self) -> bool:
        """True if task numbers in the text differ from task ids."""
        ...

    def resolve(self, ref: Reference | Input) -> Reference | Input:
        """Turn the number in a reference into a task id."""
        ...

    def resolve_bare(self, ref: Reference | Input, span: Offsets) -> Reference | Input:
        """Do the same for a reference outside of strings.

        Raises:
            SyntaxIssue: the reference names no task and no input.
        """
        ...

    def word_hint(self, word: str) -> str:
        """Say what to write instead of a word without quotes."""
        ...


def _accept_any(_: object) -> bool:
    return True


@dataclass(slots=True)
class Arguments:
    """The arguments of a call.

    Attributes:
        args: the positional arguments.
        kwargs: the keyword arguments.
        arg_spans: places of the positional arguments.
        kwarg_spans: places of the keyword arguments' values.
        slips: slips in the text that have only one reading.
        unknown_numbers: numbers behind dollar signs in strings that name no task above, each with
            the place of its string.
    """

    args: list[Expr] = field(default_factory=list)
    kwargs: dict[str, Expr] = field(default_factory=dict)
    arg_spans: list[Offsets] = field(default_factory=list)
    kwarg_spans: dict[str, Offsets] = field(default_factory=dict)
    slips: list[Slip] = field(default_factory=list)
    unknown_numbers: list[tuple[int, Offsets]] = field(default_factory=list)


class ArgumentReader:
    """Reads the arguments of one call, or one value.

    Args:
        text: the text that holds the arguments.
        start: offset of their first character.
        end: offset behind their last character.
        scope: the tasks and inputs that references can name.
    """

    def __init__(self, text: str, start: int, end: int, scope: Scope) -> None:
        self._text = text
        self._position = start
        self._end = end
        self._scope = scope
        self._arguments = Arguments()

    def read_arguments(self) -> Arguments:
        """Read all arguments.

        Raises:
            SyntaxIssue: the text is not a list of arguments.
        """
        arguments = self._arguments
        while not self._at_end():
            if (key := self._read_keyword()) is not None:
                name, span = key
                if name in arguments.kwargs:
                    raise SyntaxIssue("E112", f"argument {name!r} is given twice", span)
                self._skip_space()
                start = self._position
                arguments.kwargs[name] = self._read_value(0)
                arguments.kwarg_spans[name] = (start, self._position)
            else:
                start = self._position
                value = self._read_value(0)
                if arguments.kwargs:
                    raise SyntaxIssue(
                        "E111",
                        "a positional argument follows a keyword argument",
                        (start, self._position),
                        hint="give it a name too, or move it to the front",
                    )
                arguments.args.append(value)
                arguments.arg_spans.append((start, self._position))
            if self._at_end():
                break
            self._read_comma()
        return arguments

    def read_value(self) -> Expr:
        """Read one value that takes up the whole text.

        Raises:
            SyntaxIssue: the text is not one value.
        """
        value = self._read_value(0)
        if not self._at_end():
            raise self._explain_after_value()
        return value

    @property
    def slips(self) -> list[Slip]:
        """The slips that were read so far."""
        return self._arguments.slips

    # Moving on.

    def _skip_space(self) -> None:
        at = self._position
        if at >= self._end:
            return
        char = self._text[at]
        if char == " ":  # a single space is by far the most usual
            self._position = at = at + 1
            if at >= self._end:
                return
            char = self._text[at]
        may_skip = char <= " " or char == "#" or char > "~"
        if may_skip and (match := _SPACE.match(self._text, at, self._end)):
            self._position = match.end()

    def _at_end(self) -> bool:
        self._skip_space()
        return self._position >= self._end

    def _read_comma(self) -> None:
        if self._text[self._position] != ",":
            raise self._explain_after_value()
        self._position += 1

    def _explain_after_value(self) -> SyntaxIssue:
        text, at = self._text, self._position
        junk = _JUNK.match(text, at, self._end)
        span = (at, junk.end() if junk else at + 1)
        excerpt = text[span[0] : span[1]]
        before = text[at - 1] if at else ""
        if _OPERATOR.match(text, at) or excerpt in ("if", "and", "or", "in", "is", "for"):
            return SyntaxIssue(
                "E106",
                f"{excerpt!r} would compute something, which an argument cannot",
                span,
                hint='put the formula into a string for a tool that computes: calc("$1 / $2")',
            )
        if before.isdigit() and (excerpt[0].isalnum() or excerpt[0] in "_%"):
            return SyntaxIssue(
                "E108",
                f"{excerpt!r} does not belong to a number",
                span,
                hint="write digits only, or put the value into quotes",
            )
        if excerpt[0] == "(":
            return SyntaxIssue(
                "E107",
                "what stands before the parenthesis is called inside a call",
                span,
                hint="give the inner call a line of its own and refer to it by $N",
            )
        return SyntaxIssue(
            "E113",
            f"{excerpt!r} follows a value without a comma",
            span,
            expected="a comma or the closing bracket",
        )

    # Keywords.

    def _read_keyword(self) -> tuple[str, Offsets] | None:
        text, start = self._text, self._position
        if match := _KEYWORD.match(text, start, self._end):
            if match[2] == ":":
                self._add_slip("W113", f"{match[1]!r} is followed by a colon", match.span(1))
            self._position = match.end()
            return match[1], match.span(1)
        if text[start] == '"' and (match := _QUOTED_KEYWORD.match(text, start, self._end)):
            self._position = match.end()
            return unescape(match[1][1:-1], start + 1), match.span(1)
        return None

    # Values.

    def _read_value(self, depth: int) -> Expr:
        self._skip_space()
        text, at = self._text, self._position
        if at >= self._end:
            raise SyntaxIssue("E105", "a value is missing", (at, at + 1), expected="a value")
        char = text[at]
        if char in QUOTES:
            if match := _PLAIN_STRING.match(text, at, self._end):
                self._position = match.end()
                return Literal(value=match[1] or match[2])
            return self._read_string_value()
        if char == "$":
            return self._read_reference()
        if char == "[":
            return self._read_list("]", depth)
        if char == "(":
            return self._read_list(")", depth)
        if char == "{":
            return self._read_dict(depth)
        if char.isdecimal() or char in "-+.":
            if match := _INTEGER.match(text, at, self._end):
                self._position = match.end()
                return Literal(value=int(match[0]))
            return self._read_number()
        return self._read_word()

    def _open_bracket(self, depth: int) -> None:
        if depth >= MAX_DEPTH:
            raise SyntaxIssue(
                "E116",
                f"nested more than {MAX_DEPTH} levels deep",
                (self._position, self._position + 1),
            )
        self._position += 1

    def _read_closing(self, bracket: str) -> bool:
        self._skip_space()
        if self._position < self._end and self._text[self._position] == bracket:
            self._position += 1
            return True
        if self._position >= self._end:
            raise SyntaxIssue(
                "E101", f"{bracket!r} is missing", (self._position - 1, self._position)
            )
        return False

    def _read_comma_or_closing(self, bracket: str) -> bool:
        """Read the comma or the closing bracket behind a value; True if it was a comma."""
        if self._position < self._end and self._text[self._position] == ",":
            self._position += 1
            return True
        if self._read_closing(bracket):
            return False
        self._read_comma()
        return True

    def _read_list(self, bracket: str, depth: int) -> Expr:
        self._open_bracket(depth)
        items: list[Expr] = []
        commas = 0
        while not self._read_closing(bracket):
            items.append(self._read_value(depth + 1))
            if not self._read_comma_or_closing(bracket):
                break
            commas += 1
        if bracket == ")" and len(items) == 1 and not commas:
            return items[0]
        return make_list(items)

    def _read_dict(self, depth: int) -> Expr:
        self._open_bracket(depth)
        entries: dict[str, Expr] = {}
        while not self._read_closing("}"):
            start = self._position
            key = self._read_key()
            if key in entries:
                raise SyntaxIssue(
                    "E110", f"key {key!r} stands twice in a dict", (start, self._position)
                )
            self._skip_space()
            if self._position >= self._end or self._text[self._position] not in ":=":
                raise SyntaxIssue(
                    "E110",
                    f"key {key!r} has no value",
                    (start, self._position),
                    expected='{"key": value}',
                )
            self._position += 1
            entries[key] = self._read_value(depth + 1)
            if not self._read_comma_or_closing("}"):
                break
        return make_dict(entries)

    def _read_key(self) -> str:
        text, at = self._text, self._position
        if match := _PLAIN_STRING.match(text, at, self._end):
            self._position = match.end()
            return match[1] or match[2]
        if text[at] in QUOTES:
            return self._read_string()
        if match := _WORD.match(text, at, self._end):
            self._position = match.end()
            self._add_slip("W112", f"key {match[0]!r} has no quotes", match.span())
            return match[0]
        junk = _JUNK.match(text, at, self._end)
        span = junk.span() if junk else (at, at + 1)
        raise SyntaxIssue(
            "E110",
            f"{text[span[0] : span[1]]!r} is not a key",
            span,
            hint="keys are strings in quotes",
            expected='{"key": value}',
        )

    def _read_number(self) -> Expr:
        text, at = self._text, self._position
        match = _NUMBER.match(text, at, self._end)
        if match is None:
            if text[at] in "-+" and text.startswith("$", at + 1):
                raise self._explain_computation(at)
            raise self._explain_no_value(at)
        digits = match[0]
        self._position = match.end()
        if _PATH.match(text, match.end() - digits.endswith("."), self._end):
            word = _JUNK.match(text, at, self._end)
            assert word is not None
            raise SyntaxIssue(
                "E105",
                f"{word[0]!r} is not a value",
                word.span(),
                hint=f"a reference to a result starts with a dollar sign: ${word[0]}",
            )
        try:
            value = int(digits) if digits.lstrip("+-").isdecimal() else float(digits)
        except ValueError:
            raise SyntaxIssue("E108", "the number has too many digits", match.span()) from None
        if isinstance(value, float) and not math.isfinite(value):
            raise SyntaxIssue("E108", f"{digits} is too large for a number", match.span())
        return Literal(value=value)

    def _explain_no_value(self, at: int) -> SyntaxIssue:
        junk = _JUNK.match(self._text, at, self._end)
        span = junk.span() if junk else (at, at + 1)
        excerpt = self._text[span[0] : span[1]]
        if excerpt == ",":
            return SyntaxIssue("E105", "there is no value before the comma", span)
        return SyntaxIssue("E105", f"{excerpt!r} is not a value", span, expected="a value")

    def _explain_computation(self, at: int) -> SyntaxIssue:
        return SyntaxIssue(
            "E106",
            f"{self._text[at]!r} would compute something, which an argument cannot",
            (at, at + 1),
            hint='put the formula into a string for a tool that computes: calc("-$1")',
        )

    def _read_word(self) -> Expr:
        text, at = self._text, self._position
        match = _WORD.match(text, at, self._end)
        if match is None:
            raise self._explain_no_value(at)
        word, stop = match[0], match.end()
        if word in _WORDS:
            self._position = stop
            return Literal(value=_WORDS[word])
        if stop < self._end and text[stop] in QUOTES:
            raise SyntaxIssue(
                "E105",
                f"a string cannot have the prefix {word!r}",
                match.span(),
                hint="references in a string are filled in by themselves: leave the prefix out",
            )
        following = _SPACE.sub("", text[stop : stop + 40])
        if following.startswith("("):
            raise SyntaxIssue(
                "E107",
                f"{word} is called inside a call",
                match.span(),
                hint=_inner_call_hint(word, text[at : self._end]),
            )
        phrase = re.match(r"[^,()\[\]{}\n]*", text[at : self._end])
        length = len(phrase[0].rstrip()) if phrase else len(word)
        raise SyntaxIssue(
            "E105",
            f"{text[at : at + length]!r} is not a value",
            (at, at + length),
            hint=self._scope.word_hint(word),
        )

    # References.

    def _read_reference(self) -> Expr:
        text, at = self._text, self._position
        reference, end = scan_reference(text, at, _accept_any, _accept_any)
        if reference is None:
            junk = _JUNK.match(text, at, self._end)
            span = junk.span() if junk else (at, at + 1)
            raise SyntaxIssue(
                "E117",
                f"{text[span[0] : span[1]]!r} is not a reference",
                span,
                hint="a reference is $N and a path; text, such as an amount, stands in quotes",
            )
        self._position = end
        return self._scope.resolve_bare(reference, (at, end))

    # Strings.

    def _read_string_value(self) -> Expr:
        start = self._position
        content = self._read_string()
        if "$" not in content:
            return Literal(value=content)
        scope = self._scope
        unknown: list[int] = []

        def has_task(number: int) -> bool:
            is_task = scope.has_task(number)
            if not is_task:
                unknown.append(number)
            return is_task

        expr = scan_string(content, has_task, scope.has_input)
        span = (start, self._position)
        self._arguments.unknown_numbers += [(number, span) for number in dict.fromkeys(unknown)]
        if not scope.is_renumbered or type(expr) is not Template:
            return expr
        return map_references(expr, scope.resolve)

    def _read_string(self) -> str:
        start = self._position
        content, closing, self._position = read_string(self._text, start, self._end)
        if closing[0] not in "\"'":
            opening = self._text[start]
            self._add_slip(
                "W106", f"a string stands in {opening}…{closing}", (start, self._position)
            )
        return content

    def _add_slip(self, code: str, message: str, span: Offsets, hint: str = "") -> None:
        self._arguments.slips.append(Slip(code, message, span, hint))


def _inner_call_hint(word: str, text: str) -> str:
    """What to write in place of a call inside a call, whose text is at the start of ``text``."""
    if not word.split(".")[-1][:1].isupper() and word != "dict":
        return f"give {word}(…) a line of its own and refer to its result by $N"
    fields = _fields_of_constructor(text)
    example = json.dumps(fields, ensure_ascii=False) if fields else '{"field": value, …}'
    return f"write a dict in place of {word}(…): {example}; a tool's call has a line of its own"


def _fields_of_constructor(text: str) -> dict[str, Any] | None:
    """The fields of ``Person(name="Ana")``; ``None`` unless all are literals with names."""
    for end in (match.end() for match in re.finditer(r"\)", text[:_LONGEST_CONSTRUCTOR])):
        try:
            call = ast.parse(text[:end].strip(), mode="eval").body
            if isinstance(call, ast.Call) and not call.args:
                fields = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
                json.dumps(fields)
                return fields
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
            continue
    return None
