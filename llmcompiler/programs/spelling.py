"""Expressions of a lowered program, as a person would write them."""

from __future__ import annotations

import ast
import copy


def spell(node: ast.expr) -> str:
    """An expression as a person would write it, without the hidden parts of names."""
    text = ast.unparse(node)
    return text if "%" not in text else _plain_names(node)


class _Plain(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.Name:
        """Cut what makes a name unique."""
        name = node.id.removeprefix("%module.")
        plain = name.partition("%")[0] or "_"
        return ast.copy_location(ast.Name(id=plain, ctx=node.ctx), node)


def _plain_names(node: ast.expr) -> str:
    return ast.unparse(_Plain().visit(copy.deepcopy(node)))
