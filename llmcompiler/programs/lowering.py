"""From Python's syntax to lowered statements: each call of a tool becomes a statement of its own.

A call inside an expression moves in front of its statement, and whatever CPython computes before
the call moves with it, so that failures come in the same order. Where CPython makes a call only
under a condition (``and``, ``or``, a conditional expression, a chain of comparisons), the condition
becomes a statement. A comprehension that calls a tool becomes a loop. A helper function that calls
tools is inlined; one that does not is compiled as it is.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from llmcompiler.programs import subset
from llmcompiler.programs.expression_lowering import ExpressionLowering
from llmcompiler.programs.facts import HelperSource, ProgramIssue
from llmcompiler.programs.names import (
    module_name,
    nearest_name,
)
from llmcompiler.programs.shape import ShapeCheck
from llmcompiler.programs.statements import (
    Attempt,
    Choose,
    Exit,
    Loop,
    Statement,
    Turn,
)


class Lowering(ExpressionLowering):
    """Lowers a program statement by statement; see ``NameTable`` for its arguments."""

    def lower(self, node: ast.stmt) -> list[Statement]:
        """Lower one statement of the program's top level.

        Raises:
            ProgramIssue: it is not in the subset.
        """
        ShapeCheck().check(node)
        return self._block([node], top=True)

    # Statements.

    def _block(self, nodes: Sequence[ast.stmt], *, top: bool = False) -> list[Statement]:
        outer, self._out = self._out, []
        try:
            for node in nodes:
                self._statement(node, top=top)
            return self._out
        finally:
            self._out = outer

    def _statement(self, node: ast.stmt, *, top: bool) -> None:
        match node:
            case ast.FunctionDef() if not top:
                raise ProgramIssue(
                    "E503",
                    "a helper function inside another block",
                    node,
                    "define it at the top of the program",
                )
            case ast.FunctionDef():
                self._define(node)
            case ast.Import() | ast.ImportFrom():
                self._import(node)
            case ast.If() | ast.For() | ast.While() | ast.Try():
                self._compound(node)
            case ast.Break():
                self._emit(Exit(node.lineno, kind="break"))
            case ast.Continue():
                self._emit(Exit(node.lineno, kind="continue"))
            case ast.Return():
                result = self._expr(node.value) if node.value is not None else None
                self._emit(Exit(node.lineno, kind="return", value=result))
            case _:
                self._simple(node)

    def _simple(self, node: ast.stmt) -> None:
        match node:
            case ast.AnnAssign(value=None) | ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                assign = ast.Assign(targets=[target], value=value, lineno=node.lineno)
                self._assign(ast.copy_location(assign, node))
            case ast.Assign():
                self._assign(node)
            case ast.AugAssign():
                self._augment(node)
            case ast.Expr(value=expression):
                self._evaluate(expression, node)
            case ast.Assert():
                self._assert(node)
            case _:
                raise AssertionError(f"the shape check let {type(node).__name__} pass")

    def _compound(self, node: ast.If | ast.For | ast.While | ast.Try) -> None:
        match node:
            case ast.If() if self._is_pure(node):
                self._pure(self._renamed_pure(node))
            case ast.If():
                test = self._expr(node.test)
                number = next(self._numbers)
                body, orelse = self._block(node.body), self._block(node.orelse)
                self._emit(Choose(node.lineno, number=number, test=test, body=body, orelse=orelse))
            case ast.For():
                self._for(node)
            case ast.While():
                self._while(node)
            case ast.Try():
                self._try(node)

    def _assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._check_target(target)
        if len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0]
            facts = self._tool_of(node.value)
            self._note_assigned(name.id, name)
            if facts is not None:
                assert isinstance(node.value, ast.Call)
                self._invoke(facts, node.value, name.id)
                return
        value = self._expr(node.value)
        if any(self._calls(target) for target in node.targets):
            value = self._keep(value)
        targets = [self._target(target) for target in node.targets]
        self._pure(ast.copy_location(ast.Assign(targets=targets, value=value), node))

    def _augment(self, node: ast.AugAssign) -> None:
        self._check_target(node.target)
        target, value = node.target, node.value
        if not self._calls(value) and not self._calls(target):
            place = self._target(target)
            assert isinstance(place, ast.Name | ast.Attribute | ast.Subscript)
            simple = ast.AugAssign(target=place, op=node.op, value=self._expr(value))
            self._pure(ast.copy_location(simple, node))
            return
        if isinstance(target, ast.Name):
            new = ast.AugAssign(target=target, op=node.op, value=self._expr(value))
            self._pure(ast.copy_location(new, node))
            return
        # CPython reads the old value before it computes the new one.
        assert isinstance(target, ast.Subscript | ast.Attribute)
        base = self._keep(self._expr(target.value))
        if isinstance(target, ast.Subscript):
            index = self._keep(self._expr(target.slice))
            place = ast.Subscript(value=base, slice=index, ctx=ast.Store())
            load: ast.expr = ast.Subscript(value=base, slice=index, ctx=ast.Load())
        else:
            place = ast.Attribute(value=base, attr=target.attr, ctx=ast.Store())
            load = ast.Attribute(value=base, attr=target.attr, ctx=ast.Load())
        old = self._keep(ast.copy_location(load, node))
        assert isinstance(old, ast.Name)
        result = self._expr(value)
        store = ast.Name(id=old.id, ctx=ast.Store())
        self._pure(ast.copy_location(ast.AugAssign(target=store, op=node.op, value=result), node))
        self._pure(ast.copy_location(ast.Assign(targets=[place], value=old), node))

    def _evaluate(self, value: ast.expr, node: ast.stmt) -> None:
        """An expression that stands alone."""
        match value:
            case ast.Call(func=ast.Name(id="print"), args=arguments) if "print" not in self.tools:
                for argument in arguments:
                    self._expr(argument)
                return
        facts = self._tool_of(value)
        if facts is not None:
            assert isinstance(value, ast.Call)
            self._invoke(facts, value, self._temporary())
            return
        pure = self._expr(value)
        if not isinstance(pure, ast.Name | ast.Constant):
            self._pure(ast.copy_location(ast.Expr(value=pure), node))

    def _assert(self, node: ast.Assert) -> None:
        test = self._expr(node.test)
        if node.msg is None or not self._calls(node.msg):
            message = self._expr(node.msg) if node.msg is not None else None
            self._pure(ast.copy_location(ast.Assert(test=test, msg=message), node))
            return
        outer, self._out = self._out, []
        message = self._expr(node.msg)
        failure = ast.Assert(test=ast.Constant(value=False), msg=message)
        self._pure(ast.copy_location(failure, node))
        body, self._out = self._out, outer
        negated = ast.copy_location(ast.UnaryOp(op=ast.Not(), operand=test), node)
        self._emit(Choose(node.lineno, number=0, test=negated, body=body, orelse=[]))

    def _for(self, node: ast.For) -> None:
        self._check_target(node.target)
        if self._is_pure(node):
            self._pure(self._renamed_pure(node))
            return
        source = self._expr(node.iter)
        self._each(node, source, node.target, lambda: self._block(node.body), node.orelse)

    def _while(self, node: ast.While) -> None:
        if self._is_pure(node):
            self._pure(self._renamed_pure(node))
            return
        number = next(self._numbers)
        self._loops += 1
        try:
            outer, self._out = self._out, []
            test = self._expr(node.test)
            done: list[Statement] = [Exit(node.lineno, kind="break")]
            stop: list[Statement] = []
            flag = self._temporary() if node.orelse else ""
            if flag:
                ended = ast.Assign(
                    targets=[ast.Name(id=flag, ctx=ast.Store())], value=ast.Constant(value=True)
                )
                outer_out, self._out = self._out, []
                self._pure(ast.copy_location(ended, node))
                stop, self._out = self._out, outer_out
            negated = ast.copy_location(ast.UnaryOp(op=ast.Not(), operand=test), node)
            self._emit(Choose(node.lineno, number=0, test=negated, body=[*stop, *done], orelse=[]))
            head, self._out = self._out, outer
            body = head + self._block(node.body)
        finally:
            self._loops -= 1
        if flag:
            start = ast.Assign(
                targets=[ast.Name(id=flag, ctx=ast.Store())], value=ast.Constant(value=False)
            )
            self._pure(ast.copy_location(start, node))
        self._emit(Loop(node.lineno, number=number, turn=Turn(node.lineno, body=body)))
        if flag:
            name = ast.copy_location(ast.Name(id=flag, ctx=ast.Load()), node)
            self._emit(
                Choose(node.lineno, number=0, test=name, body=self._block(node.orelse), orelse=[])
            )

    def _try(self, node: ast.Try) -> None:
        if len(node.handlers) != 1:
            raise ProgramIssue("E501", "a try needs one except ToolError", node)
        (handler,) = node.handlers
        if not (isinstance(handler.type, ast.Name) and handler.type.id == "ToolError"):
            raise ProgramIssue(
                "E501",
                "only except ToolError can be caught",
                handler,
                "write except ToolError as error: …; check other things with if",
            )
        name = handler.name
        if name is not None:
            self._note_assigned(name, handler)
        self._emit(
            Attempt(
                node.lineno,
                number=next(self._numbers),
                body=self._block(node.body),
                name=name,
                handler=self._block(handler.body),
                orelse=self._block(node.orelse),
                final=self._block(node.finalbody),
            )
        )

    # Helper functions and imports.

    def _define(self, node: ast.FunctionDef) -> None:
        if node.name in self.tools or node.name in self.helpers:
            raise ProgramIssue(
                "E503",
                f"{node.name} is the name of a tool or of another helper",
                node,
                "choose another name",
            )
        arguments = node.args
        if arguments.posonlyargs or arguments.kwonlyargs or arguments.vararg or arguments.kwarg:
            raise ProgramIssue(
                "E503",
                "a helper function takes plain parameters only",
                node,
                "leave out *, / and **",
            )
        if node.decorator_list:
            raise ProgramIssue("E503", "a helper function takes no decorator", node)
        for inner in ast.walk(node):
            if inner is not node and isinstance(inner, ast.FunctionDef):
                raise ProgramIssue(
                    "E503", "a function inside a function", inner, "define both at the top"
                )
            match inner:
                case ast.Call(func=ast.Name(id=name)) if name == node.name:
                    raise ProgramIssue("E503", f"{name} calls itself", inner, "use a loop instead")
        parameters = [argument.arg for argument in arguments.args]
        stored = {
            inner.id
            for inner in ast.walk(node)
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
        }
        names = {h.name for h in ast.walk(node) if isinstance(h, ast.ExceptHandler) and h.name}
        inlined = self._calls(node) or any(isinstance(inner, ast.Try) for inner in ast.walk(node))
        self.helpers[node.name] = HelperSource(
            node, inlined, frozenset({*parameters, *stored, *names})
        )

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name not in subset.MODULES:
                    raise ProgramIssue(
                        "E502",
                        f"the module {alias.name} cannot be imported",
                        node,
                        subset.HINTS["Import"],
                    )
                self._modules[alias.asname or alias.name] = module_name(alias.name)
            return
        module = subset.MODULES.get(node.module or "")
        if module is None or node.level:
            raise ProgramIssue(
                "E502",
                f"the module {node.module} cannot be imported",
                node,
                subset.HINTS["Import"],
            )
        for alias in node.names:
            if alias.name not in module.functions and alias.name not in module.constants:
                raise ProgramIssue(
                    "E502",
                    f"{node.module} has no {alias.name} here",
                    node,
                    nearest_name(alias.name, [*module.functions, *module.constants]),
                )
            assert node.module is not None
            value = ast.Attribute(value=module_name(node.module), attr=alias.name, ctx=ast.Load())
            self._modules[alias.asname or alias.name] = value
