"""Binding: the values that a call gets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from llmcompiler.errors import PlanError
from llmcompiler.executors.value_handles import LENGTH, LENGTHS, MARK, PATH, ValueHandle
from llmcompiler.language import parse_plan
from llmcompiler.plan.expressions import Expr, Literal, Template
from llmcompiler.runtime.binding import (
    BindingError,
    FanOutShape,
    evaluate_expression,
    fan_out,
    render_value,
)

RESULTS = {
    1: {"population": 83, "area": 0.5, "items": [{"a b": 1}, {"a b": 2}], "name": "$2 and ${3}"},
    2: [10, 20, 30],
    3: "text",
    4: [[1, 2], [], [3]],
    5: [{"rows": [1, 2]}, {"rows": [3]}],
    6: None,
    10: "ten",
}
INPUTS = {"city": {"name": "Oslo", "tags": ["a", "b", "c"]}}


def task(argument: str) -> Any:
    return parse_plan(f"input city\n11. f({argument})", earlier_ids=RESULTS).tasks[0]


def expr(text: str) -> Expr:
    value: Expr = task(text).args[0]
    return value


def bound(text: str, index: tuple[int, ...] = ()) -> Any:
    return evaluate_expression(expr(text), RESULTS.__getitem__, INPUTS, index)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("$1.population", 83),
        ('$1.items[1]["a b"]', 2),
        ("$1.items[-1]", {"a b": 2}),
        ("$2", [10, 20, 30]),
        ("$city.name", "Oslo"),
        ("[1, $2[0], {'k': $3}]", [1, 10, {"k": "text"}]),
        ('"$1.population people"', "83 people"),
        ('"$3 $10 $1.area"', "text ten 0.5"),
        ('"$2 and $6 in $city.name"', "[10,20,30] and null in Oslo"),
        ('"$1.items"', '[{"a b":1},{"a b":2}]'),
    ],
)
def test_references_get_values(text: str, value: Any) -> None:
    assert bound(text) == value


def test_a_list_that_is_stored_elsewhere_fans_out_by_its_handle() -> None:
    handles: dict[int, Any] = {
        1: ValueHandle({MARK: "aa", LENGTH: 3}),
        2: ValueHandle({MARK: "bb", LENGTHS: {"rows": 2}}),
    }

    def instances(argument: str) -> list[Any]:
        (starred,) = parse_plan(f"3. f({argument})", earlier_ids=handles).tasks
        extent = fan_out(starred, handles.__getitem__, {}).extent
        return [
            evaluate_expression(starred.args[0], handles.__getitem__, {}, (n,))
            for n in range(extent)
        ]

    assert instances("$1[*]") == [ValueHandle({MARK: "aa", PATH: [number]}) for number in range(3)]
    assert instances("$2.rows[*].name") == [
        ValueHandle({MARK: "bb", PATH: ["rows", number, "name"]}) for number in range(2)
    ]
    for unknown in ("$2[*]", "$2.names[*]", "$1[*].rows[*]"):
        with pytest.raises(BindingError, match="its handle tells no length"):
            instances(unknown)


def test_a_typed_value_is_passed_as_it_is() -> None:
    assert bound("$1") is RESULTS[1]


def test_what_a_value_says_is_never_read_as_a_reference() -> None:
    assert bound('"<$1.name>"') == "<$2 and ${3}>"
    assert bound("[$1.name]") == ["$2 and ${3}"]


@given(st.text(), st.text())
def test_no_value_is_ever_scanned(first: str, second: str) -> None:
    text = evaluate_expression(expr('"$3|$10"'), {3: first, 10: second}.__getitem__, {})
    assert text == f"{first}|{second}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (1, "1"),
        (0.1, "0.1"),
        (1e300, "1e+300"),
        (True, "true"),
        (False, "false"),
        (None, "null"),
        ([1, "é"], '[1,"é"]'),
        ({"a": [True]}, '{"a":[true]}'),
    ],
)
def test_how_values_stand_in_strings(value: Any, text: str) -> None:
    assert render_value(value) == text


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("$1.popluation", "$1.popluation: there is no field 'popluation' at $1", '"population"'),
        ("$1.nothing", "no field 'nothing'", "fields: population, area, items, name"),
        ("$2[3]", "$2[3]: there is no element 3 in a list of 3", "the last is 2"),
        ("$4[1][0]", "no element 0 in a list of 0", "the list is empty"),
        ("$3.x", "$3 is a string, which has no field 'x'", ""),
        ("$6.x", "$6 is null", ""),
        ("$1.population[0]", "$1.population is a number, which has no element 0", ""),
        ("$2.name", "$2 is a list, which has no field 'name'", "$2[*]"),
        ("$city.nam", "no field 'nam' at $city", '"name"'),
        ('"in $1.items[5]"', "$1.items[5]: there is no element 5", ""),
    ],
)
def test_a_path_that_leads_nowhere(text: str, message: str, hint: str) -> None:
    with pytest.raises(BindingError) as caught:
        bound(text)
    assert isinstance(caught.value, PlanError)
    assert message in caught.value.message
    assert hint in caught.value.hint


class TestFanOut:
    def shape(self, text: str) -> FanOutShape:
        return fan_out(task(text), RESULTS.__getitem__, INPUTS)

    def values(self, text: str) -> Any:
        """The nested list of the values that the instances get."""
        shape = self.shape(text)
        return shape.nest([bound(text, shape.index(n)) for n in range(shape.extent)])

    @pytest.mark.parametrize(
        ("text", "values"),
        [
            ("$2[*]", [10, 20, 30]),
            ('"$2[*] km"', ["10 km", "20 km", "30 km"]),
            ('$1.items[*]["a b"]', [1, 2]),
            (
                "[$2[*], $city.tags[*], $3]",
                [[10, "a", "text"], [20, "b", "text"], [30, "c", "text"]],
            ),
            ("$4[1][*]", []),
            ("$4[*][*]", [[1, 2], [], [3]]),
            ("$5[*].rows[*]", [[1, 2], [3]]),
            (
                '"$5[*].rows[*] of $5[*]"',
                [['1 of {"rows":[1,2]}', '2 of {"rows":[1,2]}'], ['3 of {"rows":[3]}']],
            ),
        ],
    )
    def test_one_instance_an_element_in_order(self, text: str, values: Any) -> None:
        assert self.values(text) == values

    def test_unequal_lengths_name_both(self) -> None:
        with pytest.raises(BindingError, match=r"\$2.* has 3 elements and \$1\.items.* has 2"):
            self.shape("[$2[*], $1.items[*]]")

    def test_inner_lists_must_be_equally_long_too(self) -> None:
        ragged = {4: [[1, 2]], 5: [{"rows": [1]}]}
        starred = task("[$4[*][*], $5[*].rows[*]]")
        with pytest.raises(BindingError, match=r"\$4.* has 2 elements and \$5.* has 1"):
            fan_out(starred, ragged.__getitem__, {})

    @pytest.mark.parametrize(
        ("text", "what"),
        [("$3[*]", "$3 is a string, not a list"), ("$1[*]", "$1 is an object"), ("$6[*]", "null")],
    )
    def test_only_lists_fan_out(self, text: str, what: str) -> None:
        with pytest.raises(BindingError) as caught:
            self.shape(text)
        assert what in caught.value.message

    @given(st.recursive(st.lists(st.integers(), max_size=3), lambda s: st.lists(s, max_size=3)))
    def test_nesting_undoes_flattening(self, value: list[Any]) -> None:
        lists = [item if isinstance(item, list) else [item] for item in value]
        starred = parse_plan("2. f($1[*][*])", earlier_ids=[1]).tasks[0]
        shape = fan_out(starred, {1: lists}.__getitem__, {})
        flat = [inner for items in lists for inner in items]
        assert shape.extent == len(flat)
        assert shape.nest(list(flat)) == lists


def test_a_literal_needs_nothing() -> None:
    assert evaluate_expression(Literal(value=[1]), RESULTS.__getitem__, {}) == [1]
    assert evaluate_expression(Template(parts=("a",)), RESULTS.__getitem__, {}) == "a"
