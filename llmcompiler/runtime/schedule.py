"""The task fetching unit: which call may start next. Pure: no clock, no asyncio, no tools.

LLMCompiler (Kim et al., 2023) coined the name after a processor's instruction fetching unit. The
unit is a sans-IO machine in the manner of CPython's ``graphlib``: the caller reports which tasks
were added, opened, done and failed, and takes what may start now.

Rules
-----
1. A task becomes *ready* when every task it waits for is done. Nothing else delays the task: no
   level barrier, no polling.
2. ``take`` hands out ready calls while a slot is free, in all and in the call's group. It never
   leaves a free slot beside a ready call (work conservation), unless the caller limits the number
   of calls; the next ``take`` hands out the rest.
3. When there are more ready calls than slots, those on the longest remaining path go first
   (critical-path priority); ties go to the one added first.
4. A *map* has no extent until ``open`` sets it. Its elements are taken one by one from a counter,
   so a map of a million elements costs no more memory than its results.
5. An element of a map that is *aligned* with another map waits for that map's element of the same
   number only, not for the whole list.
6. A *growing* map gets its elements one by one from ``offer``, until ``close`` ends it.
7. When a task fails, everything that waits for it is *skipped*, at once and transitively; a failed
   element skips the aligned elements only. Whatever does not depend on it goes on.

States of a task: waiting -> ready -> running -> done | failed, or waiting -> skipped. A task that
has not ended can also be cancelled, or fail because its caller gives it up. The table of these
changes is ``states.TRANSITIONS``; ``states.move`` makes every change. A map is ready when it may be
opened, and running once it is open.

Priorities are computed lazily: they matter only when slots are scarce. A ``take`` computes them if
it finds more ready calls than slots and enough tasks were added since the last computation. Every
other event costs O(log ready) plus the task's edges.
"""

from __future__ import annotations

import enum
import heapq
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from llmcompiler.runtime.states import NO_NODES, Elements, ScheduleNode, State, move

_UNLIMITED = float("inf")

# Module constants: an enum looks its members up by name, which is slow in the hot path.
_WAITING, _READY, _RUNNING, _DONE = State.WAITING, State.READY, State.RUNNING, State.DONE


class TaskCall(NamedTuple):
    """Something to start: a task, or one element of a map."""

    task: int
    element: int | None = None


@dataclass(frozen=True, slots=True)
class OpenMap:
    """A map whose inputs have arrived: the caller works out its extent and calls ``open``."""

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


class TaskFetchingUnit:
    """Decides which calls may start, and counts the slots in use.

    Args:
        slots: most calls running at a time; ``None`` for no limit.
        group_slots: the same for each group by name.

    Attributes:
        needs_take: True if ``take`` may have something new, or handed out less than it could.
    """

    def __init__(self, slots: int | None = None, group_slots: dict[str, int] | None = None) -> None:
        self._free: float = _UNLIMITED if slots is None else slots
        self._group_free: dict[str | None, float] = {None: _UNLIMITED}
        self._group_free.update((group_slots or {}).items())
        self._nodes: dict[int, ScheduleNode] = {}
        # A heap item is (-priority, order, element, node); element -1 stands for the task itself,
        # or for the counter of an unaligned map.
        self._ready: dict[str | None, list[tuple[float, int, int, ScheduleNode]]] = {None: []}
        self._is_sorted = False  # True if the ready list is sorted (unlimited mode only)
        self._openable: list[ScheduleNode] = []
        self._reports: list[Skip | MapEnded] = []
        self._unended_count = 0
        self._unranked_count = 0
        self.needs_take = False

    # What the caller reports.

    def add(self, nodes: Iterable[ScheduleNode]) -> None:
        """Add tasks, each after those it depends on.

        Raises:
            ValueError: an id was added before, or a dependency was not.
        """
        self.needs_take = True
        nodes_by_id = self._nodes
        for node in nodes:
            if node.id in nodes_by_id:
                raise ValueError(f"task {node.id} was added before")
            because: int | None = None
            for producer_id in node.waits_for:
                if (producer := nodes_by_id.get(producer_id)) is None:
                    raise _missing_dependency(node, producer_id)
                state = producer.state
                if not state.is_final:
                    if producer.users is NO_NODES:
                        producer.users = [node]
                    else:
                        producer.users.append(node)
                    node.missing_count += 1
                elif state is not _DONE:
                    because = producer_id
            if node.aligned and (failed_map := self._connect_aligned(node)) is not None:
                because = failed_map
            if node.group not in self._group_free:
                node.group = None
            node.order = len(nodes_by_id)
            nodes_by_id[node.id] = node
            self._unended_count += 1
            self._unranked_count += 1
            if because is not None:
                self._skip(node, because)
            elif node.missing_count == 0:
                self._make_ready(node)

    def _connect_aligned(self, node: ScheduleNode) -> int | None:
        """Enter a node with the maps it is aligned with.

        Returns:
            The id of a map that ended without elements, so that the node is skipped.
        """
        because: int | None = None
        for producer_id in node.aligned:
            if (producer := self._nodes.get(producer_id)) is None:
                raise _missing_dependency(node, producer_id)
            if producer.elements is None:
                node.missing_count += 1
                if producer.state.is_final:
                    because = producer_id
            if producer.aligned_users is NO_NODES:
                producer.aligned_users = []
            producer.aligned_users.append(node)
        return because

    def open(self, task: int, extent: int) -> None:
        """Set the number of a map's elements.

        Raises:
            ValueError: the task is no map, or ``take`` did not ask to open it.
        """
        node = self._nodes[task]
        if not node.is_map or node.state is not _READY:
            raise ValueError(f"task {task} is not a map that waits to be opened")
        self.needs_take = True
        move(node, _RUNNING)
        node.elements = elements = Elements(extent)
        for user in node.aligned_users:
            self._release(user)
        if extent == 0:
            self._map_ended(node)
            return
        if not node.aligned:
            self._push(node, -1)
            return
        self._align(node, elements)

    def open_growing(self, task: int) -> None:
        """Open a map whose number of elements is not known: ``offer`` adds them.

        Raises:
            ValueError: ``take`` did not hand out the task as ``OpenMap``.
        """
        node = self._nodes[task]
        if not node.is_map or node.state is not _READY:
            raise ValueError(f"task {task} is not a map that waits to be opened")
        self.needs_take = True
        move(node, _RUNNING)
        node.elements = Elements(0)
        node.elements.is_growing = True

    def offer(self, task: int) -> int:
        """Add an element to a growing map; it is ready at once.

        Returns:
            The element's number.
        """
        node = self._nodes[task]
        elements = node.elements
        assert elements is not None
        number = elements.extent
        elements.extent += 1
        self.needs_take = True
        self._push(node, number)
        return number

    def close(self, task: int) -> None:
        """A growing map gets no further elements."""
        node = self._nodes[task]
        elements = node.elements
        if elements is not None and elements.is_growing:
            elements.is_growing = False
            self.needs_take = True
            if elements.ended_count == elements.extent and not node.state.is_final:
                self._map_ended(node)

    def _align(self, node: ScheduleNode, elements: Elements) -> None:
        """Sort the elements of an opened aligned map: those that start, wait, or are skipped."""
        for element in range(elements.extent):
            missing, because = 0, None
            for producer_id in node.aligned:
                producer = self._nodes[producer_id].elements
                assert producer is not None
                if element in producer.failed_elements:
                    because = producer_id
                elif not _element_done(self._nodes[producer_id], element):
                    missing += 1
            if because is not None:
                self._skip_element(node, element, because)
            elif missing == 0:
                self._push(node, element)
            else:
                elements.missing_counts[element] = missing

    def done(self, call: TaskCall) -> None:
        """A call returned."""
        node = self._free_slot(call)
        _, element = call
        if element is None:
            self._end(node, _DONE)
            return
        elements = node.elements
        assert elements is not None
        elements.ended_count += 1
        elements.done_elements.add(element)
        for user in node.aligned_users:
            missing_counts = user.elements.missing_counts if user.elements is not None else None
            if missing_counts is None or element not in missing_counts:
                continue
            missing_counts[element] -= 1
            if missing_counts[element] == 0:
                del missing_counts[element]
                self._push(user, element)
        if elements.ended_count == elements.extent and not elements.is_growing:
            self._map_ended(node)

    def fail(self, call: TaskCall) -> None:
        """A call failed for good."""
        node = self._free_slot(call)
        if call.element is None:
            self._end(node, State.FAILED)
        else:
            self._fail_element(node, call.element)

    def pause(self, call: TaskCall) -> None:
        """A running call has not ended but gives its slot back, until ``requeue``."""
        self._free_slot(call)

    def requeue(self, call: TaskCall) -> None:
        """A paused call is ready again."""
        node = self._nodes[call.task]
        if not node.state.is_final:
            self.needs_take = True
            self._push(node, -1 if call.element is None else call.element)

    def withdraw(self, task: int) -> list[TaskCall]:
        """Hand out all calls of a task that have not started, whether or not slots are free.

        For a task that is cancelled: the caller must report the end of each of these calls, which
        frees their slots. It must ``requeue`` paused calls of the task first.
        """
        node = self._nodes[task]
        elements = node.elements
        heap = self._ready.get(node.group, [])
        queued = [item[2] for item in heap if item[3] is node]
        heap[:] = [item for item in heap if item[3] is not node]
        heapq.heapify(heap)
        if elements is None:
            calls = [TaskCall(task)] * len(queued)
        else:
            unstarted = {element for element in queued if element >= 0}
            unstarted |= elements.missing_counts.keys()
            if -1 in queued:
                unstarted.update(range(elements.next_element, elements.extent))
                elements.next_element = elements.extent
            elements.missing_counts.clear()
            calls = [TaskCall(task, element) for element in sorted(unstarted)]
        self._free -= len(calls)
        self._group_free[node.group] -= len(calls)
        if calls and node.state is _READY:
            move(node, _RUNNING)
        return calls

    def is_open(self, task: int) -> bool:
        """True if the task has calls: it is an opened map, or an ordinary task ready or running."""
        node = self._nodes[task]
        if node.is_map:
            return node.elements is not None
        return node.state in (_READY, _RUNNING)

    def give_up(self, task: int) -> None:
        """Fail a task that was handed out no calls: the inputs of a map do not fit, or the caller
        has cancelled the task.
        """
        self.needs_take = True
        self._end(self._nodes[task], State.FAILED)

    def cancel(self) -> tuple[int, ...]:
        """End every task that has not ended.

        Returns:
            The ids of those tasks, in order. The caller stops the calls that are running, and need
            not report their ends.
        """
        cancelled_nodes = [node for node in self._nodes.values() if not node.state.is_final]
        for node in cancelled_nodes:
            move(node, State.CANCELLED)
        self._unended_count = 0
        self._openable.clear()
        for heap in self._ready.values():
            heap.clear()
        return tuple(node.id for node in cancelled_nodes)

    # What the caller asks.

    def take(self, most: int = sys.maxsize) -> list[TaskCall | OpenMap | Skip | MapEnded]:
        """Return what follows from the reports: calls to start, maps to open, and what ended.

        A call that is handed out holds a slot until ``done``, ``fail`` or ``pause``.

        Args:
            most: upper limit of calls to hand out; if more may start, ``needs_take`` stays true.
        """
        self.needs_take = False
        out: list[TaskCall | OpenMap | Skip | MapEnded] = []
        if self._reports:
            out.extend(self._reports)
            self._reports.clear()
        if self._openable:
            ready = (node for node in self._openable if node.state is _READY)
            out.extend(OpenMap(node.id) for node in ready)
            self._openable.clear()
        if self._free == _UNLIMITED and len(self._ready) == 1:
            self._take_all(out, most)
            return out
        self._rank_if_scarce()
        while self._free > 0 and (group := self._best_group()) is not _NO_GROUP:
            assert group is None or isinstance(group, str)
            if most == 0:
                self.needs_take = True
                break
            most -= 1
            heap = self._ready[group]
            _, _, element, node = heap[0]
            elements = node.elements
            if elements is not None and element < 0:
                element = elements.next_element
                elements.next_element += 1
                if elements.next_element == elements.extent:
                    heapq.heappop(heap)
            else:
                heapq.heappop(heap)
            if node.state is _READY:
                move(node, _RUNNING)
            self._free -= 1
            self._group_free[group] -= 1
            out.append(TaskCall(node.id, element if elements is not None else None))
        return out

    def _take_all(self, out: list[TaskCall | OpenMap | Skip | MapEnded], most: int) -> None:
        """``take`` without any limit: no slots to count, no priorities to compute."""
        ready = self._ready[None]
        if not self._is_sorted:
            ready.sort()
            self._is_sorted = True
        taken_count = 0
        for _, _, element, node in ready:
            if most == 0:
                break
            if node.state is _READY:
                move(node, _RUNNING)
            elements = node.elements
            if elements is None:
                out.append(TaskCall(node.id))
                most -= 1
            elif element >= 0:
                out.append(TaskCall(node.id, element))
                most -= 1
            else:
                first = elements.next_element
                elements.next_element = min(first + most, elements.extent)
                out.extend(
                    TaskCall(node.id, number) for number in range(first, elements.next_element)
                )
                most -= elements.next_element - first
                if elements.next_element < elements.extent:
                    break
            taken_count += 1
        del ready[:taken_count]
        self.needs_take = bool(ready)

    def state(self, task: int) -> State:
        """The task's state."""
        return self._nodes[task].state

    @property
    def is_idle(self) -> bool:
        """True if every task that was added has ended."""
        return self._unended_count == 0

    def __contains__(self, task: int) -> bool:
        return task in self._nodes

    # Inside.

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

    def _push(self, node: ScheduleNode, element: int) -> None:
        heap = self._ready.get(node.group)
        if heap is None:
            heap = self._ready[node.group] = []
        heapq.heappush(heap, (-node.priority, node.order, element, node))
        self._is_sorted = False

    def _make_ready(self, node: ScheduleNode) -> None:
        move(node, _READY)
        if node.is_map:
            self._openable.append(node)
        else:
            self._push(node, -1)

    def _release(self, node: ScheduleNode) -> None:
        node.missing_count -= 1
        if node.missing_count == 0 and node.state is _WAITING:
            self._make_ready(node)

    def _free_slot(self, call: TaskCall) -> ScheduleNode:
        """Free the slot of a running call; return the call's task."""
        task_id, _ = call
        node = self._nodes[task_id]
        if node.state is not _RUNNING:
            raise ValueError(f"task {task_id} is {node.state.value}, not running")
        self.needs_take = True
        self._free += 1
        self._group_free[node.group] += 1
        return node

    def _end(self, node: ScheduleNode, state: State) -> None:
        move(node, state)
        self._unended_count -= 1
        users, node.users = node.users, NO_NODES
        if state is _DONE:
            for user in users:
                user.missing_count -= 1
                if user.missing_count == 0 and user.state is _WAITING:
                    self._make_ready(user)
            return
        if node.elements is None:
            users = users + node.aligned_users
        for user in users:
            if not user.state.is_final:
                self._skip(user, node.id)

    def _skip(self, node: ScheduleNode, because: int) -> None:
        """Skip a task and, without recursion, everything that waits for it."""
        stack = [(node, because)]
        while stack:
            node, because = stack.pop()
            if node.state.is_final:
                continue
            move(node, State.SKIPPED)
            self._unended_count -= 1
            self._reports.append(Skip(node.id, None, because))
            users, node.users = node.users, NO_NODES
            stack.extend((user, node.id) for user in reversed(users))
            if node.elements is None:
                stack.extend((user, node.id) for user in node.aligned_users)

    def _skip_element(self, node: ScheduleNode, element: int, because: int) -> None:
        self._reports.append(Skip(node.id, element, because))
        self._fail_element(node, element)

    def _fail_element(self, node: ScheduleNode, element: int) -> None:
        stack = [(node, element)]
        while stack:
            node, element = stack.pop()
            elements = node.elements
            assert elements is not None
            elements.ended_count += 1
            elements.failed_elements.add(element)
            for user in node.aligned_users:
                if user.elements is not None and element in user.elements.missing_counts:
                    del user.elements.missing_counts[element]
                    self._reports.append(Skip(user.id, element, node.id))
                    stack.append((user, element))
            if elements.ended_count == elements.extent and not elements.is_growing:
                self._map_ended(node)

    def _map_ended(self, node: ScheduleNode) -> None:
        elements = node.elements
        assert elements is not None
        self._reports.append(MapEnded(node.id, tuple(sorted(elements.failed_elements))))
        failed_count = len(elements.failed_elements)
        is_done = not failed_count or (node.partial and failed_count < elements.extent)
        self._end(node, _DONE if is_done else State.FAILED)

    def _rank_if_scarce(self) -> None:
        """Compute priorities if slots are limited and enough tasks were added.

        One pass costs O(tasks that have not ended). A pass is made only after the number of tasks
        has grown by an eighth, so n tasks that stream in cost O(n) in all.
        """
        if self._unranked_count * 8 < self._unended_count or not self._unranked_count:
            return
        if self._free == _UNLIMITED and len(self._ready) == 1:
            return
        self._unranked_count = 0
        for node in reversed(self._nodes.values()):
            if not node.state.is_final:
                users = (*node.users, *node.aligned_users)
                longest = max((user.priority for user in users), default=0.0)
                node.priority = node.weight + longest
        for group, heap in self._ready.items():
            ranked = [(-item[3].priority, *item[1:]) for item in heap]
            heapq.heapify(ranked)
            self._ready[group] = ranked


class _NoGroup(enum.Enum):
    NO_GROUP = 0


_NO_GROUP = _NoGroup.NO_GROUP


def _missing_dependency(node: ScheduleNode, producer_id: int) -> ValueError:
    return ValueError(f"task {node.id} depends on {producer_id}, which is not there")


def _element_done(node: ScheduleNode, element: int) -> bool:
    if node.state is _DONE:
        return True
    return node.elements is not None and element in node.elements.done_elements
