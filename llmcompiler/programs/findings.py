"""What the checks of a program know of its names, and what they find."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from llmcompiler.programs.spelling import spell
from llmcompiler.programs.value_types import Type, same, union
from llmcompiler.tools.base import Tool


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, or may be.

    Attributes:
        code: the diagnostic's code.
        message: what is wrong.
        node: where.
        hint: what to write instead.
        expected: what would have been right.
        linted: see ``Diagnostic``.
    """

    code: str
    message: str
    node: ast.AST
    hint: str = ""
    expected: str = ""
    linted: tuple[str, ...] = ()


class Binding(NamedTuple):
    """What is known of a variable at one place of a program.

    Attributes:
        type: the type of its value.
        maybe: True if it may have no value.
    """

    type: Type
    maybe: bool = False


Environment: TypeAlias = dict[str, Binding]


class Findings:
    """The names and findings that all checks share.

    Args:
        tools: what the program may call, by the name that a program spells.
        helpers: the program's helper functions, by name.
        inputs: names that have a value at the start.
        lines: gives the lines of the program's text.
    """

    def __init__(
        self,
        tools: Mapping[str, Tool],
        helpers: Mapping[str, object],
        inputs: Iterable[str],
        lines: Callable[[], Sequence[str]],
    ) -> None:
        self._lines = lines
        self.tools = tools
        self.helpers = helpers
        self.env: Environment = {name: Binding(None) for name in inputs}
        self.findings: list[Finding] = []
        self._results: dict[int, Type] = {}
        self._silent = 0
        self._places: set[tuple[str, int, int]] = set()

    def declare(self, names: Iterable[str]) -> None:
        """Names that have a value of which nothing is known."""
        self.env = {**self.env, **dict.fromkeys(names, Binding(None))}

    def text(self, node: ast.expr) -> str:
        """An expression as the program has it."""
        lines, number = self._lines(), getattr(node, "lineno", 0)
        if 0 < number <= len(lines) and number == node.end_lineno:
            line = lines[number - 1].encode()
            return line[node.col_offset : node.end_col_offset].decode(errors="ignore")
        return spell(node)

    def report(
        self,
        code: str,
        message: str,
        node: ast.AST,
        *,
        hint: str = "",
        expected: str = "",
        linted: tuple[str, ...] = (),
    ) -> None:
        """Note a finding, once for each place."""
        if self._silent:
            return
        place = (code, getattr(node, "lineno", 0), getattr(node, "col_offset", 0))
        if place not in self._places:
            self._places.add(place)
            self.findings.append(Finding(code, message, node, hint, expected, linted))

    def take(self) -> list[Finding]:
        """The findings since the last call."""
        findings, self.findings = self.findings, []
        self._places.clear()
        return findings

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Look at code for the types that come out of it only."""
        self._silent += 1
        try:
            yield
        finally:
            self._silent -= 1


def merge(envs: Iterable[Environment]) -> Environment:
    """What is known where several ways through a program meet."""
    envs = list(envs)
    out: Environment = {}
    for name in dict.fromkeys(name for env in envs for name in env):
        possible = [env[name] for env in envs if name in env]
        out[name] = Binding(
            union(*(binding.type for binding in possible)),
            len(possible) < len(envs) or any(binding.maybe for binding in possible),
        )
    return out


def equal(first: Environment, second: Environment) -> bool:
    """Whether two environments say the same."""
    return first.keys() == second.keys() and all(
        same(first[name].type, second[name].type) for name in first
    )
