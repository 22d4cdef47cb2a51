"""From several candidates to one answer: seven ways.

A reducer is a function of the candidates' texts. Strategies end with one, Python calls any of them,
and plans call ``vote`` and ``concat`` as tools (``--tools llmcompiler.reasoning.reducers:TOOLS``).
Those that need a judge take a way to ask one. The module must not know where candidates come from.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from llmcompiler.errors import ToolError, UsageError
from llmcompiler.prompting.prompts import fill
from llmcompiler.reasoning.answers import extract, group, plainest
from llmcompiler.reasoning.confidence import threshold
from llmcompiler.reasoning.sandbox import Execution, Sandbox
from llmcompiler.tools.base import tool

T = TypeVar("T")

Judge: TypeAlias = Callable[[str], Awaitable[str]]
"""Asks a model one question and gives its text."""

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
    """What was made of candidates.

    Attributes:
        text: the outcome: an answer, or a whole text.
        chosen: positions of the candidates that it rests on, best first; empty if on all of them.
        why: in a sentence.
    """

    text: str
    chosen: tuple[int, ...]
    why: str


def concat(candidates: Sequence[str]) -> Reduction:
    """All candidates under each other, numbered; for merging parts, not for deciding."""
    _some(candidates)
    text = "\n\n".join(f"[{number}]\n{one.strip()}" for number, one in enumerate(candidates, 1))
    return Reduction(text, (), f"{len(candidates)} candidates in order")


def vote(candidates: Sequence[str], how: str = "auto") -> Reduction:
    """The answer that most candidates give; of equally frequent ones the earliest.

    Self-consistency (Wang et al. 2022). A candidate without an answer abstains.

    Args:
        candidates: whole texts.
        how: where in them the answer is; see ``answers.extract``.

    Raises:
        ToolError: no candidate gives an answer.
    """
    _some(candidates)
    return _most(candidates, [1.0] * len(candidates), how)


def weighted_vote(
    candidates: Sequence[str], confidences: Sequence[float], how: str = "auto"
) -> Reduction:
    """The answer with most confidence behind it, the least sure candidates left out (DeepConf).

    Args:
        candidates: whole texts.
        confidences: of each, as ``confidence.lowest_window`` gives it.
        how: where the answer is; see ``answers.extract``.

    Raises:
        UsageError: not one confidence for each candidate.
        ToolError: no candidate gives an answer.
    """
    _some(candidates)
    if len(confidences) != len(candidates):
        raise UsageError(f"{len(confidences)} confidences for {len(candidates)} candidates")
    least = threshold(confidences)
    return _most(candidates, [one if one >= least else None for one in confidences], how)


def _most(candidates: Sequence[str], weights: Sequence[float | None], how: str) -> Reduction:
    """The answer of most weight; a candidate without an answer, or without weight, abstains."""
    voters, answers = [], []
    for position, (text, weight) in enumerate(zip(candidates, weights, strict=True)):
        answer = extract(text, how)
        if answer is not None and weight is not None:
            voters.append(position)
            answers.append(answer)
    if not answers:
        raise ToolError(
            f"none of {len(candidates)} candidates gives an answer",
            hint="ask for one in a fixed form, such as a last line `Answer: ...`",
        )
    groups = [[voters[member] for member in members] for members in group(answers)]
    best = max(groups, key=lambda members: sum(weights[member] or 0.0 for member in members))
    said = [answers[voters.index(member)] for member in best]
    return Reduction(
        said[plainest(said)], tuple(best), f"{len(best)} of {len(voters)} that answer say so"
    )


async def best_of(
    candidates: Sequence[str], judge: Judge, problem: str, *, prompt: str = SCORE
) -> Reduction:
    """The candidate that a judge gives the highest score; of equal ones the earliest.

    Raises:
        ToolError: the judge gave no candidate a score. One without a score is not chosen.
    """
    _some(candidates)
    judged = await _all(
        [judge(fill(prompt, problem=problem, candidate=candidate)) for candidate in candidates]
    )
    scores = {
        position: float(found[-1])
        for position, text in enumerate(judged)
        if (found := _SCORE.findall(text))
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
    """The winner of a knock-out in pairs, for answers that cannot be voted on.

    Every pair is compared ``votes`` times, each candidate shown first in turn, because judges
    prefer a place; a draw goes to the earlier candidate.
    """
    _some(candidates)
    left = list(range(len(candidates)))
    rounds = 0

    async def compare(one: int, other: int) -> int:
        async def once(number: int) -> int:
            pair = (one, other) if number % 2 == 0 else (other, one)
            first, second = (candidates[position] for position in pair)
            found = _BETTER.findall(
                await judge(fill(prompt, problem=problem, first=first, second=second))
            )
            if not found:
                return 0
            return 1 if pair["AB".index(found[-1].upper())] == one else -1

        return one if sum(await _all([once(number) for number in range(votes)])) >= 0 else other

    while len(left) > 1:
        rounds += 1
        pairs = [left[start : start + 2] for start in range(0, len(left), 2)]
        byes = [pair[0] for pair in pairs if len(pair) == 1]
        winners = await _all([compare(*pair) for pair in pairs if len(pair) == 2])
        left = sorted([*winners, *byes])
    return Reduction(candidates[left[0]], (left[0],), f"won {rounds} rounds")


async def synthesize(
    candidates: Sequence[str], judge: Judge, problem: str, *, prompt: str = SYNTHESIZE
) -> Reduction:
    """A new solution by a model that has read all candidates and been told to doubt them."""
    _some(candidates)
    shown = concat(candidates).text
    text = await judge(fill(prompt, problem=problem, count=len(candidates), candidates=shown))
    return Reduction(text, (), f"written from {len(candidates)} candidates")


async def tests(candidates: Sequence[str], checks: Sequence[str], sandbox: Sandbox) -> Reduction:
    """The program that passes most tests; of equal ones the shortest (CodeMonkeys' order).

    Args:
        candidates: Python programs.
        checks: Python code that fails where the program before it is wrong. Where a model wrote
            it, it is evidence and no oracle.
        sandbox: where they run.
    """
    _some(candidates)
    table = await run_tests(candidates, checks, sandbox)
    order = rank(candidates, [sum(done.passed for done in row) for row in table])
    passed = sum(done.passed for done in table[order[0]])
    return Reduction(candidates[order[0]], order, f"passes {passed} of {len(checks)} tests")


async def run_tests(
    candidates: Sequence[str], checks: Sequence[str], sandbox: Sandbox
) -> list[list[Execution]]:
    """What became of every candidate with every check behind it."""
    runs = [sandbox.run(f"{one}\n\n\n{check}\n") for one in candidates for check in checks]
    done = await _all(runs)
    width = len(checks)
    return [done[start * width : (start + 1) * width] for start in range(len(candidates))]


def rank(candidates: Sequence[str], votes: Sequence[int]) -> tuple[int, ...]:
    """Positions by (-votes, length), and of equal programs only the first."""
    order = sorted(range(len(candidates)), key=lambda one: (-votes[one], len(candidates[one])))
    seen: dict[str, int] = {}
    for position in order:
        seen.setdefault("\n".join(candidates[position].split()), position)
    return tuple(seen.values())


async def _all(work: Sequence[Awaitable[T]]) -> list[T]:
    """All results in order; one failure cancels the rest."""

    async def wait(one: Awaitable[T]) -> T:
        return await one

    try:
        async with asyncio.TaskGroup() as all_of_them:
            tasks = [all_of_them.create_task(wait(one)) for one in work]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def _some(candidates: Sequence[str]) -> None:
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
