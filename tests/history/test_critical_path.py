"""The critical path of a run, and how much later everything else could have ended."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from llmcompiler.history.critical_path import critical_path
from llmcompiler.plan.expressions import ListExpr, Reference
from llmcompiler.plan.model import Task
from llmcompiler.runtime.results import Observation


def observation(task_id: int, seconds: float, *needs: int, **fields: Any) -> Observation:
    args = (ListExpr(items=tuple(Reference(task=dep) for dep in needs)),) if needs else ()
    task = Task(id=task_id, tool="work", args=args)
    return Observation(task, **{"status": "done", "started": 0.0, "seconds": seconds, **fields})


def test_the_longest_chain_is_found_and_the_rest_has_slack() -> None:
    result = critical_path(
        {
            1: observation(1, 1),
            2: observation(2, 5),
            3: observation(3, 2, 1),
            4: observation(4, 1, 2, 3),
        }
    )
    assert result.tasks == (2, 4)
    assert result.seconds == 6
    assert result.slack == {1: 2, 2: 0, 3: 2, 4: 0}


def test_what_never_started_does_not_count() -> None:
    skipped = observation(2, 0, 1, status="skipped", started=None)
    assert critical_path({1: observation(1, 3), 2: skipped}).tasks == (1,)
    assert critical_path({}).tasks == ()


@given(st.data())
def test_slack_can_be_used_up_and_no_more(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 8))
    durations = [data.draw(st.integers(0, 9)) for _ in range(size)]
    needs = [
        data.draw(st.sets(st.integers(1, number))) if number else set() for number in range(size)
    ]

    def path(seconds: list[float]) -> Any:
        return critical_path(
            {i + 1: observation(i + 1, seconds[i], *needs[i]) for i in range(size)}
        )

    result = path(durations)
    assert result.seconds == pytest.approx(sum(durations[task - 1] for task in result.tasks))
    for task, slack in result.slack.items():
        longer = [*durations]
        longer[task - 1] += slack
        assert path(longer).seconds == result.seconds
        longer[task - 1] += 1
        assert path(longer).seconds == result.seconds + 1
