"""The task fetching unit: rules 1 to 6 of its docstring, on random DAGs under a simulated clock."""

from __future__ import annotations

import heapq
import sys
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings, strategies as st

from llmcompiler.runtime.schedule import (
    TRANSITIONS,
    Call,
    MapEnded,
    Node,
    Open,
    Skip,
    State,
    TaskFetchingUnit,
)


@dataclass
class Simulation:
    """Runs a unit with calls of given lengths; time jumps from one end of a call to the next."""

    unit: TaskFetchingUnit
    length: dict[int, int]
    extent: dict[int, int] = field(default_factory=dict)
    failing: set[tuple[int, int | None]] = field(default_factory=set)
    started: dict[Call, int] = field(default_factory=dict)
    ended: dict[Call, int] = field(default_factory=dict)
    skipped: list[Skip] = field(default_factory=list)
    maps: dict[int, MapEnded] = field(default_factory=dict)
    now: int = 0
    most: int = sys.maxsize

    def take(self, running: list[tuple[int, int, Call]]) -> None:
        while self.unit.changed:
            commands = self.unit.take(self.most)
            assert sum(isinstance(command, Call) for command in commands) <= self.most
            for command in commands:
                match command:
                    case Call():
                        self.started[command] = self.now
                        end = self.now + self.length[command.task]
                        heapq.heappush(running, (end, len(self.started), command))
                    case Open():
                        self.unit.open(command.task, self.extent[command.task])
                    case Skip():
                        self.skipped.append(command)
                    case MapEnded():
                        self.maps[command.task] = command

    def run(self) -> Simulation:
        running: list[tuple[int, int, Call]] = []
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
    unit.add(Node(task, deps, weight=length) for task, deps, length in tasks)
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
    done = simulate(tasks, slots, most=most)
    ready = {
        task: max((done.ended[Call(dep)] for dep in deps), default=0) for task, deps, _ in tasks
    }
    for task, _, _ in tasks:
        for instant in range(ready[task], done.started[Call(task)]):
            busy = sum(done.started[call] <= instant < done.ended[call] for call in done.started)
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
    unit.add([Node(1, is_map=True), *(Node(task) for task in range(2, 6))])
    assert unit.take(3) == [Open(1), *(Call(task) for task in (2, 3, 4))]
    unit.open(1, 4)
    assert [unit.take(3), unit.changed] == [[Call(1, 0), Call(1, 1), Call(1, 2)], True]
    assert unit.withdraw(1) == [Call(1, 3)]
    assert [unit.take(3), unit.take(3), unit.changed] == [[Call(5)], [], False]


@given(dags(), st.integers(1, 6), st.data())
def test_a_failure_skips_exactly_what_depends_on_it(
    tasks: list[tuple[int, tuple[int, ...], int]], slots: int, data: st.DataObject
) -> None:
    bad = data.draw(st.sets(st.sampled_from([task for task, _, _ in tasks])))
    done = simulate(tasks, slots, {(task, None) for task in bad})
    lost: set[int] = set()
    for task, deps, _ in tasks:
        if any(dep in bad or dep in lost for dep in deps):
            lost.add(task)
    assert {skip.task for skip in done.skipped} == lost
    assert {call.task for call in done.started} == {task for task, _, _ in tasks} - lost
    assert done.unit.idle


@given(dags(), st.integers(1, 4), st.data())
def test_tasks_that_stream_in_run_as_if_they_had_been_there(
    tasks: list[tuple[int, tuple[int, ...], int]], slots: int, data: st.DataObject
) -> None:
    unit = TaskFetchingUnit(slots)
    simulation = Simulation(unit, {task: length for task, _, length in tasks})
    running: list[tuple[int, int, Call]] = []
    rest = list(tasks)
    while rest or running:
        if rest and (not running or data.draw(st.booleans())):
            task, deps, length = rest.pop(0)
            unit.add([Node(task, deps, weight=length)])
        else:
            simulation.now, _, call = heapq.heappop(running)
            simulation.ended[call] = simulation.now
            unit.done(call)
        simulation.take(running)
    assert unit.idle
    for task, deps, _ in tasks:
        assert all(simulation.ended[Call(dep)] <= simulation.started[Call(task)] for dep in deps)


def test_the_longest_remaining_path_goes_first() -> None:
    unit = TaskFetchingUnit(slots=1)
    unit.add([Node(1), Node(2), Node(3, (2,)), Node(4, (3,))])
    assert unit.take() == [Call(2)]


def test_a_group_has_slots_of_its_own_and_holds_up_nobody_else() -> None:
    unit = TaskFetchingUnit(group_slots={"slow": 1})
    unit.add([Node(1, group="slow"), Node(2, group="slow"), Node(3, group="fast")])
    assert set(unit.take()) == {Call(1), Call(3)}
    unit.done(Call(1))
    assert unit.take() == [Call(2)]


def test_a_map_of_a_million_elements_is_taken_from_a_counter() -> None:
    unit = TaskFetchingUnit(slots=2)
    unit.add([Node(1, is_map=True)])
    assert unit.take() == [Open(1)]
    unit.open(1, 1_000_000)
    assert unit.take() == [Call(1, 0), Call(1, 1)]
    unit.done(Call(1, 1))
    assert unit.take() == [Call(1, 2)]


def test_an_empty_map_ends_at_once_and_releases_its_users() -> None:
    unit = TaskFetchingUnit()
    unit.add([Node(1, is_map=True), Node(2, (1,))])
    unit.take()
    unit.open(1, 0)
    assert unit.take() == [MapEnded(1, ()), Call(2)]


def test_an_aligned_element_starts_when_its_own_producer_is_done() -> None:
    unit = TaskFetchingUnit()
    unit.add([Node(1, is_map=True), Node(2, is_map=True, aligned=(1,))])
    unit.take()
    unit.open(1, 2)
    assert set(unit.take()) == {Open(2), Call(1, 0), Call(1, 1)}
    unit.open(2, 2)
    unit.done(Call(1, 1))
    assert unit.take() == [Call(2, 1)]


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
        Node(1, is_map=True),
        Node(2, is_map=True, aligned=(1,)),
        Node(3, is_map=True, aligned=(1, 2)),
        Node(4, (3,)),
    ]
    failing: set[tuple[int, int | None]] = {(1, bad) for bad in first_bad}
    failing |= {(2, bad) for bad in second_bad}
    simulation = Simulation(unit, {1: 3, 2: 1, 3: 2, 4: 1}, {1: extent, 2: extent, 3: extent})
    simulation.failing = failing
    if late:  # the consumers are planned after the producer has ended
        unit.add(nodes[:1])
        simulation.run()
        unit.add(nodes[1:])
    else:
        unit.add(nodes)
    simulation.run()
    everything = set(range(extent))
    lost_1 = everything & first_bad
    lost_2 = lost_1 | (everything & second_bad)
    assert set(simulation.maps[1].failed) == lost_1
    assert set(simulation.maps[2].failed) == lost_2
    assert set(simulation.maps[3].failed) == lost_2
    assert unit.state(4) is (State.SKIPPED if lost_2 else State.DONE)
    assert {call.element for call in simulation.started if call.task == 3} == everything - lost_2
    assert unit.idle


def test_a_paused_call_frees_its_slot_and_comes_back() -> None:
    unit = TaskFetchingUnit(slots=1)
    unit.add([Node(1), Node(2)])
    assert unit.take() == [Call(1)]
    unit.pause(Call(1))
    assert unit.take() == [Call(2)]
    unit.again(Call(1))
    assert unit.take() == []
    unit.done(Call(2))
    assert unit.take() == [Call(1)]


def test_cancel_ends_everything_and_names_it() -> None:
    unit = TaskFetchingUnit(slots=1)
    unit.add([Node(1), Node(2), Node(3, (1, 2))])
    unit.take()
    assert unit.cancel() == (1, 2, 3)
    assert unit.idle and unit.take() == []


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([Node(1), Node(1)], "task 1 was added before"),
        ([Node(1, (2,))], "task 1 depends on 2, which is not there"),
    ],
)
def test_a_wrong_graph_is_refused(nodes: list[Node], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskFetchingUnit().add(nodes)


def test_states_that_are_ends_lead_nowhere() -> None:
    assert {state for state in State if state.ended} == {
        state for state, after in TRANSITIONS.items() if not after
    }


@settings(max_examples=20)
@given(st.integers(1, 400))
def test_a_chain_fed_one_by_one_costs_no_more_than_linear_ranking(length: int) -> None:
    unit = TaskFetchingUnit(slots=1)
    for task in range(1, length + 1):
        unit.add([Node(task, (task - 1,) if task > 1 else ())])
    for task in range(1, length + 1):
        assert unit.take() == [Call(task)]
        unit.done(Call(task))
    assert unit.idle
