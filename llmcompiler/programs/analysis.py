"""What each lowered statement reads, assigns, changes in place, and how it may leave its block.

Values that may be one object share an *alias class* (Steensgaard's analysis: classes are unified
along assignments, and each class has one class of contents). A statement that changes a list in
place waits for all earlier statements that read a value of the list's class, and all later ones
wait for it; so statements may run in any order that their data allows, and a program still means
what it means in CPython.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence

from llmcompiler.programs import subset
from llmcompiler.programs.alias_flow import AliasFlow, as_load, scoped
from llmcompiler.programs.aliases import Aliases
from llmcompiler.programs.statements import (
    Attempt,
    Choose,
    Compute,
    Each,
    Exit,
    ExitKind,
    Inline,
    Invoke,
    Statement,
    Turn,
    walk,
)
from llmcompiler.programs.values import resolve_global


class Analysis(AliasFlow):
    """Fills in what is known of statements; one instance serves one program."""

    def analyse(self, statements: Sequence[Statement]) -> None:
        """Fill in the fields of statements of the top level, and of all inside."""
        self._flow_block(statements)
        for statement in statements:
            self._describe(statement)
        # Looking for changes in place may have unified further classes.
        renumber_classes(statements, self.aliases)

    # Reads and writes.

    def _describe(self, statement: Statement) -> None:
        for block in statement.blocks:
            for inner in block:
                self._describe(inner)
        match statement:
            case Compute():
                self._describe_compute(statement)
                return
            case Invoke():
                exprs = [*statement.args, *(value for _, value in statement.kwargs)]
                statement.reads = statement.captures = self._names(exprs)
                statement.writes = frozenset({statement.target})
                statement.starts_with = statement.touches = self._touched(statement.reads)
                statement.has_write = statement.is_write
                return
            case Exit():
                exprs = [statement.value] if statement.value is not None else []
                statement.reads = statement.captures = self._names(exprs)
                statement.exits = frozenset({statement.kind})
                statement.starts_with = statement.touches = self._touched(statement.reads)
                return
            case Choose():
                statement.reads = self._names([statement.test])
            case Each():
                statement.reads = self._names([statement.source])
            case _:
                statement.reads = frozenset()
        self._describe_compound(statement)

    def _describe_compute(self, statement: Compute) -> None:
        reads = set(self._names(statement.nodes))
        writes: set[str] = set()
        mutated: set[int] = set()
        is_compound = False
        for top in statement.nodes:
            for node in ast.walk(top):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    writes.add(node.id)
                is_compound |= isinstance(node, ast.If | ast.For | ast.While)
            mutated |= self._mutated(top)
        inner = {
            name
            for top in statement.nodes
            for node in ast.walk(top)
            if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp)
            for generator in node.generators
            for name in _names_of(generator.target)
        }
        writes -= inner
        reads -= inner
        if is_compound:
            reads |= writes
        statement.reads = statement.captures = frozenset(reads)
        statement.writes = frozenset(writes)
        statement.mutates = frozenset(mutated)
        statement.touches = self._touched(statement.reads) | statement.mutates
        statement.starts_with = statement.touches

    def _describe_compound(self, statement: Statement) -> None:
        statement.starts_with = self._touched(statement.reads)
        captures, writes = set(statement.reads), set[str]()
        touches, mutates = set(statement.starts_with), set[int]()
        exits: set[ExitKind] = set()
        hidden: set[str] = set()
        if isinstance(statement, Attempt) and statement.name is not None:
            writes.add(statement.name)
        for block in statement.blocks:
            for inner in block:
                captures |= inner.captures
                writes |= inner.writes
                touches |= inner.touches
                mutates |= inner.mutates
                leaves = inner.exits
                if isinstance(inner, Turn):
                    leaves = leaves - {"break", "continue"}
                elif isinstance(statement, Inline):
                    leaves = leaves - {"return"}
                exits |= leaves
                statement.has_write |= inner.has_write
        if isinstance(statement, Each):
            hidden = {statement.item}
        if isinstance(statement, Inline):
            writes.add(statement.result)
        # What may or may not be assigned keeps its value from before.
        captures |= writes
        statement.captures = frozenset(captures - hidden)
        statement.writes = frozenset(writes - hidden)
        statement.exits = frozenset(exits)
        statement.touches = frozenset(touches)
        statement.mutates = frozenset(mutates)
        if isinstance(statement, Each):
            statement.carried = frozenset(_needed(statement.turn.body) & writes)
            statement.in_order = bool(statement.turn.exits - {"continue"})
            source = self._flow(statement.source)
            if source is not None and self.aliases.find(source) in mutates:
                statement.in_order = statement.changes_source = True

    def _names(self, nodes: Iterable[ast.AST]) -> frozenset[str]:
        """Variables that code loads, those of the helpers that it calls included."""
        out: set[str] = set()
        for top in nodes:
            for node in ast.walk(top):
                if isinstance(node, ast.Name) and not node.id.startswith("%module."):
                    if node.id in self._helpers:
                        out |= self._free_of(node.id)
                    elif isinstance(node.ctx, ast.Load):
                        out.add(node.id)
                elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
                    out.add(node.target.id)
        local = {
            name
            for top in nodes
            for node in ast.walk(top)
            if isinstance(node, ast.Lambda)
            for name in (argument.arg for argument in node.args.args)
        }
        bound = {
            name
            for top in nodes
            for node in ast.walk(top)
            if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp)
            for generator in node.generators
            for name in _names_of(generator.target)
        }
        called = {
            node.func.id
            for top in nodes
            for node in ast.walk(top)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        return frozenset(
            name for name in out - local - bound if not (name in subset.BUILTINS and name in called)
        )

    def _free_of(self, name: str) -> frozenset[str]:
        """Variables of the program that a helper reads."""
        if name not in self._free:
            self._free[name] = frozenset()
            helper = self._helpers[name]
            self._free[name] = self._names(helper.node.body) - helper.local
        return self._free[name]

    def _touched(self, names: Iterable[str]) -> frozenset[int]:
        out: set[int] = set()
        for name in names:
            out |= self.aliases.reach(self.aliases.variable(name))
        return frozenset(out)

    def _mutated_by(self, name: str) -> set[int]:
        """Classes of values that a helper changes in place. Each helper is looked into once."""
        if name not in self._helper_mutates:
            mutates = self._helper_mutates[name] = set()
            helper = self._helpers[name]
            for inner in helper.node.body:
                mutates |= self._mutated(scoped(inner, name, helper.local))
        return self._helper_mutates[name]

    def _mutated(self, top: ast.AST) -> set[int]:
        """Classes of values that code changes in place."""
        out: set[int] = set()
        for node in ast.walk(top):
            owner: int | None = None
            match node:
                case ast.Subscript(ctx=ast.Store()) | ast.Attribute(ctx=ast.Store()):
                    owner = self._flow(node.value)
                case ast.AugAssign(target=ast.Name(id=name)):
                    number = self.aliases.variable(name)
                    owner = number if self.aliases.is_container(number) else None
                case ast.AugAssign(target=ast.Subscript() | ast.Attribute() as place):
                    owner = self._flow(as_load(place))
                case ast.Call(func=ast.Attribute(value=value, attr=attr)):
                    if attr in subset.MUTATING and resolve_global(node.func) is None:
                        owner = self._flow(value)
                case ast.Name(id=name) if name in self._helpers:
                    out |= {self.aliases.find(number) for number in self._mutated_by(name)}
                case _:
                    pass
            if owner is not None:
                out.add(self.aliases.find(owner))
        return out


def renumber_classes(statements: Sequence[Statement], aliases: Aliases) -> None:
    """Name the classes of statements by the numbers in force.

    Later statements unify classes, so the numbers that were in force when a statement was analysed
    may not be those that are in force when it is issued.
    """
    for top in statements:
        if top.unions == aliases.unions:
            continue
        top.unions = aliases.unions
        for statement in walk([top]):
            for name in ("starts_with", "touches", "mutates"):
                classes = frozenset(map(aliases.find, getattr(statement, name)))
                setattr(statement, name, classes)


def _needed(block: Sequence[Statement]) -> set[str]:
    """Variables that a block may read before it has surely assigned them."""
    variables: set[str] = set()
    sure: set[str] = set()
    for statement in block:
        variables |= statement.captures - sure
        if isinstance(statement, Invoke) or (
            isinstance(statement, Compute) and not statement.reads >= statement.writes
        ):
            sure |= statement.writes
        elif isinstance(statement, Compute):
            sure |= {
                name
                for node in statement.nodes
                if isinstance(node, ast.Assign)
                for target in node.targets
                for name in _names_of(target)
            }
        if statement.exits:
            # What follows may not run, so nothing behind is sure for the next turn.
            variables |= {name for later in block for name in later.writes} - sure
            break
    else:
        return variables
    behind = block[block.index(statement) + 1 :]
    for later in behind:
        variables |= later.captures - sure
    return variables


def _names_of(target: ast.AST) -> list[str]:
    return [node.id for node in ast.walk(target) if isinstance(node, ast.Name)]
