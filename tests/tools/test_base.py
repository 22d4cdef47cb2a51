"""What ``@tool`` makes of a function: schemas, binding, encoding, observing."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import json
import math
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from llmcompiler.errors import ToolError, UsageError
from llmcompiler.tools.base import Tool, as_tool, tool
from llmcompiler.tools.context import CallContext, call_context, current_call


class Point(BaseModel):
    x: float
    y: float = 0.0


@dataclasses.dataclass
class Size:
    width: int
    height: int


class Record(TypedDict):
    name: str
    tags: list[str]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Node(BaseModel):
    value: int
    children: list[Node] = []


@tool
def country(name: str, year: int = 2020) -> Record:
    """Facts about
    a country.

    More that planners need not read.

    Args:
        name: the country's
            name.
        year: of the census.
    """
    return {"name": name, "tags": [str(year)]}


# --- what is read off the function ----------------------------------------------------------------


def test_a_bare_decorator_reads_name_description_and_schema() -> None:
    assert country.name == "country"
    assert country.description == "Facts about a country."
    assert country.parameters_schema == {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string", "description": "the country's name."},
            "year": {"type": "integer", "description": "of the census.", "default": 2020},
        },
        "required": ["name"],
    }
    assert country.return_schema is not None
    assert country.return_schema["required"] == ["name", "tags"]
    assert (country.effect, country.timeout, country.concurrency) == ("read", None, None)
    assert not country.is_async and not country.pure


def test_a_decorated_function_is_still_called_as_usual() -> None:
    assert country("Japan", year=1990) == {"name": "Japan", "tags": ["1990"]}


def test_options_override_what_is_read() -> None:
    @tool(
        name="mail.send",
        description="Send it.",
        effect="write",
        timeout=3,
        concurrency=2,
        trim=None,
        pure=True,
        version="7",
    )
    async def send(to: str) -> None: ...

    assert (send.name, send.description, send.effect) == ("mail.send", "Send it.", "write")
    assert (send.timeout, send.concurrency, send.trim) == (3, 2, None)
    assert send.pure and send.is_async and send.version == "7"
    assert send.return_schema == {"type": "null"}


def test_an_unannotated_function_takes_and_gives_anything() -> None:
    loose = as_tool(lambda_like)
    assert loose.return_schema is None
    assert loose.signature() == "lambda_like(value: any)"
    assert loose.bind([object], {}) == {"value": object}


def lambda_like(value):  # type: ignore[no-untyped-def]
    return value


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (str, "str"),
        (int | None, "int | None"),
        (list[dict[str, float]], "list[dict[str, float]]"),
        (Literal["a", "b"], '"a" | "b"'),
        (Literal[1], "1"),
        (Colour, '"red" | "blue"'),
        (Point, "{x: float, y: float}"),
        (Size, "{width: int, height: int}"),
        (Record, "{name: str, tags: list[str]}"),
        (tuple[int, str], "tuple[int, str]"),
        (list[Any], "list"),
        (dict[str, Any], "dict"),
        (datetime.date, "str"),
        (None, "None"),
        (Node, "{value: int, children: list[Node]}"),
    ],
)
def test_types_read_as_python_writes_them(annotation: Any, text: str) -> None:
    def make():  # type: ignore[no-untyped-def]
        return None

    make.__annotations__["return"] = annotation
    assert as_tool(make).signature() == f"make() -> {text}"


def test_an_optional_parameter_shows_its_default_and_takes_null() -> None:
    @tool
    def city(name: str, country: str = None, limit: int | None = None) -> int:  # type: ignore[assignment]  # noqa: RUF013
        return 0

    assert city.signature() == "city(name: str, country: str = None, limit: int = None) -> int"
    assert city.bind(["Paris", None], {}) == {"name": "Paris", "country": None, "limit": None}


def test_types_may_be_local_to_the_function_that_defines_the_tool() -> None:
    class Local(BaseModel):
        a: int

    @tool
    def use(value: Local) -> Local:
        return value

    assert use.bind([{"a": "1"}], {}) == {"value": Local(a=1)}


def test_parameters_may_have_names_that_pydantic_uses_itself() -> None:
    @tool
    def odd(schema: str, _hidden: int, copy: bool = False) -> str:
        return schema

    assert list(odd.parameters_schema["properties"]) == ["schema", "_hidden", "copy"]
    bound = odd.bind(["a"], {"_hidden": 2})
    assert bound == {"schema": "a", "_hidden": 2, "copy": False}
    with pytest.raises(ToolError, match="'_hidden'"):
        odd.bind(["a", "x"], {})


def test_methods_callables_and_partials_can_be_tools() -> None:
    class Store:
        def __init__(self, prefix: str) -> None:
            self.prefix = prefix

        @tool
        def get(self, key: str) -> str:
            """Get it."""
            return self.prefix + key

        def plain(self, key: str) -> str:
            return self.prefix + key

        async def __call__(self, key: str) -> str:
            return key

    store = Store("p/")
    assert store.get.signature() == "get(key: str) -> str"
    assert store.get.function(**store.get.bind(["k"], {})) == "p/k"
    assert as_tool(store.plain)("k") == "p/k"
    called = tool(name="ask")(store)
    assert called.is_async and list(called.parameters_schema["properties"]) == ["key"]
    bound = tool(name="half")(functools.partial(country.function, year=1))
    assert bound("x")["tags"] == ["1"]


def test_the_version_follows_the_code() -> None:
    def one(a: int) -> int:
        return a

    first = as_tool(one)

    def one(a: int) -> int:  # type: ignore[no-redef]
        return a + 1

    assert first.version != as_tool(one).version
    assert first.version == as_tool(first.function).version


# --- what cannot be a tool ------------------------------------------------------------------------


def stars(*values: int) -> int:
    return 0


def double_stars(**values: int) -> int:
    return 0


def positional(a: int, /) -> int:
    return a


def undefined(a: Missing) -> int:  # type: ignore[name-defined]  # noqa: F821
    return 0


class Opaque:
    pass


def opaque(a: Opaque) -> int:
    return 0


def opaque_result() -> Opaque:
    return Opaque()


def bytes_taken(a: list[bytes]) -> int:
    return 0


def bytes_returned() -> dict[str, bytes]:
    return {}


def join() -> int:
    return 0


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (stars, r"\*values"),
        (double_stars, r"\*\*values"),
        (positional, "positional-only parameter 'a'"),
        (undefined, "'Missing', which is not defined"),
        (opaque, "cannot be JSON"),
        (opaque_result, "its return type"),
        (bytes_taken, "a parameter is bytes"),
        (bytes_returned, "its return type is bytes"),
        (join, "plans end with it"),
        (lambda x: x, "cannot be a tool's name"),
        (3, "not a tool"),
        (Opaque, "not a tool"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_by_name(function: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        as_tool(function)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"concurrency": 0}, {"name": "a b"}])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        tool(**options)(country.function)


# --- bind -----------------------------------------------------------------------------------------


def test_bind_puts_positions_names_and_defaults_together() -> None:
    assert country.bind(["Japan"], {}) == {"name": "Japan", "year": 2020}
    assert country.bind([], {"year": "1990", "name": "Japan"}) == {"name": "Japan", "year": 1990}


def test_bind_keeps_python_types() -> None:
    @tool
    def draw(at: Point, size: Size, colour: Colour, many: list[Point]) -> None: ...

    bound = draw.bind([{"x": 1}, {"width": 2, "height": 3}, "red", [{"x": 1}]], {})
    assert bound == {
        "at": Point(x=1),
        "size": Size(2, 3),
        "colour": Colour.RED,
        "many": [Point(x=1)],
    }


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ([], {}, "country needs the argument 'name' (str)"),
        ([3], {}, "country: argument 'name' should be str, but 3 was given"),
        (["a", "soon"], {}, "country: argument 'year' should be int, but 'soon' was given"),
        (["a", 1, 2], {}, "country takes 2 arguments, and 3 were given"),
        (["a"], {"name": "b"}, "country got the argument 'name' twice"),
        ([], {"nmae": "a"}, "country has no argument 'nmae'"),
    ],
)
def test_bind_errors_name_tool_argument_and_value(
    args: list[Any], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ToolError) as caught:
        country.bind(args, kwargs)
    assert message in caught.value.message
    assert "country(name: str, year: int = 2020)" in caught.value.hint
    assert not caught.value.retryable


def test_a_misspelt_argument_gets_a_suggestion() -> None:
    with pytest.raises(ToolError, match="did you mean 'name'"):
        country.bind([], {"nmae": "a"})


def test_an_error_deep_in_a_list_says_where() -> None:
    @tool
    def total(numbers: Annotated[list[float], Field(min_length=1)]) -> float:
        return sum(numbers)

    with pytest.raises(ToolError, match=r"'x' was given at \[2\]"):
        total.bind([[1, 2, "x"]], {})
    with pytest.raises(ToolError, match=r"at least 1"):
        total.bind([[]], {})


def test_bind_does_not_share_a_mutable_default_between_calls() -> None:
    @tool
    def collect(items: list[int] = []) -> list[int]:  # noqa: B006
        items.append(1)
        return items

    for _ in range(2):
        assert collect.function(**collect.bind([], {})) == [1]


# --- encode ---------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=10,
)  # fmt: skip


@given(json_values)
def test_what_is_json_already_is_encoded_as_itself(value: Any) -> None:
    encoded = country.encode(value)
    assert encoded == value
    assert json.loads(json.dumps(encoded)) == value


def test_models_dataclasses_enums_dates_and_sets_are_encoded() -> None:
    value = {
        "point": Point(x=1),
        "size": Size(1, 2),
        "colour": Colour.BLUE,
        "day": datetime.date(2020, 1, 2),
        "set": {1},
        "tuple": (1, 2),
        3: "key",
    }
    assert country.encode(value) == {
        "point": {"x": 1.0, "y": 0.0},
        "size": {"width": 1, "height": 2},
        "colour": "blue",
        "day": "2020-01-02",
        "set": [1],
        "tuple": [1, 2],
        "3": "key",
    }


def circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (math.nan, "nan is not a JSON number"),
        (-math.inf, "-inf is not a JSON number"),
        ({"a": [1, math.nan]}, r"nan is not a JSON number \(at \['a'\]\[1\]\)"),
        (object(), "object"),
        (b"\xff", "utf-8"),
        ("\ud800", "surrogates"),
        (["\ud800"], "surrogates"),
        pytest.param(10**5000, "cannot be JSON", id="huge"),
        (circular(), "contains itself"),
    ],
)
def test_what_cannot_be_json_is_an_error_that_says_why(value: Any, words: str) -> None:
    with pytest.raises(ToolError, match=words) as caught:
        country.encode(value)
    assert caught.value.message.startswith("country returned a value that cannot be JSON")


def test_the_encoded_value_is_a_copy() -> None:
    value = [[1]]
    encoded = country.encode(value)
    value[0].append(2)
    assert encoded == [[1]]


# --- observe --------------------------------------------------------------------------------------


def trimmed(trim: Any) -> Tool:
    return tool(trim=trim)(country.function)


def test_short_observations_stand_as_they_are() -> None:
    assert country.observe("a\nb") == "a\nb"
    assert country.observe({"a": [1, None, "é"]}) == '{"a": [1, null, "é"]}'


def test_long_observations_say_how_much_is_missing() -> None:
    assert trimmed(5).observe("0123456789") == "01234... 5 more characters"
    assert country.observe("x" * 2500).endswith("... 500 more characters")
    assert trimmed(None).observe("x" * 9000) == "x" * 9000
    assert trimmed(lambda value: f"{len(value)} items").observe([1, 2]) == "2 items"


# --- the call a tool serves -----------------------------------------------------------------------


def test_a_tool_finds_its_call() -> None:
    @tool
    def pay(amount: int) -> str:
        return current_call().key

    with call_context(CallContext("r1", 3, (2,), "r1/3/2")) as call:
        assert pay(1) == "r1/3/2"
        assert call.attempt == 1 and not call.cancelled.is_set()


def test_outside_a_run_there_is_no_call() -> None:
    with pytest.raises(UsageError, match="outside a run"):
        current_call()
