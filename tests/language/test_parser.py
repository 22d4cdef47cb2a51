"""Reading the plan language: grammar, references, slips, mistakes, recovery."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, strategies as st

from llmcompiler.errors import PlanError
from llmcompiler.language import (
    Diagnostic,
    Parser,
    QuestionLine,
    ThoughtLine,
    parse_plan,
    read_plan,
)
from llmcompiler.language.scanner import CallScanner
from llmcompiler.plan.expressions import (
    STAR,
    Expr,
    Input,
    ListExpr,
    Literal,
    Reference,
    Template,
)
from llmcompiler.plan.model import Join, Plan, PlanInput, Task


def argument(text: str, **options: Any) -> Expr:
    """The single argument of a task behind tasks 1 to 12."""
    above = "".join(f"{n}. f()\n" for n in range(1, 13))
    plan = parse_plan(f"{above}13. f({text})", **options)
    (value,) = plan.tasks[-1].args
    return value


def value(text: str) -> Any:
    expr = argument(text)
    assert isinstance(expr, Literal)
    return expr.value


def mistakes(text: str, **options: Any) -> list[Diagnostic]:
    return [
        diagnostic for diagnostic in read_plan(text, **options)[1] if diagnostic.severity == "error"
    ]


def mistake(text: str, **options: Any) -> Diagnostic:
    (diagnostic,) = mistakes(text, **options)
    return diagnostic


def slips(text: str, **options: Any) -> list[str]:
    """Codes of the warnings of a text without errors."""
    diagnostics = read_plan(text, **options)[1]
    assert not [diagnostic.render() for diagnostic in diagnostics if diagnostic.severity == "error"]
    return [diagnostic.code for diagnostic in diagnostics]


def pieces(text: str, cuts: list[int], **options: Any) -> list[Any]:
    parser = Parser(**options)
    items: list[Any] = []
    start = 0
    for cut in [*cuts, len(text)]:
        items += parser.feed(text[start:cut])
        start = cut
    return items + parser.close()


class TestGrammar:
    def test_a_plan(self) -> None:
        plan = parse_plan(
            "Thought: compare densities\n"
            '1. country("Japan")\n'
            '2. country(name="Germany")  # a comment (with brackets)\n'
            "\n"
            '3. calc("$1.population / $1.area_km2")\n'
            "4. join($3)\n"
        )
        assert plan == Plan(
            tasks=(
                Task(
                    id=1,
                    tool="country",
                    args=(Literal(value="Japan"),),
                    thought="compare densities",
                ),
                Task(id=2, tool="country", kwargs={"name": Literal(value="Germany")}),
                Task(
                    id=3,
                    tool="calc",
                    args=(
                        Template(
                            parts=(
                                Reference(task=1, path=("population",)),
                                " / ",
                                Reference(task=1, path=("area_km2",)),
                            )
                        ),
                    ),
                ),
            ),
            join=Join(id=4, on=(3,)),
        )

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("true", True),
            ("True", True),
            ("false", False),
            ("False", False),
            ("null", None),
            ("None", None),
            ("0", 0),
            ("-12", -12),
            ("+3", 3),
            ("2.50", 2.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("-1.5e-3", -0.0015),
            ("1E6", 1e6),
            ("12345678901234567890", 12345678901234567890),
            ("[]", []),
            ("{}", {}),
            ("[1, [2, {'a': []}], ]", [1, [2, {"a": []}]]),
            ("(1, 2)", [1, 2]),
            ("()", []),
            ("(1,)", [1]),
            ("(1)", 1),
            ('{"a b": 1, "c": [true, null],}', {"a b": 1, "c": [True, None]}),
            ("{\n  # first\n  'a': 1,\n  'b': 2  # second\n}", {"a": 1, "b": 2}),
        ],
    )
    def test_literals_are_json_and_python(self, text: str, expected: Any) -> None:
        result = value(text)
        assert result == expected
        assert type(result) is type(expected)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ('""', ""),
            ("''", ""),
            ('"a, b) (c] #d"', "a, b) (c] #d"),
            ('"two\nlines"', "two\nlines"),
            (r'"say \"hi\""', 'say "hi"'),
            (r"'it\'s'", "it's"),
            ('"it\'s"', "it's"),
            ("'say \"hi\"'", 'say "hi"'),
            (r'"\n\t\\\/"', "\n\t\\/"),
            (r'"\u00e9\x41\U0001F600"', "éA😀"),
            (r'"\ud83d\ude00"', "😀"),
            (r'"\d+\.\w"', r"\d+\.\w"),
            ('"one\\\nline"', "oneline"),
            ('"""a "quoted" word\nand a line"""', 'a "quoted" word\nand a line'),
            ("'''it's'''", "it's"),
            ('""""a" b"""', '"a" b'),
            ("“curly, (quotes)”", "curly, (quotes)"),
            ("‘it is’", "it is"),
            ('"日本 — “x”"', "日本 — “x”"),
            ('"1. f(\\"x\\")\\n2. g()"', '1. f("x")\n2. g()'),
            ('"step:\n2. g(1)\n"', "step:\n2. g(1)\n"),
        ],
    )
    def test_strings(self, text: str, expected: str) -> None:
        assert value(text) == expected

    def test_keyword_arguments_come_in_any_order(self) -> None:
        plan = parse_plan("1. f(b=2, a=1)\n2. f(0, **{})".replace(", **{}", ""))
        assert list(plan.tasks[0].kwargs) == ["b", "a"]
        assert parse_plan('1. f(1, x = [2], "odd name"=3)').tasks[0].kwargs == {
            "x": Literal(value=[2]),
            "odd name": Literal(value=3),
        }

    def test_names_have_dots_and_dashes(self) -> None:
        assert [t.tool for t in parse_plan("1. a.b-c.d()\n2. größe_2()").tasks] == [
            "a.b-c.d",
            "größe_2",
        ]

    def test_a_call_runs_over_several_lines(self) -> None:
        plan = parse_plan('1. f(\n  "a",\n\n  # why\n  b = [\n    1,\n    2,\n  ],\n)\n2. join()')
        assert plan.tasks[0].args == (Literal(value="a"),)
        assert plan.tasks[0].kwargs == {"b": Literal(value=[1, 2])}

    def test_prose_between_tasks_is_thought(self) -> None:
        plan = parse_plan(
            "Here is the plan (in short):\n```python\nThought: first\n1. f()\n2. g()\n"
            "And, it's last:\n3. h()\n```\n"
        )
        assert [task.thought for task in plan.tasks] == [
            "Here is the plan (in short):\nfirst",
            None,
            "And, it's last:",
        ]

    def test_windows_line_ends(self) -> None:
        plan = parse_plan('1. f("a")\r\nThought: b\r\n2. g(\r\n$1)\r\n3. join()\r\n')
        assert plan == parse_plan('1. f("a")\nThought: b\n2. g(\n$1)\n3. join()\n')

    def test_an_empty_plan(self) -> None:
        assert parse_plan("") == Plan()
        assert parse_plan("\n  \n") == Plan()
        assert parse_plan("1. join()") == Plan(join=Join(id=1))
        assert parse_plan("I can answer that.") == Plan()

    @pytest.mark.parametrize(
        ("text", "on"),
        [
            ("3. join()", ()),
            ("3. join($1)", (1,)),
            ("3. join($1, $2)", (1, 2)),
            ("3. join($2).", (2,)),
            ("3. join($2, $2)", (2,)),
        ],
    )
    def test_join_names_what_it_needs(self, text: str, on: tuple[int, ...]) -> None:
        text = f"1. f()\n2. f()\n{text}"
        assert parse_plan(text).join == Join(id=3, on=on)
        assert slips(text) == []

    def test_what_follows_join_or_the_end_marker_is_ignored(self) -> None:
        assert parse_plan("1. f()\n2. join()<END_OF_PLAN>\n3. ???(").join == Join(id=2)
        assert parse_plan("1. f()\n2. join()\n3. g(").tasks == parse_plan("1. f()").tasks
        assert len(parse_plan("1. f()\n<END_OF_PLAN>\n2. g(").tasks) == 1
        assert len(parse_plan("1. f() <END_OF_PLAN> 2. g(").tasks) == 1

    def test_ids_may_have_gaps_and_any_order(self) -> None:
        plan = parse_plan("10. f()\n3. g($10)\n7. h($3, $10)\n20. join($7)")
        assert [task.id for task in plan.tasks] == [10, 3, 7]
        assert plan.tasks[2].dependencies == (3, 10)


class TestReferences:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("$1", Reference(task=1)),
            ("${1}", Reference(task=1)),
            ("$1.a.b", Reference(task=1, path=("a", "b"))),
            ("${1.a}[0]", Reference(task=1, path=("a", 0))),
            ('$1.items[0]["a b"]', Reference(task=1, path=("items", 0, "a b"))),
            ("$1['x'][-1]", Reference(task=1, path=("x", -1))),
            ("$2[*]", Reference(task=2, path=(STAR,))),
            ("$2[*].rows[*]", Reference(task=2, path=(STAR, "rows", STAR))),
            ("$10", Reference(task=10)),
        ],
    )
    def test_a_whole_argument_is_typed(self, text: str, expected: Expr) -> None:
        assert argument(text) == expected

    def test_in_lists_and_dicts(self) -> None:
        assert argument('[1, $2, {"a": $3}]') == argument('[1,$2,{"a":${3}}]')
        assert isinstance(argument("[$1]"), ListExpr)

    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ('"$1 and $10"', (Reference(task=1), " and ", Reference(task=10))),
            ('"$10$1"', (Reference(task=10), Reference(task=1))),
            ('"${1}0"', (Reference(task=1), "0")),
            ('"$1${}.txt"', (Reference(task=1), ".txt")),
            ('"it is $1."', ("it is ", Reference(task=1), ".")),
            ('"$1"', (Reference(task=1),)),
            ("'$1.name'", (Reference(task=1, path=("name",)),)),
            ('"""$1\n"""', (Reference(task=1), "\n")),
        ],
    )
    def test_in_a_string_they_are_a_template(self, text: str, parts: tuple[Any, ...]) -> None:
        assert argument(text) == Template(parts=parts)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ('"it costs $1.50"', "it costs $1.50"),
            ('"$1,000 and $12,000,000"', "$1,000 and $12,000,000"),
            ('"$99 is no task"', "$99 is no task"),
            ('"$$1 is not read"', "$1 is not read"),
            (r'"\$1 neither"', "$1 neither"),
            ('"a $ alone, $0, $-1"', "a $ alone, $0, $-1"),
        ],
    )
    def test_money_is_text(self, text: str, expected: str) -> None:
        assert value(text) == expected

    def test_keys_of_dicts_are_never_references(self) -> None:
        assert value('{"$1": "$$1"}') == {"$1": "$1"}

    def test_earlier_plans_of_the_run_can_be_referred_to(self) -> None:
        plan = parse_plan('4. f($2, "$3, $9")', earlier_ids=[1, 2, 3], inputs="none")
        assert plan.tasks[0].dependencies == (2, 3)
        assert plan.earlier == (1, 2, 3)


class TestInputs:
    def test_using_one_declares_it(self) -> None:
        plan = parse_plan('1. f($city)\n2. g("in $country.name")')
        assert plan.inputs == (PlanInput(name="city"), PlanInput(name="country"))
        assert plan.tasks[1].args == (
            Template(parts=("in ", Input(name="country", path=("name",)))),
        )

    def test_they_can_be_declared(self) -> None:
        plan = parse_plan(
            'question "How large is $city?"\n'
            "# where to look\n"
            'input city: string = "Paris"\n'
            "input depth: integer  # levels\n"
            "input anything\n"
            "input options = {'a': [1, -2]}\n"
            '1. f($city, "$depth, $other")\n'
        )
        assert plan.inputs == (
            PlanInput(name="city", type="string", required=False, default="Paris"),
            PlanInput(name="depth", type="integer"),
            PlanInput(name="anything"),
            PlanInput(name="options", required=False, default={"a": [1, -2]}),
        )
        assert plan.question == Template(parts=("How large is ", Input(name="city"), "?"))
        assert plan.tasks[0].args[1] == Template(parts=(Input(name="depth"), ", $other"))

    def test_an_undeclared_one_is_a_mistake_where_others_are_declared(self) -> None:
        diagnostic = mistake("input city\n1. f($citty)")
        assert (diagnostic.code, diagnostic.line, diagnostic.column) == ("E206", 2, 6)
        assert 'did you mean "city"?' in diagnostic.hint

    def test_a_planners_plan_has_none(self) -> None:
        assert mistake("1. f($city)", inputs="none").code == "E206"
        plan = parse_plan('1. f("$city")', inputs="none")
        assert plan.inputs == ()
        assert plan.tasks[0].args == (Literal(value="$city"),)

    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("input city: strin", "E118"),
            ("input city: string = $x", "E118"),
            ("input city = ", "E105"),
            ("input city: 'x'", "E118"),
            ("input a\ninput a", "E119"),
            ("1. f($a)\ninput a", "E119"),
            ('question "a"\nquestion "b"', "E119"),
            ('question "a" b', "E113"),
        ],
    )
    def test_broken_headers(self, text: str, code: str) -> None:
        assert mistake(text).code == code

    def test_headers_come_out_before_the_first_task(self) -> None:
        items = pieces('question "$a?"\n1. f($b)', [], inputs="declare")
        assert [type(item) for item in items] == [PlanInput, QuestionLine, PlanInput, Task]


class TestReplans:
    def test_a_plan_that_goes_on_counting_stays_as_it_is(self) -> None:
        text = "4. f($1)\n5. g($4)\n6. join($5)"
        assert slips(text, earlier_ids=[1, 2, 3], first_id=4, inputs="none") == []

    def test_a_plan_numbered_from_the_start_is_renumbered(self) -> None:
        text = '1. f($2)\n2. g($1, "$2, $1.x")\n3. h($2, $1, $3)\n4. join($2)'
        plan, diagnostics = read_plan(text, earlier_ids=[1, 2, 3], first_id=4, inputs="none")
        assert [diagnostic.code for diagnostic in diagnostics] == ["W109"]
        assert [task.id for task in plan.tasks] == [4, 5, 6]
        assert plan.tasks[0].args == (Reference(task=2),)
        assert plan.tasks[1].args == (
            Reference(task=4),
            Template(parts=(Reference(task=2), ", ", Reference(task=4, path=("x",)))),
        )
        assert plan.tasks[2].args == (Reference(task=5), Reference(task=4), Reference(task=3))
        assert plan.join == Join(id=7, on=(5,))

    def test_ids_of_earlier_plans_are_taken(self) -> None:
        diagnostic = mistake("4. f()\n2. g()", earlier_ids=[1, 2, 3], first_id=4, inputs="none")
        assert (diagnostic.code, diagnostic.line) == ("E201", 2)
        assert "5" in diagnostic.hint


class TestSlips:
    """Mistakes of small models that have only one reading."""

    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ('1) f("x")', "W101"),
            ('1: f("x")', "W101"),
            ('- 1. f("x")', "W101"),
            ('**1.** f("x")', "W101"),
            ('1. **f**("x")', "W101"),
            ('1. `f("x")`', "W101"),
            ('$1 = f("x")', "W101"),
            ('Step 1: f("x")', "W101"),
            ('1. x = f("x")', "W105"),
            ('1. f ("x")', "W102"),
            ('1. f("x"', "W103"),
            ('1. f("x"\n', "W103"),
            ('1. f("x"  # why\n', "W103"),
            ('f("x")', "W104"),
            ("1. f(“x”)", "W106"),
            ('1. f("x") then go on', "W110"),
            ('1. f("x") -> a dict', "W110"),
        ],
    )
    def test_are_read_as_they_were_meant(self, text: str, code: str) -> None:
        assert slips(text) == [code]
        (task,) = parse_plan(text).tasks
        assert (task.id, task.tool, task.args) == (1, "f", (Literal(value="x"),))

    @pytest.mark.parametrize(
        "follower",
        ["2. g()", "2: g()", "Thought: it's next\n2. g()", "```\n2. g()", "\n\n2. g()"],
    )
    def test_a_missing_parenthesis_before_the_next_task(self, follower: str) -> None:
        plan = parse_plan(f'1. f("x", [1, 2]\n{follower}')
        assert [task.tool for task in plan.tasks] == ["f", "g"]
        assert plan.tasks[0].args == (Literal(value="x"), Literal(value=[1, 2]))

    @pytest.mark.parametrize("end", ["join()", "2. join()", "2. join", "join", "<END_OF_PLAN>"])
    def test_a_missing_parenthesis_before_the_end(self, end: str) -> None:
        plan = parse_plan(f"1. f(1\n{end}")
        assert [task.args for task in plan.tasks] == [(Literal(value=1),)]
        assert (plan.join is None) == ("END" in end)

    def test_a_plan_cut_short_in_a_word_has_two_readings(self) -> None:
        above = "1. f()\n"
        for beginning in ("2. f($1", "2. f(12", "2. f(tru", '2. f("x', "2. f($1.popul"):
            assert mistake(above + beginning).code in ("E101", "E102")

    @pytest.mark.parametrize("text", ["1. f(#E1)\n", "1. f(\n", "1. f(1,\n", "1. f([1\n"])
    def test_a_call_that_lacks_more_than_its_parenthesis(self, text: str) -> None:
        assert mistake(text).code == "E101"
        assert [diagnostic.code for diagnostic in mistakes(f"{text}\n2. g()")] == ["E101"]

    def test_calls_without_numbers_get_the_next_one(self) -> None:
        plan = parse_plan('1. f()\nsearch("x")\nsearch($2)\njoin($3)')
        assert [task.id for task in plan.tasks] == [1, 2, 3]
        assert plan.join == Join(id=4, on=(3,))

    @pytest.mark.parametrize(
        "text", ["join", "2. join", "2. join.", "- join", "**2.** join", "2) join  # done"]
    )
    def test_join_without_parentheses(self, text: str) -> None:
        assert slips(f"1. f()\n{text}") == ["W108"]
        assert parse_plan(f"1. f()\n{text}").join == Join(id=2)

    @pytest.mark.parametrize(
        ("inside", "on"),
        [
            ("1, 2", (1, 2)),
            ('"$2"', (2,)),
            ("[$1, $2]", (1, 2)),
            ("$2.name", (2,)),
            ('"The answer is $2"', (2,)),
            ('"done"', ()),
            ("answer=$1", (1,)),
        ],
    )
    def test_join_with_more_than_references(self, inside: str, on: tuple[int, ...]) -> None:
        text = f"1. f()\n2. f()\n3. join({inside})"
        assert slips(text) == ["W107"]
        assert parse_plan(text).join == Join(id=3, on=on)

    def test_calls_on_one_line(self) -> None:
        plan = parse_plan("1. f() 2. g($1); 3. h($2) 4. join()")
        assert [task.tool for task in plan.tasks] == ["f", "g", "h"]
        assert plan.join == Join(id=4)

    def test_keys_without_quotes_and_colons_for_keywords(self) -> None:
        assert slips('1. f({name: "x"})') == ["W112"]
        assert slips('1. f(name: "x")') == ["W113"]
        assert parse_plan("1. f(name: {a: 1})").tasks[0].kwargs == {"name": Literal(value={"a": 1})}

    def test_text_that_looks_like_a_later_reference(self) -> None:
        plan, diagnostics = read_plan('1. f("$2 and $7")\n2. g()')
        assert plan.tasks[0].args == (Literal(value="$2 and $7"),)
        assert [(diagnostic.code, diagnostic.task) for diagnostic in diagnostics] == [("W111", 1)]


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "code", "column"),
        [
            ("1. f([1, 2)", "E103", 11),
            ("1. f(1])", "E103", 7),
            ('1. f("say "hi" now")', "E104", 12),
            ("1. f('it's')", "E104", 10),
            ('1. f("a" "b")', "E104", 10),
            ("1. f(Japan)", "E105", 6),
            ("1. f(South Korea)", "E105", 6),
            ("1. f(Japan's)", "E105", 6),
            ('1. f(f"x")', "E105", 6),
            ("1. f(,)", "E105", 6),
            ("1. f(a=)", "E105", 8),
            ("1. f(1.population)", "E105", 6),
            ("1. f(1 + 2)", "E106", 8),
            ('1. f("a" + "b")', "E106", 10),
            ("1. f(-$1)", "E106", 6),
            ('1. f(g("x"))', "E107", 6),
            ("1. f(1_000)", "E108", 7),
            ("1. f(10km)", "E108", 8),
            ("1. f(1e999)", "E108", 6),
            (f"1. f({'9' * 5000})", "E108", 6),
            (r'1. f("a\u12")', "E109", 8),
            (r'1. f("\ud83d")', "E109", 7),
            (r'1. f("\xg0")', "E109", 7),
            ("1. f({1: 2})", "E110", 7),
            ('1. f({"a"})', "E110", 7),
            ('1. f({"a": 1, "a": 2})', "E110", 15),
            ("1. f(a=1, 2)", "E111", 11),
            ("1. f(a=1, a=2)", "E112", 11),
            ("1. f(1 2)", "E113", 8),
            ("1. Look up the population", "E114", 1),
            ("1. Look up Japan (the country)", "E114", 1),
            ("0. f()", "E114", 1),
            ("1. f().population", "E115", 7),
            ("1. f() / 2", "E115", 8),
            (f"1. f({'[' * 100}{']' * 100})", "E116", 70),
            ("1. f($1.50)", "E117", 6),
            ("1. f($)", "E117", 6),
        ],
    )
    def test_are_named_and_placed(self, text: str, code: str, column: int) -> None:
        diagnostic = mistake(text)
        assert (diagnostic.code, diagnostic.line, diagnostic.column) == (code, 1, column), (
            diagnostic.render()
        )
        assert diagnostic.end_column > diagnostic.column

    @pytest.mark.parametrize(
        ("inner", "hint"),
        [
            ('Person(name="Ana", age=3)', '{"name": "Ana", "age": 3}'),
            ('models.Person(name="Ana (x)")', '{"name": "Ana (x)"}'),
            ("dict(a=[1, (2)])", '{"a": [1, 2]}'),
            ("Order(line={'n': None}, by=True)", '{"line": {"n": null}, "by": true}'),
            ("Person($1)", '{"field": value, …}'),
            ('Person("Ana")', '{"field": value, …}'),
            ("Person(", '{"field": value, …}'),
            ('Person(tags={"a", "b"})', '{"field": value, …}'),
            ("find(2)", "give find(…) a line of its own and refer to its result by $N"),
        ],
    )
    def test_a_constructor_is_answered_with_a_dict(self, inner: str, hint: str) -> None:
        diagnostic = mistake(f"1. f({inner})")
        assert diagnostic.code == "E107"
        assert hint in diagnostic.hint

    @pytest.mark.parametrize(
        ("text", "code", "line"),
        [
            ("1. f()\n1. g()", "E201", 2),
            ("4. f($2)", "E202", 1),
            ("1. f($2)\n2. g()", "E204", 1),
            ("1. f($1)", "E205", 1),
        ],
    )
    def test_numbers_that_name_nothing(self, text: str, code: str, line: int) -> None:
        diagnostic = mistake(text)
        assert (diagnostic.code, diagnostic.line) == (code, line)

    def test_a_cycle_is_named(self) -> None:
        diagnostics = mistakes("1. f($3)\n2. f($1)\n3. f($2)\n4. g()")
        assert [diagnostic.code for diagnostic in diagnostics] == ["E204", "E207", "E207", "E205"]
        assert "1 -> 3 -> 2 -> 1" in diagnostics[-1].message

    def test_siblings_of_a_mistake_are_still_read(self) -> None:
        text = (
            "1. f(1 +)\n"
            '2. g("x")\n'
            '3. h("never closed)\n'
            "4. g($2)\n"
            "5. k([1, 2\n"
            "6. g($2)\n"
            '7. g("a "b" c\n over lines")\n'
            "8. g($1)\n"
            "9. join()\n"
        )
        plan, diagnostics = read_plan(text)
        assert [task.id for task in plan.tasks] == [2, 4, 6]
        assert [(diagnostic.code, diagnostic.line) for diagnostic in diagnostics] == [
            ("E106", 1),
            ("E102", 3),
            ("E101", 5),
            ("E104", 7),
            ("E207", 9),
        ]
        assert plan.join == Join(id=9)

    def test_an_unclosed_string_before_others_is_blamed_where_it_starts(self) -> None:
        plan, (diagnostic,) = read_plan('1. f("Japan)\n2. f("Germany")\n3. f("Peru")')
        assert (diagnostic.code, diagnostic.line, diagnostic.column) == ("E102", 1, 6)
        assert [task.id for task in plan.tasks] == [2, 3]

    def test_a_word_that_was_assigned_is_pointed_to_its_number(self) -> None:
        _, diagnostics = read_plan("1. japan = f()\n2. g(japan.population)")
        assert "$1.population" in diagnostics[-1].hint

    def test_all_of_them_are_in_the_error(self) -> None:
        with pytest.raises(PlanError, match="2 errors") as caught:
            parse_plan("1. f(x)\n2. g(y)")
        assert [diagnostic.code for diagnostic in caught.value.diagnostics] == ["E105", "E105"]  # type: ignore[attr-defined]
        assert "1 | 1. f(x)" in str(caught.value)

    def test_the_place_is_right_in_a_call_of_several_lines(self) -> None:
        diagnostic = mistake('1. f(\n  "a",\n  b=[1,\n     Oslo]\n)')
        assert (diagnostic.line, diagnostic.column, diagnostic.source_line) == (4, 6, "     Oslo]")


class TestStreaming:
    TEXT = (
        'Thought: it\'s (a) plan\n1. f("a\\"(b", """x "y"\n1. q(\n""", {\'k\': [1, (2,)]})  # c\n'
        "2. g(\n  $1[*], ''  \n)\n- 3) h ('it''s')\n4. k(Oslo)\n5. f('' , \"\"\n6. g($2\n"
        'Thought: last\nf("x")\n9. join($1, $2).\n'
    )

    def test_a_task_is_given_out_at_its_closing_parenthesis(self) -> None:
        parser = Parser()
        assert parser.feed('1. f("a)", [2]') == []
        (task,) = parser.feed(")")
        assert isinstance(task, Task)
        assert parser.feed("  # remark") == []
        assert parser.feed("\n2. join") == []
        (join,) = parser.feed("()")
        assert isinstance(join, Join)
        assert parser.finished

    @given(st.lists(st.integers(0, len(TEXT)), max_size=12).map(sorted))
    def test_it_does_not_matter_how_the_text_is_cut(self, cuts: list[int]) -> None:
        assert pieces(self.TEXT, cuts) == pieces(self.TEXT, [])

    def test_character_by_character(self) -> None:
        items = pieces(self.TEXT, [])
        assert pieces(self.TEXT, list(range(len(self.TEXT)))) == items
        assert any(isinstance(item, ThoughtLine) for item in items)

    @given(
        st.lists(
            st.sampled_from(
                [
                    "1",
                    "2. f(",
                    "g(",
                    ")",
                    "$1",
                    "[",
                    "]",
                    "{",
                    '"',
                    "'",
                    '"""',
                    "\\",
                    "\n",
                    " ",
                    ",",
                    "=",
                    ":",
                    "a",
                    "join",
                    "()",
                    "#",
                    "Thought:",
                    "```",
                    "“",
                    "”",
                    ".",
                    "-",
                    "<END_OF_PLAN>",
                    "\n3. h(",
                    "input x",
                    'question "',
                    "\r\n",
                    "é",
                ]
            ),
            max_size=30,
        ).map("".join),
        st.randoms(use_true_random=False),
        st.sampled_from(["declare", "none"]),
    )
    def test_any_text_is_read_the_same_in_pieces_and_never_fails(
        self, text: str, rng: random.Random, inputs: Any
    ) -> None:
        cuts = sorted(rng.randint(0, len(text)) for _ in range(rng.randint(0, 6)))
        items = pieces(text, [], inputs=inputs)
        assert pieces(text, cuts, inputs=inputs) == items
        assert pieces(text, list(range(len(text))), inputs=inputs) == items
        for item in items:
            if isinstance(item, Diagnostic):
                assert item.line >= 1
                assert item.column >= 1
                assert item.render()

    def test_sources_point_at_tool_and_arguments(self) -> None:
        parser = Parser()
        parser.feed('\n1. tool("x",\n  key=[1])\n')
        source = parser.spans[1]
        tool, arg = source.span(source.tool), source.span(source.args[0])
        kwarg = source.span(source.kwargs["key"])
        assert (tool.line, tool.column, tool.end_column) == (2, 4, 8)
        assert (arg.line, arg.column, arg.end_column) == (2, 9, 12)
        assert (kwarg.line, kwarg.column, kwarg.end_column) == (3, 7, 10)

    @pytest.mark.parametrize(
        "line",
        [
            '{n}. f("some text", $1, key=[1, 2])\n',
            '{n}. f("never closed\n',
            "{n}. f([1, 2\n",
            "{n}. f(1\n",
            "{n}. f(Oslo)\n",
            "some prose (here)\n",
            "{n}. f({m})",
        ],
    )
    def test_work_grows_with_the_text_only(self, line: str) -> None:
        """Characters looked at, a count that time on any machine follows."""
        text = "1. f()\n" + "".join(line.format(n=n, m="x" * 9) for n in range(2, 2000))
        looked_at = 0

        def counted(method: Any) -> Any:
            def run(self: Any, piece: str, position: int) -> Any:
                nonlocal looked_at
                result = method(self, piece, position)
                looked_at += (result[1] if isinstance(result, tuple) else result) - position
                return result

            return run

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CallScanner, "scan", counted(CallScanner.scan))
            patch.setattr(Parser, "_scan_line", counted(Parser._scan_line))
            parser = Parser()
            parser.feed(text)
            parser.close()
        assert looked_at <= 3 * len(text)

    def test_a_json_string_is_a_string(self) -> None:
        for text in ("", "a\"b'c", "\x00\x1f\x7f\u2028", "ünï — 日本 😀", "\\n\\", "# ) ] }"):
            assert value(json.dumps(text)) == text
            assert value(json.dumps(text, ensure_ascii=False)) == text


@pytest.mark.parametrize(
    "pieces", [["\ufeff1. f()\n2. g($1)"], ["", "\ufeff", "1. f()\n", "2. g($1)"]]
)
def test_a_byte_order_mark_is_no_part_of_the_first_line(pieces: list[str]) -> None:
    parser = Parser(inputs="declare")
    for piece in pieces:
        parser.feed(piece)
    parser.close()
    assert [task.id for task in parser.plan().tasks] == [1, 2]
    assert not parser.diagnostics


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('1 country("Japan")', "E120"),
        ('a. country("x")', "E120"),
        ('\uff11. country("x")', "E120"),
        ("inptu city: string", "W114"),
        ("question", "W114"),
        ("First the country (see above)", "W114"),
        ("Thought: first the country", None),
        ("# first the country", None),
    ],
)
def test_no_line_of_a_saved_plan_is_left_out_in_silence(line: str, code: str | None) -> None:
    for mode, expected in (("declare", code), ("none", None)):
        parser = Parser(inputs=mode)  # type: ignore[arg-type]
        parser.feed(f"1. f()\n{line}\n2. g($1)\n")
        parser.close()
        assert [diagnostic.code for diagnostic in parser.diagnostics] == (
            [expected] if expected else []
        )
        assert len(parser.plan().tasks) == 2
