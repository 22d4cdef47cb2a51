"""What each lowered statement reads, assigns, changes in place, and how it may leave its block.

Values that may be one object share an *alias class* (Steensgaard's analysis: classes are unified
along assignments, and each class has one class of contents). A statement that changes a list in
place waits for all earlier statements that read a value of the list's class, and all later ones
wait for it; so statements may run in any order that their data allows, and a program still means
what it means in CPython.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Mapping, Sequence

from llmcompiler.programs import subset
from llmcompiler.programs.aliases import Aliases
from llmcompiler.programs.facts import HelperSource
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

_SCALAR_CALLS = frozenset(
    "abs all any bool chr divmod float int isinstance len ord pow range repr round str".split()
)
_ELEMENT_CALLS = frozenset({"max", "min", "next"})
_VIEWS = frozenset({"items", "keys", "values"})
_TEXT_METHODS = subset.METHODS[str] - subset.METHODS[list] - subset.METHODS[dict]


class Analysis:
    """Fills in what is known of statements; one instance serves one program.

    Args:
        helpers: the program's helper functions; those not inlined are looked into here.
    """

    def __init__(self, helpers: Mapping[str, HelperSource]) -> None:
        self._helpers = helpers
        self.aliases = Aliases()
        self._returns: dict[str, int] = {}
        self._free: dict[str, frozenset[str]] = {}

    def analyse(self, statements: Sequence[Statement]) -> None:
        """Fill in the fields of statements of the top level, and of all inside."""
        self._flow_block(statements)
        for statement in statements:
            self._describe(statement)
        for statement in walk(statements):
            # Looking for changes in place may have unified further classes.
            for name in ("starts_with", "touches", "mutates"):
                classes = frozenset(map(self.aliases.find, getattr(statement, name)))
                setattr(statement, name, classes)

    # Aliases.

    def _flow_block(self, statements: Iterable[Statement]) -> None:
        for statement in statements:
            match statement:
                case Compute():
                    for node in statement.nodes:
                        self._flow_statement(node)
                case Invoke():
                    for value in statement.args:
                        self._flow(value)
                    for _, value in statement.kwargs:
                        self._flow(value)
                    self._join(statement.target, self.aliases.recursive())
                case Each():
                    source = self._flow(statement.source)
                    if source is not None:
                        self._join(statement.item, self.aliases.contents(source))
                case Choose():
                    self._flow(statement.test)
                case Exit() if statement.value is not None:
                    value_class = self._flow(statement.value)
                    if value_class is not None:
                        self._join("%return", value_class)
                case _:
                    pass
            for block in statement.blocks:
                self._flow_block(block)
            if isinstance(statement, Inline):
                self._join(statement.result, self.aliases.variable("%return"))

    def _join(self, name: str, number: int) -> None:
        self.aliases.unify(self.aliases.variable(name), number)

    def _flow_statement(self, node: ast.stmt, returns: int | None = None) -> None:
        match node:
            case ast.Assign():
                value = self._flow(node.value)
                for target in node.targets:
                    self._bind(target, value)
            case ast.AugAssign():
                value = self._flow(node.value)
                place = self._flow(_as_load(node.target))
                if value is not None and place is not None:
                    self.aliases.unify(self.aliases.contents(place), self.aliases.contents(value))
            case ast.Expr(value=value_node):
                self._flow(value_node)
            case ast.Assert():
                self._flow(node.test)
            case ast.If() | ast.While():
                self._flow(node.test)
                for inner in (*node.body, *node.orelse):
                    self._flow_statement(inner, returns)
            case ast.For():
                source = self._flow(node.iter)
                self._bind(
                    node.target, self.aliases.contents(source) if source is not None else None
                )
                for inner in (*node.body, *node.orelse):
                    self._flow_statement(inner, returns)
            case ast.Return(value=ast.expr() as result) if returns is not None:
                value = self._flow(result)
                if value is not None:
                    self.aliases.unify(returns, value)
            case _:
                pass

    def _bind(self, target: ast.expr, value: int | None) -> None:
        match target:
            case ast.Name(id=name):
                variable = self.aliases.variable(name)
                if value is not None:
                    self.aliases.unify(variable, value)
            case ast.Tuple(elts=items) | ast.List(elts=items):
                inner = self.aliases.contents(value) if value is not None else None
                for item in items:
                    if isinstance(item, ast.Starred):
                        packed = self.aliases.fresh()
                        if inner is not None:
                            self.aliases.unify(self.aliases.contents(packed), inner)
                        self._bind(item.value, packed)
                    else:
                        self._bind(item, inner)
            case ast.Subscript() | ast.Attribute():
                owner = self._flow(target.value)
                if owner is not None and value is not None:
                    self.aliases.unify(self.aliases.contents(owner), value)

    def _flow(self, node: ast.expr) -> int | None:
        """The class of an expression's value; ``None`` for values that never change."""
        aliases = self.aliases
        match node:
            case ast.Name(id=name):
                if name in self._helpers or name.startswith("%module."):
                    return None
                return aliases.variable(name)
            case ast.Attribute(value=value):
                if resolve_global(node) is not None:
                    return None
                owner = self._flow(value)
                return aliases.contents(owner) if owner is not None else None
            case ast.Subscript(value=value, slice=index):
                owner = self._flow(value)
                if isinstance(index, ast.Slice):
                    return self._holding(owner)
                self._flow(index)
                return aliases.contents(owner) if owner is not None else None
            case ast.BinOp():
                left_class, right_class = self._flow(node.left), self._flow(node.right)
                if left_class is None and right_class is None:
                    return None
                both = self._holding(left_class)
                if right_class is not None:
                    aliases.unify(aliases.contents(both), aliases.contents(right_class))
                return both
            case ast.BoolOp(values=values):
                return self._one_of([self._flow(value) for value in values])
            case ast.IfExp():
                self._flow(node.test)
                return self._one_of([self._flow(node.body), self._flow(node.orelse)])
            case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
                out = aliases.fresh()
                for item in items:
                    starred = isinstance(item, ast.Starred)
                    inner = self._flow(item.value if isinstance(item, ast.Starred) else item)
                    if inner is not None:
                        contents = aliases.contents(inner) if starred else inner
                        aliases.unify(aliases.contents(out), contents)
                return out
            case ast.Dict():
                out = aliases.fresh()
                for key, item in zip(node.keys, node.values, strict=True):
                    inner = self._flow(item)
                    if inner is not None:
                        contents = aliases.contents(inner) if key is None else inner
                        aliases.unify(aliases.contents(out), contents)
                return out
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                return self._comprehension(node)
            case ast.Lambda(body=body):
                return self._flow(body)
            case ast.Call():
                return self._call(node)
            case ast.Compare():
                for part in (node.left, *node.comparators):
                    self._flow(part)
                return None
            case ast.UnaryOp(operand=operand):
                self._flow(operand)
                return None
            case ast.JoinedStr(values=values):
                for value in values:
                    if isinstance(value, ast.FormattedValue):
                        self._flow(value.value)
                return None
            case _:
                return None

    def _one_of(self, classes: Sequence[int | None]) -> int | None:
        numbers = [number for number in classes if number is not None]
        for number in numbers[1:]:
            self.aliases.unify(numbers[0], number)
        return self.aliases.find(numbers[0]) if numbers else None

    def _holding(self, owner: int | None) -> int:
        """A new collection of what ``owner`` holds."""
        out = self.aliases.fresh()
        if owner is not None:
            self.aliases.unify(self.aliases.contents(out), self.aliases.contents(owner))
        return out

    def _comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp
    ) -> int:
        for generator in node.generators:
            source = self._flow(generator.iter)
            self._bind(
                generator.target, self.aliases.contents(source) if source is not None else None
            )
            for test in generator.ifs:
                self._flow(test)
        out = self.aliases.fresh()
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        for part in parts:
            value = self._flow(part)
            if value is not None:
                self.aliases.unify(self.aliases.contents(out), value)
        return out

    def _call(self, node: ast.Call) -> int | None:
        aliases = self.aliases
        func = node.func
        if isinstance(func, ast.Attribute) and resolve_global(func) is None:
            return self._method(func, node)
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        lambdas = [value for value in values if isinstance(value, ast.Lambda)]
        classes = [self._flow(value) for value in values if not isinstance(value, ast.Lambda)]
        classes_of_values = [number for number in classes if number is not None]
        for function in lambdas:
            for argument in function.args.args:
                for number in classes_of_values:
                    aliases.unify(aliases.variable(argument.arg), aliases.contents(number))
            result = self._flow(function.body)
            if result is not None:
                classes_of_values.append(self._single(result))
        name = func.id if isinstance(func, ast.Name) else ""
        if name in self._helpers:
            return self._helper_call(name, node, classes)
        if name in _SCALAR_CALLS or (not name and resolve_global(func) is not None):
            return aliases.recursive() if classes_of_values or not name else None
        if name in _ELEMENT_CALLS:
            return self._one_of(
                [aliases.contents(number) for number in classes_of_values]
                + (classes_of_values if len(classes_of_values) > 1 else [])
            )
        out = aliases.fresh()
        for number in classes_of_values:
            aliases.unify(aliases.contents(out), aliases.contents(number))
        if name in subset.LAZY or name == "dict" or name == "sum":
            # Pairs of elements: elements, pairs and what they hold become one class.
            inner = aliases.contents(out)
            aliases.unify(inner, aliases.contents(inner))
        return out

    def _single(self, number: int) -> int:
        out = self.aliases.fresh()
        self.aliases.unify(self.aliases.contents(out), number)
        return out

    def _helper_call(self, name: str, node: ast.Call, classes: Sequence[int | None]) -> int | None:
        helper = self._helpers[name]
        parameters = [argument.arg for argument in helper.node.args.args]
        if name not in self._returns:
            self._returns[name] = self.aliases.fresh(container=False)
            for inner in helper.node.body:
                self._flow_statement(scoped(inner, name, helper.local), self._returns[name])
        for parameter, number in zip(parameters, classes, strict=False):
            if number is not None:
                self.aliases.unify(self.aliases.variable(f"{name}.{parameter}"), number)
        for keyword, number in zip(node.keywords, classes[len(node.args) :], strict=False):
            if number is not None and keyword.arg is not None:
                self.aliases.unify(self.aliases.variable(f"{name}.{keyword.arg}"), number)
        return self.aliases.find(self._returns[name])

    def _method(self, func: ast.Attribute, node: ast.Call) -> int | None:
        aliases = self.aliases
        owner = self._flow(func.value)
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        classes = []
        for value in values:
            if isinstance(value, ast.Lambda) and owner is not None:
                for argument in value.args.args:
                    aliases.unify(aliases.variable(argument.arg), aliases.contents(owner))
            classes.append(self._flow(value))
        argument_classes = [number for number in classes if number is not None]
        name = func.attr
        if owner is None or name in _TEXT_METHODS:
            return aliases.fresh() if name.startswith(("split", "rsplit", "partition")) else None
        inner = aliases.contents(owner)
        if name in ("append", "add", "insert", "setdefault", "get", "pop", "remove", "index"):
            for number in argument_classes:
                aliases.unify(inner, number)
        elif name in ("extend", "update") or argument_classes:
            for number in argument_classes:
                aliases.unify(inner, aliases.contents(number))
        if name in ("get", "pop", "setdefault"):
            return aliases.find(inner)
        if name in ("items", "popitem"):
            aliases.unify(inner, aliases.contents(inner))
            return owner if name == "items" else aliases.contents(owner)
        if name in _VIEWS:
            return owner
        if name in subset.MUTATING:
            return None
        return self._holding(owner)

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
                    owner = self._flow(_as_load(place))
                case ast.Call(func=ast.Attribute(value=value, attr=attr)):
                    if attr in subset.MUTATING and resolve_global(node.func) is None:
                        owner = self._flow(value)
                case ast.Name(id=name) if name in self._helpers:
                    helper = self._helpers[name]
                    for inner in helper.node.body:
                        out |= self._mutated(scoped(inner, name, helper.local))
                case _:
                    pass
            if owner is not None:
                out.add(self.aliases.find(owner))
        return out


def _needed(block: Sequence[Statement]) -> set[str]:
    """Variables that a block may read before it has surely assigned them."""
    needed: set[str] = set()
    sure: set[str] = set()
    for statement in block:
        needed |= statement.captures - sure
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
            needed |= {name for later in block for name in later.writes} - sure
            break
    else:
        return needed
    behind = block[block.index(statement) + 1 :]
    for later in behind:
        needed |= later.captures - sure
    return needed


def _names_of(target: ast.AST) -> list[str]:
    return [node.id for node in ast.walk(target) if isinstance(node, ast.Name)]


def _as_load(node: ast.expr) -> ast.expr:
    match node:
        case ast.Name(id=name):
            return ast.Name(id=name, ctx=ast.Load())
        case ast.Subscript(value=value, slice=index):
            return ast.Subscript(value=value, slice=index, ctx=ast.Load())
        case ast.Attribute(value=value, attr=attr):
            return ast.Attribute(value=value, attr=attr, ctx=ast.Load())
    return node


class _Scope(ast.NodeTransformer):
    def __init__(self, prefix: str, local: frozenset[str]) -> None:
        self._prefix, self._local = prefix, local

    def visit_Name(self, node: ast.Name) -> ast.Name:
        """Give a local variable of a helper the name that it has in the environment."""
        if node.id in self._local:
            return ast.copy_location(ast.Name(id=f"{self._prefix}.{node.id}", ctx=node.ctx), node)
        return node


def scoped(node: ast.stmt, name: str, local: frozenset[str]) -> ast.stmt:
    """A statement of a helper function, with the names that its variables have when it runs."""
    scoped: ast.stmt = _Scope(name, local).visit(copy.deepcopy(node))
    return scoped
