"""The plan IR: what a plan can be, and its JSON form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from llmcompiler.language import parse_plan, print_plan
from llmcompiler.plan.expressions import (
    Expr,
    Input,
    ListExpr,
    Literal,
    Reference,
    Template,
    expr_from_json,
    expr_to_json,
    make_dict,
    make_list,
    map_references,
    references,
    scan_string,
    template_text,
)
from llmcompiler.plan.model import Join, Plan, Task
from tests.support.lookalikes import KEYS, LOOKALIKES

TEXT = """\
question "How large is $city?"
1. city($city)
2. find("near $1.name, $$5", [$1, {"k": $1.rows[0]["a b"]}], depth=-1)
3. f($2[*])
4. g($3[*].x[*], name="$1")
9. join($4, $2)
"""


@pytest.fixture
def plan() -> Plan:
    return parse_plan(TEXT)


def test_a_task_knows_what_it_depends_on(plan: Plan) -> None:
    assert [task.dependencies for task in plan.tasks] == [(), (1,), (2,), (3, 1)]
    assert [task.rank for task in plan.tasks] == [0, 0, 1, 2]


def test_sinks_are_what_no_other_task_needs(plan: Plan) -> None:
    assert plan.sinks() == (4,)
    assert parse_plan("1. f()\n2. f()\n3. g($1)").sinks() == (2, 3)


def test_the_graph_has_an_edge_for_each_dependency(plan: Plan) -> None:
    graph = plan.graph()
    assert set(graph.edges) == {(1, 2), (2, 3), (3, 4), (1, 4)}
    assert graph.nodes[2]["task"].tool == "find"


def test_tasks_are_found_by_id(plan: Plan) -> None:
    assert plan.task(3).tool == "f"
    with pytest.raises(KeyError):
        plan.task(9)


def test_the_json_form(plan: Plan) -> None:
    data = plan.model_dump(mode="json")
    assert data["question"] == "How large is $city?"
    assert data["tasks"][0]["args"] == [{"$ref": "$city"}]
    assert data["tasks"][1]["args"] == [
        "near $1.name, $$5",
        [{"$ref": "$1"}, {"k": {"$ref": '$1.rows[0]["a b"]'}}],
    ]
    assert data["tasks"][3]["kwargs"] == {"name": "$1"}
    assert Plan.model_validate_json(json.dumps(data)) == plan


def test_json_written_by_hand() -> None:
    plan = Plan.model_validate(
        {
            "tasks": [
                {"id": 1, "tool": "f"},
                {
                    "id": 2,
                    "tool": "g",
                    "args": ["a $1", {"$ref": "$1.x"}, {"$literal": {"$ref": "no"}}],
                    "kwargs": {"k": [1, {"$ref": "$1"}]},
                },
            ],
            "join": {"id": 3, "on": [2]},
        }
    )
    assert plan.tasks[1] == Task(
        id=2,
        tool="g",
        args=(
            Template(parts=("a ", Reference(task=1))),
            Reference(task=1, path=("x",)),
            Literal(value={"$ref": "no"}),
        ),
        kwargs={"k": ListExpr(items=(Literal(value=1), Reference(task=1)))},
    )
    assert Plan.model_validate(plan.model_dump(mode="json")) == plan


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"tasks": [{"id": 1, "tool": "f"}, {"id": 1, "tool": "g"}]}, "used twice"),
        ({"tasks": [{"id": 1, "tool": "f"}], "earlier": [1]}, "used twice"),
        ({"tasks": [{"id": 1, "tool": "f", "args": [{"$ref": "$2"}]}]}, "task 1"),
        ({"tasks": [{"id": 1, "tool": "f", "args": [{"$ref": "$x"}]}]}, "plan input"),
        ({"tasks": [{"id": 0, "tool": "f"}]}, "greater than or equal to 1"),
        ({"join": {"id": 1, "on": [4]}}, "join names 4"),
        ({"taks": []}, "Extra inputs"),
    ],
)
def test_what_is_no_plan_is_refused(data: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Plan.model_validate(data)


def test_a_plan_cannot_hold_a_cycle() -> None:
    first = Task(id=1, tool="f", args=(Reference(task=2),))
    second = Task(id=2, tool="f", args=(Reference(task=1),))
    with pytest.raises(ValidationError, match="not an earlier task"):
        Plan(tasks=(first, second))
    assert Plan.of([Task(id=1, tool="f")], join=Join(id=2)).join == Join(id=2)


def test_the_json_schema_says_what_an_argument_is() -> None:
    schema = json.dumps(Plan.model_json_schema(mode="serialization"))
    assert "$ref" in schema
    assert "A string may hold references" in schema


def test_references_are_mapped_in_place() -> None:
    task = parse_plan('1. f()\n2. g("$1 $x", [$1.a, {"k": $x}])').tasks[1]
    names = [str(ref) for expr in task.expressions() for ref in references([expr])]
    assert names == ["$1", "$x", "$1.a", "$x"]

    def change(ref: Reference | Input) -> Reference | Input | Literal:
        return Literal(value="X") if isinstance(ref, Input) else Reference(task=5, path=ref.path)

    text, items = (map_references(expr, change) for expr in task.args)
    assert text == Template(parts=(Reference(task=5), " X"))
    assert isinstance(items, ListExpr)
    assert items.items == (Reference(task=5, path=("a",)), Literal(value={"k": "X"}))


@pytest.mark.parametrize(
    "parts",
    [
        (Reference(task=1), "0"),
        (Reference(task=1), ".5"),
        (Reference(task=1), ",000"),
        (Reference(task=1), "[0]"),
        (Reference(task=1), ".name"),
        ("$", Reference(task=1)),
        (Reference(task=1), Reference(task=10)),
        (Input(name="x"), "y"),
        (Input(name="x", path=("a",)), "_b"),
        (Reference(task=1, path=("a b",)), "{}"),
        ("${1}", Reference(task=1), "$"),
    ],
)
def test_a_template_is_spelled_so_that_it_is_read_back(parts: tuple[Any, ...]) -> None:
    spelled = template_text(parts)
    read = scan_string(spelled, {1, 10}.__contains__, {"x", "xy"}.__contains__)
    assert read == Template(parts=parts)


REFERENCES = st.sampled_from([Reference(1), Reference(1, ("free",)), Reference(1, ("$ref", 0))])
EXPRESSIONS: st.SearchStrategy[Expr] = st.recursive(
    st.builds(Literal, LOOKALIKES) | REFERENCES,
    lambda inner: (
        st.lists(inner, max_size=3).map(make_list)
        | st.dictionaries(st.sampled_from(KEYS), inner, max_size=2).map(make_dict)
    ),
    max_leaves=6,
)
"""Arguments in which values that look like references stand beside references."""


@given(EXPRESSIONS)
def test_no_value_is_read_as_a_reference_and_no_reference_as_a_value(expr: Expr) -> None:
    plan = Plan(tasks=(Task(id=1, tool="f"), Task(id=2, tool="g", args=(expr,))))
    forms = json.loads(json.dumps(expr_to_json(expr)))
    assert expr_from_json(forms, {1}.__contains__, lambda _: False) == expr
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert parse_plan(print_plan(plan)).tasks == plan.tasks
