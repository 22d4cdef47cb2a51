"""Checks of a program before any of it runs: do names, fields and arguments fit?

The checks follow a lowered program statement by statement, as it is written, and keep for each
variable what its value can be: by the result schemas of tools and by literals. They refuse only
what is bound to fail or can mean nothing, such as a record that is compared with a name. Where a
type is not known, any use is right.

They go through both blocks of a condition, and through the body of a loop until its variables'
types stay as they are. So a finding holds for every way through the program.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence

from llmcompiler.programs.argument_checks import ArgumentChecks
from llmcompiler.programs.findings import Binding, Environment, Finding, equal, merge
from llmcompiler.programs.statements import (
    Attempt,
    Choose,
    Compute,
    Each,
    Exit,
    Inline,
    Invoke,
    Loop,
    Statement,
    Turn,
)
from llmcompiler.programs.value_types import NOTHING, Items, Type, union
from llmcompiler.tools.base import Tool

_PASSES = 3
"""How often the body of a loop is looked at for its types; types that still change are unknown."""

_MAX_LOOPS = 3
"""Loops inside each other whose types are followed; deeper ones change their variables freely."""


class ProgramChecks(ArgumentChecks):
    """Checks a program; one instance serves one program.

    Args:
        tools: what the program may call, by the name that it spells.
        helpers: its helper functions, by name.
        inputs: names that have a value at the start.
        lines: gives the lines of its text.
    """

    def __init__(
        self,
        tools: Mapping[str, Tool],
        helpers: Mapping[str, object],
        inputs: Iterable[str],
        lines: Callable[[], Sequence[str]],
    ) -> None:
        super().__init__(tools, helpers, inputs, lines)
        self._is_live = True
        self._last_env: Environment = {}
        self._breaks: list[list[Environment]] = []
        self._continues: list[list[Environment]] = []
        self._returns: list[list[tuple[Type, Environment]]] = []

    def check(self, statements: Sequence[Statement]) -> list[Finding]:
        """What is wrong with the next statements of the program."""
        self._statements(statements)
        return self.take()

    def snapshot(self) -> Environment:
        """What is known of variables, to be restored if a statement is refused."""
        return dict(self.env)

    def restore(self, env: Environment) -> None:
        """Forget a statement that was refused."""
        self.env = dict(env)
        self._is_live = True

    # Lowered statements.

    def _statements(self, statements: Iterable[Statement]) -> None:
        for statement in statements:
            self._statement(statement)

    def _statement(self, statement: Statement) -> None:
        match statement:
            case Compute(nodes=nodes):
                for node in nodes:
                    self._node(node)
            case Invoke():
                self.env[statement.target] = Binding(self.invoked(statement))
            case Choose():
                self._choose(
                    statement.test,
                    lambda: self._statements(statement.body),
                    lambda: self._statements(statement.orelse),
                )
            case Each():
                source = self.typed(statement.source)

                def turn() -> None:
                    item = self.elements(source, statement.source)
                    self.env[statement.item] = Binding(item)
                    self._statements(statement.turn.body)

                self._loop(turn, lambda: self._statements(statement.orelse), is_endless=False)
            case Loop():
                self._loop(
                    lambda: self._statements(statement.turn.body), lambda: None, is_endless=True
                )
            case Turn():
                self._statements(statement.body)
            case Attempt():
                self._attempt(statement)
            case Inline():
                self._inline(statement)
            case Exit():
                self._exit(statement)

    def _exit(self, statement: Exit) -> None:
        typed = self.typed(statement.value) if statement.value is not None else NOTHING
        ends: list[list[Environment]] = {"break": self._breaks, "continue": self._continues}.get(
            statement.kind, []
        )
        if ends:
            ends[-1].append(self.env)
        elif statement.kind == "return" and self._returns:
            self._returns[-1].append((typed, self.env))
        self._leave()

    def _leave(self) -> None:
        self._is_live = False
        self.env = dict(self.env)

    def _inline(self, statement: Inline) -> None:
        self._returns.append([])
        end = self._branch(lambda: self._statements(statement.body))
        returns = self._returns.pop()
        types = [typed for typed, _ in returns] + ([NOTHING] if end is not None else [])
        self._go_on([end, *(env for _, env in returns)])
        self.env[statement.result] = Binding(union(*types) if types else None)

    def _attempt(self, statement: Attempt) -> None:
        before = self.env

        def body() -> None:
            self._statements(statement.body)
            if self._is_live:
                self._statements(statement.orelse)

        after = self._branch(body)
        written = {
            name
            for name, binding in self._last_env.items()
            if name not in before or before[name] != binding
        }
        at_failure = dict(before)
        for name in written:
            at_failure[name] = Binding(None, name not in before)
        if statement.name is not None:
            at_failure[statement.name] = Binding(None)
        self.env = at_failure
        handled = self._branch(lambda: self._statements(statement.handler))
        self.env = before
        self._go_on([after, handled])
        self._statements(statement.final)

    # Syntax without calls of tools.

    def _node(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign():
                value = self.typed(node.value)
                for target in node.targets:
                    self.bind(target, value)
            case ast.AugAssign():
                self._augment(node)
            case ast.Expr(value=value_node):
                self.typed(value_node)
            case ast.Assert():
                self.typed(node.test)
                if node.msg is not None:
                    self.typed(node.msg)
                self.env = dict(self.narrowed(node.test, True))
            case ast.If():
                self._choose(
                    node.test, lambda: self._nodes(node.body), lambda: self._nodes(node.orelse)
                )
            case ast.For():
                source = self.typed(node.iter)

                def turn() -> None:
                    self.bind(node.target, self.elements(source, node.iter))
                    self._nodes(node.body)

                self._loop(turn, lambda: self._nodes(node.orelse), is_endless=False)
            case ast.While():
                self._while(node)
            case ast.Break():
                self._breaks[-1].append(self.env)
                self._leave()
            case ast.Continue():
                self._continues[-1].append(self.env)
                self._leave()

    def _nodes(self, nodes: Iterable[ast.stmt]) -> None:
        for node in nodes:
            self._node(node)

    def _while(self, node: ast.While) -> None:
        is_endless = _truth(node.test) is True

        def turn() -> None:
            self.typed(node.test)
            self.env = dict(self.narrowed(node.test, True))
            self._nodes(node.body)

        self._loop(turn, lambda: self._nodes(node.orelse), is_endless=is_endless)

    def _augment(self, node: ast.AugAssign) -> None:
        target = node.target
        load: ast.expr = ast.copy_location(
            ast.Name(id=target.id, ctx=ast.Load())
            if isinstance(target, ast.Name)
            else ast.Subscript(value=target.value, slice=target.slice, ctx=ast.Load())
            if isinstance(target, ast.Subscript)
            else ast.Attribute(value=target.value, attr=target.attr, ctx=ast.Load()),
            target,
        )
        old, value = self.typed(load), self.typed(node.value)
        mutable = [alt for alt in old or () if isinstance(alt, Items) and alt.kind != "tuple"]
        if mutable and old is not None and len(mutable) == len(old):
            # Changed in place, so for all names of the list; it takes any collection.
            added = self.elements(value, node.value)
            for alt in mutable:
                alt.item = union(alt.item, added)
            return
        result = self.binary(old, node.op, value, node)
        if isinstance(target, ast.Name):
            self.env[target.id] = Binding(result)
        else:
            self.bind(target, result)

    # Ways through the program.

    def _branch(self, run: Callable[[], None]) -> Environment | None:
        """What is known behind a block; ``None`` if nothing comes out of its end."""
        env, is_live = self.env, self._is_live
        self.env, self._is_live = dict(env), True
        run()
        self._last_env = self.env
        out = self.env if self._is_live else None
        self.env, self._is_live = env, is_live
        return out

    def _go_on(self, envs: Iterable[Environment | None]) -> None:
        """Go on with what all ways to this place have in common."""
        live = [env for env in envs if env is not None]
        if live:
            self.env = merge(live)
        else:
            self._leave()

    def _choose(self, test: ast.expr, body: Callable[[], None], orelse: Callable[[], None]) -> None:
        self.typed(test)
        possible = _truth(test)
        before = self.env
        ends: list[Environment | None] = []
        for truth, block in ((True, body), (False, orelse)):
            if possible in (None, truth):
                self.env = self.narrowed(test, truth)
                ends.append(self._branch(block))
                self.env = before
        self._go_on(ends)

    def _loop(
        self, turn: Callable[[], None], orelse: Callable[[], None], *, is_endless: bool
    ) -> None:
        """A loop: ``turn`` binds the element and runs the body.

        Args:
            turn: one pass.
            orelse: what follows a loop that ends by itself.
            is_endless: True if only ``break`` ends it.
        """
        start = self.env
        passes = _PASSES if len(self._breaks) < _MAX_LOOPS else 1
        is_stable = False
        with self.silence():
            for _ in range(passes):
                ends, _ = self._turn(start, turn)
                wider = merge([start, *ends]) if ends else start
                is_stable = equal(wider, start)
                start = wider
                if is_stable:
                    break
        if not is_stable:
            possible = self.env
            start = {
                name: binding if possible.get(name) == binding else Binding(None, binding.maybe)
                for name, binding in start.items()
            }
        ends, breaks = self._turn(start, turn)
        self.env = merge([self.env, *ends]) if ends else dict(self.env)
        end = None if is_endless else self._branch(orelse)
        self._go_on([end, *breaks])

    def _turn(
        self, start: Environment, turn: Callable[[], None]
    ) -> tuple[list[Environment], list[Environment]]:
        """What is known behind a pass, and where it leaves the loop."""
        before, self.env = self.env, start
        self._breaks.append([])
        self._continues.append([])
        end = self._branch(turn)
        breaks, continues = self._breaks.pop(), self._continues.pop()
        self.env = before
        return [*([end] if end is not None else []), *continues], breaks


def _truth(test: ast.expr) -> bool | None:
    """Whether a condition is always true, or always false; ``None`` if it depends."""
    match test:
        case ast.Constant(value=value):
            return bool(value)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            inner = _truth(operand)
            return None if inner is None else not inner
    return None
