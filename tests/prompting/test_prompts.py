"""Prompts as data: replaced from Python and from files, and fitted to the tools at hand."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from llmcompiler.errors import UsageError
from llmcompiler.language import parse_plan, read_plan
from llmcompiler.passes.check import check_plan
from llmcompiler.planners.examples import (
    DIRECT,
    derive_example,
    find_nearest_example,
    select_examples,
)
from llmcompiler.prompting.prompts import Example, Prompts, bullets, fill
from llmcompiler.tools.base import tool
from llmcompiler.tools.foreign import foreign_tool
from llmcompiler.tools.loading import load_tools


@dataclass
class Page:
    title: str
    words: int


@tool
def search(query: str) -> Page:
    """Find a page."""
    return Page(query, 1)


@tool
def fetch(title: str) -> str:
    """Read a page."""
    return title


@tool
def price(item: str) -> float:
    """What it costs."""
    return 1.0


@tool
def now() -> str:
    """The time."""
    return "noon"


@tool
def convert(amount: float, to: Literal["usd", "eur"]) -> float:
    """Convert money."""
    return amount


@tool
def send(message: dict[str, str]) -> None:
    """Send a message, of which nobody can make up an example."""


# --- files ----------------------------------------------------------------------------------------


def test_texts_come_from_toml_and_json(tmp_path: Path) -> None:
    toml = tmp_path / "prompts.toml"
    toml.write_text(
        'guidelines = ["Prefer the metric system."]\n'
        "[[examples]]\n"
        'question = "Where is Oslo?"\n'
        'plan = """\n1. city("Oslo")\n2. join()"""\n'
    )
    data = {
        "guidelines": ["Prefer the metric system."],
        "examples": [{"question": "Where is Oslo?", "plan": '1. city("Oslo")\n2. join()'}],
    }
    json_file = tmp_path / "prompts.json"
    json_file.write_text(json.dumps(data))
    assert Prompts.load(toml) == Prompts.load(json_file)
    assert Prompts.load(toml).planner == Prompts().planner


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.toml", "guidlines = []", "did you mean guidelines?"),
        ("a.json", '{"examples": [{"question": "x"}]}', "examples.0.plan"),
        ("a.json", '{"join": "no placeholders"}', "lacks the placeholder {question}"),
        ("a.json", "{", "is not JSON"),
        ("a.toml", "=", "is not TOML"),
        ("a.json", '{"examples": [{"question": "x", "plan": "1. f(oops"}]}', "examples.0.plan"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path: Path, name: str, text: str, says: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        Prompts.load(file)
    assert says in str(caught.value)
    assert name in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the prompts"):
        Prompts.load(tmp_path / "none.toml")


def test_placeholders_are_filled_once_and_other_braces_are_text() -> None:
    assert fill("{question} {x} {", question="what is {tools}?", tools="no") == (
        "what is {tools}? {x} {"
    )


def test_items_of_several_lines_stay_items() -> None:
    assert bullets(["a\nb", "c"]) == "- a\n  b\n- c"


# --- examples -------------------------------------------------------------------------------------


def test_an_example_knows_its_tools() -> None:
    example = Example(question="?", plan='1. web.find("2. not(this)")\n2. f-g($1)\n3. join()')
    assert example.tools == {"web.find", "f-g"}
    assert Example(question="?", plan='country("x")\njoin()').tools == {"country"}


@pytest.mark.parametrize("names", [("calc",), ("geo",), ("calc", "geo")])
def test_no_example_names_a_tool_that_is_not_there(names: tuple[str, ...]) -> None:
    tools = load_tools(names)
    examples = select_examples(Prompts(), tools)
    assert all(example.tools <= tools.keys() for example in examples)
    assert DIRECT in examples
    assert len(examples) > 1


def test_every_example_of_the_pool_fits_the_default_tools_and_think() -> None:
    tools = load_tools(("calc", "geo"))
    assert all(example.tools <= tools.keys() | {"think"} for example in Prompts().pool)


def test_examples_of_the_users_own_come_last_and_only_where_they_fit() -> None:
    fits = Example(question="?", plan='1. search("x")\n2. join()')
    unfit = Example(question="?", plan='1. missing("x")\n2. join()')
    examples = select_examples(Prompts(examples=(fits, unfit)), {"search": search})
    assert examples[-1] == fits
    assert unfit not in examples


def test_tools_that_no_example_covers_get_one_from_their_schemas() -> None:
    tools = {**load_tools(("calc",)), "search": search, "fetch": fetch}
    derived = [
        example for example in select_examples(Prompts(), tools) if "search" in example.tools
    ]
    assert [example.plan.splitlines() for example in derived] == [
        [
            '1. search("red")',
            '2. search("green")',
            '3. calc("$1.words + $2.words")',
            "4. fetch($1.title)",
            "5. join()",
        ]
    ]


def test_numbers_of_a_tool_are_reckoned_with_in_a_line_of_their_own() -> None:
    tools = {**load_tools(("calc",)), "price": price}
    derived = [example for example in select_examples(Prompts(), tools) if "price" in example.tools]
    assert [example.plan for example in derived] == [
        '1. price("red")\n2. price("green")\n3. calc("$1 + $2")\n4. join()'
    ]


def test_derived_arguments_fit_their_types() -> None:
    example = derive_example([convert])
    assert example is not None
    assert example.plan == (
        '1. convert(amount=0.3, to="usd")\n2. convert(amount=2.5, to="eur")\n'
        '3. convert(amount=8.0, to="usd")\n4. join()'
    )


def test_a_derived_example_calls_every_tool_and_gives_an_option_once() -> None:
    @tool
    def weather(place: str, days: int = 1) -> str:
        """What the weather will be."""
        return place

    example = derive_example([weather, now, price])
    assert example is not None
    assert example.question == (
        'First, weather for "red" and for place "green" and days 5. Then, now. '
        "Finally, price of the first result."
    )
    assert example.plan.splitlines() == [
        '1. weather("red")',
        '2. weather(place="green", days=5)',
        "3. now()",
        "4. price($1)",
        "5. join()",
    ]


@pytest.mark.parametrize(
    ("description", "values"),
    [
        ("The city and state, e.g. Boston, MA.", ["Boston, MA", "red", "green"]),
        ("A genre (e.g., Rock, Pop or Jazz).", ["Rock", "Pop", "Jazz"]),
        ("A genre, such as drama, comedy, etc. Optional.", ["drama", "comedy", "red"]),
        ("The order: 'asc' or \"desc\". Default is 'asc'.", ["asc", "desc", "red"]),
        ("A date in the format 'YYYY-MM-DD'.", ["red", "green", "blue"]),
        ("The user's name in the owner's team.", ["red", "green", "blue"]),
        ("For example, whatever one may want to write down in a sentence here", ["red"]),
    ],
)
def test_derived_arguments_are_those_that_the_author_gives_as_examples(
    description: str, values: list[str]
) -> None:
    schema = {"type": "string", "description": description}
    find = dataclasses.replace(
        search,
        parameters_schema={"properties": {"what": schema}, "required": ["what"]},
    )
    example = derive_example([find])
    assert example is not None
    for line, value in zip(example.plan.splitlines(), values, strict=False):
        assert f'search("{value}")' in line


class Parcel(BaseModel):
    """What is sent."""

    to: str = Field(description="The city and state, e.g. Boston, MA")
    kilos: float | None
    fragile: Literal["yes", "no"]


def test_derived_arguments_may_be_objects_unions_and_lists() -> None:
    @tool
    def post(parcels: list[Parcel], at: int | str, note: str | None = None) -> None:
        """Post parcels."""

    example = derive_example([post])
    assert example is not None
    first = '{"to": "Boston, MA", "kilos": 0.3, "fragile": "yes"}'
    second = '{"to": "red", "kilos": 2.5, "fragile": "no"}'
    last = '{"to": "green", "kilos": 8.0, "fragile": "yes"}'
    end = '{"to": "blue", "kilos": 0.3, "fragile": "no"}'
    more = '{"to": "Boston, MA", "kilos": 2.5, "fragile": "yes"}'
    assert example.plan.splitlines() == [
        f"1. post(parcels=[{first}, {second}], at=3)",
        f"2. post(parcels=[{second}], at=5)",
        f'3. post(parcels=[{last}, {end}, {more}], at=8, note="blue")',
        "4. join()",
    ]
    _, diagnostics = check_plan(parse_plan(example.plan), {"post": post})
    assert not diagnostics


@pytest.mark.parametrize("required", [["$top"], ["$top", "of"], []])
def test_parameters_may_have_names_that_are_no_words(required: list[str]) -> None:
    number = {"type": "integer"}
    odata = foreign_tool(
        "odata",
        lambda **_: None,
        description="Ask.",
        parameters_schema={
            "type": "object",
            "properties": {"$top": number, "of": number},
            "required": required,
        },
    )
    example = derive_example([odata])
    assert example is not None
    _, diagnostics = check_plan(parse_plan(example.plan), {"odata": odata})
    assert not diagnostics


@pytest.mark.parametrize(
    ("properties", "required"),
    [
        ({"$top": {"type": "integer"}, "$filter": {"type": "string"}}, ["$top"]),
        ({"user id": {"type": "string"}, "$select": {"type": "string"}}, ["$select", "user id"]),
        ({"page": {"type": "integer"}, "q": {"type": "string"}}, ["q"]),
        ({"cell": {"type": "string", "description": "e.g. '$1' or '$A$2'"}}, ["cell"]),
        ({"n": {"type": "integer", "minimum": 40, "maximum": 90}}, ["n"]),
        ({"m": {"type": "array", "items": {"type": "number"}, "maxItems": 1}}, ["m"]),
        ({"code": {"type": "string", "maxLength": 3}}, ["code"]),
    ],
)
def test_a_derived_example_is_a_plan_that_fits(
    properties: dict[str, Any], required: list[str]
) -> None:
    odata = dataclasses.replace(
        search, parameters_schema={"properties": properties, "required": required}
    )
    after = dataclasses.replace(odata, name="after")
    example = derive_example([odata, after, fetch])
    assert example is not None
    plan, slips = read_plan(example.plan)
    _, diagnostics = check_plan(plan, {"fetch": fetch, "search": odata, "after": after})
    assert [diagnostic.render() for diagnostic in (*slips, *diagnostics)] == []
    assert {task.tool for task in plan.tasks} == {"fetch", "search", "after"}


def test_a_tool_without_arguments_can_be_an_example() -> None:
    example = derive_example([now])
    assert example is not None
    assert example.plan == "1. now()\n2. join()"


def test_where_no_argument_can_be_made_up_there_is_no_example() -> None:
    assert derive_example([send]) is None
    assert select_examples(Prompts(), {"send": send}) == (DIRECT,)


@pytest.mark.parametrize(
    ("question", "nearest"),
    [
        ("How old is Ann, and how old is Bob?", "How old is Zoe, and how old is Max?"),
        ("How old is Ann, and how tall is she?", None),
        ("What is 3% of 40?", "What is 12.5% of 1,000?"),
        ("", None),
    ],
)
def test_names_and_numbers_do_not_make_questions_differ(question: str, nearest: str | None) -> None:
    questions = ("How old is Zoe, and how old is Max?", "What is 12.5% of 1,000?")
    prompts = Prompts(
        pool=(), examples=tuple(Example(question=text, plan="join()") for text in questions)
    )
    example = find_nearest_example(prompts, {}, question)
    assert (example.question if example is not None else None) == nearest


def test_an_example_whose_tools_are_not_at_hand_is_never_near() -> None:
    prompts = Prompts(pool=(Example(question="How old is Zoe?", plan='1. age("Zoe")'),))
    assert find_nearest_example(prompts, {}, "How old is Zoe?") is None
