"""Reducers: seven functions that make one answer of several candidates.

A reducer takes the candidates' texts. Strategies end with one, programs call them directly, and
plans call ``vote`` and ``concat`` as tools (``--tools llmcompiler.reasoning.reducers:TOOLS``). A
reducer that needs a judge takes a function that asks it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from llmcompiler.errors import ToolError, UsageError
from llmcompiler.prompting.prompts import fill
from llmcompiler.reasoning.answers import extract_answer, first_number_index, group_equal
from llmcompiler.reasoning.confidence import confidence_threshold
from llmcompiler.reasoning.sandbox import Execution, Sandbox
from llmcompiler.tools.base import tool

T = TypeVar("T")

Judge: TypeAlias = Callable[[str], Awaitable[str]]
"""Asks a model one question and returns its text."""

SCORE = """\
{problem}

A proposed solution:
{candidate}

Check it step by step. It may be wrong. Then end with one line "Score: N", N from 0 (wrong) to 10 \
(certainly right)."""

COMPARE = """\
{problem}

Solution A:
{first}

Solution B:
{second}

Either may be wrong. Compare them, then end with one line: "Better: A" or "Better: B"."""

SYNTHESIZE = """\
{problem}

Here are {count} attempts by others. Each may be wrong, and the most frequent answer need not be \
right:

{candidates}

Check where they differ and which steps hold. If all of them seem wrong, take another route. Then \
write one complete solution of your own that ends in the form that the question asks for."""

_SCORE = re.compile(r"score\W{0,6}(\d+(?:\.\d+)?)", re.IGNORECASE)
_BETTER = re.compile(r"better\W{0,6}\b([AB])\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reduction:
    """The result of a reducer.

    Attributes:
        text: an answer, or a whole text.
        positions: positions of the candidates that it rests on, best first; empty for all of them.
        why: the reason for the choice, in a sentence.
    """

    text: str
    positions: tuple[int, ...]
    why: str


def concat(candidates: Sequence[str]) -> Reduction:
    """Join all candidates, numbered; it merges parts and decides nothing."""
    _require_candidates(candidates)
    text = "\n\n".join(
        f"[{number}]\n{candidate.strip()}" for number, candidate in enumerate(candidates, 1)
    )
    return Reduction(text, (), f"{len(candidates)} candidates in order")


def vote(candidates: Sequence[str], how: str = "auto") -> Reduction:
    """The most frequent answer; of equally frequent answers the earliest.

    Self-consistency (Wang et al. 2022). A candidate without an answer abstains.

    Args:
        candidates: whole texts.
        how: where in a text the answer is; see ``answers.extract_answer``.

    Raises:
        ToolError: no candidate gives an answer.
    """
    _require_candidates(candidates)
    return _heaviest_answer(candidates, [1.0] * len(candidates), how)


def weighted_vote(
    candidates: Sequence[str], confidences: Sequence[float], how: str = "auto"
) -> Reduction:
    """The answer with the highest sum of confidences; the least confident candidates do not vote.

    The weighting of DeepConf.

    Args:
        candidates: whole texts.
        confidences: one for each candidate; see ``confidence.lowest_window``.
        how: where in a text the answer is; see ``answers.extract_answer``.

    Raises:
        UsageError: the numbers of confidences and candidates differ.
        ToolError: no candidate gives an answer.
    """
    _require_candidates(candidates)
    if len(confidences) != len(candidates):
        raise UsageError(f"{len(confidences)} confidences for {len(candidates)} candidates")
    threshold = confidence_threshold(confidences)
    weights = [confidence if confidence >= threshold else None for confidence in confidences]
    return _heaviest_answer(candidates, weights, how)


def _heaviest_answer(
    candidates: Sequence[str], weights: Sequence[float | None], how: str
) -> Reduction:
    """The answer with the highest sum of weights; without an answer or a weight, one abstains."""
    voters, answers = [], []
    for position, (text, weight) in enumerate(zip(candidates, weights, strict=True)):
        answer = extract_answer(text, how)
        if answer is not None and weight is not None:
            voters.append(position)
            answers.append(answer)
    if not answers:
        raise ToolError(
            f"none of {len(candidates)} candidates gives an answer",
            hint="ask for one in a fixed form, such as a last line `Answer: ...`",
        )
    groups = [[voters[member] for member in members] for members in group_equal(answers)]
    winners = max(groups, key=lambda members: sum(weights[member] or 0.0 for member in members))
    winning_answers = [answers[voters.index(member)] for member in winners]
    answer = winning_answers[first_number_index(winning_answers)]
    return Reduction(answer, tuple(winners), f"{len(winners)} of {len(voters)} that answer say so")


async def best_of(
    candidates: Sequence[str], judge: Judge, problem: str, *, prompt: str = SCORE
) -> Reduction:
    """The candidate with the highest score of a judge; of equal scores the earliest.

    A candidate without a score is never chosen.

    Raises:
        ToolError: the judge gave no candidate a score.
    """
    _require_candidates(candidates)
    judgements = await _gather_all(
        [judge(fill(prompt, problem=problem, candidate=candidate)) for candidate in candidates]
    )
    scores = {
        position: float(scores_in_text[-1])
        for position, text in enumerate(judgements)
        if (scores_in_text := _SCORE.findall(text))
    }
    if not scores:
        raise ToolError("the judge gave no candidate a score", hint="take another judge or a vote")
    best = max(scores, key=lambda position: scores[position])
    unscored = len(candidates) - len(scores)
    why = f"score {scores[best]:g}" + (f"; {unscored} got no score" if unscored else "")
    return Reduction(candidates[best], (best,), why)


async def tournament(
    candidates: Sequence[str],
    judge: Judge,
    problem: str,
    *,
    votes: int = 3,
    prompt: str = COMPARE,
) -> Reduction:
    """The winner of a knock-out tournament, for answers that cannot be voted on.

    A judge compares every pair ``votes`` times. The order of the two alternates, because judges
    prefer a position. A draw goes to the earlier candidate.
    """
    _require_candidates(candidates)
    remaining = list(range(len(candidates)))
    rounds = 0

    async def compare(first: int, second: int) -> int:
        async def compare_once(number: int) -> int:
            pair = (first, second) if number % 2 == 0 else (second, first)
            first_text, second_text = (candidates[position] for position in pair)
            verdicts = _BETTER.findall(
                await judge(fill(prompt, problem=problem, first=first_text, second=second_text))
            )
            if not verdicts:
                return 0
            return 1 if pair["AB".index(verdicts[-1].upper())] == first else -1

        balance = sum(await _gather_all([compare_once(number) for number in range(votes)]))
        return first if balance >= 0 else second

    while len(remaining) > 1:
        rounds += 1
        pairs = [remaining[start : start + 2] for start in range(0, len(remaining), 2)]
        byes = [pair[0] for pair in pairs if len(pair) == 1]
        winners = await _gather_all([compare(*pair) for pair in pairs if len(pair) == 2])
        remaining = sorted([*winners, *byes])
    return Reduction(candidates[remaining[0]], (remaining[0],), f"won {rounds} rounds")


async def synthesize(
    candidates: Sequence[str], judge: Judge, problem: str, *, prompt: str = SYNTHESIZE
) -> Reduction:
    """A new solution, written by a model that reads all candidates and is told to doubt them."""
    _require_candidates(candidates)
    joined = concat(candidates).text
    text = await judge(fill(prompt, problem=problem, count=len(candidates), candidates=joined))
    return Reduction(text, (), f"written from {len(candidates)} candidates")


async def tests(candidates: Sequence[str], checks: Sequence[str], sandbox: Sandbox) -> Reduction:
    """The program that passes most tests; of equal programs the shortest (CodeMonkeys' order).

    Args:
        candidates: Python programs.
        checks: Python code that runs after a program and fails if the program is wrong. A check
            that a model wrote is only evidence.
        sandbox: runs the programs.
    """
    _require_candidates(candidates)
    table = await run_tests(candidates, checks, sandbox)
    order = rank_programs(candidates, [sum(execution.passed for execution in row) for row in table])
    passed = sum(execution.passed for execution in table[order[0]])
    return Reduction(candidates[order[0]], order, f"passes {passed} of {len(checks)} tests")


async def run_tests(
    candidates: Sequence[str], checks: Sequence[str], sandbox: Sandbox
) -> list[list[Execution]]:
    """Run every candidate with every check appended; one row for each candidate."""
    runs = [sandbox.run(f"{program}\n\n\n{check}\n") for program in candidates for check in checks]
    executions = await _gather_all(runs)
    width = len(checks)
    return [executions[start * width : (start + 1) * width] for start in range(len(candidates))]


def rank_programs(candidates: Sequence[str], votes: Sequence[int]) -> tuple[int, ...]:
    """Positions sorted by (-votes, length), without programs equal to an earlier one."""
    order = sorted(range(len(candidates)), key=lambda at: (-votes[at], len(candidates[at])))
    first_positions: dict[str, int] = {}
    for position in order:
        first_positions.setdefault("\n".join(candidates[position].split()), position)
    return tuple(first_positions.values())


async def _gather_all(awaitables: Sequence[Awaitable[T]]) -> list[T]:
    """Await all and return the results in order; one failure cancels the others."""

    async def wait(awaitable: Awaitable[T]) -> T:
        return await awaitable

    try:
        async with asyncio.TaskGroup() as task_group:
            tasks = [task_group.create_task(wait(awaitable)) for awaitable in awaitables]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


def _require_candidates(candidates: Sequence[str]) -> None:
    if not candidates:
        raise ToolError("there are no candidates to reduce")


@tool(name="vote")
def _vote_tool(candidates: list[str]) -> str:
    """The answer that most of the candidates give.

    Args:
        candidates: texts of the candidates.
    """
    return vote(candidates).text


@tool(name="concat")
def _concat_tool(candidates: list[str]) -> str:
    """All candidates under each other, numbered.

    Args:
        candidates: texts of the candidates.
    """
    return concat(candidates).text


TOOLS = [_vote_tool, _concat_tool]
"""The reducers that need no model, as tools of a plan."""
