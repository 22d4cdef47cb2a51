"""Static checks: a plan that cannot work is refused before any call."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any, Literal as OneOf
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from llmcompiler.language import Diagnostic, Parser, parse_plan
from llmcompiler.passes.check import check_plan, check_task
from llmcompiler.plan.expressions import Literal, Reference, Template
from llmcompiler.plan.model import Plan, Task
from llmcompiler.plan.types import SchemaType, fits, fixed_length, misfit
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
        key: given if isinstance(given, tuple) else (given, ...)
        for key, given in parameters.items()
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
    assert not [one.render() for one in parser.diagnostics if one.severity == "error"]
    return check_plan(parser.plan(), TOOLS, parser.spans)


def codes(text: str) -> list[str]:
    return [one.code for one in check(text)[1]]


def only(text: str) -> Diagnostic:
    (found,) = check(text)[1]
    return found


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
    plan, found = check(text)
    assert [one.render() for one in found] == []
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
    found = only(text)
    assert (found.code, found.column, found.task) == (code, column, 1), found.render()
    assert says in found.render()


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
    found = check(f'1. country("x")\n2. {call}')[1]
    assert code in [one.code for one in found], [one.render() for one in found]
    assert all(one.task == 2 and one.line == 2 for one in found)
    assert says in "\n".join(one.render() for one in found)


def test_a_field_of_every_item_is_suggested() -> None:
    found = only("1. countries()\n2. anything($1.name)")
    assert found.code == "E306"
    assert found.hint == "for each item: $1[*].name"


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
        found = only("1. pair()\n2. triple()\n3. zip2($1[*], $2[*])")
        assert (found.code, found.task) == ("E308", 3)
        assert "$1[*] has 2 elements and $2[*] has 3" in found.message
        assert codes("1. triple()\n2. text($1[*])\n3. zip2($1[*], $2[*])") == []
        assert codes("1. triple()\n2. text($1[*])\n3. pair()\n4. zip2($2[*], $3[*])") == ["E308"]

    def test_lists_of_unknown_length_may_fit(self) -> None:
        assert codes("1. countries()\n2. triple()\n3. zip2($1[*], $2[*])") == []


class TestSlips:
    def test_a_reference_in_quotes_is_typed_where_text_does_not_fit(self) -> None:
        plan, (found,) = check('1. calc("1")\n2. sqrt("$1")')
        assert plan.tasks[1].args == (Reference(task=1),)
        assert (found.code, found.severity, found.column) == ("W301", "warning", 9)

    def test_in_lists_too(self) -> None:
        plan, found = check('1. sized(1)\n2. either(["$1", 2])')
        assert [one.code for one in found] == ["W301"]
        assert plan == parse_plan("1. sized(1)\n2. either([$1, 2])")

    def test_it_stays_text_where_text_fits(self) -> None:
        plan, found = check('1. calc("1")\n2. calc("$1")\n3. anything("$1")')
        assert found == []
        assert plan.tasks[1].args == plan.tasks[2].args == (Template(parts=(Reference(task=1),)),)

    def test_text_that_may_be_a_number_is_a_doubt(self) -> None:
        assert codes('1. text("x")\n2. sqrt($1)') == ["W302"]
        assert codes('1. text("x")\n2. sqrt("-$1")') == ["W302"]
        assert codes('1. text("x")\n2. top("$1, $1")') == ["E305"]


def test_tasks_are_checked_one_by_one() -> None:
    produced: dict[int, Any] = {}
    first = Task(id=1, tool="country", args=(Literal(value="x"),))
    second = Task(id=2, tool="sqrt", args=(Reference(task=1, path=("population",)),))
    third = Task(id=3, tool="sqrt", args=(Reference(task=1, path=("popul",)),))
    for task in (first, second):
        assert check_task(task, tools=TOOLS, result_types=produced) == (task, [])
    assert set(produced) == {1, 2}
    (found,) = check_task(third, tools=TOOLS, result_types=produced)[1]
    assert found.render().splitlines()[1] == " --> task 3"


def test_results_of_earlier_plans_may_be_anything() -> None:
    plan = parse_plan("4. sqrt($2.x)", earlier_ids=[2])
    assert check_plan(plan, TOOLS) == (plan, [])


def test_a_tool_that_takes_any_keyword() -> None:
    tools = {
        "open": View("open", {"type": "object", "properties": {}, "additionalProperties": True})
    }
    plan = parse_plan('1. open(a=1, b="x")')
    assert check_plan(plan, tools) == (plan, [])


@pytest.mark.parametrize(
    "kind",
    [
        int,
        float,
        bool,
        str,
        list[int],
        dict[str, int],
        int | None,
        OneOf["a", 1],
        Window,
        Any,
        tuple[int, str],
        list[str] | int,
        OneOf["a"] | None,
        date,
        datetime,
        time,
        timedelta,
        UUID,
        Annotated[int, Field(multiple_of=3)],
        Annotated[float, Field(multiple_of=0.1)],
        Annotated[str, Field(pattern="^[a-z]+$")],
    ],
)
@pytest.mark.parametrize(
    "given",
    [
        None,
        True,
        0,
        1,
        2,
        1.5,
        2.0,
        "",
        "a",
        "1",
        " 2 ",
        "x",
        "true",
        "1e3",
        [],
        [1],
        ["1"],
        ["x"],
        {},
        {"first": 1},
        {"first": "x"},
        {"a": 1},
        [1, "x"],
        "inf",
        1e300,
        "off",
        10**30,
        0.7,
        "2025-01-31",
        "2025-01-31T10:00:00Z",
        "10:00",
        "P1D",
        "12345678-1234-5678-1234-567812345678",
    ],
)
def test_no_value_is_refused_that_pydantic_takes(kind: Any, given: Any) -> None:
    """And what is let through is refused at the call; but most mistakes are seen here."""
    adapter = TypeAdapter(kind)
    schema = adapter.json_schema()
    try:
        adapter.validate_python(given)
    except ValidationError:
        return
    assert misfit(given, SchemaType(schema, schema)) is None


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (date, "tomorrow", "a date such as 2025-01-31"),
        (date | None, "tomorrow", "a date such as 2025-01-31 or null"),
        (list[datetime], ["2025-01-31", "noon"], "a date and time such as 2025-01-31T13:45:00Z"),
        (time, "noon", "a time such as 13:45"),
        (timedelta, "a day", "a duration such as PT1H30M"),
        (UUID, "12", "a UUID"),
        (Annotated[str, Field(pattern="^[a-z]+$")], "ABC", "text that matches ^[a-z]+$"),
        (Annotated[int, Field(multiple_of=5)], 7, "a multiple of 5"),
        (Annotated[int, Field(multiple_of=5)], 10**30 + 1, "a multiple of 5"),
        (Annotated[float, Field(multiple_of=0.5)], 0.7, "a multiple of 0.5"),
    ],
)
def test_forms_of_text_and_steps_of_numbers(kind: Any, given: Any, expected: str) -> None:
    schema = TypeAdapter(kind).json_schema()
    found = misfit(given, SchemaType(schema, schema))
    assert found is not None and found.expected == expected


def test_numbers_beyond_a_double_are_not_counted_in_steps() -> None:
    half = {"type": "number", "multipleOf": 0.5}
    for given in (10**400, float("inf"), float("nan"), 1e300):
        assert misfit(given, SchemaType(half, half)) is None


def test_a_pattern_that_cannot_be_read_constrains_nothing() -> None:
    for pattern in ("(?=a)b", "(", None):
        schema = {"type": "string", "pattern": pattern, "format": "unheard-of"}
        assert misfit("x", SchemaType(schema, schema)) is None


def record(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields)}


def mapping(values: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": values}


POINT = record(x={"type": "number"}, y={"type": "number"})


@pytest.mark.parametrize(
    ("given", "wanted", "verdict"),
    [
        ({}, {"type": "string"}, True),
        ({"type": "integer"}, {"type": "number"}, True),
        ({"type": "number"}, {"type": "integer"}, True),
        ({"type": "integer"}, {"type": "string"}, False),
        ({"type": "string"}, {"type": "integer"}, None),
        ({"type": "null"}, {"type": "integer"}, False),
        ({"type": ["string", "null"]}, {"type": "string"}, True),
        ({"anyOf": [{"type": "array"}, {"type": "object"}]}, {"type": "string"}, False),
        ({"enum": ["a", "b"]}, {"enum": ["b", "c"]}, True),
        ({"enum": ["a", "b"]}, {"enum": ["c"]}, False),
        ({"type": "array", "items": {"type": "object"}}, {"type": "array"}, True),
        (
            {"type": "array", "items": {"type": "object"}},
            {"type": "array", "items": {"type": "string"}},
            False,
        ),
        ({"$ref": "#/$defs/missing"}, {"type": "string"}, True),
        (record(x={"type": "array"}, y={"type": "number"}), POINT, False),
        (record(x={"type": "string"}, y={"type": ["number", "null"]}), POINT, True),
        (record(x={"type": "number"}), POINT, False),
        (record(at=record(x={"type": "number"}, y={"type": "object"})), record(at=POINT), False),
        (mapping({"type": "array"}), mapping({"type": "integer"}), False),
        (mapping({"type": "integer"}), mapping({"type": "number"}), True),
        (record(x={"type": "number"}, y={"type": "array"}), mapping({"type": "number"}), False),
        (mapping({"type": "number"}), POINT, True),
    ],
)
def test_passing_one_type_as_another(given: Any, wanted: Any, verdict: bool | None) -> None:
    assert fits(SchemaType(given, given), SchemaType(wanted, wanted)) is verdict


def test_the_field_at_fault_is_named() -> None:
    point, odd = record(x={"type": "number"}), record(x=mapping({"type": "array"}))
    draw = replace(view("draw", at=Any), parameters_schema=record(at=point))
    tools = {"draw": draw, "odd": replace(view("odd"), return_schema=odd)}
    (found,) = check_plan(parse_plan("1. odd()\n2. draw($1)"), tools)[1]
    assert (found.code, found.hint) == ("E307", "$1.x is a dict of a list, not a number")


def test_types_with_many_fields_of_their_own_kind_are_soon_compared() -> None:
    many = record(**{f"f{number}": {"$ref": "#"} for number in range(12)})
    assert fits(SchemaType(many, many), SchemaType(many, many)) is True


def test_a_result_that_refers_to_its_root_does_so_behind_a_fan_out() -> None:
    kids = {"type": "array", "items": {"$ref": "#"}}
    node = record(name={"type": "string"}, kids=kids)
    tools = {**TOOLS, "tree": replace(view("tree", n=int), return_schema=node)}
    plan = parse_plan("1. anything([1, 2])\n2. tree($1[*])\n3. text($2[0].kids[0].name)")
    assert check_plan(plan, tools)[1] == []
    plan = parse_plan("1. anything([1, 2])\n2. tree($1[*])\n3. text($2[0].kids[0].age)")
    assert [one.code for one in check_plan(plan, tools)[1]] == ["E306"]


def test_a_schema_that_refers_to_itself() -> None:
    tree = TypeAdapter(list["list[Any]"]).json_schema()
    assert fixed_length(SchemaType(tree, tree)) is None
    loop = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    assert misfit(5, SchemaType(loop, loop)) is None
    nested = {
        "$ref": "#/$defs/n",
        "$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}},
    }
    assert misfit([[[]]], SchemaType(nested, nested)) is None
    assert misfit([[5]], SchemaType(nested, nested)) is not None
    assert fits(SchemaType(nested, nested), SchemaType(nested, nested)) is True


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('reckon("price(2) + 1")', "there is no function 'price'"),
        ("reckon(\"sqrt('4') + flag($1)\")", "there is no function 'flag'"),
        ('reckon("($1 + $1 / 2")', "it is not an expression ('(' was never closed)"),
        ('reckon("$1 times 2")', "it is not an expression"),
        ('reckon("people / 2")', "'people' is not known"),
        ('reckon("")', "it is not an expression"),
        ('reckon("$9 + 1")', "there is no task before it that $9 could mean"),
    ],
)
def test_text_that_the_tool_could_never_use_is_an_error(text: str, said: str) -> None:
    found = only(f"1. sqrt(2)\n2. {text}")
    assert found.code == "E309"
    assert said in found.message


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
    found = only("1. reckon(\"sqrt(2) + flag('on')\")")
    assert found.hint == (
        "flag is a tool: call it in a line of its own, and refer to its result as $N"
    )


@pytest.mark.parametrize(
    ("given", "wanted", "fit"),
    [
        ({"x": "array", "y": "object"}, {"x": "number", "y": "number"}, False),
        ({"x": "integer", "y": "number"}, {"x": "number", "y": "number"}, True),
        ({"x": "integer"}, {"x": "number", "y": "number"}, False),
    ],
)
def test_fields_of_objects_are_compared(
    given: dict[str, str], wanted: dict[str, str], fit: bool
) -> None:
    def record(fields: dict[str, str]) -> SchemaType:
        properties = {name: {"type": kind} for name, kind in fields.items()}
        return SchemaType({"type": "object", "properties": properties, "required": [*fields]}, {})

    assert fits(record(given), record(wanted)) is fit


def test_values_of_mappings_are_compared() -> None:
    def mapping(values: dict[str, Any]) -> SchemaType:
        return SchemaType({"type": "object", "additionalProperties": values}, {})

    numbers, lists = {"type": "integer"}, {"type": "array", "items": {"type": "string"}}
    assert fits(mapping(lists), mapping(numbers)) is False
    assert fits(mapping(numbers), mapping({"type": "number"})) is True
