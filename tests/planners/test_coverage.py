"""Numbers of a question that no call uses."""

from __future__ import annotations

import pytest

from llmcompiler.language import parse_plan
from llmcompiler.plan.expressions import Literal
from llmcompiler.plan.model import Task
from llmcompiler.planners.coverage import find_unused_numbers


@pytest.mark.parametrize(
    ("question", "plan", "unused"),
    [
        ("Add 4 and 7.", "1. add(4, 7)", ()),
        ("Add 4 and 7, then 12 and 7.", "1. add(4, 7)", ("12",)),
        ("At 4.5 % and at 6.25 percent?", "1. rate(4.5)\n2. rate(0.0625)", ()),
        ("Is it 2.5 million or 40 thousand?", '1. f("2500000")\n2. f(40000)', ()),
        ("At p = 0.3, what of 30?", "1. f(30)", ("0.3",)),
        ("Case 67,890 against case 12345?", '1. case("12345")', ("67,890",)),
        ("From March 10, 2022 to May 4?", '1. stay("2022-03-10", "05/04")', ()),
        ("The root of 8.854e-12 and x^4?", "1. root(8.854e-12)", ()),
        ("The 3 largest of the 12?", "1. largest(12)", ()),
        ("What is 5?", "1. first()\n2. second($1)\n5. third($1, $2)", ("5",)),
        ("Who is it?", "1. who()", ()),
    ],
)
def test_numbers_that_no_call_uses(question: str, plan: str, unused: tuple[str, ...]) -> None:
    assert find_unused_numbers(question, parse_plan(plan).tasks) == unused


def test_a_number_is_found_deep_inside_of_an_argument() -> None:
    task = Task(id=1, tool="t", args=(Literal(value={"rows": [[1, 4.5], ["at 9 o'clock"]]}),))
    assert find_unused_numbers("Take 4.5, 9 and 11.", [task]) == ("11",)
