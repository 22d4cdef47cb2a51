"""Mutated plans for fuzzing the parser, and the property that must hold for each of them.

``mutant`` makes a text from a stored corpus (``tests/corpus``) by the mistakes of models and
editors: lines doubled, moved or cut short, brackets and quotes lost, tokens of the language in any
place, two plans run together. ``judge`` checks the property, and raises ``AssertionError`` with the
text if it does not hold.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmcompiler.language import Diagnostic, Parser, parser, print_plan

CORPUS = Path(__file__).parent.parent / "corpus"

MAX_LENGTH = 4_000
"""Most characters of a mutant; a longer text is cut to a part of this length."""

TOKENS = (
    *"()[]{}\"'\\,.:;=#$*`-+/<>_ \t\n\r0123456789aN",
    *(
        '"""',
        "'''",
        "“",
        "”",
        "„",
        "‘",
        "\r\n",
        "\n\n",
        "\u2028",
        "\x00",
        "é",
        "日本",
        "😀",
        "\ufeff",
    ),
    *("$1", "$2", "$10", "${1}", "${", "${}", "$$", "$1.50", "$0", "$city", "$1.a[0]", "$1[*]"),
    *('["a b"]', ".population", "[*][*]", "$1[*].name", "[-1]", "join()", "join($1)", "join"),
    *("1. f(", "2. g($1)", "\n3. h(", "4) k()", "- 5. m('x')", "**6.** n()", "Action 7: p()"),
    *("Thought:", "Thought: (1. f())", "<END_OF_PLAN>", "```", "```python", "# remark", "x = f()"),
    *("input city: string", 'input n: integer = "x"', 'question "how $city?"', "input", "question"),
    *("True", "None", "null", "false", "nan", "1e999", "-0.0", "1_000", "0x1f", "007", "key="),
    *("9" * 12, "(" * 20, "[" * 20, "999999999. f()", "f(a=1, a=2)", "f(a=1, 2)", "; ", ", ..."),
)


def seeds() -> list[str]:
    """The stored plans."""
    files = sorted(CORPUS.glob("*.plan"))
    return [file.read_bytes().decode("utf-8") for file in files]


def mutant(rng: random.Random, corpus: list[str]) -> str:
    """Make a text: mostly a stored plan with some mistakes in it, at times only tokens."""
    if rng.random() < 0.1:
        return "".join(rng.choices(TOKENS, k=rng.randint(0, 40)))
    text = rng.choice(corpus)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        text = rng.choice(_CHANGES)(rng, text, corpus)
    if len(text) > MAX_LENGTH:
        start = rng.randrange(len(text) - MAX_LENGTH + 1)
        text = text[start : start + MAX_LENGTH]
    return text


def _span(rng: random.Random, text: str, most: int = 30) -> tuple[int, int]:
    start = rng.randint(0, len(text))
    return start, min(len(text), start + rng.randint(0, most))


def _delete(rng: random.Random, text: str, _: list[str]) -> str:
    start, end = _span(rng, text, rng.choice((1, 1, 3, 30)))
    return text[:start] + text[end:]


def _insert(rng: random.Random, text: str, _: list[str]) -> str:
    place = rng.randint(0, len(text))
    return str(text[:place] + rng.choice(TOKENS) + text[place:])


def _replace(rng: random.Random, text: str, _: list[str]) -> str:
    start, end = _span(rng, text, 2)
    return str(text[:start] + rng.choice(TOKENS) + text[end:])


def _double(rng: random.Random, text: str, _: list[str]) -> str:
    start, end = _span(rng, text)
    return text[:end] + text[start:end] * rng.randint(1, 3) + text[end:]


def _character(rng: random.Random, text: str, _: list[str]) -> str:
    place = rng.randint(0, len(text))
    return (
        text[:place] + chr(rng.choice((rng.randrange(128), rng.randrange(0xD800)))) + text[place:]
    )


def _cut_off(rng: random.Random, text: str, _: list[str]) -> str:
    return text[: rng.randint(0, len(text))]


def _lines(rng: random.Random, text: str, corpus: list[str]) -> str:
    lines = text.splitlines(keepends=True)
    other_lines = rng.choice(corpus).splitlines(keepends=True)
    if not lines or not other_lines:
        return text
    place = rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            lines.insert(place, rng.choice(other_lines))
        case 1:
            del lines[place]
        case 2:
            other_place = rng.randrange(len(lines))
            lines[place], lines[other_place] = lines[other_place], lines[place]
        case _:
            lines[place] = lines[place].rstrip("\r\n")
    return "".join(lines)


def _splice(rng: random.Random, text: str, corpus: list[str]) -> str:
    other_text = rng.choice(corpus)
    return text[: rng.randint(0, len(text))] + other_text[rng.randint(0, len(other_text)) :]


_CHANGES = (_delete, _insert, _insert, _replace, _double, _character, _cut_off, _lines, _splice)


@contextmanager
def long_from(characters: int) -> Iterator[None]:
    """Let the parser treat texts of this many characters as long."""
    previous, parser.LONG_PIECE = parser.LONG_PIECE, characters
    try:
        yield
    finally:
        parser.LONG_PIECE = previous


def judge(text: str, rng: random.Random) -> bool:
    """Read a text whole and in random pieces, and check the property.

    The parser raises nothing. Both ways give the same items. Every diagnostic has a place in the
    text. A plan without errors is the same plan after printing and reading it again.

    Returns:
        True if the text is a plan without errors.

    Raises:
        AssertionError: the property does not hold.
    """
    inputs: Any = rng.choice(("declare", "none"))
    earlier_ids = rng.choice(((), (), (1, 2, 7)))
    first = max(earlier_ids, default=0) + 1
    options = {"inputs": inputs, "earlier_ids": earlier_ids, "first_id": first}
    cuts = sorted(rng.randint(0, len(text)) for _ in range(rng.choice((1, 2, 5, 20))))
    if rng.random() < 0.05:
        cuts = list(range(len(text)))
    parser_of_whole, parser_of_pieces = Parser(**options), Parser(**options)
    # Half of the texts take the fast path for simple calls, which is for long texts.
    with long_from(0 if rng.random() < 0.5 else parser.LONG_PIECE):
        items = parser_of_whole.feed(text)
    items += parser_of_whole.close()
    parts = [
        item
        for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)
        for item in parser_of_pieces.feed(text[start:end])
    ]
    parts += parser_of_pieces.close()
    assert parts == items, f"in pieces {cuts}: {text!r}"
    assert parser_of_pieces.diagnostics == parser_of_whole.diagnostics, text
    plan = parser_of_whole.plan()
    assert parser_of_pieces.plan() == plan, text
    lines = text.removeprefix("\ufeff").split("\n")
    for diagnostic in parser_of_whole.diagnostics:
        _check_place(diagnostic, lines, text)
    if any(diagnostic.severity == "error" for diagnostic in parser_of_whole.diagnostics):
        return False
    if earlier_ids:
        return True
    printed = print_plan(plan)
    second_parser = Parser(inputs="declare" if plan.inputs or plan.question else inputs)
    second_parser.feed(printed)
    second_parser.close()
    assert not second_parser.diagnostics, (
        f"{text!r} printed as {printed!r}: {second_parser.diagnostics}"
    )
    assert second_parser.plan() == plan, f"{text!r} printed as {printed!r}"
    return True


def _check_place(diagnostic: Diagnostic, lines: list[str], text: str) -> None:
    assert 1 <= diagnostic.line <= len(lines), f"{diagnostic} in {text!r}"
    # A diagnostic within an unfinished line shows the line as far as it was read.
    assert lines[diagnostic.line - 1].startswith(diagnostic.source_line), (
        f"{diagnostic} in {text!r}"
    )
    assert 1 <= diagnostic.column <= len(diagnostic.source_line) + 1, f"{diagnostic} in {text!r}"
    assert diagnostic.column < diagnostic.end_column, f"{diagnostic} in {text!r}"
    assert diagnostic.message and diagnostic.render(), f"{diagnostic} in {text!r}"
