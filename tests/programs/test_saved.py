"""Programs from files and texts: inputs, checks before anything runs, and how they are shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from llmcompiler import LLMCompiler, Plan, PlanError, UsageError, print_plan, tool
from llmcompiler.history.save import save_run
from llmcompiler.history.saved import sound_plan
from llmcompiler.history.state import RunState, fold
from llmcompiler.language.forms import parse_plan_text
from llmcompiler.programs.saved import check_program
from llmcompiler.testing.doubles import run_virtual
from llmcompiler.view.graph import draw_plan
from llmcompiler.view.report import report_lines
from llmcompiler.view.report_data import run_report
from llmcompiler.view.text import progress_text, summary_text


@tool
async def double(x: int) -> int:
    """Twice a number."""
    return 2 * x


@tool(effect="write")
async def note(text: str) -> str:
    """Keep a text."""
    return text


TOOLS = [double, note]


@pytest.fixture
def agent() -> Iterator[LLMCompiler]:
    compiler = LLMCompiler(TOOLS, store=":memory:")
    yield compiler
    run_virtual(compiler.aclose())


def execute(agent: LLMCompiler, program: str, **inputs: Any) -> Any:
    return run_virtual(agent.execute(program, inputs))


def state_of(agent: LLMCompiler, program: str, **inputs: Any) -> RunState:
    result = execute(agent, program, **inputs)
    return fold(agent.store.events(result.run))


MAIN = """\
def main(n: int, words: list = ["a", "b"], rate: float = 1):
    out = []
    for i in range(n):
        out.append(double(i))
    return [out, words, rate]
"""


def test_parameters_of_main_are_inputs(agent: LLMCompiler) -> None:
    assert execute(agent, MAIN, n=3).value == [[0, 2, 4], ["a", "b"], 1]
    assert execute(agent, MAIN, n=1, words=[], rate=2.5).value == [[0], [], 2.5]
    with pytest.raises(UsageError, match='needs a value for its input "n"'):
        execute(agent, MAIN)
    with pytest.raises(UsageError, match='input "n" must be of type integer'):
        execute(agent, MAIN, n="three")
    with pytest.raises(UsageError, match='no input "m"'):
        execute(agent, MAIN, m=3)


def test_a_plan_with_a_program_goes_through_json_and_text(agent: LLMCompiler) -> None:
    plan = sound_plan(MAIN, agent.tools)
    assert [task.tool for task in plan.tasks] == ["double"]
    again = sound_plan(plan.model_dump_json(), agent.tools)
    assert again == plan
    assert sound_plan(print_plan(plan), agent.tools) == plan
    assert run_virtual(agent.execute(again, {"n": 2})).value[0] == [0, 2]


def test_inputs_may_be_declared_beside_a_program(agent: LLMCompiler) -> None:
    plan = Plan.model_validate({"program": "answer = double(n)\n", "inputs": [{"name": "n"}]})
    assert run_virtual(agent.execute(plan, {"n": 4})).value == 8


def test_a_question_stands_in_front_of_a_program() -> None:
    text = '# question: "How many?"\nx = double(1)\n'
    plan = parse_plan_text(text).plan
    assert plan.question is not None
    assert print_plan(plan) == text
    without = plan.model_copy(update={"program": "x = double(1)\n"})
    assert print_plan(without) == text


BAD = """\
def main(n: complex, m=open):
    class A: pass
    x = nosuch(1)
    return x.__class__
y = eval("1")
"""


def test_every_mistake_is_found_and_nothing_is_recorded(agent: LLMCompiler) -> None:
    with pytest.raises(PlanError) as caught:
        execute(agent, BAD)
    lines = [(item.code, item.line) for item in caught.value.diagnostics]
    assert lines == [("E506", 1), ("E501", 2), ("E203", 3), ("E501", 4), ("E203", 5)]
    assert all("^" in item.render() for item in caught.value.diagnostics)
    assert agent.store.runs() == []


@pytest.mark.parametrize(
    "parameters",
    ["n: complex", "n: int = x", "n: int = 'a'", "*n", "**n", "n: list = [1, f()]", "n: int = ()"],
)
def test_inputs_that_cannot_be_declared(parameters: str) -> None:
    plan = Plan(program=f"def main({parameters}):\n    return 1\n")
    (diagnostic,) = check_program(plan, {})[1]
    assert diagnostic.code == "E506"


def test_what_a_later_iteration_needs_is_no_edge_of_the_plan(agent: LLMCompiler) -> None:
    program = "x = 1\nfor i in range(3):\n    y = double(x)\n    x = double(y)\nanswer = x\n"
    plan = sound_plan(program, agent.tools)
    assert [task.dependencies for task in plan.tasks] == [(), (1,)]
    assert Plan.model_validate(plan.model_dump(mode="json")) == plan
    assert execute(agent, program).value == 64


CONDITIONS = """\
big = []
for i in range(4):
    if double(i) > 3:
        big.append(note(f"{i}"))
if len(big) > 10:
    note("many")
answer = big
"""


def test_a_run_shows_its_program_and_what_its_conditions_chose(agent: LLMCompiler) -> None:
    state = state_of(agent, CONDITIONS)
    page = "\n".join(report_lines(state))
    assert "3 |     if double(i) > 3:  # taken 2 of 4 times" in page
    assert "5 | if len(big) > 10:  # not taken" in page
    assert '3. note("many")  not taken' in page
    assert "did not succeed" not in page
    assert summary_text(state).endswith("3 tasks, 1 not taken")
    assert progress_text(state.tasks[1]) == "4/4"
    data = json.dumps(run_report(agent.store.events(state.run)))
    assert "taken 2 of 4 times" in data
    assert state.plan().program == CONDITIONS


def test_a_program_is_drawn(agent: LLMCompiler) -> None:
    drawing = draw_plan(sound_plan("x = double(1)\ny = double(x)\n", agent.tools))
    ((_, nodes),) = drawing.groups
    assert [node.sources for node in nodes] == [(), ("t1",)]


def test_a_text_that_is_no_plan(agent: LLMCompiler) -> None:
    with pytest.raises(PlanError, match="no plan"):
        execute(agent, "How dense is Japan?")


def test_a_run_of_a_program_is_saved_as_the_program(agent: LLMCompiler) -> None:
    result = execute(agent, MAIN, n=2)
    saved = save_run(agent.store, result.run)
    assert print_plan(saved) == MAIN
    assert run_virtual(agent.execute(saved, {"n": 2})).value == result.value
    with pytest.raises(UsageError, match="constants are not made inputs"):
        save_run(agent.store, result.run, parameterise=True)


CHAIN = "x = double(1)\ny = double(x)\nz = [double(i) for i in range(y)]\nanswer = [x, y, z]\n"


def test_a_run_of_a_program_is_forked(agent: LLMCompiler) -> None:
    run = execute(agent, CHAIN).run
    forked = run_virtual(agent.fork(run, values={1: 1}))
    assert forked.value == [1, 2, [0, 2]]
    assert run_virtual(agent.fork(run, start=2)).value == [2, 4, [0, 2, 4, 6]]
    with pytest.raises(UsageError, match="a call in a loop"):
        run_virtual(agent.fork(run, values={3: [9]}))
