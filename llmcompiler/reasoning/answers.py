"""The answer in a model's text, and when two answers are the same.

``extract_answer`` finds the answer, ``normalise`` gives it one spelling, ``same_answer`` compares
two answers, and ``group_equal`` groups equal ones. Numbers are exact fractions, so ``0.5``,
``50 %`` and ``\\frac{1}{2}`` are one answer. Formulas are compared by ``math-verify`` if the extra
``maths`` is installed, else by their spelling.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from llmcompiler.errors import UsageError

ANSWER_FORMATS = ("auto", "marked", "boxed", "last_line", "number", "json:FIELD", "regex:PATTERN")
"""The values of ``how`` that ``extract_answer`` accepts."""

_MAX_CHARS = 400
"""A text of more characters is no number and no formula."""

_THINKING = re.compile(r"<think(?:ing)?\b[^>]*>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL)
_MARKED = re.compile(
    r"(?:####|\b(?:final\s+)?answer\s*(?:is\b\s*:?|:|=))[ \t*_`]*(?P<answer>\S[^\n]*)",
    re.IGNORECASE,
)
_FENCE = re.compile(r"^\s*```[\w+-]*\s*$")
_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox|operatorname)\s*\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{\s*([^{}]+?)\s*\}|(\d))\s*(?:\{\s*([^{}]+?)\s*\}|(\d))")
_VULGAR = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5",
    "⅗": "3/5", "⅘": "4/5", "⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8",
}  # fmt: skip
_DIGITS = r"\d{1,3}(?:[,\u00a0\u202f\u2009 _]\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"""(?P<sign>[-+])?\s*(?P<currency>[$€£¥])?\s*(?P<sign2>-)?
    (?:(?P<whole>\d+)\s+(?P<top>\d+)\s*/\s*(?P<bottom>\d+)
      |(?P<digits>{_DIGITS})
       (?:\s*/\s*(?P<under>\d+(?:\.\d+)?))?
       (?:(?:[eE]|\s*[x×*]\s*10\s*\^\s*)\{{?(?P<power>[-+]?\d{{1,3}})\}}?)?
    )
    (?P<percent>\s*(?:%|percent\b|per\s+cent\b))?""",
    re.VERBOSE,
)
_UNIT = re.compile(r"[^\W\d_][\w²³/^.°-]*(?:[ -][^\W\d_][\w²³/^.-]*){0,3}|°[CFK]?")
_CURRENCIES = {"dollar": "$", "usd": "$", "euro": "€", "eur": "€", "pound": "£", "yen": "¥"}
_SYMBOLIC = re.compile(r"[\\^=+*/()\[\]{}<>|]|\bsqrt\b|\bpi\b")
_AFTER_UNIT = re.compile(
    r"(?:^|\s)(?:left|over|remain\w*|altogether|now|(?:are|is|were|was)\b.*"
    r"|in (?:all|total|the end))$"
)
_NO_UNITS = frozenset("in on at of and or for to with from by than left over more are is".split())
_CALCULATION = re.compile(r"[-+*/x×÷().,%$€£¥\s\d]*\d[-+*/x×÷().,%$€£¥\s\d]*=\s*(?=[-+$€£¥.\d])")
_HUGE_POWER = re.compile(r"(?:\^|\*\*)\s*\{?\s*-?\s*(?:\d{3,}|[\w.()]+\s*(?:\^|\*\*)|\()")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its unit.

    Attributes:
        value: the exact number; percentages are fractions of one.
        unit: the unit in lower case without a plural s; empty for none, and for percentages.
    """

    value: Fraction
    unit: str = ""


def extract_answer(text: str, how: str = "auto") -> str | None:
    """Extract the answer from a text, in the text's spelling; ``None`` if it has none.

    Text in ``<think>`` tags is ignored. If a text has several answers, the last one counts.

    Args:
        text: what a model wrote.
        how: where the answer is. ``boxed``: in LaTeX's ``\\boxed{...}``; ``last_line``; ``number``:
            the last number with its unit; ``json:FIELD``: a field of a JSON object (``a.b`` for a
            nested one); ``regex:PATTERN``: the first group of the last match, or the whole match;
            ``marked``: boxed, else behind ``answer:`` or ``####``, else the JSON field ``answer``;
            ``auto``: like ``marked``, else the last line.

    Raises:
        UsageError: ``how`` is none of these, or its pattern is invalid.
    """
    text = without_thinking(text)
    kind, _, detail = how.partition(":")
    match kind, detail:
        case "boxed", "":
            return _strip_emphasis(_last_boxed(text))
        case "last_line", "":
            return _strip_emphasis(_last_line(text))
        case "number", "":
            return _last_number(text)
        case "json", field if field:
            return _strip_emphasis(_json_field(text, field))
        case "regex", pattern if pattern:
            return _strip_emphasis(_last_match(text, pattern))
        case "marked" | "auto", "":
            answer = _last_boxed(text)
            if answer is None:
                answer = _last_marked(text)
            if answer is None:
                answer = _json_field(text, "answer")
            if answer is None and kind == "auto":
                answer = _last_line(text)
            return _strip_emphasis(answer)
    raise UsageError(
        f"answers cannot be extracted by {how!r}", hint=f"one of {', '.join(ANSWER_FORMATS)}"
    )


def check_format(how: str) -> None:
    """Check the argument ``how`` of ``extract_answer`` before the first model call.

    Raises:
        UsageError: there is no such format, or its pattern is invalid.
    """
    extract_answer("", how)


def without_thinking(text: str) -> str:
    """Remove the parts in ``<think>`` tags; an unclosed tag reaches to the end of the text."""
    return _THINKING.sub("", text).strip()


def parse_quantity(text: str) -> Quantity | None:
    """Parse a text that is a number, possibly with a unit; ``None`` for any other text.

    Commas between groups of three digits separate thousands; any other comma is a decimal point.
    ``x = 5``, ``$5$``, ``5.`` and ``(5)`` are the number 5.
    """
    if len(text) > _MAX_CHARS:
        return None
    plain = _plain_text(text)
    plain = re.sub(r"^[a-z]\w?\s*=\s*(?=[-+$€£¥.\d])", "", plain, flags=re.IGNORECASE)
    plain = plain.removeprefix("(").removesuffix(")") if plain[:1] == "(" else plain
    match = _NUMBER.match(plain)
    if match is None:
        return None
    unit = plain[match.end() :].strip(" .!;,")
    if unit and not _UNIT.fullmatch(unit):
        return None
    value = _number_value(match)
    if value is None:
        return None
    return Quantity(value, _normalise_unit(unit) or match["currency"] or "")


def normalise(text: str) -> str:
    """Give an answer one spelling. Most equal answers get equal spellings; see ``group_equal``.

    Numbers become ``p`` or ``p/q`` with their unit. Other text loses LaTeX wrapping, emphasis,
    closing punctuation, surplus space and case.
    """
    plain, previous = text, None
    while plain != previous:  # removing a part may join its neighbours into something removable
        number = parse_quantity(plain)
        if number is not None:
            return _spelling(number)
        plain, previous = " ".join(_plain_text(plain).casefold().split()), plain
    choice = re.fullmatch(r"\(?([a-z])\)?[.:)]?", plain)
    return choice[1] if choice else plain


def stated_number(text: str) -> Quantity | None:
    """The number that a sentence states; ``None`` unless the sentence has exactly one number.

    ``There are 33 sheep left.`` states 33 sheep, and ``40 - 7 = 33`` states 33. Use it only if
    another answer to the same question is a number.
    """
    if len(text) > _MAX_CHARS:
        return None
    plain = _plain_text(text)
    calculation = _CALCULATION.match(plain)
    result = parse_quantity(plain[calculation.end() :]) if calculation else None
    if result is not None:
        return result
    numbers = list(_NUMBER.finditer(plain))
    # The match may start with spaces; the digits of a name such as B33 are no number.
    if len(numbers) != 1 or plain[: plain.index(numbers[0][0].strip())][-1:].isalnum():
        return None
    unit_match = re.match(r"\s?(?:[^\W\d_][\w²³/^]*|°[CFK]?)", plain[numbers[0].end() :])
    unit = unit_match[0] if unit_match and unit_match[0].strip() not in _NO_UNITS else ""
    return parse_quantity(numbers[0][0] + ("" if numbers[0]["currency"] else unit))


def first_number_index(answers: Sequence[str]) -> int:
    """Position of the first answer that is only a number; 0 if there is none."""
    return next((at for at, answer in enumerate(answers) if parse_quantity(answer) is not None), 0)


def same_answer(answer: str, other_answer: str) -> bool:
    """True if two answers mean the same. A number without a unit equals that number with any unit.

    If one answer is a number, a sentence counts as the number that it states.
    """
    quantity, other_quantity = parse_quantity(answer), parse_quantity(other_answer)
    if quantity is None and other_quantity is not None:
        quantity = stated_number(answer)
    elif other_quantity is None and quantity is not None:
        other_quantity = stated_number(other_answer)
    if quantity is not None and other_quantity is not None:
        return quantity.value == other_quantity.value and (
            quantity.unit == other_quantity.unit or not quantity.unit or not other_quantity.unit
        )
    return normalise(answer) == normalise(other_answer) or _same_formula(answer, other_answer)


def group_equal(answers: Sequence[str]) -> list[list[int]]:
    """Group the positions of equal answers; groups and members are in order of first appearance.

    A number without a unit joins the same number with a unit if only one unit occurs with it. The
    groups therefore do not depend on the order of the answers. If one answer is a number, each
    sentence counts as the number that it states.
    """
    numeric = any(parse_quantity(answer) is not None for answer in answers)
    groups: dict[str, list[int]] = {}
    for position, answer in enumerate(answers):
        number = stated_number(answer) if numeric and parse_quantity(answer) is None else None
        groups.setdefault(_spelling(number) if number else normalise(answer), []).append(position)
    for spelling in list(groups):
        number = parse_quantity(spelling)
        if number is None or number.unit:
            continue
        with_unit = [
            candidate
            for candidate in groups
            if candidate != spelling
            and (quantity := parse_quantity(candidate))
            and quantity.value == number.value
        ]
        if len(with_unit) == 1:
            groups[with_unit[0]] += groups.pop(spelling)
    merged: list[list[int]] = []
    for members in groups.values():
        formula = answers[members[0]]
        equal = (group for group in merged if _same_formula(answers[group[0]], formula))
        equal_group = next(equal, None)
        if equal_group is None:
            merged.append(members)
        else:
            equal_group += members
    return sorted(sorted(members) for members in merged)


def _last_boxed(text: str) -> str | None:
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    opening = text.index("{", start)
    depth = 0
    for position in range(opening, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[opening + 1 : position]
    return None


def _last_marked(text: str) -> str | None:
    matches = list(_MARKED.finditer(text))
    return matches[-1]["answer"] if matches else None


def _last_line(text: str) -> str | None:
    lines = [line for line in text.splitlines() if line.strip() and not _FENCE.match(line)]
    return lines[-1] if lines else None


def _last_number(text: str) -> str | None:
    plain = _plain_text(text)
    for match in reversed(list(_NUMBER.finditer(plain))):
        if _number_value(match) is None:
            continue
        unit_match = re.match(r"\s?(?:[^\W\d_]\w*|°[CFK]?)", plain[match.end() :])
        return (match[0] + (unit_match[0] if unit_match else "")).strip()
    return None


def _json_field(text: str, path: str) -> str | None:
    value: Any = _last_json_object(text)
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _last_json_object(text: str) -> dict[str, Any] | None:
    decoder = json.JSONDecoder()
    last_object: dict[str, Any] | None = None
    position = text.find("{")
    while position >= 0:
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            end = position + 1
        else:
            last_object = value if isinstance(value, dict) else last_object
        position = text.find("{", end)
    return last_object


def _last_match(text: str, pattern: str) -> str | None:
    try:
        matches = list(re.finditer(pattern, text))
    except re.error as error:
        raise UsageError(f"the pattern {pattern!r} is broken: {error}") from error
    if not matches:
        return None
    groups = matches[-1].groups()
    return groups[0] if groups else matches[-1][0]


def _strip_emphasis(text: str | None) -> str | None:
    """Remove emphasis and quotation marks around a text; ``None`` if nothing is left."""
    if text is None:
        return None
    text = text.strip()
    text = re.sub(r"^(?:[*_`>#-]+\s+|[*_`]+)|[*_`]+$", "", text).strip()
    return text or None


def _plain_text(text: str) -> str:
    """Remove LaTeX wrapping, emphasis and closing punctuation."""
    text = text.strip().strip("*_`\"'“”").strip()
    text = text.replace("\\$", "$").replace("\\%", "%").replace("{,}", ",")
    text = text.replace("−", "-").replace("–", "-").replace("\\cdot", "*").replace("\\times", "x")
    text = re.sub(r"\\[(\[]|\\[)\]]|\\left|\\right|\\displaystyle|\\!|\\;", "", text)
    text = re.sub(r"\\,|~|\\ ", " ", text)
    if text.count("$") > 1:
        text = re.sub(r"\$\s*([^$]*?)\s*\$", r"\1", text)
    text = _LATEX_TEXT.sub(r" \1", text)
    text = _FRACTION.sub(lambda m: f" {m[1] or m[2]}/{m[3] or m[4]}", text)
    for sign, spelt in _VULGAR.items():
        text = text.replace(sign, f" {spelt}")
    text = text.replace("^\\circ", "°").replace("^{\\circ}", "°").strip()
    return text.rstrip(".!;:,").strip() if not text.endswith("...") else text


def _spelling(number: Quantity) -> str:
    return f"{number.value} {number.unit}".rstrip()


def _normalise_unit(text: str) -> str:
    unit = _AFTER_UNIT.sub("", " ".join(text.casefold().split()))
    if len(unit) > 3 and unit.endswith("s") and not unit.endswith("ss"):
        unit = unit[:-1]
    return _CURRENCIES.get(unit, unit)


def _number_value(match: re.Match[str]) -> Fraction | None:
    if match["whole"] is not None:
        if int(match["bottom"]) == 0:
            return None
        value = int(match["whole"]) + Fraction(int(match["top"]), int(match["bottom"]))
    else:
        digits = match["digits"]
        if re.fullmatch(r"\d{1,3}(?:[,\u00a0\u202f\u2009 _]\d{3})+(?:\.\d+)?", digits):
            digits = re.sub(r"[^\d.]", "", digits)
        value = Fraction(digits.replace(",", "."))
        if match["under"] is not None:
            under = Fraction(match["under"])
            if under == 0:
                return None
            value /= under
        value *= Fraction(10) ** int(match["power"] or 0)
    if match["percent"]:
        value /= 100
    return -value if (match["sign"] == "-") != (match["sign2"] == "-") else value


def _same_formula(formula: str, other_formula: str) -> bool:
    """True if ``math-verify`` finds two formulas equal; ``False`` if it is not installed."""
    pair = (formula, other_formula)
    if any(len(text) > _MAX_CHARS or _HUGE_POWER.search(text) for text in pair):
        return False  # computing such powers could take for ever
    if not all(_SYMBOLIC.search(text) for text in pair):
        return False
    if importlib.util.find_spec("math_verify") is None:
        return False
    from math_verify import parse, verify

    # Its time limits need signals, which only the main thread may set; sizes are limited above.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    parsed, other_parsed = (parse(f"${_plain_text(text)}$", parsing_timeout=None) for text in pair)
    return bool(parsed and other_parsed and verify(parsed, other_parsed, timeout_seconds=None))
