"""Diagnostics: what is wrong with a plan, where, and what to do about it.

Every code has a title and an explanation in ``CODES``, from which the catalogue in the docs is
generated. Codes are stable. Errors: E1xx are about the text, E2xx about names, E3xx about arguments
and types, E4xx about the plan as a whole. Warnings: W1xx are slips that can be read in one way
only, W3xx are doubts, W4xx are changes by the passes.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Severity: TypeAlias = Literal["error", "warning"]


class CatalogueEntry(NamedTuple):
    """An entry of the catalogue of diagnostics."""

    title: str
    explanation: str


CODES: dict[str, CatalogueEntry] = {
    "E101": CatalogueEntry(
        "unfinished call",
        "A call's parenthesis, or a list or dict in it, is still open where the next task or the "
        "end of the plan comes. Only a missing last parenthesis of a call is filled in.",
    ),
    "E102": CatalogueEntry(
        "unfinished string",
        "A string has no closing quote. Strings may run over several lines, so the quote is "
        "looked for to the end of the plan; reading goes on at the next line that starts a task.",
    ),
    "E103": CatalogueEntry(
        "brackets do not match",
        "A bracket is closed by one of another kind, such as `[1, 2)`.",
    ),
    "E104": CatalogueEntry(
        "text right after a string",
        "After a string comes a comma or a closing bracket. Mostly the string has a quote in it "
        'that ends it early: write it as `\\"`, or use the other kind of quotes outside.',
    ),
    "E105": CatalogueEntry(
        "not a value",
        "An argument is a string in quotes, a number, true, false, null, a list, a dict, or a "
        "reference such as `$1.population`. A word without quotes is none of these.",
    ),
    "E106": CatalogueEntry(
        "a computation is not an argument",
        "The plan language does not compute. Give the formula as a string to a tool that does, "
        'such as `calc("$1 / $2")`, and refer to its result.',
    ),
    "E107": CatalogueEntry(
        "a call inside a call",
        "Each call stands on a line of its own with a number; the outer call refers to it by "
        "`$N`. So both can be scheduled.",
    ),
    "E108": CatalogueEntry(
        "not a number",
        "Numbers are written as in JSON: digits, a point, an exponent; no underscores, no "
        "separators of thousands, no units, and nothing beyond the range of a double.",
    ),
    "E109": CatalogueEntry(
        "broken escape sequence",
        "`\\u` takes four hexadecimal digits, `\\x` two, `\\U` eight, and characters outside the "
        "basic plane are written as themselves or as a pair of surrogates.",
    ),
    "E110": CatalogueEntry(
        "broken dict",
        'A dict is written `{"key": value}`; its keys are strings, each used once.',
    ),
    "E111": CatalogueEntry(
        "positional argument after a keyword argument",
        "Positional arguments come first, since their place gives them their meaning.",
    ),
    "E112": CatalogueEntry("keyword argument given twice", "Each parameter takes one value."),
    "E113": CatalogueEntry("a comma is missing", "Arguments and items are separated by commas."),
    "E114": CatalogueEntry(
        "a numbered line without a call",
        "A line that starts with a number is a task: `N. tool(arguments)`. Prose belongs into "
        "lines that start with `Thought:`.",
    ),
    "E115": CatalogueEntry(
        "text after a call",
        "A call stands alone. To use a part of its result, refer to it in a later task, as in "
        "`$1.population`.",
    ),
    "E116": CatalogueEntry("nested too deeply", "Lists and dicts may be nested 64 levels deep."),
    "E117": CatalogueEntry(
        "a dollar sign that is no reference",
        "Outside of a string a dollar sign starts a reference: `$N`, `${N}` or `$input`, then a "
        "path. Amounts of money belong into strings.",
    ),
    "E118": CatalogueEntry(
        "broken header line",
        'Headers of a saved plan are `question "…"` and `input name: type = default`, where type '
        "is any, string, number, integer, boolean, array or object; type and default may be "
        "left out.",
    ),
    "E119": CatalogueEntry(
        "header out of place",
        "Inputs are declared once each, and together with the question before the first task.",
    ),
    "E120": CatalogueEntry(
        "a line that looks like a call",
        "Something stands before the tool's name that is no number of a task, such as `a.`, or a "
        "number without a dot. Of a saved plan no line is left out in silence.",
    ),
    "E201": CatalogueEntry(
        "task number used twice", "Ids are unique in a run, across all of its plans."
    ),
    "E202": CatalogueEntry(
        "reference to a missing task",
        "The task that a reference names is neither in the plan nor in an earlier plan of the run.",
    ),
    "E203": CatalogueEntry("unknown tool", "The plan calls a tool that was not given to the run."),
    "E204": CatalogueEntry(
        "reference to a later task",
        "A task can only use results of tasks that stand above it, so that it can start as soon "
        "as it is read.",
    ),
    "E205": CatalogueEntry(
        "cycle", "Tasks wait for each other's results, or one for its own: none could ever start."
    ),
    "E206": CatalogueEntry(
        "unknown input",
        "A name after a dollar sign is an input of a saved plan. Where a plan declares inputs, "
        "all that it uses must be declared; a planner's plan has none.",
    ),
    "E207": CatalogueEntry(
        "reference to a task that was refused",
        "The task that a reference names was itself in error. Correct that one first.",
    ),
    "E301": CatalogueEntry(
        "too many arguments", "More positional arguments than the tool has parameters."
    ),
    "E302": CatalogueEntry("argument missing", "A required parameter of the tool got no value."),
    "E303": CatalogueEntry("unknown argument", "The tool has no parameter of that name."),
    "E304": CatalogueEntry(
        "argument given twice", "One parameter got a value by position and by name."
    ),
    "E305": CatalogueEntry(
        "argument does not fit",
        "A value is not what the tool's parameter takes: another type, not one of the choices, "
        "or out of bounds.",
    ),
    "E306": CatalogueEntry(
        "no such part of a result",
        "A reference's path leads into a field or element that the producer's result does not "
        "have, by the return type that the tool declares.",
    ),
    "E307": CatalogueEntry(
        "a result does not fit",
        "The type that the producing tool returns is not one that the parameter takes.",
    ),
    "E308": CatalogueEntry(
        "fan-out over lists of different lengths",
        "Starred references of one task run along together, element by element.",
    ),
    "E309": CatalogueEntry(
        "text that the tool cannot use",
        "The tool says that it can do nothing with this text, whatever results are written into "
        "it: for `calc`, that it is no expression, or calls what is no function.",
    ),
    "E401": CatalogueEntry(
        "plan stops early",
        "A planner's text ended before a `join()`: it broke off, became too long, or forgot it.",
    ),
    "E500": CatalogueEntry(
        "no Python",
        "A statement of a program cannot be read. Reading ends there, since what follows may build "
        "on it.",
    ),
    "E501": CatalogueEntry(
        "not in the subset",
        "Programs are written in a subset of Python: without classes, other modules, exceptions "
        "other than `ToolError`, and names of Python's inside.",
    ),
    "E502": CatalogueEntry(
        "no such module",
        "Programs may import math, statistics, json, re and datetime, and what is pure in them.",
    ),
    "E503": CatalogueEntry(
        "a helper function that cannot be used",
        "Helper functions stand at the top of a program, take plain parameters, have a name of "
        "their own, and do not call themselves.",
    ),
    "E504": CatalogueEntry(
        "arguments that cannot be read",
        "Arguments of a tool or helper function are written out one by one, so that they can be "
        "checked before the call.",
    ),
    "E505": CatalogueEntry(
        "a call of a tool out of place",
        "A tool cannot be called inside a lambda, a slice, or a generator that is read step by "
        "step. Call it on a line before.",
    ),
    "E506": CatalogueEntry(
        "inputs of a program that cannot be declared",
        "The parameters of a saved program's `main` are the plan's inputs. Each has a name, a type "
        "(`int`, `float`, `str`, `bool`, `list`, `dict`) or none, and a constant or no default.",
    ),
    "E507": CatalogueEntry(
        "no such element",
        "A value is indexed, sliced or looped over that has no elements, or none of that kind: a "
        "set has no order, and a record is read by its fields.",
    ),
    "E508": CatalogueEntry(
        "a comparison that means nothing",
        "A record is compared with a name, or two values are ordered that have no order. Compare a "
        "field of the record.",
    ),
    "E509": CatalogueEntry(
        "values that an operation does not take",
        "An operator or function gets values of types for which Python has no meaning, such as a "
        "sum of records or two lists joined by `&`.",
    ),
    "E510": CatalogueEntry(
        "no such method", "A value of that type has no method of that name here."
    ),
    "E511": CatalogueEntry(
        "a name without a value",
        "A variable is read before anything was assigned to it, or a function is used as a value.",
    ),
    "W101": CatalogueEntry("unusual task number", "A task is written `N. tool(arguments)`."),
    "W102": CatalogueEntry(
        "space before the parenthesis", "A task is written `N. tool(arguments)`."
    ),
    "W103": CatalogueEntry(
        "closing parenthesis missing", "It was filled in at the end of the call."
    ),
    "W104": CatalogueEntry("a call without a number", "It got the next one."),
    "W105": CatalogueEntry("result assigned to a name", "Results are referred to by number: `$N`."),
    "W106": CatalogueEntry("typographic quotes", 'Strings stand in straight quotes: `"…"`.'),
    "W107": CatalogueEntry("join with more than references", "Only the tasks that it names count."),
    "W108": CatalogueEntry("join without parentheses", "It is written `N. join()`."),
    "W109": CatalogueEntry(
        "plan numbered from the start",
        "A plan that follows another goes on counting. It was renumbered: a reference means the "
        "task of that number in this plan if there is one above it, else in an earlier plan.",
    ),
    "W110": CatalogueEntry("words after a call", "They were left out. Remarks follow a `#`."),
    "W111": CatalogueEntry(
        "text that looks like a reference to a later task",
        "In a string, a `$N` that names no earlier task is text.",
    ),
    "W112": CatalogueEntry("dict key without quotes", 'Keys are strings: `{"key": value}`.'),
    "W113": CatalogueEntry("colon after a keyword", "Keyword arguments are written `name=value`."),
    "W114": CatalogueEntry(
        "a line that is no part of the plan",
        "It was left out. In a saved plan, remarks follow a `#`, and what a planner thought "
        "follows `Thought:`; headers are `question` and `input`.",
    ),
    "W301": CatalogueEntry(
        "reference in quotes",
        "In quotes it would be text, which the parameter does not take, so it was read without.",
    ),
    "W302": CatalogueEntry(
        "text where the parameter takes none",
        "This works only if the text can be read as such a value when the call is made.",
    ),
    "W401": CatalogueEntry(
        "a call made before",
        "The task repeats an earlier call of a tool that only reads. It is not called again; what "
        "refers to it gets the earlier result.",
    ),
    "W402": CatalogueEntry(
        "a call written again",
        "Asked for the rest of a plan, the planner began it anew. A call that the plan has "
        "already, and that may have started, is not made a second time.",
    ),
    "W501": CatalogueEntry(
        "text in front of a program", "Prose in front of the first statement is left out."
    ),
    "W502": CatalogueEntry(
        "a name that may have no value",
        "A variable is assigned on some ways to this place only, such as in one block of an `if`.",
    ),
    "W503": CatalogueEntry(
        "a value that may be None",
        "A part is read of a value that is `None` on some ways to this place.",
    ),
}
"""Titles and explanations, by code."""


@dataclass(frozen=True, slots=True)
class Span:
    """A place in a plan's text.

    Attributes:
        line: counted from 1.
        column: of the first character, counted from 1.
        end_column: of the character behind the last, counted from 1.
        source_line: the line's text, as far as it was read.
    """

    line: int
    column: int
    end_column: int
    source_line: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One thing that is wrong with a plan.

    Attributes:
        code: a key of ``CODES``.
        message: what is wrong, with the name of the thing at fault.
        line: counted from 1; 0 for a plan that has no text.
        column: of the first character at fault, counted from 1.
        end_column: of the character behind the last at fault, counted from 1.
        source_line: the line's text, as far as it was read.
        hint: what to do about it.
        expected: what would have been right.
        task: the task's id, if it is known.
        linted: if a tool's own check reported it: the tool, the parameter, the check's message, and
            then the pieces of text that were checked.
    """

    code: str
    message: str
    line: int = 0
    column: int = 0
    end_column: int = 0
    source_line: str = ""
    hint: str = ""
    expected: str = ""
    task: int | None = None
    linted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"{self.code} is not in the catalogue of diagnostics")

    @classmethod
    def at(
        cls,
        span: Span | None,
        code: str,
        message: str,
        *,
        hint: str = "",
        expected: str = "",
        task: int | None = None,
    ) -> Diagnostic:
        """A diagnostic about a place; ``None`` if the plan has no text."""
        if span is None:
            return cls(code, message, hint=hint, expected=expected, task=task)
        return cls(
            code,
            message,
            span.line,
            span.column,
            span.end_column,
            span.source_line,
            hint,
            expected,
            task,
        )

    @property
    def severity(self) -> Severity:
        """``error`` if something cannot be used, ``warning`` if it can."""
        return "error" if self.code.startswith("E") else "warning"

    def render(self) -> str:
        """The diagnostic as compilers show one, with carets below the place."""
        out = [f"{self.severity}[{self.code}]: {self.message}"]
        margin = " " * len(str(self.line))
        if self.line:
            padding, carets = self._carets()
            out.append(f"{margin}--> line {self.line}, column {self.column}")
            out.append(f"{margin} |")
            out.append(f"{self.line} | {self.source_line}")
            out.append(f"{margin} | {padding}{carets}")
        elif self.task is not None:
            out.append(f"{margin}--> task {self.task}")
        if self.expected:
            out.append(f"{margin} = expected: {self.expected}")
        if self.hint:
            out.append(f"{margin} = hint: {self.hint}")
        return "\n".join(out)

    def _carets(self) -> tuple[str, str]:
        # Tabs stay and wide characters count twice, so that the carets stand below the place.
        start, end = self.column - 1, self.end_column - 1
        text_before = self.source_line[:start]
        padding = "".join("\t" if char == "\t" else " " * _cells(char) for char in text_before)
        beyond = max(0, end - max(start, len(self.source_line)))
        width = sum(map(_cells, self.source_line[start:end])) + beyond
        return padding + " " * (start - len(text_before)), "^" * max(1, width)


def _cells(char: str) -> int:
    """How many columns of a terminal a character takes: 0, 1 or 2."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """``did you mean "search"?`` for the candidate closest to ``name``; empty if none is close."""
    names = {candidate.casefold(): candidate for candidate in candidates}
    close = difflib.get_close_matches(name.casefold(), names, n=1, cutoff=0.6)
    return f'did you mean "{names[close[0]]}"?' if close else ""


def catalogue_markdown() -> str:
    """The page of the docs that lists every code."""
    out = [
        "# Diagnostics",
        "",
        "What a plan's reader and checker say, by code. Errors concern a task that cannot be used;",
        "warnings concern one that was. This page is generated from",
        "`llmcompiler.plan.diagnostics.CODES`.",
    ]
    for code, (title, explanation) in CODES.items():
        out += ["", f"## {code}: {title}", "", explanation]
    return "\n".join(out) + "\n"
