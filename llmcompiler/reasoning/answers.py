"""The answer in a model's text, and when two answers are the same.

Votes, best-of and benchmarks need both. ``extract`` finds the answer, ``normalise`` gives it one
spelling, ``same`` compares two, ``group`` sorts many into equal ones. Numbers are exact fractions,
so ``0.5``, ``50 %`` and ``\\frac{1}{2}`` are one answer. Formulas that are no numbers are compared
by ``math-verify`` where the extra ``maths`` is installed, else by their spelling. The module must
not know where texts come from.
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

FORMATS = ("auto", "marked", "boxed", "last_line", "number", "json:FIELD", "regex:PATTERN")
"""What ``extract`` may be told to look for."""

_LONGEST = 400
"""Characters beyond which a text is no number and no formula."""

_THINKING = re.compile(r"<think(?:ing)?\b[^>]*>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL)
_MARKED = re.compile(
    r"(?:####|\b(?:final\s+)?answer\s*(?:is\b\s*:?|:|=))[ \t*_`]*(?P<answer>\S[^\n]*)",
    re.IGNORECASE,
)
_FENCE = re.compile(r"^\s*```[\w+-]*\s*$")
_WRAPPED = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox|operatorname)\s*\{([^{}]*)\}")
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
_COMPUTED = re.compile(r"[-+*/x×÷().,%$€£¥\s\d]*\d[-+*/x×÷().,%$€£¥\s\d]*=\s*(?=[-+$€£¥.\d])")
_HUGE_POWER = re.compile(r"(?:\^|\*\*)\s*\{?\s*-?\s*(?:\d{3,}|[\w.()]+\s*(?:\^|\*\*)|\()")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with what follows it.

    Attributes:
        value: exact; percentages are fractions of one.
        unit: in small letters and without a plural s; empty for none, and for percentages.
    """

    value: Fraction
    unit: str = ""


def extract(text: str, how: str = "auto") -> str | None:
    """The answer that a text gives, in its own spelling; ``None`` where it gives none.

    What stands in ``<think>`` tags is no answer. Where several stand in a text, the last counts.

    Args:
        text: what a model wrote.
        how: ``boxed`` for LaTeX's ``\\boxed{...}``; ``last_line``; ``number`` for the last number
            with its unit; ``json:FIELD`` for a field (``a.b`` for one inside) of a JSON object;
            ``regex:PATTERN`` for the first group, or all, of the last match; ``marked`` for the
            first that there is of boxed, ``answer:`` or ``####``, the field ``answer``; ``auto``
            for that, else the last line.

    Raises:
        UsageError: ``how`` is none of these, or its pattern is broken.
    """
    text = without_thinking(text)
    kind, _, detail = how.partition(":")
    match kind, detail:
        case "boxed", "":
            return _clean(_boxed(text))
        case "last_line", "":
            return _clean(_last_line(text))
        case "number", "":
            return _last_number(text)
        case "json", field if field:
            return _clean(_field(text, field))
        case "regex", pattern if pattern:
            return _clean(_matched(text, pattern))
        case "marked" | "auto", "":
            found = _boxed(text)
            if found is None:
                found = _marked(text)
            if found is None:
                found = _field(text, "answer")
            if found is None and kind == "auto":
                found = _last_line(text)
            return _clean(found)
    raise UsageError(f"answers cannot be extracted by {how!r}", hint=f"one of {', '.join(FORMATS)}")


def check_format(how: str) -> None:
    """Refuse what ``extract`` cannot be told to look for, before anything is paid for.

    Raises:
        UsageError: there is no such way, or its pattern is broken.
    """
    extract("", how)


def without_thinking(text: str) -> str:
    """The text without what stands in ``<think>`` tags, closed or not."""
    return _THINKING.sub("", text).strip()


def quantity(text: str) -> Quantity | None:
    """The number that a whole text is, with its unit; ``None`` where it is anything else.

    Commas between groups of three digits separate thousands, any other comma is a decimal point.
    ``x = 5`` is the number 5; so are ``$5$``, ``5.`` and ``(5)``.
    """
    if len(text) > _LONGEST:
        return None
    plain = _plain(text)
    plain = re.sub(r"^[a-z]\w?\s*=\s*(?=[-+$€£¥.\d])", "", plain, flags=re.IGNORECASE)
    plain = plain.removeprefix("(").removesuffix(")") if plain[:1] == "(" else plain
    found = _NUMBER.match(plain)
    if found is None:
        return None
    unit = plain[found.end() :].strip(" .!;,")
    if unit and not _UNIT.fullmatch(unit):
        return None
    value = _value(found)
    if value is None:
        return None
    return Quantity(value, _unit(unit) or found["currency"] or "")


def normalise(text: str) -> str:
    """One spelling of an answer: equal answers mostly get equal spellings, and ``group`` does more.

    Numbers become ``p`` or ``p/q`` with their unit; other text loses LaTeX wrapping, emphasis,
    closing punctuation, surplus space and case.
    """
    plain, before = text, None
    while plain != before:  # what is taken away may have stood between two halves of something
        number = quantity(plain)
        if number is not None:
            return _spelt(number)
        plain, before = " ".join(_plain(plain).casefold().split()), plain
    choice = re.fullmatch(r"\(?([a-z])\)?[.:)]?", plain)
    return choice[1] if choice else plain


def stated(text: str) -> Quantity | None:
    """The number that a sentence gives as an answer; ``None`` unless that is the only one in it.

    ``There are 33 sheep left.`` states 33 sheep, and ``40 - 7 = 33`` states 33. Whether a sentence
    is meant as a number, other answers to the same question tell.
    """
    if len(text) > _LONGEST:
        return None
    plain = _plain(text)
    result = quantity(plain[found.end() :]) if (found := _COMPUTED.match(plain)) else None
    if result is not None:
        return result
    numbers = list(_NUMBER.finditer(plain))
    # The match may begin with spaces; the digits of a name such as B33 are no number.
    if len(numbers) != 1 or plain[: plain.index(numbers[0][0].strip())][-1:].isalnum():
        return None
    word = re.match(r"\s?(?:[^\W\d_][\w²³/^]*|°[CFK]?)", plain[numbers[0].end() :])
    unit = word[0] if word and word[0].strip() not in _NO_UNITS else ""
    return quantity(numbers[0][0] + ("" if numbers[0]["currency"] else unit))


def plainest(answers: Sequence[str]) -> int:
    """Position of the first answer that is a number and nothing else; else the first at all."""
    return next((at for at, one in enumerate(answers) if quantity(one) is not None), 0)


def same(one: str, other: str) -> bool:
    """Whether two answers say the same; a number without a unit fits the number with any.

    Beside a number a sentence counts as the number that it states.
    """
    first, second = quantity(one), quantity(other)
    if first is None and second is not None:
        first = stated(one)
    elif second is None and first is not None:
        second = stated(other)
    if first is not None and second is not None:
        return first.value == second.value and (
            first.unit == second.unit or not first.unit or not second.unit
        )
    return normalise(one) == normalise(other) or _same_formula(one, other)


def group(answers: Sequence[str]) -> list[list[int]]:
    """Positions of equal answers together, groups and members in order of first appearance.

    A number without a unit joins that with one where only one unit occurs with it, so that the
    groups are the same in whatever order the answers come. If one answer is a number, the others
    are meant as numbers too: sentences then count as the number that they state.
    """
    numeric = any(quantity(answer) is not None for answer in answers)
    groups: dict[str, list[int]] = {}
    for position, answer in enumerate(answers):
        meant = stated(answer) if numeric and quantity(answer) is None else None
        groups.setdefault(_spelt(meant) if meant else normalise(answer), []).append(position)
    for spelling in list(groups):
        number = quantity(spelling)
        if number is None or number.unit:
            continue
        with_unit = [
            other
            for other in groups
            if other != spelling and (found := quantity(other)) and found.value == number.value
        ]
        if len(with_unit) == 1:
            groups[with_unit[0]] += groups.pop(spelling)
    merged: list[list[int]] = []
    for members in groups.values():
        equal = (one for one in merged if _same_formula(answers[one[0]], answers[members[0]]))
        earlier = next(equal, None)
        if earlier is None:
            merged.append(members)
        else:
            earlier += members
    return sorted(sorted(members) for members in merged)


def _boxed(text: str) -> str | None:
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


def _marked(text: str) -> str | None:
    found = list(_MARKED.finditer(text))
    return found[-1]["answer"] if found else None


def _last_line(text: str) -> str | None:
    lines = [line for line in text.splitlines() if line.strip() and not _FENCE.match(line)]
    return lines[-1] if lines else None


def _last_number(text: str) -> str | None:
    plain = _plain(text)
    for found in reversed(list(_NUMBER.finditer(plain))):
        if _value(found) is None:
            continue
        after = re.match(r"\s?(?:[^\W\d_]\w*|°[CFK]?)", plain[found.end() :])
        return (found[0] + (after[0] if after else "")).strip()
    return None


def _field(text: str, path: str) -> str | None:
    found: Any = _last_object(text)
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def _last_object(text: str) -> dict[str, Any] | None:
    decoder = json.JSONDecoder()
    found: dict[str, Any] | None = None
    position = text.find("{")
    while position >= 0:
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            end = position + 1
        else:
            found = value if isinstance(value, dict) else found
        position = text.find("{", end)
    return found


def _matched(text: str, pattern: str) -> str | None:
    try:
        found = list(re.finditer(pattern, text))
    except re.error as error:
        raise UsageError(f"the pattern {pattern!r} is broken: {error}") from error
    if not found:
        return None
    groups = found[-1].groups()
    return groups[0] if groups else found[-1][0]


def _clean(text: str | None) -> str | None:
    """Without emphasis and quotation around it; ``None`` if nothing is left."""
    if text is None:
        return None
    text = text.strip()
    text = re.sub(r"^(?:[*_`>#-]+\s+|[*_`]+)|[*_`]+$", "", text).strip()
    return text or None


def _plain(text: str) -> str:
    """The text without LaTeX's wrapping, emphasis, and closing punctuation."""
    text = text.strip().strip("*_`\"'“”").strip()
    text = text.replace("\\$", "$").replace("\\%", "%").replace("{,}", ",")
    text = text.replace("−", "-").replace("–", "-").replace("\\cdot", "*").replace("\\times", "x")
    text = re.sub(r"\\[(\[]|\\[)\]]|\\left|\\right|\\displaystyle|\\!|\\;", "", text)
    text = re.sub(r"\\,|~|\\ ", " ", text)
    if text.count("$") > 1:
        text = re.sub(r"\$\s*([^$]*?)\s*\$", r"\1", text)
    text = _WRAPPED.sub(r" \1", text)
    text = _FRACTION.sub(lambda m: f" {m[1] or m[2]}/{m[3] or m[4]}", text)
    for sign, spelt in _VULGAR.items():
        text = text.replace(sign, f" {spelt}")
    text = text.replace("^\\circ", "°").replace("^{\\circ}", "°").strip()
    return text.rstrip(".!;:,").strip() if not text.endswith("...") else text


def _spelt(number: Quantity) -> str:
    return f"{number.value} {number.unit}".rstrip()


def _unit(text: str) -> str:
    unit = _AFTER_UNIT.sub("", " ".join(text.casefold().split()))
    if len(unit) > 3 and unit.endswith("s") and not unit.endswith("ss"):
        unit = unit[:-1]
    return _CURRENCIES.get(unit, unit)


def _value(found: re.Match[str]) -> Fraction | None:
    if found["whole"] is not None:
        if int(found["bottom"]) == 0:
            return None
        value = int(found["whole"]) + Fraction(int(found["top"]), int(found["bottom"]))
    else:
        digits = found["digits"]
        if re.fullmatch(r"\d{1,3}(?:[,\u00a0\u202f\u2009 _]\d{3})+(?:\.\d+)?", digits):
            digits = re.sub(r"[^\d.]", "", digits)
        value = Fraction(digits.replace(",", "."))
        if found["under"] is not None:
            under = Fraction(found["under"])
            if under == 0:
                return None
            value /= under
        value *= Fraction(10) ** int(found["power"] or 0)
    if found["percent"]:
        value /= 100
    return -value if (found["sign"] == "-") != (found["sign2"] == "-") else value


def _same_formula(one: str, other: str) -> bool:
    """Whether a library for it finds two formulas equal; ``False`` where there is none."""
    pair = (one, other)
    if any(len(text) > _LONGEST or _HUGE_POWER.search(text) for text in pair):
        return False  # to work such powers out could take for ever
    if not all(_SYMBOLIC.search(text) for text in pair):
        return False
    if importlib.util.find_spec("math_verify") is None:
        return False
    from math_verify import parse, verify

    # Its time limits are signals, which only a main thread may set; the sizes are limited above.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    first, second = (parse(f"${_plain(text)}$", parsing_timeout=None) for text in pair)
    return bool(first and second and verify(first, second, timeout_seconds=None))
