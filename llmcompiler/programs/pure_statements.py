"""Pure statements: those without a call of a tool, compiled to closures."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from llmcompiler.programs.helper import CompiledCode, Env
from llmcompiler.programs.meter import (
    BreakLoop,
    CodeError,
    ContinueLoop,
    ReturnValue,
    as_code_error,
)
from llmcompiler.programs.operators import IN_PLACE_OPERATORS
from llmcompiler.programs.pure_expressions import ExpressionCompiler


class PureCompiler(ExpressionCompiler):
    """Compiles pure statements, and the expressions in them."""

    def block(self, statements: Sequence[ast.stmt]) -> CompiledCode:
        """Compile statements that hold no call of a tool."""
        codes = [self.statement(node) for node in statements]
        if len(codes) == 1:
            return codes[0]

        def run(env: Env) -> None:
            for code in codes:
                code(env)

        return run

    def statement(self, node: ast.stmt) -> CompiledCode:
        """Compile one statement that holds no call of a tool."""
        code: CompiledCode = getattr(self, f"_do_{type(node).__name__.lower()}")(node)
        line = node.lineno

        def run(env: Env) -> None:
            try:
                code(env)
            except (CodeError, BreakLoop, ContinueLoop, ReturnValue):
                raise
            except Exception as error:  # noqa: BLE001
                raise as_code_error(error, line) from None

        return run

    def _do_assign(self, node: ast.Assign) -> CompiledCode:
        value = self.expression(node.value)
        targets = [self.target(target) for target in node.targets]
        if len(targets) == 1:
            (only,) = targets
            return lambda env: only(env, value(env))

        def assign(env: Env) -> None:
            result = value(env)
            for assign_target in targets:
                assign_target(env, result)

        return assign

    def _do_augassign(self, node: ast.AugAssign) -> CompiledCode:
        function = IN_PLACE_OPERATORS[type(node.op)]
        right = self.expression(node.value)
        if isinstance(node.target, ast.Name):
            load, store = self._name(node.target), self.target(node.target)
            change = self.binary(function, node.op, load, right)
            return lambda env: store(env, change(env))
        place = node.target
        assert isinstance(place, ast.Subscript | ast.Attribute)
        base = self.expression(place.value)
        key: CompiledCode
        if isinstance(place, ast.Subscript):
            key = self.expression(place.slice)
        else:
            name = place.attr
            key = lambda env: name  # noqa: E731
        op = node.op

        def update(env: Env) -> None:
            owner = base(env)
            index = key(env)
            if isinstance(place, ast.Attribute) and type(owner) is not dict:
                raise AttributeError(f"'{type(owner).__name__}' has no field '{index}'")
            old = owner[index]
            owner[index] = self.binary(function, op, lambda _: old, right)(env)

        return update

    def _do_expr(self, node: ast.Expr) -> CompiledCode:
        return self.expression(node.value)

    def _do_pass(self, node: ast.Pass) -> CompiledCode:
        return lambda env: None

    def _do_assert(self, node: ast.Assert) -> CompiledCode:
        test = self.expression(node.test)
        message = self.expression(node.msg) if node.msg is not None else None

        def check(env: Env) -> None:
            if not test(env):
                raise AssertionError(message(env)) if message is not None else AssertionError()

        return check

    def _do_if(self, node: ast.If) -> CompiledCode:
        test, body = self.expression(node.test), self.block(node.body)
        orelse = self.block(node.orelse) if node.orelse else None

        def choose(env: Env) -> None:
            if test(env):
                body(env)
            elif orelse is not None:
                orelse(env)

        return choose

    def _do_for(self, node: ast.For) -> CompiledCode:
        source, assign = self.expression(node.iter), self.target(node.target)
        body = self.block(node.body)
        orelse = self.block(node.orelse) if node.orelse else None

        def loop(env: Env) -> None:
            for item in source(env):
                self.meter.step()
                assign(env, item)
                try:
                    body(env)
                except BreakLoop:
                    return
                except ContinueLoop:
                    continue
            if orelse is not None:
                orelse(env)

        return loop

    def _do_while(self, node: ast.While) -> CompiledCode:
        test, body = self.expression(node.test), self.block(node.body)
        orelse = self.block(node.orelse) if node.orelse else None

        def loop(env: Env) -> None:
            while test(env):
                self.meter.step()
                try:
                    body(env)
                except BreakLoop:
                    return
                except ContinueLoop:
                    continue
            if orelse is not None:
                orelse(env)

        return loop

    def _do_break(self, node: ast.Break) -> CompiledCode:
        def stop(env: Env) -> None:
            raise BreakLoop

        return stop

    def _do_continue(self, node: ast.Continue) -> CompiledCode:
        def go_on(env: Env) -> None:
            raise ContinueLoop

        return go_on

    def _do_return(self, node: ast.Return) -> CompiledCode:
        value = self.expression(node.value) if node.value is not None else None

        def leave(env: Env) -> None:
            raise ReturnValue(value(env) if value is not None else None)

        return leave
