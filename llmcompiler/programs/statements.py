"""The statements that a program is lowered to, and what is known of each.

In a lowered program every call of a tool is a statement of its own, with arguments that are pure
code. All that is left of Python's control flow are conditions, loops, attempts and inlined helper
functions. Variables of comprehensions, temporary values and locals of inlined helpers have names
that no program can spell (they hold a ``%``), so all variables of a program live in one namespace.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

ExitKind: TypeAlias = Literal["break", "continue", "return"]


@dataclass(slots=True, eq=False)
class Statement:
    """What all statements share. Analysis fills the fields that start empty.

    Attributes:
        line: its line in the program's text.
        reads: variables that it needs before it can start.
        captures: variables that it needs at any time, those of inner statements included.
        writes: variables that it may assign.
        exits: how it may leave the block that it stands in.
        starts_with: alias classes of the values that it reads in order to start.
        touches: alias classes of the values that it reads at any time.
        mutates: alias classes of the values that it changes in place.
        has_write: True if it calls a tool that writes.
        unions: how many unions of classes its numbers of classes know of; for statements of the top
            level.
    """

    line: int
    reads: frozenset[str] = field(default=frozenset(), kw_only=True)
    captures: frozenset[str] = field(default=frozenset(), kw_only=True)
    writes: frozenset[str] = field(default=frozenset(), kw_only=True)
    exits: frozenset[ExitKind] = field(default=frozenset(), kw_only=True)
    starts_with: frozenset[int] = field(default=frozenset(), kw_only=True)
    touches: frozenset[int] = field(default=frozenset(), kw_only=True)
    mutates: frozenset[int] = field(default=frozenset(), kw_only=True)
    has_write: bool = field(default=False, kw_only=True)
    unions: int = field(default=-1, kw_only=True)

    @property
    def blocks(self) -> Sequence[Sequence[Statement]]:
        """The blocks inside it."""
        return ()


@dataclass(slots=True, eq=False)
class Turn(Statement):
    """One pass through the body of a loop."""

    body: list[Statement] = field(default_factory=list)

    @property
    def blocks(self) -> Sequence[Sequence[Statement]]:
        """See ``Statement``."""
        return (self.body,)


@dataclass(slots=True, eq=False)
class Compute(Statement):
    """Pure code: Python statements without a call of a tool."""

    nodes: Sequence[ast.stmt] = ()


@dataclass(slots=True, eq=False)
class Invoke(Statement):
    """A call of a tool.

    Attributes:
        site: the task's id: every place of a program that calls a tool is one task.
        tool: the tool's name.
        args: positional arguments, pure.
        kwargs: keyword arguments, pure.
        target: the variable that takes the result.
        is_write: True if the tool changes the world.
        depth: how many loops the call stands in.
        source: the call as the program spells it.
    """

    site: int = 0
    tool: str = ""
    args: Sequence[ast.expr] = ()
    kwargs: Sequence[tuple[str, ast.expr]] = ()
    target: str = ""
    is_write: bool = False
    depth: int = 0
    source: ast.Call | None = None


@dataclass(slots=True, eq=False)
class Choose(Statement):
    """A condition: one of two blocks runs."""

    number: int = 0
    test: ast.expr = field(default_factory=lambda: ast.Constant(value=None))
    body: list[Statement] = field(default_factory=list)
    orelse: list[Statement] = field(default_factory=list)

    @property
    def blocks(self) -> Sequence[Sequence[Statement]]:
        """See ``Statement``."""
        return (self.body, self.orelse)


@dataclass(slots=True, eq=False)
class Each(Statement):
    """A loop over a collection.

    Attributes:
        item: the hidden variable that holds the element of an iteration.
        carried: variables that an iteration may need from the one before.
        in_order: True if the body may leave the loop, so that an iteration opens only when the one
            before is known not to.
        changes_source: True if the body may change the collection that is looped over.
    """

    number: int = 0
    source: ast.expr = field(default_factory=lambda: ast.Constant(value=None))
    item: str = ""
    turn: Turn = field(default_factory=lambda: Turn(0))
    orelse: list[Statement] = field(default_factory=list)
    carried: frozenset[str] = frozenset()
    in_order: bool = False
    changes_source: bool = False

    @property
    def blocks(self) -> Sequence[Sequence[Statement]]:
        """See ``Statement``."""
        return ((self.turn,), self.orelse)


@dataclass(slots=True, eq=False)
class Loop(Statement):
    """A loop with a condition; each turn begins with a test that may break."""

    number: int = 0
    turn: Turn = field(default_factory=lambda: Turn(0))

    @property
    def blocks(self) -> Sequence[Sequence[Statement]]:
        """See ``Statement``."""
        return ((self.turn,),)


@dataclass(slots=True, eq=False)
class Attempt(Statement):
    """``try`` with an ``except ToolError``."""

    number: int = 0
    body: list[Statement] = field(default_factory=list)
    name: str | None = None
    handler: list[Statement] = field(default_factory=list)
    orelse: list[Statement] = field(default_factory=list)
    final: list[Statement] = field(default_factory=list)

    @property
    def blocks(self) -> Sequence[Sequence[Statement]]:
        """See ``Statement``."""
        return (self.body, self.handler, self.orelse, self.final)


@dataclass(slots=True, eq=False)
class Inline(Statement):
    """The body of a helper function in place of its call; a ``return`` inside ends it."""

    name: str = ""
    body: list[Statement] = field(default_factory=list)
    result: str = ""

    @property
    def blocks(self) -> Sequence[Sequence[Statement]]:
        """See ``Statement``."""
        return (self.body,)


@dataclass(slots=True, eq=False)
class Exit(Statement):
    """``break``, ``continue`` or ``return``."""

    kind: ExitKind = "return"
    value: ast.expr | None = None


def walk(statements: Sequence[Statement]) -> Iterator[Statement]:
    """Every statement, each before those inside it, in the program's order."""
    for statement in statements:
        yield statement
        for block in statement.blocks:
            yield from walk(block)
