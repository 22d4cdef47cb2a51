"""The streaming planner: tasks start at once, broken plans are repaired, no task is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from llmcompiler.errors import Failure, ModelError, PlanError
from llmcompiler.llm.base import Completion, Request
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.model import Join, Plan, Task
from llmcompiler.planners.base import PlanItem, PlanningContext, PlanRound
from llmcompiler.planners.text import TextPlanner
from llmcompiler.prompting.prompts import Example, Prompts
from llmcompiler.runtime.results import Observation
from llmcompiler.testing.doubles import Answer, Script, ScriptedModel
from llmcompiler.tools.base import tool
from llmcompiler.tools.loading import load_tools

TOOLS = load_tools(("calc", "geo"))

GOOD = """\
1. country("Japan")
2. country("Germany")
3. calc("$1.population / $2.population")
4. join()
"""


def context(model: ScriptedModel, **changes: Any) -> PlanningContext:
    fields: dict[str, Any] = {"question": "How many?", "tools": TOOLS, "ask": model.stream}
    return PlanningContext(**{**fields, **changes})


async def collect(items: AsyncIterator[PlanItem], into: list[PlanItem]) -> None:
    async for item in items:
        into.append(item)


async def plan(
    script: Script, *, prompts: Prompts | None = None, **changes: Any
) -> tuple[list[PlanItem], ScriptedModel]:
    model = ScriptedModel(script)
    items: list[PlanItem] = []
    await collect(TextPlanner(prompts).plan(context(model, **changes)), items)
    return items, model


def calls(items: Sequence[PlanItem]) -> list[str]:
    """Tasks as ``id tool``, the join as ``join``, errors as ``error``."""
    names = []
    for item in items:
        match item:
            case Task():
                names.append(f"{item.id} {item.tool}")
            case Join():
                names.append("join")
            case Diagnostic() if item.severity == "error":
                names.append("error")
    return names


def last_message(model: ScriptedModel) -> str:
    return model.requests[-1].messages[-1].content


# --- plans that are sound -------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [0, 1, 3, 7])
async def test_the_same_tasks_come_out_however_the_text_is_cut(chunk: int) -> None:
    items, _ = await plan([Answer(GOOD, chunk=chunk)])
    assert calls(items) == ["1 country", "2 country", "3 calc", "join"]


async def test_a_task_leaves_at_its_closing_bracket() -> None:
    text: list[str] = []

    async def ask(request: Request) -> AsyncIterator[str | Completion]:
        async for piece in ScriptedModel([Answer(GOOD, chunk=1)]).stream(request):
            if isinstance(piece, str):
                text.append(piece)
            yield piece

    left_at = {}
    async for item in TextPlanner().plan(PlanningContext("?", TOOLS, ask)):
        if isinstance(item, Task):
            left_at[item.id] = "".join(text)
    assert left_at[1] == '1. country("Japan")'
    assert left_at[2].endswith('2. country("Germany")')


async def test_a_plan_without_tools_is_a_join() -> None:
    items, _ = await plan(["1. join()"])
    assert calls(items) == ["join"]


async def test_nothing_is_read_behind_the_join() -> None:
    items, model = await plan([Answer(GOOD + "And now for something else. " * 50, chunk=1)])
    assert calls(items)[-1] == "join"
    assert model.cancelled == 1


async def test_a_model_that_dies_behind_the_join_has_done_its_work() -> None:
    items, _ = await plan([Answer(GOOD.strip(), error=ModelError("gone"))])
    assert calls(items)[-1] == "join"


# --- plans that break -----------------------------------------------------------------------------


async def test_an_ill_formed_task_is_mended_from_the_valid_prefix() -> None:
    items, model = await plan(
        ['1. country("Japan")\n2. contry("Germany")\n3. calc("$2.area")\n', GOOD[20:]]
    )
    assert calls(items) == ["1 country", "error", "2 country", "3 calc", "join"]
    prompt = last_message(model)
    assert 'The plan so far, which stays as it is:\n1. country("Japan")\n' in prompt
    assert "contry" in prompt
    assert "numbered from 2" in prompt


async def test_nothing_is_read_behind_an_error_that_will_be_mended() -> None:
    _, model = await plan([Answer('1. contry("Japan")\n' + GOOD * 20, chunk=1), GOOD])
    assert model.cancelled == 1


async def test_a_text_that_just_ends_is_continued() -> None:
    items, _ = await plan(['1. country("Japan")\n', "2. join()"])
    assert calls(items) == ["1 country", "error", "join"]


async def test_an_answer_that_is_no_plan_is_asked_for_again() -> None:
    items, _ = await plan(["I would rather not.", GOOD])
    assert calls(items)[-4:] == ["1 country", "2 country", "3 calc", "join"]


async def test_repairs_are_bounded_and_what_is_sound_is_joined() -> None:
    broken = '1. country("Japan")\n2. nothing()\n'
    items, model = await plan([broken, "2. nothing()\n", "2. nothing()\n3. country('Peru')\n"])
    assert len(model.requests) == 3
    assert calls(items) == ["1 country", "error", "error", "error", "3 country", "join"]


async def test_a_join_names_no_task_that_was_refused() -> None:
    items, _ = await plan(['1. country("Japan")\n2. nothing()\n3. join($1, $2)'], repairs=0)
    assert items[-1] == Join(id=3, on=(1,))


async def test_a_task_that_needs_a_refused_one_is_refused() -> None:
    items, _ = await plan(['1. nothing()\n2. calc("$1 + 1")\n3. calc("1")\n4. join()'], repairs=0)
    assert [call for call in calls(items) if call != "error"] == ["3 calc", "join"]
    assert calls(items).count("error") >= 2


async def test_no_repairs_are_made_where_none_are_allowed() -> None:
    items, model = await plan(['1. country("Japan")\n2. nothing()\n'], repairs=0)
    assert len(model.requests) == 1
    assert calls(items) == ["1 country", "error", "join"]


async def test_a_plan_of_nothing_usable_is_an_error_with_its_diagnostics() -> None:
    with pytest.raises(PlanError) as caught:
        await plan(["1. nothing()", "no", ""])
    assert [diagnostic.code for diagnostic in caught.value.diagnostics]  # type: ignore[attr-defined]


async def test_a_planner_that_dies_mid_stream_is_asked_to_go_on() -> None:
    dead = Answer('1. country("Japan")\n2. country("Ger', error=ModelError("gone", retryable=True))
    items, model = await plan([dead, '2. country("Germany")\n3. join()'])
    assert calls(items) == ["1 country", "2 country", "join"]
    assert '1. country("Japan")' in last_message(model)


async def test_a_planner_that_dies_with_nothing_written_is_asked_the_same_again() -> None:
    dead = Answer("1. coun", error=ModelError("gone", retryable=True))
    _, model = await plan([dead, '1. country("Japan")\n2. join()'])
    first, second = model.requests
    assert first.messages == second.messages


@pytest.mark.parametrize(("retryable", "requests"), [(False, 1), (True, 2)])
async def test_a_planner_that_stays_dead_leaves_its_prefix(retryable: bool, requests: int) -> None:
    dead = ModelError("gone", retryable=retryable)
    model = ScriptedModel([Answer('1. country("Japan")\n2. country("Ger', error=dead), dead, dead])
    items: list[PlanItem] = []
    with pytest.raises(ModelError, match="gone"):
        await collect(TextPlanner().plan(context(model)), items)
    assert calls(items) == ["1 country"]
    assert len(model.requests) == requests


async def test_an_answer_cut_for_length_goes_on_without_its_last_half_call() -> None:
    cut = Answer('1. country("Japan")\n2. country("Ger', finish="length")
    items, _ = await plan([cut, '2. country("Germany")\n3. join()'])
    assert calls(items) == ["1 country", "error", "2 country", "join"]


async def test_leaving_early_closes_the_models_stream() -> None:
    model = ScriptedModel([Answer(GOOD, chunk=1)])
    items = TextPlanner().plan(context(model))
    async for _ in items:
        break
    await items.aclose()
    assert model.cancelled == 1


# --- what the model is shown ----------------------------------------------------------------------


async def test_the_prompt_starts_alike_for_all_questions() -> None:
    _, first_model = await plan([GOOD], question="one?")
    _, second_model = await plan([GOOD], question="two?")
    assert first_model.requests[0].messages[:-1] == second_model.requests[0].messages[:-1]
    assert last_message(first_model) == "Question: one?"


async def test_the_prompt_shows_signatures_guidelines_and_the_users_examples() -> None:
    own = Example(question="And Oslo?", plan='1. city("Oslo")\n2. join()')
    prompts = Prompts(guidelines=("Prefer ISO codes.",), examples=(own,))
    _, model = await plan([GOOD], prompts=prompts)
    system, *_, question, answer, _ = model.requests[0].messages
    assert all(tool.signature() in system.content for tool in TOOLS.values())
    assert "\n    name: the country's name or ISO code; one country only.\n" in system.content
    assert "- Prefer ISO codes.\n" in system.content
    assert (question.content, answer.content) == ("Question: And Oslo?", own.plan)


async def test_plans_are_asked_for_at_temperature_0() -> None:
    _, model = await plan([GOOD])
    assert model.requests[0].temperature == 0.0


# --- replanning -----------------------------------------------------------------------------------


def first_round() -> PlanRound:
    first = Plan.model_validate(
        {
            "tasks": [
                {"id": 1, "tool": "country", "args": ["Japan"]},
                {"id": 2, "tool": "city", "args": ["Tokio"]},
            ]
        }
    )
    japan = {"name": "Japan", "population": 126529100}
    failure = Failure("tool", "ToolError", 'there is no city "Tokio"')
    observations = {
        1: Observation(first.tasks[0], "done", japan),
        2: Observation(first.tasks[1], "failed", failure=failure),
    }
    return PlanRound(first, observations, "the population of Tokyo is missing")


async def test_a_replan_sees_what_is_known_and_why_it_is_not_enough() -> None:
    _, model = await plan(["3. join()"], rounds=(first_round(),), next_id=3)
    prompt = last_message(model)
    assert '$1: country("Japan") = name: Japan, population: 126,529,100' in prompt
    assert '$2: city("Tokio") failed: there is no city "Tokio"' in prompt
    assert "the population of Tokyo is missing" in prompt
    assert "numbered from 3" in prompt


async def test_a_replan_counts_on_and_refers_back() -> None:
    text = '3. city("Tokyo")\n4. calc("$3.population / $1.population")\n5. join()'
    items, _ = await plan([text], rounds=(first_round(),), next_id=3)
    assert calls(items) == ["3 city", "4 calc", "join"]
    task = items[1]
    assert isinstance(task, Task)
    assert task.dependencies == (3, 1)


async def test_a_replan_that_starts_again_at_1_is_renumbered() -> None:
    text = '1. city("Tokyo")\n2. calc("$1.population / 2")\n3. join()'
    items, _ = await plan([text], rounds=(first_round(),), next_id=3)
    assert calls(items) == ["3 city", "4 calc", "join"]


# --- plans that are begun anew --------------------------------------------------------------------

ORDERS = {
    "order": tool(effect="write", name="order")(lambda item: item),
    "mail": tool(name="mail")(lambda to, text: text),
}


async def test_a_call_that_writes_waits_for_an_answer_without_mistakes() -> None:
    wrong = '1. order("lamp")\n2. mail("Ann", $1, 5)\n3. join()'
    right = '1. order("lamp")\n2. mail("Ann", $1)\n3. join($1, $2)'
    items, _ = await plan([wrong, right], tools=ORDERS)
    assert calls(items) == ["error", "1 order", "2 mail", "join"]
    (mail,) = (item for item in items if isinstance(item, Task) and item.tool == "mail")
    assert mail.dependencies == (1,)
    assert items[-1] == Join(id=3, on=(1, 2))


async def test_a_call_that_is_there_already_is_not_written_again_even_if_it_writes() -> None:
    broken = Answer(
        '1. order("lamp")\n2. mail("Ann", ', chunk=5, error=ModelError("x", retryable=True)
    )
    right = '1. order("lamp")\n2. mail("Ann", $1)\n3. join($1, $2)'
    items, _ = await plan([broken, right], tools=ORDERS)
    assert calls(items) == ["1 order", "3 mail", "join"]
    assert items[-1] == Join(id=4, on=(1, 3))


async def test_nor_is_it_in_the_attempt_after_that() -> None:
    wrong = '1. order("lamp")\n2. mail("Ann", $1, 5)\n3. join()'
    items, _ = await plan([wrong] * 3, tools=ORDERS)
    assert [call for call in calls(items) if call != "error"] == ["1 order", "join"]


async def test_in_one_attempt_the_same_call_can_be_wanted_twice() -> None:
    items, _ = await plan(['1. order("lamp")\n2. order("lamp")\n3. join()'], tools=ORDERS)
    assert calls(items) == ["1 order", "2 order", "join"]


async def test_of_many_tools_those_are_shown_that_the_prompts_speak_of() -> None:
    many = {f"t{n}": tool(name=f"t{n}")(lambda item: item) for n in range(60)}
    model = ScriptedModel(["1. join()"])
    tools = {**many, **load_tools(("calc",))}
    await collect(TextPlanner().plan(context(model, tools=tools)), [])
    assert "calc(" in model.requests[0].messages[0].content


# --- plans that end too early ---------------------------------------------------------------------

HALF = '1. calc("12 * 34")\n2. join()'
ASKED = "What are 12 times 34, 56 times 78, and 90 times 11?"


async def test_a_plan_that_leaves_numbers_of_the_question_unused_is_looked_at_again() -> None:
    items, model = await plan(
        [HALF, '2. calc("56 * 78")\n3. calc("90 * 11")\n4. join()'], question=ASKED
    )
    assert calls(items) == ["1 calc", "2 calc", "3 calc", "join"]
    prompt = last_message(model)
    assert prompt.startswith(
        f"Question: {ASKED}\n\nThe plan so far, which stays as it is:\n1. calc("
    )
    assert "No call in it uses 56 and 78 and 90 and 11." in prompt
    assert "numbered from 2" in prompt


async def test_it_is_looked_at_for_as_long_as_that_helps() -> None:
    items, model = await plan([HALF, '2. calc("56 * 78")\n3. join()', "3. join()"], question=ASKED)
    assert calls(items) == ["1 calc", "2 calc", "join"]
    assert len(model.requests) == 3
    items, model = await plan([HALF, "2. join()"], question=ASKED, repairs=9)
    assert calls(items) == ["1 calc", "join"]
    assert len(model.requests) == 2


async def test_looks_are_bounded_as_repairs_are() -> None:
    items, model = await plan([HALF], question=ASKED, repairs=0)
    assert calls(items) == ["1 calc", "join"]
    items, model = await plan([HALF, "2. nothing()", "I would rather not."], question=ASKED)
    assert calls(items) == ["1 calc", "error", "error", "join"]
    assert len(model.requests) == 3


async def test_a_whole_plan_stays_whole_where_the_second_look_fails() -> None:
    items, _ = await plan([HALF, Answer("", error=ModelError("gone"))], question=ASKED)
    assert calls(items) == ["1 calc", "join"]


async def test_a_plan_that_writes_is_taken_at_its_word() -> None:
    items, _ = await plan(['1. order("lamp 4")\n2. join()'], tools=ORDERS, question="4 or 5?")
    assert calls(items) == ["1 order", "join"]


async def test_no_look_without_calls_without_a_text_and_at_a_later_plan() -> None:
    items, _ = await plan(["1. join()"], question=ASKED)
    assert calls(items) == ["join"]
    items, _ = await plan([HALF], question=ASKED, prompts=Prompts(unused=""))
    assert calls(items) == ["1 calc", "join"]
    first = PlanRound(Plan(), {}, "something is missing")
    items, _ = await plan([HALF], question=ASKED, rounds=(first,))
    assert calls(items) == ["1 calc", "join"]
