"""Explanations of calls that do not end as they should, each with a hint for putting it right."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmcompiler.language.scanner import CallScanner, OpenDelimiter, ScanStop
from llmcompiler.language.spelling import RESTART
from llmcompiler.language.syntax_issue import SyntaxIssue


def explain_unclosed(raw: str, scanner: CallScanner) -> SyntaxIssue:
    """Explain a call whose lines are all there, but whose bracket or string is not closed."""
    comment = raw[scanner.last_comment :] if scanner.last_comment else ""
    if ")" in comment:
        start = scanner.last_comment
        return SyntaxIssue(
            "E101",
            "the closing parenthesis stands in a comment",
            (start, start + len(comment.split("\n", 1)[0])),
            hint="# starts a comment; text stands in quotes, a result is $N",
        )
    opened = scanner.opened_before(len(raw))[-1]
    if opened is scanner.string:
        return explain_endless_string(opened, "close it before the next task starts")
    return SyntaxIssue(
        "E101",
        f"{opened.char!r} is not closed",
        (opened.offset, opened.offset + 1),
        hint="close it before the next task starts",
    )


def explain_endless_string(opened: OpenDelimiter, hint: str) -> SyntaxIssue:
    """Explain a string that goes on to the end of the plan."""
    return SyntaxIssue(
        "E102",
        "the string that starts here has no end",
        (opened.offset, opened.offset + 1),
        hint=hint,
    )


def explain_plan_end(scanner: CallScanner, restarts: bool) -> SyntaxIssue:
    """Explain a plan that ends inside a call.

    Args:
        scanner: the scanner of the call.
        restarts: the call's text holds a line that looks like the next task.
    """
    hint = "close it before the next task starts" if restarts else ""
    if scanner.string is not None:
        return explain_endless_string(scanner.string, hint)
    opened = scanner.brackets[-1]
    return SyntaxIssue(
        "E101", "the plan ends inside a call", (opened.offset, opened.offset + 1), hint=hint
    )


def explain_stop(stop: ScanStop, raw: str, scanner: CallScanner, restarts: bool) -> SyntaxIssue:
    """Explain why the scanner stopped inside a call.

    Args:
        stop: the scanner's reason.
        raw: the call's text; its last character is at fault.
        scanner: the scanner of the call.
        restarts: the text holds a line that looks like the next task.
    """
    last = len(raw) - 1
    if stop is ScanStop.MISMATCH:
        opened = scanner.brackets[-1]
        return SyntaxIssue(
            "E103",
            f"{raw[last]!r} closes {opened.char!r}",
            (last, last + 1),
            hint=f"close {opened.char!r} first",
        )
    if stop is ScanStop.BEFORE_STRING:
        word = re.search(r"[\w.\-]*.\Z", raw)
        start = word.start() if word else last
        return SyntaxIssue(
            "E105",
            f"{raw[start:last]!r} stands outside of the quotes",
            (start, last),
            hint="put the whole text into quotes",
        )
    if restarts and scanner.last_string is not None:
        return explain_endless_string(scanner.last_string, "close it before the next task starts")
    return explain_text_after_string(raw, scanner.last_string.char if scanner.last_string else '"')


def lacks_only_parenthesis(text: str, head: re.Match[str], opened: Sequence[OpenDelimiter]) -> bool:
    """True if an unclosed call can lack nothing but its closing parenthesis."""
    if len(opened) > 1:
        return False
    return text[-1] not in "(," or (head["name"] == "join" and text[-1] == "(")


def find_restart(raw: str) -> int | None:
    """Find the offset in a broken call at which the next task starts, behind the first line."""
    first = raw.find("\n") + 1
    match = RESTART.search(raw, first) if first else None
    return match.start() if match else None


def explain_text_after_string(raw: str, quote: str) -> SyntaxIssue:
    """Explain text right after a string; its first character is the last one of ``raw``."""
    last = len(raw) - 1
    char = raw[last]
    if char in "+-*/%<>":
        return SyntaxIssue(
            "E106",
            f"{char!r} after a string would compute something, which an argument cannot",
            (last, last + 1),
            hint="references are filled in inside of strings: write them there",
        )
    other_quote = "'" if quote == '"' else '"'
    escape = (
        f"a {quote} inside of a string is written \\{quote}; or put the string into {other_quote}"
    )
    return SyntaxIssue(
        "E104",
        f"{char!r} follows right after a string",
        (last, last + 1),
        hint=f"if the string goes on here, {escape}" if char != ";" else "",
        expected="a comma or a closing bracket",
    )
