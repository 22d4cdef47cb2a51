"""The planner that drafts a plan in several ways and takes the draft most like the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from llmcompiler.compiler import LLMCompiler
from llmcompiler.errors import ModelError
from llmcompiler.events import Event, ModelStarted, TaskStarted
from llmcompiler.history.replay import replay
from llmcompiler.language import parse_plan, print_plan
from llmcompiler.limits import Limits
from llmcompiler.llm.base import Request
from llmcompiler.llm.messages import FunctionCall
from llmcompiler.log.store import RunStore
from llmcompiler.plan.model import Plan
from llmcompiler.run.result import RunResult
from llmcompiler.testing.doubles import Answer, Scripted, ScriptedModel, run_virtual
from llmcompiler.tools.base import tool


@tool
def size(name: str, unit: str = "m") -> int:
    """How large something is."""
    return len(name)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool(effect="write")
def note(text: str) -> str:
    """Write something down."""
    return text


def calls(plan: str) -> Answer:
    """The plan's calls as function calls of one turn; its arguments are given by name."""
    return Answer(
        "" if "(" in plan.replace("join()", "") else "Nothing to do.",
        calls=tuple(
            FunctionCall(
                f"id{task.id}",
                task.tool,
                json.dumps({name: expr.value for name, expr in task.kwargs.items()}),  # type: ignore[union-attr]
            )
            for task in parse_plan(plan).tasks
        ),
    )


def draft_of(request: Request) -> str:
    """The draft that a request is for."""
    if request.functions:
        return "functions"
    return "examples" if len(request.messages) > 4 else "bare"


async def planned(
    drafts: Mapping[str, Scripted], store: RunStore | None = None, **options: Any
) -> tuple[RunResult, list[Event]]:
    """Run a question whose drafts these are."""

    def script(request: Request) -> Scripted:
        if request.schema is not None:
            return json.dumps({"action": "answer", "text": "done"})
        return drafts[draft_of(request)]

    events: list[Event] = []
    compiler = LLMCompiler(
        [size, add, note],
        ScriptedModel(script),
        planner="drafts",
        profile="small",
        store=store or ":memory:",
        **options,
    )
    result = await compiler.run("What is it?", on_event=events.append)
    return result, events


def plan_of(drafts: Mapping[str, Scripted], **options: Any) -> str:
    """The text of the run's plan, after a replay of the run."""

    async def main() -> str:
        store = RunStore(":memory:")
        result, _ = await planned(drafts, store, **options)
        assert result.plan is not None
        if result.status == "answered":
            assert (await replay(store, result.run)).answer == "done"
        return print_plan(result.plan).strip()

    return str(run_virtual(main()))


A, B, C = ('size(name="a")', 'size(name="b")', 'size(name="c", unit="km")')


def plan(*lines: str) -> str:
    """The plan with these calls."""
    return "\n".join(f"{number}. {line}" for number, line in enumerate((*lines, "join()"), 1))


def test_the_draft_that_is_most_like_the_others_is_the_plan() -> None:
    drafts = {"examples": plan(A), "bare": plan(A, B), "functions": calls(plan(A, B, C))}
    assert plan_of(drafts) == plan(A, B)


def test_of_drafts_that_are_as_like_the_first_is_the_plan() -> None:
    drafts = {"examples": plan(A), "bare": plan(B), "functions": calls(plan(C))}
    assert plan_of(drafts) == plan(A)


def test_a_draft_that_did_not_come_to_a_sound_end_is_the_plan_only_where_none_did() -> None:
    endless = {
        length: plan(*lines).removesuffix("join()") for length, lines in {1: [A], 2: [A, B]}.items()
    }
    complete = calls(plan(A, B, C))
    drafts = {"examples": plan(A), "bare": endless[2], "functions": complete}
    assert plan_of(drafts, limits=Limits(repairs=0)) == plan(A, B, C)
    failing = ModelError("no")
    drafts = {"examples": endless[1], "bare": endless[2], "functions": failing}
    assert plan_of(drafts, limits=Limits(repairs=0)) == plan(A)


def test_calls_are_equal_however_they_are_written_and_numbered() -> None:
    bare = 'Thought: two\n3. size("b", unit="m")\n5. size("a")\n7. add($5, b=$3)\n8. join($7)'
    first = plan(B, 'size("c")', 'size("b", "m")', "add($1, 2)")
    drafts = {"examples": first, "bare": bare, "functions": calls(plan('size(name="b", unit="m")'))}
    # Both text drafts refer to results, so one turn of function calls has no say; of two drafts
    # that are as like each other, the first is the plan.
    assert plan_of(drafts) == plan(B, 'size("c")', 'size("b", "m")', "add($1, 2)")


def test_one_turn_of_function_calls_has_no_say_where_results_are_used() -> None:
    sums = plan(A, B, "add($1, $2)")
    drafts = {"examples": sums, "bare": plan(A, B, "add($2, $1)"), "functions": calls(plan(A, B))}
    assert plan_of(drafts) == sums


def test_what_all_drafts_have_starts_while_they_are_written() -> None:
    async def main() -> list[tuple[int, float]]:
        slow = Answer(plan(A, C), chunk=len(A) + 4, delay=10)
        drafts = {"examples": plan(A, B), "bare": slow, "functions": calls(plan(A, C))}
        _, events = await planned(drafts)
        return [(event.task, event.at) for event in events if isinstance(event, TaskStarted)]

    started = run_virtual(main())
    assert started[0] == (1, 10.0)
    assert started[1][0] == 2 and started[1][1] > 10.0


def test_calls_have_their_drafts_names_in_the_log() -> None:
    async def main() -> list[str]:
        drafts = {"examples": "1. wrong()", "bare": plan(A), "functions": calls(plan(A))}
        _, events = await planned(drafts)
        return [event.call for event in events if isinstance(event, ModelStarted)]

    names = run_virtual(main())
    assert names[:3] == ["plan/1/examples", "plan/1/bare", "plan/1/functions"]
    assert "plan/1/examples/2" in names, "a draft repairs itself"


@pytest.mark.parametrize("failing", [("examples",), ("bare", "functions"), ("examples", "bare")])
def test_drafts_that_fail_are_left_out(failing: tuple[str, ...]) -> None:
    drafts: dict[str, Scripted] = {
        "examples": plan(A, B),
        "bare": plan(A, B),
        "functions": calls(plan(A, B)),
    }
    drafts |= dict.fromkeys(failing, ModelError("out of order"))
    assert plan_of(drafts) == plan(A, B)


def test_where_all_drafts_fail_the_first_ones_failure_is_told() -> None:
    async def main() -> RunResult:
        drafts = {
            name: ModelError(f"{name} is out of order")
            for name in ("examples", "bare", "functions")
        }
        return (await planned(drafts))[0]

    result = run_virtual(main())
    assert result.failure is not None
    assert result.failure.message == "examples is out of order"


def test_a_limit_ends_all_drafts() -> None:
    async def main() -> RunResult:
        drafts = dict.fromkeys(("examples", "bare"), plan(A)) | {"functions": calls(plan(A))}
        return (await planned(drafts, limits=Limits(model_calls=2)))[0]

    result = run_virtual(main())
    assert result.failure is not None and result.failure.type == "LimitReached"


def test_a_run_that_was_stopped_goes_on_with_the_same_plan() -> None:
    async def main() -> None:
        store = RunStore(":memory:")
        drafts = {
            "examples": plan(C, A, B),
            "bare": plan(A, B, C),
            "functions": calls(plan(B, A)),
        }
        stopped, _ = await planned(drafts, store, limits=Limits(tool_calls=2))
        assert stopped.status == "failed"
        answer = json.dumps({"action": "answer", "text": "done"})
        compiler = LLMCompiler(
            [size, add, note], ScriptedModel([answer]), planner="drafts", store=store
        )
        result = await compiler.resume(stopped.run, limits=Limits())
        assert result.answer == "done"
        assert (await replay(store, result.run)).answer == "done"

    run_virtual(main())


LINES = st.lists(
    st.sampled_from([A, B, C, 'note(text="x")', 'note(text="y")', "add($1, 2)", "add($1, $2)"]),
    max_size=5,
)
DELAYS = st.lists(st.sampled_from([0.0, 0.1, 0.25, 1.0]), min_size=3, max_size=3)


def written(lines: list[str]) -> str:
    """A plan of these lines, without those that would refer to themselves or to later ones."""
    lines_kept: list[str] = []
    for line in lines:
        if f"${len(lines_kept) + 1}" not in line and f"${len(lines_kept) + 2}" not in line:
            lines_kept.append(line)
    return plan(*lines_kept)


@settings(deadline=None)
@given(first=LINES, second=LINES, third=LINES, delays=DELAYS, chunk=st.integers(1, 40))
def test_the_plan_does_not_depend_on_which_draft_is_quicker(
    first: list[str], second: list[str], third: list[str], delays: list[float], chunk: int
) -> None:
    texts = {"examples": written(first), "bare": written(second)}
    turn = calls(plan(*(line for line in third if "$" not in line)))

    def drafts(pace: list[float]) -> dict[str, Scripted]:
        return {
            name: Answer(text, chunk=chunk, delay=delay)
            for (name, text), delay in zip(texts.items(), pace, strict=False)
        } | {"functions": Answer(turn.text, calls=turn.calls, delay=pace[2])}

    printed = plan_of(drafts(delays))
    assert printed == plan_of(drafts([0.0, 0.0, 0.0]))
    parsed = parse_plan(printed)
    assert isinstance(parsed, Plan)
    assert [task.id for task in parsed.tasks] == sorted(task.id for task in parsed.tasks)
