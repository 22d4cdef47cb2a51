"""The joiner: the prompt that it makes of the results, and its reading of the decision."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pytest

from llmcompiler.errors import Failure, ModelError
from llmcompiler.joiners.model import Decision, JoinContext, ModelJoiner, find_ungrounded_numbers
from llmcompiler.plan.model import Join, Plan
from llmcompiler.planners.base import PlanRound
from llmcompiler.prompting.digest import Digest
from llmcompiler.prompting.formatting import format_value
from llmcompiler.prompting.prompts import Prompts
from llmcompiler.runtime.results import Observation
from llmcompiler.testing.doubles import ScriptedModel
from llmcompiler.tools.base import Tool, tool
from llmcompiler.tools.loading import load_tools

JAPAN = {"name": "Japan", "population": 126529100, "area_km2": 377835.0, "capital": "Tokyo"}
GERMANY = {"name": "Germany", "population": 82927922, "area_km2": 357021.0, "capital": "Berlin"}


@tool
def country(name: str) -> dict[str, Any]:
    """Facts about a country."""
    return {"Japan": JAPAN, "Germany": GERMANY}[name]


@tool(trim=40)
def page(title: str) -> str:
    """A long page."""
    return title * 100


TOOLS: dict[str, Tool] = {"country": country, "page": page}


def call(task_id: int, tool: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"id": task_id, "tool": tool, "args": list(args), "kwargs": kwargs}


def round_of(
    calls: list[dict[str, Any]],
    values: Mapping[int, Any],
    *,
    join: tuple[int, ...] = (),
    earlier: tuple[int, ...] = (),
) -> PlanRound:
    """A round in which task N returned ``values[N]``; a ``Failure`` stands for a failed task."""
    plan = Plan.model_validate({"tasks": calls, "earlier": earlier})
    plan = plan.model_copy(update={"join": Join(id=99, on=join)})
    observations = {}
    for task in plan.tasks:
        value = values[task.id]
        if isinstance(value, Failure):
            status = "skipped" if value.type == "Skipped" else "failed"
            observations[task.id] = Observation(task, status, failure=value)  # type: ignore[arg-type]
        else:
            observations[task.id] = Observation(task, "done", value)
    return PlanRound(plan, observations)


def lines(*rounds: PlanRound, tools: Mapping[str, Tool] = TOOLS) -> list[str]:
    observations = {
        k: observation
        for plan_round in rounds
        for k, observation in plan_round.observations.items()
    }
    return Digest(observations, tools).lines(observations)


DENSITIES = round_of(
    [
        call(1, "country", "Japan"),
        call(2, "country", "Germany"),
        call(3, "calc", "$1.population / $1.area_km2"),
        call(4, "calc", "$2.population / $2.area_km2"),
        call(5, "calc", "max($3, $4) / min($3, $4)"),
    ],
    {1: JAPAN, 2: GERMANY, 3: 334.8792, 4: 232.2774, 5: 1.441721},
)


# --- what the model is shown ----------------------------------------------------------------------


def test_a_field_goes_by_its_owner_and_a_result_by_its_value() -> None:
    assert lines(DENSITIES)[2:] == [
        'calc("Japan.population / Japan.area_km2") = 334.88',
        'calc("Germany.population / Germany.area_km2") = 232.28',
        'calc("max(334.88, 232.28) / min(334.88, 232.28)") = 1.4417',
    ]


def test_a_record_lists_its_fields() -> None:
    texts = lines(round_of([call(1, "country", "Japan")], {1: JAPAN}))
    assert texts == [
        'country("Japan") = name: Japan, population: 126,529,100, area_km2: 377,835, capital: Tokyo'
    ]


def test_a_record_that_was_used_is_cut_to_what_is_mentioned() -> None:
    record = {"name": "Chad", "population": 5, "neighbours": ["Niger", "Libya"], "area_km2": 9.5}
    look_up = call(1, "country", "Chad")

    def result_text(question: str, *calls: dict[str, Any]) -> str:
        plan_round = round_of([look_up, *calls], {1: record, 2: 2})
        return Digest(plan_round.observations, TOOLS, question).lines([1])[0].partition(" = ")[2]

    record_text = "name: Chad, population: 5, neighbours: [Niger, Libya], area_km2: 9.5"
    assert result_text("How populous is it?") == record_text
    half = call(2, "calc", "$1.population / 2")
    assert result_text("Half of how many?", half) == "population: 5"
    assert result_text("What area has it?", half) == "population: 5, area_km2: 9.5"
    assert result_text("Neighbouring what?", half) == "population: 5, neighbours: [Niger, Libya]"
    assert result_text("?", call(2, "largest", [{"$ref": "$1"}], by="area_km2")) == "area_km2: 9.5"
    assert result_text("?", call(2, "keep", {"$ref": "$1"})) == record_text


def side_by_side(*rounds: PlanRound, question: str = "?") -> list[str]:
    observations = {
        k: observation
        for plan_round in rounds
        for k, observation in plan_round.observations.items()
    }
    calc = load_tools(("calc",))["calc"]
    return Digest(observations, {**TOOLS, "calc": calc}, question).side_by_side([*observations])


def test_numbers_of_calls_alike_stand_side_by_side_the_largest_first() -> None:
    texts = side_by_side(DENSITIES)
    assert texts[-1] == "population / area_km2: Japan = 334.88 (highest); Germany = 232.28 (lowest)"
    assert 'calc("max(334.88, 232.28) / min(334.88, 232.28)") = 1.4417' in texts


def test_fields_that_went_into_another_quantity_are_not_compared() -> None:
    assert not any(
        line.startswith(("population:", "area_km2:")) for line in side_by_side(DENSITIES)
    )


def test_a_record_whose_numbers_are_compared_is_not_told_again() -> None:
    calls = [call(1, "country", "Germany"), call(2, "country", "Japan")]
    ratio = call(3, "calc", "$2.area_km2 / $1.area_km2")
    texts = side_by_side(round_of([*calls, ratio], {1: GERMANY, 2: JAPAN, 3: 1.0583}))
    assert texts == [
        'calc("Japan.area_km2 / Germany.area_km2") = 1.0583',
        "area_km2: Japan = 377,835 (highest); Germany = 357,021 (lowest)",
    ]


def test_records_that_nothing_used_are_compared_by_what_was_asked() -> None:
    calls = [call(1, "country", "Germany"), call(2, "country", "Japan")]
    plan_round = round_of(calls, {1: GERMANY, 2: JAPAN})
    texts = side_by_side(plan_round, question="Which has the larger area?")
    assert texts[2:] == ["area_km2: Japan = 377,835 (highest); Germany = 357,021 (lowest)"]
    assert len(side_by_side(plan_round, question="How do they differ?")) == 4


def test_a_record_looked_up_by_a_field_says_whose_it_is() -> None:
    calls = [
        call(1, "country", "Germany"),
        call(2, "country", "Japan"),
        call(3, "city", {"$ref": "$1.capital"}),
        call(4, "city", {"$ref": "$2.capital"}),
    ]
    values = {1: GERMANY, 2: JAPAN, 3: {"population": 5}, 4: {"population": 9}}
    assert side_by_side(round_of(calls, values))[-1] == (
        "population: Tokyo (Japan.capital) = 9 (highest); Berlin (Germany.capital) = 5 (lowest)"
    )


def test_what_is_equal_has_no_extremes_and_what_stands_alone_no_comparison() -> None:
    calls = [call(1, "country", "A"), call(2, "country", "B")]
    size = {"size": 5}
    assert side_by_side(round_of(calls, {1: size, 2: size}))[-1] == "size: A = 5; B = 5"
    assert side_by_side(round_of(calls[:1], {1: size})) == ['country("A") = size: 5']
    twice = [call(1, "country", "A"), call(2, "country", "A")]
    assert len(side_by_side(round_of(twice, {1: size, 2: size}))) == 2


def test_two_look_ups_by_one_name_are_told_apart() -> None:
    texts = lines(
        round_of(
            [
                call(1, "country", "Mexico"),
                call(2, "city", "Mexico"),
                call(3, "calc", "$1.population / $2.population"),
            ],
            {1: {"population": 100}, 2: {"population": 10}, 3: 10},
        )
    )
    assert texts[2] == ('calc("country("Mexico").population / city("Mexico").population") = 10')


def test_a_look_up_by_an_earlier_string_shows_the_string() -> None:
    texts = lines(
        round_of(
            [
                call(1, "country", "Japan"),
                call(2, "city", {"$ref": "$1.capital"}),
                call(3, "calc", "$2.population / $1.population"),
            ],
            {1: JAPAN, 2: {"name": "Tokyo", "population": 9733276}, 3: 0.0769252},
        )
    )
    assert texts[1:] == [
        'city("Tokyo") = name: Tokyo, population: 9,733,276',
        'calc("Tokyo.population / Japan.population") = 0.076925',
    ]


def test_a_fan_out_reads_as_what_it_ranges_over() -> None:
    texts = lines(
        round_of(
            [
                call(1, "countries", "Asia"),
                call(2, "country", {"$ref": "$1[*]"}),
                call(3, "largest", {"$ref": "$2"}, by="population"),
            ],
            {1: ["Japan", "Laos"], 2: [JAPAN, JAPAN], 3: JAPAN},
        ),
        tools={},
    )
    assert texts[0] == 'countries("Asia") = Japan, Laos'
    assert texts[1] == 'country(each of countries("Asia")) = 2 items'
    assert texts[2].startswith(
        'largest(country(each of countries("Asia")), by="population") = name: Japan, '
    )


def test_a_call_too_long_to_repeat_goes_by_its_number() -> None:
    question = "a long question " * 20
    texts = lines(
        round_of(
            [call(1, "ask", question), call(2, "check", {"$ref": "$1.answer"})],
            {1: {"answer": ["x"]}, 2: True},
        )
    )
    assert texts == [f'$1: ask("{question}") = answer: [x]', "check($1.answer) = yes"]


def test_deep_plans_stay_readable() -> None:
    calls = [call(1, "f", "x")]
    calls += [call(n, "f", {"$ref": f"${n - 1}"}, {"$ref": f"${n - 1}"}) for n in range(2, 40)]
    texts = lines(round_of(calls, {n: [n] for n in range(1, 40)}))
    assert max(map(len, texts)) < 400


def test_failed_and_skipped_tasks_say_why() -> None:
    texts = lines(
        round_of(
            [call(1, "country", "Atlantis"), call(2, "city", {"$ref": "$1.capital"})],
            {
                1: Failure("tool", "ToolError", 'there is no country "Atlantis"'),
                2: Failure("tool", "Skipped", "task 1 did not succeed"),
            },
        )
    )
    assert texts == [
        'country("Atlantis") failed: there is no country "Atlantis"',
        'city(country("Atlantis").capital) was not called: task 1 did not succeed',
    ]


def test_a_failure_says_what_to_do_about_it() -> None:
    failure = Failure("tool", "ToolError", "no such city", hint="did you mean Oslo?")
    texts = lines(round_of([call(1, "city", "Olso")], {1: failure}))
    assert texts == ['city("Olso") failed: no such city (did you mean Oslo?)']


def test_a_list_says_how_long_it_is() -> None:
    texts = lines(round_of([call(1, "countries")], {1: ["a", "b", "c", "d"]}))
    assert texts == ["countries() = 4 items: a, b, c, d"]


def test_a_long_result_is_cut_by_the_tools_rule() -> None:
    texts = lines(round_of([call(1, "page", "Oslo")], {1: "word " * 100}))
    assert texts == ['page("Oslo") = word word word word word word word word ...']


def test_a_long_list_that_was_used_is_only_counted() -> None:
    names = [f"country number {n}" for n in range(100)]
    texts = lines(
        round_of([call(1, "countries"), call(2, "calc", "len($1)")], {1: names, 2: 100}),
        tools={"countries": country},
    )
    assert texts[0] == "countries() = 100 items"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (126529100, "126,529,100"),
        (1984, "1984"),
        (338.53371, "338.53"),
        (1.44172, "1.4417"),
        (1234567.891, "1,234,568"),
        (377835.0, "377,835"),
        (0.0769252, "0.076925"),
        (0.000001234, "1.234e-06"),
        (1e300, "1e+300"),
        (-2.5, "-2.5"),
        (0, "0"),
        (0.0, "0"),
        (True, "yes"),
        (None, "none"),
        ([], "none"),
        ({"a": []}, "a: none"),
        (["a", "b"], "a, b"),
        ({"a": [1, 2]}, "a: [1, 2]"),
    ],
)
def test_numbers_are_rounded_and_grouped_for_reading(value: Any, text: str) -> None:
    assert format_value(value) == text


# --- what becomes of its decision -----------------------------------------------------------------


async def decide(
    answer: str, *rounds: PlanRound, final: bool = False, prompts: Prompts | None = None
) -> tuple[Decision, ScriptedModel]:
    model = ScriptedModel([answer])
    context = JoinContext(
        "Which is denser?",
        TOOLS,
        rounds or (DENSITIES,),
        final,
        model.stream,
        lambda _: model.stream,
    )
    return await ModelJoiner(prompts).join(context), model


def decision(action: str, text: str) -> str:
    return json.dumps({"action": action, "text": text})


async def test_an_answer() -> None:
    decided, _ = await decide(decision("answer", "Japan, by a factor of 1.4."))
    assert decided == Decision("answer", "Japan, by a factor of 1.4.")


async def test_an_answer_with_parentheses_and_several_lines_survives() -> None:
    text = 'Japan (334.88):\n- a (b)\n- "c" (d(e))\n\nAnswer: yes)'
    assert (await decide(decision("answer", text)))[0].text == text
    assert (await decide(text))[0] == Decision("answer", text)


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"action": "replan", "text": "no area"}\n```',
        '{"text": "no area", "action": "replan"}',
        "Replan: no area",
    ],
)
async def test_endpoints_that_hold_no_model_to_a_schema_are_understood(text: str) -> None:
    assert (await decide(text))[0] == Decision("replan", "no area")


async def test_json_too_deep_to_be_read_is_text() -> None:
    brackets = "[" * 100_000
    assert (await decide(brackets))[0] == Decision("answer", brackets)


async def test_the_last_round_must_answer() -> None:
    decided, model = await decide(decision("replan", "The area is unknown."), final=True)
    assert decided == Decision("answer", "The area is unknown.")
    schema = model.requests[0].schema
    assert schema is not None
    assert schema["properties"]["action"]["enum"] == ["answer"]


async def test_an_empty_answer_is_the_models_fault() -> None:
    with pytest.raises(ModelError, match="empty"):
        await decide("  ")
    with pytest.raises(ModelError, match="without a word"):
        await decide(decision("answer", " "))


async def test_join_names_what_is_shown_and_failures_are_always() -> None:
    plan_round = round_of(
        [call(1, "country", "Japan"), call(2, "country", "Oz"), call(3, "calc", "1 + 1")],
        {1: JAPAN, 2: Failure("tool", "ToolError", "no such country"), 3: 2},
        join=(3,),
    )
    _, model = await decide(decision("answer", "2"), plan_round)
    prompt = model.requests[0].messages[-1].content
    assert 'country("Japan")' not in prompt
    assert 'country("Oz") failed: no such country' in prompt
    assert 'calc("1 + 1") = 2' in prompt


async def test_results_of_all_rounds_are_shown() -> None:
    first = round_of([call(1, "country", "Japan")], {1: JAPAN})
    second = round_of([call(2, "calc", "$1.population / 2")], {2: 63264550.0}, earlier=(1,))
    _, model = await decide(decision("answer", "x"), first, second)
    prompt = model.requests[0].messages[-1].content
    assert prompt.index('country("Japan") = ') < prompt.index('calc("Japan.population / 2")')


async def test_where_every_result_is_missing_another_plan_is_asked_for_without_a_model() -> None:
    no_city = Failure("tool", "ToolError", 'there is no city "Tokio"')
    skipped = Failure("tool", "Skipped", "task 2 did not succeed")
    calls = [
        call(1, "country", "Japan"),
        call(2, "city", "Tokio"),
        call(3, "calc", "$2.population / $1.population"),
    ]
    plan_round = round_of(calls, {1: JAPAN, 2: no_city, 3: skipped})
    model = ScriptedModel([decision("answer", "Unknown.")])
    context = JoinContext("?", TOOLS, (plan_round,), False, model.stream, lambda _: model.stream)
    assert await ModelJoiner().join(context) == Decision("replan", 'city: there is no city "Tokio"')
    assert model.requests == []
    final = dataclasses.replace(context, final=True)
    assert await ModelJoiner().join(final) == Decision("answer", "Unknown.")


async def test_results_stand_apart_from_the_steps_to_them() -> None:
    _, model = await decide(decision("answer", "x"))
    steps, _, results = model.requests[0].messages[-1].content.partition("Results:\n")
    assert steps.count("\n- ") == 3
    assert results.startswith('- calc("max(334.88, 232.28) / min(334.88, 232.28)") = 1.4417\n\n')


async def test_numbers_of_the_models_own_are_asked_about_once() -> None:
    wrong = decision("answer", "Japan, by a factor of 1.8.")
    right = decision("answer", "Japan, by a factor of 1.44.")
    model = ScriptedModel([wrong, right])
    context = JoinContext(
        "Which?", TOOLS, (DENSITIES,), False, model.stream, lambda _: model.stream
    )
    assert await ModelJoiner().join(context) == Decision("answer", "Japan, by a factor of 1.44.")
    assert (
        "An earlier answer held 1.8, which none of the results says"
        in model.requests[1].messages[-1].content
    )
    stubborn = ScriptedModel([wrong, wrong])
    context = dataclasses.replace(context, ask=stubborn.stream)
    assert (await ModelJoiner().join(context)).text == "Japan, by a factor of 1.8."


async def test_a_number_from_an_example_is_asked_about_without_the_examples() -> None:
    first, last = "Japan, 1.6982 times as much.", "Japan, by a factor of 1.44."
    model = ScriptedModel([decision("answer", first), decision("answer", last)])
    context = JoinContext(
        "Which?", TOOLS, (DENSITIES,), False, model.stream, lambda _: model.stream
    )
    assert (await ModelJoiner().join(context)).text == last
    first, second = (request.messages for request in model.requests)
    assert any("1.6982" in message.content for message in first[1:-1])
    assert [message.role for message in second] == ["system", "user"]


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ("about 126.5 million people", []),
        ("1.4 times, 335 per km2", ["335"]),
        ("1.44 times", []),
        ("7.7% of them", []),
        ("the 2 countries", []),
        ("126,529,100 in 2031", ["2031"]),
    ],
)
def test_rounded_and_scaled_numbers_are_known_again(answer: str, wrong: list[str]) -> None:
    assert find_ungrounded_numbers(answer, "population: 126,529,100; 1.4417; 0.0769") == wrong


async def test_records_that_went_whole_into_a_result_are_not_shown_again() -> None:
    calls = [
        call(1, "country", "Japan"),
        call(2, "country", "Germany"),
        call(3, "largest", [{"$ref": "$1"}, {"$ref": "$2"}], by="population"),
    ]
    plan_round = round_of(calls, {1: JAPAN, 2: GERMANY, 3: JAPAN})
    _, model = await decide(decision("answer", "Japan"), plan_round)
    prompt = model.requests[0].messages[-1].content
    assert prompt.startswith('Results:\n- largest(2 records, by="population") = Japan: name: J')


async def test_a_plan_without_tools_is_answered_directly() -> None:
    _, model = await decide(decision("answer", "Hello!"), round_of([], {}))
    assert "No tool was needed" in model.requests[0].messages[-1].content


async def test_the_texts_are_the_users_to_change() -> None:
    prompts = Prompts(
        joiner_guidelines=("Answer in French.",), join="{question} | {results} | {steps}"
    )
    _, model = await decide(decision("answer", "Japon"), prompts=prompts)
    system, *_, user = model.requests[0].messages
    assert "- Answer in French." in system.content
    assert user.content.startswith("Which is denser? | - calc(")
