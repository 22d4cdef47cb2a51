"""Random sentences of a GBNF grammar, to test without a model what the grammar allows."""

from __future__ import annotations

import random
import re
from typing import Any, TypeAlias

Node: TypeAlias = tuple[str, Any]

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:\\.|[^"\\])*")|(?P<chars>\[(?:\\.|[^\]\\])*\])
    |(?P<name>[a-zA-Z][a-zA-Z0-9-]*)|(?P<repeat>[*+?]|\{\d+(?:,\d*)?\})|(?P<sign>[|()]))""",
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
_ESCAPED = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))")
_SAMPLES = " abXYZ019_-.,:;$%()[]{}'#é東\\\"/\t"


class Grammar:
    """A GBNF grammar that random sentences can be drawn from.

    Raises:
        ValueError: the text is not GBNF, or it uses a rule that it does not have.
    """

    def __init__(self, text: str) -> None:
        self._rules: dict[str, Node] = {}
        for line in text.splitlines():
            name, _, body = line.partition(" ::= ")
            if name in self._rules:
                raise ValueError(f"rule {name} stands twice")
            self._tokens = self._tokenize(body)
            self._rules[name] = self._read_choice()
            if self._tokens:
                raise ValueError(f"{line!r}: {self._tokens[0]} is left over")
        for name in self._used_names():
            if name not in self._rules:
                raise ValueError(f"there is no rule {name}")
        self._cost = self._costs()

    @staticmethod
    def _tokenize(body: str) -> list[tuple[str, str]]:
        tokens, at = [], 0
        while at < len(body.rstrip()):
            match = _TOKEN.match(body, at)
            if match is None:
                raise ValueError(f"not GBNF: {body[at:]!r}")
            assert match.lastgroup is not None
            tokens.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()
        return tokens

    def _read_choice(self) -> Node:
        options = [self._read_sequence()]
        while self._tokens and self._tokens[0] == ("sign", "|"):
            self._tokens.pop(0)
            options.append(self._read_sequence())
        return ("choice", options)

    def _read_sequence(self) -> Node:
        parts: list[Node] = []
        while self._tokens and self._tokens[0] not in (("sign", "|"), ("sign", ")")):
            kind, text = self._tokens.pop(0)
            if kind == "repeat":
                low, high = _bounds(text)
                parts[-1] = ("repeat", (parts[-1], low, high))
            elif text == "(":
                parts.append(self._read_choice())
                if not self._tokens or self._tokens.pop(0) != ("sign", ")"):
                    raise ValueError("a group is not closed")
            elif kind == "text":
                parts.append(("text", _unescape(text[1:-1])))
            elif kind == "chars":
                parts.append(("chars", _allowed(text[1:-1])))
            else:
                parts.append(("name", text))
        return ("sequence", parts)

    def _used_names(self) -> set[str]:
        names: set[str] = set()

        def collect(node: Node) -> None:
            kind, inner = node
            if kind == "name":
                names.add(inner)
            elif kind in ("choice", "sequence"):
                for child in inner:
                    collect(child)
            elif kind == "repeat":
                collect(inner[0])

        for rule in self._rules.values():
            collect(rule)
        return names

    def _costs(self) -> dict[str, float]:
        """The depth of the shallowest sentence of each rule."""
        costs = dict.fromkeys(self._rules, float("inf"))
        changed = True
        while changed:
            changed = False
            for name, rule in self._rules.items():
                new = self._node_cost(rule, costs) + 1
                if new < costs[name]:
                    costs[name], changed = new, True
        return costs

    def _node_cost(self, node: Node, costs: dict[str, float]) -> float:
        kind, inner = node
        if kind == "name":
            return costs[inner]
        if kind == "choice":
            return min(self._node_cost(part, costs) for part in inner)
        if kind == "sequence":
            return max((self._node_cost(part, costs) for part in inner), default=0)
        if kind == "repeat":
            return self._node_cost(inner[0], costs) if inner[1] else 0
        return 0

    def sentence(self, source: random.Random, depth: int = 60) -> str:
        """Draw a sentence; below ``depth`` nested rules it takes the shortest way to an end."""
        pieces: list[str] = []
        self._draw(("name", "root"), source, depth, pieces)
        return "".join(pieces)

    def _draw(self, node: Node, source: random.Random, depth: int, pieces: list[str]) -> None:
        kind, inner = node
        if kind == "text":
            pieces.append(inner)
        elif kind == "chars":
            pieces.append(source.choice(inner))
        elif kind == "name":
            self._draw(self._rules[inner], source, depth - 1, pieces)
        elif kind == "sequence":
            for part in inner:
                self._draw(part, source, depth, pieces)
        elif kind == "repeat":
            body, low, high = inner
            most = low if depth <= 0 else min(high, low + 3)
            for _ in range(source.randint(low, most)):
                self._draw(body, source, depth, pieces)
        else:
            costs = [self._node_cost(option, self._cost) for option in inner]
            if depth <= 0:
                inner = [
                    option for option, cost in zip(inner, costs, strict=True) if cost == min(costs)
                ]
            self._draw(source.choice(inner), source, depth, pieces)


def _bounds(text: str) -> tuple[int, int]:
    if text in "*+?":
        return {"*": (0, 99), "+": (1, 99), "?": (0, 1)}[text]
    low, comma, high = text[1:-1].partition(",")
    return int(low), int(high) if high else 99 if comma else int(low)


def _unescape(text: str) -> str:
    def read(match: re.Match[str]) -> str:
        code = match[1] or match[2] or match[3]
        return chr(int(code, 16)) if code else _ESCAPES.get(match[4], match[4])

    return _ESCAPED.sub(read, text)


def _allowed(body: str) -> list[str]:
    """The characters of a class; for a negated class, those among the samples."""
    negated = body.startswith("^")
    pieces = re.findall(r"\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\\U[0-9a-f]{8}|\\.|.", body[negated:])
    signs = [_unescape(piece) for piece in pieces]
    spans, at = [], 0
    while at < len(signs):
        if at + 2 < len(signs) and pieces[at + 1] == "-":
            spans.append((signs[at], signs[at + 2]))
            at += 3
        else:
            spans.append((signs[at], signs[at]))
            at += 1
    if negated:
        return [char for char in _SAMPLES if not any(low <= char <= high for low, high in spans)]
    return [chr(code) for low, high in spans for code in range(ord(low), ord(high) + 1)]
