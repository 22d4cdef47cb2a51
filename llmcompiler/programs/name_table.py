"""What the names and calls of a program mean while it is lowered."""

from __future__ import annotations

import ast
import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmcompiler.programs import subset
from llmcompiler.programs.facts import HelperSource, ProgramIssue, ToolFacts
from llmcompiler.programs.names import (
    ModuleNames,
    UniqueVariables,
    dotted_name,
    nearest_name,
)
from llmcompiler.programs.shape import leaves_block
from llmcompiler.programs.statements import (
    Statement,
)
from llmcompiler.programs.values import resolve_global

_ALL_METHODS = sorted({name for names in subset.METHODS.values() for name in names})


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a program at one place.

    Attributes:
        helpers: its helper functions.
        assigned: names that it has assigned.
        modules: modules and names imported from them.
    """

    helpers: Mapping[str, HelperSource]
    assigned: frozenset[str]
    modules: Mapping[str, ast.expr]


class NameTable:
    """Tools, helper functions, modules and variables of a program.

    Args:
        tools: what programs may call, by the name that a program spells.
        first_site: the id of the first task.
        inputs: names that have a value before the program starts.
    """

    def __init__(
        self, tools: Mapping[str, ToolFacts], first_site: int = 1, inputs: Sequence[str] = ()
    ) -> None:
        self.tools = tools
        self.helpers: dict[str, HelperSource] = {}
        self.assigned: set[str] = set(inputs)
        """Every name that the program has assigned so far."""
        self._modules: dict[str, ast.expr] = {}
        self._sites = itertools.count(first_site)
        self._numbers = itertools.count(1)
        self._temporaries = itertools.count(1)
        self._out: list[Statement] = []
        self._loops = 0
        self._inlining: list[str] = []
        self._checking: list[str] = []
        self._checked_helpers: set[str] = set()

    def snapshot(self) -> Names:
        """The names of the program so far, to be restored if the next statement is refused."""
        return Names(dict(self.helpers), frozenset(self.assigned), dict(self._modules))

    def restore(self, names: Names) -> None:
        """Forget the names of a statement that was refused."""
        self.helpers.clear()
        self.helpers.update(names.helpers)
        self.assigned = set(names.assigned)
        self._modules = dict(names.modules)
        self._out = []

    def _tool_of(self, node: ast.expr) -> ToolFacts | None:
        """The tool that an expression calls, if it is a call of one."""
        if not isinstance(node, ast.Call):
            return None
        name = dotted_name(node.func)
        return self.tools.get(name) if name is not None else None

    def _calls(self, node: ast.AST) -> bool:
        """Whether a tool is called inside, directly or by a helper."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call):
                if self._tool_of(inner) is not None:
                    return True
                if isinstance(inner.func, ast.Name):
                    helper = self.helpers.get(inner.func.id)
                    if helper is not None and helper.is_inlined:
                        return True
        return False

    def _is_pure(self, node: ast.stmt) -> bool:
        """Whether a statement can be computed as a whole: it calls no tool and leaves no block."""
        return not self._calls(node) and not leaves_block(node, in_loop=False)

    def _global(self, node: ast.expr) -> object:
        return resolve_global(self._resolve(node))

    def _resolve(self, node: ast.expr) -> ast.expr:
        """The node with names of modules replaced by what they stand for."""
        resolved: ast.expr = ModuleNames(self._modules, self.assigned).visit(copy.deepcopy(node))
        return resolved

    def _unique(
        self, node: ast.ListComp | ast.SetComp | ast.DictComp
    ) -> ast.ListComp | ast.SetComp | ast.DictComp:
        """A copy in which the variables of comprehensions and lambdas are unique."""
        unique: ast.ListComp = UniqueVariables(self._temporaries).visit(copy.deepcopy(node))
        return unique

    def _renamed_pure(self, node: ast.stmt) -> ast.stmt:
        for inner in ast.walk(node):
            if isinstance(inner, ast.expr):
                self._check_call(inner)
            if isinstance(inner, ast.For):
                self._check_target(inner.target)
            if isinstance(inner, ast.Assign):
                for target in inner.targets:
                    self._check_target(target)
            if isinstance(inner, ast.AugAssign):
                self._check_target(inner.target)
        done: ast.stmt = ModuleNames(self._modules, self.assigned).visit(
            UniqueVariables(self._temporaries).visit(copy.deepcopy(node))
        )
        return done

    def _checked(self, node: ast.expr) -> ast.expr:
        """A pure expression: its calls are known, its inner variables unique."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.expr):
                self._check_call(inner)
        pure: ast.expr = ModuleNames(self._modules, self.assigned).visit(
            UniqueVariables(self._temporaries).visit(copy.deepcopy(node))
        )
        ast.fix_missing_locations(pure)
        return pure

    def _check_call(self, node: ast.expr) -> None:
        """Refuse calls and attributes of what is no function or constant of the subset."""
        if isinstance(node, ast.Name) and node.id in self.helpers:
            self._check_helper(node.id, node)
        if isinstance(node, ast.Attribute):
            if self._global(node.value) is not None and self._global(node) is None:
                raise ProgramIssue("E502", f"there is no {ast.unparse(node)} here", node)
            return
        if not isinstance(node, ast.Call):
            return
        func = node.func
        if isinstance(func, ast.Name):
            names = {*subset.BUILTINS, *self.helpers, *self._modules}
            if func.id not in names:
                raise ProgramIssue(
                    "E203",
                    f'there is no function or tool "{func.id}"',
                    node,
                    nearest_name(func.id, [*names, *self.tools]),
                )
            if func.id in self._modules and self._global(func) is None:
                raise ProgramIssue("E203", f"{func.id} is a module, not a function", node)
        elif isinstance(func, ast.Attribute):
            root = dotted_name(func)
            if root is not None and self._is_module(func.value):
                if self._global(func) is None:
                    raise ProgramIssue("E502", f"there is no {root} here", node)
                return
            if func.attr not in _ALL_METHODS:
                raise ProgramIssue(
                    "E203",
                    f'there is no method "{func.attr}"',
                    node,
                    nearest_name(func.attr, _ALL_METHODS),
                )
        else:
            raise ProgramIssue("E501", "only functions, methods and tools can be called", node)

    def _check_helper(self, name: str, node: ast.expr) -> None:
        """Look into a helper that is used: what it calls is known, and never itself.

        This waits until the helper is used, so that it may call a helper that stands below it.
        """
        if name in self._checking:
            raise ProgramIssue("E503", f"{name} calls itself", node, "use a loop instead")
        if name in self._checked_helpers or self.helpers[name].is_inlined:
            return
        self._checking.append(name)
        try:
            for inner in ast.walk(self.helpers[name].node):
                if isinstance(inner, ast.expr):
                    self._check_call(inner)
        finally:
            self._checking.pop()
        self._checked_helpers.add(name)

    def _is_module(self, node: ast.expr) -> bool:
        resolved = self._resolve(node)
        return (isinstance(resolved, ast.Name) and resolved.id.startswith("%module.")) or (
            resolve_global(resolved) is not None and not isinstance(node, ast.Name)
        )

    def _temporary(self) -> str:
        return f"%t{next(self._temporaries)}"

    def _check_target(self, target: ast.expr) -> None:
        for name in ast.walk(target):
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                self._note_assigned(name.id, name)

    def _note_assigned(self, name: str, node: ast.AST) -> None:
        if name in self.helpers:
            raise ProgramIssue(
                "E503",
                f"{name} is a helper function and cannot be assigned",
                node,
                "choose another name",
            )
        self.assigned.add(name)
