"""Static checks: a plan that cannot work is refused before any call."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal as OneOf

import pytest
from pydantic import BaseModel, Field, TypeAdapter
from typing_extensions import TypedDict

from llmcompiler.language import Diagnostic, Parser, parse_plan
from llmcompiler.passes.check import check_plan, check_task
from llmcompiler.plan.expressions import Literal, Reference, Template
from llmcompiler.plan.model import Plan, Task
from llmcompiler.tools.base import Lint
from llmcompiler.tools.calc import lint_expression


@dataclass
class View:
    """The least that a tool shows the checker."""

    name: str
    parameters_schema: dict[str, Any] = field(default_factory=dict)
    return_schema: dict[str, Any] | None = None
    lint: Lint | None = None


class Currency(TypedDict):
    code: str
    digits: int


class Country(BaseModel):
    name: str
    population: int
    area_km2: float
    capital: str | None
    neighbours: list[str]
    currency: Currency
    rates: dict[str, float]


class Window(BaseModel):
    first: int
    last: int = 9


def view(name: str, result: Any = None, /, **parameters: Any) -> View:
    """A tool with pydantic's schemas; a parameter is a type, or a type and a default."""
    fields = {
        key: parameter if isinstance(parameter, tuple) else (parameter, ...)
        for key, parameter in parameters.items()
    }
    annotations = {key: kind for key, (kind, _) in fields.items()}
    defaults = {key: default for key, (_, default) in fields.items() if default is not ...}
    model = type(name, (BaseModel,), {"__annotations__": annotations, **defaults})
    schema = TypeAdapter(model).json_schema()
    schema.setdefault("properties", {})
    schema["additionalProperties"] = False
    returned = None if result is None else TypeAdapter(result).json_schema(mode="serialization")
    return View(name, schema, returned)


TOOLS = {
    tool.name: tool
    for tool in (
        view("country", Country, name=str),
        view("countries", list[Country], continent=(str | None, None)),
        view("calc", float, expression=str),
        view("sqrt", float, x=float),
        view("top", list[str], items=list[str], n=(int, 3)),
        view("sized", int, n=(int, Field(ge=1, le=10)), unit=(OneOf["km", "mile"], "km")),
        view("window", None, where=Window),
        view("either", str, value=int | list[int]),
        view("pair", tuple[str, int]),
        view("triple", tuple[str, str, str]),
        view("text", str, q=str),
        view("anything", None, value=Any),
        view("flag", bool, on=bool),
        view("zip2", str, a=Any, b=Any),
        replace(view("reckon", float, expression=str), lint=lint_expression),
    )
}


def check(text: str) -> tuple[Plan, list[Diagnostic]]:
    parser = Parser(inputs="declare")
    parser.feed(text)
    parser.close()
    assert not [
        diagnostic.render() for diagnostic in parser.diagnostics if diagnostic.severity == "error"
    ]
    return check_plan(parser.plan(), TOOLS, parser.spans)


def codes(text: str) -> list[str]:
    return [diagnostic.code for diagnostic in check(text)[1]]


def only(text: str) -> Diagnostic:
    (diagnostic,) = check(text)[1]
    return diagnostic


@pytest.mark.parametrize(
    "text",
    [
        '1. country("Japan")\n2. calc("$1.population / $1.area_km2")\n3. sqrt($2)',
        "1. countries()\n2. top($1[0].neighbours, n=2)\n3. country($2[*])\n4. sqrt($3[*].area_km2)",
        "1. countries()\n2. anything($1[*].neighbours[*])\n3. anything($2[0][0].x)",
        '1. countries("Asia")\n2. top($1[*].neighbours)\n3. anything($2[0][1])',
        '1. country("x")\n2. sqrt($1.population)\n3. sqrt($1.rates.EUR)\n4. sqrt($1.rates["US D"])',
        '1. country("x")\n2. country($1.capital)\n3. calc($1.currency.code)',
        '1. sqrt("2.5")\n2. sqrt(2)\n3. sized("3")\n4. sized(4.0, "mile")\n5. flag("yes")',
        "1. flag(1)\n2. flag(true)\n3. sqrt(true)",
        '1. window({"first": 1})\n2. sized(2)\n3. window({"first": $2, "last": 3})',
        "1. either(1)\n2. either([1, 2])\n3. sized(1)\n4. either([$3, 2])\n5. either($3)",
        "1. anything(1)\n2. sqrt($1)\n3. calc($1.any.thing[0])\n4. sqrt($1[*])",
        "1. pair()\n2. calc($1[0])\n3. sized($1[1])\n4. sized($1[-1])",
        "input n: integer\ninput any\n1. sqrt($n)\n2. sqrt($any.x)",
        '1. country("x")\n2. top([$1.name, "b"])',
    ],
)
def test_what_fits_is_left_alone(text: str) -> None:
    plan, diagnostics = check(text)
    assert [diagnostic.render() for diagnostic in diagnostics] == []
    assert plan is not None
    assert plan == parse_plan(text)


@pytest.mark.parametrize(
    ("text", "code", "column", "says"),
    [
        ('1. contry("x")', "E203", 4, 'did you mean "country"?'),
        ('1. country("a", "b")', "E301", 17, "takes 1 argument, and 2"),
        ("1. country()", "E302", 4, "needs the argument name"),
        ("1. zip2()", "E302", 4, "arguments a, b"),
        ('1. country("a", nam="b")', "E303", 21, "no parameter 'nam'"),
        ('1. top(["a"], m=2)', "E303", 17, "n: an integer = …"),
        ('1. country("a", name="b")', "E304", 22, "by position and by name"),
        ("1. country(5)", "E305", 12, "cannot be 5"),
        ("1. country(null)", "E305", 12, "cannot be null"),
        ('1. sqrt("two")', "E305", 9, "a number"),
        ("1. sized(2.5)", "E305", 10, "an integer"),
        ("1. sized(0)", "E305", 10, "at least 1"),
        ("1. sized(11)", "E305", 10, "at most 10"),
        ('1. sized(1, "mil")', "E305", 13, 'did you mean "mile"?'),
        ('1. top(["a", 2])', "E305", 8, "items[1] cannot be 2"),
        ('1. top("a")', "E305", 8, "a list of a string"),
        ('1. window({"first": "x"})', "E305", 11, "where.first"),
        ("1. window({})", "E305", 11, "lacks the field 'first'"),
        ('1. either("x")', "E305", 11, "an integer or a list of an integer"),
        ("1. either([1, []])", "E305", 11, "value[1]"),
        ('1. flag("perhaps")', "E305", 9, "true or false"),
    ],
)
def test_literals_and_names(text: str, code: str, column: int, says: str) -> None:
    problem = only(text)
    assert (problem.code, problem.column, problem.task) == (code, column, 1), problem.render()
    assert says in problem.render()


@pytest.mark.parametrize(
    ("call", "code", "says"),
    [
        ("calc($1.popluation)", "E306", 'did you mean "population"?'),
        ('calc("in $1.capitl")', "E306", 'did you mean "capital"?'),
        ("calc($1.population.x)", "E306", "$1.population is an integer"),
        ("calc($1[*])", "E306", "no elements to fan out over"),
        ("calc($1.currency.name)", "E306", "code, digits"),
        ("calc($1.neighbours.name)", "E306", "which has no field"),
        ("calc($1.population)", "E307", 'as text: "$1.population"'),
        ("calc($1)", "E307", "a field of it fits: $1.name"),
        ("calc($1.neighbours)", "E307", "one call for each item: $1.neighbours[*]"),
        ("sqrt($1.neighbours)", "E307", "takes a number"),
        ("sqrt($1.name)", "E307", "$1.name is a string"),
        ("top($1.population)", "E307", "takes a list of a string"),
        ("either($1.rates)", "E307", "is a dict"),
        ("top([1, $1.name])", "E305", ""),
        ("top([$1.population])", "E307", "items[0]"),
        ("sqrt([$1])", "E305", "not a list"),
        ('sqrt({"a": $1})', "E305", "not a dict"),
        ('window({"frst": $1.population})', "E305", "lacks the field 'first'"),
        ('window({"first": $1.name})', "E307", "where.first"),
        ("top($1.neighbours[*])", "E307", "$1.neighbours[*] is a string"),
    ],
)
def test_references(call: str, code: str, says: str) -> None:
    problems = check(f'1. country("x")\n2. {call}')[1]
    assert code in [diagnostic.code for diagnostic in problems], [
        diagnostic.render() for diagnostic in problems
    ]
    assert all(diagnostic.task == 2 and diagnostic.line == 2 for diagnostic in problems)
    assert says in "\n".join(diagnostic.render() for diagnostic in problems)


def test_a_field_of_every_item_is_suggested() -> None:
    problem = only("1. countries()\n2. anything($1.name)")
    assert problem.code == "E306"
    assert problem.hint == "for each item: $1[*].name"


def test_an_element_that_a_pair_does_not_have() -> None:
    assert codes("1. pair()\n2. anything($1[2])") == ["E306"]


class TestFanOut:
    def test_a_map_gives_a_list(self) -> None:
        above = "1. countries()\n2. sqrt($1[*].population)\n"
        assert codes(above + "3. sqrt($2[*])") == []
        assert codes(above + "3. sqrt($2)") == ["E307"]
        assert codes(above + "3. sqrt($2[0])") == []

    def test_a_map_over_two_dimensions_gives_lists_of_lists(self) -> None:
        above = "1. countries()\n2. text($1[*].neighbours[*])\n"
        assert codes(above + "3. text($2[*][*])") == []
        assert codes(above + "3. text($2[*])") == ["E307"]

    def test_definitions_are_found_through_a_map(self) -> None:
        above = "1. top([])\n2. country($1[*])\n"
        assert codes(above + "3. text($2[*].currency.code)") == []
        assert codes(above + "3. text($2[*].currency.kode)") == ["E306"]

    def test_unequal_lengths_are_an_error(self) -> None:
        problem = only("1. pair()\n2. triple()\n3. zip2($1[*], $2[*])")
        assert (problem.code, problem.task) == ("E308", 3)
        assert "$1[*] has 2 elements and $2[*] has 3" in problem.message
        assert codes("1. triple()\n2. text($1[*])\n3. zip2($1[*], $2[*])") == []
        assert codes("1. triple()\n2. text($1[*])\n3. pair()\n4. zip2($2[*], $3[*])") == ["E308"]

    def test_lists_of_unknown_length_may_fit(self) -> None:
        assert codes("1. countries()\n2. triple()\n3. zip2($1[*], $2[*])") == []


class TestSlips:
    def test_a_reference_in_quotes_is_typed_where_text_does_not_fit(self) -> None:
        plan, (problem,) = check('1. calc("1")\n2. sqrt("$1")')
        assert plan.tasks[1].args == (Reference(task=1),)
        assert (problem.code, problem.severity, problem.column) == ("W301", "warning", 9)

    def test_in_lists_too(self) -> None:
        plan, problems = check('1. sized(1)\n2. either(["$1", 2])')
        assert [diagnostic.code for diagnostic in problems] == ["W301"]
        assert plan == parse_plan("1. sized(1)\n2. either([$1, 2])")

    def test_it_stays_text_where_text_fits(self) -> None:
        plan, problems = check('1. calc("1")\n2. calc("$1")\n3. anything("$1")')
        assert problems == []
        assert plan.tasks[1].args == plan.tasks[2].args == (Template(parts=(Reference(task=1),)),)

    def test_text_that_may_be_a_number_is_a_doubt(self) -> None:
        assert codes('1. text("x")\n2. sqrt($1)') == ["W302"]
        assert codes('1. text("x")\n2. sqrt("-$1")') == ["W302"]
        assert codes('1. text("x")\n2. top("$1, $1")') == ["E305"]


def test_tasks_are_checked_one_by_one() -> None:
    result_types: dict[int, Any] = {}
    first = Task(id=1, tool="country", args=(Literal(value="x"),))
    second = Task(id=2, tool="sqrt", args=(Reference(task=1, path=("population",)),))
    third = Task(id=3, tool="sqrt", args=(Reference(task=1, path=("popul",)),))
    for task in (first, second):
        assert check_task(task, tools=TOOLS, result_types=result_types) == (task, [])
    assert set(result_types) == {1, 2}
    (problem,) = check_task(third, tools=TOOLS, result_types=result_types)[1]
    assert problem.render().splitlines()[1] == " --> task 3"


def test_results_of_earlier_plans_may_be_anything() -> None:
    plan = parse_plan("4. sqrt($2.x)", earlier_ids=[2])
    assert check_plan(plan, TOOLS) == (plan, [])


def test_a_tool_that_takes_any_keyword() -> None:
    tools = {
        "open": View("open", {"type": "object", "properties": {}, "additionalProperties": True})
    }
    plan = parse_plan('1. open(a=1, b="x")')
    assert check_plan(plan, tools) == (plan, [])


def record(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields)}


def test_the_field_at_fault_is_named() -> None:
    point, odd = (
        record(x={"type": "number"}),
        record(x={"type": "object", "additionalProperties": {"type": "array"}}),
    )
    draw = replace(view("draw", at=Any), parameters_schema=record(at=point))
    tools = {"draw": draw, "odd": replace(view("odd"), return_schema=odd)}
    (problem,) = check_plan(parse_plan("1. odd()\n2. draw($1)"), tools)[1]
    assert (problem.code, problem.hint) == ("E307", "$1.x is a dict of a list, not a number")


def test_a_result_that_refers_to_its_root_does_so_behind_a_fan_out() -> None:
    kids = {"type": "array", "items": {"$ref": "#"}}
    node = record(name={"type": "string"}, kids=kids)
    tools = {**TOOLS, "tree": replace(view("tree", n=int), return_schema=node)}
    plan = parse_plan("1. anything([1, 2])\n2. tree($1[*])\n3. text($2[0].kids[0].name)")
    assert check_plan(plan, tools)[1] == []
    plan = parse_plan("1. anything([1, 2])\n2. tree($1[*])\n3. text($2[0].kids[0].age)")
    assert [diagnostic.code for diagnostic in check_plan(plan, tools)[1]] == ["E306"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('reckon("price(2) + 1")', "there is no function 'price'"),
        ("reckon(\"sqrt('4') + flag($1)\")", "there is no function 'flag'"),
        ('reckon("($1 + $1 / 2")', "it is not an expression ('(' was never closed)"),
        ('reckon("$1 times 2")', "it is not an expression"),
        ('reckon("people / 2")', "'people' is not known"),
        ('reckon("")', "it is not an expression"),
        ('reckon("$9 + 1")', "there is no task before it that $9 could mean"),
        ('reckon("$1.1")', "$1.1 is text and no reference"),
        ('reckon("2 * $1.25 + 1")', "an item is $1[25], a number stands without $"),
    ],
)
def test_text_that_the_tool_could_never_use_is_an_error(text: str, message: str) -> None:
    problem = only(f"1. sqrt(2)\n2. {text}")
    assert problem.code == "E309"
    assert message in problem.message


@pytest.mark.parametrize(
    "text",
    [
        "$1",
        "$1.EUR",
        "max($1, 3) ^ 2 × 1,234",
        "$1 in [Japan, 'Niger']",
        "sum([x * 2 for x in $1])",
        "round(Sqrt($1), 2) if $1 > 2 else pi",
    ],
)
def test_text_that_may_be_right_is_not_judged(text: str) -> None:
    assert codes(f'1. anything(1)\n2. reckon("{text}")') == []


def test_a_tool_called_inside_text_is_shown_the_way_out() -> None:
    problem = only("1. reckon(\"sqrt(2) + flag('on')\")")
    assert problem.hint == (
        "flag is a tool: call it in a line of its own, and refer to its result as $N"
    )
