"""Why a call cannot be read, said so that it can be put right.

The module must not know how the plan goes on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmcompiler.language.scanner import CallScanner, Open, Stop
from llmcompiler.language.spelling import RESTART
from llmcompiler.language.syntax_issue import Refusal


def unclosed(raw: str, scanner: CallScanner) -> Refusal:
    """A call whose lines are complete and lack the end of a bracket or string."""
    comment = raw[scanner.last_comment :] if scanner.last_comment else ""
    if ")" in comment:
        start = scanner.last_comment
        return Refusal(
            "E101",
            "the closing parenthesis stands in a comment",
            (start, start + len(comment.split("\n", 1)[0])),
            hint="# starts a comment; text stands in quotes, a result is $N",
        )
    opened = scanner.opened_before(len(raw))[-1]
    if opened is scanner.string:
        return no_end(opened, "close it before the next task starts")
    return Refusal(
        "E101",
        f"{opened.char!r} is not closed",
        (opened.offset, opened.offset + 1),
        hint="close it before the next task starts",
    )


def no_end(opened: Open, hint: str) -> Refusal:
    """A string that goes on to the end of the plan."""
    return Refusal(
        "E102",
        "the string that starts here has no end",
        (opened.offset, opened.offset + 1),
        hint=hint,
    )


def plan_ends(scanner: CallScanner, restarts: bool) -> Refusal:
    """The plan ends inside a call, or in a string that swallowed the tasks behind it."""
    hint = "close it before the next task starts" if restarts else ""
    if scanner.string is not None:
        return no_end(scanner.string, hint)
    opened = scanner.brackets[-1]
    return Refusal(
        "E101", "the plan ends inside a call", (opened.offset, opened.offset + 1), hint=hint
    )


def broken_off(stop: Stop, raw: str, scanner: CallScanner, restarts: bool) -> Refusal:
    """A call in which something stands that cannot go on; it is the last character."""
    last = len(raw) - 1
    if stop is Stop.MISMATCH:
        opened = scanner.brackets[-1]
        return Refusal(
            "E103",
            f"{raw[last]!r} closes {opened.char!r}",
            (last, last + 1),
            hint=f"close {opened.char!r} first",
        )
    if stop is Stop.BEFORE_STRING:
        word = re.search(r"[\w.\-]*.\Z", raw)
        start = word.start() if word else last
        return Refusal(
            "E105",
            f"{raw[start:last]!r} stands outside of the quotes",
            (start, last),
            hint="put the whole text into quotes",
        )
    if restarts and scanner.last_string is not None:
        return no_end(scanner.last_string, "close it before the next task starts")
    return text_after_string(raw, scanner.last_string.char if scanner.last_string else '"')


def one_reading(whole: str, head: re.Match[str], opened: Sequence[Open]) -> bool:
    """Whether all that a call without its end can lack is the closing parenthesis."""
    if len(opened) > 1:
        return False
    return whole[-1] not in "(," or (head["name"] == "join" and whole[-1] == "(")


def restart_in(raw: str) -> int | None:
    """Where in a broken call the next task starts, its own first line left out."""
    first = raw.find("\n") + 1
    match = RESTART.search(raw, first) if first else None
    return match.start() if match else None


def text_after_string(raw: str, quote: str) -> Refusal:
    """A string that ends where the text after it begins, which is the last character."""
    last = len(raw) - 1
    char = raw[last]
    if char in "+-*/%<>":
        return Refusal(
            "E106",
            f"{char!r} after a string would compute something, which an argument cannot",
            (last, last + 1),
            hint="references are filled in inside of strings: write them there",
        )
    other = "'" if quote == '"' else '"'
    escape = f"a {quote} inside of a string is written \\{quote}; or put the string into {other}"
    return Refusal(
        "E104",
        f"{char!r} follows right after a string",
        (last, last + 1),
        hint=f"if the string goes on here, {escape}" if char != ";" else "",
        expected="a comma or a closing bracket",
    )
