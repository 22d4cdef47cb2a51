"""Alias classes along assignments (Steensgaard's analysis)."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Mapping, Sequence

from llmcompiler.programs import subset
from llmcompiler.programs.aliases import Aliases
from llmcompiler.programs.facts import HelperSource
from llmcompiler.programs.statements import (
    Choose,
    Compute,
    Each,
    Exit,
    Inline,
    Invoke,
    Statement,
)
from llmcompiler.programs.values import resolve_global

_SCALAR_CALLS = frozenset(
    "abs all any bool chr divmod float int isinstance len ord pow range repr round str".split()
)
_ELEMENT_CALLS = frozenset({"max", "min", "next"})
_VIEWS = frozenset({"items", "keys", "values"})
_TEXT_METHODS = subset.METHODS[str] - subset.METHODS[list] - subset.METHODS[dict]


class AliasFlow:
    """Unifies alias classes along the assignments of a program.

    Args:
        helpers: the program's helper functions; those not inlined are looked into here.
    """

    def __init__(self, helpers: Mapping[str, HelperSource]) -> None:
        self._helpers = helpers
        self.aliases = Aliases()
        self._returns: dict[str, int] = {}
        self._free: dict[str, frozenset[str]] = {}
        self._helper_mutates: dict[str, set[int]] = {}

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
                place = self._flow(as_load(node.target))
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
            case ast.Attribute() | ast.Subscript():
                return self._flow_part(node)
            case ast.BinOp():
                return self._flow_operation(node)
            case ast.BoolOp(values=values):
                return self._one_of([self._flow(value) for value in values])
            case ast.IfExp():
                self._flow(node.test)
                return self._one_of([self._flow(node.body), self._flow(node.orelse)])
            case ast.List() | ast.Tuple() | ast.Set() | ast.Dict():
                return self._flow_display(node)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                return self._comprehension(node)
            case ast.Lambda(body=body):
                return self._flow(body)
            case ast.Call():
                return self._call(node)
        for part in ast.iter_child_nodes(node):
            if isinstance(part, ast.expr):
                self._flow(part)
        return None

    def _flow_part(self, node: ast.Attribute | ast.Subscript) -> int | None:
        if isinstance(node, ast.Attribute) and resolve_global(node) is not None:
            return None
        owner = self._flow(node.value)
        if isinstance(node, ast.Subscript):
            if isinstance(node.slice, ast.Slice):
                return self._holding(owner)
            self._flow(node.slice)
        return self.aliases.contents(owner) if owner is not None else None

    def _flow_operation(self, node: ast.BinOp) -> int | None:
        aliases = self.aliases
        left_class, right_class = self._flow(node.left), self._flow(node.right)
        if left_class is None and right_class is None:
            return None
        both = self._holding(left_class)
        if right_class is not None:
            aliases.unify(aliases.contents(both), aliases.contents(right_class))
        return both

    def _flow_display(self, node: ast.List | ast.Tuple | ast.Set | ast.Dict) -> int:
        """The class of a new collection, which holds what stands in it."""
        aliases = self.aliases
        out = aliases.fresh()
        if isinstance(node, ast.Dict):
            spread = [key is None for key in node.keys]
            items = node.values
        else:
            spread = [isinstance(item, ast.Starred) for item in node.elts]
            items = [item.value if isinstance(item, ast.Starred) else item for item in node.elts]
        for item, is_spread in zip(items, spread, strict=True):
            inner = self._flow(item)
            if inner is not None:
                contents = aliases.contents(inner) if is_spread else inner
                aliases.unify(aliases.contents(out), contents)
        return out

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


def as_load(node: ast.expr) -> ast.expr:
    """The expression that reads what a target assigns."""
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
