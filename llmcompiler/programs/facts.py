"""What lowering works with: mistakes, facts of tools, helper functions."""

from __future__ import annotations

import ast
from dataclasses import dataclass


class ProgramIssue(Exception):
    """Something that a program may not hold.

    Args:
        code: the diagnostic's code.
        message: what is wrong.
        node: where; its position is that of the diagnostic.
        hint: what to write instead.
    """

    def __init__(self, code: str, message: str, node: ast.AST, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.node = node
        self.hint = hint


@dataclass(frozen=True, slots=True)
class ToolFacts:
    """What lowering needs to know of a tool.

    Attributes:
        name: its name.
        parameters: names of its parameters, in order.
        is_write: True if it changes the world.
    """

    name: str
    parameters: tuple[str, ...]
    is_write: bool


@dataclass(slots=True)
class HelperSource:
    """A helper function as it stands in the program.

    Attributes:
        node: its definition.
        is_inlined: True if it, or a helper that it calls, calls a tool: its body then stands in
            place of its calls.
        local: names that it assigns, its parameters included.
    """

    node: ast.FunctionDef
    is_inlined: bool
    local: frozenset[str]
