"""The task fetching unit: which call may start next. Pure: no clock, no asyncio, no tools.

Named after the unit of LLMCompiler (Kim et al., 2023), which in turn is named after a processor's
instruction fetching unit. It is a sans-IO machine in the manner of CPython's ``graphlib``: the
caller tells it what was added, opened, done and failed, and takes what may start now.

Rules
-----
1. A task becomes *ready* when every task it waits for is done. Nothing else delays it: no level
   barrier, no polling.
2. ``take`` hands out ready calls while a slot is free, in all and in the call's group. It never
   leaves a free slot beside a ready call (work conservation), unless its caller wants no more calls
   at once; the rest it hands out when it is asked again.
3. When there are more ready calls than slots, those on the longest remaining path go first
   (critical-path priority); ties go to the one added first.
4. A *map* has no extent until ``open`` tells it. Its elements are taken one by one from a counter,
   so a map of a million elements costs no more memory than its results.
5. An element of a map that is *aligned* with another map waits for that map's element of the same
   number only, not for its whole list.
6. When a task fails, everything that waits for it is *skipped*, at once and transitively; a failed
   element skips the aligned elements only. Whatever does not depend on it goes on.

States of a task: waiting -> ready -> running -> done | failed, or waiting -> skipped, and any state
that is not an end -> cancelled, or failed if its caller gives it up. A map is ready when it may be
opened, and running once it is.

Priorities are kept lazily: they matter only when slots are scarce, so they are computed when a
``take`` finds more ready calls than slots and enough has been added since the last time. Every
other event costs O(log ready) plus its edges.
"""

from __future__ import annotations

import enum
import heapq
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class State(enum.Enum):
    """Where a task is on its way."""

    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"

    def __init__(self, value: str) -> None:
        self.ended = value in ("done", "failed", "skipped", "cancelled")
        """Whether nothing more can happen to the task."""


TRANSITIONS: dict[State, tuple[State, ...]] = {
    State.WAITING: (State.READY, State.FAILED, State.SKIPPED, State.CANCELLED),
    State.READY: (State.RUNNING, State.FAILED, State.SKIPPED, State.CANCELLED),
    State.RUNNING: (State.DONE, State.FAILED, State.SKIPPED, State.CANCELLED),
    State.DONE: (),
    State.FAILED: (),
    State.SKIPPED: (),
    State.CANCELLED: (),
}
"""What may follow what; tests and diagrams are made from this table."""


class Call(NamedTuple):
    """Something to start: a task, or one element of a map."""

    task: int
    element: int | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """A map whose inputs are there: work out its extent and call ``open``."""

    task: int


@dataclass(frozen=True, slots=True)
class Skip:
    """A task or element that will never start, because task ``because`` did not succeed."""

    task: int
    element: int | None
    because: int


@dataclass(frozen=True, slots=True)
class MapEnded:
    """Every element of a map has ended.

    Attributes:
        failed: numbers of the elements that failed or were skipped.
    """

    task: int
    failed: tuple[int, ...]


class _Map:
    """Elements of an opened map."""

    __slots__ = ("done", "ended", "extent", "failed", "missing", "next")

    def __init__(self, extent: int) -> None:
        self.extent = extent
        self.next = 0  # elements of an unaligned map are taken from this counter
        self.ended = 0
        self.failed: set[int] = set()
        self.missing: dict[int, int] = {}  # aligned element -> producers it still waits for
        self.done: set[int] = set()


_UNLIMITED = float("inf")

# Kept apart from their class: to look a member up there takes longer than all else about it.
_WAITING, _READY, _RUNNING, _DONE = State.WAITING, State.READY, State.RUNNING, State.DONE

_NOBODY: list[Node] = []
"""Shared by all nodes without users, and never changed: most lists would be empty ones."""


class Node:
    """What the unit needs to know of a task. It belongs to the one unit that it is added to.

    Args:
        task_id: unique in the run.
        waits_for: ids of tasks whose whole result it needs.
        is_map: whether its extent is told later, by ``open``.
        aligned: ids of maps whose elements of the same number its elements need.
        weight: how long it is expected to run, in any unit; for priorities only.
        group: calls of one group may share a limit of their own.
        partial: whether a map is done, not failed, although some of its elements failed.
    """

    # The unit keeps its state here too: a run may have a hundred thousand tasks, and each object
    # more of a task is one more for the garbage collector to walk.
    __slots__ = (
        "aligned",
        "aligned_users",
        "group",
        "id",
        "is_map",
        "map",
        "order",
        "partial",
        "priority",
        "state",
        "users",
        "waiting",
        "waits_for",
        "weight",
    )

    def __init__(
        self,
        task_id: int,
        waits_for: Sequence[int] = (),
        is_map: bool = False,
        aligned: Sequence[int] = (),
        weight: float = 1.0,
        group: str | None = None,
        partial: bool = False,
    ) -> None:
        self.id = task_id
        self.waits_for = waits_for
        self.is_map = is_map
        self.aligned = aligned
        self.weight = self.priority = weight
        self.group = group
        self.partial = partial
        self.order = 0
        self.state = _WAITING
        self.waiting = 0
        self.users: list[Node] = _NOBODY
        self.aligned_users: list[Node] = _NOBODY
        self.map: _Map | None = None


class TaskFetchingUnit:
    """Says which calls may start, and keeps count.

    Args:
        slots: most calls running at a time; ``None`` for no limit.
        group_slots: the same for each group by name.
    """

    def __init__(self, slots: int | None = None, group_slots: dict[str, int] | None = None) -> None:
        self._free: float = _UNLIMITED if slots is None else slots
        self._group_free: dict[str | None, float] = {None: _UNLIMITED}
        self._group_free.update((group_slots or {}).items())
        self._nodes: dict[int, Node] = {}
        # A heap item is (-priority, order, element, node); element -1 stands for the task itself,
        # or for the counter of an unaligned map.
        self._ready: dict[str | None, list[tuple[float, int, int, Node]]] = {None: []}
        self._sorted = False  # whether what is ready is, where nothing limits it
        self._openable: list[Node] = []
        self._reports: list[Skip | MapEnded] = []
        self._unended = 0
        self._unranked = 0
        self.changed = False
        """Whether anything was told since the last ``take``, or that one left calls over."""

    # What the caller tells.

    def add(self, nodes: Iterable[Node]) -> None:
        """Take in tasks, each after those it depends on.

        Raises:
            ValueError: an id is there already, or a dependency is not.
        """
        self.changed = True
        known = self._nodes
        for node in nodes:
            if node.id in known:
                raise ValueError(f"task {node.id} was added before")
            because: int | None = None
            for producer_id in node.waits_for:
                if (producer := known.get(producer_id)) is None:
                    raise _not_there(node, producer_id)
                state = producer.state
                if not state.ended:
                    if producer.users is _NOBODY:
                        producer.users = [node]
                    else:
                        producer.users.append(node)
                    node.waiting += 1
                elif state is not _DONE:
                    because = producer_id
            for producer_id in node.aligned:
                if (producer := known.get(producer_id)) is None:
                    raise _not_there(node, producer_id)
                if producer.map is None:
                    node.waiting += 1
                    if producer.state.ended:
                        because = producer_id
                if producer.aligned_users is _NOBODY:
                    producer.aligned_users = []
                producer.aligned_users.append(node)
            if node.group not in self._group_free:
                node.group = None
            node.order = len(known)
            known[node.id] = node
            self._unended += 1
            self._unranked += 1
            if because is not None:
                self._skip(node, because)
            elif node.waiting == 0:
                self._make_ready(node)

    def open(self, task: int, extent: int) -> None:
        """Tell a map how many elements it has.

        Raises:
            ValueError: the task was not handed out as ``Open``.
        """
        node = self._nodes[task]
        if not node.is_map or node.state is not _READY:
            raise ValueError(f"task {task} is not a map that waits to be opened")
        self.changed = True
        node.state = _RUNNING
        node.map = elements = _Map(extent)
        for user in node.aligned_users:
            self._release(user)
        if extent == 0:
            self._map_ended(node)
            return
        if not node.aligned:
            self._push(node, -1)
            return
        self._align(node, elements)

    def _align(self, node: Node, elements: _Map) -> None:
        """Find out which elements of an opened aligned map can start or never will."""
        for element in range(elements.extent):
            missing, because = 0, None
            for producer_id in node.aligned:
                producer = self._nodes[producer_id].map
                assert producer is not None
                if element in producer.failed:
                    because = producer_id
                elif not _element_done(self._nodes[producer_id], element):
                    missing += 1
            if because is not None:
                self._skip_element(node, element, because)
            elif missing == 0:
                self._push(node, element)
            else:
                elements.missing[element] = missing

    def done(self, call: Call) -> None:
        """A call returned."""
        node = self._ended_call(call)
        _, element = call
        if element is None:
            self._end(node, _DONE)
            return
        elements = node.map
        assert elements is not None
        elements.ended += 1
        elements.done.add(element)
        for user in node.aligned_users:
            waiting = user.map.missing if user.map is not None else None
            if waiting is None or element not in waiting:
                continue
            waiting[element] -= 1
            if waiting[element] == 0:
                del waiting[element]
                self._push(user, element)
        if elements.ended == elements.extent:
            self._map_ended(node)

    def fail(self, call: Call) -> None:
        """A call failed for good."""
        node = self._ended_call(call)
        if call.element is None:
            self._end(node, State.FAILED)
        else:
            self._fail_element(node, call.element)

    def pause(self, call: Call) -> None:
        """A running call gives its slot back without having ended: it waits to be tried again."""
        self._ended_call(call)

    def again(self, call: Call) -> None:
        """A paused call is ready again."""
        node = self._nodes[call.task]
        if not node.state.ended:
            self.changed = True
            self._push(node, -1 if call.element is None else call.element)

    def withdraw(self, task: int) -> list[Call]:
        """Hand out whatever of a task waits to start, whether or not a slot is free for it.

        For a task that nobody wants any more: the caller ends each of the calls, and thereby gives
        back the slots that they hold. Paused calls are to be made ready before.
        """
        node = self._nodes[task]
        elements = node.map
        heap = self._ready.get(node.group, [])
        mine = [item[2] for item in heap if item[3] is node]
        heap[:] = [item for item in heap if item[3] is not node]
        heapq.heapify(heap)
        if elements is None:
            calls = [Call(task)] * len(mine)
        else:
            left = {element for element in mine if element >= 0} | elements.missing.keys()
            if -1 in mine:
                left.update(range(elements.next, elements.extent))
                elements.next = elements.extent
            elements.missing.clear()
            calls = [Call(task, element) for element in sorted(left)]
        self._free -= len(calls)
        self._group_free[node.group] -= len(calls)
        if calls:
            node.state = _RUNNING
        return calls

    def is_open(self, task: int) -> bool:
        """Whether the task's calls are known: an ordinary one that is ready, or an opened map."""
        node = self._nodes[task]
        if node.is_map:
            return node.map is not None
        return node.state in (_READY, _RUNNING)

    def give_up(self, task: int) -> None:
        """A task none of whose calls was handed out fails: a map's inputs do not fit, or nobody
        wants it any more.
        """
        self.changed = True
        self._end(self._nodes[task], State.FAILED)

    def cancel(self) -> tuple[int, ...]:
        """End every task that has not ended.

        Returns:
            The ids of those tasks, in order. Calls that are running are the caller's to stop, and
            need not be reported any more.
        """
        stopped = [node.id for node in self._nodes.values() if not node.state.ended]
        for task_id in stopped:
            self._nodes[task_id].state = State.CANCELLED
        self._unended = 0
        self._openable.clear()
        for heap in self._ready.values():
            heap.clear()
        return tuple(stopped)

    # What the caller asks.

    def take(self, most: int = sys.maxsize) -> list[Call | Open | Skip | MapEnded]:
        """Everything that follows from what was told: what to start, to open, and what ended.

        Calls that are handed out hold a slot until ``done`` or ``fail``.

        Args:
            most: calls to hand out; if more may start, ``changed`` stays true.
        """
        self.changed = False
        out: list[Call | Open | Skip | MapEnded] = []
        if self._reports:
            out.extend(self._reports)
            self._reports.clear()
        if self._openable:
            ready = (node for node in self._openable if node.state is _READY)
            out.extend(Open(node.id) for node in ready)
            self._openable.clear()
        if self._free == _UNLIMITED and len(self._ready) == 1:
            self._take_all(out, most)
            return out
        self._rank_if_scarce()
        while self._free > 0 and (group := self._best_group()) is not _NO_GROUP:
            assert group is None or isinstance(group, str)
            if most == 0:
                self.changed = True
                break
            most -= 1
            heap = self._ready[group]
            _, _, element, node = heap[0]
            elements = node.map
            if elements is not None and element < 0:
                element = elements.next
                elements.next += 1
                if elements.next == elements.extent:
                    heapq.heappop(heap)
            else:
                heapq.heappop(heap)
            node.state = _RUNNING
            self._free -= 1
            self._group_free[group] -= 1
            out.append(Call(node.id, element if elements is not None else None))
        return out

    def _take_all(self, out: list[Call | Open | Skip | MapEnded], most: int) -> None:
        """``take`` where nothing limits what runs: no slots are counted, nothing is ranked."""
        ready = self._ready[None]
        if not self._sorted:
            ready.sort()
            self._sorted = True
        taken = 0
        for _, _, element, node in ready:
            if most == 0:
                break
            node.state = _RUNNING
            elements = node.map
            if elements is None:
                out.append(Call(node.id))
                most -= 1
            elif element >= 0:
                out.append(Call(node.id, element))
                most -= 1
            else:
                first = elements.next
                elements.next = min(first + most, elements.extent)
                out.extend(Call(node.id, each) for each in range(first, elements.next))
                most -= elements.next - first
                if elements.next < elements.extent:
                    break
            taken += 1
        del ready[:taken]
        self.changed = bool(ready)

    def state(self, task: int) -> State:
        """Where the task is."""
        return self._nodes[task].state

    @property
    def idle(self) -> bool:
        """Whether every task that was added has ended."""
        return self._unended == 0

    def __contains__(self, task: int) -> bool:
        return task in self._nodes

    # How it is kept.

    def _best_group(self) -> str | None | _NoGroup:
        if len(self._ready) == 1:
            return None if self._ready[None] else _NO_GROUP
        best: str | None | _NoGroup = _NO_GROUP
        first: tuple[float, int, int] | None = None
        for group, heap in self._ready.items():
            if heap and self._group_free[group] > 0:
                head = heap[0][:3]
                if first is None or head < first:
                    first, best = head, group
        return best

    def _push(self, node: Node, element: int) -> None:
        heap = self._ready.get(node.group)
        if heap is None:
            heap = self._ready[node.group] = []
        heapq.heappush(heap, (-node.priority, node.order, element, node))
        self._sorted = False

    def _make_ready(self, node: Node) -> None:
        node.state = _READY
        if node.is_map:
            self._openable.append(node)
        else:
            self._push(node, -1)

    def _release(self, node: Node) -> None:
        node.waiting -= 1
        if node.waiting == 0 and node.state is _WAITING:
            self._make_ready(node)

    def _ended_call(self, call: Call) -> Node:
        task_id, _ = call
        node = self._nodes[task_id]
        if node.state is not _RUNNING:
            raise ValueError(f"task {task_id} is {node.state.value}, not running")
        self.changed = True
        self._free += 1
        self._group_free[node.group] += 1
        return node

    def _end(self, node: Node, state: State) -> None:
        node.state = state
        self._unended -= 1
        users, node.users = node.users, _NOBODY
        if state is _DONE:
            for user in users:
                user.waiting -= 1
                if user.waiting == 0 and user.state is _WAITING:
                    self._make_ready(user)
            return
        if node.map is None:
            users = users + node.aligned_users
        for user in users:
            if not user.state.ended:
                self._skip(user, node.id)

    def _skip(self, node: Node, because: int) -> None:
        """Skip a task and, without recursion, everything that waits for it."""
        stack = [(node, because)]
        while stack:
            node, because = stack.pop()
            if node.state.ended:
                continue
            node.state = State.SKIPPED
            self._unended -= 1
            self._reports.append(Skip(node.id, None, because))
            users, node.users = node.users, _NOBODY
            stack.extend((user, node.id) for user in reversed(users))
            if node.map is None:
                stack.extend((user, node.id) for user in node.aligned_users)

    def _skip_element(self, node: Node, element: int, because: int) -> None:
        self._reports.append(Skip(node.id, element, because))
        self._fail_element(node, element)

    def _fail_element(self, node: Node, element: int) -> None:
        stack = [(node, element)]
        while stack:
            node, element = stack.pop()
            elements = node.map
            assert elements is not None
            elements.ended += 1
            elements.failed.add(element)
            for user in node.aligned_users:
                if user.map is not None and element in user.map.missing:
                    del user.map.missing[element]
                    self._reports.append(Skip(user.id, element, node.id))
                    stack.append((user, element))
            if elements.ended == elements.extent:
                self._map_ended(node)

    def _map_ended(self, node: Node) -> None:
        elements = node.map
        assert elements is not None
        self._reports.append(MapEnded(node.id, tuple(sorted(elements.failed))))
        lost = len(elements.failed)
        enough = not lost or (node.partial and lost < elements.extent)
        self._end(node, _DONE if enough else State.FAILED)

    def _rank_if_scarce(self) -> None:
        """Compute priorities where they decide something and enough is new.

        One pass costs O(tasks not ended); it is made only after the number of tasks has grown by
        an eighth since the last, so that streaming n tasks in costs O(n) passes' worth in all.
        """
        if self._unranked * 8 < self._unended or not self._unranked:
            return
        if self._free == _UNLIMITED and len(self._ready) == 1:
            return
        self._unranked = 0
        for node in reversed(self._nodes.values()):
            if not node.state.ended:
                below = max(
                    (user.priority for user in (*node.users, *node.aligned_users)), default=0.0
                )
                node.priority = node.weight + below
        for group, heap in self._ready.items():
            fresh = [(-item[3].priority, *item[1:]) for item in heap]
            heapq.heapify(fresh)
            self._ready[group] = fresh


class _NoGroup(enum.Enum):
    NO_GROUP = 0


_NO_GROUP = _NoGroup.NO_GROUP


def _not_there(node: Node, producer_id: int) -> ValueError:
    return ValueError(f"task {node.id} depends on {producer_id}, which is not there")


def _element_done(node: Node, element: int) -> bool:
    if node.state is _DONE:
        return True
    return node.map is not None and element in node.map.done
