"""Seven ways from candidates to one answer, each a function of texts."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings, strategies as st

from llmcompiler import LLMCompiler
from llmcompiler.errors import ToolError, UsageError
from llmcompiler.language import parse_plan
from llmcompiler.reasoning import reducers
from llmcompiler.reasoning.sandbox import Sandbox, missing_guards
from llmcompiler.tools.loading import load_tools

contained = pytest.mark.skipif(bool(missing_guards()), reason="code cannot be contained here")


def test_concat_keeps_everything_in_order() -> None:
    assert reducers.concat(["one ", "two"]).text == "[1]\none\n\n[2]\ntwo"


def test_the_majority_wins_across_spellings() -> None:
    reduction = reducers.vote(["Answer: 1/2", "Answer: 3", r"so \boxed{0.5}", "Answer: 50%"])
    assert (reduction.text, reduction.positions) == ("1/2", (0, 2, 3))


def test_the_majority_wins_across_sentences_and_is_given_as_a_number() -> None:
    reduction = reducers.vote(
        ["So there are 33 sheep left.", "Answer: 40", "Answer: 33", "Answer: 40.5"]
    )
    assert (reduction.text, reduction.positions) == ("33", (0, 2))


def test_a_tie_goes_to_the_earliest() -> None:
    assert reducers.vote(["Answer: 2", "Answer: 1", "Answer: 1", "Answer: 2"]).text == "2"


def test_who_gives_no_answer_abstains() -> None:
    assert reducers.vote(["", "Answer: 4"], "auto").positions == (1,)
    with pytest.raises(ToolError, match="none of 2 candidates"):
        reducers.vote(["no box", ""], "boxed")


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_a_vote_is_a_plain_majority(numbers: list[int]) -> None:
    count = Counter(numbers)
    highest_count = max(count.values())
    winner = next(number for number in numbers if count[number] == highest_count)
    assert reducers.vote([f"Answer: {number}" for number in numbers]).text == str(winner)


def test_confidence_outweighs_numbers() -> None:
    texts = ["Answer: 1", "Answer: 1", "Answer: 2"]
    assert reducers.weighted_vote(texts, [3.0, 3.0, 9.0]).text == "2"


def test_the_least_sure_do_not_vote() -> None:
    texts = ["Answer: 1"] * 2 + ["Answer: 2"] * 9
    confidences = [1.0] * 2 + [0.1] * 9
    assert reducers.weighted_vote(texts, confidences).text == "1"
    assert reducers.weighted_vote(["Answer: 1", "Answer: 2"], [0.1, 5.0]).positions == (1,)


def test_every_candidate_needs_its_confidence() -> None:
    with pytest.raises(UsageError, match="1 confidences for 2 candidates"):
        reducers.weighted_vote(["Answer: 1", "Answer: 1"], [1.0])


async def test_best_of_takes_the_highest_score_and_says_who_got_none() -> None:
    async def judge(question: str) -> str:
        for sign, reply in (("bad", "Score: 2"), ("good", "fine.\n**Score: 9/10**")):
            if sign in question:
                return reply
        return "I cannot say"

    reduction = await reducers.best_of(["bad", "odd", "good"], judge, "p?")
    assert (reduction.text, reduction.positions, reduction.why) == (
        "good",
        (2,),
        "score 9; 1 got no score",
    )
    with pytest.raises(ToolError, match="no candidate a score"):
        await reducers.best_of(["odd"], judge, "p?")


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
async def test_the_best_candidate_wins_the_tournament(count: int) -> None:
    questions = []

    async def judge(question: str) -> str:
        questions.append(question)
        first = int(question.split("Solution A:\n")[1].split()[0])
        second = int(question.split("Solution B:\n")[1].split()[0])
        return f"Better: {'A' if first > second else 'B'}"

    candidates = [str((7 * number) % 9) for number in range(count)]
    reduction = await reducers.tournament(candidates, judge, "which is largest?")
    assert reduction.text == max(candidates)
    assert len(questions) == 3 * (count - 1)


async def test_a_judge_who_prefers_a_place_decides_nothing() -> None:
    async def first_is_better(question: str) -> str:
        return "Better: A"

    pair = await reducers.tournament(["x", "y"], first_is_better, "?", votes=2)
    assert pair.positions == (0,)
    three = await reducers.tournament(["x", "y", "z"], first_is_better, "?", votes=4)
    assert three.positions == (0,)


async def test_synthesis_sees_all_and_is_told_that_they_may_be_wrong() -> None:
    async def judge(question: str) -> str:
        assert "[1]\nfirst" in question
        assert "[2]\nsecond {problem}" in question
        assert "take another route" in question
        return "third"

    assert (await reducers.synthesize(["first", "second {problem}"], judge, "p?")).text == "third"


async def test_a_failing_judge_is_the_error_itself() -> None:
    async def judge(question: str) -> str:
        raise ToolError("the judge is ill")

    with pytest.raises(ToolError, match="the judge is ill"):
        await reducers.best_of(["a", "b"], judge, "p?")


@contained
async def test_programs_are_ordered_by_the_tests_they_pass_then_by_length() -> None:
    programs = [
        "def double(x): return x ** 2",
        "def double(x):\n    twice = x + x\n    return twice",
        "def double(x): return 2 * x",
        "def double(x):  return 2 * x",
        "import not_there  # and longer than all others, to be the last of those that pass none",
    ]
    checks = ["assert double(2) == 4", "assert double(3) == 6"]
    reduction = await reducers.tests(programs, checks, Sandbox())
    assert reduction.positions == (2, 1, 0, 4)
    assert (reduction.text, reduction.why) == (programs[2], "passes 2 of 2 tests")


@pytest.mark.parametrize("name", ["concat", "vote"])
def test_nothing_to_reduce_is_an_error(name: str) -> None:
    with pytest.raises(ToolError, match="no candidates"):
        getattr(reducers, name)([])


async def test_a_plan_calls_reducers_as_tools() -> None:
    tools = load_tools("llmcompiler.reasoning.reducers:TOOLS")
    async with LLMCompiler(tools, model=None, store=":memory:") as compiler:
        plan = '1. vote(["Answer: 2", "so 2", "Answer: 3"])\n2. concat([$1, "x"])\n3. join()'
        result = await compiler.execute(parse_plan(plan))
    assert result.observations[2].value == "[1]\n2\n\n[2]\nx"
