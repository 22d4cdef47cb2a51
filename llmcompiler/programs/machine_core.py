"""The wheel of the machine: issuing, retiring and failing, for every kind of statement."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from llmcompiler.events import Index
from llmcompiler.programs.alias_flow import scoped
from llmcompiler.programs.aliases import Aliases
from llmcompiler.programs.analysis import renumber_classes
from llmcompiler.programs.commands import (
    Closed,
    Command,
    DropCall,
    Ended,
    ToolFailed,
)
from llmcompiler.programs.facts import HelperSource
from llmcompiler.programs.helper import CompiledCode, Helper
from llmcompiler.programs.issued import (
    NO_VALUE,
    BlockScope,
    Environment,
    IssuedNode,
    Slot,
    TouchOrder,
)
from llmcompiler.programs.meter import CodeError, LimitExceeded, Meter, as_code_error, weigh
from llmcompiler.programs.pure_statements import PureCompiler
from llmcompiler.programs.statements import (
    Attempt,
    Each,
    ExitKind,
    Inline,
    Invoke,
    Loop,
    Statement,
    Turn,
    walk,
)
from llmcompiler.programs.values import UNBOUND


class MachineCore:
    """Runs one program.

    Args:
        helpers: the program's helper functions, filled while it is read.
        inputs: values that variables have at the start.
        meter: bounds of pure code.
        max_iterations: most iterations of one loop.
        aliases: which values may be one object; ``None`` for a program that changes none in place.
    """

    def __init__(
        self,
        helpers: Mapping[str, HelperSource],
        inputs: Mapping[str, Any] | None = None,
        *,
        meter: Meter | None = None,
        max_iterations: int = 100_000,
        aliases: Aliases | None = None,
    ) -> None:
        self._sources = helpers
        self._meter = meter or Meter()
        self._max_iterations = max_iterations
        self._aliases = aliases
        self._unions = 0
        self._functions: dict[str, Helper] = {}
        self._compiler = PureCompiler(self._meter, self._functions)
        self._compiled: dict[Statement, Any] = {}
        env = {name: Slot(value, ready=True) for name, value in (inputs or {}).items()}
        self._statements: list[Statement] = []
        self._top = BlockScope(
            self._statements, None, env, TouchOrder(keep_all=True), (), None, guarded=False
        )
        self._top.closed = False
        self._ready: deque[IssuedNode] = deque()
        self._set: deque[Slot] = deque()
        self._calls: dict[tuple[int, Index], IssuedNode] = {}
        self._commands: list[Command] = []
        self._count = 0
        self.ended: Ended | None = None
        """How the program ended; ``None`` while it runs."""

    # What the caller tells.

    def add(self, statements: Sequence[Statement]) -> None:
        """Take in further statements of the top level."""
        self._define_helpers()
        self._statements.extend(statements)
        self._issue(self._top)
        self._run()

    def close(self) -> None:
        """The program's text has ended."""
        self._top.closed = True
        self._issue(self._top)
        self._run()

    def returned(self, site: int, index: Index, value: Any) -> None:
        """A call returned."""
        node = self._calls.pop((site, index), None)
        if node is None:
            return
        self._assign(node.outs[_target(node)], copy_value(value))
        self._finish(node)
        self._run()

    def failed(self, site: int, index: Index, failure: ToolFailed) -> None:
        """A call failed for good."""
        node = self._calls.pop((site, index), None)
        if node is not None:
            self._fail(node, failure)
            self._run()

    def take(self) -> list[Command]:
        """What follows from what was told."""
        commands, self._commands = self._commands, []
        return commands

    @property
    def waiting(self) -> int:
        """How many calls have started and not ended."""
        return len(self._calls)

    # Turning the wheel.

    def _run(self) -> None:
        ready, values = self._ready, self._set
        while ready or values:
            self._spread()
            if ready:
                node = ready.popleft()
                if self.ended is not None:
                    continue
                if node.state == "waiting":
                    self._start(node)
                elif node.state == "settling":
                    self._finish(node)

    def _spread(self) -> None:
        """Hand values on to what waits for them."""
        values = self._set
        while values:
            slot = values.popleft()
            waiters, slot.waiters = slot.waiters, []
            for waiter in waiters:
                if isinstance(waiter, Slot):
                    self._assign(waiter, slot.value)
                else:
                    self._count_down(waiter)

    def _count_down(self, node: IssuedNode) -> None:
        node.missing -= 1
        if node.missing == 0:
            self._ready.append(node)

    def _assign(self, slot: Slot, value: Any) -> None:
        slot.value = value
        slot.ready = True
        if slot.waiters:
            self._set.append(slot)

    def _link(self, slot: Slot, source: Slot) -> None:
        if source.ready:
            self._assign(slot, source.value)
        else:
            source.waiters.append(slot)

    # Issuing.

    def _issue(self, scope: BlockScope) -> None:
        while scope.position < len(scope.block) and not scope.blocked and not scope.ended:
            statement = scope.block[scope.position]
            scope.position += 1
            if statement.exits:
                scope.blocked = True
            if scope is self._top and self._aliases is not None:
                self._renumber(statement, self._aliases)
            self._create(statement, scope)
        if scope.position == len(scope.block) and scope.closed and not scope.blocked:
            self._end(scope, None)

    def _renumber(self, statement: Statement, aliases: Aliases) -> None:
        """A statement of the top level and those before it name alias classes alike."""
        renumber_classes([statement], aliases)
        if aliases.unions != self._unions:
            self._unions = aliases.unions
            self._top.order.renumber(aliases.find)

    def _create(
        self, statement: Statement, scope: BlockScope, env: Environment | None = None
    ) -> IssuedNode:
        self._count += 1
        node = IssuedNode(statement, scope, self._count)
        environment = scope.env if env is None else env
        node.env = {name: environment[name] for name in statement.captures if name in environment}
        if scope.guarded:
            node.before = dict(scope.env)
        scope.nodes.append(node)
        scope.open += 1
        missing = 0
        for name in statement.reads:
            slot = node.env.get(name)
            if slot is not None and not slot.ready:
                slot.waiters.append(node)
                missing += 1
        if statement.touches:
            order = scope.order
            if statement.blocks:
                node.base = order.part(statement.touches)
            for earlier in order.before(
                statement.starts_with, statement.mutates if not statement.blocks else frozenset()
            ):
                if earlier.waiters is None:
                    earlier.waiters = []
                earlier.waiters.append(node)
                missing += 1
            if order.keep_all:
                order.enter(node, None)
            elif scope.tracked:
                order.enter(node, scope.tracked)
        if env is None:
            for name in statement.writes:
                node.outs[name] = scope.env[name] = Slot()
        node.missing = missing
        if missing == 0:
            self._ready.append(node)
        return node

    def _inner(
        self,
        node: IssuedNode,
        block: Sequence[Statement],
        env: Environment,
        *,
        guarded: bool | None = None,
        index: Index | None = None,
    ) -> BlockScope:
        order = node.base if node.base is not None else TouchOrder()
        if isinstance(node.statement, Attempt):
            # A block that failed leaves statements that never end; its handler starts afresh.
            order = order.part(node.statement.touches)
        scope = BlockScope(
            block,
            node,
            env,
            order,
            node.scope.index if index is None else index,
            node.statement.mutates,
            guarded=node.scope.guarded if guarded is None else guarded,
        )
        node.child = scope
        return scope

    # Ends of blocks.

    def _end(self, scope: BlockScope, leaving: tuple[ExitKind, Any] | None) -> None:
        """All of a block is issued, or it was left."""
        if scope.ended:
            return
        scope.ended = True
        scope.exit = leaving
        node = scope.node
        if node is None:
            if scope.open == 0:
                self._complete(scope)
            return
        statement = node.statement
        if isinstance(statement, Attempt):
            if scope.open == 0:
                self._complete(scope)
            return
        if isinstance(statement, Inline):
            result = leaving[1] if leaving is not None else None
            scope.env[statement.result] = Slot(result, ready=True)
            leaving = None
        for name, slot in node.outs.items():
            self._link(slot, scope.env.get(name, NO_VALUE))
        node.exit = leaving
        if isinstance(statement, Turn):
            loop = node.scope.node
            assert loop is not None
            if node.phase == "else":
                self._close_loop(loop, leaving)
            else:
                self._turn_ended(loop, node, leaving)
        else:
            self._left(node, leaving)
        if scope.open == 0:
            self._complete(scope)

    def _left(self, node: IssuedNode, leaving: tuple[ExitKind, Any] | None) -> None:
        """A compound statement says whether it leaves the block around it."""
        scope = node.scope
        if not node.statement.exits:
            return
        scope.blocked = False
        if leaving is not None:
            self._end(scope, leaving)
        else:
            self._issue(scope)

    def _complete(self, scope: BlockScope) -> None:
        """Every statement of a block has ended well."""
        if scope.failed:
            return
        node = scope.node
        if node is None:
            self._succeed(scope)
        elif isinstance(node.statement, Attempt):
            self._attempt_ended(node, node.statement, scope)
        elif not node.done:
            if isinstance(node.statement, Each | Loop) and not scope.ended:
                return
            self._finish(node)

    def _finish(self, node: IssuedNode) -> None:
        """A statement has ended well."""
        if node.base is not None and node.statement.mutates:
            # Later statements wait only for this one, so it must not end before earlier ones.
            mutates = node.statement.mutates
            earlier = node.base.before(mutates, mutates)
            if earlier:
                node.state = "settling"
                node.missing = len(earlier)
                for node_before in earlier:
                    if node_before.waiters is None:
                        node_before.waiters = []
                    node_before.waiters.append(node)
                return
        node.done = True
        node.state = "done"
        if (waiters := node.waiters) is not None:
            node.waiters = None
            for waiter in waiters:
                self._count_down(waiter)
        scope = node.scope
        scope.open -= 1
        loop = scope.node
        if isinstance(node.statement, Turn) and loop is not None and node.phase != "else":
            node.child = None
            loop_statement = loop.statement
            if (
                isinstance(loop_statement, Each)
                and loop_statement.changes_source
                and not scope.ended
            ):
                self._retire(scope)
                self._next_turn(loop)
                return
        if scope.node is None and node.statement.blocks:
            self._close_sites(node.statement)
        self._retire(scope)
        if scope.ended and scope.open == 0:
            self._complete(scope)

    def _close_sites(self, statement: Statement) -> None:
        sites = tuple(inner.site for inner in walk([statement]) if isinstance(inner, Invoke))
        if sites:
            self._commands.append(Closed(sites))

    # Retiring, and failures.

    def _retire(self, scope: BlockScope) -> None:
        nodes = scope.nodes
        while nodes and nodes[0].done:
            nodes.popleft()
        if not nodes:
            return
        first = nodes[0]
        if first.error is not None:
            self._fail_scope(scope, first)
        else:
            self._wake(first)

    def _wake(self, node: IssuedNode) -> None:
        """Start what waited for everything before it, if that has succeeded now."""
        while True:
            if node.state == "parked":
                if self._may_start(node):
                    node.state = "waiting"
                    self._ready.append(node)
                return
            child = node.child
            if child is None or not child.nodes:
                return
            node = child.nodes[0]

    def _may_start(self, node: IssuedNode) -> bool:
        """Whether what must have succeeded before a statement has.

        A call that writes waits for everything before it. A change in place, inside a ``try``,
        waits for everything before it in the ``try``: behind a failure it must not be seen.
        """
        statement = node.statement
        if isinstance(statement, Invoke) and statement.is_write:
            return self._is_first(node, everywhere=True)
        if statement.mutates and node.scope.guarded:
            return self._is_first(node, everywhere=False)
        return True

    def _is_first(self, node: IssuedNode, *, everywhere: bool) -> bool:
        while True:
            scope = node.scope
            if scope.nodes[0] is not node:
                return False
            if scope.node is None or not (everywhere or scope.guarded):
                return True
            node = scope.node

    def _fail(
        self, node: IssuedNode, error: CodeError | ToolFailed, line: int | None = None
    ) -> None:
        if node.error is not None or node.done:
            return
        if line is None:
            line = error.line if isinstance(error, CodeError) else node.statement.line
        node.error = (error, line or node.statement.line)
        node.state = "failed"
        if node.scope.nodes and node.scope.nodes[0] is node:
            self._fail_scope(node.scope, node)

    def _fail_scope(
        self, scope: BlockScope, node: IssuedNode, env: Environment | None = None
    ) -> None:
        """The first statement of a block that has not retired failed: so does the block."""
        if scope.failed:
            return
        scope.failed = True
        assert node.error is not None
        for pending in scope.nodes:
            self._drop(pending)
        failure_env = dict(node.before or {})
        if env is not None:
            failure_env.update({name: env[name] for name in node.statement.writes if name in env})
        parent = scope.node
        if parent is None:
            error, line = node.error
            self.ended = Ended(error=error, line=line)
            return
        if isinstance(parent.statement, Attempt):
            self._attempt_failed(parent, parent.statement, node.error, failure_env)
            return
        parent.error = node.error
        parent.state = "failed"
        if parent.scope.nodes and parent.scope.nodes[0] is parent:
            self._fail_scope(parent.scope, parent, failure_env)
        else:
            # Met again when it is the first of its scope.
            parent.before = (
                {**(parent.before or {}), **failure_env} if parent.before is not None else None
            )

    def _drop(self, node: IssuedNode) -> None:
        """Nothing inside a statement is needed any more."""
        if node.state == "running":
            statement = node.statement
            assert isinstance(statement, Invoke)
            key = (statement.site, node.scope.index)
            if self._calls.pop(key, None) is not None:
                self._commands.append(DropCall(*key))
        if node.state != "done":
            node.state = "dropped"
        if node.child is not None:
            node.child.failed = True
            for inner in node.child.nodes:
                self._drop(inner)

    def _succeed(self, scope: BlockScope) -> None:
        if self.ended is not None:
            return
        if scope.exit is not None:
            value = scope.exit[1]
            is_open = value is None
        else:
            self._spread()  # the answer may come out of the block that ended last
            value = scope.env.get("answer", NO_VALUE).value
            is_open = value is UNBOUND
        if is_open:
            self.ended = Ended(is_open=True)
            return
        self._meter.reset()
        try:
            weigh(self._meter, value)
        except LimitExceeded as error:
            self.ended = Ended(error=as_code_error(error, 0))
        else:
            self.ended = Ended(value=value)

    # Helper functions.

    def _define_helpers(self) -> None:
        for name, source in self._sources.items():
            if name in self._functions or source.is_inlined:
                continue
            parameters = [argument.arg for argument in source.node.args.args]
            self._functions[name] = Helper(
                name,
                [f"{name}.{parameter}" for parameter in parameters],
                parameters,
                partial(self._compile_helper, name, source),
                frozenset(f"{name}.{local}" for local in source.local),
                self._meter,
            )

    def _compile_helper(
        self, name: str, source: HelperSource
    ) -> tuple[CompiledCode, list[CompiledCode]]:
        body = [scoped(statement, name, source.local) for statement in source.node.body]
        defaults = [self._compiler.expression(value) for value in source.node.args.defaults]
        return self._compiler.block(body), defaults

    # What kinds of statements do; see ``Machine``.

    def _start(self, node: IssuedNode) -> None:
        raise NotImplementedError

    def _next_turn(self, node: IssuedNode) -> None:
        raise NotImplementedError

    def _turn_ended(
        self, node: IssuedNode, turn: IssuedNode, leaving: tuple[ExitKind, Any] | None
    ) -> None:
        raise NotImplementedError

    def _close_loop(self, node: IssuedNode, leaving: tuple[ExitKind, Any] | None) -> None:
        raise NotImplementedError

    def _attempt_failed(
        self,
        node: IssuedNode,
        statement: Attempt,
        error: tuple[CodeError | ToolFailed, int],
        env: Environment,
    ) -> None:
        raise NotImplementedError

    def _attempt_ended(self, node: IssuedNode, statement: Attempt, scope: BlockScope) -> None:
        raise NotImplementedError


def _target(node: IssuedNode) -> str:
    assert isinstance(node.statement, Invoke)
    return node.statement.target


def copy_value(value: Any) -> Any:
    """A copy that shares nothing that can be changed."""
    kind = type(value)
    if kind is dict:
        return {key: copy_value(item) for key, item in value.items()}
    if kind is list:
        return [copy_value(item) for item in value]
    if kind is tuple:
        return tuple(copy_value(item) for item in value)
    if kind is set:
        return set(value)
    return value
