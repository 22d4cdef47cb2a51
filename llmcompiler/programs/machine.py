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
4. Iterations open together, unless one may leave the loop. What one carries into the next is a slot.
5. Statements *retire* in the program's order. A failure counts when its statement is the first that
   has not retired, so the failure of a program is that of CPython. A call that writes starts only
   then, too: after all that stands before it has succeeded. So does a change in place inside a
   ``try``, within that ``try``.
"""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llmcompiler.programs.analysis import scoped
from llmcompiler.programs.compute import (
    UNBOUND,
    Code,
    CodeError,
    Compiler,
    Helper,
    Meter,
    as_code_error,
)
from llmcompiler.programs.lowering import HelperSource
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
    walk,
)

Index: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StartCall:
    """A call may start.

    Attributes:
        site: the task's id.
        index: the iterations that the call stands under, outermost first.
        tool: the tool's name.
        args: positional arguments.
        kwargs: keyword arguments.
    """

    site: int
    index: Index
    tool: str
    args: list[Any]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DropCall:
    """A call that was started is not needed any more: the program failed before it."""

    site: int
    index: Index


@dataclass(frozen=True, slots=True)
class Decided:
    """A condition chose its block.

    Attributes:
        number: the condition's number in the program.
        index: the iterations that it stands under.
        taken: True for the first block.
    """

    number: int
    index: Index
    taken: bool


@dataclass(frozen=True, slots=True)
class Closed:
    """Sites of a statement that has ended: no call of theirs comes any more."""

    sites: tuple[int, ...]


Command: TypeAlias = StartCall | DropCall | Decided | Closed


@dataclass(frozen=True, slots=True)
class ToolFailed:
    """A call failed.

    Attributes:
        message: what the tool said.
        detail: whatever the caller wants back with the program's outcome.
    """

    message: str
    detail: Any = None


@dataclass(frozen=True, slots=True)
class Ended:
    """The program has ended.

    Attributes:
        value: what it returned, or the value of ``answer``; ``None`` if it left the answer open.
        is_open: True if it neither returned a value nor assigned ``answer``.
        error: why it failed; ``None`` if it did not.
        line: the line that failed; 0 if none did.
    """

    value: Any = None
    is_open: bool = False
    error: CodeError | ToolFailed | None = None
    line: int = 0


class _Slot:
    """The value of a variable between two assignments, now or later."""

    __slots__ = ("ready", "value", "waiters")

    def __init__(self, value: Any = UNBOUND, *, ready: bool = False) -> None:
        self.value = value
        self.ready = ready
        self.waiters: list[_Node | _Slot] = []


_Environment: TypeAlias = dict[str, _Slot]
_NO_VALUE = _Slot(ready=True)


class _Order:
    """Who touched which alias class last, within one scope."""

    __slots__ = ("entries", "keep_all")

    def __init__(self, *, keep_all: bool = False) -> None:
        self.entries: dict[int, tuple[_Node | None, list[_Node]]] = {}
        self.keep_all = keep_all

    def before(self, touches: Iterable[int], mutates: frozenset[int]) -> list[_Node]:
        """Nodes that one which touches these classes must wait for."""
        out: list[_Node] = []
        for number in touches:
            entry = self.entries.get(number)
            if entry is None:
                continue
            mutator, readers = entry
            if mutator is not None and not mutator.done:
                out.append(mutator)
            if number in mutates:
                out.extend(reader for reader in readers if not reader.done)
        return out

    def enter(self, node: _Node, tracked: frozenset[int] | None) -> None:
        """Note a node behind those before it."""
        statement = node.statement
        for number in statement.mutates:
            self.entries[number] = (node, [])
        for number in statement.touches - statement.mutates:
            if tracked is not None and number not in tracked:
                continue
            mutator, readers = self.entries.get(number, (None, []))
            if len(readers) > 32 and len(readers) & (len(readers) - 1) == 0:
                readers = [reader for reader in readers if not reader.done]
            readers.append(node)
            self.entries[number] = (mutator, readers)

    def part(self, classes: Iterable[int]) -> _Order:
        """What a scope inside starts from."""
        inner = _Order()
        for number in classes:
            if (entry := self.entries.get(number)) is not None:
                mutator, readers = entry
                readers = [reader for reader in readers if not reader.done]
                if readers or (mutator is not None and not mutator.done):
                    inner.entries[number] = (mutator, readers)
        return inner

    def renumber(self, find: Callable[[int], int]) -> None:
        """Classes became one: so do their entries."""
        for number in list(self.entries):
            root = find(number)
            if root == number:
                continue
            mutator, readers = self.entries.pop(number)
            other, more = self.entries.get(root, (None, []))
            both = [node for node in (mutator, other) if node is not None]
            last = max(both, key=lambda node: node.order, default=None)
            merged = [*readers, *more, *(node for node in both if node is not last)]
            self.entries[root] = (last, merged)


class _Scope:
    """A block that runs: its statements, as far as they are issued."""

    __slots__ = (
        *("block", "blocked", "closed", "ended", "env", "exit", "failed", "guarded", "index"),
        *("node", "nodes", "open", "order", "position", "tracked"),
    )

    def __init__(
        self,
        block: Sequence[Statement],
        node: _Node | None,
        env: _Environment,
        order: _Order,
        index: Index,
        tracked: frozenset[int] | None,
        *,
        guarded: bool,
    ) -> None:
        self.block = block
        self.node = node
        self.env = env
        self.order = order
        self.index = index
        self.tracked = tracked
        self.guarded = guarded
        self.position = 0
        self.nodes: deque[_Node] = deque()
        self.open = 0
        self.closed = True
        self.blocked = False
        self.ended = False
        self.failed = False
        self.exit: tuple[ExitKind, Any] | None = None


class _Node:
    """A statement that was issued."""

    __slots__ = (
        *("before", "carry", "child", "done", "env", "error", "order", "outs", "pending_error"),
        *("phase", "scope", "statement", "state", "missing", "iterator", "base", "waiters"),
        *("turns", "exit"),
    )

    def __init__(self, statement: Statement, scope: _Scope, order: int) -> None:
        self.statement = statement
        self.scope = scope
        self.order = order
        self.missing = 0
        self.done = False
        self.state = "waiting"
        self.error: tuple[CodeError | ToolFailed, int] | None = None
        self.env: _Environment = {}
        self.outs: _Environment = {}
        self.before: _Environment | None = None
        self.base: _Order | None = None
        self.child: _Scope | None = None
        self.waiters: list[_Node] | None = None
        self.phase = ""
        self.carry: _Environment = {}
        self.iterator: Any = None
        self.turns = 0
        self.exit: tuple[ExitKind, Any] | None = None
        self.pending_error: tuple[CodeError | ToolFailed, int] | None = None


class Machine:
    """Runs one program.

    Args:
        helpers: the program's helper functions, filled while it is read.
        inputs: values that variables have at the start.
        meter: bounds of pure code.
        max_iterations: most iterations of one loop.
        find: the alias class that stands for another; see ``Aliases.find``.
    """

    def __init__(
        self,
        helpers: Mapping[str, HelperSource],
        inputs: Mapping[str, Any] | None = None,
        *,
        meter: Meter | None = None,
        max_iterations: int = 100_000,
        find: Callable[[int], int] = lambda number: number,
    ) -> None:
        self._sources = helpers
        self._meter = meter or Meter()
        self._max_iterations = max_iterations
        self._find = find
        self._functions: dict[str, Helper] = {}
        self._compiler = Compiler(self._meter, self._functions)
        self._compiled: dict[Statement, Any] = {}
        env = {name: _Slot(value, ready=True) for name, value in (inputs or {}).items()}
        self._statements: list[Statement] = []
        self._top = _Scope(
            self._statements, None, env, _Order(keep_all=True), (), None, guarded=False
        )
        self._top.closed = False
        self._ready: deque[_Node] = deque()
        self._set: deque[_Slot] = deque()
        self._calls: dict[tuple[int, Index], _Node] = {}
        self._commands: list[Command] = []
        self._count = 0
        self.ended: Ended | None = None
        """How the program ended; ``None`` while it runs."""

    # What the caller tells.

    def add(self, statements: Sequence[Statement]) -> None:
        """Take in further statements of the top level."""
        self._define_helpers()
        self._top.order.renumber(self._find)
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
            while values:
                slot = values.popleft()
                waiters, slot.waiters = slot.waiters, []
                for waiter in waiters:
                    if isinstance(waiter, _Slot):
                        self._assign(waiter, slot.value)
                    else:
                        self._count_down(waiter)
            if ready:
                node = ready.popleft()
                if self.ended is not None:
                    continue
                if node.state == "waiting":
                    self._start(node)
                elif node.state == "settling":
                    self._finish(node)

    def _count_down(self, node: _Node) -> None:
        node.missing -= 1
        if node.missing == 0:
            self._ready.append(node)

    def _assign(self, slot: _Slot, value: Any) -> None:
        slot.value = value
        slot.ready = True
        if slot.waiters:
            self._set.append(slot)

    def _link(self, slot: _Slot, source: _Slot) -> None:
        if source.ready:
            self._assign(slot, source.value)
        else:
            source.waiters.append(slot)

    # Issuing.

    def _issue(self, scope: _Scope) -> None:
        while scope.position < len(scope.block) and not scope.blocked and not scope.ended:
            statement = scope.block[scope.position]
            scope.position += 1
            if statement.exits:
                scope.blocked = True
            self._create(statement, scope)
        if scope.position == len(scope.block) and scope.closed and not scope.blocked:
            self._end(scope, None)

    def _create(
        self, statement: Statement, scope: _Scope, env: _Environment | None = None
    ) -> _Node:
        self._count += 1
        node = _Node(statement, scope, self._count)
        known = scope.env if env is None else env
        node.env = {name: known[name] for name in statement.captures if name in known}
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
            for other in order.before(
                statement.starts_with, statement.mutates if not statement.blocks else frozenset()
            ):
                if other.waiters is None:
                    other.waiters = []
                other.waiters.append(node)
                missing += 1
            if order.keep_all:
                order.enter(node, None)
            elif scope.tracked:
                order.enter(node, scope.tracked)
        if env is None:
            for name in statement.writes:
                node.outs[name] = scope.env[name] = _Slot()
        node.missing = missing
        if missing == 0:
            self._ready.append(node)
        return node

    def _inner(
        self,
        node: _Node,
        block: Sequence[Statement],
        env: _Environment,
        *,
        guarded: bool | None = None,
        index: Index | None = None,
    ) -> _Scope:
        order = node.base if node.base is not None else _Order()
        if isinstance(node.statement, Attempt):
            # A block that failed leaves statements that never end; its handler starts afresh.
            order = order.part(node.statement.touches)
        scope = _Scope(
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

    # Starting.

    def _start(self, node: _Node) -> None:
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
                    env = {**node.env, statement.result: _Slot(None, ready=True)}
                    self._issue(self._inner(node, statement.body, env))
                case Attempt():
                    node.state = "open"
                    node.phase = "body"
                    self._issue(self._inner(node, statement.body, dict(node.env), guarded=True))
        except CodeError as error:
            self._fail(node, error)

    def _compute(self, node: _Node, statement: Compute) -> None:
        code: Code | None = self._compiled.get(statement)
        if code is None:
            code = self._compiled[statement] = self._compiler.block(statement.nodes)
        values = _values(node.env)
        self._meter.reset()
        code(values)
        for name, slot in node.outs.items():
            self._assign(slot, values.get(name, UNBOUND))
        self._finish(node)

    def _call(self, node: _Node, statement: Invoke) -> None:
        compiled = self._compiled.get(statement)
        if compiled is None:
            compiled = self._compiled[statement] = (
                [self._compiler.expression(value) for value in statement.args],
                [(name, self._compiler.expression(value)) for name, value in statement.kwargs],
            )
        values = _values(node.env)
        self._meter.reset()
        try:
            args = [copy_value(code(values)) for code in compiled[0]]
            kwargs = {name: copy_value(code(values)) for name, code in compiled[1]}
        except Exception as error:  # noqa: BLE001
            raise _located(error, statement.line) from None
        node.state = "running"
        index = node.scope.index
        self._calls[statement.site, index] = node
        self._commands.append(StartCall(statement.site, index, statement.tool, args, kwargs))

    def _test(self, statement: Statement, expression: ast.expr, node: _Node) -> Any:
        code = self._compiled.get(statement)
        if code is None:
            code = self._compiled[statement] = self._compiler.expression(expression)
        self._meter.reset()
        try:
            return code(_values(node.env))
        except Exception as error:  # noqa: BLE001
            raise _located(error, statement.line) from None

    def _choose(self, node: _Node, statement: Choose) -> None:
        taken = bool(self._test(statement, statement.test, node))
        if statement.number:
            self._commands.append(Decided(statement.number, node.scope.index, taken))
        node.state = "open"
        block = statement.body if taken else statement.orelse
        self._issue(self._inner(node, block, dict(node.env)))

    def _leave(self, node: _Node, statement: Exit) -> None:
        value = None
        if statement.value is not None:
            value = self._test(statement, statement.value, node)
        self._finish(node)
        self._end(node.scope, (statement.kind, value))

    # Loops.

    def _open_each(self, node: _Node, statement: Each) -> None:
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
            self._open_turn(node, statement.turn, {statement.item: _Slot(item, ready=True)}, keep)
        self._end_loop(node, None)

    def _too_many(self, line: int) -> CodeError:
        return CodeError(
            "LimitReached",
            f"a loop has more than {self._max_iterations:,} iterations (limit loop_iterations)",
            line,
        )

    def _sequence(self, node: _Node) -> _Scope:
        """The scope whose statements are a loop's iterations."""
        scope = self._inner(node, (), {})
        scope.closed = False
        return scope

    def _open_turn(
        self, node: _Node, turn: Turn, extra: _Environment, keep: frozenset[str]
    ) -> _Node:
        scope = node.child
        assert scope is not None
        before = dict(node.carry) if scope.guarded else None
        inner = self._create(turn, scope, {**node.carry, **extra})
        inner.before = before
        inner.turns = node.turns
        node.turns += 1
        for name in keep:
            inner.outs[name] = node.carry[name] = _Slot()
        return inner

    def _next_turn(self, node: _Node) -> None:
        """Open the next iteration of a loop that goes in order."""
        statement = node.statement
        assert isinstance(statement, Each | Loop)
        if node.turns >= self._max_iterations:
            self._fail(node, self._too_many(statement.line))
            return
        extra: _Environment = {}
        if isinstance(statement, Each):
            try:
                item = next(node.iterator)
            except StopIteration:
                self._end_loop(node, None)
                return
            except Exception as error:  # noqa: BLE001
                self._fail(node, _located(error, statement.line))
                return
            extra = {statement.item: _Slot(item, ready=True)}
        self._open_turn(node, statement.turn, extra, frozenset())

    def _turn_ended(self, node: _Node, turn: _Node, leaving: tuple[ExitKind, Any] | None) -> None:
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

    def _end_loop(self, node: _Node, leaving: tuple[ExitKind, Any] | None) -> None:
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
                inner.outs[name] = node.carry[name] = _Slot()
            scope.blocked = True
            return
        self._close_loop(node, leaving if leaving is not None and leaving[0] == "return" else None)

    def _close_loop(self, node: _Node, leaving: tuple[ExitKind, Any] | None) -> None:
        scope = node.child
        assert scope is not None
        scope.ended = True
        for name, slot in node.outs.items():
            self._link(slot, node.carry.get(name, _NO_VALUE))
        node.exit = leaving
        self._left(node, leaving)
        if scope.open == 0:
            self._complete(scope)

    # Ends of blocks.

    def _end(self, scope: _Scope, leaving: tuple[ExitKind, Any] | None) -> None:
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
            scope.env[statement.result] = _Slot(result, ready=True)
            leaving = None
        for name, slot in node.outs.items():
            self._link(slot, scope.env.get(name, _NO_VALUE))
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

    def _left(self, node: _Node, leaving: tuple[ExitKind, Any] | None) -> None:
        """A compound statement says whether it leaves the block around it."""
        scope = node.scope
        if not node.statement.exits:
            return
        scope.blocked = False
        if leaving is not None:
            self._end(scope, leaving)
        else:
            self._issue(scope)

    def _complete(self, scope: _Scope) -> None:
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

    def _finish(self, node: _Node) -> None:
        """A statement has ended well."""
        if node.base is not None and node.statement.mutates:
            # Those behind it wait for it alone, so it ends after those before it.
            mutates = node.statement.mutates
            earlier = node.base.before(mutates, mutates)
            if earlier:
                node.state = "settling"
                node.missing = len(earlier)
                for other in earlier:
                    if other.waiters is None:
                        other.waiters = []
                    other.waiters.append(node)
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
            each = loop.statement
            if isinstance(each, Each) and each.changes_source and not scope.ended:
                self._retire(scope)
                self._next_turn(loop)
                return
        if scope.node is None and node.statement.blocks:
            self._close_sites(node.statement)
        self._retire(scope)
        if scope.ended and scope.open == 0:
            self._complete(scope)

    def _close_sites(self, statement: Statement) -> None:
        sites = tuple(each.site for each in walk([statement]) if isinstance(each, Invoke))
        if sites:
            self._commands.append(Closed(sites))

    # Retiring, and failures.

    def _retire(self, scope: _Scope) -> None:
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

    def _wake(self, node: _Node) -> None:
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

    def _may_start(self, node: _Node) -> bool:
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

    def _is_first(self, node: _Node, *, everywhere: bool) -> bool:
        while True:
            scope = node.scope
            if scope.nodes[0] is not node:
                return False
            if scope.node is None or not (everywhere or scope.guarded):
                return True
            node = scope.node

    def _fail(self, node: _Node, error: CodeError | ToolFailed, line: int | None = None) -> None:
        if node.error is not None or node.done:
            return
        if line is None:
            line = error.line if isinstance(error, CodeError) else node.statement.line
        node.error = (error, line or node.statement.line)
        node.state = "failed"
        if node.scope.nodes and node.scope.nodes[0] is node:
            self._fail_scope(node.scope, node)

    def _fail_scope(self, scope: _Scope, node: _Node, env: _Environment | None = None) -> None:
        """The first statement of a block that has not retired failed: so does the block."""
        if scope.failed:
            return
        scope.failed = True
        assert node.error is not None
        for other in scope.nodes:
            self._drop(other)
        here = dict(node.before or {})
        if env is not None:
            here.update({name: env[name] for name in node.statement.writes if name in env})
        parent = scope.node
        if parent is None:
            error, line = node.error
            self.ended = Ended(error=error, line=line)
            return
        if isinstance(parent.statement, Attempt):
            self._attempt_failed(parent, parent.statement, node.error, here)
            return
        parent.error = node.error
        parent.state = "failed"
        if parent.scope.nodes and parent.scope.nodes[0] is parent:
            self._fail_scope(parent.scope, parent, here)
        else:
            # Met again when it is the first of its scope.
            parent.before = {**(parent.before or {}), **here} if parent.before is not None else None

    def _drop(self, node: _Node) -> None:
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

    def _attempt_failed(
        self,
        node: _Node,
        statement: Attempt,
        error: tuple[CodeError | ToolFailed, int],
        env: _Environment,
    ) -> None:
        known = {**node.env, **env}
        if node.phase == "body" and isinstance(error[0], ToolFailed):
            node.phase = "handler"
            if statement.name is not None:
                known[statement.name] = _Slot(error[0].message, ready=True)
            self._issue(self._inner(node, statement.handler, known, guarded=True))
            return
        if statement.final and node.phase != "final":
            node.phase = "final"
            node.pending_error = error
            self._issue(self._inner(node, statement.final, known, guarded=True))
            return
        node.error = error
        node.state = "failed"
        if node.scope.nodes and node.scope.nodes[0] is node:
            self._fail_scope(node.scope, node, env)

    def _attempt_ended(self, node: _Node, statement: Attempt, scope: _Scope) -> None:
        """A block of a ``try`` has ended well: the next one follows."""
        env = dict(scope.env)
        if node.phase == "body" and scope.exit is None and statement.orelse:
            node.phase = "else"
            self._issue(self._inner(node, statement.orelse, env, guarded=True))
            return
        if node.phase == "handler" and statement.name is not None:
            env[statement.name] = _NO_VALUE
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
            self._link(slot, env.get(name, _NO_VALUE))
        leaving = node.exit
        self._left(node, leaving)
        self._finish(node)

    def _succeed(self, scope: _Scope) -> None:
        if self.ended is not None:
            return
        if scope.exit is not None:
            self.ended = Ended(value=scope.exit[1], is_open=scope.exit[1] is None)
            return
        slot = scope.env.get("answer", _NO_VALUE)
        if slot.value is UNBOUND:
            self.ended = Ended(is_open=True)
        else:
            self.ended = Ended(value=slot.value)

    # Helper functions.

    def _define_helpers(self) -> None:
        for name, source in self._sources.items():
            if name in self._functions or source.is_inlined:
                continue
            node = source.node
            parameters = [argument.arg for argument in node.args.args]
            helper = Helper(
                name,
                [f"{name}.{parameter}" for parameter in parameters],
                parameters,
                [],
                lambda env: None,
                frozenset(f"{name}.{local}" for local in source.local),
                self._meter,
            )
            self._functions[name] = helper
            body = [scoped(statement, name, source.local) for statement in node.body]
            helper.fill(
                self._compiler.block(body),
                [self._compiler.expression(value) for value in node.args.defaults],
            )


def _target(node: _Node) -> str:
    assert isinstance(node.statement, Invoke)
    return node.statement.target


def _values(env: _Environment) -> dict[str, Any]:
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
