"""Runs a lowered program as data allows. Pure: no clock, no asyncio, no tools.

The machine is told statements as they are written, and how calls ended; it says which calls to
start. It issues statements in the program's order, but a statement *starts* when the variables
that it reads have values, whatever stands before it, as in a processor that executes out of order:

1. A variable's value is a *slot*. Each assignment makes a new slot, so a later assignment never
   disturbs an earlier reader.
2. A statement that changes a value in place waits for earlier statements that read a value of its
   alias class, and later ones wait for it (see ``analysis``).
3. A condition chooses its block when its test has a value. Statements behind it do not wait, unless
   it may leave the block that they stand in.
4. Iterations open together, unless one may leave the loop. A variable that the next iteration needs
   is passed on as a slot.
5. Statements *retire* in the program's order. A failure counts when its statement is the first
   that has not retired, so the failure of a program is that of CPython. A call that writes waits
   until everything before it has succeeded. A change in place inside a ``try`` waits for everything
   before it in that ``try``.
"""

from __future__ import annotations

import ast
from typing import Any

from llmcompiler.programs.commands import (
    Decided,
    StartCall,
    ToolFailed,
)
from llmcompiler.programs.helper import CompiledCode
from llmcompiler.programs.issued import (
    NO_VALUE,
    BlockScope,
    Environment,
    IssuedNode,
    Slot,
)
from llmcompiler.programs.machine_core import MachineCore, copy_value
from llmcompiler.programs.meter import CodeError, as_code_error, weigh
from llmcompiler.programs.statements import (
    Attempt,
    Choose,
    Compute,
    Each,
    Exit,
    ExitKind,
    Inline,
    Invoke,
    Loop,
    Statement,
    Turn,
)
from llmcompiler.programs.values import UNBOUND


class Machine(MachineCore):
    """Runs one program; see ``MachineCore`` for its arguments."""

    # Starting.

    def _start(self, node: IssuedNode) -> None:
        statement = node.statement
        try:
            match statement:
                case Compute() | Invoke() if not self._may_start(node):
                    node.state = "parked"
                case Compute():
                    self._compute(node, statement)
                case Invoke():
                    self._call(node, statement)
                case Choose():
                    self._choose(node, statement)
                case Exit():
                    self._leave(node, statement)
                case Each():
                    self._open_each(node, statement)
                case Loop():
                    node.state = "open"
                    node.carry = dict(node.env)
                    self._sequence(node)
                    self._next_turn(node)
                case Turn():
                    node.state = "open"
                    index = (*node.scope.index, node.turns)
                    self._issue(self._inner(node, statement.body, dict(node.env), index=index))
                case Inline():
                    node.state = "open"
                    env = {**node.env, statement.result: Slot(None, ready=True)}
                    self._issue(self._inner(node, statement.body, env))
                case Attempt():
                    node.state = "open"
                    node.phase = "body"
                    self._issue(self._inner(node, statement.body, dict(node.env), guarded=True))
        except CodeError as error:
            self._fail(node, error)

    def _compute(self, node: IssuedNode, statement: Compute) -> None:
        code: CompiledCode | None = self._compiled.get(statement)
        if code is None:
            code = self._compiled[statement] = self._compiler.block(statement.nodes)
        values = _values(node.env)
        self._meter.reset()
        code(values)
        for name, slot in node.outs.items():
            self._assign(slot, values.get(name, UNBOUND))
        self._finish(node)

    def _call(self, node: IssuedNode, statement: Invoke) -> None:
        compiled = self._compiled.get(statement)
        if compiled is None:
            compiled = self._compiled[statement] = (
                [self._compiler.expression(value) for value in statement.args],
                [(name, self._compiler.expression(value)) for name, value in statement.kwargs],
            )
        values = _values(node.env)
        self._meter.reset()
        try:
            args = [code(values) for code in compiled[0]]
            kwargs = {name: code(values) for name, code in compiled[1]}
            weigh(self._meter, *args, *kwargs.values())
            args = [copy_value(value) for value in args]
            kwargs = {name: copy_value(value) for name, value in kwargs.items()}
        except Exception as error:  # noqa: BLE001
            raise _located(error, statement.line) from None
        node.state = "running"
        index = node.scope.index
        self._calls[statement.site, index] = node
        self._commands.append(StartCall(statement.site, index, statement.tool, args, kwargs))

    def _test(self, statement: Statement, expression: ast.expr, node: IssuedNode) -> Any:
        code = self._compiled.get(statement)
        if code is None:
            code = self._compiled[statement] = self._compiler.expression(expression)
        self._meter.reset()
        try:
            return code(_values(node.env))
        except Exception as error:  # noqa: BLE001
            raise _located(error, statement.line) from None

    def _choose(self, node: IssuedNode, statement: Choose) -> None:
        is_true = bool(self._test(statement, statement.test, node))
        if statement.number:
            decided = Decided(statement.number, node.scope.index, is_true, statement.line)
            self._commands.append(decided)
        node.state = "open"
        block = statement.body if is_true else statement.orelse
        self._issue(self._inner(node, block, dict(node.env)))

    def _leave(self, node: IssuedNode, statement: Exit) -> None:
        value = None
        if statement.value is not None:
            value = self._test(statement, statement.value, node)
        self._finish(node)
        self._end(node.scope, (statement.kind, value))

    # Loops.

    def _open_each(self, node: IssuedNode, statement: Each) -> None:
        source = self._test(statement, statement.source, node)
        if type(source) is range and len(source) > self._max_iterations:
            raise self._too_many(statement.line)
        items: list[Any] = []
        try:
            iterator = iter(source)
            if not statement.in_order:
                for item in iterator:
                    items.append(item)
                    if len(items) > self._max_iterations:
                        raise self._too_many(statement.line)
        except CodeError:
            raise
        except Exception as error:  # noqa: BLE001
            raise _located(error, statement.line) from None
        node.state = "open"
        node.phase = "turns"
        node.carry = dict(node.env)
        self._sequence(node)
        if statement.in_order:
            node.iterator = iterator
            self._next_turn(node)
            return
        # The value of a variable behind the loop is that of the last iteration.
        last = len(items) - 1
        for number, item in enumerate(items):
            keep = statement.turn.writes if number == last else statement.carried
            self._open_turn(node, statement.turn, {statement.item: Slot(item, ready=True)}, keep)
        self._end_loop(node, None)

    def _too_many(self, line: int) -> CodeError:
        return CodeError(
            "LimitReached",
            f"a loop has more than {self._max_iterations:,} iterations (limit loop_iterations)",
            line,
        )

    def _sequence(self, node: IssuedNode) -> BlockScope:
        """The scope whose statements are a loop's iterations."""
        scope = self._inner(node, (), {})
        scope.closed = False
        return scope

    def _open_turn(
        self, node: IssuedNode, turn: Turn, extra: Environment, keep: frozenset[str]
    ) -> IssuedNode:
        scope = node.child
        assert scope is not None
        before = dict(node.carry) if scope.guarded else None
        inner = self._create(turn, scope, {**node.carry, **extra})
        inner.before = before
        inner.turns = node.turns
        node.turns += 1
        for name in keep:
            inner.outs[name] = node.carry[name] = Slot()
        return inner

    def _next_turn(self, node: IssuedNode) -> None:
        """Open the next iteration of a loop that goes in order."""
        statement = node.statement
        assert isinstance(statement, Each | Loop)
        if node.turns >= self._max_iterations:
            self._fail(node, self._too_many(statement.line))
            return
        extra: Environment = {}
        if isinstance(statement, Each):
            try:
                item = next(node.iterator)
            except StopIteration:
                self._end_loop(node, None)
                return
            except Exception as error:  # noqa: BLE001
                self._fail(node, _located(error, statement.line))
                return
            extra = {statement.item: Slot(item, ready=True)}
        self._open_turn(node, statement.turn, extra, frozenset())

    def _turn_ended(
        self, node: IssuedNode, turn: IssuedNode, leaving: tuple[ExitKind, Any] | None
    ) -> None:
        """The body of an iteration is issued as far as it will be."""
        statement = node.statement
        assert isinstance(statement, Each | Loop)
        if isinstance(statement, Each) and not statement.in_order:
            return
        assert turn.child is not None
        for name in statement.writes:
            if name in turn.child.env:
                node.carry[name] = turn.child.env[name]
        if leaving is not None and leaving[0] != "continue":
            self._end_loop(node, leaving)
        elif not (isinstance(statement, Each) and statement.changes_source):
            self._next_turn(node)

    def _end_loop(self, node: IssuedNode, leaving: tuple[ExitKind, Any] | None) -> None:
        """No further iteration opens."""
        statement = node.statement
        scope = node.child
        assert scope is not None
        if isinstance(statement, Each) and statement.orelse and leaving is None:
            # The else block is one more statement behind the iterations.
            block = Turn(statement.line, body=statement.orelse)
            _sum_up(block)
            inner = self._create(block, scope, dict(node.carry))
            inner.before = dict(node.carry) if scope.guarded else None
            inner.phase = "else"
            for name in block.writes:
                inner.outs[name] = node.carry[name] = Slot()
            scope.blocked = True
            return
        self._close_loop(node, leaving if leaving is not None and leaving[0] == "return" else None)

    def _close_loop(self, node: IssuedNode, leaving: tuple[ExitKind, Any] | None) -> None:
        scope = node.child
        assert scope is not None
        scope.ended = True
        for name, slot in node.outs.items():
            self._link(slot, node.carry.get(name, NO_VALUE))
        node.exit = leaving
        self._left(node, leaving)
        if scope.open == 0:
            self._complete(scope)

    # Attempts.

    def _attempt_failed(
        self,
        node: IssuedNode,
        statement: Attempt,
        error: tuple[CodeError | ToolFailed, int],
        env: Environment,
    ) -> None:
        environment = {**node.env, **env}
        if node.phase == "body" and isinstance(error[0], ToolFailed):
            node.phase = "handler"
            if statement.name is not None:
                environment[statement.name] = Slot(error[0].message, ready=True)
            self._issue(self._inner(node, statement.handler, environment, guarded=True))
            return
        if statement.final and node.phase != "final":
            node.phase = "final"
            node.pending_error = error
            self._issue(self._inner(node, statement.final, environment, guarded=True))
            return
        node.error = error
        node.state = "failed"
        if node.scope.nodes and node.scope.nodes[0] is node:
            self._fail_scope(node.scope, node, env)

    def _attempt_ended(self, node: IssuedNode, statement: Attempt, scope: BlockScope) -> None:
        """A block of a ``try`` has ended well: the next one follows."""
        env = dict(scope.env)
        if node.phase == "body" and scope.exit is None and statement.orelse:
            node.phase = "else"
            self._issue(self._inner(node, statement.orelse, env, guarded=True))
            return
        if node.phase == "handler" and statement.name is not None:
            env[statement.name] = NO_VALUE
        if node.phase != "final":
            node.exit = scope.exit
            if statement.final:
                node.phase = "final"
                self._issue(self._inner(node, statement.final, env, guarded=True))
                return
        elif node.pending_error is not None and scope.exit is None:
            node.error = node.pending_error
            node.state = "failed"
            if node.scope.nodes and node.scope.nodes[0] is node:
                self._fail_scope(node.scope, node, env)
            return
        elif scope.exit is not None:
            node.exit = scope.exit
        for name, slot in node.outs.items():
            self._link(slot, env.get(name, NO_VALUE))
        leaving = node.exit
        self._left(node, leaving)
        self._finish(node)


def _values(env: Environment) -> dict[str, Any]:
    return {name: slot.value for name, slot in env.items() if slot.value is not UNBOUND}


def _located(error: Exception, line: int) -> CodeError:
    if isinstance(error, CodeError):
        return error
    return as_code_error(error, line)


def _sum_up(turn: Turn) -> None:
    """What an else block of a loop needs, from what its statements need."""
    turn.captures = frozenset(name for inner in turn.body for name in inner.captures | inner.writes)
    turn.writes = frozenset(name for inner in turn.body for name in inner.writes)
    turn.touches = frozenset(number for inner in turn.body for number in inner.touches)
    turn.mutates = frozenset(number for inner in turn.body for number in inner.mutates)
    turn.exits = frozenset(kind for inner in turn.body for kind in inner.exits)
