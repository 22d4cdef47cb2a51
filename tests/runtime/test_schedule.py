"""The task fetching unit: rules 1 to 6 of its docstring, on random DAGs under a simulated clock."""

from __future__ import annotations

import ast
import heapq
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from llmcompiler.runtime import schedule, states
from llmcompiler.runtime.schedule import MapEnded, OpenMap, Skip, TaskCall, TaskFetchingUnit
from llmcompiler.runtime.states import TRANSITIONS, ScheduleNode, State


@dataclass
class Simulation:
    """Runs a unit with calls of given lengths; time jumps from one end of a call to the next."""

    unit: TaskFetchingUnit
    length: dict[int, int]
    extent: dict[int, int] = field(default_factory=dict)
    failing: set[tuple[int, int | None]] = field(default_factory=set)
    started: dict[TaskCall, int] = field(default_factory=dict)
    ended: dict[TaskCall, int] = field(default_factory=dict)
    skipped: list[Skip] = field(default_factory=list)
    maps: dict[int, MapEnded] = field(default_factory=dict)
    now: int = 0
    most: int = sys.maxsize

    def take(self, running: list[tuple[int, int, TaskCall]]) -> None:
        while self.unit.needs_take:
            commands = self.unit.take(self.most)
            assert sum(isinstance(command, TaskCall) for command in commands) <= self.most
            for command in commands:
                match command:
                    case TaskCall():
                        self.started[command] = self.now
                        end = self.now + self.length[command.task]
                        heapq.heappush(running, (end, len(self.started), command))
                    case OpenMap():
                        self.unit.open(command.task, self.extent[command.task])
                    case Skip():
                        self.skipped.append(command)
                    case MapEnded():
                        self.maps[command.task] = command

    def run(self) -> Simulation:
        running: list[tuple[int, int, TaskCall]] = []
        self.take(running)
        while running:
            self.now, _, call = heapq.heappop(running)
            self.ended[call] = self.now
            if (call.task, call.element) in self.failing:
                self.unit.fail(call)
            else:
                self.unit.done(call)
            self.take(running)
        return self


@st.composite
def dags(draw: st.DrawFn) -> list[tuple[int, tuple[int, ...], int]]:
    """Tasks in order: id, dependencies, length."""
    count = draw(st.integers(1, 24))
    tasks = []
    for task in range(1, count + 1):
        earlier = st.sampled_from(range(1, task)) if task > 1 else st.nothing()
        deps = draw(st.sets(earlier, max_size=4)) if task > 1 else set()
        tasks.append((task, tuple(sorted(deps)), draw(st.integers(1, 9))))
    return tasks


def simulate(
    tasks: list[tuple[int, tuple[int, ...], int]],
    slots: int | None,
    failing: set[tuple[int, int | None]] | None = None,
    most: int = sys.maxsize,
) -> Simulation:
    unit = TaskFetchingUnit(slots)
    unit.add(ScheduleNode(task, deps, weight=length) for task, deps, length in tasks)
    return Simulation(
        unit, {task: length for task, _, length in tasks}, failing=failing or set(), most=most
    ).run()


def critical_path(tasks: list[tuple[int, tuple[int, ...], int]]) -> int:
    longest: dict[int, int] = {}
    for task, deps, length in tasks:
        longest[task] = length + max((longest[dep] for dep in deps), default=0)
    return max(longest.values())


@given(dags(), st.integers(1, 6), st.integers(1, 8))
def test_no_slot_is_free_while_a_call_is_ready(
    tasks: list[tuple[int, tuple[int, ...], int]], slots: int, most: int
) -> None:
    result = simulate(tasks, slots, most=most)
    ready = {
        task: max((result.ended[TaskCall(dep)] for dep in deps), default=0)
        for task, deps, _ in tasks
    }
    for task, _, _ in tasks:
        for instant in range(ready[task], result.started[TaskCall(task)]):
            busy = sum(
                result.started[call] <= instant < result.ended[call] for call in result.started
            )
            assert busy == slots, f"task {task} waited at {instant} beside a free slot"


@given(dags(), st.integers(1, 6))
def test_the_makespan_keeps_grahams_bound(
    tasks: list[tuple[int, tuple[int, ...], int]], slots: int
) -> None:
    work = sum(length for _, _, length in tasks)
    bound = work / slots + (1 - 1 / slots) * critical_path(tasks)
    assert simulate(tasks, slots).now <= bound + 1e-9


@given(dags(), st.integers(1, 8))
def test_without_a_limit_a_plan_takes_its_critical_path(
    tasks: list[tuple[int, tuple[int, ...], int]], most: int
) -> None:
    assert simulate(tasks, None, most=most).now == critical_path(tasks)


@given(dags(), st.one_of(st.none(), st.integers(1, 6)), st.integers(1, 8))
def test_what_starts_is_the_same_a_few_at_a_time(
    tasks: list[tuple[int, tuple[int, ...], int]], slots: int | None, most: int
) -> None:
    assert simulate(tasks, slots, most=most).started == simulate(tasks, slots).started


@pytest.mark.parametrize("slots", [None, 100])
def test_a_wide_level_can_be_taken_a_few_at_a_time(slots: int | None) -> None:
    unit = TaskFetchingUnit(slots)
    unit.add([ScheduleNode(1, is_map=True), *(ScheduleNode(task) for task in range(2, 6))])
    assert unit.take(3) == [OpenMap(1), *(TaskCall(task) for task in (2, 3, 4))]
    unit.open(1, 4)
    assert [unit.take(3), unit.needs_take] == [
        [TaskCall(1, 0), TaskCall(1, 1), TaskCall(1, 2)],
        True,
    ]
    assert unit.withdraw(1) == [TaskCall(1, 3)]
    assert [unit.take(3), unit.take(3), unit.needs_take] == [[TaskCall(5)], [], False]


@given(dags(), st.integers(1, 6), st.data())
def test_a_failure_skips_exactly_what_depends_on_it(
    tasks: list[tuple[int, tuple[int, ...], int]], slots: int, data: st.DataObject
) -> None:
    failing = data.draw(st.sets(st.sampled_from([task for task, _, _ in tasks])))
    result = simulate(tasks, slots, {(task, None) for task in failing})
    expected_skips: set[int] = set()
    for task, deps, _ in tasks:
        if any(dep in failing or dep in expected_skips for dep in deps):
            expected_skips.add(task)
    assert {skip.task for skip in result.skipped} == expected_skips
    assert {call.task for call in result.started} == (
        {task for task, _, _ in tasks} - expected_skips
    )
    assert result.unit.is_idle


@given(dags(), st.integers(1, 4), st.data())
def test_tasks_that_stream_in_run_as_if_they_had_been_there(
    tasks: list[tuple[int, tuple[int, ...], int]], slots: int, data: st.DataObject
) -> None:
    unit = TaskFetchingUnit(slots)
    simulation = Simulation(unit, {task: length for task, _, length in tasks})
    running: list[tuple[int, int, TaskCall]] = []
    remaining = list(tasks)
    while remaining or running:
        if remaining and (not running or data.draw(st.booleans())):
            task, deps, length = remaining.pop(0)
            unit.add([ScheduleNode(task, deps, weight=length)])
        else:
            simulation.now, _, call = heapq.heappop(running)
            simulation.ended[call] = simulation.now
            unit.done(call)
        simulation.take(running)
    assert unit.is_idle
    for task, deps, _ in tasks:
        assert all(
            simulation.ended[TaskCall(dep)] <= simulation.started[TaskCall(task)] for dep in deps
        )


def test_the_longest_remaining_path_goes_first() -> None:
    unit = TaskFetchingUnit(slots=1)
    unit.add([ScheduleNode(1), ScheduleNode(2), ScheduleNode(3, (2,)), ScheduleNode(4, (3,))])
    assert unit.take() == [TaskCall(2)]


def test_a_group_has_slots_of_its_own_and_holds_up_nobody_else() -> None:
    unit = TaskFetchingUnit(group_slots={"slow": 1})
    unit.add(
        [
            ScheduleNode(1, group="slow"),
            ScheduleNode(2, group="slow"),
            ScheduleNode(3, group="fast"),
        ]
    )
    assert set(unit.take()) == {TaskCall(1), TaskCall(3)}
    unit.done(TaskCall(1))
    assert unit.take() == [TaskCall(2)]


def test_a_map_of_a_million_elements_is_taken_from_a_counter() -> None:
    unit = TaskFetchingUnit(slots=2)
    unit.add([ScheduleNode(1, is_map=True)])
    assert unit.take() == [OpenMap(1)]
    unit.open(1, 1_000_000)
    assert unit.take() == [TaskCall(1, 0), TaskCall(1, 1)]
    unit.done(TaskCall(1, 1))
    assert unit.take() == [TaskCall(1, 2)]


def test_an_empty_map_ends_at_once_and_releases_its_users() -> None:
    unit = TaskFetchingUnit()
    unit.add([ScheduleNode(1, is_map=True), ScheduleNode(2, (1,))])
    unit.take()
    unit.open(1, 0)
    assert unit.take() == [MapEnded(1, ()), TaskCall(2)]


def test_an_aligned_element_starts_when_its_own_producer_is_done() -> None:
    unit = TaskFetchingUnit()
    unit.add([ScheduleNode(1, is_map=True), ScheduleNode(2, is_map=True, aligned=(1,))])
    unit.take()
    unit.open(1, 2)
    assert set(unit.take()) == {OpenMap(2), TaskCall(1, 0), TaskCall(1, 1)}
    unit.open(2, 2)
    unit.done(TaskCall(1, 1))
    assert unit.take() == [TaskCall(2, 1)]


@given(
    st.integers(0, 6),
    st.integers(1, 4),
    st.sets(st.integers(0, 5)),
    st.sets(st.integers(0, 5)),
    st.booleans(),
)
def test_aligned_maps_lose_only_the_elements_that_failed(
    extent: int, slots: int, first_bad: set[int], second_bad: set[int], late: bool
) -> None:
    unit = TaskFetchingUnit(slots)
    nodes = [
        ScheduleNode(1, is_map=True),
        ScheduleNode(2, is_map=True, aligned=(1,)),
        ScheduleNode(3, is_map=True, aligned=(1, 2)),
        ScheduleNode(4, (3,)),
    ]
    failing: set[tuple[int, int | None]] = {(1, element) for element in first_bad}
    failing |= {(2, element) for element in second_bad}
    simulation = Simulation(unit, {1: 3, 2: 1, 3: 2, 4: 1}, {1: extent, 2: extent, 3: extent})
    simulation.failing = failing
    if late:  # the consumers are planned after the producer has ended
        unit.add(nodes[:1])
        simulation.run()
        unit.add(nodes[1:])
    else:
        unit.add(nodes)
    simulation.run()
    all_elements = set(range(extent))
    expected_1 = all_elements & first_bad
    expected_2 = expected_1 | (all_elements & second_bad)
    assert set(simulation.maps[1].failed) == expected_1
    assert set(simulation.maps[2].failed) == expected_2
    assert set(simulation.maps[3].failed) == expected_2
    assert unit.state(4) is (State.SKIPPED if expected_2 else State.DONE)
    assert {
        call.element for call in simulation.started if call.task == 3
    } == all_elements - expected_2
    assert unit.is_idle


def test_a_paused_call_frees_its_slot_and_comes_back() -> None:
    unit = TaskFetchingUnit(slots=1)
    unit.add([ScheduleNode(1), ScheduleNode(2)])
    assert unit.take() == [TaskCall(1)]
    unit.pause(TaskCall(1))
    assert unit.take() == [TaskCall(2)]
    unit.requeue(TaskCall(1))
    assert unit.take() == []
    unit.done(TaskCall(2))
    assert unit.take() == [TaskCall(1)]


def test_cancel_ends_all_elements_and_names_it() -> None:
    unit = TaskFetchingUnit(slots=1)
    unit.add([ScheduleNode(1), ScheduleNode(2), ScheduleNode(3, (1, 2))])
    unit.take()
    assert unit.cancel() == (1, 2, 3)
    assert unit.is_idle and unit.take() == []


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([ScheduleNode(1), ScheduleNode(1)], "task 1 was added before"),
        ([ScheduleNode(1, (2,))], "task 1 depends on 2, which is not there"),
    ],
)
def test_a_wrong_graph_is_refused(nodes: list[ScheduleNode], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskFetchingUnit().add(nodes)


Table = dict[str, tuple[str, ...]]
"""Names of states that may follow each state."""

THE_TABLE: Table = {
    state.name: tuple(target.name for target in targets) for state, targets in TRANSITIONS.items()
}


def load_unit(table: Table) -> tuple[ModuleType, ModuleType]:
    """Load a copy of the modules ``states`` and ``schedule`` that goes by another table."""
    tree = ast.parse(Path(states.__file__).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "TRANSITIONS":
            node.value = ast.parse(
                "{getattr(State, name): tuple(getattr(State, target) for target in targets)"
                f" for name, targets in {table!r}.items()}}",
                mode="eval",
            ).body
            break
    else:
        raise AssertionError("states.py has no table TRANSITIONS")
    copies = []
    with pytest.MonkeyPatch.context() as patch:
        for module, code in ((states, tree), (schedule, None)):
            copy = ModuleType(module.__name__)
            patch.setitem(sys.modules, module.__name__, copy)
            source = code or ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))
            exec(compile(source, module.__name__, "exec"), copy.__dict__)
            copies.append(copy)
    return copies[0], copies[1]


def observed_changes(table: Table) -> set[tuple[str, str]]:
    """Every change of state, by name, that a unit with this table makes in a few short runs."""
    states_copy, schedule_copy = load_unit(table)
    changes: set[tuple[str, str]] = set()
    move = schedule_copy.move

    def observe(node: Any, target: Any) -> None:
        before = node.state
        move(node, target)
        changes.add((before.name, target.name))

    schedule_copy.move = observe  # type: ignore[attr-defined]
    task, call = states_copy.ScheduleNode, schedule_copy.TaskCall
    # A task is done; one fails, which skips its user and the user of the user.
    unit = schedule_copy.TaskFetchingUnit()
    unit.add([task(1), task(2, (1,)), task(3, (2,)), task(4, (3,))])
    unit.take()
    unit.done(call(1))
    unit.take()
    unit.fail(call(2))
    reports = unit.take()
    assert [report.task for report in reports] == [3, 4]
    assert unit.is_idle
    # The caller gives up a map that may be opened, and a task that waits.
    unit = schedule_copy.TaskFetchingUnit()
    unit.add([task(1), task(2, is_map=True), task(3, (1,))])
    unit.take()
    unit.give_up(2)
    unit.give_up(3)
    # The run is cancelled while a task runs, one is ready and one waits.
    unit = schedule_copy.TaskFetchingUnit(slots=1)
    unit.add([task(1), task(2), task(3, (1, 2))])
    unit.take()
    assert unit.cancel() == (1, 2, 3)
    assert unit.is_idle
    return changes


def check_that_the_unit_goes_by(table: Table) -> None:
    assert observed_changes(table) == {
        (name, target) for name, targets in table.items() for target in targets
    }


def test_the_unit_makes_exactly_the_changes_of_the_table() -> None:
    check_that_the_unit_goes_by(THE_TABLE)


@pytest.mark.parametrize("target", list(THE_TABLE))
@pytest.mark.parametrize("name", list(THE_TABLE))
def test_a_change_added_to_the_table_or_dropped_from_it_is_noticed(name: str, target: str) -> None:
    targets = set(THE_TABLE[name]) ^ {target}
    mutant = {**THE_TABLE, name: tuple(sorted(targets))}
    with pytest.raises((AssertionError, RuntimeError, ValueError)):
        check_that_the_unit_goes_by(mutant)


@settings(max_examples=20)
@given(st.integers(1, 400))
def test_a_chain_fed_one_by_one_costs_no_more_than_linear_ranking(length: int) -> None:
    unit = TaskFetchingUnit(slots=1)
    for task in range(1, length + 1):
        unit.add([ScheduleNode(task, (task - 1,) if task > 1 else ())])
    for task in range(1, length + 1):
        assert unit.take() == [TaskCall(task)]
        unit.done(TaskCall(task))
    assert unit.is_idle
