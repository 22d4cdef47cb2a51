"""The syntax that the subset of Python has."""

from __future__ import annotations

import ast

from llmcompiler.programs import subset
from llmcompiler.programs.facts import ProgramIssue

_EXPRESSIONS = (
    *(ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.BinOp, ast.UnaryOp),
    *(ast.BoolOp, ast.Compare, ast.IfExp, ast.JoinedStr, ast.FormattedValue, ast.List, ast.Tuple),
    *(ast.Set, ast.Dict, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda),
    *(ast.Call, ast.Starred),
)
_STATEMENTS = (
    *(ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr, ast.Pass, ast.Assert, ast.If, ast.For),
    *(ast.While, ast.Break, ast.Continue, ast.Return, ast.Try, ast.FunctionDef, ast.Import),
    ast.ImportFrom,
)


MAX_NESTING = 150
"""Levels of a statement's syntax tree."""


class ShapeCheck(ast.NodeVisitor):
    """Refuses syntax that the subset does not have."""

    def check(self, node: ast.stmt) -> None:
        """Raise for the first construct that is not in the subset."""
        _check_depth(node)
        for inner in ast.walk(node):
            self._one(inner)
        self._lambdas(node)

    def _one(self, node: ast.AST) -> None:
        name = type(node).__name__
        if isinstance(node, ast.stmt) and not isinstance(node, _STATEMENTS):
            raise ProgramIssue(
                "E501", f"{name} is not in the subset", node, subset.HINTS.get(name, "")
            )
        if isinstance(node, ast.expr) and not isinstance(node, _EXPRESSIONS):
            raise ProgramIssue(
                "E501", f"{name} is not in the subset", node, subset.HINTS.get(name, "")
            )
        match node:
            case ast.Subscript(slice=ast.Slice(), ctx=ast.Store()):
                raise ProgramIssue(
                    "E501", "a slice cannot be assigned", node, "build a new list: a[:2] + b"
                )
        identifier = getattr(node, "id", None) or getattr(node, "attr", None)
        if isinstance(identifier, str) and identifier.startswith("__"):
            raise ProgramIssue(
                "E501", f"{identifier} is a name of Python's inside and cannot be used", node
            )
        if isinstance(node, ast.comprehension) and node.is_async:
            raise ProgramIssue("E501", "async is not in the subset", node.iter)
        if isinstance(node, ast.Constant) and isinstance(node.value, bytes | complex):
            raise ProgramIssue("E501", "bytes and complex numbers are not in the subset", node)
        if isinstance(node, ast.Constant) and node.value is ...:
            raise ProgramIssue("E501", "... is not in the subset", node)
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.MatMult):
            raise ProgramIssue("E501", "@ is not in the subset", node)

    def _lambdas(self, node: ast.AST) -> None:
        arguments: set[ast.AST] = set()
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call):
                arguments.update(inner.args)
                arguments.update(keyword.value for keyword in inner.keywords)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Lambda):
                plain = inner.args
                if plain.vararg or plain.kwarg or plain.kwonlyargs or plain.posonlyargs:
                    raise ProgramIssue("E501", "a lambda takes plain parameters only", inner)
                if plain.defaults:
                    raise ProgramIssue("E501", "a lambda takes no defaults", inner)
            if isinstance(inner, ast.Lambda | ast.GeneratorExp) and inner not in arguments:
                name = type(inner).__name__
                raise ProgramIssue("E501", f"{name} out of place", inner, subset.HINTS[name])


def _check_depth(top: ast.stmt) -> None:
    """Refuse code that is nested so deeply that what walks over it might not come back."""
    level: list[ast.AST] = [top]
    for _ in range(MAX_NESTING):
        level = [inner for node in level for inner in ast.iter_child_nodes(node)]
        if not level:
            return
    node = next((node for node in level if hasattr(node, "lineno")), top)
    raise ProgramIssue(
        "E501",
        f"code is nested more than {MAX_NESTING} levels deep",
        node,
        "assign parts to names; add many values with sum([...])",
    )


def leaves_block(node: ast.stmt, *, in_loop: bool) -> bool:
    """Whether a statement holds a return, a try, or a break or continue of a loop around it."""
    match node:
        case ast.Return() | ast.Try() | ast.FunctionDef() | ast.Import() | ast.ImportFrom():
            return True
        case ast.Break() | ast.Continue():
            return not in_loop
        case ast.For() | ast.While():
            inner = [(child, True) for child in node.body]
            inner += [(child, in_loop) for child in node.orelse]
        case ast.If():
            inner = [(child, in_loop) for child in (*node.body, *node.orelse)]
        case _:
            return False
    return any(leaves_block(child, in_loop=looping) for child, looping in inner)
