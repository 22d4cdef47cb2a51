"""Large catalogues: the tools that a question may need are chosen before it is planned."""

from __future__ import annotations

from llmcompiler.language.lazy_grammar import grammar_text
from llmcompiler.planners.base import PlanningContext
from llmcompiler.planners.text import TextPlanner
from llmcompiler.testing.doubles import ScriptedModel
from llmcompiler.tools.base import Tool, tool
from llmcompiler.tools.selection import SELECTED, THRESHOLD, select_tools


def make_tool(name: str, description: str) -> Tool:
    def function(value: str) -> str:
        return value

    return tool(name=name, description=description)(function)


THINGS = "apple brick cloud dairy eagle fence grape honey igloo jewel".split()
MANY = {
    tool.name: tool
    for tool in (
        *(
            make_tool(f"{verb}_{thing}", f"{verb} one {thing} in the archive.")
            for verb in ("paint", "weigh", "store", "count", "clean")
            for thing in THINGS
        ),
        make_tool("convertCurrency", "Exchange an amount of money into another currency."),
        make_tool("weather.forecast", "Say how warm it will be in a city."),
    )
}


def test_a_small_catalogue_is_given_whole() -> None:
    few = dict(list(MANY.items())[:THRESHOLD])
    assert select_tools("weather?", few) == few


def test_each_part_of_a_question_finds_its_tools() -> None:
    question = (
        "What will the weather be in Oslo? Convert 5 EUR to another currency and weigh grapes."
    )
    chosen = select_tools(question, MANY, count=6)
    assert len(chosen) == 6
    assert {"weather.forecast", "convertCurrency", "weigh_grape"} <= chosen.keys()
    assert list(chosen) == [name for name in MANY if name in chosen]


def test_tools_that_were_used_stay() -> None:
    assert "paint_apple" in select_tools("the weather", MANY, always=["paint_apple", "gone"])


def test_a_question_that_names_nothing_known_still_gets_tools() -> None:
    assert len(select_tools("zzz?", MANY)) == SELECTED


async def test_the_planner_shows_the_chosen_ones_and_its_grammar_allows_no_other() -> None:
    model = ScriptedModel(['1. weigh_grape("big")\n2. join()'])
    context = PlanningContext("How much does the grape weigh?", MANY, model.stream)
    items = [item async for item in TextPlanner().plan(context)]
    assert len(items) == 2
    (request,) = model.requests
    assert "weigh_grape(" in request.messages[0].content
    assert "convertCurrency(" not in request.messages[0].content
    assert request.grammar is not None
    assert "convertCurrency" not in grammar_text(request.grammar)
