"""Plans gone wrong, and what must hold of them: every text is read, whole or in pieces.

``mutant`` makes texts from a stored corpus (``tests/corpus``) by what models and editors do to
plans: lines doubled, moved, cut short, brackets and quotes lost, tokens of the language put
anywhere, two plans run together. ``judge`` is the property; it raises ``AssertionError`` with the
text where it does not hold.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmcompiler.language import Diagnostic, Parser, parser, print_plan

CORPUS = Path(__file__).parent.parent / "corpus"

MOST = 4_000
"""Characters of a mutant at most; what is longer is cut somewhere."""

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
    """A text: most often a stored plan with some mistakes in it, at times only tokens."""
    if rng.random() < 0.1:
        return "".join(rng.choices(TOKENS, k=rng.randint(0, 40)))
    text = rng.choice(corpus)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        text = rng.choice(_CHANGES)(rng, text, corpus)
    if len(text) > MOST:
        start = rng.randrange(len(text) - MOST + 1)
        text = text[start : start + MOST]
    return text


def _span(rng: random.Random, text: str, most: int = 30) -> tuple[int, int]:
    start = rng.randint(0, len(text))
    return start, min(len(text), start + rng.randint(0, most))


def _delete(rng: random.Random, text: str, _: list[str]) -> str:
    start, end = _span(rng, text, rng.choice((1, 1, 3, 30)))
    return text[:start] + text[end:]


def _insert(rng: random.Random, text: str, _: list[str]) -> str:
    place = rng.randint(0, len(text))
    return text[:place] + rng.choice(TOKENS) + text[place:]


def _replace(rng: random.Random, text: str, _: list[str]) -> str:
    start, end = _span(rng, text, 2)
    return text[:start] + rng.choice(TOKENS) + text[end:]


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
    other = rng.choice(corpus).splitlines(keepends=True)
    if not lines or not other:
        return text
    place = rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            lines.insert(place, rng.choice(other))
        case 1:
            del lines[place]
        case 2:
            there = rng.randrange(len(lines))
            lines[place], lines[there] = lines[there], lines[place]
        case _:
            lines[place] = lines[place].rstrip("\r\n")
    return "".join(lines)


def _splice(rng: random.Random, text: str, corpus: list[str]) -> str:
    other = rng.choice(corpus)
    return text[: rng.randint(0, len(text))] + other[rng.randint(0, len(other)) :]


_CHANGES = (_delete, _insert, _insert, _replace, _double, _character, _cut_off, _lines, _splice)


@contextmanager
def long_from(characters: int) -> Iterator[None]:
    """Take texts of so many characters for long ones."""
    usual, parser.LONG = parser.LONG, characters
    try:
        yield
    finally:
        parser.LONG = usual


def judge(text: str, rng: random.Random) -> bool:
    """Read a text whole and in random pieces, and hold the outcome against what must be so.

    Nothing is raised; both ways give the same; every diagnostic has a place in the text; and a
    plan without errors, printed and read again, is the same plan.

    Returns:
        Whether it is a plan without errors.
    """
    inputs: Any = rng.choice(("declare", "none"))
    known = rng.choice(((), (), (1, 2, 7)))
    first = max(known, default=0) + 1
    options = {"inputs": inputs, "known": known, "first_id": first}
    cuts = sorted(rng.randint(0, len(text)) for _ in range(rng.choice((1, 2, 5, 20))))
    if rng.random() < 0.05:
        cuts = list(range(len(text)))
    whole, pieces = Parser(**options), Parser(**options)
    # As long texts are read, whose calls are seen at one glance where they can be.
    with long_from(0 if rng.random() < 0.5 else parser.LONG):
        items = whole.feed(text)
    items += whole.close()
    parts = [
        item
        for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)
        for item in pieces.feed(text[start:end])
    ]
    parts += pieces.close()
    assert parts == items, f"in pieces {cuts}: {text!r}"
    assert pieces.diagnostics == whole.diagnostics, text
    plan = whole.plan()
    assert pieces.plan() == plan, text
    lines = text.removeprefix("\ufeff").split("\n")
    for found in whole.diagnostics:
        _has_a_place(found, lines, text)
    if any(found.severity == "error" for found in whole.diagnostics):
        return False
    if known:
        return True
    printed = print_plan(plan)
    again = Parser(inputs="declare" if plan.inputs or plan.question else inputs)
    again.feed(printed)
    again.close()
    assert not again.diagnostics, f"{text!r} printed as {printed!r}: {again.diagnostics}"
    assert again.plan() == plan, f"{text!r} printed as {printed!r}"
    return True


def _has_a_place(found: Diagnostic, lines: list[str], text: str) -> None:
    assert 1 <= found.line <= len(lines), f"{found} in {text!r}"
    # What is found in the middle of a line is told there, and shows the line up to it.
    assert lines[found.line - 1].startswith(found.source_line), f"{found} in {text!r}"
    assert 1 <= found.column <= len(found.source_line) + 1, f"{found} in {text!r}"
    assert found.column < found.end_column, f"{found} in {text!r}"
    assert found.message and found.render(), f"{found} in {text!r}"
