"""What a running program consists of: slots, statements that were issued, their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from llmcompiler.events import Index
from llmcompiler.programs.commands import ToolFailed
from llmcompiler.programs.meter import CodeError
from llmcompiler.programs.statements import ExitKind, Statement
from llmcompiler.programs.values import UNBOUND


class Slot:
    """The value of a variable between two assignments, now or later."""

    __slots__ = ("ready", "value", "waiters")

    def __init__(self, value: Any = UNBOUND, *, ready: bool = False) -> None:
        self.value = value
        self.ready = ready
        self.waiters: list[IssuedNode | Slot] = []


Environment: TypeAlias = dict[str, Slot]
NO_VALUE = Slot(ready=True)


class TouchOrder:
    """Who touched which alias class last, within one scope."""

    __slots__ = ("entries", "keep_all")

    def __init__(self, *, keep_all: bool = False) -> None:
        self.entries: dict[int, tuple[IssuedNode | None, list[IssuedNode]]] = {}
        self.keep_all = keep_all

    def before(self, touches: Iterable[int], mutates: frozenset[int]) -> list[IssuedNode]:
        """The nodes that a new node must wait for if it touches these classes."""
        out: list[IssuedNode] = []
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

    def enter(self, node: IssuedNode, tracked: frozenset[int] | None) -> None:
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

    def part(self, classes: Iterable[int]) -> TouchOrder:
        """What a scope inside starts from."""
        inner = TouchOrder()
        for number in classes:
            if (entry := self.entries.get(number)) is not None:
                mutator, readers = entry
                readers = [reader for reader in readers if not reader.done]
                if readers or (mutator is not None and not mutator.done):
                    inner.entries[number] = (mutator, readers)
        return inner

    def renumber(self, find: Callable[[int], int]) -> None:
        """Merge the entries of classes that have been merged."""
        for number in list(self.entries):
            root = find(number)
            if root == number:
                continue
            mutator, readers = self.entries.pop(number)
            later, more_readers = self.entries.get(root, (None, []))
            both = [node for node in (mutator, later) if node is not None]
            last = max(both, key=lambda node: node.order, default=None)
            merged = [*readers, *more_readers, *(node for node in both if node is not last)]
            self.entries[root] = (last, merged)


class BlockScope:
    """A block that runs: its statements, as far as they are issued."""

    __slots__ = (
        *("block", "blocked", "closed", "ended", "env", "exit", "failed", "guarded", "index"),
        *("node", "nodes", "open", "order", "position", "tracked"),
    )

    def __init__(
        self,
        block: Sequence[Statement],
        node: IssuedNode | None,
        env: Environment,
        order: TouchOrder,
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
        self.nodes: deque[IssuedNode] = deque()
        self.open = 0
        self.closed = True
        self.blocked = False
        self.ended = False
        self.failed = False
        self.exit: tuple[ExitKind, Any] | None = None


class IssuedNode:
    """A statement that was issued."""

    __slots__ = (
        *("before", "carry", "child", "done", "env", "error", "order", "outs", "pending_error"),
        *("phase", "scope", "statement", "state", "missing", "iterator", "base", "waiters"),
        *("turns", "exit"),
    )

    def __init__(self, statement: Statement, scope: BlockScope, order: int) -> None:
        self.statement = statement
        self.scope = scope
        self.order = order
        self.missing = 0
        self.done = False
        self.state = "waiting"
        self.error: tuple[CodeError | ToolFailed, int] | None = None
        self.env: Environment = {}
        self.outs: Environment = {}
        self.before: Environment | None = None
        self.base: TouchOrder | None = None
        self.child: BlockScope | None = None
        self.waiters: list[IssuedNode] | None = None
        self.phase = ""
        self.carry: Environment = {}
        self.iterator: Any = None
        self.turns = 0
        self.exit: tuple[ExitKind, Any] | None = None
        self.pending_error: tuple[CodeError | ToolFailed, int] | None = None
