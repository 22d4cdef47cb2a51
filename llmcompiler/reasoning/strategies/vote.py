"""Self-consistency: ask the same question several times and let the answers vote.

Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language Models" (2022), with
the early stopping of ESC (Li et al., "Escape Sky-high Cost", 2024): samples are drawn in windows,
and a window whose answers all agree ends the vote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.reasoning.answers import first_number_index, group_equal
from llmcompiler.reasoning.base import Branch, Candidate, Capability, StrategyResult, context_prefix


class Vote(BaseModel):
    """``width`` samples; the most frequent answer wins, and of equally frequent ones the earliest.

    Attributes:
        width: most samples.
        window: samples drawn at a time; after a window whose answers all agree, sampling stops.
            ``None`` draws all in parallel, which is fastest if the endpoint has enough slots.
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
        context_part = context_prefix(context)
        prompt = branch.prompt("solve", context=context_part, problem=problem)
        samples: list[Candidate] = []
        result = StrategyResult("", None)
        while len(samples) < self.width:
            size = min(self.window or self.width, self.width - len(samples))
            window = await branch.generate(prompt, n=size, label="sample")
            samples += window
            result = elect(samples)
            branch.keep(result)
            if len(window) < size or (self.window is not None and _unanimous(window)):
                break
        if result.candidates:
            branch.accept(result.candidates[0])
        return result


def elect(candidates: list[Candidate]) -> StrategyResult:
    """Let the candidates vote; a candidate without an answer abstains."""
    voters = [candidate for candidate in candidates if candidate.answer is not None]
    if not voters:
        fallback = max(candidates, key=lambda candidate: candidate.complete)
        return StrategyResult(fallback.text, None, (fallback,), "no sample gives an answer")
    groups = group_equal([candidate.answer or "" for candidate in voters])
    largest_group = max(groups, key=len)
    winners = [voters[position] for position in largest_group]
    # A bare number serves later readers better than a sentence around it.
    winners.insert(
        0, winners.pop(first_number_index([candidate.answer or "" for candidate in winners]))
    )
    losers = [candidate for candidate in candidates if candidate not in winners]
    return StrategyResult(
        winners[0].text,
        winners[0].answer,
        (*winners, *losers),
        f"{len(winners)} of {len(candidates)} agree",
        data={"votes": [[voters[members[0]].answer, len(members)] for members in groups]},
    )


def _unanimous(window: list[Candidate]) -> bool:
    answers = [candidate.answer for candidate in window if candidate.answer is not None]
    return len(answers) == len(window) and len(group_equal(answers)) == 1
