"""Self-consistency: ask the same several times and let the answers vote.

Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language Models" (2022), with
the early stopping of ESC (Li et al., "Escape Sky-high Cost", 2024): samples are drawn in windows,
and a window that is of one mind ends the vote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.reasoning.answers import group, plainest
from llmcompiler.reasoning.base import Branch, Candidate, Capability, StrategyResult


class Vote(BaseModel):
    """``width`` samples; the answer that most give, of equals the earliest.

    Attributes:
        width: most samples.
        window: samples at a time; after a window whose answers all agree, no more are drawn.
            ``None`` draws all at once, the fastest where the endpoint has room for them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "vote"
    needs: ClassVar[frozenset[Capability]] = frozenset()
    prompts: ClassVar[Mapping[str, str]] = {
        "solve": (
            "{context}{problem}\n\n"
            'Think step by step, then end with one line "Answer: ..." that holds only the answer.'
        ),
    }

    width: int = Field(default=5, ge=1)
    window: int | None = Field(default=None, ge=1)

    async def run(self, problem: str, context: str, branch: Branch) -> StrategyResult:
        """See ``Strategy.run``."""
        known = f"{context}\n\n" if context else ""
        ask = branch.prompt("solve", context=known, problem=problem)
        drawn: list[Candidate] = []
        outcome = StrategyResult("", None)
        while len(drawn) < self.width:
            size = min(self.window or self.width, self.width - len(drawn))
            window = await branch.generate(ask, n=size, label="sample")
            drawn += window
            outcome = elect(drawn)
            branch.keep(outcome)
            if len(window) < size or (self.window is not None and _unanimous(window)):
                break
        if outcome.candidates:
            branch.accept(outcome.candidates[0])
        return outcome


def elect(candidates: list[Candidate]) -> StrategyResult:
    """The outcome of a vote; those without an answer abstain."""
    voters = [one for one in candidates if one.answer is not None]
    if not voters:
        best = max(candidates, key=lambda one: one.complete)
        return StrategyResult(best.text, None, (best,), "no sample gives an answer")
    groups = group([one.answer or "" for one in voters])
    most = max(groups, key=len)
    winners = [voters[position] for position in most]
    # A bare number serves whoever reads on better than a sentence around it.
    winners.insert(0, winners.pop(plainest([one.answer or "" for one in winners])))
    losers = [one for one in candidates if one not in winners]
    return StrategyResult(
        winners[0].text,
        winners[0].answer,
        (*winners, *losers),
        f"{len(winners)} of {len(candidates)} agree",
        data={"votes": [[voters[members[0]].answer, len(members)] for members in groups]},
    )


def _unanimous(window: list[Candidate]) -> bool:
    answers = [one.answer for one in window if one.answer is not None]
    return len(answers) == len(window) and len(group(answers)) == 1
