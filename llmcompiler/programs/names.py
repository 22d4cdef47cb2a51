"""Names of a program: hidden names for inner variables, modules, dotted names."""

from __future__ import annotations

import ast
import copy
import difflib
import itertools
from collections.abc import Iterable, Mapping

from llmcompiler.programs import subset


class RenameVariables(ast.NodeTransformer):
    """Renames variables of a helper function that is inlined."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        """Rename a variable."""
        if node.id in self._names:
            return ast.copy_location(ast.Name(id=self._names[node.id], ctx=node.ctx), node)
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        """Rename the variable of an ``except``."""
        self.generic_visit(node)
        if node.name is not None and node.name in self._names:
            node.name = self._names[node.name]
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Names of functions have a namespace of their own."""
        func = node.func
        self.generic_visit(node)
        if isinstance(func, ast.Name):
            node.func = func
        return node


class UniqueVariables(ast.NodeTransformer):
    """Gives variables of comprehensions and lambdas names of their own, the inner ones first."""

    def __init__(self, numbers: itertools.count[int]) -> None:
        self._numbers = numbers

    def _comprehension(self, node: ast.AST) -> ast.AST:
        generators: list[ast.comprehension] = node.generators  # type: ignore[attr-defined]
        if any("%" in name for generator in generators for name in target_names(generator.target)):
            return node
        self.generic_visit(node)
        names = {
            name: f"{name}%{next(self._numbers)}"
            for generator in generators
            for name in target_names(generator.target)
        }
        rename = RenameVariables(names)
        for number, generator in enumerate(generators):
            generator.target = rename.visit(generator.target)
            generator.ifs = [rename.visit(test) for test in generator.ifs]
            if number:
                generator.iter = rename.visit(generator.iter)
        for name in ("elt", "key", "value"):
            if hasattr(node, name):
                setattr(node, name, rename.visit(getattr(node, name)))
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension  # noqa: N815

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        """Rename the parameters of a lambda."""
        if any("%" in argument.arg for argument in node.args.args):
            return node
        self.generic_visit(node)
        names = {a.arg: f"{a.arg}%{next(self._numbers)}" for a in node.args.args}
        node.body = RenameVariables(names).visit(node.body)
        for argument in node.args.args:
            argument.arg = names[argument.arg]
        return node


class ModuleNames(ast.NodeTransformer):
    """Replaces names of modules, and names imported from them, by what they stand for."""

    def __init__(self, modules: Mapping[str, ast.expr], assigned: set[str]) -> None:
        self._modules = modules
        self._assigned = assigned

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Replace a name, unless the program has assigned it."""
        if isinstance(node.ctx, ast.Load) and node.id not in self._assigned:
            if node.id in self._modules:
                return ast.copy_location(copy.deepcopy(self._modules[node.id]), node)
            if node.id in subset.MODULES:
                return ast.copy_location(module_name(node.id), node)
        return node


def module_name(name: str) -> ast.Name:
    """The hidden name of a module."""
    return ast.Name(id=f"%module.{name}", ctx=ast.Load())


def target_names(target: ast.AST) -> list[str]:
    """Names that a target assigns."""
    return [node.id for node in ast.walk(target) if isinstance(node, ast.Name)]


def dotted_name(node: ast.expr) -> str | None:
    """A name with dots, as text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        owner = dotted_name(node.value)
        return f"{owner}.{node.attr}" if owner is not None else None
    return None


def nearest_name(name: str, candidates: Iterable[str]) -> str:
    """``did you mean "x"?`` for the nearest known name; empty if none is near."""
    near = difflib.get_close_matches(name, list(candidates), n=1)
    return f'did you mean "{near[0]}"?' if near else ""
