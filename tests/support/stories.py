"""Hand-made runs, event by event, for tests of what shows a run."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from llmcompiler.compiler import LLMCompiler
from llmcompiler.errors import Failure
from llmcompiler.events import (
    Event,
    Joined,
    MapOpened,
    ModelFinished,
    ModelStarted,
    ModelText,
    PlanDiagnosed,
    PlanFinished,
    PlanStarted,
    RunFinished,
    RunStarted,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskPlanned,
    TaskRetried,
    TaskSkipped,
    TaskStarted,
)
from llmcompiler.language import parse_plan
from llmcompiler.llm.base import Request
from llmcompiler.testing.doubles import Answer, ScriptedModel, run_virtual

RUN = "0123456789"
NO_COUNTRY = Failure("tool", "ToolError", "there is no country 'Atlantis'", "did you mean 'Japan'?")


def run_started(question: str | None = "How dense is Japan?", **fields: Any) -> RunStarted:
    values: dict[str, Any] = {
        "run": RUN,
        "wall": 1_700_000_000.0,
        "question": question,
        "inputs": {},
        "plan": None,
        "planner": "text",
        "models": {"planner": "local:small", "joiner": "local:small"},
        "tools": ("country", "calc"),
        "catalogue": {},
        "limits": {},
        "prompts": {},
    }
    return RunStarted(0.0, **(values | fields))


def task_planned(
    at: float, number: int, tool: str, *args: Any, deps: tuple[int, ...] = ()
) -> TaskPlanned:
    task = {"id": number, "tool": tool, "args": list(args), "kwargs": {}, "thought": None}
    return TaskPlanned(at, 1, number, task, deps)


def task_started(
    at: float, task: int, *index: int, attempt: int = 1, **arguments: Any
) -> TaskStarted:
    key = "/".join(map(str, (RUN, task, *index)))
    return TaskStarted(at, task, index, attempt, key, arguments)


def dense_japan() -> list[Event]:
    """One country, one calculation, an answer."""
    return [
        run_started(),
        PlanStarted(0.0, 1),
        ModelStarted(0.0, "plan/1", "planner", "local:small", {}),
        ModelText(0.5, "plan/1", '1. country("Japan")\n'),
        task_planned(0.5, 1, "country", "Japan"),
        task_started(0.5, 1, name="Japan"),
        ModelText(1.0, "plan/1", '2. calc("$1.population / $1.area_km2")\n3. join()'),
        task_planned(1.0, 2, "calc", "$1.population / $1.area_km2", deps=(1,)),
        ModelFinished(1.2, "plan/1", "stop", 100, 40, 30, 1.2),
        PlanFinished(1.2, 1, 2, ()),
        TaskFinished(2.0, 1, (), {"population": 125_000_000, "area_km2": 377_000}, 1.5),
        task_started(2.0, 2, expression="125000000 / 377000"),
        TaskFinished(2.1, 2, (), 331.5649867374005, 0.1),
        ModelStarted(2.1, "join/1", "joiner", "local:small", {}),
        ModelText(2.5, "join/1", '{"answer": "332 people per km²"}'),
        ModelFinished(2.6, "join/1", "stop", 60, 0, 9, 0.5),
        Joined(2.6, 1, "answer", "332 people per km²"),
        RunFinished(2.6, "answered", "332 people per km²", None, None),
    ]


def troubled() -> list[Event]:
    """A repaired plan, a retry, a failure, a skip, a fan-out with a failed element, a Ctrl-C."""
    interrupted = Failure("usage", "Interrupted", "the run was interrupted")
    return [
        run_started("Which countries are dense?"),
        PlanStarted(0.0, 1),
        PlanDiagnosed(0.2, 1, "E203", "error", "unknown tool", "E203: unknown tool `contry`"),
        task_planned(0.3, 1, "country", "Atlantis"),
        task_started(0.3, 1, name="Atlantis"),
        TaskRetried(0.4, 1, (), 1, Failure("tool", "ToolError", "busy"), 0.2),
        task_started(0.6, 1, attempt=2, name="Atlantis"),
        TaskFailed(0.7, 1, (), NO_COUNTRY, 0.1),
        task_planned(0.7, 2, "calc", "$1.population * 2", deps=(1,)),
        TaskSkipped(0.7, 2, (), 1),
        task_planned(0.8, 3, "countries", "Oceania"),
        task_started(0.8, 3, continent="Oceania"),
        TaskFinished(0.9, 3, (), ["Fiji", "Nauru", "Atlantis"], 0.1),
        task_planned(0.9, 4, "country", {"$ref": "$3[*]"}, deps=(3,)),
        MapOpened(0.9, 4, 3),
        task_started(0.9, 4, 0, name="Fiji"),
        task_started(0.9, 4, 1, name="Nauru"),
        task_started(0.9, 4, 2, name="Atlantis"),
        TaskFinished(1.0, 4, (0,), {"population": 900_000}, 0.1),
        TaskFailed(1.1, 4, (2,), NO_COUNTRY, 0.2),
        task_planned(1.1, 5, "country", "Japan"),
        TaskCancelled(1.2, 4, (), "the run was interrupted"),
        TaskCancelled(1.2, 5, (), "the run was interrupted"),
        RunFinished(1.2, "interrupted", None, None, interrupted),
    ]


def thoughtful() -> list[Event]:
    """A vote over three drafts, two rounds of pdr, and two workers that read each other."""
    answers = itertools.cycle(("42", "41", "42.0"))
    numbers = itertools.count()

    def answer(_: Request) -> Answer:
        text = f"Thinking, number {next(numbers)}.\nAnswer: {next(answers)}"
        return Answer(text, chunk=8, delay=0.1)

    plan = """1. think("6 * 7?", strategy="vote", width=3)
2. think("In rounds?", context=[$1], strategy="pdr", width=2, rounds=2)
3. think("Two workers?", context=[$2], strategy="hogwild", rounds=1)
4. join($1)"""
    events: list[Event] = []

    async def main() -> None:
        async with LLMCompiler(["calc"], ScriptedModel(answer), store=":memory:") as agent:
            await agent.execute(parse_plan(plan), on_event=events.append)

    # Where a test drives a browser, a loop runs already in the thread of the test.
    with ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(lambda: run_virtual(main())).result()
    return events
