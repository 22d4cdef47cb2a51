"""Tasks as the task fetching unit sees them, their states, and the table of changes of state.

Rules, and the machine that applies them: ``schedule.py``.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence


class State(enum.Enum):
    """Where a task is on its way."""

    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"

    successors: tuple[State, ...]
    """States that may follow this one, from ``TRANSITIONS``."""
    is_final: bool
    """True if no state may follow this one."""


TRANSITIONS: dict[State, tuple[State, ...]] = {
    State.WAITING: (State.READY, State.FAILED, State.SKIPPED, State.CANCELLED),
    State.READY: (State.RUNNING, State.FAILED, State.CANCELLED),
    State.RUNNING: (State.DONE, State.FAILED, State.CANCELLED),
    State.DONE: (),
    State.FAILED: (),
    State.SKIPPED: (),
    State.CANCELLED: (),
}
"""The states that may follow each state. The diagram in docs/architecture.md is drawn from it."""

# A look-up in the dictionary would hash the state, which takes longer than the change itself.
for _state, _successors in TRANSITIONS.items():
    _state.successors = _successors
    _state.is_final = not _successors


class Elements:
    """Elements of an opened map."""

    __slots__ = (
        "done_elements",
        "ended_count",
        "extent",
        "failed_elements",
        "is_growing",
        "missing_counts",
        "next_element",
    )

    def __init__(self, extent: int) -> None:
        self.extent = extent
        self.is_growing = False  # True while further elements may be offered
        self.next_element = 0  # elements of an unaligned map are taken from this counter
        self.ended_count = 0
        self.failed_elements: set[int] = set()
        # By aligned element: how many of its producers are not done.
        self.missing_counts: dict[int, int] = {}
        self.done_elements: set[int] = set()


NO_NODES: list[ScheduleNode] = []
"""Shared by all nodes without users, and never changed: most lists would be empty ones."""


class ScheduleNode:
    """A task as the unit sees it. A node belongs to the one unit that it is added to.

    Args:
        task_id: unique in the run.
        waits_for: ids of tasks whose whole result the task needs.
        is_map: True if ``open`` sets the number of its elements later.
        aligned: ids of maps; element i of this map needs element i of each of them.
        weight: how long the task is expected to run, in any unit; for priorities only.
        group: calls of one group may share a limit of their own.
        partial: True if a map is done, not failed, although some of its elements failed.
    """

    # The unit stores its own state here too: a run may have a hundred thousand tasks, and every
    # further object of a task is one more for the garbage collector to walk.
    __slots__ = (
        "aligned",
        "aligned_users",
        "elements",
        "group",
        "id",
        "is_map",
        "missing_count",
        "order",
        "partial",
        "priority",
        "state",
        "users",
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
        self.state = State.WAITING
        self.missing_count = 0  # tasks that it still waits for
        self.users: list[ScheduleNode] = NO_NODES
        self.aligned_users: list[ScheduleNode] = NO_NODES
        self.elements: Elements | None = None


def move(node: ScheduleNode, target: State) -> None:
    """Change a node's state. Every change is made here.

    Raises:
        RuntimeError: ``TRANSITIONS`` does not allow it, so the unit has a bug.
    """
    if target not in node.state.successors:
        raise RuntimeError(f"task {node.id} cannot go from {node.state.value} to {target.value}")
    node.state = target
